"""STATE: "Making Reconstruction-based Method Great Again for Video Anomaly Detection", Wang et al., ICDM 2022.

Every object is a cube: a box cut from seven consecutive frames. One convolutional transformer reconstructs the cube,
another one estimates its optical flow, both from the cube's pixels. Trained on normal objects, they do it worse for
what is not normal. When testing, the pixels are first moved a little against the gradient of the error, which helps
normal objects more than others.

Shapes: B objects, T frames, S = height = width of a cube, C = 4 width channels in the encoder, h = S / 4, A heads.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from tqdm import tqdm

from stages.command import VigilError
from stages.io.files import replacing
from stages.io.models import Model
from stages.io.objects import OBJECTS, read_objects
from stages.methods.blocks import double_conv
from stages.run import Run
from stages.training import resumable_epochs
from stages.videos import prefetched

POSITIONS = 10  # rows of the table of positions: the longest cube
GROUPS = 4  # of the group normalisation
SLOPE = 0.2  # of the leaky ReLUs
ADAM_EPSILON = 1e-7
SCORED_AT_ONCE = 64  # objects
PUBLISHED_SHAPE = (7, 32)  # frames and pixels of the authors' cubes


class Attention(nn.Module):
    """Every frame looks at all frames, at each pixel by itself, with A heads.

    The heads are the groups of grouped convolutions. The map of a pair of frames is a convolution of the query of one
    and the key of the other, joined. Before its leaky ReLU it is linear, hence a sum: of a map of the one frame, one of
    the other, and those of their positions. That is 2 T convolutions of half the channels instead of T^2, and neither
    pairs nor frames with their positions added are ever held in memory.
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(channels, channels, 3, padding=1, groups=heads)
        self.key_value = nn.Conv2d(channels, channels, 3, padding=1, groups=heads)
        self.pair = nn.Conv2d(2 * channels, heads, 3, padding=1, groups=heads)
        for parameter in self.parameters():  # the authors' heads are copies of one
            head = parameter.data[: len(parameter) // heads]
            parameter.data.copy_(head.repeat(heads, *[1] * (parameter.ndim - 1)))

    def logits(
        self, query: Float[Tensor, "B T C h w"], key: Float[Tensor, "B T C h w"], position: Float[Tensor, "T c"]
    ) -> Float[Tensor, "B T T A h w"]:
        """How much frame t (the first T) looks at frame s (the second), before the softmax over s."""
        of_query, of_key = (self._dense(half) for half in self.pair.weight.chunk(2, 1))
        place = position.repeat(1, self.heads)[:, :, None, None].expand(query.shape[1:])

        def maps(frames: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            content = F.conv2d(frames.flatten(0, 1), weight, bias, padding=1)
            return content.unflatten(0, frames.shape[:2]) + F.conv2d(place, weight, padding=1)

        return F.leaky_relu(maps(query, of_query, self.pair.bias)[:, :, None] + maps(key, of_key)[:, None], SLOPE)

    def _dense(self, weight: Float[Tensor, "A c 3 3"]) -> Float[Tensor, "A C 3 3"]:
        """The weight of a grouped convolution with zeros between the groups: faster with one output a group."""
        return torch.block_diag(*weight.flatten(1)).view(self.heads, -1, 3, 3)

    def forward(self, x: Float[Tensor, "B T C h w"], position: Float[Tensor, "T c"]) -> Float[Tensor, "B T C h w"]:
        """The heads' outputs, joined. `position` is added to queries and keys of every head, not to values."""
        frames = x.shape[:2]
        query = F.leaky_relu(self.query(x.flatten(0, 1)), SLOPE, inplace=True).unflatten(0, frames)
        value = F.leaky_relu(self.key_value(x.flatten(0, 1)), SLOPE, inplace=True).unflatten(0, frames)
        weights = self.logits(query, value, position).softmax(2)
        value = value.unflatten(2, (self.heads, -1))
        # one sum a frame t: as one product of matrices it takes longer, and keeps copies for the gradient
        return torch.stack([(of_t[:, :, :, None] * value).sum(1) for of_t in weights.unbind(1)], 1).flatten(2, 3)


class Layer(nn.Module):
    """Attention, then a convolution, both with what went in added; group normalisation."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.attention = Attention(channels, heads)
        self.feedforward = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(GROUPS, channels)

    def forward(self, x: Float[Tensor, "B T C h w"], position: Float[Tensor, "T c"]) -> Float[Tensor, "B T C h w"]:
        """The next layer's input."""
        x = x + self.attention(x, position)
        frames = x.flatten(0, 1)
        frames = F.leaky_relu(self.feedforward(frames), SLOPE) + frames
        return self.norm(frames).unflatten(0, x.shape[:2])


class Stream(nn.Module):
    """From a cube's pixels to its pixels (3 outputs) or its flow (2): embedding, transformer, decoder."""

    def __init__(self, outputs: int, width: int, layers: int, heads: int):
        super().__init__()
        self.embedding = nn.Sequential(
            double_conv(3, width),
            nn.MaxPool2d(2),
            double_conv(width, 2 * width),
            nn.MaxPool2d(2),
            double_conv(2 * width, 4 * width),
        )
        self.position = nn.Embedding(POSITIONS, 4 * width // heads)
        layer = Layer(4 * width, heads)
        self.layers = nn.ModuleList(deepcopy(layer) for _ in range(layers))  # copies, as the authors'
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(4 * width, 4 * width, 3, stride=2, padding=1, output_padding=1),
            double_conv(4 * width, 2 * width),
            nn.ConvTranspose2d(2 * width, 2 * width, 3, stride=2, padding=1, output_padding=1),
            double_conv(2 * width, width),
            nn.Conv2d(width, outputs, 1),
        )

    def forward(self, cubes: Float[Tensor, "B T 3 S S"]) -> Float[Tensor, "B T outputs S S"]:
        """What the stream makes of each frame."""
        frames = cubes.shape[:2]
        x = self.embedding(cubes.flatten(0, 1)).unflatten(0, frames)
        for layer in self.layers:
            x = layer(x, self.position.weight[: frames[1]])
        return self.decoder(x.flatten(0, 1)).unflatten(0, frames)


class Network(nn.Module):
    """Both streams; they share nothing but their input."""

    def __init__(self, width: int = 32, layers: int = 3, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.raw = Stream(3, width, layers, heads)
        self.flow = Stream(2, width, layers, heads)

    def forward(self, cubes: Float[Tensor, "B T 3 S S"]) -> tuple[Tensor, Tensor]:
        """Pixels (B, T, 3, S, S) and flow (B, T, 2, S, S) from pixels, blue first, in [0, 1]."""
        return self.raw(cubes), self.flow(cubes)


class Objects:
    """All objects of some videos, in their order; read from the memory maps only when asked for."""

    def __init__(self, videos: list[Shaped[np.ndarray, "_"]]):
        self.videos = videos
        self.ends = np.cumsum([len(video) for video in videos])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def batches(self, size: int, seed: int, epoch: int) -> Iterator[Shaped[np.ndarray, " B"]]:
        """Every object once, shuffled anew by (seed, epoch); the last batch may be smaller."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self))
        for start in range(0, len(self), size):
            yield self.read(np.sort(order[start : start + size]))

    def read(self, index: Int[np.ndarray, " B"]) -> Shaped[np.ndarray, " B"]:
        """Copies of the records at an ascending `index`."""
        of_video = np.searchsorted(self.ends, index, side="right")
        starts = self.ends - [len(video) for video in self.videos]
        return np.concatenate([self.videos[i][index[of_video == i] - starts[i]] for i in np.unique(of_video)])


def on_device(records: Shaped[np.ndarray, " B"], device: torch.device) -> tuple[Tensor, Tensor]:
    """Cubes (B, T, 3, S, S) in [0, 1], blue first, and their flow (B, T, 2, S, S) in pixels."""
    raw, flow = (torch.from_numpy(np.ascontiguousarray(records[name])).to(device) for name in ("raw", "flow"))
    return raw.permute(0, 1, 4, 2, 3).float().div_(255), flow.permute(0, 1, 4, 2, 3).float()


def errors(found: tuple[Tensor, Tensor], cubes: Tensor, flow: Tensor) -> Float[Tensor, "B 2"]:
    """Each object's sums of squared errors, of the pixels and of the flow."""
    pairs = zip(found, (cubes, flow), strict=True)
    return torch.stack([(one.float() - other).square().flatten(1).sum(1) for one, other in pairs], 1)


def fit(run: Run, recipe) -> Model:
    """Train on the normal videos' objects: Adam, a constant rate, the last epoch is kept.

    Then the errors of all training objects are taken: their mean and standard deviation are what test errors are
    compared with. Raises VigilError where there are no objects, and where the loss stops being a number.
    """
    recipe = recipe.fit
    objects = Objects([read_objects(video) for video in run.split("train").video])
    frames, size = cube_shape(objects)
    run = run.keyed_by(files(run.videos))
    torch.manual_seed(run.seed)
    network = Network(recipe.width, recipe.layers, recipe.heads)
    network.to(run.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.Adam(network.parameters(), recipe.learning_rate, eps=ADAM_EPSILON)
    weights = torch.tensor([recipe.lambda_raw, recipe.lambda_flow], device=run.device)
    elements = torch.tensor([3, 2], device=run.device) * frames * size**2
    network.train()
    curve: list[dict[str, float]] = []
    for epoch in resumable_epochs(recipe.epochs, run.scratch, {"network": network, "optimiser": optimiser}, curve):
        sums = torch.zeros(2, device=run.device)
        batches = prefetched(objects.batches(recipe.batch, run.seed, epoch))
        steps = ceil(len(objects) / recipe.batch)
        bar = tqdm(batches, f"epoch {epoch + 1}/{recipe.epochs}", steps, unit="step", disable=None)
        for step, records in enumerate(bar, 1):
            cubes, flow = on_device(records, run.device)
            with run.autocast():
                found = network(cubes)
            terms = errors(found, cubes, flow).sum(0) / elements
            optimiser.zero_grad()
            (weights @ terms / len(records)).backward()
            optimiser.step()
            sums += terms.detach()
            if step % 20 == 0:  # seldom: a look at the loss waits for the GPU
                bar.set_postfix(loss=f"{(weights @ sums).item() / (step * recipe.batch):.4f}")
        raw, flow = (sums / len(objects)).tolist()
        loss = (weights @ sums).item() / len(objects)
        if not np.isfinite(loss):
            raise VigilError(f"the loss became {loss} in epoch {epoch + 1}: lower fit.learning_rate")
        curve.append(dict(loss=loss, raw=raw, flow=flow))
    statistics = training_errors(network.eval(), objects, run)
    state = {
        "train_raw": statistics[:, 0].contiguous(),
        "train_flow": statistics[:, 1].contiguous(),
        "cube_shape": torch.tensor([frames, size]),
    }
    return Model(network.state_dict(), state, pd.DataFrame(curve))


def files(videos: pd.DataFrame) -> list[Path]:
    """The files of objects of all training and test videos."""
    return [OBJECTS / f"{video}.npy" for video in videos.query("split != ''").video]


def cube_shape(objects: Objects) -> tuple[int, int]:
    """Frames and pixels of the cubes. Raises VigilError where there are no objects, or too many frames."""
    if not len(objects):
        raise VigilError("the training videos have no objects: look at metrics/previews/boxes.png")
    frames, size = objects.videos[0].dtype["raw"].shape[:2]
    if frames > POSITIONS:
        raise VigilError(
            f"found objects of {frames} frames, STATE knows positions of {POSITIONS}: lower objects.context"
        )
    return frames, size


@torch.inference_mode()
def training_errors(network: nn.Module, objects: Objects, run: Run) -> Float[Tensor, "N 2"]:
    """The errors of all training objects, unperturbed; videos that are done are kept when the process dies."""
    found = []
    for i, video in enumerate(tqdm(objects.videos, "training errors", unit="video", disable=None)):
        path = run.scratch / f"errors-{i}.pt"
        if not path.exists():
            parts = [torch.empty(0, 2)]
            for records in batched(video):
                cubes, flow = on_device(records, run.device)
                parts.append(errors(network(cubes), cubes, flow).cpu())
            with replacing(path) as temporary:
                torch.save(torch.cat(parts).double(), temporary)
        found.append(torch.load(path))
    return torch.cat(found)


def batched(video: Shaped[np.ndarray, " N"]) -> Iterator[Shaped[np.ndarray, " B"]]:
    """A video's records in order, as many at once as are scored, read ahead."""
    starts = range(0, len(video), SCORED_AT_ONCE)
    return prefetched(np.array(video[start : start + SCORED_AT_ONCE]) for start in starts)


def score(run: Run, recipe, model: Model) -> tuple[pd.DataFrame, float]:
    """The errors of every object of the test videos after the perturbation, and the training objects' as they are.

    Returns a row an object (video, split, frame, box, `raw`, `flow`), and frames of test videos a second.
    Raises VigilError where the objects are not of the size that the model was trained with.
    """
    run = run.keyed_by(files(run.videos))
    network = loaded(recipe, model, run.device)

    def load(videos: pd.DataFrame) -> dict[str, np.ndarray]:
        objects = {video: read_objects(video) for video in videos.video}
        for video, records in objects.items():
            check_shape(f"{OBJECTS}/{video}.npy", records, model)
        return objects

    def score_video(records: np.ndarray, split: str, state: None) -> tuple[pd.DataFrame, None]:
        return scored(network, records, recipe.score, run.device), None

    test, speed = run.score_videos(load, score_video, splits=("test",))
    return pd.concat([training_rows(run.split("train"), model), test], ignore_index=True), speed


def stream(
    inputs: Iterator[Shaped[np.ndarray, "_"]], recipe, models: Sequence[Model], device: torch.device
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """What `score` gives, of the objects of one video's frames as they come: each frame's number, and a row an object.

    `inputs` yields each frame's objects. Raises VigilError where they are not of the size that the model was trained
    with.
    """
    (model,) = models
    network = loaded(recipe, model, device)
    for number, records in enumerate(inputs):
        check_shape("the stream", records, model)
        rows = scored(network, records, recipe.score, device).drop(columns="frame")
        yield number, {name: rows[name].to_numpy() for name in rows.columns}


def loaded(recipe, model: Model, device: torch.device) -> Network:
    """The trained network on the device, ready to score; only its input will get a gradient."""
    network = Network(recipe.fit.width, recipe.fit.layers, recipe.fit.heads)
    network.load_state_dict(model.network)
    network.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network.eval().requires_grad_(False)


def check_shape(what: str, records: Shaped[np.ndarray, "_"], model: Model) -> None:
    """Raise VigilError unless objects have the frames and pixels that the model was trained with."""
    found, trained = records.dtype["raw"].shape[:2], tuple(model.state["cube_shape"].tolist())
    if found != trained:
        raise VigilError(
            f"{what}: found objects of {found[0]} frames of {found[1]} pixels, the model takes {trained[0]} frames of "
            f"{trained[1]}: set objects.context and objects.size, or run fit-state again"
        )


def scored(network: Network, records: Shaped[np.ndarray, " N"], recipe, device: torch.device) -> pd.DataFrame:
    """A row an object: frame, box, and the errors after the perturbation."""
    parts = [torch.empty(0, 2)]
    for batch in batched(records):
        cubes, flow = on_device(batch, device)
        parts.append(perturbed_errors(network, cubes, flow, recipe).cpu())
    return object_rows(records, torch.cat(parts).double().numpy())


def perturbed_errors(network: nn.Module, cubes: Tensor, flow: Tensor, recipe) -> Float[Tensor, "B 2"]:
    """Each object's errors after its pixels were moved against the gradient of its error.

    As published the pixels' error is that against the moved pixels, and the gradient has a part through the target,
    which is the input itself. `recipe.target: original` and `recipe.detach_target: true` are the textbook's way.
    """
    moved = perturbed(network, cubes, flow, recipe.epsilon, recipe.detach_target)
    with torch.no_grad():
        return errors(network(moved), moved if recipe.target == "perturbed" else cubes, flow)


def perturbed(network: nn.Module, cubes: Tensor, flow: Tensor, epsilon: float, detach_target: bool) -> Tensor:
    """The cubes, each value lowered by `epsilon` where the error grows with it, else raised.

    The error is the mean of the pixels' squared errors plus that of the flow's, whatever the weights of the score.
    Objects are added up, not averaged: none is touched by the others of its batch.
    """
    cubes = cubes.clone().requires_grad_()
    found = network(cubes)
    of_each = errors(found, cubes.detach() if detach_target else cubes, flow)
    elements = torch.tensor([output[0].numel() for output in found], device=cubes.device)
    (gradient,) = torch.autograd.grad((of_each / elements).sum(), cubes)
    return cubes.detach() - epsilon * gradient.sign()


def object_rows(records: Shaped[np.ndarray, " N"], values: Float[np.ndarray, "N 2"]) -> pd.DataFrame:
    """Rows of frame, box and components."""
    box = np.array(records["box"])
    return pd.DataFrame(
        {
            "frame": np.array(records["frame"]),
            **{side: box[:, i] for i, side in enumerate(("x1", "y1", "x2", "y2"))},
            "raw": values[:, 0],
            "flow": values[:, 1],
        }
    )


def training_rows(videos: pd.DataFrame, model: Model) -> pd.DataFrame:
    """The training objects' errors; without video and box where these are the authors' objects, not those here."""
    values = torch.stack([model.state["train_raw"], model.state["train_flow"]], 1).numpy()
    objects = {video: read_objects(video) for video in videos.video}
    ends = np.cumsum([len(records) for records in objects.values()])
    if len(values) == ends[-1]:
        parts = [
            object_rows(records, part).assign(video=video)
            for (video, records), part in zip(objects.items(), np.split(values, ends[:-1]), strict=True)
        ]
        rows = pd.concat(parts, ignore_index=True)
    else:
        nowhere = np.zeros(len(values), next(iter(objects.values())).dtype[["frame", "box"]])
        nowhere["frame"], nowhere["box"] = np.arange(len(values)), np.nan
        rows = object_rows(nowhere, values).assign(video="published statistics")
    rows.insert(0, "video", rows.pop("video"))
    rows.insert(1, "split", "train")
    return rows


def cost_input(recipe, model: Model) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network, and one object: what parameters and GMAC are counted on.

    Scoring an object takes more than this one pass: another one, and the gradient between.
    """
    frames, size = model.state["cube_shape"].tolist()
    return Network(recipe.fit.width, recipe.fit.layers, recipe.fit.heads), (torch.zeros(1, frames, 3, size, size),)


AUTHORS_NAMES = {
    "embedding.0": "feature_embedding{of}.inc.conv.conv",
    "embedding.2": "feature_embedding{of}.down1.mpconv.1.conv",
    "embedding.4": "feature_embedding{of}.down2.mpconv.1.conv",
    "position": "encoder{of}.positionnet.positional_embedding",
    "decoder.0": "prediction{of}.up2.up",
    "decoder.1": "prediction{of}.up2.conv.conv",
    "decoder.2": "prediction{of}.up3.up",
    "decoder.3": "prediction{of}.up3.conv.conv",
    "decoder.4": "prediction{of}.out.conv",
}
AUTHORS_LAYER = {
    "attention.query": "attention_heads.{head}.q_featuremap.conv0.0",
    "attention.key_value": "attention_heads.{head}.k_v_featuremap.conv0.0",
    "attention.pair": "attention_heads.{head}.attentionmap.conv0.0",
    "feedforward": "feedforward.conv0.0",
    "norm": "GN1",
}


def authors_names(network: Network) -> dict[str, list[str]]:
    """Our names -> the authors': one, or one a head, whose tensors are joined along the first axis."""
    names = {}
    for name in network.state_dict():
        stream, rest = name.split(".", 1)
        of = {"raw": "", "flow": "_of"}[stream]
        if rest.startswith("layers."):
            _, layer, rest = rest.split(".", 2)
            ours, last = rest.rsplit(".", 1)
            theirs = f"encoder{of}.encoder.{layer}.{AUTHORS_LAYER[ours]}.{last}"
        else:
            ours = next(ours for ours in AUTHORS_NAMES if rest.startswith(f"{ours}."))
            theirs = AUTHORS_NAMES[ours].format(of=of) + rest.removeprefix(ours)
        heads = network.heads if "{head}" in theirs else 1
        names[name] = [theirs.format(head=head) for head in range(heads)]
    return names


def authors_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """All names and shapes in the authors' checkpoints of such a network.

    These hold parameters that are never used: the layer that all layers are copies of, a convolution of each head.
    """
    ours = network.state_dict()
    shapes = {}
    for name, theirs in authors_names(network).items():
        shape = tuple(ours[name].shape)
        shapes |= dict.fromkeys(theirs, shape if len(theirs) == 1 else (shape[0] // len(theirs), *shape[1:]))
    shapes |= {
        name.replace(".encoder.0.", ".encoderlayer."): shape for name, shape in shapes.items() if ".encoder.0." in name
    }
    return shapes | {
        name.replace(".q_featuremap.", ".feedforward."): shape
        for name, shape in shapes.items()
        if ".q_featuremap." in name
    }


def from_authors(files: list, recipe) -> Model:
    """The authors' network, and their training objects' errors of pixels and of flow, as a model.

    All three are lists in lists that hold one thing: a state dictionary, an array, an array. Raises VigilError where a
    file is missing or of another form, and for the first parameter that is missing, unknown or of another shape.
    """
    if len(files) != 3:
        raise VigilError(
            f"found {len(files)} file(s), expected three: the network's, then the training scores `raw` and `of`"
        )
    tensors, raw, flow = (innermost(file) for file in files)
    if not isinstance(tensors, dict):
        raise VigilError(f"network: found {type(tensors).__name__}, expected lists around a state dictionary")
    for name, values in (("raw", raw), ("of", flow)):
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or values.shape != (len(raw),):
            found = f"an array {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
            raise VigilError(f"{name} training scores: found {found}, expected lists around one number an object")
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    network = Network(recipe.fit.width, recipe.fit.layers, recipe.fit.heads)
    shapes = authors_shapes(network)
    for name in [*shapes, *tensors]:
        found = tuple(tensors[name].shape) if name in tensors else "missing"
        expected = shapes.get(name, "no such parameter")
        if found != expected:
            raise VigilError(
                f"network: {name}: found {found}, expected {expected}; is the file another data set's? params.yaml "
                f"gives state.fit.layers {recipe.fit.layers} for this one"
            )
    joined = {
        ours: torch.cat([tensors[name] for name in theirs]) if len(theirs) > 1 else tensors[theirs[0]]
        for ours, theirs in authors_names(network).items()
    }
    state = {
        "train_raw": torch.from_numpy(raw).double(),
        "train_flow": torch.from_numpy(flow).double(),
        "cube_shape": torch.tensor(PUBLISHED_SHAPE),
    }
    return Model(joined, state)


def innermost(content: Any) -> Any:
    """What is in lists of one element."""
    while isinstance(content, list) and len(content) == 1:
        content = content[0]
    return content
