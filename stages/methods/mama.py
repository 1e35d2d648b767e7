"""MAMA's scoring: "Making Anomalies More Anomalous", IEEE Access 12, pages 36712 to 36726, 2024.

The generator predicts a frame and says how far off its motion and label features are; the Destroyer makes of a bad
prediction a worse one. Both are trained by modules of their own: `mama_generator` and `mama_destroyer`.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from stages.command import VigilError
from stages.io.models import Model
from stages.methods import mama_destroyer, mama_generator
from stages.methods.mama_generator import AXES, INPUT_FRAMES, SCORED_AT_ONCE, Batch, Inputs
from stages.run import Run

COMPONENTS = [*mama_generator.COMPONENTS, "destroyed"]
PARTS = {"net_g": "generator", "net_a": "destroyer"}  # the authors' names and ours


class Network(nn.Module):
    """Generator and Destroyer, one after the other, as they score."""

    def __init__(self, recipe):
        super().__init__()
        self.generator = mama_generator.Network(recipe.generator.width)
        self.destroyer = mama_destroyer.Network(recipe.destroyer.width)

    def forward(self, frames: Tensor, motion: Tensor, labels: Tensor) -> tuple[mama_generator.Output, Tensor]:
        """What the generator gives, and what the Destroyer makes of its prediction (B, 3, H, W)."""
        output = self.generator(frames, motion, labels)
        return output, self.destroyer(output.frame)


def components(network: Network, batch: Batch, axis: int) -> Tensor:
    """What frames are scored by, (B, 4), in the order of COMPONENTS: distances of features along `axis`, and errors."""
    output, worse = network(batch.frames, batch.motion, batch.labels)
    destroyed = mama_generator.frame_errors(worse, batch.target)
    return torch.cat([mama_generator.components(output, batch.target, axis), destroyed[:, None]], 1)


@torch.inference_mode()
def score(run: Run, recipe, generator: Model, destroyer: Model) -> tuple[pd.DataFrame, float]:
    """Components of every frame that has the frames before it, and those that earlier checkpoints would have given.

    Returns a row a frame and checkpoint (video, split, frame, checkpoint, components), and frames a second. The
    checkpoint of what is scored is "chosen"; other rows are of test videos alone: "100", where the Destroyer had taken
    so many steps and the generator was the chosen one; "generator 1000", where the generator had and there was no
    Destroyer yet. Raises VigilError where flow or labels are absent or of another size.
    """
    run = mama_generator.resumable(run)
    network = Network(recipe)
    network.generator.load_state_dict(generator.network)
    network.destroyer.load_state_dict(destroyer.network)
    network.to(run.device).to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
    axis = AXES[recipe.generator.triplet_axis]

    def load(videos: pd.DataFrame) -> dict[str, Inputs]:
        pixels = run.pixels(videos, recipe.generator.size)
        return {video: Inputs({video: frames}) for video, frames in pixels.items()}

    def score_video(inputs: Inputs, split: str, state: None) -> tuple[pd.DataFrame, None]:
        parts = [torch.empty(0, len(COMPONENTS), device=run.device)]
        for batch in inputs.in_order(SCORED_AT_ONCE, run.device):
            parts.append(components(network, batch, axis))
        values = torch.cat(parts).double().cpu().numpy()
        frames = np.arange(INPUT_FRAMES, INPUT_FRAMES + len(values), dtype=np.int32)
        return pd.DataFrame(
            {"frame": frames, "checkpoint": "chosen"} | dict(zip(COMPONENTS, values.T, strict=True))
        ), None

    chosen, speed = run.score_videos(load, score_video)
    return pd.concat([chosen, *earlier(chosen, generator, destroyer)], ignore_index=True), speed


def earlier(chosen: pd.DataFrame, generator: Model, destroyer: Model) -> Iterator[pd.DataFrame]:
    """Rows of all checkpoints, from the models' histories; none of an imported model."""
    columns = list(chosen.columns)
    if len(destroyer.history):
        fixed = chosen.query("split == 'test'").drop(columns=["checkpoint", "destroyed"])
        rows = destroyer.history.merge(fixed, on=["video", "split", "frame"], validate="many_to_one")
        yield rows.filter(columns)
    if len(generator.history):
        rows = generator.history.assign(checkpoint="generator " + generator.history.checkpoint, destroyed=np.nan)
        yield rows.filter(columns)


def cost_input(recipe, generator: Model, destroyer: Model) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The networks, and the input with which one frame is scored: what parameters and GMAC are counted on."""
    size = recipe.generator.size
    network = Network(recipe)
    channels = (getattr(network.generator, f"inc_{branch}").conv.conv[0].in_channels for branch in "xyz")
    return network, tuple(torch.zeros(1, count, size, size) for count in channels)


def from_authors(files: list, recipe) -> dict[str, Model]:
    """The authors' generator (`g_best_auc_*.pth`), or both networks (`a_best_auc_*.pth`), as models of their parts.

    The discriminator, the optimisers and the authors' lists of figures are left. Raises VigilError where a file is
    missing, or a parameter is missing, unknown or of another shape.
    """
    if len(files) != 1:
        raise VigilError(f"found {len(files)} files, expected one: a_best_auc_*.pth, or g_best_auc_*.pth")
    (content,) = files
    found = [name for name in PARTS if isinstance(content, dict) and isinstance(content.get(name), dict)]
    if "net_g" not in found:
        names = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise VigilError(f"found {names}; expected a dictionary with the state dictionaries net_g and, perhaps, net_a")
    network = Network(recipe)
    models = {}
    for name in found:
        part = PARTS[name]
        tensors = content[name]
        expected = {key: tuple(tensor.shape) for key, tensor in network.get_submodule(part).state_dict().items()}
        for key in [*expected, *tensors]:
            shape = tuple(tensors[key].shape) if isinstance(tensors.get(key), Tensor) else "missing"
            if shape != expected.get(key, "no such parameter"):
                raise VigilError(
                    f"{name}: {key}: found {shape}, expected {expected.get(key, 'no such parameter')}; params.yaml "
                    f"gives mama.{part}.width {getattr(recipe, part).width}"
                )
        models[part] = Model(dict(tensors), {})
    return models
