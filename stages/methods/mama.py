"""MAMA's scoring: "Making Anomalies More Anomalous", IEEE Access 12, pages 36712 to 36726, 2024.

The generator predicts a frame and says how far off its motion and label features are; the Destroyer makes of a bad
prediction a worse one. Both are trained by modules of their own: `mama_generator` and `mama_destroyer`.
"""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.command import VigilError
from stages.io.frames import resized
from stages.io.maps import SIDE, packed
from stages.io.models import Model
from stages.io.segments import STRIDE
from stages.methods import mama_destroyer, mama_generator
from stages.methods.mama_generator import AXES, INPUT_FRAMES, SCORED_AT_ONCE, Batch, Inputs, read_inputs
from stages.methods.maps import error_map
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


def loaded(recipe, generator: Model, destroyer: Model, device: torch.device) -> Network:
    """The trained networks on the device, ready to score."""
    network = Network(recipe)
    network.generator.load_state_dict(generator.network)
    network.destroyer.load_state_dict(destroyer.network)
    return network.to(device).to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]


@torch.inference_mode()
def scored(network: Network, batch: Batch, axis: int) -> tuple[Float[Tensor, "B 4"], Float[Tensor, "B side side"]]:
    """What frames are scored by, in the order of COMPONENTS, and the error maps of their prediction.

    Distances of features are taken along `axis`.
    """
    output, worse = network(batch.frames, batch.motion, batch.labels)
    destroyed = mama_generator.frame_errors(worse, batch.target)
    values = torch.cat([mama_generator.components(output, batch.target, axis), destroyed[:, None]], 1)
    return values, error_map(output.frame, batch.target)


def score(run: Run, recipe, generator: Model, destroyer: Model) -> tuple[pd.DataFrame, float]:
    """Components of every frame that has the frames before it, and those that earlier checkpoints would have given.

    Returns a row a frame and checkpoint (video, split, frame, checkpoint, components, map), and frames a second. The
    checkpoint of what is scored is "chosen"; other rows are of test videos alone: "100", where the Destroyer had taken
    so many steps and the generator was the chosen one; "generator 1000", where the generator had and there was no
    Destroyer yet; they have no map. Raises VigilError where flow or labels are absent or of another size.
    """
    run = run.keyed_by(mama_generator.files(run.videos))
    network = loaded(recipe, generator, destroyer, run.device)
    axis = AXES[recipe.generator.triplet_axis]

    def load(videos: pd.DataFrame) -> dict[str, Inputs]:
        pixels = run.pixels(videos, recipe.generator.size)
        return {video: read_inputs({video: frames}) for video, frames in pixels.items()}

    def score_video(inputs: Inputs, split: str, state: None) -> tuple[pd.DataFrame, None]:
        parts = [(torch.empty(0, len(COMPONENTS), device=run.device), torch.empty(0, SIDE, SIDE, device=run.device))]
        for batch in inputs.in_order(SCORED_AT_ONCE, run.device):
            parts.append(scored(network, batch, axis))
        values, maps = (torch.cat(part).double().cpu().numpy() for part in zip(*parts, strict=True))
        frames = np.arange(INPUT_FRAMES, INPUT_FRAMES + len(values), dtype=np.int32)
        table = {"frame": frames, "checkpoint": "chosen"} | dict(zip(COMPONENTS, values.T, strict=True))
        return pd.DataFrame(table | {"map": packed(maps)}), None

    chosen, speed = run.score_videos(load, score_video)
    return pd.concat([chosen, *earlier(chosen, generator, destroyer)], ignore_index=True), speed


def earlier(chosen: pd.DataFrame, generator: Model, destroyer: Model) -> Iterator[pd.DataFrame]:
    """Rows of all checkpoints, from the models' histories; none of an imported model."""
    columns = list(chosen.columns)
    if len(destroyer.history):
        fixed = chosen.query("split == 'test'").drop(columns=["checkpoint", "destroyed", "map"])
        rows = destroyer.history.merge(fixed, on=["video", "split", "frame"], validate="many_to_one")
        yield rows.assign(map=None).filter(columns)
    if len(generator.history):
        rows = generator.history.assign(checkpoint="generator " + generator.history.checkpoint, destroyed=np.nan)
        yield rows.assign(map=None).filter(columns)


def stream(
    inputs: Iterator[tuple], recipe, models: Sequence[Model], device: torch.device
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """What `score` gives, of the frames of one video as they come: each frame's number, and its row or none.

    `inputs` yields each frame, the flow from the frame before to it, None of the first, and its labels, both as their
    stages store them. Raises VigilError where these are of another size.
    """
    generator, destroyer = models
    network, axis = loaded(recipe, generator, destroyer, device), AXES[recipe.generator.triplet_axis]
    recent: deque[tuple] = deque(maxlen=INPUT_FRAMES + 1)
    for number, (frame, flow, labels) in enumerate(inputs):
        height, width = (STRIDE * side for side in labels.shape[1:])
        mama_generator.check_size("the stream", (height, width), recipe.generator.size, "segments.size and flow.mama")
        recent.append((resized(frame, recipe.generator.size), flow, labels))
        values, maps = torch.empty(0, len(COMPONENTS)), torch.empty(0, SIDE, SIDE)
        if len(recent) == INPUT_FRAMES + 1:
            pixels, to_next, of_labels = zip(*recent, strict=True)
            clip = Inputs({"": np.stack(pixels)}, [np.stack(to_next[1:])], [np.stack(of_labels)])
            values, maps = scored(network, clip.read(clip.clips.starts, device), axis)
        columns = dict(zip(COMPONENTS, values.double().cpu().numpy().T, strict=True))
        yield number, columns | {"map": maps.cpu().numpy()}


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
