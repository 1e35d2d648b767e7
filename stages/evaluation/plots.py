"""Pictures of an evaluation: ROC curves, and the score over time against the truth."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import AsinhLocator, NullLocator

from stages.evaluation.tables import rows_by

# Okabe and Ito's palette: told apart with any colour vision, and in grey by lightness
COLOURS = {"honest": "#0072B2", "paper": "#D55E00"}
TRUTHS = ("#E69F00", "#56B4E9", "#CC79A7")
DASHES = ("-", "--", ":")

# up to so many videos: columns of panels, a panel's width and height in inches
GRIDS = ((2, (1, 10.0, 2.6)), (6, (2, 5.5, 2.1)), (24, (3, 4.0, 1.7)), (48, (4, 3.2, 1.5)), (math.inf, (6, 2.5, 1.35)))


def roc_figure(
    curves: Mapping[tuple[str, str], tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]],
    aucs: Mapping[tuple[str, str], float],
    title: str,
) -> Figure:
    """ROC curves in one square: colour tells the protocol, dashes the label set.

    Args:
        curves: (protocol, label set) -> false positive rates, true positive rates.
        aucs: (protocol, label set) -> area under the curve.
        title: above the picture; may have several lines.
    """
    figure = Figure(figsize=(5.6, 5.9), layout="constrained")
    axes = figure.add_subplot()
    sets = list(dict.fromkeys(label_set for _, label_set in curves))
    axes.plot([0, 1], [0, 1], color="0.75", linewidth=1)
    for (protocol, label_set), (fpr, tpr) in curves.items():
        name = f"{protocol}, AUC {aucs[protocol, label_set]:.3f}" + (f", {label_set}" if len(sets) > 1 else "")
        axes.plot(fpr, tpr, color=COLOURS[protocol], linestyle=DASHES[sets.index(label_set)], linewidth=2, label=name)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("false positive rate: normal frames called abnormal")
    axes.set_ylabel("true positive rate: abnormal frames found")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    figure.suptitle(title, fontsize="medium")
    return figure


def score_figure(
    scores: pd.DataFrame,
    truths: Mapping[str, pd.DataFrame],
    aucs: Mapping[str, Mapping[str, float]],
    colour: str,
    title: str,
) -> Figure:
    """Score over time, one small panel a test video, all on one score axis (asinh), abnormal frames shaded.

    With several label sets each shades its own horizontal band of the panel.

    Args:
        scores: rows of video, frame, score.
        truths: label set -> rows of video, frame, abnormal, for all frames; empty without labels.
        aucs: label set -> video -> the video's own area under the ROC curve, where it has both classes.
        colour: of the curves.
        title: above the picture; may have several lines.
    """
    videos = rows_by(scores, "video")
    shades = [rows_by(truth, "video") for truth in truths.values()]
    columns, width, height = next(grid for most, grid in GRIDS if len(videos) <= most)
    down = math.ceil(len(videos) / columns)
    figure = Figure(figsize=(width * columns, height * down + 1.2), layout="constrained")
    panels = figure.subplots(down, columns, squeeze=False).flat
    low, high = scores["score"].min(), scores["score"].max()
    # one video that stands far out would flatten all others: linear where most scores lie, logarithmic beyond
    usual = 3 * float(np.subtract(*np.percentile(scores["score"], [75, 25]))) or 1.0
    for number, ((video, rows), axes) in enumerate(zip(videos.items(), panels, strict=False)):
        for band, shade in enumerate(shades):
            _shade(axes, shade[video]["abnormal"].to_numpy(bool), band, len(shades))
        axes.plot(rows["frame"], rows["score"], color=colour, linewidth=1)
        axes.set_xlim(0, max(rows["frame"].iloc[-1], 1))
        axes.set_yscale("asinh", linear_width=usual)
        axes.yaxis.set_major_locator(AsinhLocator(usual, numticks=5, base=0))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:.3g}")
        axes.set_ylim(low - 0.05 * usual, high + 0.05 * max(usual, high))
        own = [f"AUC {values[video]:.2f}" if video in values else "one class" for values in aucs.values()]
        axes.set_title(video, loc="left", fontsize="small")
        axes.set_title(" | ".join(own), loc="right", fontsize="small", color="0.35")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize="x-small", labelleft=number % columns == 0)
        axes.locator_params(axis="x", nbins=5, integer=True)
    for axes in panels:  # the rest of the last row
        axes.remove()
    figure.supxlabel("frame", fontsize="medium")
    figure.supylabel("anomaly score", fontsize="medium")
    legend = [Line2D([], [], color=colour, label="score")]
    legend += [
        Patch(color=shade, alpha=0.45, linewidth=0, label=f"abnormal ({name})")
        for name, shade in zip(truths, TRUTHS, strict=False)
    ]
    # the title is the legend's, since the layout would put a figure's own title on top of the legend
    header = figure.legend(
        handles=legend,
        ncols=len(legend),
        loc="outside upper center",
        frameon=False,
        title=title,
        title_fontsize="large",
    )
    header.get_title().set_multialignment("center")
    return figure


def highlights_figure(
    frames: Sequence[tuple[str, UInt8[np.ndarray, "H W 3"], pd.DataFrame | None]], title: str
) -> Figure:
    """The frames of highest score; where a method says where, with boxes, and the highest one enlarged beside it.

    Args:
        frames: what to write above a frame, the frame (red first), and rows of x1, y1, x2, y2, score of what
            was detected in it.
        title: above the picture; may have several lines.
    """
    beside = any(objects is not None for _, _, objects in frames)
    figure = Figure(figsize=(7.5 if beside else 5.0, 2.8 * len(frames) + 0.8), layout="constrained")
    panels = figure.subplots(len(frames), 2 if beside else 1, squeeze=False, width_ratios=[2, 1] if beside else [1])
    for (text, image, objects), row in zip(frames, panels, strict=True):
        row[0].imshow(image)
        row[0].set_title(text, loc="left", fontsize="small")
        for axes in row:
            axes.set_axis_off()
        if objects is None or objects.empty:
            continue
        ranked = objects.sort_values("score", ascending=False)
        boxes, scores = ranked[["x1", "y1", "x2", "y2"]].to_numpy(float), ranked["score"].to_numpy(float)
        for rank, (x1, y1, x2, y2) in reversed([*enumerate(boxes)]):  # the highest on top
            colour, line = (COLOURS["paper"], 2.5) if rank == 0 else ("white", 0.8)
            box = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=line)
            box.set_path_effects([withStroke(linewidth=2 * line, foreground="black")])
            row[0].add_patch(box)
        x1, y1, x2, y2 = np.ceil(boxes[0]).clip(0).astype(int)
        row[1].imshow(image[y1:y2, x1:x2])
        row[1].set_title(f"the highest: {scores[0]:.3g}", loc="left", fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure


def checkpoint_figure(curves: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """AUC on the test labels at every validation, and of the checkpoint that was chosen without them.

    Args:
        curves: label set -> rows of checkpoint and auc, the chosen one's first, then in order of training.
        title: above the picture; may have several lines.
    """
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for number, (label_set, curve) in enumerate(curves.items()):
        name = f", {label_set}" if len(curves) > 1 else ""
        chosen, auc = curve["auc"].iloc[0], curve["auc"].iloc[1:]
        axes.plot(curve["checkpoint"].iloc[1:], auc, DASHES[number], color=COLOURS["paper"], label=f"checkpoints{name}")
        axes.plot(auc.idxmax() - 1, auc.max(), "o", color=COLOURS["paper"], label=f"best on test {auc.max():.3f}{name}")
        axes.axhline(
            chosen, ls=DASHES[number], color=COLOURS["honest"], label=f"chosen without labels {chosen:.3f}{name}"
        )
    axes.locator_params(axis="y", nbins=6)
    axes.set_xticks(axes.get_xticks()[:: max(1, len(axes.get_xticks()) // 8)])
    axes.set_xlabel("checkpoint")
    axes.set_ylabel("AUC on the test labels")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.suptitle(title, fontsize="medium")
    return figure


def _shade(axes: Axes, abnormal: Bool[np.ndarray, " L"], band: int, bands: int) -> None:
    """Shade the abnormal frames over the band-th of `bands` equal parts of the panel's height."""
    edges = np.flatnonzero(np.diff(abnormal, prepend=False, append=False))
    starts, stops = edges[::2], edges[1::2]
    axes.broken_barh(
        list(zip(starts - 0.5, stops - starts, strict=True)),
        (1 - (band + 1) / bands, 1 / bands),
        transform=axes.get_xaxis_transform(),
        facecolor=TRUTHS[band],
        alpha=0.45,
        linewidth=0,
    )
