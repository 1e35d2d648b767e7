"""The curves of the report: ROC as SVG paths with labels beside them, scores over time packed for the browser.

Shapes: K points of a ROC curve, T values of one video's score, B bins.
"""

import base64
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from stages.report.results import Row

SIDE = 420.0  # of the ROC picture, its own units
LINE, LETTER = 15.0, 7.2  # height and mean width of a label's letters, the same units
NEAR = 12.0  # closer curves are mistaken for each other, the same units
GAP = 65535  # stands for a value that is not there
VALUES = 1_000_000  # that the page holds at most: about 2.7 MB as text
LONGEST, SHORTEST = 8192, 256  # values a video and method, between which a limit is sought


def roc_path(fpr: Float[np.ndarray, " K"], tpr: Float[np.ndarray, " K"]) -> str:
    """The curve from (0, 0) to (1, 1) as the `d` of an SVG path."""
    x, y = np.append(np.append(0.0, fpr), 1.0) * SIDE, (1 - np.append(np.append(0.0, tpr), 1.0)) * SIDE
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def label_places(
    curves: Mapping[int, tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]], names: Mapping[int, str]
) -> dict[int, tuple[float, float, float, float]]:
    """Where each curve's name stands: the lower left corner of its text, and the point of the curve beside it.

    Right below the curve or left above it, where the fewest points of any curve lie under the text and other curves
    are far from its own, such that it cannot be taken for another's; texts do not overlap.
    """
    along = np.linspace(0, 1, 401)
    lines = {number: _evenly(*curve, along) for number, curve in curves.items()}
    taken: list[np.ndarray] = []
    places = {}
    for number, points in lines.items():
        width = LETTER * len(names[number])
        others = np.concatenate([np.empty((0, 2)), *(own for other, own in lines.items() if other != number)])
        best, beside, least = np.array([SIDE - width, SIDE]), points[-1], np.inf
        for point in points[60:-60:4]:
            close = float((np.abs(others - point).max(axis=1) < NEAR).sum())
            for off in ([7.0, LINE], [-7.0 - width, -5.0]):
                corner = point + np.array(off)
                box = _around(corner, width)
                if box.min() < 0 or box.max() > SIDE:
                    continue
                under = sum(int(((own > box[0]) & (own < box[1])).all(axis=1).sum()) for own in (others, points))
                overlaps = sum(bool((box[0] < other[1]).all() and (other[0] < box[1]).all()) for other in taken)
                if (cost := close + 3 * under + 1000 * overlaps) < least:
                    best, beside, least = corner, point, cost
        places[number] = float(best[0]), float(best[1]), float(beside[0]), float(beside[1])
        taken.append(_around(best, width))
    return places


def _around(corner: Float[np.ndarray, "2"], width: float) -> Float[np.ndarray, "2 2"]:
    """Upper left and lower right corner of the space that a text takes, from its lower left corner."""
    return np.array([corner - np.array([3, LINE - 2]), corner + np.array([width + 3, 4])])


def _evenly(
    fpr: Float[np.ndarray, " K"], tpr: Float[np.ndarray, " K"], along: Float[np.ndarray, " P"]
) -> Float[np.ndarray, "P 2"]:
    """Points of the picture, evenly along a curve."""
    x, y = np.append(0.0, fpr), np.append(0.0, tpr)
    length = np.append(0.0, np.cumsum(np.hypot(np.diff(x), np.diff(y))))
    at = along * length.max()
    return np.column_stack([np.interp(at, length, x) * SIDE, (1 - np.interp(at, length, y)) * SIDE])


def spans(flag: Bool[np.ndarray, " T"]) -> list[list[int]]:
    """First frame, and the one behind the last, of each run of flagged frames."""
    edges = np.flatnonzero(np.diff(np.pad(flag, 1)))
    return edges.reshape(-1, 2).tolist()


def extremes(values: Float[np.ndarray, " T"], step: int) -> Float[np.ndarray, "B 2"]:
    """Lowest and highest value of each `step` frames, the last bin what is left; NaN where a bin has none."""
    padded = np.full(-(-len(values) // step) * step, np.nan)
    padded[: len(values)] = values
    bins = padded.reshape(-1, step)
    known = np.isfinite(bins)
    low = np.where(known, bins, np.inf).min(axis=1)
    high = np.where(known, bins, -np.inf).max(axis=1)
    return np.where(known.any(axis=1, keepdims=True), np.column_stack([low, high]), np.nan)


def longest(lengths: Sequence[int], series: int) -> int:
    """How many values of a video fit into the page: halved until `series` series of all videos do."""
    most = LONGEST
    while most > SHORTEST and series * sum(min(length, most) for length in lengths) > VALUES:
        most //= 2
    return most


def step_of(length: int, most: int) -> int:
    """Frames a bin, a bin being two values; 1: every frame as it is."""
    return 1 if length <= most else -(-length // (most // 2))


def quantised(values: Float[np.ndarray, "*shape"], low: float, high: float) -> str:
    """Values from low..high as 0..65534 in 16 bits, low byte first, base64; GAP for NaN."""
    scaled = np.rint((values - low) / ((high - low) or 1.0) * (GAP - 1))
    return base64.b64encode(np.where(np.isfinite(scaled), scaled, GAP).astype("<u2").tobytes()).decode()


def scale(values: Float[np.ndarray, " N"]) -> dict[str, float]:
    """What a method's scores need to be drawn on one axis: `low`, `high`, and `usual`.

    One video that stands far out would flatten all others: the axis is linear up to `usual`, the range of the middle
    half of all frames, and logarithmic beyond.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return {"low": 0.0, "high": 1.0, "usual": 1.0}
    usual = float(np.subtract(*np.percentile(known, [75, 25]))) or 1.0
    return {"low": float(known.min()), "high": float(known.max()), "usual": usual}


def packed(
    found: Sequence[Row],
    tables: Mapping[int, Mapping[str, pd.DataFrame]],
    sets: Sequence[str],
    lengths: Mapping[str, int],
    fps: Mapping[str, float | None],
) -> tuple[list[dict], list[dict]]:
    """What the browser draws the scores from: a dict a row, and a dict a video.

    A row has the scale of each protocol; a video its truth by label set, frames a bin, and by row's number the two
    protocols' values, alarmed spans, and its own AUC by label set and protocol.

    Args:
        found: rows, of each of which the first run is drawn.
        tables: row's number -> video -> rows of that run's table of frames.
        sets: label sets; empty without labels.
        lengths: video -> frames, in order.
        fps: video -> frames a second, None where unknown.
    """
    most = longest(list(lengths.values()), 2 * len(found))
    scales = {
        row.number: {name: scale(row.first.frames[name].to_numpy(float)) for name in ("honest", "paper")}
        for row in found
    }
    own_aucs = {row.number: _aucs(row.first.videos) for row in found}
    videos = []
    for video, length in lengths.items():
        step = step_of(length, most)
        truth: dict[str, list[list[int]]] = {}
        drawn = {}
        for row in found:
            own = tables[row.number].get(video)
            if own is None:
                continue
            for name, column in _truths(own, sets).items():
                truth.setdefault(name, spans(dense(own, column, length) > 0))
            aucs = own_aucs[row.number].get(video, {})
            entry: dict = {"alarms": spans(dense(own, "alarm", length) > 0), "auc": aucs}
            for protocol, axis in scales[row.number].items():
                values = dense(own, protocol, length)
                values = values if step == 1 else extremes(values, step)
                entry[protocol] = quantised(values, axis["low"], axis["high"])
            drawn[row.number] = entry
        videos.append({"name": video, "frames": length, "fps": fps[video], "step": step, "truth": truth, "rows": drawn})
    numbers = [{"number": row.number, "name": row.name, "scales": scales[row.number]} for row in found]
    return numbers, videos


def _truths(own: pd.DataFrame, sets: Sequence[str]) -> dict[str, str]:
    """Label set -> its column."""
    if "abnormal" in own:
        return {sets[0]: "abnormal"} if len(sets) == 1 else {}
    return {name: f"abnormal_{name}" for name in sets if f"abnormal_{name}" in own}


def dense(own: pd.DataFrame, column: str, length: int) -> Float[np.ndarray, " length"]:
    """A column by frame, NaN where the table has no row."""
    values = np.full(length, np.nan)
    frame = own["frame"].to_numpy()
    inside = frame < length
    values[frame[inside]] = own[column].to_numpy(float, na_value=np.nan)[inside]
    return values


def _aucs(videos: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Video -> label set -> protocol -> the video's own AUC, where it has both classes."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in videos.dropna(subset="auc").to_dict("records"):
        found.setdefault(row["video"], {}).setdefault(row["label_set"], {})[row["protocol"]] = row["auc"]
    return found


def spark(values: Float[np.ndarray, " T"], axis: Mapping[str, float], bins: int = 120) -> str:
    """A video's score as a filled outline in a picture of 100 x 100: the `d` of an SVG path."""
    step = max(1, -(-len(values) // bins))
    pairs = extremes(values, step)
    low, high = (np.arcsinh(axis[end] / axis["usual"]) for end in ("low", "high"))
    y = 100 - 100 * (np.arcsinh(pairs / axis["usual"]) - low) / ((high - low) or 1.0)
    x = (np.arange(len(pairs)) + 0.5) * step / len(values) * 100
    parts, open_ = [], False
    for at, (bottom, top) in zip(x, y, strict=True):
        if np.isnan(top):
            open_ = False
            continue
        parts.append(f"{'L' if open_ else 'M'}{at:.1f} {bottom:.1f}" + (f"V{top:.1f}" if step > 1 else ""))
        open_ = True
    return "".join(parts)
