"""The pictures of an evaluation as files, and what they show as tables for `dvc plots`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from stages.evaluation.highlights import highest_frames, scored_objects
from stages.evaluation.plots import COLOURS, checkpoint_figure, highlights_figure, roc_figure, score_figure
from stages.evaluation.roc import roc_points, video_aucs
from stages.io.frames import FrameStore
from stages.recipes import Fusion
from stages.videos import FRAMES

SHOWN, APART = 5, 25  # frames of highest score that are drawn, and how many frames lie between two of one video
Judged = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Score, abnormal and video of each judged frame."""


def draw_scores(
    folder: Path,
    protocol: str,
    fused: pd.DataFrame,
    truths: Mapping[str, pd.DataFrame],
    judged: Mapping[str, Judged],
    title: str,
) -> None:
    """The score over time against the truth: scores.csv, scores.png. `judged`: label set -> what was judged."""
    table = fused.assign(index=range(len(fused)))[["video", "frame", "index", "score"]]
    for name in truths:
        column = "abnormal" if len(truths) == 1 else f"abnormal_{name}"
        table[column] = judged[name][1].astype(int)
    table.to_csv(folder / "scores.csv", index=False, float_format="%.6g")
    aucs = {name: video_aucs(*judged[name]) for name in truths}
    figure = score_figure(fused, truths, aucs, COLOURS[protocol], title)
    figure.savefig(folder / "scores.png", metadata={"Software": None})


def draw_roc(folder: Path, judged: Mapping[tuple[str, str], Judged], title: str) -> None:
    """ROC curves of both protocols: roc_<protocol>.csv, roc.png. `judged`: (protocol, label set) -> what was judged."""
    curves = {key: roc_points(score, abnormal) for key, (score, abnormal, _) in judged.items()}
    for protocol in COLOURS:  # a file each, since `dvc plots` draws a file as one line
        parts = [
            pd.DataFrame({"label_set": name, "fpr": fpr, "tpr": tpr})
            for (own, name), (fpr, tpr) in curves.items()
            if own == protocol
        ]
        pd.concat(parts).to_csv(folder / f"roc_{protocol}.csv", index=False, float_format="%.6g")
    aucs = {key: roc_auc_score(abnormal, score) for key, (score, abnormal, _) in judged.items()}
    figure = roc_figure(curves, aucs, title)
    figure.savefig(folder / "roc.png", metadata={"Software": None})


def draw_highlights(
    folder: Path,
    scores: pd.DataFrame,
    fusion: Fusion,
    fused: pd.DataFrame,
    truths: Mapping[str, pd.DataFrame],
    title: str,
) -> None:
    """The frames of highest score, with boxes where objects are scored: highlights.png; nothing without frames."""
    objects = scored_objects(scores, fusion) if fusion.frames == "objects" else None
    shown = []
    highest = highest_frames(fused, SHOWN, APART)
    for video, frame, score in zip(highest["video"], highest["frame"], highest["score"], strict=True):
        store = FRAMES / f"{video}.arrow"
        if not store.exists():  # a data set of features alone
            return
        said = []
        for name, truth in truths.items():
            abnormal = truth.loc[(truth["video"] == video) & (truth["frame"] == frame), "abnormal"]
            said.append(f"{'abnormal' if abnormal.any() else 'normal'} ({name})")
        text = "\n".join([f"{video}, frame {frame}: score {score:.3g}", *said])
        inside = None
        if objects is not None:
            inside = objects.loc[(objects["video"] == video) & (objects["frame"] == frame)]
        shown.append((text, FrameStore(store)[int(frame)][..., ::-1], inside))
    figure = highlights_figure(shown, title)
    figure.savefig(folder / "highlights.png", metadata={"Software": None})


def draw_checkpoints(folder: Path, curves: Mapping[str, pd.DataFrame], title: str) -> None:
    """What each checkpoint reaches, where the paper's rule takes the best: checkpoints.csv, checkpoints.png."""
    table = pd.concat([curve.assign(label_set=name) for name, curve in curves.items()], ignore_index=True)
    if len(table):
        table.to_csv(folder / "checkpoints.csv", index=False, float_format="%.6g")
        checkpoint_figure(curves, title).savefig(folder / "checkpoints.png", metadata={"Software": None})
