"""Do published features agree with your own? metrics/parity.png, metrics/parity.csv, and a verdict in words.

    python -m stages.parity PUBLISHED [OWN]

Each is a feature file or a folder of them, (T snippets, N crops, C = 2048); OWN is data/features where it is not given.
Videos are matched by name. For each: numbers of snippets, cosine between the two features of a snippet (means over
crops), ratio of their lengths, and what would explain a difference: snippets that are shifted in time, an incomplete
last snippet that one side drops, crops in another order, another scale.
"""

import argparse
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from stages.command import VigilError, command
from stages.io.features import SUFFIX, feature_files, match_files, read_features
from stages.io.files import replacing

FEATURES = Path("data/features")
PICTURE = Path("metrics/parity.png")
TABLE = Path("metrics/parity.csv")
SHIFTS = 3  # snippets, either way, that are looked for
SHOWN = 24  # videos in the table that is printed and in the picture
# correlation over channels: above, the same up to arithmetic; above, the same network on frames prepared differently
SAME, RELATED = 0.999, 0.8
TOLERANCE = 0.05  # of a ratio of lengths that counts as 1
# published crop i is own crop order[i]
ORDERS: dict[tuple[int, ...], str] = {
    (0, 1, 4, 2, 3, 5, 6, 9, 7, 8): "the published crops have the centre third: write `features.order: centre_third`",
    (0, 1, 3, 4, 2, 5, 6, 8, 9, 7): "the published crops have the centre last: write `features.order: centre_last`",
    (5, 6, 7, 8, 9, 0, 1, 2, 3, 4): "the published crops begin with the mirrored ones",
    (0, 5, 1, 6, 2, 7, 3, 8, 4, 9): "each published crop is followed by its mirrored one",
    (0, 1, 2, 3, 4, 6, 5, 8, 7, 9): "the published crops were mirrored after cropping, yours before",
    (0, 1, 2, 3, 4, 6, 5, 7, 9, 8): "the published crops were mirrored after cropping, yours before",
}


@dataclass(frozen=True)
class Comparison:
    """Two feature files of one video.

    Attributes:
        published: snippets and crops.
        own: snippets and crops.
        cosine: of each snippet of the published file, means over crops; NaN where one's own has no such snippet.
        correlation: of the means over crops, over channels, averaged over snippets; 0 for features that have nothing
            to do with each other, whose cosine is large all the same, since no feature is negative.
        crops: the same of single crops, in the order that was found; NaN where their numbers differ.
        ratio: median length of one's own over that of the published.
        shift: snippet t of the published file is snippet t + shift of one's own.
        order: published crop i is crop order[i] of one's own; 0, 1, 2 ... unless another explains more.
    """

    published: tuple[int, int]
    own: tuple[int, int]
    cosine: Float[np.ndarray, " T"]
    correlation: float
    crops: float
    ratio: float
    shift: int
    order: tuple[int, ...]


def compare(published: Float[np.ndarray, "T N C"], own: Float[np.ndarray, "t n C"]) -> Comparison:
    """Compare the features of one video; the numbers of snippets and of crops may differ.

    Another shift or order than none is found only between features that belong together.
    """
    means = published.mean(1), own.mean(1)
    shifts = [shift for shift in range(-SHIFTS, SHIFTS + 1) if max(0, -shift) < min(len(published), len(own) - shift)]
    # the median: a last snippet that was filled otherwise is no reason to leave it out by a shift
    found = {shift: float(np.median(correlation(*overlap(*means, shift)))) for shift in shifts}
    shift = max(shifts, key=lambda shift: found[shift])
    # half of what is missing to 1: where little moves, neighbours agree as well, and a shift says nothing
    shift = shift if found[shift] > RELATED and 1 - found[shift] < (1 - found[0]) / 2 else 0
    pair, crops = overlap(*means, shift), overlap(published, own, shift)
    order, agreement = crop_order(*crops) if published.shape[1] == own.shape[1] else (range(published.shape[1]), np.nan)
    cosines = np.full(len(published), np.nan)
    cosines[max(0, -shift) :][: len(pair[0])] = cosine(*pair)
    lengths = [float(np.median(np.linalg.norm(part, axis=-1))) for part in pair]
    return Comparison(
        published=(published.shape[0], published.shape[1]),
        own=(own.shape[0], own.shape[1]),
        cosine=cosines,
        correlation=float(correlation(*pair).mean()),
        crops=agreement,
        ratio=lengths[1] / lengths[0] if lengths[0] else math.inf,
        shift=shift,
        order=tuple(order),
    )


def crop_order(first: Float[np.ndarray, "T N C"], second: Float[np.ndarray, "T N C"]) -> tuple[list[int], float]:
    """Which crop of the second each crop of the first agrees with best, one to one, and their mean correlation."""
    between = (directions(first) @ directions(second).mT).mean(0)
    order = linear_sum_assignment(between, maximize=True)[1]
    same = np.arange(len(order))
    best, plain = float(between[same, order].mean()), float(between.diagonal().mean())
    return (order.tolist(), best) if best > max(plain + 1e-6, RELATED) else (same.tolist(), plain)


def overlap(
    first: Float[np.ndarray, "T *F"], second: Float[np.ndarray, "t *G"], shift: int
) -> tuple[Float[np.ndarray, "s *F"], Float[np.ndarray, "s *G"]]:
    """The snippets that both have, when snippet t of the first is snippet t + shift of the second."""
    start, stop = max(0, -shift), min(len(first), len(second) - shift)
    return first[start:stop], second[start + shift : stop + shift]


def cosine(first: Float[np.ndarray, "T C"], second: Float[np.ndarray, "T C"]) -> Float[np.ndarray, " T"]:
    """Cosine of the angle between two vectors; 0 where one of them is zero."""
    return (_unit(first) * _unit(second)).sum(-1)


def correlation(first: Float[np.ndarray, "T C"], second: Float[np.ndarray, "T C"]) -> Float[np.ndarray, " T"]:
    """Pearson's correlation over channels; 0 where one of them does not vary."""
    return (directions(first) * directions(second)).sum(-1)


def directions(features: Float[np.ndarray, "*B C"]) -> Float[np.ndarray, "*B C"]:
    """Vectors without their means, of length 1."""
    return _unit(features - features.mean(-1, keepdims=True))


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def verdict(found: Comparison, own_weights: str = "") -> list[str]:
    """What a comparison means, in sentences; `own_weights` is what the manifest of one's own features says."""
    if found.correlation < RELATED:
        if own_weights.startswith("random"):
            return ["unrelated, as yours come from random weights: write `features.weights: pretrained` to compare"]
        return ["unrelated: another network, other weights, or another video"]
    lines = []
    if found.correlation >= SAME:
        lines.append("the same features")
        advice = "something scales one side afterwards"
    else:
        lines.append("the same network, most likely, but it saw the frames prepared or decoded differently")
        advice = (
            "compare `features.normalise` (unit makes the input 2.2 times smaller than caffe does), `features.resize`, "
            "and whether one side was normalised afterwards"
        )
    if abs(found.ratio - 1) > TOLERANCE:
        lines.append(f"yours are {found.ratio:.1f} times as long: {advice}")
    if found.order in ORDERS:
        lines.append(ORDERS[found.order])
    elif found.order != tuple(sorted(found.order)):
        lines.append(f"the published crops are yours in the order {' '.join(map(str, found.order))}")
    if found.published[1] != found.own[1]:
        lines.append(f"{found.published[1]} published crops, {found.own[1]} of yours: see `features.crops`")
    more = found.own[0] - found.published[0]
    if found.shift:
        when = "later" if found.shift > 0 else "earlier"
        lines.append(f"a published snippet is yours {abs(found.shift)} {when}: the two videos do not start together")
    elif more == 1:
        lines.append("yours have one snippet more: the published drop an incomplete one (`features.snippets: floor`)")
    elif more == -1:
        lines.append("yours have one snippet less: the published keep an incomplete one (`features.snippets: ceil`)")
    elif more:
        lines.append(f"{found.published[0]} published snippets, {found.own[0]} of yours: another cut or decoding")
    return lines


@command
def main() -> str:
    """Compare what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m stages.parity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("published", type=Path, help="feature file, or folder of them")
    parser.add_argument("own", type=Path, nargs="?", default=FEATURES, help="the same; default: data/features")
    arguments = parser.parse_args()
    pairs = matched(arguments.published, arguments.own)
    manifest = arguments.own.with_suffix(".json")
    weights = json.loads(manifest.read_text()).get("weights", "") if manifest.exists() else ""
    found = {
        video: compare(read_features(published, None), read_features(own, None))
        for video, (published, own) in pairs.items()
    }
    table = as_table(found, weights)
    with replacing(TABLE) as path:
        table.to_csv(path, index=False, float_format="%.6g")
    with replacing(PICTURE) as path:
        picture(found).savefig(path, dpi=100, metadata={"Software": None})
    print(table.drop(columns="verdict").head(SHOWN).to_string(index=False, float_format="%.3f", na_rep="-"))
    if len(table) > SHOWN:
        print(f"and {len(table) - SHOWN} more videos, which agree better, in {TABLE}")
    verdicts = Counter(tuple(verdict(result, weights)) for result in found.values())
    for lines, count in verdicts.most_common():
        print(f"\n{count} of {len(found)} video{'s' * (len(found) > 1)}:", *lines, sep="\n  - ")
    return f"{arguments.published}, {arguments.own} ({len(found)} videos) -> {PICTURE}, {TABLE}"


def matched(published: Path, own: Path) -> dict[str, tuple[Path, Path]]:
    """Video -> its two files. Raises VigilError where a path is missing or no video is in both."""
    for path in (published, own):
        if not path.exists():
            raise VigilError(f"{path} not found: expected a feature file, <video>{SUFFIX}, or a folder of them")
    if own.is_file():
        name = own.name.removesuffix(".npy").removesuffix("_i3d")
        pairs = {name: (published, own)} if published.is_file() else paired({name: own}, published)
    elif published.is_file():
        name = published.name.removesuffix(".npy").removesuffix("_i3d")
        pairs = {video: (first, second) for video, (second, first) in paired({name: published}, own).items()}
    else:
        pairs = paired(feature_files(own), published)
    if not pairs:
        raise VigilError(
            f"no video is in both: {published} has {_some(published)}, {own} has {_some(own)}; names have to be the "
            "same, apart from folders"
        )
    return pairs


def paired(files: dict[str, Path], folder: Path) -> dict[str, tuple[Path, Path]]:
    """Those of some videos whose features are in a folder, too: its file, and the one given."""
    found, _ = match_files(list(files), folder)
    return {video: (path, files[video]) for video, path in found.items()}


def as_table(found: dict[str, Comparison], weights: str) -> pd.DataFrame:
    """A row a video, those that agree least first."""
    rows = [
        {
            "video": video,
            "published": result.published[0],
            "own": result.own[0],
            "shift": result.shift,
            "order": "same" if result.order == tuple(sorted(result.order)) else "other",
            "cosine": np.nanmean(result.cosine),
            "worst": np.nanmin(result.cosine),
            "correlation": result.correlation,
            "crops": result.crops,
            "ratio": result.ratio,
            "verdict": "; ".join(verdict(result, weights)),
        }
        for video, result in found.items()
    ]
    return pd.DataFrame(rows).sort_values("correlation", kind="stable", ignore_index=True)


def picture(found: dict[str, Comparison]) -> Figure:
    """Cosine over snippets, a panel a video, those that agree least first."""
    shown = dict(sorted(found.items(), key=lambda item: item[1].correlation)[:SHOWN])
    columns = 1 if len(shown) == 1 else 2 if len(shown) <= 6 else 4
    down = math.ceil(len(shown) / columns)
    figure = Figure((max(11 / columns, 2.8) * columns, 1.7 * down + 1), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, columns, squeeze=False, sharey=True).flat
    low = min(np.nanmin(result.cosine) for result in shown.values())
    for axes, (video, result) in zip(panels, shown.items(), strict=False):
        axes.plot(result.cosine, color="#0072B2", linewidth=1.2, marker=".", markersize=4)
        axes.axhline(1, color="0.8", linewidth=0.8, zorder=0)
        axes.set_xlim(-0.5, result.published[0] - 0.5)
        axes.set_ylim(min(low, 0.99) - 0.05 * (1 - min(low, 0.99)), 1 + 0.05 * (1 - min(low, 0.99)))
        axes.set_title(video, loc="left", fontsize="small")
        axes.set_title(f"correlation {result.correlation:.3f}", loc="right", fontsize="small", color="0.35")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize="x-small")
        axes.locator_params(axis="x", nbins=6, integer=True)
    for axes in panels:  # the rest of the last row
        axes.remove()
    more = f", the {len(shown)} of {len(found)} videos that agree least" if len(found) > len(shown) else ""
    figure.suptitle(f"published against own features: cosine of each snippet{more}", fontsize="medium")
    figure.supxlabel("snippet", fontsize="medium")
    figure.supylabel("cosine", fontsize="medium")
    return figure


def _some(path: Path) -> str:
    names = [path.name] if path.is_file() else sorted(feature_files(path))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "no .npy file"


if __name__ == "__main__":
    main()
