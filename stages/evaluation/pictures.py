"""The pictures of an evaluation as files, and what they show as tables for `dvc plots`."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from sklearn.metrics import roc_auc_score

from stages.evaluation.highlights import highest_frames
from stages.evaluation.outcomes import Outcome
from stages.evaluation.plots import COLOURS, checkpoint_figure, highlights_figure, roc_figure, score_figure
from stages.evaluation.roc import roc_points, video_aucs
from stages.io.frames import FrameStore
from stages.videos import FRAMES

SHOWN, APART = 5, 25  # frames of highest score that are drawn, and how many frames lie between two of one video


def draw_scores(
    folder: Path, protocol: str, outcomes: Mapping[str, Outcome], truths: Mapping[str, pd.DataFrame], title: str
) -> None:
    """The score over time against the truth: scores.csv, scores.png. `outcomes`: label set -> what was judged."""
    fused = next(iter(outcomes.values())).frames
    table = fused.assign(index=range(len(fused)))[["video", "frame", "index", "score"]]
    for name in truths:
        column = "abnormal" if len(truths) == 1 else f"abnormal_{name}"
        table[column] = outcomes[name].frames["abnormal"].to_numpy(int)
    table.to_csv(folder / "scores.csv", index=False, float_format="%.6g")
    aucs = {name: video_aucs(outcomes[name].frames).set_index("video")["auc"].dropna().to_dict() for name in truths}
    figure = score_figure(fused, truths, aucs, COLOURS[protocol], title)
    figure.savefig(folder / "scores.png", metadata={"Software": None})


def draw_roc(folder: Path, outcomes: Mapping[str, Mapping[str, Outcome]], title: str) -> None:
    """ROC curves of both protocols: roc_<protocol>.csv, roc.png. `outcomes`: protocol -> label set -> what it gave."""
    curves, aucs = {}, {}
    for protocol, by_set in outcomes.items():
        for name, one in by_set.items():
            score, abnormal, _ = one.judged
            curves[protocol, name] = roc_points(score, abnormal)
            aucs[protocol, name] = roc_auc_score(abnormal, score)
        parts = [  # a file each, since `dvc plots` draws a file as one line
            pd.DataFrame({"label_set": name, "fpr": fpr, "tpr": tpr})
            for (own, name), (fpr, tpr) in curves.items()
            if own == protocol
        ]
        pd.concat(parts).to_csv(folder / f"roc_{protocol}.csv", index=False, float_format="%.6g")
    figure = roc_figure(curves, aucs, title)
    figure.savefig(folder / "roc.png", metadata={"Software": None})


def draw_highlights(
    folder: Path,
    fused: pd.DataFrame,
    regions: pd.DataFrame | None,
    truths: Mapping[str, pd.DataFrame],
    title: str,
) -> None:
    """The frames of highest score and what was detected in them: highlights.png; nothing without frames."""
    pictures = []
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
        if regions is not None:
            inside = regions.loc[(regions["video"] == video) & (regions["frame"] == frame)]
        pictures.append((text, FrameStore(store)[int(frame)][..., ::-1], inside))
    figure = highlights_figure(pictures, title)
    figure.savefig(folder / "highlights.png", metadata={"Software": None})


def draw_checkpoints(folder: Path, outcomes: Mapping[str, Outcome], title: str) -> None:
    """What each checkpoint reaches, where the paper's rule takes the best: checkpoints.csv, checkpoints.png."""
    curves = {name: one.checkpoints for name, one in outcomes.items()}
    table = pd.concat([curve.assign(label_set=name) for name, curve in curves.items()], ignore_index=True)
    if len(table):
        table.to_csv(folder / "checkpoints.csv", index=False, float_format="%.6g")
        checkpoint_figure(curves, title).savefig(folder / "checkpoints.png", metadata={"Software": None})
