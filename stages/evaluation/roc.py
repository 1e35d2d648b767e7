"""How well a score tells abnormal frames from normal ones. Scores: higher is more anomalous.

Shapes: N frames of all test videos, K points of a ROC curve. Needs frames of both classes.
"""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from stages.evaluation.tables import rows_by


def measure(score: Float[np.ndarray, " N"], abnormal: Bool[np.ndarray, " N"], video: np.ndarray) -> dict[str, Any]:
    """All frame-level measures of one protocol and one label set.

    Returns:
        auc_micro: area under the ROC curve over the frames of all videos together.
        auc_macro: mean of the videos' own areas, over the videos that have normal and abnormal frames; None
            where no video has both.
        macro_videos, macro_skipped: how many videos that mean covers, and how many have one class only.
        ap: average precision, abnormal frames the positive class, no interpolation.
        eer: equal error rate.
        frames, abnormal: how many frames were judged, and how many of them are abnormal.
    """
    by_video = video_aucs(score, abnormal, video)
    fpr, tpr, _ = roc_curve(abnormal, score)
    return {
        "auc_micro": float(roc_auc_score(abnormal, score)),
        "auc_macro": float(np.mean(list(by_video.values()))) if by_video else None,
        "macro_videos": len(by_video),
        "macro_skipped": len(np.unique(video)) - len(by_video),
        "ap": float(average_precision_score(abnormal, score)),
        "eer": equal_error_rate(fpr, tpr),
        "frames": len(score),
        "abnormal": int(abnormal.sum()),
    }


def video_aucs(score: Float[np.ndarray, " N"], abnormal: Bool[np.ndarray, " N"], video: np.ndarray) -> dict[str, float]:
    """Area under the ROC curve of each video that has normal and abnormal frames, in order of appearance."""
    table = pd.DataFrame({"video": video, "score": score, "abnormal": abnormal})
    aucs = {}
    for name, rows in rows_by(table, "video").items():
        truth = rows["abnormal"].to_numpy()
        if truth.any() and not truth.all():
            aucs[name] = float(roc_auc_score(truth, rows["score"]))
    return aucs


def equal_error_rate(fpr: Float[np.ndarray, " K"], tpr: Float[np.ndarray, " K"]) -> float:
    """Where a ROC curve, joined by straight lines, has as many false alarms as misses: fpr = 1 - tpr."""
    excess = fpr + tpr - 1  # rises from -1 to 1 along the curve
    after = int(np.argmax(excess >= 0))
    step = -excess[after - 1] / (excess[after] - excess[after - 1])
    return float(fpr[after - 1] + step * (fpr[after] - fpr[after - 1]))


def roc_points(
    score: Float[np.ndarray, " N"], abnormal: Bool[np.ndarray, " N"], points: int = 200
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Thin a ROC curve for plotting: false and true positive rates of at most `points` corners, evenly along it."""
    fpr, tpr, _ = roc_curve(abnormal, score)
    along = fpr + tpr
    keep = np.unique(np.searchsorted(along, np.linspace(0, along[-1], points)))
    return fpr[keep], tpr[keep]
