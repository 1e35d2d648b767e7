"""Evaluations made up for the report's tests: small, all numbers known."""

from importlib.util import find_spec

import cv2
import numpy as np
import pandas as pd

from stages.evaluation.roc import video_aucs
from stages.io.frames import write_store
from stages.io.maps import packed
from stages.params import recipe_module
from stages.report.evaluations import Evaluation

CARD = {"name": "yard", "title": 'A yard & "gate" <7>', "partial": False, "citation": ""}
VIDEOS = {"test/a": 40, "test/b & <c>": 60}
ABNORMAL = {"test/a": (10, 20), "test/b & <c>": (0, 0)}


def videos(fps: float = 10.0) -> pd.DataFrame:
    return pd.DataFrame({"video": [*VIDEOS, "train/0"], "frames": [*VIDEOS.values(), 30], "fps": fps})


def frame_table(lengths: dict[str, int] = VIDEOS, label_sets: tuple[str, ...] = ("yard",), shift: float = 0.0):
    """Scores that rise by 0.1 a frame, three more where abnormal; the paper's rule leaves the first four frames out."""
    parts = []
    for video, length in lengths.items():
        frame = np.arange(length)
        start, stop = ABNORMAL.get(video, (0, 0))
        abnormal = (frame >= start) & (frame < stop)
        score = 0.1 * (frame % 10) + 3.0 * abnormal + shift
        part = pd.DataFrame({"video": video, "frame": frame, "honest": score, "paper": score / 5})
        part.loc[:3, "paper"] = np.nan
        for name in label_sets:
            part["abnormal" if len(label_sets) == 1 else f"abnormal_{name}"] = abnormal
        parts.append(part.assign(alarm=score > 3.05))
    return pd.concat(parts, ignore_index=True)


def shown_table(maps: bool) -> pd.DataFrame:
    rows = [
        ("highest", 0, "test/a", 19, 3.9, 19, 20),
        ("highest", 1, "test/b & <c>", 59, 0.9, 59, 60),
        ("false_alarm", 0, "test/b & <c>", 9, 0.9, 5, 10),
        ("miss", 0, "test/a", 11, 3.1, 10, 20),
    ]
    table = pd.DataFrame(rows, columns=["kind", "rank", "video", "frame", "score", "start", "stop"])
    ramp = np.linspace(0, 1, 1024).reshape(1, 32, 32)
    return table.assign(map=packed(ramp) * len(table) if maps else None)


def evaluation(
    method: str,
    auc: float | None,
    *,
    name: str = "",
    seed: int = 0,
    frames: pd.DataFrame | None = None,
    label_sets: tuple[str, ...] = ("yard",),
    maps: bool = True,
    speed: float = 100.0,
    data: str = "d1",
) -> Evaluation:
    """A run with the given honest AUC; without labels where there is none."""
    table = frame_table(label_sets=label_sets) if frames is None else frames
    count = len(table)

    def by_set(value: dict) -> dict:
        return value if len(label_sets) == 1 else {one: value for one in label_sets}

    metrics = {"method": method, "dataset": "yard", "seed": seed, "data": {"videos": 2, "frames": count, "hash": data}}
    cost = {"device": "a small machine", "frames_per_second": speed, "parameters": int(1000 * speed), "gmac": 0.05}
    if auc is None:
        metrics |= {"honest": {"frames": count}, "paper": {"frames": count}, "cost": cost}
        metrics |= {"alarms": {"quantile": 0.99, "threshold": 3.05, "alarms": 1}, "note": "no labels: no AUC"}
        table = table.drop(columns=[column for column in table if column.startswith("abnormal")])
        roc = pd.DataFrame(columns=["protocol", "label_set", "fpr", "tpr"])
    else:
        measures = {
            "auc_micro": auc,
            "auc_micro_interval": {"low": auc - 0.1, "high": auc + 0.05},
            "auc_macro": auc - 0.02,
            "macro_videos": 1,
            "macro_skipped": 1,
            "macro_rules": {"skip": 0.5, "pad": 0.771, "one": 0.752, "zero": 0.253},
            "ap": auc - 0.03,
            "eer": 1 - auc,
            "frames": count,
            "abnormal": 10,
        }
        labels = {one: {"set": one, "hash": f"hash-{one}", "frames": count, "abnormal": 10} for one in label_sets}
        rungs = {"honest": auc, "min-max of each video": auc + 0.05, "weights searched on test labels": auc + 0.08}
        worth = {"quantile": 0.99, "threshold": 3.05, "f1": auc - 0.1, "false_alarms_per_hour": 360.0}
        metrics |= {
            "honest": by_set(measures),
            "paper": by_set(measures | {"auc_micro": auc + 0.08, "frames": count - 4}),
            "ladder": {
                rung: value if len(label_sets) == 1 else {one: value for one in label_sets}
                for rung, value in rungs.items()
            },
            "alarms": by_set(worth),
            "labels": labels[label_sets[0]] if len(label_sets) == 1 else labels,
            "cost": cost,
            "note": "made data, not a benchmark",
        }
        corner = {"fpr": [0.0, 1 - auc, 1.0], "tpr": [0.0, auc, 1.0]}
        roc = pd.concat(
            pd.DataFrame(corner).assign(protocol=protocol, label_set=one)
            for protocol in ("honest", "paper")
            for one in label_sets
        )
    regions = pd.DataFrame(
        [("test/a", 19, 4.0, 5.0, 20.0, 25.0, 0.9), ("test/a", 19, 30.0, 5.0, 44.0, 15.0, 0.4)],
        columns=["video", "frame", "x1", "y1", "x2", "y2", "score"],
    )
    recipe = {"dataset": "yard", "seed": seed, method: recipe_of(method)}
    shown = shown_table(maps)
    shown = shown.loc[shown["video"].isin(table["video"])]
    judged = video_table(table, label_sets if auc is not None else ())
    return Evaluation(name or method, "workspace", metrics, recipe, table, shown, regions, judged, roc)


def video_table(table: pd.DataFrame, label_sets: tuple[str, ...]) -> pd.DataFrame:
    parts = [pd.DataFrame(columns=["protocol", "label_set", "video", "auc"])]
    for name in label_sets:
        column = "abnormal" if len(label_sets) == 1 else f"abnormal_{name}"
        for protocol in ("honest", "paper") if column in table else ():
            rows = table.rename(columns={protocol: "score", column: "abnormal"}).dropna(subset=["score", "abnormal"])
            parts.append(video_aucs(rows).assign(protocol=protocol, label_set=name))
    return pd.concat(parts, ignore_index=True)


def recipe_of(method: str) -> dict:
    """What is published where nothing is said of the data set; of a method that does not exist a part of its own."""
    if find_spec(f"stages.recipes.{method}") is None:
        return {"fuse": {"alpha": 0.6}}
    recipe: dict[str, dict] = {}
    for path, values in recipe_module(method).PUBLISHED.items():
        part, key = path.split(".")
        recipe.setdefault(part, {})[key] = values["default"][0] if "default" in values else 0
    return recipe


def write_frames(folder) -> None:
    """Grey frames of 48 x 32 pixels that differ."""
    for video, length in VIDEOS.items():
        images = [np.full((32, 48), 2 * frame + 60, np.uint8) for frame in range(length)]
        write_store(
            folder / f"{video}.arrow", (cv2.imencode(".png", one)[1].tobytes() for one in images), fps=10.0, source=""
        )
