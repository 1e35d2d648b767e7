"""Scores against truth, by both protocols.

params.yaml, data/scores/<method>.*, data/videos.parquet, data/labels.parquet, data/dataset.json
-> metrics/metrics.json, metrics/recipe.yaml, metrics/plots/

Judges every frame of the test videos or, where the authors' protocol says so, those that the method scores.
The measures of a data set with one label set stand right under the protocol; with several (Avenue) under the
protocol and the label set, since they are not on one scale. Without labels there are score curves and counts alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from ruamel.yaml import YAML
from sklearn.metrics import roc_auc_score

from stages.command import VigilError, command
from stages.evaluation.checks import check_classes, check_labels, check_scores
from stages.evaluation.fusion import fuse_table
from stages.evaluation.plots import COLOURS, roc_figure, score_figure
from stages.evaluation.roc import measure, roc_points, video_aucs
from stages.evaluation.tables import label_hash, rows_by
from stages.io.files import replacing
from stages.params import Params, load, recipe_module

T = TypeVar("T")
Judged = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Score, abnormal and video of each judged frame."""

PROTOCOLS = ("honest", "paper")


@command
def main() -> str:
    """Read, check, fuse, measure, write."""
    params = load()
    method = params.method
    recipe = params.recipe(method)
    scores = pd.read_parquet(_there(f"data/scores/{method}.parquet"))
    cost = json.loads(_there(f"data/scores/{method}.json").read_text())
    videos = pd.read_parquet(_there("data/videos.parquet"))
    labels = pd.read_parquet(_there("data/labels.parquet"))
    card = json.loads(_there("data/dataset.json").read_text())

    lengths = videos[videos["split"] == "test"].set_index("video")["frames"].to_dict()
    if not lengths:
        raise VigilError("the data set has no test videos, so there is nothing to evaluate: add one to its test part")
    check_labels(labels, lengths)
    truths = rows_by(labels, "label_set")

    fused = {}
    for protocol in PROTOCOLS:
        fusion = recipe_module(method).fusion(protocol, recipe.fuse)
        check_scores(scores, fusion, lengths)
        fused[protocol] = fuse_table(scores, fusion, params.evaluate.smooth, lengths)
    judged = {
        (protocol, name): _judge(frames, truth, name)
        for protocol, frames in fused.items()
        for name, truth in truths.items()
    }

    notes = _notes(params, card, bool(truths))
    metrics: dict[str, Any] = {"method": method, "dataset": params.dataset, "seed": params.seed}
    for protocol in PROTOCOLS:
        measures = {name: measure(*judged[protocol, name]) for name in truths}
        metrics[protocol] = _unnested(measures) or {"frames": len(fused[protocol])}
    if truths:
        metrics["labels"] = _unnested({name: _label_set(name, truth) for name, truth in truths.items()})
    metrics["cost"] = {key: value for key, value in cost.items() if key not in ("method", "seed")}
    if notes:
        metrics["note"] = "; ".join(notes)

    def title(what: str) -> str:
        return "\n".join([f"{method} on {card.get('title', params.dataset)}, {what}, seed {params.seed}", *notes])

    with replacing("metrics/plots") as folder:
        folder.mkdir()
        drawn = params.protocol
        _draw_scores(folder, drawn, fused[drawn], truths, judged, title(f"{drawn} protocol"))
        if truths:
            _draw_roc(folder, judged, title("both protocols"))
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
    rows = fused.merge(truth, how="left", on=["video", "frame"])
    abnormal = rows["abnormal"].to_numpy(bool)
    check_classes(abnormal, name)
    return rows["score"].to_numpy(), abnormal, rows["video"].to_numpy()


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


def _draw_scores(
    folder: Path,
    protocol: str,
    fused: pd.DataFrame,
    truths: Mapping[str, pd.DataFrame],
    judged: Mapping[tuple[str, str], Judged],
    title: str,
) -> None:
    table = fused.assign(index=range(len(fused)))[["video", "frame", "index", "score"]]
    for name in truths:
        column = "abnormal" if len(truths) == 1 else f"abnormal_{name}"
        table[column] = judged[protocol, name][1].astype(int)
    table.to_csv(folder / "scores.csv", index=False, float_format="%.6g")
    aucs = {name: video_aucs(*judged[protocol, name]) for name in truths}
    figure = score_figure(fused, truths, aucs, COLOURS[protocol], title)
    figure.savefig(folder / "scores.png", metadata={"Software": None})


def _draw_roc(folder: Path, judged: Mapping[tuple[str, str], Judged], title: str) -> None:
    curves = {key: roc_points(score, abnormal) for key, (score, abnormal, _) in judged.items()}
    for protocol in PROTOCOLS:  # a file each, since `dvc plots` draws a file as one line
        parts = [
            pd.DataFrame({"label_set": name, "fpr": fpr, "tpr": tpr})
            for (own, name), (fpr, tpr) in curves.items()
            if own == protocol
        ]
        pd.concat(parts).to_csv(folder / f"roc_{protocol}.csv", index=False, float_format="%.6g")
    aucs = {key: roc_auc_score(abnormal, score) for key, (score, abnormal, _) in judged.items()}
    figure = roc_figure(curves, aucs, title)
    figure.savefig(folder / "roc.png", metadata={"Software": None})


def _unnested(by_label_set: dict[str, T]) -> T | dict[str, T]:
    """Give the value itself where there is one label set."""
    return next(iter(by_label_set.values())) if len(by_label_set) == 1 else by_label_set


def _rounded(value: Any) -> Any:
    """All floats to 6 digits behind the point."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
