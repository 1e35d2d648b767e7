"""Scores against truth, by both protocols.

params.yaml, data/scores/<method>.*, data/frames, data/masks, data/videos.parquet, data/labels.parquet,
data/dataset.json
-> metrics/metrics.json, metrics/recipe.yaml, metrics/plots/, metrics/tables/

Judges every frame of the test videos or, where the authors' protocol says so, those that the method scores.
The measures of a data set with one label set stand right under the protocol; with several (Avenue) under the
protocol and the label set, since they are not on one scale. Without labels there are score curves and counts alone.
`metrics/tables` is what the report is made of: see `stages.evaluation.written`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from ruamel.yaml import YAML
from sklearn.metrics import roc_auc_score

from stages.command import VigilError, command
from stages.evaluation.alarms import threshold, worth
from stages.evaluation.checks import check_labels
from stages.evaluation.fusion import of_checkpoint
from stages.evaluation.highlights import shown
from stages.evaluation.intervals import intervals
from stages.evaluation.outcomes import Outcome, outcome
from stages.evaluation.pictures import draw_checkpoints, draw_highlights, draw_roc, draw_scores
from stages.evaluation.regions import detections, rbdc_tbdc, truth_table
from stages.evaluation.roc import measure
from stages.evaluation.tables import content_hash, label_hash, rows_by
from stages.evaluation.written import write_tables
from stages.io.files import replacing
from stages.io.masks import masked, read_masks
from stages.params import Params, load, recipe_module
from stages.recipes import Fusion

T = TypeVar("T")


@command
def main() -> str:
    """Read, check, fuse, measure, write."""
    params = load()
    method, sigma = params.method, params.evaluate.smooth
    recipe, module = params.recipe(method), recipe_module(method)
    scores = pd.read_parquet(_there(f"data/scores/{method}.parquet"))
    cost = json.loads(_there(f"data/scores/{method}.json").read_text())
    videos = pd.read_parquet(_there("data/videos.parquet")).set_index("video")
    labels = pd.read_parquet(_there("data/labels.parquet"))
    card = json.loads(_there("data/dataset.json").read_text())

    tests = videos.loc[videos[getattr(module, "SPLIT", "split")] == "test"]
    lengths = tests["frames"].to_dict()
    if not lengths:
        raise VigilError(
            "the data set has no test videos, so there is nothing to evaluate: add one to its test part, "
            "or score one with the trained model: python -m stages.watch VIDEO"
        )
    labels = labels.loc[labels["video"].isin([*lengths])]
    check_labels(labels, lengths)
    truths = rows_by(labels, "label_set")

    ladder = module.ladder(recipe.fuse)
    names = [*ladder]
    rungs = {"honest": names[0], "paper": names[-1]}
    found = {
        (rung, name): outcome(scores, fusion, sigma, lengths, truths.get(name))
        for rung, fusion in ladder.items()
        for name in truths or [""]
    }
    by_protocol = {protocol: {name: found[rung, name] for name in truths or [""]} for protocol, rung in rungs.items()}
    # the honest rule looks at no label: the same for all label sets
    honest = next(iter(by_protocol["honest"].values()))
    chosen = of_checkpoint(scores, honest.fusion.checkpoint)
    bar = threshold(chosen, honest.fusion, sigma, videos["frames"].to_dict(), params.evaluate.quantile)
    regions = detections(chosen, honest.fusion, videos)

    notes = _notes(params, card, bool(truths), cost.get("rests_on", {}))
    metrics: dict[str, Any] = {"method": method, "dataset": params.dataset, "seed": params.seed}
    metrics["data"] = {"videos": len(tests), "frames": sum(lengths.values()), "hash": content_hash(tests["hash"])}
    for protocol, rung in rungs.items():
        by_set = by_protocol[protocol]
        metrics[protocol] = _unnested(
            {
                name: _measures(by_set[name], params.seed) | _choices(by_set[name].fusion, ladder[rung])
                for name in truths
            }
            or {"": {"frames": len(by_set[""].frames)}}
        )
    if truths:
        metrics["ladder"] = {rung: _unnested({name: _auc(found[rung, name]) for name in truths}) for rung in ladder}
    metrics["alarms"] = _unnested(
        {
            name: worth(one.frames, bar, params.evaluate.quantile, videos["fps"].to_dict())
            for name, one in by_protocol["honest"].items()
        }
    )
    if regions is not None:
        metrics |= _regions(regions, lengths, "boxes" if honest.fusion.frames == "objects" else "error maps")
    if truths:
        metrics["labels"] = _unnested({name: _label_set(name, truth) for name, truth in truths.items()})
    metrics["cost"] = {key: value for key, value in cost.items() if key not in ("method", "seed")}
    if notes:
        metrics["note"] = "; ".join(notes)

    def title(what: str) -> str:
        return "\n".join([f"{method} on {card.get('title', params.dataset)}, {what}, seed {params.seed}", *notes])

    with replacing("metrics/plots") as folder:
        folder.mkdir()
        drawn = by_protocol[params.protocol]
        draw_scores(folder, params.protocol, drawn, truths, title(f"{params.protocol} protocol"))
        draw_highlights(folder, honest.frames, regions, truths, title("honest protocol"))
        if truths:
            draw_roc(folder, by_protocol, title("both protocols"))
            draw_checkpoints(folder, by_protocol["paper"], title("paper protocol"))
    with replacing("metrics/tables") as folder:
        folder.mkdir()
        write_tables(folder, lengths, by_protocol, bar, shown(honest.frames, bar), regions, chosen)
    with replacing("metrics/recipe.yaml") as path:
        YAML().dump({"dataset": params.dataset, "seed": params.seed, method: recipe.model_dump()}, path)
    with replacing("metrics/metrics.json") as path:
        path.write_text(json.dumps(_rounded(metrics), indent=2) + "\n")
    return f"{len(scores)} rows of scores, {len(truths)} label set(s) -> metrics/metrics.json, plots, tables"


def _there(path: str) -> Path:
    if not Path(path).exists():
        raise VigilError(f"{path} not found: `dvc repro` makes it")
    return Path(path)


def _measures(one: Outcome, seed: int) -> dict[str, Any]:
    """The measures, and behind each that has one its interval, named since `dvc metrics show` leaves lists out."""
    ranges = intervals(*one.judged, seed)
    found: dict[str, Any] = {}
    for key, value in measure(*one.judged).items():
        found[key] = value
        if key in ranges:
            ends = ranges[key]
            found[f"{key}_interval"] = ends and dict(zip(("low", "high"), ends, strict=True))
    return found


def _auc(one: Outcome) -> float:
    score, abnormal, _ = one.judged
    return float(roc_auc_score(abnormal, score))


def _regions(found: pd.DataFrame, lengths: Mapping[str, int], of: str) -> dict[str, Any]:
    """How well boxes tell where and for how long, in the test videos that have pixel truth; empty where none has."""
    known = {video: length for video, length in lengths.items() if masked(video)}
    truth = truth_table({video: read_masks(video) for video in known})
    if truth.empty:
        return {}
    frames = sum(known.values())
    rbdc, tbdc = rbdc_tbdc(truth, found.loc[found["video"].isin([*known])], frames)
    counts = {"regions": len(truth), "tracks": truth.groupby(["video", "track"]).ngroups}
    return {"regions": {"rbdc": rbdc, "tbdc": tbdc, "of": of, "videos": len(known), "frames": frames} | counts}


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


def _notes(params: Params, card: Mapping[str, Any], labelled: bool, rests_on: Mapping[str, str]) -> list[str]:
    """Say what a reader must know before comparing these numbers with others."""
    without_weights = [
        f"{path.split('.')[0]}: {choice}"
        for path, choice in rests_on.items()
        if choice in recipe_module(params.method).RESTS_ON[path]
    ]
    notes = []
    if params.dataset == "demo":
        notes.append("made data, not a benchmark")
    if card.get("partial"):
        notes.append("videos of the data set may be missing, not comparable with published figures")
    if not labelled:
        notes.append("no labels: score curves and counts, no AUC")
    if without_weights:
        notes.append(f"without published weights ({', '.join(without_weights)})")
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
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
