"""Training and scoring of the networks with a memory: MNAD both ways, and LGN-Net (MNAD, sections 3.2 and 3.3).

Shapes: B clips, T frames a clip, H = W = size, h = w = size / 8, D channels at the bottleneck, S memories, M items.
"""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from tqdm import tqdm

from stages.clips import Clips
from stages.command import VigilError
from stages.io.frames import resized
from stages.io.maps import SIDE, packed
from stages.io.models import Model
from stages.methods import memory
from stages.methods.maps import error_map
from stages.run import Run
from stages.training import resumable_epochs

ENCODED_AT_ONCE = 16  # clips; the encoder does not see the memory, so it need not go frame by frame
SMALLEST_MSE = 1e-10  # a perfect frame's PSNR is 100 dB, not infinite


class Network(nn.Module):
    """What the networks share: encode a clip, ask the memory, decode a frame. Subclasses define both ends."""

    input_frames: int
    predicts: bool  # whether the target is the frame after the input, or the input itself

    def encode(self, clip: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B D h w"], tuple[Tensor, ...]]:
        """Features that the memory is asked for, and whatever goes round the memory."""
        raise NotImplementedError

    def decode(
        self, query: Float[Tensor, "B D h w"], read: Float[Tensor, "B D h w"], around: tuple[Tensor, ...]
    ) -> Float[Tensor, "B 3 H W"]:
        """A frame in (-1, 1) from normalised features, what the memory returned, and what went round it."""
        raise NotImplementedError

    def recall(
        self, features: Float[Tensor, "B D h w"], around: tuple[Tensor, ...], items: Float[Tensor, "S M D"]
    ) -> tuple[Tensor, Tensor]:
        """Decode B clips with one memory (S = 1), or one clip with S memories (B = 1).

        Returns the frames, (B, 3, H, W) or (S, 3, H, W), and the queries, (1, B h w, D).
        """
        height, width = features.shape[-2:]
        queries = memory.queries_of(features)
        read = memory.as_map(memory.read(queries, items), height, width)
        query = memory.as_map(queries, height, width)
        query, *beside = (part.expand(len(read), -1, -1, -1) for part in (query, *around))
        return self.decode(query, read, tuple(beside)), queries

    def forward(self, clip: Float[Tensor, "B C H W"], items: Float[Tensor, "1 M D"]) -> tuple[Tensor, Tensor]:
        """Frames (B, 3, H, W) and queries (1, B h w, D)."""
        return self.recall(*self.encode(clip), items)


class Memory(nn.Module):
    """Items that a checkpoint holds beside the network: state, not a parameter."""

    items: Tensor

    def __init__(self, items: Float[Tensor, "1 M D"]):
        super().__init__()
        self.register_buffer("items", items)


def clip_length(network_class: type[Network]) -> int:
    """Frames in a clip: the input, and the target where it is another frame."""
    return network_class.input_frames + network_class.predicts


def input_and_target(clip: Float[Tensor, "B T 3 H W"], input_frames: int) -> tuple[Tensor, Tensor]:
    """The frames that the network sees, their channels joined, and the last one, which it should give."""
    return clip[:, :input_frames].flatten(1, 2), clip[:, -1]


def losses(
    frame: Float[Tensor, "B 3 H W"],
    target: Float[Tensor, "B 3 H W"],
    queries: Float[Tensor, "1 N D"],
    items: Float[Tensor, "1 M D"],
) -> Float[Tensor, "3"]:
    """The three terms of equation 7: mean squared error in [-1, 1], compactness, separateness."""
    error = (frame - target).square().mean()
    return torch.stack([error, memory.compactness(queries, items).mean(), memory.separateness(queries, items)])


def fit(network_class: type[Network], run: Run, recipe) -> Model:
    """Train on the normal videos: Adam, a cosine schedule over the epochs, the last epoch is kept.

    Every step reads the memory and takes its losses with the items from before the step, steps the network, then
    replaces the items. Raises VigilError for too few frames, and where the loss stops being a number.
    """
    recipe = recipe.fit
    torch.manual_seed(run.seed)
    network = network_class(recipe.width).to(run.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    state = Memory(memory.initial_items(recipe.items, 8 * recipe.width)).to(run.device)
    optimiser = torch.optim.Adam(network.parameters(), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(recipe.epochs, 1))
    weights = torch.tensor([1.0, recipe.lambda_compact, recipe.lambda_separate], device=run.device)
    clips = Clips(run.pixels(run.split("train"), recipe.size), clip_length(network_class))
    steps = len(clips) // recipe.batch
    if steps == 0:
        raise VigilError(
            f"the training videos give {len(clips)} clips of {clips.length} frames, less than one batch of "
            f"{recipe.batch}: add training frames, or lower fit.batch"
        )
    network.train()
    curve: list[dict[str, float]] = []
    parts = {"network": network, "memory": state, "optimiser": optimiser, "schedule": schedule}
    for epoch in resumable_epochs(recipe.epochs, run.scratch, parts, curve):
        sums = torch.zeros(3, device=run.device)
        batches = clips.batches(recipe.batch, run.seed, epoch)
        bar = tqdm(batches, f"epoch {epoch + 1}/{recipe.epochs}", steps, unit="step", disable=None)
        for step, index in enumerate(bar, 1):
            x, target = input_and_target(clips.read(index, run.device), network.input_frames)
            with run.autocast():
                frame, queries = network(x, state.items)
            terms = losses(frame.float(), target, queries.float(), state.items)
            optimiser.zero_grad()
            (weights @ terms).backward()
            optimiser.step()
            state.items = memory.update(queries.float(), state.items)
            sums += terms.detach()
            if step % 20 == 0:  # seldom: a look at the loss waits for the GPU
                bar.set_postfix(loss=f"{(weights @ sums).item() / step:.4f}")
        prediction, compactness, separateness = (sums / steps).tolist()
        loss = (weights @ sums).item() / steps
        if not np.isfinite(loss):
            raise VigilError(f"the loss became {loss} in epoch {epoch + 1}: lower fit.learning_rate")
        rate = optimiser.param_groups[0]["lr"]
        curve.append(
            dict(loss=loss, prediction=prediction, compactness=compactness, separateness=separateness, rate=rate)
        )
        schedule.step()
    return Model(network.state_dict(), {"items": state.items[0]}, pd.DataFrame(curve))


@torch.inference_mode()
def score(network_class: type[Network], run: Run, recipe, model: Model) -> tuple[pd.DataFrame, float]:
    """PSNR and feature distance of every frame that has the frames before it, with two memories in one pass.

    Both start as trained. `carried` goes on from one test video to the next, in their order, as the authors' code
    does; `reset` starts anew in every video, and alone scores the training videos.

    Returns a row a frame (video, split, frame, components, and the error map of `reset`), and frames a second.
    """
    network, trained = loaded(network_class, recipe, model, run.device)
    length = clip_length(network_class)

    def score_video(pixels: np.ndarray, split: str, carried: Tensor) -> tuple[pd.DataFrame, Tensor]:
        memories = ["reset", "carried"] if split == "test" else ["reset"]
        items = torch.cat([trained, carried])[: len(memories)]
        values = [torch.empty(0, 2, len(memories), device=run.device)]
        maps = [torch.empty(0, SIDE, SIDE, device=run.device)]
        clips = Clips({"": pixels}, length)
        for index in clips.in_order(ENCODED_AT_ONCE):
            found, where, items = scored(network, clips.read(index, run.device), items, recipe.score.gamma)
            values.append(found)
            maps.append(where)
        array = torch.cat(values).double().cpu().numpy()
        table = pd.DataFrame({"frame": np.arange(length - 1, length - 1 + len(array), dtype=np.int32)})
        for k, name in enumerate(memories):
            table[f"psnr_{name}"], table[f"feature_distance_{name}"] = array[..., k].T
        table["map"] = packed(torch.cat(maps).cpu().numpy())
        return table, items[1:] if split == "test" else carried

    return run.score_videos(lambda videos: run.pixels(videos, recipe.fit.size), score_video, trained)


def stream(
    network_class: type[Network],
    inputs: Iterator[UInt8[np.ndarray, "_ _ *C"]],
    recipe,
    models: Sequence[Model],
    device: torch.device,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """What `score` gives with the memory `reset`, of the frames of one video as they come.

    Yields each frame's number, and its columns: of one row, or of none where it lacks the frames before it.
    """
    (model,) = models
    network, items = loaded(network_class, recipe, model, device)
    length = clip_length(network_class)
    recent: deque[np.ndarray] = deque(maxlen=length)
    for number, frame in enumerate(inputs):
        recent.append(resized(frame, recipe.fit.size))
        values, maps = torch.empty(0, 2, 1), torch.empty(0, SIDE, SIDE)
        if len(recent) == length:
            clip = Clips({"": np.stack(recent)}, length)
            values, maps, items = scored(network, clip.read(clip.starts, device), items, recipe.score.gamma)
        psnr, distance = values[..., 0].double().cpu().numpy().T
        yield number, {"psnr_reset": psnr, "feature_distance_reset": distance, "map": maps.cpu().numpy()}


def loaded(network_class: type[Network], recipe, model: Model, device: torch.device) -> tuple[Network, Tensor]:
    """The trained network on the device, ready to score, and the memory items (1, M, D)."""
    network = network_class(recipe.fit.width)
    network.load_state_dict(model.network)
    network.to(device).to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
    return network, model.state["items"].to(device)[None]


@torch.inference_mode()
def scored(
    network: Network, clips: Float[Tensor, "B T 3 H W"], items: Float[Tensor, "S M D"], gamma: float
) -> tuple[Float[Tensor, "B 2 S"], Float[Tensor, "B side side"], Float[Tensor, "S M D"]]:
    """Score consecutive clips of one video with S memories, each of which learns from the frames on its way.

    Returns PSNR and feature distance, the first memory's error maps, and the items after the last clip.
    """
    x, targets = input_and_target(clips, network.input_frames)
    features, around = network.encode(x)
    values, first = [], []
    for i, target in enumerate(targets):
        frames, queries = network.recall(features[i : i + 1], tuple(part[i : i + 1] for part in around), items)
        psnr, distance, error = components(frames, target, queries, items)
        values.append(torch.stack([psnr, distance]))
        first.append(frames[0])
        learns = (error < gamma)[:, None, None]
        items = torch.where(learns, memory.update(queries, items), items)
    return torch.stack(values), error_map(torch.stack(first), targets), items


def cost_input(network_class: type[Network], recipe, model: Model) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network, and the input with which one frame is scored: what parameters and GMAC are counted on."""
    size = recipe.fit.size
    return network_class(recipe.fit.width), (
        torch.zeros(1, 3 * network_class.input_frames, size, size),
        model.state["items"][None],
    )


def components(
    frames: Float[Tensor, "S 3 H W"],
    target: Float[Tensor, "3 H W"],
    queries: Float[Tensor, "1 N D"],
    items: Float[Tensor, "S M D"],
) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"], Float[Tensor, " S"]]:
    """Of one frame under S memories: PSNR in dB, feature distance, and the weighted error of equation 13.

    All errors are of pixels in [0, 1]. The weighted error decides whether the memory may learn from the frame;
    the authors' code weighs each element, not each pixel.
    """
    error = ((frames - target) / 2).square().flatten(1)
    psnr = -10 * error.mean(1).clamp_min(SMALLEST_MSE).log10()
    weight = -torch.expm1(-error)
    gate = (weight * error).sum(1) / weight.sum(1)
    return psnr, memory.compactness(queries, items), gate


def from_authors(files: list, recipe) -> Model:
    """The authors' network (a state dictionary) and memory items (a tensor, M x D) as a model.

    Raises VigilError where a file is missing or of another form.
    """
    if len(files) != 2:
        raise VigilError(f"found {len(files)} file(s), expected two: the network's, then the memory items'")
    network, items = files
    if not isinstance(network, dict):
        raise VigilError(f"network: found {type(network).__name__}, expected a state dictionary or a whole module")
    shape = (recipe.fit.items, 8 * recipe.fit.width)
    if not isinstance(items, Tensor) or items.shape != shape:
        found = tuple(items.shape) if isinstance(items, Tensor) else type(items).__name__
        raise VigilError(f"memory items: found {found}, expected a tensor of shape {shape}")
    return Model(dict(network), {"items": items.float()})
