"""S3R: "Self-supervised Sparse Representation for Video Anomaly Detection", Wu et al., ECCV 2022.

Whole training videos are labelled, frames are not. A dictionary of normal features says what of a snippet is normal
("en-normal"); a gate divides the channels between the snippet and that part of it ("de-normal"); each side has a
classifier. Of every training video only the few snippets with the largest features are judged by the video's label.

As the authors' code has it, and unlike what one might expect: the attention over the dictionary is neither scaled nor
shrunk; smoothness and sparsity are taken over the scores of all abnormal videos joined; the classifier of the normal
side never sees a positive; the authors' checkpoints hold two convolutions that nothing uses, which are left out here.
To write a model as such a checkpoint:

    python -c "import torch; from stages.io.models import load_model; from stages.methods.s3r import to_authors; \
        torch.save(to_authors(load_model('models/s3r')[0]), 's3r.pth')"

Shapes: B videos, N crops, T snippets, C = 2048 channels, S slots of the dictionary, W = width, E evaluations.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from tqdm import tqdm

from stages.command import VigilError
from stages.io.features import CHANNELS, SNIPPET, SUFFIX, read_features, segments
from stages.io.files import replacing
from stages.io.models import Model
from stages.run import Run, held_out
from stages.training import resumable_epochs
from stages.videos import DATA, check_space, prefetched

FEATURES = DATA / "features"
DICTIONARY = DATA / "dictionary.npy"
SEGMENTS = 32  # of a training video
TOP = 3  # snippets by which a video is judged
MARGIN = 100  # length that the features of abnormal videos are to reach
GROUPS = 8  # of the group normalisation
INTERVAL = 100  # steps between two savings, and of a row of the curve
PUBLISHED_CROPS = 10
UNUSED = ("video_projection", "macro_projection")  # of the authors' checkpoints


class Output(NamedTuple):
    """What the network says of some videos."""

    scores: Float[Tensor, "B T"]  # of each snippet, 0..1
    macro: Float[Tensor, " B"]  # of the video's normal side, 0..1
    features: Float[Tensor, "B N T C"]  # of the snippet's side
    magnitudes: Float[Tensor, "B T"]  # their lengths


class Embeddings(nn.Module):
    """Query of a snippet, key ("cache") and value of a slot."""

    def __init__(self, width: int):
        super().__init__()
        self.query_embedding = nn.Linear(CHANNELS, width)
        self.cache_embedding = nn.Linear(CHANNELS, width)
        self.value_embedding = nn.Linear(CHANNELS, CHANNELS)


class EnNormal(nn.Module):
    """Attention of snippets over the dictionary: what is normal of them."""

    def __init__(self, width: int):
        super().__init__()
        self.en_normal_module = Embeddings(width)

    def read(self, dictionary: Float[Tensor, "S C"]) -> tuple[Tensor, Tensor, Tensor]:
        """What snippets are compared with (S, C), a bias for each slot (S), and values (S, C).

        The products of queries and keys are linear in the snippet, so that the embedding of queries goes into the
        slots once instead of into each snippet.
        """
        with torch.autocast(dictionary.device.type, enabled=False):  # logits are not scaled: bfloat16 would be coarse
            key = self.en_normal_module.cache_embedding(dictionary)
            embedding = self.en_normal_module.query_embedding
            return key @ embedding.weight, key @ embedding.bias, self.en_normal_module.value_embedding(dictionary)

    def forward(
        self, video: Float[Tensor, "M T C"], query: Float[Tensor, "S C"], bias: Float[Tensor, " S"]
    ) -> Float[Tensor, "M T S"]:
        """How much each snippet looks at each slot."""
        with torch.autocast(video.device.type, enabled=False):
            return F.linear(video, query, bias).softmax(-1)


class NonLocal(nn.Module):
    """Every snippet looks at all snippets of its video; products are divided by their number, without a softmax."""

    def __init__(self, channels: int):
        super().__init__()
        inner = channels // 2
        self.value = nn.Conv1d(channels, inner, 1)
        self.alter = nn.Sequential(nn.Conv1d(inner, channels, 1), nn.BatchNorm1d(channels))
        self.query = nn.Conv1d(channels, inner, 1)
        self.key = nn.Conv1d(channels, inner, 1)

    def forward(self, x: Float[Tensor, "M W T"]) -> Float[Tensor, "M W T"]:
        """The snippets, with what they saw added."""
        weights = self.query(x).mT @ self.key(x) / x.shape[-1]
        return self.alter((weights @ self.value(x).mT).mT) + x


class Aggregate(nn.Module):
    """Snippets with their context: three dilated convolutions and a non-local block, joined, convolved, added."""

    def __init__(self, width: int):
        super().__init__()
        self.conv_1, self.conv_2, self.conv_3 = (
            nn.Sequential(
                nn.Conv1d(CHANNELS, width, 3, padding=dilation, dilation=dilation),
                nn.GroupNorm(GROUPS, width),
                nn.ReLU(),
            )
            for dilation in (1, 2, 4)
        )
        self.conv_4 = nn.Sequential(nn.Conv1d(CHANNELS, width, 1, bias=False), nn.ReLU())
        self.conv_5 = nn.Sequential(
            nn.Conv1d(4 * width, CHANNELS, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, CHANNELS), nn.ReLU()
        )
        self.non_local = NonLocal(width)

    def branches(self) -> tuple[nn.Sequential, ...]:
        """The four convolutions that see the input, each with what follows it."""
        return self.conv_1, self.conv_2, self.conv_3, self.conv_4

    def kernels(self, value: Float[Tensor, "S C"]) -> tuple[Tensor, ...]:
        """Kernels (W, S, taps) that make of the weights of a mixture what the convolutions make of the mixture.

        A snippet's normal part is a mixture of S values, and S is much smaller than C.
        """
        return tuple(torch.einsum("wct,sc->wst", first(branch).weight, value) for branch in self.branches())

    def forward(
        self, x: Float[Tensor, "M C T"], mixture: Float[Tensor, "M S T"] | None = None, kernels: Sequence[Tensor] = ()
    ) -> Float[Tensor, "M C T"]:
        """The snippets; of a mixture's weights and their kernels where they are given, which is less work."""
        seen = x if mixture is None else mixture
        maps = []
        for i, branch in enumerate(self.branches()):
            conv = first(branch)
            kernel = kernels[i] if kernels else conv.weight
            found = F.conv1d(seen, kernel, conv.bias, 1, conv.padding, conv.dilation)  # pyright: ignore[reportArgumentType]
            maps.append(branch[1:](found))
        maps[3] = self.non_local(maps[3])
        return self.conv_5(torch.cat(maps, 1)) + x


def first(branch: nn.Sequential) -> nn.Conv1d:
    """The convolution at a branch's start."""
    conv = branch[0]
    assert isinstance(conv, nn.Conv1d)
    return conv


def classifier(width: int, dropout: float) -> nn.Sequential:
    """From C channels to a logit."""
    return nn.Sequential(
        nn.Linear(CHANNELS, width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, width // 4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width // 4, 1),
    )


def named(names: str, module: nn.Module) -> nn.Module:
    """A module in modules that hold nothing else, for the authors' names of its parameters."""
    for name in reversed(names.split(".")):
        outer = nn.Sequential()
        outer.add_module(name, module)
        module = outer
    return module


class Network(nn.Module):
    """S3R with the names of the authors' checkpoints. Parameters start as theirs: Xavier, no biases."""

    def __init__(self, width: int = 512, dropout: float = 0.7):
        super().__init__()
        self.video_embedding = nn.Sequential(Aggregate(width), nn.Dropout(dropout))
        self.macro_embedding = nn.Sequential(Aggregate(width), nn.Dropout(dropout))
        self.en_normal = EnNormal(width)
        gate = nn.Sequential(
            nn.Flatten(), nn.Linear(CHANNELS, width // 4), nn.ReLU(), nn.Linear(width // 4, CHANNELS), nn.Sigmoid()
        )
        self.de_normal = named("channel_attention.channel_gate.mlp", gate)
        self.video_classifier = classifier(width, dropout)
        self.macro_classifier = named("mlp", classifier(width, dropout))
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for embedding in (self.video_embedding, self.macro_embedding):
            aggregate = embedding[0]
            assert isinstance(aggregate, Aggregate)
            nn.init.zeros_(aggregate.non_local.alter[1].weight)  # pyright: ignore[reportArgumentType]

    def read(self, dictionary: Float[Tensor, "S C"]) -> tuple[Tensor, ...]:
        """The dictionary as this network sees it until its weights change: what `forward` takes beside the videos."""
        query, bias, value = self.en_normal.read(dictionary)
        aggregate = self.macro_embedding[0]
        assert isinstance(aggregate, Aggregate)
        return query, bias, value, *aggregate.kernels(value)

    def forward(
        self,
        videos: Float[Tensor, "B N T C"],
        query: Float[Tensor, "S C"],
        bias: Float[Tensor, " S"],
        value: Float[Tensor, "S C"],
        *kernels: Float[Tensor, "W S _"],
    ) -> Output:
        """Scores and features of videos of the same length."""
        flat = videos.flatten(0, 1)
        mixture = self.en_normal(flat, query, bias)
        video = self.video_embedding(flat.mT)
        aggregate, dropout = self.macro_embedding
        macro = dropout(aggregate((mixture @ value).mT, mixture.mT, kernels))
        gate = self.de_normal(video.mean(2) - macro.mean(2))[:, :, None]
        video, macro = (gate * video).mT, ((1 - gate) * macro).mT
        crops = videos.shape[:2]
        scores = self.video_classifier(video).float().sigmoid().squeeze(2).unflatten(0, crops).mean(1)
        normal = self.macro_classifier(macro.mean(1)).float().sigmoid().squeeze(1).unflatten(0, crops).mean(1)
        magnitudes = video.float().norm(dim=2).unflatten(0, crops).mean(1)
        return Output(scores, normal, video.unflatten(0, crops), magnitudes)


def top_snippets(magnitudes: Float[Tensor, "B T"], dropout: float = 0.0) -> Int[Tensor, "B k"]:
    """The three snippets with the largest features, or all where there are fewer; dropout overlooks some."""
    kept = F.dropout(torch.ones_like(magnitudes), dropout)
    return (magnitudes * kept).topk(min(TOP, magnitudes.shape[1]), 1).indices


def bag_scores(found: Output, top: Int[Tensor, "B k"]) -> Float[Tensor, " B"]:
    """A video's score: the mean of its top snippets'."""
    return found.scores.gather(1, top).mean(1)


def bag_features(found: Output, top: Int[Tensor, "B k"]) -> Float[Tensor, "B N k C"]:
    """The features of a video's top snippets; the same snippets in every crop."""
    return found.features.float().take_along_dim(top[:, None, :, None], 2)


def losses(found: Output, dropout: float) -> Float[Tensor, "5"]:
    """Classification, magnitude, smoothness, sparsity, macro; before their weights.

    The first half of the videos is normal, the second abnormal; the i-th of the one and of the other are a pair.
    """
    top = top_snippets(found.magnitudes, dropout)
    scores = bag_scores(found, top)
    target = torch.zeros_like(scores)
    target[len(target) // 2 :] = 1
    normal, abnormal = bag_features(found, top).mean(2).norm(dim=2).chunk(2)
    magnitude = ((MARGIN - abnormal).abs() + normal).square().mean()
    joined = found.scores.chunk(2)[1].flatten()
    smoothness = joined.diff().square().sum()
    macro = F.binary_cross_entropy(found.macro, torch.zeros_like(found.macro))
    return torch.stack([F.binary_cross_entropy(scores, target), magnitude, smoothness, joined.norm(), macro])


TERMS = ("classification", "magnitude", "smoothness", "sparsity", "macro")


def finite(found: Output, step: int) -> Output:
    """What the network found. Raises VigilError where it is not a number."""
    if not (found.scores.isfinite().all() & found.macro.isfinite().all()):
        raise VigilError(f"the scores are no numbers any more at step {step}: lower s3r.fit.learning_rate")
    return found


class Best:
    """The weights of the step with the highest AUC on the held-out videos, the last of several."""

    def __init__(self):
        self.auc, self.step, self.network = -1.0, 0, {}

    def offer(self, auc: float, step: int, network: nn.Module) -> None:
        """Keep the weights if none were better."""
        if auc >= self.auc:
            self.auc, self.step = auc, step
            self.network = {name: tensor.to("cpu", copy=True) for name, tensor in network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return dict(auc=self.auc, step=self.step, network=self.network)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.auc, self.step, self.network = state_dict["auc"], state_dict["step"], state_dict["network"]


def fit(run: Run, recipe) -> Model:
    """Train on batches of as many normal as abnormal videos: Adam, a constant rate.

    The last step is the model; with `held_out`, it is the step that tells the held-out normal training videos best from
    the held-out abnormal ones, each video by the mean score of its top snippets. The test videos' scores at every
    evaluation go into the model's history; nothing looks at their labels.

    Raises VigilError where there are not enough videos of both kinds, for features or a dictionary that do not fit, and
    where the scores stop being numbers.
    """
    recipe = recipe.fit
    kept, held = training_videos(run.videos, recipe.batch, recipe.held_out)
    test = run.split("test")
    dictionary = read_dictionary().to(run.device)
    run = run.keyed_by([DICTIONARY, *(path_of(video) for video in run.videos.query("split != ''").video)])
    history = History(test, evaluations(recipe), run.scratch)
    items = training_items([video for videos in kept for video in videos], run.scratch)
    torch.manual_seed(run.seed)
    network = Network(recipe.width, recipe.dropout).to(run.device)
    optimiser = torch.optim.Adam(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    best = Best()
    curve: list[dict[str, int | float]] = []
    parts = {"network": network, "optimiser": optimiser, "best": best}

    def evaluate(step: int) -> None:
        history.write(step, score_all(network, dictionary, list(test.video), step))
        if held[0]:
            best.offer(held_out_auc(network, dictionary, held, step), step, network)

    for interval in resumable_epochs(-(-recipe.steps // INTERVAL), run.scratch, parts, curve):
        steps = range(interval * INTERVAL + 1, min((interval + 1) * INTERVAL, recipe.steps) + 1)
        batches = prefetched(read_batches(items, [len(videos) for videos in kept], recipe.batch, run.seed, steps))
        row = train(run, recipe, batches, steps, dictionary, network, optimiser, evaluate)
        curve.append(row | (dict(best_step=best.step, held_out_auc=best.auc) if held[0] else {}))
        history.flush()
    state = {"dictionary": dictionary, "crops": torch.tensor(items.shape[1])}
    return Model(best.network if held[0] else network.state_dict(), state, pd.DataFrame(curve), history.table())


def train(
    run: Run,
    recipe,
    batches: Iterator[tuple[int, Tensor]],
    steps: range,
    dictionary: Float[Tensor, "S C"],
    network: Network,
    optimiser: torch.optim.Optimizer,
    evaluate: Callable[[int], None],
) -> dict[str, int | float]:
    """Take some steps, and `evaluate` after those that the recipe says; returns the last step and the mean losses."""
    weights = [1.0, recipe.lambda_magnitude, recipe.lambda_smooth, recipe.lambda_sparsity, 1.0]
    weights = torch.tensor(weights, device=run.device)
    sums = torch.zeros(len(TERMS), device=run.device)
    evaluated, name = set(evaluations(recipe)), f"step {steps[-1]}/{recipe.steps}"
    for step, videos in (bar := tqdm(batches, name, len(steps), unit="step", disable=None)):
        # numbers of a step come from itself alone, so that a training that was killed goes on as it would have
        torch.manual_seed(int(np.random.SeedSequence((run.seed, step)).generate_state(1, np.uint64)[0]))
        network.train()
        with run.autocast():
            found = network(videos.to(run.device), *network.read(dictionary))
        terms = losses(finite(found, step), recipe.dropout)
        optimiser.zero_grad()
        (weights @ terms).backward()
        optimiser.step()
        sums += terms.detach()
        if step in evaluated:
            evaluate(step)
        if step % 20 == 0:  # seldom: a look at the loss waits for the GPU
            bar.set_postfix(loss=f"{(weights @ sums).item() / (step - steps[0] + 1):.4f}")
    loss = (weights @ sums).item() / len(steps)
    if not np.isfinite(loss):
        raise VigilError(f"the loss became {loss} by step {steps[-1]}: lower s3r.fit.learning_rate")
    return dict(step=steps[-1], loss=loss, **dict(zip(TERMS, (sums / len(steps)).tolist(), strict=True)))


def training_videos(
    videos: pd.DataFrame, batch: int, fraction: float
) -> tuple[tuple[list[str], list[str]], tuple[list[str], list[str]]]:
    """Normal and abnormal training videos: those to train on, then those held out.

    Raises VigilError where a kind has too few for a batch, and where some have no label.
    """
    train = videos.query("split == 'train'")
    unknown = train[train.weak_abnormal.isna()]
    if len(unknown):
        raise VigilError(f"{unknown.video.iloc[0]} and others have no label: S3R needs one for every training video")
    abnormal = train.weak_abnormal.astype(bool)
    kept, held = [], []
    for kind, of_kind in (("normal", train.loc[~abnormal]), ("abnormal", train.loc[abnormal])):
        if of_kind.empty:
            raise VigilError(
                f"the data set has no {kind} training videos: S3R learns from videos that are labelled as a whole, of "
                "both kinds; for normal videos alone take another method, such as mnad"
            )
        train_on, chosen = held_out(of_kind, fraction)
        if fraction > 0 and chosen.empty:
            raise VigilError(f"one {kind} training video, none to hold out: set s3r.fit.held_out to 0.0")
        if len(train_on) < batch:
            raise VigilError(
                f"{len(train_on)} {kind} videos to train on, fewer than a batch: set s3r.fit.batch to "
                f"{len(train_on)} or less, or s3r.fit.held_out lower"
            )
        kept.append(train_on.video.tolist())
        held.append(chosen.video.tolist())
    return (kept[0], kept[1]), (held[0], held[1])


def read_dictionary() -> Float32[Tensor, "S C"]:
    """The dictionary of normal features. Raises VigilError where it is missing or of another form."""
    try:
        found = np.load(DICTIONARY, allow_pickle=False)
    except FileNotFoundError:
        raise VigilError(f"{DICTIONARY} not found: run `dvc repro stages/dvc.yaml:dictionary` first") from None
    if found.ndim != 2 or found.shape[1] != CHANNELS or not len(found) or not np.isfinite(found).all():
        raise VigilError(
            f"{DICTIONARY}: found shape {found.shape}, expected finite numbers (slots, {CHANNELS}): run "
            "`dvc repro --force stages/dvc.yaml:dictionary`"
        )
    return torch.from_numpy(found.astype(np.float32))


def path_of(video: str) -> Path:
    """A video's feature file."""
    return FEATURES / f"{video}{SUFFIX}"


def training_items(videos: list[str], scratch: Path) -> Float32[np.ndarray, "V N 32 C"]:
    """Every video as 32 segments, memory-mapped: made once, then read by the batch."""
    path = scratch / "segments.npy"
    if not path.exists():
        crops = read_features(path_of(videos[0]), crops=None).shape[1]
        shape = (len(videos), crops, SEGMENTS, CHANNELS)
        check_space(4 * int(np.prod(shape)), scratch, "the training videos' segments")
        with replacing(path) as temporary:
            items = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
            for i, video in enumerate(tqdm(videos, "segments", unit="video", disable=None)):
                items[i] = segments(read_features(path_of(video), crops), SEGMENTS)
            items.flush()
    return np.load(path, mmap_mode="r")


def read_batches(
    items: Float32[np.ndarray, "V N 32 C"], counts: list[int], batch: int, seed: int, steps: range
) -> Iterator[tuple[int, Tensor]]:
    """Each step with its videos: `batch` normal, then `batch` abnormal ones. `counts`: of both kinds in `items`."""
    for step in steps:
        normal, abnormal = (drawn(kind, count, batch, seed, step) for kind, count in enumerate(counts))
        index = np.concatenate([normal, counts[0] + abnormal])
        yield step, torch.from_numpy(np.stack([items[i] for i in index]))


def drawn(kind: int, count: int, batch: int, seed: int, step: int) -> Int[np.ndarray, " B"]:
    """The videos of a kind in a step (the first is 1): shuffled anew when fewer than a batch are left, these dropped.

    Each kind for itself, as with the authors' two loaders. A function of its arguments alone.
    """
    passed, place = divmod(step - 1, count // batch)
    order = np.random.default_rng((seed, kind, passed)).permutation(count)
    return order[place * batch : (place + 1) * batch]


def evaluations(recipe) -> list[int]:
    """The steps after which videos are scored: as the recipe says, and the last."""
    steps = range(recipe.test_after + 1, recipe.steps)
    return [step for step in steps if step % recipe.test_every == 0] + [recipe.steps]


class History:
    """The test videos' scores at every evaluation, on disk until the training is done."""

    def __init__(self, test: pd.DataFrame, steps: list[int], scratch: Path):
        self.videos = list(test.video)
        self.rows = {step: i for i, step in enumerate(steps)}
        self.lengths = [snippets(video) for video in self.videos]
        shape = (len(steps), sum(self.lengths))
        path = scratch / "history.npy"
        if not path.exists():
            check_space(4 * shape[0] * shape[1], scratch, "the scores at every evaluation")
            with replacing(path) as temporary:
                np.lib.format.open_memmap(temporary, "w+", np.float32, shape).flush()
        self.scores = np.load(path, mmap_mode="r+")

    def write(self, step: int, scores: list[np.ndarray]) -> None:
        """Keep what the videos got at a step."""
        self.scores[self.rows[step]] = np.concatenate(scores)

    def flush(self) -> None:
        """Bring what was written to the disk."""
        self.scores.flush()  # pyright: ignore[reportAttributeAccessIssue]

    def table(self) -> pd.DataFrame:
        """Rows of checkpoint, video, split, frame and score, as small as they can be."""
        rows = len(self.rows)
        snippet = np.concatenate([SNIPPET * np.arange(length, dtype=np.int32) for length in self.lengths])
        video = np.repeat(np.arange(len(self.videos), dtype=np.int16), self.lengths)
        checkpoint = np.repeat(np.arange(rows, dtype=np.int16), len(video))
        return pd.DataFrame(
            {
                "checkpoint": pd.Categorical.from_codes(checkpoint, [str(step) for step in self.rows]),  # pyright: ignore
                "video": pd.Categorical.from_codes(np.tile(video, rows), self.videos),  # pyright: ignore
                "split": pd.Categorical.from_codes(np.zeros(rows * len(video), np.int8), ["test"]),  # pyright: ignore
                "frame": np.tile(snippet, rows),
                "score": np.asarray(self.scores).ravel(),
            }
        )


def snippets(video: str) -> int:
    """How many snippets a video has; its features are not read. Raises VigilError where there are none."""
    path = path_of(video)
    return len(np.load(path, mmap_mode="r") if path.exists() else read_features(path))


def score_videos(network: Network, dictionary: Tensor, videos: list[str], step: int) -> Iterator[Output]:
    """What the network, not in training, says of each whole video; for use in inference mode."""
    network.eval()
    normality = network.read(dictionary)
    for features in prefetched(read_features(path_of(video), crops=None) for video in videos):
        yield finite(network(on_device(features, dictionary.device), *normality), step)


def on_device(features: Float32[np.ndarray, "T N C"], device: torch.device) -> Float[Tensor, "1 N T C"]:
    """A video as the network takes it."""
    return torch.from_numpy(features).to(device).transpose(0, 1)[None]


@torch.inference_mode()
def score_all(network: Network, dictionary: Tensor, videos: list[str], step: int) -> list[np.ndarray]:
    """The scores of every video's snippets."""
    return [found.scores[0].cpu().numpy() for found in score_videos(network, dictionary, videos, step)]


@torch.inference_mode()
def held_out_auc(network: Network, dictionary: Tensor, held: tuple[list[str], list[str]], step: int) -> float:
    """How well whole videos, normal and abnormal, are told apart by the mean score of their top snippets."""
    found = score_videos(network, dictionary, [*held[0], *held[1]], step)
    scores = [bag_scores(one, top_snippets(one.magnitudes)).item() for one in found]
    return float(roc_auc_score([0] * len(held[0]) + [1] * len(held[1]), scores))


@torch.inference_mode()
def score(run: Run, recipe, model: Model) -> tuple[pd.DataFrame, float]:
    """The score of every snippet of the test videos: the model's own, as checkpoint "chosen", then its history's.

    Returns a row a snippet (video, split, frame: its first, checkpoint, score), and frames a second.
    """
    network = Network(recipe.fit.width)
    network.load_state_dict(model.network)
    network.to(run.device).eval()
    normality = network.read(model.state["dictionary"].to(run.device))

    def score_video(path: Path, split: str, state: None) -> tuple[pd.DataFrame, None]:
        found = network(on_device(read_features(path, crops=None), run.device), *normality)
        scores = found.scores[0].double().cpu().numpy()
        frame = SNIPPET * np.arange(len(scores), dtype=np.int32)
        return pd.DataFrame({"frame": frame, "checkpoint": "chosen", "score": scores}), None

    own, speed = run.score_videos(
        lambda videos: {video: path_of(video) for video in videos.video}, score_video, splits=("test",)
    )
    if model.history.empty:
        return own, speed
    for column in ("video", "split", "checkpoint"):
        both = [*own[column].unique(), *model.history[column].cat.categories]
        own[column] = own[column].astype(pd.CategoricalDtype(list(dict.fromkeys(both))))
        model.history[column] = model.history[column].cat.set_categories(own[column].cat.categories)
    return pd.concat([own, model.history.loc[:, list(own.columns)]], ignore_index=True), speed


def cost_input(recipe, model: Model) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network, and one snippet: what parameters and GMAC are counted on.

    Without reading the dictionary, which is done once for all snippets.
    """
    network = Network(recipe.fit.width).eval()
    with torch.no_grad():
        normality = network.read(model.state["dictionary"])
    return network, (torch.zeros(1, int(model.state["crops"]), 1, CHANNELS), *normality)


def unused_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of what the authors' checkpoints hold and nothing uses: 25,178,112 parameters."""
    shapes = {
        "0.weight": (CHANNELS, CHANNELS, 3),
        "0.bias": (CHANNELS,),
        "1.weight": (CHANNELS,),
        "1.bias": (CHANNELS,),
    }
    return {f"{name}.{part}": shape for name in UNUSED for part, shape in shapes.items()}


def from_authors(files: list, recipe) -> Model:
    """The authors' network as a model, with the dictionary of data/dictionary.npy, which has to be theirs too.

    Raises VigilError for a file of another form, and for the first parameter that is missing, unknown or of another
    shape. What nothing uses is checked, then left out.
    """
    if len(files) != 1 or not isinstance(files[0], dict):
        raise VigilError(f"found {len(files)} file(s), expected one: the network's state dictionary")
    (tensors,) = files
    network = Network(recipe.fit.width)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} | unused_shapes()
    for name in [*expected, *tensors]:
        found = tuple(tensors[name].shape) if name in tensors else "missing"
        if found != expected.get(name, "no such parameter"):
            raise VigilError(
                f"network: {name}: found {found}, expected {expected.get(name, 'no such parameter')}; is the file "
                "another method's, or of another width than s3r.fit.width?"
            )
    kept = {name: tensors[name] for name in network.state_dict()}
    return Model(kept, {"dictionary": read_dictionary(), "crops": torch.tensor(PUBLISHED_CROPS)})


def to_authors(model: Model) -> dict[str, Tensor]:
    """A state dictionary that the authors' code loads strictly: zeros for what nothing uses."""
    return model.network | {name: torch.zeros(shape) for name, shape in unused_shapes().items()}
