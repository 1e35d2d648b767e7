"""The numbers of the report: which runs are one row, what stands in its cells, its ladder. Pure functions."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stages.params import recipe_module
from stages.report.evaluations import Evaluation

FLOOR = "frame_difference"
"""The method that learns nothing: what the others have to beat."""
STYLES = 7  # colours, and as many kinds of dashes, in report.css


@dataclass(frozen=True)
class Row:
    """One method by one recipe, run with one seed or several.

    Attributes:
        number: from 0, gives the row its colour and dashes.
        name: of the first run, or the method's, where all its runs are in this row.
        runs: one a seed, by seed.
        floor: whether this is the method that learns nothing.
        weak: whether it learns from labels of whole abnormal videos.
    """

    number: int
    name: str
    runs: tuple[Evaluation, ...]
    floor: bool
    weak: bool

    @property
    def style(self) -> str:
        """Colour and dashes, classes of report.css; no two of the first 7 have one alike, of 49 both."""
        round_, place = divmod(self.number, STYLES)
        return "kf df" if self.floor else f"k{place} d{(place + round_) % STYLES}"

    @property
    def first(self) -> Evaluation:
        """The run that is drawn where only one can be."""
        return self.runs[0]


@dataclass(frozen=True)
class Cell:
    """What a cell shows: `text`, `more` in small print behind it, and `value` to sort by; None: there is none."""

    value: float | str | None
    text: str
    more: str = ""


@dataclass(frozen=True)
class Column:
    """A measure as a column.

    Attributes:
        key: names it.
        head: what its header says.
        group: what stands above the headers of its kind.
        about: what it is, for whom the header is not enough.
        best: which end is better, "high" or "low"; "" for neither.
        show: a value as text.
        get: a run's metrics, label set -> the value, or None.
    """

    key: str
    head: str
    group: str
    about: str
    best: str
    show: Callable[[Any], str]
    get: Callable[[dict, str], Any]


def label_sets(evaluations: Sequence[Evaluation]) -> list[str]:
    """The label sets of all runs in order of appearance; none without labels."""
    return list(dict.fromkeys(name for one in evaluations for name in _sets(one.metrics)))


def rows(evaluations: Sequence[Evaluation]) -> list[Row]:
    """The runs, those that differ by the seed alone in one row, numbered by name."""
    groups: dict[str, list[Evaluation]] = {}
    for one in sorted(evaluations, key=lambda one: one.name):
        groups.setdefault(_key(one), []).append(one)
    methods = [group[0].metrics["method"] for group in groups.values()]
    found = []
    for number, (group, method) in enumerate(zip(groups.values(), methods, strict=True)):
        runs = sorted(group, key=lambda one: one.metrics["seed"])
        name = (
            method
            if methods.count(method) == 1
            else min((run.name for run in runs), key=lambda name: (len(name), name))
        )
        found.append(Row(number, name, tuple(runs), method == FLOOR, _weak(method)))
    return found


def blocks(found: Sequence[Row], label_set: str) -> list[list[Row]]:
    """Rows that are judged on the same frames and labels, by honest AUC, the highest first; the largest block first."""
    by_truth: dict[tuple, list[Row]] = {}
    for row in found:
        if not label_set or label_set in _sets(row.first.metrics):
            by_truth.setdefault(judged_on(row.first, label_set), []).append(row)
    largest = sorted(by_truth.values(), key=len, reverse=True)
    return [sorted(block, key=lambda row: -(mean(row, AUC, label_set) or 0)) for block in largest]


def ordered(found: Sequence[Row], label_set: str) -> list[Row]:
    """The rows of all blocks, one after the other, and behind them those that know other label sets alone."""
    inside = [row for block in blocks(found, label_set) for row in block]
    numbers = {row.number for row in inside}
    return inside + [row for row in found if row.number not in numbers]


def judged_on(one: Evaluation, label_set: str) -> tuple[str, str, int]:
    """Hash of the test videos, hash of the labels, and how many frames the honest protocol judges."""
    metrics = one.metrics
    labels = part(metrics, "labels", label_set)
    return metrics.get("data", {}).get("hash", ""), labels.get("hash", ""), part(metrics, "honest", label_set)["frames"]


def part(metrics: dict, name: str, label_set: str) -> dict:
    """A part of the metrics that is told by label set where there are several; {} where it is not there."""
    found = metrics.get(name, {})
    return found.get(label_set, {}) if len(_sets(metrics)) > 1 else found


def mean(row: Row, column: Column, label_set: str) -> float | None:
    """Over the runs; None where one has no value."""
    values = [column.get(run.metrics, label_set) for run in row.runs]
    return None if None in values else statistics.fmean(values)


def cell(row: Row, column: Column, label_set: str) -> Cell:
    """Mean and standard deviation over the seeds, or one run's value."""
    value = mean(row, column, label_set)
    if value is None:
        return Cell(None, "–")
    values = [column.get(run.metrics, label_set) for run in row.runs]
    spread = column.show(statistics.stdev(values)) if len(values) > 1 and column.group not in ("Cost",) else ""
    return Cell(value, column.show(value), f"± {spread}" if spread else "")


def interval(row: Row, label_set: str) -> tuple[float, float] | None:
    """The bootstrap interval of the honest AUC, of several runs the mean of their ends; None where one has none."""
    found = [part(run.metrics, "honest", label_set).get("auc_micro_interval") for run in row.runs]
    known = [ends for ends in found if ends]
    if len(known) < len(found):
        return None
    return statistics.fmean(ends["low"] for ends in known), statistics.fmean(ends["high"] for ends in known)


def ladder(row: Row, label_set: str) -> list[tuple[str, float]]:
    """Rung -> AUC from the honest rule to the paper's, the mean of the runs."""
    several = len(_sets(row.first.metrics)) > 1
    rungs = row.first.metrics.get("ladder", {})
    return [
        (rung, statistics.fmean(_of_set(run.metrics["ladder"][rung], label_set, several) for run in row.runs))
        for rung in rungs
    ]


def percent(value: float) -> str:
    """0.8877 as 88.8."""
    return f"{100 * value:.1f}"


def significant(value: int | float) -> str:
    """Three digits, or all in front of the point: 0.0496, 18.5, 11,110."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def magnitude(value: int | float) -> str:
    """247 k, 10.6 M."""
    for unit, size in ((" G", 1e9), (" M", 1e6), (" k", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def measured(protocol: str, key: str) -> Callable[[dict, str], Any]:
    """A measure of a protocol."""
    return lambda metrics, label_set: part(metrics, protocol, label_set).get(key)


def _alarm(key: str) -> Callable[[dict, str], Any]:
    return lambda metrics, label_set: part(metrics, "alarms", label_set).get(key)


def _in(name: str, key: str) -> Callable[[dict, str], Any]:
    return lambda metrics, _: metrics.get(name, {}).get(key)


AUC = Column(
    "auc", "AUC", "Honest protocol", "Area under the ROC curve over the frames of all test videos together, percent",
    "high", percent, measured("honest", "auc_micro"),
)  # fmt: skip
COLUMNS = (
    AUC,
    Column(
        "macro", "macro", "Honest protocol",
        "Mean of the videos' own AUC, over the videos that have normal and abnormal frames, percent",
        "high", percent, measured("honest", "auc_macro"),
    ),
    Column(
        "ap", "AP", "Honest protocol", "Average precision, abnormal frames the positive class, percent",
        "high", percent, measured("honest", "ap"),
    ),
    Column(
        "eer", "EER", "Honest protocol", "Equal error rate: where as many normal as abnormal frames are wrong, percent",
        "low", percent, measured("honest", "eer"),
    ),
    Column(
        "paper", "AUC", "Paper", "AUC by the authors' own rule, which may look at the test set, percent",
        "high", percent, measured("paper", "auc_micro"),
    ),
    Column(
        "rbdc", "RBDC", "Regions", "Region-based detection criterion, up to one false positive a frame, percent",
        "high", percent, _in("regions", "rbdc"),
    ),
    Column(
        "tbdc", "TBDC", "Regions", "Track-based detection criterion, up to one false positive a frame, percent",
        "high", percent, _in("regions", "tbdc"),
    ),
    Column(
        "f1", "F1", "At the threshold", "F1 of the frames above the threshold, percent",
        "high", percent, _alarm("f1"),
    ),
    Column(
        "false", "false/h", "At the threshold",
        "False alarms an hour of judged video: runs of alarmed frames that touch no abnormal one",
        "low", significant, _alarm("false_alarms_per_hour"),
    ),
    Column(
        "alarms", "alarms", "At the threshold", "Runs of frames above the threshold",
        "", lambda value: f"{value:,.0f}", _alarm("alarms"),
    ),
    Column("parameters", "params", "Cost", "Parameters of the network", "low", magnitude, _in("cost", "parameters")),
    Column(
        "gmac", "GMAC", "Cost", "Billions of multiplications and additions a frame", "low", significant,
        _in("cost", "gmac"),
    ),
    Column(
        "fps", "frames/s", "Cost", "Frames scored a second on the device", "high", significant,
        _in("cost", "frames_per_second"),
    ),
)  # fmt: skip


def columns(found: Sequence[Row], label_set: str) -> list[Column]:
    """The columns that any row can fill; how many alarms there are only without labels."""
    return [
        column
        for column in COLUMNS
        if any(mean(row, column, label_set) is not None for row in found) and (column.key != "alarms" or not label_set)
    ]


def _key(one: Evaluation) -> str:
    """What runs of one row share: all but the seed."""
    recipe = {key: value for key, value in one.recipe.items() if key != "seed"}
    truth = [one.metrics.get("data"), one.metrics.get("labels"), one.metrics["honest"].get("frames")]
    return json.dumps([one.metrics["method"], recipe, truth], sort_keys=True, default=str)


def _sets(metrics: dict) -> list[str]:
    labels = metrics.get("labels", {})
    return [labels["set"]] if "hash" in labels else list(labels)


def _of_set(value: Any, label_set: str, several: bool) -> float:
    return value[label_set] if several else value


def _weak(method: str) -> bool:
    try:
        return getattr(recipe_module(method), "SPLIT", "split") != "split"
    except ModuleNotFoundError:  # of an experiment that is no longer in this tree
        return False
