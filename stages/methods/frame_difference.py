"""Frame difference: the floor. How much a frame differs from the one before it; nothing is trained.

Shapes: T frames, H = W = size.
"""

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8

from stages.io.frames import resized
from stages.io.maps import SIDE, packed
from stages.io.models import Model
from stages.run import Run


def score(run: Run, recipe) -> tuple[pd.DataFrame, float]:
    """Mean and peak difference, and the error map, of every frame but a video's first.

    Returns a row a frame, and frames a second.
    """

    def score_video(pixels: np.ndarray, split: str, state: None) -> tuple[pd.DataFrame, None]:
        found = [values for values in differences(pixels, recipe.score.blur) if values is not None]
        table = pd.DataFrame({"frame": np.arange(1, len(pixels), dtype=np.int32)})
        for k, name in enumerate(("mean", "peak")):
            table[name] = np.array([values[k] for values in found], np.float64)
        table["map"] = packed(np.reshape([where for _, _, where in found], (-1, SIDE, SIDE)))
        return table, None

    return run.score_videos(lambda videos: run.pixels(videos, recipe.score.size), score_video)


def stream(
    inputs: Iterator[UInt8[np.ndarray, "_ _ *C"]], recipe, models: Sequence[Model], device: torch.device
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """What `score` gives, of the frames of one video as they come: each frame's number, and its row or none."""
    frames = (resized(frame, recipe.score.size) for frame in inputs)
    for number, values in enumerate(differences(frames, recipe.score.blur)):
        mean, peak, where = [np.array([value]) for value in values] if values else np.empty((3, 0))
        yield number, {"mean": mean, "peak": peak, "map": where.reshape(-1, SIDE, SIDE)}


def differences(
    pixels: Iterable[UInt8[np.ndarray, "H W C"]], blur: int
) -> Iterator[tuple[float, float, Float[np.ndarray, "side side"]] | None]:
    """Grey difference of each frame from the one before it, pixels in [0, 1]; None of the first.

    Mean of its square, maximum of its box-blurred size, and the root of the mean of its square in each cell.
    """
    before = None
    for frame in pixels:
        grey = frame[..., 0] if frame.shape[-1] == 1 else cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        grey = grey.astype(np.float32) / 255
        if before is None:
            yield None
        else:
            difference = cv2.absdiff(grey, before)
            square = np.square(difference)
            where = np.sqrt(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            yield float(square.mean(dtype=np.float64)), float(cv2.blur(difference, (blur, blur)).max()), where
        before = grey
