"""Pictures of what an extractor found: a few frames, and what it made of each beside them. H, W pixels."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import flow_to_image

from stages.io.files import replacing
from stages.io.frames import FrameStore
from stages.videos import FRAMES

PREVIEWS = Path("metrics/previews")
Image = UInt8[np.ndarray, "_ _ 3"]
"""Red first; a panel may have another size than its neighbours."""


def shown_frames(videos: pd.DataFrame, count: int = 3) -> list[tuple[str, int, Image]]:
    """Video, frame and image (red first) of the middle frames of `count` videos, evenly spread over the table."""
    chosen = videos.iloc[np.unique(np.linspace(0, len(videos) - 1, count).round().astype(int))]
    return [
        (video, frames // 2, FrameStore(FRAMES / f"{video}.arrow")[frames // 2][..., ::-1].copy())
        for video, frames in zip(chosen.video, chosen.frames, strict=True)
    ]


def draw_preview(name: str, title: str, rows: list[tuple[str, list[Image]]]) -> None:
    """Write metrics/previews/<name>.png: a line of text and its panels side by side, for each row."""
    columns = max(len(panels) for _, panels in rows)
    height, width = rows[0][1][0].shape[:2]
    figure = Figure((4 * columns, len(rows) * (4 * height / width + 0.35) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (text, panels) in zip(axes, rows, strict=True):
        for axis in line:
            axis.set_axis_off()
        for axis, panel in zip(line, panels, strict=False):
            axis.imshow(panel, aspect="auto" if panel.shape[:2] != (height, width) else "equal")
        line[0].set_title(text, fontsize=8, loc="left")
    with replacing(PREVIEWS / f"{name}.png") as path:
        figure.savefig(path, dpi=100, metadata={"Software": None})


def flow_colours(flow: Float[Tensor, "2 H W"], scale: float) -> UInt8[np.ndarray, "H W 3"]:
    """Direction as hue, length as saturation, full at `scale`; red first."""
    # torchvision takes the largest length of what it is given for the full colour
    mark = torch.tensor([scale, 0.0]).view(2, 1, 1).expand(2, flow.shape[1], 1)
    return flow_to_image(torch.cat([flow, mark], 2))[:, :, :-1].permute(1, 2, 0).numpy()
