"""Evaluations -> a static page: index.html, report.css, report.js, data.js and pictures/, opened from the disk.

The page says what the numbers say without JavaScript; the script adds sorting, the curves and the viewer. The same
evaluations give the same bytes.
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from ruamel.yaml import YAML

from stages.evaluation.tables import rows_by
from stages.io.files import replacing
from stages.report import curves, pictures, results
from stages.report.evaluations import Evaluation
from stages.report.results import AUC, Row

HERE = Path(__file__).parent
KINDS = {"highest": "Highest scores", "false_alarm": "False alarms", "miss": "Misses"}
SHOTS = 6  # frames of a kind and method that are shown


Tables = Mapping[int, Mapping[str, pd.DataFrame]]
"""Row's number -> video -> rows of the table of frames of the row's first run."""


@dataclass(frozen=True)
class Axis:
    """A scale in percent of its own width."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where a value lies, 0..100."""
        return round(100 * (value - self.low) / (self.high - self.low), 3)


def write_report(
    evaluations: Sequence[Evaluation], folder: Path, card: Mapping[str, Any], videos: pd.DataFrame, frames: Path
) -> None:
    """Write the page into `folder`, replaced as a whole.

    Args:
        evaluations: of one data set; one at least.
        folder: of the page; index.html is in it.
        card: what is known of the data set, data/dataset.json.
        videos: the video table.
        frames: folder of the frame stores, `<video>.arrow`; pictures of what is not there are left out.
    """
    found = results.rows(evaluations)
    sets = results.label_sets(evaluations)
    best = results.ordered(found, sets[0] if sets else "")
    tables = {row.number: rows_by(row.first.frames, "video") for row in best}
    lengths, fps = _timing(tables, videos)
    numbers, drawn = curves.packed(best, tables, sets, lengths, fps)

    with replacing(folder) as temporary:
        temporary.mkdir()
        album = pictures.Album(temporary / "pictures", frames, lengths)
        for video in drawn:
            video["keys"] = _keys(album, best, tables, video["name"], video["frames"])
        kinds = _gallery(album, best, tables, sets, fps)
        page = {
            "title": card.get("title") or card.get("name") or found[0].first.metrics["dataset"],
            "card": card,
            "rows": found,
            "sets": [_of_set(found, index, name) for index, name in enumerate(sets or [""])],
            "labelled": bool(sets),
            "notes": _notes(found),
            "own": [row.name for row in found if any(_differences(run) for run in row.runs)],
            "runs": sum(len(row.runs) for row in found),
            "cards": [_card(best, tables, sets, video) for video in drawn],
            "best": best[0],
            "macro_rules": results.part(best[0].first.metrics, "honest", sets[0] if sets else "").get("macro_rules"),
            "kinds": kinds,
            "maps": any(line["range"] for kind in kinds for line in kind["rows"]),
            "cost": _cost(best, len(results.blocks(found, sets[0])[0]) if sets else 0, sets[0] if sets else ""),
            "recipes": [_recipe(row, run) for row in found for run in row.runs],
        }
        (temporary / "index.html").write_text(_template().render(page), encoding="utf-8")
        data = {"rows": _styled(found, best, numbers, sets), "sets": sets, "videos": drawn}
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
        (temporary / "data.js").write_text(f"globalThis.REPORT={text};\n")
        for name in ("report.css", "report.js"):
            shutil.copyfile(HERE / name, temporary / name)


def _template():
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "percent": results.percent,
        "significant": results.significant,
        "magnitude": results.magnitude,
        "breakable": lambda name: escape(name).replace("_", Markup("_<wbr>")),
        "count": lambda value: f"{value:,}",
    }
    return environment.get_template("template.html")


def _timing(tables: Tables, videos: pd.DataFrame) -> tuple[dict[str, int], dict[str, float | None]]:
    """Frames, and frames a second, of each video that any row judges, in the order of the video table."""
    judged = {video: own for by_video in tables.values() for video, own in by_video.items()}
    known = dict(zip(videos["video"], zip(videos["frames"].tolist(), videos["fps"].tolist(), strict=True), strict=True))
    order = [video for video in known if video in judged] + [video for video in judged if video not in known]
    timing = {video: known.get(video, (int(judged[video]["frame"].to_numpy().max()) + 1, math.nan)) for video in order}
    return (
        {video: int(frames) for video, (frames, _) in timing.items()},
        {video: float(fps) if fps > 0 else None for video, (_, fps) in timing.items()},
    )


def _notes(found: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """What a reader must know, and the names of those whom it concerns; no names where it is all."""
    by_note: dict[str, list[str]] = {}
    for row in found:
        notes = dict.fromkeys(note for run in row.runs for note in run.metrics.get("note", "").split("; ") if note)
        for note in notes:
            by_note.setdefault(note, []).append(row.name)
    return [(note, names if len(names) < len(found) else []) for note, names in by_note.items()]


def _of_set(found: Sequence[Row], index: int, label_set: str) -> dict[str, Any]:
    """All that is told by label set."""
    blocks = results.blocks(found, label_set)
    inside = [row for block in blocks for row in block]
    columns = results.columns(inside, label_set)
    devices = list(dict.fromkeys(_device(run) for row in inside for run in row.runs))
    return {
        "index": index,
        "name": label_set,
        "labels": _labels(inside, label_set),
        "columns": columns,
        "groups": _groups(columns),
        "devices": devices,
        "whiskers": _whiskers(inside, label_set),
        "videos": inside[0].first.frames["video"].nunique(),
        "frames": results.judged_on(inside[0].first, label_set)[2],
        "blocks": [
            {
                "about": _about(block[0], label_set),
                "rows": [
                    {
                        "row": row,
                        "cells": [(column, results.cell(row, column, label_set)) for column in columns],
                        "interval": results.interval(row, label_set),
                        "seeds": [AUC.get(run.metrics, label_set) for run in row.runs],
                        "device": ", ".join(dict.fromkeys(_device(run) for run in row.runs)),
                    }
                    for row in block
                ],
            }
            for block in blocks
        ],
        "others": [row.name for block in blocks[1:] for row in block],
        "macro": _macro(inside, label_set),
        "ladder": _ladders(inside, label_set),
        "roc": _roc(inside, label_set),
    }


def _device(run: Evaluation) -> str:
    return run.metrics.get("cost", {}).get("device", "")


def _groups(columns: Sequence[results.Column]) -> list[tuple[str, int]]:
    """Header above the headers, and how many columns it spans."""
    spans: dict[str, int] = {}
    for column in columns:
        spans[column.group] = spans.get(column.group, 0) + 1
    return list(spans.items())


def _labels(inside: Sequence[Row], label_set: str) -> dict[str, Any]:
    """The label set of most rows: name, hash, frames, abnormal; {} without."""
    return results.part(inside[0].first.metrics, "labels", label_set) if label_set and inside else {}


def _about(row: Row, label_set: str) -> str:
    """What the rows of a block have in common."""
    _, labels, frames = results.judged_on(row.first, label_set)
    return f"{frames:,} test frames" + (f", labels {labels}" if labels else "")


def _macro(inside: Sequence[Row], label_set: str) -> dict[str, int]:
    """Over how many videos the macro AUC is, and how many have one class only, of the first row."""
    honest = results.part(inside[0].first.metrics, "honest", label_set)
    return {key: honest[key] for key in ("macro_videos", "macro_skipped") if key in honest}


def axis(values: Sequence[float], step: float, top: float, most: int = 6) -> Axis:
    """From the multiple of `step` below all values to the one above, within 0 to `top`; `most` ticks at most."""
    low = max(0.0, math.floor(min(values) / step + 1e-9) * step)
    high = min(top, math.ceil(max(values) / step - 1e-9) * step)
    high = high if high > low else low + step
    while (high - low) / step > most - 0.5:
        step *= 2
    ticks = np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step
    return Axis(round(low, 6), round(high, 6), tuple(round(float(tick), 6) for tick in ticks))


def _whiskers(inside: Sequence[Row], label_set: str) -> Axis | None:
    """The axis on which the honest AUCs and their intervals are drawn."""
    values = [AUC.get(run.metrics, label_set) for row in inside for run in row.runs]
    known = [value for value in values if value is not None]
    ends = [end for row in inside for end in results.interval(row, label_set) or ()]
    return axis([*known, *ends, 0.5], 0.1, 1.0, most=4) if known else None


def _ladders(inside: Sequence[Row], label_set: str) -> dict[str, Any]:
    """Each method's rungs on one axis: name, AUC, the one before; {} without labels."""
    by_row = [(row, results.ladder(row, label_set)) for row in inside]
    values = [value for _, rungs in by_row for _, value in rungs]
    if not values:
        return {}
    ladders = []
    for row, rungs in by_row:
        before = [None, *(value for _, value in rungs[:-1])]
        steps = [
            {"name": name, "value": value, "before": old, "labels": "test labels" in name}
            for (name, value), old in zip(rungs, before, strict=True)
        ]
        if steps:
            ladders.append({"row": row, "steps": steps})
    return {"axis": axis(values, 0.1, 1.0), "ladders": ladders}


def _roc(inside: Sequence[Row], label_set: str) -> list[dict[str, Any]]:
    """Each protocol's curves, with where their names stand."""
    drawn = []
    for protocol in ("honest", "paper"):
        by_row: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        for row in inside:
            for run in row.runs:
                points = run.roc.loc[(run.roc["protocol"] == protocol) & (run.roc["label_set"] == label_set)]
                if len(points):
                    by_row.setdefault(row.number, []).append((points["fpr"].to_numpy(), points["tpr"].to_numpy()))
        names = {row.number: row.name for row in inside}
        places = curves.label_places({number: lines[0] for number, lines in by_row.items()}, names)
        auc = results.measured(protocol, "auc_micro")
        if by_row:
            lines = [
                {
                    "row": row,
                    "paths": [curves.roc_path(*line) for line in by_row[row.number]],
                    "place": places[row.number],
                    "auc": np.mean([auc(run.metrics, label_set) for run in row.runs]),
                }
                for row in inside
                if row.number in by_row
            ]
            drawn.append({"protocol": protocol, "lines": lines})
    return drawn


def _first_judge(best: Sequence[Row], tables: Tables, video: str) -> tuple[Row, pd.DataFrame] | None:
    """The first row whose honest protocol judges frames of the video, and these."""
    for row in best:
        own = tables[row.number].get(video)
        if own is not None and own["honest"].notna().to_numpy().any():
            return row, own.loc[own["honest"].notna()]
    return None


def _keys(album: pictures.Album, best: Sequence[Row], tables: Tables, video: str, length: int) -> list[dict[str, Any]]:
    """The key frames of a video: evenly spaced, and where the first row that judges it scores highest."""
    highest, name = None, ""
    if (judge := _first_judge(best, tables, video)) is not None:
        row, own = judge
        highest, name = int(own["frame"].to_numpy()[own["honest"].to_numpy().argmax()]), row.name
    found = []
    for frame in pictures.key_frames(length, highest):
        if (picture := album.picture(video, frame)) is not None:
            entry = {"frame": frame, "source": picture.source, "width": picture.width, "height": picture.height}
            found.append(entry | ({"highest": name} if frame == highest else {}))
    return found


def _card(best: Sequence[Row], tables: Tables, sets: Sequence[str], video: Mapping[str, Any]) -> dict[str, Any]:
    """A video at a glance: the curve of the first row that judges it, the truth under it."""
    judge = _first_judge(best, tables, video["name"])
    if judge is None:
        return {"video": video, "row": None, "path": "", "aucs": [None for _ in sets]}
    row, own = judge
    axis = curves.scale(row.first.frames["honest"].to_numpy(float))
    path = curves.spark(curves.dense(own, "honest", video["frames"]), axis)
    aucs = [video["rows"][row.number]["auc"].get(name, {}).get("honest") for name in sets]
    return {"video": video, "row": row, "path": path, "aucs": aucs}


def _gallery(
    album: pictures.Album, best: Sequence[Row], tables: Tables, sets: Sequence[str], fps: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """The frames to look at, by kind and row; kinds and rows without any are left out."""
    ranges = {row.number: pictures.map_range(row.first.shown["map"]) for row in best}
    found = []
    for kind, head in KINDS.items():
        by_row = []
        for row in best:
            own = row.first.shown
            own = own.loc[own["kind"] == kind].sort_values("rank", kind="stable").head(SHOTS)
            shots = [
                shot
                for record in own.to_dict("records")
                if (shot := _shot(album, row, tables[row.number], record, ranges[row.number], sets, fps)) is not None
            ]
            if shots:
                by_row.append({"row": row, "shots": shots, "range": ranges[row.number]})
        if by_row:
            found.append({"kind": kind, "head": head, "rows": by_row})
    return found


def _shot(
    album: pictures.Album,
    row: Row,
    by_video: Mapping[str, pd.DataFrame],
    record: Mapping[str, Any],
    between: tuple[float, float] | None,
    sets: Sequence[str],
    fps: Mapping[str, float | None],
) -> dict[str, Any] | None:
    """One frame with what the method saw in it; None without a picture."""
    video, frame = record["video"], int(record["frame"])
    picture = album.picture(video, frame)
    if picture is None:
        return None
    first = row.first
    regions = first.regions.loc[(first.regions["video"] == video) & (first.regions["frame"] == frame)]
    own = by_video[video]
    column = "abnormal" if len(sets) == 1 else f"abnormal_{sets[0]}" if sets else ""
    one = record["map"]
    return {
        "video": video,
        "frame": frame,
        "time": frame / rate if (rate := fps.get(video)) else None,
        "score": float(record["score"]),
        "start": int(record["start"]),
        "stop": int(record["stop"]),
        "abnormal": bool(curves.dense(own, column, frame + 1)[frame]) if column in own else None,
        "picture": picture,
        "map": pictures.overlay(one, *between) if between and isinstance(one, bytes) else None,
        "boxes": pictures.boxes(regions, picture.width, picture.height),
    }


def _cost(best: Sequence[Row], comparable: int, label_set: str) -> dict[str, Any]:
    """What each row costs; and frames a second, on a logarithmic axis, against AUC, where two rows have both.

    Only the AUC of the first `comparable` rows are of the same frames.
    """
    lines = []
    for row in best:
        cost = row.first.metrics.get("cost", {})
        lines.append({"row": row, "cost": cost, "speed": cost.get("frames_per_second"), "at": None})
    aucs = [(line, results.mean(line["row"], AUC, label_set)) for line in lines[:comparable]]
    both = [(line, auc) for line, auc in aucs if line["speed"] and auc is not None]
    if len(both) < 2:
        return {"lines": lines, "axis": None}
    powers = [math.log10(line["speed"]) for line, _ in both]
    x = Axis(min(powers) - 0.2, max(powers) + 0.4, ())
    y = axis([auc for _, auc in both], 0.05, 1.0)
    for (line, auc), power in zip(both, powers, strict=True):
        line["at"] = x.at(power), y.at(auc)
    times = (1,) if x.high - x.low > 2 else (1, 2, 5)
    speeds = [time * 10.0**power for power in range(math.floor(x.low), math.ceil(x.high)) for time in times]
    ticks = [(x.at(math.log10(speed)), speed) for speed in speeds if x.low <= math.log10(speed) <= x.high]
    return {"lines": lines, "axis": {"x": ticks, "y": [(y.at(tick), tick) for tick in y.ticks]}}


def _recipe(row: Row, run: Evaluation) -> dict[str, Any]:
    """A run's recipe as YAML."""
    text = StringIO()
    YAML().dump(run.recipe, text)
    labels = run.metrics.get("labels", {})
    sets = [labels] if "hash" in labels else list(labels.values())
    return {
        "row": row,
        "run": run,
        "text": text.getvalue().strip(),
        "labels": [(one["set"], one["hash"]) for one in sets],
        "data": run.metrics.get("data", {}).get("hash"),
        "differences": _differences(run),
    }


def _differences(run: Evaluation) -> dict[str, tuple[Any, Any]]:
    """Where the recipe is not the published one; unknown, hence empty, of a method that is not in this tree."""
    try:
        return run.differences
    except ModuleNotFoundError:
        return {}


def _styled(found: Sequence[Row], best: Sequence[Row], numbers: Sequence[dict], sets: Sequence[str]) -> list[dict]:
    """The rows as the script needs them, ranked: style, threshold, and a note where only one seed is drawn."""
    by_number = {row.number: row for row in found}
    styled = []
    for entry in numbers:
        row = by_number[entry["number"]]
        bar = results.part(row.first.metrics, "alarms", sets[0] if sets else "").get("threshold")
        seed = row.first.metrics["seed"] if len(row.runs) > 1 else None
        styled.append(entry | {"style": row.style, "threshold": bar, "seed": seed})
    return styled
