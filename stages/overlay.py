"""What a watched video is shown as: its frames with what is anomalous on them, the running score, and the whole curve.

H, W of the source; h, w of the drawn picture; S the strip's height; L length of the shown part of the curve.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from matplotlib.ticker import AsinhLocator, NullLocator

from stages.evaluation.plots import COLOURS

NARROWEST, WIDEST = 480, 1280  # pixels of the drawn picture, between which the source's width is kept
FULL = 3.0  # times the level from which a cell is hot: there its colour is full
TICKS = 60_000  # a second: whole for 24, 25, 30 and 30000/1001 frames a second, and few enough for MPEG-4
Colour = tuple[int, int, int]
"""Blue first."""
CALM: Colour = (178, 114, 0)  # the score's colour in the other pictures
ALARM: Colour = (0, 94, 213)
INK: Colour = (60, 60, 60)
PAPER: Colour = (250, 250, 250)
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Scale:
    """What frames are measured against, from normal training frames.

    Attributes:
        hot: above which a cell of an error map is hot; NaN for methods without maps.
        low: the lowest score.
        threshold: above which a frame is alarmed.
    """

    hot: float
    low: float
    threshold: float


def drawn(
    image: UInt8[np.ndarray, "H W *C"],
    columns: Mapping[str, np.ndarray],
    scores: Float[np.ndarray, " rows"],
    curve: Sequence[float],
    length: int,
    scale: Scale,
    text: str,
) -> UInt8[np.ndarray, "_ w 3"]:
    """One frame of the overlay: the picture with heat or boxes, the strip below it; both sides even.

    Args:
        image: the source's frame.
        columns: the frame's rows: `map`, or the boxes' sides, or neither.
        scores: of the rows.
        curve: the last frames' scores, this one's last; NaN where there is none.
        length: how many scores the strip shows.
        scale: what they are measured against.
        text: which frame it is.
    """
    height, width = image.shape[:2]
    drawn_width = 2 * round(min(max(width, NARROWEST), WIDEST) / 2)
    factor = drawn_width / width
    size = drawn_width, 2 * round(height * factor / 2)
    picture = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    if "map" in columns and len(columns["map"]):
        picture = heated(picture, columns["map"][0], scale.hot)
    if "x1" in columns:
        boxes = np.stack([columns[side] for side in ("x1", "y1", "x2", "y2")], 1) * factor
        picture = boxed(picture, boxes, scores, scale.threshold)
    return np.concatenate([picture, strip(drawn_width, curve, length, scale, text)])


def heated(
    picture: UInt8[np.ndarray, "h w 3"], cells: Float[np.ndarray, "side side"], hot: float
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture under warm colours where cells are hotter than `hot`, from yellow to red, and their outline."""
    level = cv2.resize(cells.astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    inside = level > hot
    if not inside.any():
        return picture
    strength = ((level[inside] - hot) / max((FULL - 1) * hot, 1e-6)).clip(0, 1)
    colour = cv2.applyColorMap((255 * (1 - strength)).astype(np.uint8), cv2.COLORMAP_AUTUMN)[:, 0]
    opacity = (0.3 + 0.4 * strength)[:, None]
    result = picture.copy()
    result[inside] = (opacity * colour + (1 - opacity) * picture[inside]).astype(np.uint8)
    outline, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for colour, thickness in ((PAPER, 4), ((0, 0, 140), 2)):  # light and dark: one of them is seen on any ground
        cv2.drawContours(result, outline, -1, colour, thickness, cv2.LINE_AA)
    return result


def boxed(
    picture: UInt8[np.ndarray, "h w 3"],
    boxes: Float[np.ndarray, "rows 4"],
    scores: Float[np.ndarray, " rows"],
    threshold: float,
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with the objects' boxes and scores; those above the threshold thick, with their score in a field."""
    result = picture.copy()
    for row in np.argsort(scores):  # the highest on top
        x1, y1, x2, y2 = np.round(boxes[row]).astype(int).tolist()
        alarmed = bool(scores[row] > threshold)
        cv2.rectangle(result, (x1, y1), (x2, y2), (0, 0, 0), 5 if alarmed else 2, cv2.LINE_AA)
        cv2.rectangle(result, (x1, y1), (x2, y2), ALARM if alarmed else PAPER, 3 if alarmed else 1, cv2.LINE_AA)
        write(result, f"{scores[row]:.1f}", (x1, max(y1 - 4, 12)), 0.45, PAPER, ALARM if alarmed else INK)
    return result


def strip(width: int, curve: Sequence[float], length: int, scale: Scale, text: str) -> UInt8[np.ndarray, "S w 3"]:
    """The last scores as a curve that runs to the left, the threshold as a dashed line, and the newest in words."""
    low, threshold = scale.low, scale.threshold
    height = 2 * round(width * 0.08)
    size = height / 90  # of letters
    image = np.full((height, width, 3), PAPER, np.uint8)
    values = np.array(curve, float)
    right, margin = round(width * 0.68), round(height * 0.08)
    top = max(threshold + (threshold - low), *values[np.isfinite(values)], low + 1e-6)
    y = (height - margin - (values.clip(low) - low) / (top - low) * (height - 2 * margin)).clip(0, height - 1)
    x = right - (len(values) - 1 - np.arange(len(values))) * (right / max(length - 1, 1))
    bar = round(height - margin - (threshold - low) / (top - low) * (height - 2 * margin))
    for start in range(0, right, 12):
        cv2.line(image, (start, bar), (min(start + 6, right), bar), INK, 1)
    points = np.nan_to_num(np.stack([x, y], 1)).round().astype(int)
    for before, after in zip(range(len(values) - 1), range(1, len(values)), strict=True):
        if np.isfinite(values[before]) and np.isfinite(values[after]):
            alarmed = values[after] > threshold
            colour, thickness = (ALARM, 3) if alarmed else (CALM, 1)
            cv2.line(image, points[before], points[after], colour, thickness, cv2.LINE_AA)
    cv2.line(image, (right, 0), (right, height), INK, 1)
    left, newest = right + round(height * 0.12), values[-1]
    write(image, text, (left, round(height * 0.24)), 0.42 * size, INK)
    score = f"{newest:.3g}" if np.isfinite(newest) else "no score yet"
    write(image, f"score {score}, alarm above {threshold:.3g}", (left, round(height * 0.5)), 0.42 * size, INK)
    if newest > threshold:
        write(image, "ALARM", (left, round(height * 0.87)), 0.85 * size, PAPER, ALARM)
    return image


def write(
    image: UInt8[np.ndarray, "_ _ 3"],
    text: str,
    place: tuple[int, int],
    size: float,
    colour: Colour,
    field: Colour | None = None,
) -> None:
    """Write text into an image, its lower left corner at `place`, on a filled field if it has a colour."""
    thickness = 2 if size > 0.7 else 1
    if field is not None:
        (wide, high), below = cv2.getTextSize(text, FONT, size, thickness)
        cv2.rectangle(
            image, (place[0] - 2, place[1] - high - 3), (place[0] + wide + 2, place[1] + below - 1), field, cv2.FILLED
        )
    cv2.putText(image, text, place, FONT, size, colour, thickness, cv2.LINE_AA)


@contextmanager
def encoder(path: Path, fps: float) -> Iterator[Callable[[UInt8[np.ndarray, "_ _ 3"], float], None]]:
    """Yield a function that adds an image (blue first, even sides) and its time in seconds to a new video file.

    H.264 where PyAV has an encoder for it, else MPEG-4. In fragments of two seconds: what a killed process has written
    can be played.

    Args:
        path: of the .mp4 file.
        fps: about how many images a second will come.
    """
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        rate = Fraction(fps).limit_denominator(1001)
        if "libx264" in av.codecs_available:
            stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "23"})
        else:
            stream = container.add_stream("mpeg4", rate=rate)
        context = stream.codec_context
        context.gop_size, context.time_base, context.pix_fmt = round(2 * fps), Fraction(1, TICKS), "yuv420p"
        last = -1

        def add(image: UInt8[np.ndarray, "_ _ 3"], seconds: float) -> None:
            nonlocal last
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            if last < 0:
                context.height, context.width = image.shape[:2]
                context.bit_rate = int(0.15 * image.shape[0] * image.shape[1] * fps)  # of MPEG-4; x264 has its quality
            last = max(last + 1, round(seconds * TICKS))
            frame.pts, frame.time_base = last, Fraction(1, TICKS)
            container.mux(stream.encode(frame))

        yield add
        if last >= 0:
            container.mux(stream.encode())


def curve_figure(bins: pd.DataFrame, threshold: float, unit: str, title: str) -> Figure:
    """The score over a whole video, the threshold as a line, alarms shaded and hatched.

    Args:
        bins: a row a stretch of consecutive frames: start in `unit`; low and high, its lowest and highest score, NaN
            where it has none, so that no peak is lost in a long video; alarm, whether any frame is alarmed.
        threshold: above which a frame is alarmed.
        unit: of time.
        title: above the picture; may have several lines.
    """
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.add_subplot()
    start, low, high = (bins[name].to_numpy(float) for name in ("start", "low", "high"))
    stop = np.append(start[1:], 2 * start[-1] - start[-2] if len(start) > 1 else start[-1] + 1)
    edges = np.flatnonzero(np.diff(bins["alarm"].to_numpy(bool), prepend=False, append=False))
    first, last = edges[::2], edges[1::2] - 1
    axes.broken_barh(
        list(zip(start[first], stop[last] - start[first], strict=True)),
        (0, 1),
        transform=axes.get_xaxis_transform(),
        facecolor=COLOURS["paper"],
        alpha=0.35,
        hatch="///",
        edgecolor="black",
        linewidth=0,
        label="alarm",
        zorder=0,
    )
    x, y = np.repeat(start, 2), np.stack([low, high], 1).ravel()
    axes.plot(x, y, color=COLOURS["honest"], linewidth=1, label="score")
    axes.axhline(threshold, color="black", linestyle="--", linewidth=1, label=f"threshold {threshold:.3g}")
    axes.set_xlim(start[0], stop[-1])
    # one peak that stands far out would flatten all else: linear where most scores lie, logarithmic beyond
    scores = high[np.isfinite(high)]
    usual = 3 * float(np.subtract(*np.percentile(scores, [75, 25]))) if len(scores) else 0.0
    axes.set_yscale("asinh", linear_width=usual or 1.0)
    axes.yaxis.set_major_locator(AsinhLocator(usual or 1.0, numticks=7, base=0))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.set(xlabel=unit, ylabel="anomaly score")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower right", ncols=3, frameon=False)
    figure.suptitle(title, fontsize="medium")
    return figure
