"""Scores against truth, by both protocols.

params.yaml, data/scores/<method>.*, data/frames, data/masks, data/videos.parquet, data/labels.parquet,
data/dataset.json
-> metrics/metrics.json, metrics/recipe.yaml, metrics/plots/

Judges every frame of the test videos or, where the authors' protocol says so, those that the method scores.
The measures of a data set with one label set stand right under the protocol; with several (Avenue) under the
protocol and the label set, since they are not on one scale. Without labels there are score curves and counts alone.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from ruamel.yaml import YAML
from sklearn.metrics import roc_auc_score

from stages.command import VigilError, command
from stages.evaluation.alarms import alarms, at_threshold, threshold
from stages.evaluation.checks import check_classes, check_labels, check_scores
from stages.evaluation.fusion import fuse_table, of_checkpoint
from stages.evaluation.highlights import scored_objects
from stages.evaluation.intervals import intervals
from stages.evaluation.pictures import Judged, draw_checkpoints, draw_highlights, draw_roc, draw_scores
from stages.evaluation.regions import rbdc_tbdc, truth_table
from stages.evaluation.roc import measure
from stages.evaluation.search import settle
from stages.evaluation.tables import label_hash, rows_by, with_truth
from stages.io.files import replacing
from stages.params import Params, load, recipe_module
from stages.recipes import Fusion

T = TypeVar("T")
MASKS = Path("data/masks")


@command
def main() -> str:
    """Read, check, fuse, measure, write."""
    params = load()
    method = params.method
    recipe = params.recipe(method)
    module = recipe_module(method)
    scores = pd.read_parquet(_there(f"data/scores/{method}.parquet"))
    cost = json.loads(_there(f"data/scores/{method}.json").read_text())
    videos = pd.read_parquet(_there("data/videos.parquet"))
    labels = pd.read_parquet(_there("data/labels.parquet"))
    card = json.loads(_there("data/dataset.json").read_text())

    split = videos[getattr(module, "SPLIT", "split")]
    lengths = videos[split == "test"].set_index("video")["frames"].to_dict()
    if not lengths:
        raise VigilError("the data set has no test videos, so there is nothing to evaluate: add one to its test part")
    labels = labels.loc[labels["video"].isin([*lengths])]
    check_labels(labels, lengths)
    truths = rows_by(labels, "label_set")

    sigma = params.evaluate.smooth
    ladder = module.ladder(recipe.fuse)
    names = [*ladder]
    rungs = {"honest": names[0], "paper": names[-1]}
    settled, curves, fused, judged = {}, {}, {}, {}
    for rung, fusion in ladder.items():
        check_scores(of_checkpoint(scores, "chosen"), fusion, lengths)
        for name in truths or [""]:
            key = rung, name
            settled[key], curves[key] = settle(scores, fusion, sigma, lengths, truths.get(name))
            rows = of_checkpoint(scores, settled[key].checkpoint)
            fused[key] = fuse_table(rows, settled[key], sigma, lengths)
            if name:
                judged[key] = _judge(fused[key], truths[name], name)

    alarmed = {}
    every_length = videos.set_index("video")["frames"].to_dict()
    fps = videos.set_index("video")["fps"].to_dict()
    for name in truths or [""]:
        key = rungs["honest"], name
        rows = of_checkpoint(scores, settled[key].checkpoint)
        bar = threshold(rows, settled[key], sigma, every_length, params.evaluate.quantile)
        alarmed[name] = _alarms(fused[key], judged[key][1] if name else None, bar, params.evaluate.quantile, fps)

    notes = _notes(params, card, bool(truths))
    metrics: dict[str, Any] = {"method": method, "dataset": params.dataset, "seed": params.seed}
    for protocol, rung in rungs.items():
        measures = {
            name: _measures(judged[rung, name], params.seed) | _choices(settled[rung, name], ladder[rung])
            for name in truths
        }
        metrics[protocol] = _unnested(measures or {"": {"frames": len(fused[rung, ""])}})
    if truths:
        metrics["ladder"] = {
            rung: _unnested({name: roc_auc_score(judged[rung, name][1], judged[rung, name][0]) for name in truths})
            for rung in ladder
        }
    metrics["alarms"] = _unnested(alarmed)
    if ladder[rungs["honest"]].frames == "objects":
        key = rungs["honest"], next(iter(truths), "")
        metrics |= _regions(scored_objects(scores, settled[key]), lengths)
    if truths:
        metrics["labels"] = _unnested({name: _label_set(name, truth) for name, truth in truths.items()})
    metrics["cost"] = {key: value for key, value in cost.items() if key not in ("method", "seed")}
    if notes:
        metrics["note"] = "; ".join(notes)

    def title(what: str) -> str:
        return "\n".join([f"{method} on {card.get('title', params.dataset)}, {what}, seed {params.seed}", *notes])

    with replacing("metrics/plots") as folder:
        folder.mkdir()
        drawn = {name: judged[rungs[params.protocol], name] for name in truths}
        key = rungs[params.protocol], next(iter(truths), "")
        draw_scores(folder, params.protocol, fused[key], truths, drawn, title(f"{params.protocol} protocol"))
        draw_highlights(folder, scores, settled[key], fused[key], truths, title(f"{params.protocol} protocol"))
        if truths:
            both = {(protocol, name): judged[rung, name] for protocol, rung in rungs.items() for name in truths}
            draw_roc(folder, both, title("both protocols"))
            draw_checkpoints(folder, {name: curves[rungs["paper"], name] for name in truths}, title("paper protocol"))
    with replacing("metrics/recipe.yaml") as path:
        YAML().dump({"dataset": params.dataset, "seed": params.seed, method: recipe.model_dump()}, path)
    with replacing("metrics/metrics.json") as path:
        path.write_text(json.dumps(_rounded(metrics), indent=2) + "\n")
    return f"{len(scores)} rows of scores, {len(truths)} label set(s) -> metrics/metrics.json, metrics/plots"


def _there(path: str) -> Path:
    if not Path(path).exists():
        raise VigilError(f"{path} not found: `dvc repro` makes it")
    return Path(path)


def _judge(fused: pd.DataFrame, truth: pd.DataFrame, name: str) -> Judged:
    rows = with_truth(fused, truth)
    abnormal = rows["abnormal"].to_numpy(bool)
    check_classes(abnormal, name)
    return rows["score"].to_numpy(), abnormal, rows["video"].to_numpy()


def _measures(judged: Judged, seed: int) -> dict[str, Any]:
    """The measures, and behind each that has one its interval, named since `dvc metrics show` leaves lists out."""
    ranges = {
        f"{key}_interval": found and dict(zip(("low", "high"), found, strict=True))
        for key, found in intervals(*judged, seed).items()
    }
    found: dict[str, Any] = {}
    for key, value in measure(*judged).items():
        found[key] = value
        if f"{key}_interval" in ranges:
            found[f"{key}_interval"] = ranges[f"{key}_interval"]
    return found


def _alarms(
    fused: pd.DataFrame, abnormal: np.ndarray | None, bar: float | None, quantile: float, fps: Mapping[str, float]
) -> dict[str, Any]:
    """The threshold, and what it is worth; without labels, how often it is passed."""
    if bar is None:
        return {"threshold": None, "reason": "it takes scores of normal training frames, and the method gives none"}
    if abnormal is None:
        worth = {"alarms": len(alarms(fused, fused["score"].to_numpy() > bar)[0])}
    else:
        worth = at_threshold(fused.assign(abnormal=abnormal), bar, fps)
    return {"quantile": quantile, "threshold": bar} | worth


def _regions(objects: pd.DataFrame, lengths: Mapping[str, int]) -> dict[str, Any]:
    """How well boxes tell where and for how long, in the test videos that have pixel truth; empty where none has."""
    known = {video: length for video, length in lengths.items() if (MASKS / f"{video}.npz").exists()}
    truth = truth_table({video: _masks(MASKS / f"{video}.npz") for video in known})
    if truth.empty:
        return {}
    frames = sum(known.values())
    rbdc, tbdc = rbdc_tbdc(truth, objects.loc[objects["video"].isin([*known])], frames)
    counts = {"regions": len(truth), "tracks": truth.groupby(["video", "track"]).ngroups}
    return {"regions": {"rbdc": rbdc, "tbdc": tbdc, "videos": len(known), "frames": frames} | counts}


def _masks(path: Path) -> Iterator[np.ndarray]:
    """A video's pixel truth, a frame at a time: unpacked, all of them together may not fit in memory."""
    with np.load(path) as file:
        packed, width = file["mask"], int(file["shape"][2])
    for rows in packed:
        yield np.unpackbits(rows, axis=-1, count=width).view(bool)


def _choices(settled: Fusion, asked: Fusion) -> dict[str, Any]:
    """What was chosen on the test labels, which is no honest figure's business."""
    weights = {"weights": settled.weights} if asked.tried else {}
    checkpoint = {"checkpoint": settled.checkpoint} if asked.checkpoint == "best_on_test" else {}
    return {"chosen_on_test_labels": weights | checkpoint} if weights or checkpoint else {}


def _label_set(name: str, truth: pd.DataFrame) -> dict[str, Any]:
    return {
        "set": name,
        "hash": label_hash(truth),
        "frames": len(truth),
        "abnormal": int(truth["abnormal"].to_numpy().sum()),
    }


def _notes(params: Params, card: Mapping[str, Any], labelled: bool) -> list[str]:
    """Say what a reader must know before comparing these numbers with others."""
    notes = []
    if params.dataset == "demo":
        notes.append("made data, not a benchmark")
    if card.get("partial"):
        notes.append("videos of the data set may be missing, not comparable with published figures")
    if not labelled:
        notes.append("no labels: score curves and counts, no AUC")
    if params.evaluate.smooth:
        notes.append(f"smoothed over past and future frames, sigma {params.evaluate.smooth:g}")
    return notes


def _unnested(by_label_set: dict[str, T]) -> T | dict[str, T]:
    """Give the value itself where there is one label set."""
    return next(iter(by_label_set.values())) if len(by_label_set) == 1 else by_label_set


def _rounded(value: Any) -> Any:
    """All floats to 6 digits behind the point."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
