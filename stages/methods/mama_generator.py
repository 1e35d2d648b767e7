"""MAMA's generator, F2LM: "Making Anomalies More Anomalous", IEEE Access 12, pages 36712 to 36726, 2024.

A U-Net with three encoders predicts a frame from the four before it. The features of the frames are transformed into
those of the frames' optical flow and of what their pixels belong to ("motion" and "label" features), and all three are
fused for the prediction. Flow and labels themselves only say how far off the transformed features are. What was never
normal is predicted badly, and its features are transformed badly.

Shapes: B clips, H = W = size, h = H / 8, D = 8 width channels at the bottleneck, T frames of a video.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from stages.clips import Clips
from stages.command import VigilError
from stages.io.files import replacing
from stages.io.flow import FLOW, read_description, read_flow
from stages.io.models import Model
from stages.io.segments import CLASSES, SEGMENTS, STRIDE, read_segments
from stages.methods.blocks import DoubleConv, Down, First, Up
from stages.run import Run, held_out
from stages.training import resumable_epochs
from stages.videos import prefetched

INPUT_FRAMES = 4
FLOW_UNIT = 255  # pixels; the authors divide the flow by it
SLOPE = 0.2  # of the discriminator's leaky ReLUs
MARGIN = 0.2  # of the triplet loss
EPSILON = 1e-6  # added to differences before their norm, as PyTorch's PairwiseDistance does
AXES = {"width": -1, "channels": 1}
COMPONENTS = ["motion", "label", "prediction"]
TERMS = ["intensity", "gradient", "adversarial", "motion", "label"]
SCORED_AT_ONCE = 8  # clips


class Batch(NamedTuple):
    """Clips and what belongs to them."""

    frames: Float[Tensor, "B 12 H W"]  # frame by frame, blue first, -1..1
    motion: Float[Tensor, "B 6 H W"]  # flow from each frame to the next, x then y, in units of FLOW_UNIT
    labels: Float[Tensor, "B 84 H W"]  # frame by frame, logits of the classes
    target: Float[Tensor, "B 3 H W"]  # the frame after


class Output(NamedTuple):
    """The predicted frame, and features (B, D, h, h), normalised over the channels."""

    frame: Float[Tensor, "B 3 H W"]
    frames: Float[Tensor, "B D h h"]  # of the frames
    motion: Float[Tensor, "B D h h"]  # of the flow
    to_motion: Float[Tensor, "B D h h"]  # of the frames, transformed into the flow's
    label: Float[Tensor, "B D h h"]  # of the labels
    to_label: Float[Tensor, "B D h h"]  # of the frames, transformed into the labels'


class SqueezeExcite(nn.Module):
    """Each channel times a factor in (0, 1) that the means of all channels give."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // 8)
        self.fc2 = nn.Linear(channels // 8, channels)

    def forward(self, x: Float[Tensor, "B D h h"]) -> Float[Tensor, "B D h h"]:
        """The scaled features."""
        return x * self.fc2(F.relu(self.fc1(x.mean((2, 3))))).sigmoid()[:, :, None, None]


class Network(nn.Module):
    """The generator. Attribute names are those of the authors' checkpoints: x frames, y motion, z labels."""

    def __init__(self, width: int = 64):
        super().__init__()
        pairs = INPUT_FRAMES - 1
        for name, inputs in (("x", 3 * INPUT_FRAMES), ("y", 2 * pairs), ("z", CLASSES * INPUT_FRAMES)):
            self.add_module(f"inc_{name}", First(inputs, width))
            for level in (1, 2, 3):
                self.add_module(f"down{level}_{name}", Down(2 ** (level - 1) * width, 2**level * width))
        self.transform_xtoy = DoubleConv(8 * width, 8 * width)
        self.transform_xtoz = DoubleConv(8 * width, 8 * width)
        self.fusion_conv = DoubleConv(3 * 8 * width, 8 * width)
        self.se = SqueezeExcite(8 * width)
        self.up1 = Up(8 * width, 4 * width)
        self.up2 = Up(4 * width, 2 * width)
        self.up3 = Up(2 * width, width)
        self.outc = nn.Conv2d(width, 3, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def encode(self, branch: str, x: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Four levels of the branch "x", "y" or "z": width at H, .. 8 width at H / 8."""
        levels = [self.get_submodule(f"inc_{branch}")(x)]
        for level in (1, 2, 3):
            levels.append(self.get_submodule(f"down{level}_{branch}")(levels[-1]))
        return levels

    def _from_frames(self, frames: Float[Tensor, "B 12 H W"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The frame after, and the features of the frames, and those made of them for motion and labels."""
        *skips, x = self.encode("x", frames)
        to_motion, to_label = self.transform_xtoy(x), self.transform_xtoz(x)
        up = self.se(self.fusion_conv(torch.cat([x, to_motion, to_label], 1)))
        for block, skip in zip((self.up1, self.up2, self.up3), reversed(skips), strict=True):
            up = block(up, skip)
        return self.outc(up).tanh(), x, to_motion, to_label

    def predict(self, frames: Float[Tensor, "B 12 H W"]) -> Float[Tensor, "B 3 H W"]:
        """The frame after, in (-1, 1): needs neither flow nor labels."""
        return self._from_frames(frames)[0]

    def forward(
        self, frames: Float[Tensor, "B 12 H W"], motion: Float[Tensor, "B 6 H W"], labels: Float[Tensor, "B 84 H W"]
    ) -> Output:
        """Prediction and features."""
        frame, *of_frames = self._from_frames(frames)
        x, to_motion, to_label = of_frames
        y, z = self.encode("y", motion)[-1], self.encode("z", labels)[-1]
        features = (F.normalize(feature.float()) for feature in (x, y, to_motion, z, to_label))
        return Output(frame.float(), *features)


class Discriminator(nn.Module):
    """pix2pix's discriminator of patches, without normalisation: 1 where it takes a patch for a true one."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 2 * width, 4, stride=2, padding=2),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=2),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(4 * width, 8 * width, 4, stride=2, padding=2),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(8 * width, 8 * width, 4, padding=2),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(8 * width, 1, 4, padding=2),
            nn.Sigmoid(),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, frame: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 P P"]:
        """P = H / 8 + 3 patches in each direction."""
        return self.net(frame).float()


class Inputs:
    """Clips of some videos with the flow and the labels of their frames, read from memory maps when asked for."""

    def __init__(self, pixels: dict[str, np.ndarray], flow: Sequence[np.ndarray], labels: Sequence[np.ndarray]):
        """`pixels`: video -> uint8 (T, H, W, C); flow and labels of each as the stages store them, for frames H x W."""
        self.names = np.array(list(pixels), dtype=object)
        self.clips = Clips(pixels, INPUT_FRAMES + 1)
        self.flow = flow
        self.labels = labels

    def read(self, index: Int[np.ndarray, "B 2"], device: torch.device) -> Batch:
        """The clips at rows (video, first frame); what is stored small is enlarged on the device."""
        clips = self.clips.read(index, device)
        flow = np.stack([self.flow[video][start : start + INPUT_FRAMES - 1] for video, start in index])
        labels = np.stack([self.labels[video][start : start + INPUT_FRAMES] for video, start in index])
        motion = torch.from_numpy(flow).to(device).permute(0, 1, 4, 2, 3).flatten(1, 2).float() / FLOW_UNIT
        logits = torch.from_numpy(labels).to(device).flatten(1, 2).float()
        motion = enlarged(motion, clips.shape[-1] // motion.shape[-1])
        return Batch(clips[:, :-1].flatten(1, 2), motion, enlarged(logits, STRIDE), clips[:, -1])

    def in_order(self, size: int, device: torch.device) -> Iterator[Batch]:
        """Every clip once, in temporal order, read ahead."""
        return prefetched(self.read(index, device) for index in self.clips.in_order(size))


def files(videos: pd.DataFrame) -> list[Path]:
    """The files of flow and of labels, of all training and test videos."""
    names = videos.query("split != ''").video
    return [folder / f"{video}.npy" for folder in (FLOW / "mama", SEGMENTS) for video in names]


def read_inputs(pixels: dict[str, np.ndarray]) -> Inputs:
    """Videos, uint8 (T, H, W, C), and their flow and labels. Raises VigilError where these are absent or do not fit."""
    reduce, flows, logits = read_description("mama")["reduce"], [], []
    for video, frames in pixels.items():
        flow, labels = read_flow("mama", video), read_segments(video)
        of_flow, of_labels = f"{FLOW}/mama/{video}.npy", f"{SEGMENTS}/{video}.npy"
        height, width = (reduce * side for side in flow.shape[1:3])
        check_size(of_flow, (height, width), frames.shape[1], "flow.mama.height and .width")
        height, width = (STRIDE * side for side in labels.shape[2:])
        check_size(of_labels, (height, width), frames.shape[1], "segments.size")
        for path, found, stage in ((of_flow, flow, "flow-mama"), (of_labels, labels, "segments")):
            if len(found) != len(frames):
                raise VigilError(
                    f"{path}: found {len(found)} frames, the video has {len(frames)}: run "
                    f"`dvc repro stages/dvc.yaml:{stage}`"
                )
        flows.append(flow)
        logits.append(labels)
    return Inputs(pixels, flows, logits)


def check_size(what: str, found: tuple[int, int], size: int, keys: str) -> None:
    """Raise VigilError unless flow or labels were made from frames of the generator's size."""
    if found != (size, size):
        raise VigilError(
            f"{what}: found {found[0]} x {found[1]} pixels, mama.generator.size is {size}: set {keys} to {size}, or "
            f"mama.generator.size to {found[0]}"
        )


def enlarged(planes: Float[Tensor, "B C h w"], by: int) -> Float[Tensor, "B C H W"]:
    """Bilinear, as FlowNet2-SD and DeepLabv3 enlarge what they give."""
    return F.interpolate(planes, scale_factor=by, mode="bilinear") if by > 1 else planes


def sampled(clips: Clips, seed: int, steps: range, size: int) -> Iterator[Int[np.ndarray, "B 2"]]:
    """Yield the batches of training steps, each a function of seed and step alone.

    Passes follow each other, each with one clip of every video, in an order of its own. A video's clips come in an
    order of its own too, all of them before any comes again. Raises VigilError where there is no clip.
    """
    counts = np.bincount(clips.starts[:, 0])
    videos = np.flatnonzero(counts)
    if not len(videos):
        raise VigilError(f"no training video has {clips.length} frames, which make a clip: see data/videos.parquet")

    def clip(place: int) -> tuple[int, int]:
        turn, position = divmod(place, len(videos))
        video = int(np.random.default_rng((seed, turn)).permutation(videos)[position])
        turn, position = divmod(turn, int(counts[video]))
        return video, np.random.default_rng((seed, turn, 1 + video)).permutation(counts[video])[position].item()

    for step in steps:
        yield np.array([clip(place) for place in range(step * size, (step + 1) * size)])


def intervals(recipe) -> list[range]:
    """The training steps before each validation; the last interval may be shorter."""
    starts = range(0, recipe.iterations, recipe.validate_every)
    return [range(start, min(start + recipe.validate_every, recipe.iterations)) for start in starts]


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, axis: int) -> Float[Tensor, " B"]:
    """Each clip's mean of how much less than MARGIN nearer the anchor is to the positive than to the negative.

    A distance is a norm along `axis` of the difference of two maps of features. The authors' code takes it along the
    width, since PyTorch's PairwiseDistance does; the features are normalised along the channels.
    """
    near, far = (torch.linalg.vector_norm(anchor - other + EPSILON, dim=axis) for other in (positive, negative))
    return (MARGIN + near - far).clamp_min(0).flatten(1).mean(1)


def edges(frame: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, Tensor]:
    """How much each value differs from the one to its right, and from the one below; outside the frame is 0."""
    return F.pad(frame, (0, 1, 0, 0)).diff(dim=-1).abs(), F.pad(frame, (0, 0, 0, 1)).diff(dim=-2).abs()


def losses(output: Output, target: Float[Tensor, "B 3 H W"], judged: Tensor, axis: int) -> Float[Tensor, "5"]:
    """The terms of the generator's loss, in the order of TERMS, before they are weighed.

    `judged` is what the discriminator says of the predicted frame; TERMS' motion and label are triplet losses.
    """
    pairs = zip(edges(output.frame), edges(target), strict=True)
    return torch.stack(
        [
            (output.frame - target).square().mean(),
            torch.stack([(one - other).abs().mean() for one, other in pairs]).sum(),
            (judged - 1).square().mean() / 2,
            *(part.mean() for part in distances(output, axis)),
        ]
    )


def discriminator_loss(real: Tensor, predicted: Tensor) -> Float[Tensor, ""]:
    """Least squares: what the discriminator says of true frames should be 1, of predicted ones 0."""
    return (real - 1).square().mean() / 2 + predicted.square().mean() / 2


def distances(output: Output, axis: int) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Of each clip, how far off motion and label features are: triplet losses."""
    return (
        triplet(output.to_motion, output.motion, output.frames, axis),
        triplet(output.to_label, output.label, output.frames, axis),
    )


def frame_errors(frame: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """Each frame's mean squared error, of pixels in 0..1."""
    return ((frame - target) / 2).square().flatten(1).mean(1)


def components(output: Output, target: Float[Tensor, "B 3 H W"], axis: int) -> Float[Tensor, "B 3"]:
    """What frames are scored by, in the order of COMPONENTS."""
    return torch.stack([*distances(output, axis), frame_errors(output.frame, target)], 1)


def fit(run: Run, recipe) -> Model:
    """Train generator and discriminator against each other on the normal videos; AdamW, constant rates.

    After every `validate_every` steps the held-out training videos are predicted; the generator with the lowest error
    is kept, the last one where none is held out. The components of the test videos are recorded each time, too, but
    decide nothing. Batch norm is trained until the first validation; after it, as the authors' code has it, only where
    the recipe says so. Raises VigilError for too few frames, for flow or labels that are absent or of another size,
    and where the loss stops being a number.
    """
    recipe = recipe.generator
    run = run.keyed_by(files(run.videos))
    kept, held = held_out(run.split("train"), recipe.held_out)
    test = run.videos.query("split == 'test'")
    inputs, test = (read_inputs(run.pixels(part, recipe.size)) for part in (kept, test))
    clips_held = None if held.empty else Clips(run.pixels(held, recipe.size), INPUT_FRAMES + 1)
    torch.manual_seed(run.seed)
    network, discriminator = (
        built.to(run.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        for built in (Network(recipe.width), Discriminator(recipe.width))
    )
    parts = {
        "network": network,
        "discriminator": discriminator,
        "optimiser": torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay),
        "discriminator_optimiser": torch.optim.AdamW(
            discriminator.parameters(), recipe.discriminator_rate, weight_decay=recipe.weight_decay
        ),
    }
    curve: list[dict[str, int | float]] = []
    stretches = intervals(recipe)
    for interval in resumable_epochs(len(stretches), run.scratch, parts, curve):
        steps = stretches[interval]
        network.train(interval == 0 or recipe.batch_norm == "trained")
        row = train(run, recipe, inputs, steps, **parts)
        network.eval()
        error = held_out_error(network, clips_held, run.device) if clips_held else None
        check_finite(row, error, "mama.generator")
        keep(run, network, row, error, recorded(network, test, AXES[recipe.triplet_axis], run.device), curve)
    return best(run, network, curve)


def check_finite(row: dict[str, int | float], error: float | None, part: str) -> None:
    """Raise VigilError where an interval's loss, or the error of the videos held out, is not a number."""
    if not np.isfinite([row["loss"], error or 0]).all():
        raise VigilError(
            f"the loss became {row['loss']}, the held-out error {error} after {row['iterations']} iterations: lower "
            f"{part}.learning_rate"
        )


def keep(
    run: Run,
    network: nn.Module,
    row: dict[str, int | float],
    error: float | None,
    history: pd.DataFrame,
    curve: list[dict[str, int | float]],
) -> None:
    """Finish an interval: its row goes into the curve, what the test videos got and the best network to the disk.

    The best has the lowest `error` of the held-out videos, the first of several; without one, it is the last.
    """
    if error is None or all(error < before["held_out"] for before in curve):
        with replacing(run.scratch / "best.pt") as temporary:
            torch.save(network.state_dict(), temporary)
    history.insert(0, "checkpoint", str(row["iterations"]))
    with replacing(run.scratch / f"history-{len(curve)}.parquet") as temporary:
        history.to_parquet(temporary, index=False)
    curve.append(row | {"held_out": np.nan if error is None else error})


def best(run: Run, network: nn.Module, curve: list[dict[str, int | float]]) -> Model:
    """The best network of all intervals, with the curve and the history of all."""
    network.load_state_dict(torch.load(run.scratch / "best.pt", map_location=run.device))
    history = [pd.read_parquet(run.scratch / f"history-{interval}.parquet") for interval in range(len(curve))]
    return Model(network.state_dict(), {}, pd.DataFrame(curve), pd.concat(history, ignore_index=True))


def train(
    run: Run,
    recipe,
    inputs: Inputs,
    steps: range,
    network: nn.Module,
    discriminator: nn.Module,
    optimiser: torch.optim.Optimizer,
    discriminator_optimiser: torch.optim.Optimizer,
) -> dict[str, int | float]:
    """Take some steps of both networks, first the generator's, then the discriminator's; returns the mean losses."""
    weights = torch.tensor(
        [1.0, recipe.lambda_gradient, recipe.lambda_adversarial, recipe.lambda_triplet, recipe.lambda_triplet],
        device=run.device,
    )
    sums = torch.zeros(len(TERMS) + 1, device=run.device)
    batches = prefetched(
        inputs.read(index, run.device) for index in sampled(inputs.clips, run.seed, steps, recipe.batch)
    )
    bar = tqdm(batches, f"iterations {steps.start + 1} to {steps.stop}", len(steps), unit="step", disable=None)
    for step, batch in enumerate(bar, 1):
        discriminator.requires_grad_(False)  # the generator's step needs no gradient of its parameters
        with run.autocast():
            output = network(batch.frames, batch.motion, batch.labels)
            judged = discriminator(output.frame)
        terms = losses(output, batch.target, judged, AXES[recipe.triplet_axis])
        optimiser.zero_grad()
        (weights @ terms).backward()
        optimiser.step()
        discriminator.requires_grad_(True)
        with run.autocast():
            real, predicted = discriminator(torch.cat([batch.target, output.frame.detach()])).chunk(2)
        loss = discriminator_loss(real, predicted)
        discriminator_optimiser.zero_grad()
        loss.backward()
        discriminator_optimiser.step()
        sums += torch.cat([terms, loss[None]]).detach()
        if step % 20 == 0:  # seldom: a look at the loss waits for the GPU
            bar.set_postfix(loss=f"{(weights @ sums[:-1]).item() / step:.4f}")
    means = sums / len(steps)
    return {
        "iterations": steps.stop,
        "loss": (weights @ means[:-1]).item(),
        **dict(zip([*TERMS, "discriminator"], means.tolist(), strict=True)),
    }


@torch.inference_mode()
def held_out_error(network: Network, clips: Clips, device: torch.device) -> float:
    """The mean prediction error of videos that were not trained on."""
    parts = []
    for batch in prefetched(clips.read(index, device) for index in clips.in_order(SCORED_AT_ONCE)):
        parts.append(frame_errors(network.predict(batch[:, :-1].flatten(1, 2)), batch[:, -1]))
    return torch.cat(parts).double().mean().item()


@torch.inference_mode()
def recorded(network: nn.Module, inputs: Inputs, axis: int, device: torch.device) -> pd.DataFrame:
    """Components of all frames of the test videos that have the frames before them: a row a frame."""
    parts = [torch.empty(0, len(COMPONENTS), device=device)]
    for batch in inputs.in_order(SCORED_AT_ONCE, device):
        parts.append(components(network(batch.frames, batch.motion, batch.labels), batch.target, axis))
    video, start = inputs.clips.starts.T
    table = {"video": inputs.names[video], "split": "test", "frame": (start + INPUT_FRAMES).astype(np.int32)}
    return pd.DataFrame(table | dict(zip(COMPONENTS, torch.cat(parts).double().cpu().numpy().T, strict=True)))
