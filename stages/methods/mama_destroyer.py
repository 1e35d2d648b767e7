"""MAMA's Destroyer: "Making Anomalies More Anomalous", IEEE Access 12, pages 36712 to 36726, 2024.

The generator predicts what is normal well. The Destroyer, a U-Net from a frame to a frame, learns to keep what was
predicted well and to turn the rest into a background. What was predicted badly is made: parts of the predictions of
normal clips are dropped. When testing it is given the predictions as they are; where they are bad, it makes their
error larger.

Shapes: B clips, H = W = size, P = (size / 32)^2 patches of a frame, row by row.
"""

from collections.abc import Iterator
from math import ceil, prod
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from stages.clips import Clips
from stages.io.files import replacing
from stages.io.models import Model
from stages.methods import mama_generator
from stages.methods.blocks import Down, First, Up
from stages.methods.mama_generator import best, check_finite, keep
from stages.run import Run, held_out
from stages.training import resumable_epochs
from stages.videos import check_space, prefetched

PATCH = 32  # pixels, side
WINDOW, SIGMA = 11, 1.5  # pixels, of the structural similarity's Gaussian
CONTRAST = 4  # by which dissimilarity is multiplied: a patch of similarity 0.75 is destroyed wholly
LEAST, MOST = 0.05, 0.5  # of the patches and, in them, of the channels that are dropped
HELD_OUT_CLIPS = 256  # at most, that choose the checkpoint
AT_ONCE = 16  # clips
CLIP = mama_generator.INPUT_FRAMES + 1  # frames
TRAINING, HELD_OUT = 1, 2  # each has random numbers of its own


class Network(nn.Module):
    """A U-Net with three steps down and up; frames (B, 3, H, W) to frames in (-1, 1)."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.inc = First(3, width)
        self.down1 = Down(width, 2 * width)
        self.down2 = Down(2 * width, 4 * width)
        self.down3 = Down(4 * width, 8 * width)
        self.up1 = Up(8 * width, 4 * width)
        self.up2 = Up(4 * width, 2 * width)
        self.up3 = Up(2 * width, width)
        self.outc = nn.Conv2d(width, 3, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.02)

    def forward(self, frames: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """What the Destroyer makes of predictions."""
        x1 = self.inc(frames)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x = self.down3(x3)
        return self.outc(self.up3(self.up2(self.up1(x, x3), x2), x1)).tanh()


def patches(frames: Float[Tensor, "B C H W"]) -> Float[Tensor, "B P C 32 32"]:
    """The frames cut into squares, row by row."""
    rows = frames.unflatten(-1, (-1, PATCH)).unflatten(-3, (-1, PATCH))
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def drop(frames: Float[Tensor, "B 3 H W"], rng: np.random.Generator) -> Float[Tensor, "B 3 H W"]:
    """Frames with patches of which colour channels are dropped.

    Two fractions between 0.05 and 0.5 are drawn, rounded to hundredths: how likely a patch is chosen, at the same
    places in all frames, and how likely each of its channels becomes 0, mid-grey. The chosen patches' other channels
    are divided by the likelihood to stay, as published: they may leave [-1, 1].
    """
    batch, channels, height, width = frames.shape
    grid = (height // PATCH, width // PATCH)
    of_patches, of_channels = (round(LEAST + (MOST - LEAST) * u, 2) for u in rng.random(2))
    chosen = rng.random(grid) < of_patches
    kept = rng.random((batch, channels, *grid)) >= of_channels
    factor = np.where(chosen, kept / (1 - of_channels), 1).astype(np.float32)
    return frames * F.interpolate(torch.from_numpy(factor).to(frames.device), scale_factor=PATCH)


def smoothing(side: int, device: torch.device) -> Float[Tensor, "inner side"]:
    """The matrix that takes Gaussian means along an axis, where the whole window is inside: inner = side - 10."""
    inner, outer = (torch.arange(n, device=device) for n in (side - WINDOW + 1, side))
    place = outer - inner[:, None] - WINDOW // 2
    weight = torch.exp(-place.square() / (2 * SIGMA**2)) * (place.abs() <= WINDOW // 2)
    return weight / weight.sum(1, keepdim=True)


@torch.no_grad()
def similarity(first: Float[Tensor, "N C H W"], second: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Structural similarity of each pair of images, the mean of its map, all in one call (Wang et al., 2004).

    The range of values is taken for 2 where the first image has one below -0.5, else for 1, as published. The
    Gaussian means are products with two matrices: nothing is convolved, and single precision stays single on a GPU.
    """
    height, width = first.shape[-2:]
    maps = torch.stack([first, second, first * first, second * second, first * second])
    means = smoothing(height, first.device) @ maps @ smoothing(width, first.device).T
    mean1, mean2 = means[:2]
    variance1, variance2 = means[2] - mean1**2, means[3] - mean2**2
    covariance = means[4] - mean1 * mean2
    span = torch.where(first.amin((1, 2, 3), keepdim=True) < -0.5, 2.0, 1.0)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    structure = (2 * covariance + c2) / (variance1 + variance2 + c2)
    return (luminance * structure).mean((1, 2, 3))


def gate(noisy: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B P"]:
    """How much of each patch is to be destroyed, 0 to 1: four times its dissimilarity to the true frame, at most 1."""
    found = similarity(patches(noisy).flatten(0, 1), patches(target).flatten(0, 1))
    return (CONTRAST * (1 - found)).clamp(max=1).unflatten(0, (len(noisy), -1))


def losses(
    output: Float[Tensor, "B 3 H W"],
    prediction: Float[Tensor, "B 3 H W"],
    noisy: Float[Tensor, "B 3 H W"],
    target: Float[Tensor, "B 3 H W"],
    background: float,
) -> Float[Tensor, " B"]:
    """Each clip's loss, a sum over its patches: what is to be destroyed should be background, the rest the prediction.

    No gradient goes through the gate: what it compares is constant.
    """
    to_background, to_prediction = (
        F.avg_pool2d((output - wanted).square().mean(1, keepdim=True), PATCH).flatten(1)
        for wanted in (background, prediction)
    )
    destroyed = gate(noisy, target)
    return (destroyed * to_background + (1 - destroyed) * to_prediction).sum(1)


class Predictions:
    """Clips of some videos with what the generator, which no longer changes, predicts of each.

    Predictions are made once, when first asked for, and kept in half precision in the run's scratch folder.
    """

    def __init__(self, clips: Clips, index: Int[np.ndarray, "N 2"], path: Path):
        self.clips = clips
        self.index = index
        self.path = path

    def __len__(self) -> int:
        return len(self.index)

    @torch.inference_mode()
    def make(self, generator: mama_generator.Network, size: int, device: torch.device) -> None:
        """Predict all clips, unless that was done. Raises VigilError where the disk is too small."""
        if self.path.exists() or not len(self):
            return
        shape = (len(self), 3, size, size)
        check_space(2 * prod(shape), self.path.parent, "what the generator predicts")
        with replacing(self.path) as temporary:
            kept = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
            clips = prefetched(self.clips.read(self.index[part], device) for part in self._parts(AT_ONCE))
            bar = tqdm(clips, f"predictions ({self.path.stem})", ceil(len(self) / AT_ONCE), unit="batch", disable=None)
            for part, batch in zip(self._parts(AT_ONCE), bar, strict=True):
                kept[part] = generator.predict(batch[:, :-1].flatten(1, 2)).half().cpu().numpy()
            kept.flush()

    def batches(self, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Predictions and true frames, both (B, 3, H, W), in the order of the clips, read ahead."""
        if not len(self):
            return
        kept = np.load(self.path, mmap_mode="r")

        def read(part: slice) -> tuple[Tensor, Tensor]:
            predicted = torch.from_numpy(np.array(kept[part])).to(device).float()
            return predicted, self.clips.read(self.index[part], device)[:, -1]

        yield from prefetched(read(part) for part in self._parts(size))

    def _parts(self, size: int) -> list[slice]:
        return [slice(start, start + size) for start in range(0, len(self), size)]


def fit(run: Run, recipe, generator: Model) -> Model:
    """Train the Destroyer on predictions of the normal videos: AdamW, a constant rate; the generator is as it was.

    After every `validate_every` steps the loss of up to 256 clips of the held-out training videos is taken, with the
    same parts dropped each time; the Destroyer with the lowest is kept, the last one where no video is held out. The
    test videos' errors are recorded each time, too, but decide nothing. Raises VigilError for too few frames, and where
    the loss stops being a number.
    """
    size = recipe.generator.size
    predictor = mama_generator.Network(recipe.generator.width)
    predictor.load_state_dict(generator.network)
    predictor.to(run.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)  # pyright: ignore[reportCallIssue]
    recipe = recipe.destroyer
    kept, held = held_out(run.split("train"), recipe.held_out)
    clips = Clips(run.pixels(kept, size), CLIP)
    videos = run.videos.query("split == 'test'")
    test = Clips(run.pixels(videos, size), CLIP)
    test = Predictions(test, test.starts, run.scratch / "test.npy")
    test.make(predictor, size, run.device)
    judge = None
    if len(held):
        held = Clips(run.pixels(held, size), CLIP)
        chosen = np.linspace(0, len(held) - 1, min(len(held), HELD_OUT_CLIPS)).round().astype(int)
        judge = Predictions(held, held.starts[chosen], run.scratch / "held-out.npy")
        judge.make(predictor, size, run.device)
    torch.manual_seed(run.seed)
    network = Network(recipe.width).to(run.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    curve: list[dict[str, int | float]] = []
    stretches = mama_generator.intervals(recipe)
    parts = {"network": network, "optimiser": optimiser}
    for interval in resumable_epochs(len(stretches), run.scratch, parts, curve):
        steps = stretches[interval]
        network.train(interval == 0 or recipe.batch_norm == "trained")
        loss = train(run, recipe, clips, steps, predictor, network, optimiser)
        network.eval()
        row: dict[str, int | float] = {"iterations": steps.stop, "loss": loss}
        error = held_out_loss(network, judge, recipe, run) if judge else None
        check_finite(row, error, "mama.destroyer")
        keep(run, network, row, error, recorded(network, test, videos.video.to_numpy(), run.device), curve)
    return best(run, network, curve)


def train(
    run: Run,
    recipe,
    clips: Clips,
    steps: range,
    generator: mama_generator.Network,
    network: Network,
    optimiser: torch.optim.Optimizer,
) -> float:
    """Take some steps; returns the mean loss of a clip."""
    total = torch.zeros((), device=run.device)
    indices = mama_generator.sampled(clips, run.seed, steps, recipe.batch)
    batches = prefetched(clips.read(index, run.device) for index in indices)
    bar = tqdm(batches, f"iterations {steps.start + 1} to {steps.stop}", len(steps), unit="step", disable=None)
    for step, batch in zip(steps, bar, strict=True):
        with torch.no_grad(), run.autocast():
            prediction = generator.predict(batch[:, :-1].flatten(1, 2)).float()
        noisy = drop(prediction, np.random.default_rng((run.seed, step, TRAINING)))
        with run.autocast():
            output = network(noisy)
        loss = losses(output.float(), prediction, noisy, batch[:, -1], recipe.background).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.detach() / recipe.batch
        if (done := step - steps.start + 1) % 20 == 0:  # seldom: a look at the loss waits for the GPU
            bar.set_postfix(loss=f"{total.item() / done:.4f}")
    return total.item() / len(steps)


@torch.inference_mode()
def held_out_loss(network: Network, predictions: Predictions, recipe, run: Run) -> float:
    """The mean loss of a clip that was not trained on. The same parts are always dropped."""
    parts = [torch.empty(0, device=run.device)]
    for i, (prediction, target) in enumerate(predictions.batches(recipe.batch, run.device)):
        noisy = drop(prediction, np.random.default_rng((run.seed, i, HELD_OUT)))
        parts.append(losses(network(noisy), prediction, noisy, target, recipe.background))
    return torch.cat(parts).double().mean().item()


@torch.inference_mode()
def recorded(network: Network, predictions: Predictions, names: np.ndarray, device: torch.device) -> pd.DataFrame:
    """`destroyed` of all frames of the test videos that have the frames before them: a row a frame."""
    parts = [torch.empty(0, device=device)]
    for prediction, target in predictions.batches(AT_ONCE, device):
        parts.append(mama_generator.frame_errors(network(prediction), target))
    video, start = predictions.index.T
    table = {"video": names[video], "split": "test", "frame": (start + CLIP - 1).astype(np.int32)}
    return pd.DataFrame(table | {"destroyed": torch.cat(parts).double().cpu().numpy()})
