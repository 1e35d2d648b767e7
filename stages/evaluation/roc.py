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
        auc_macro: mean of the videos' own areas by the rule `skip` of `macro_aucs`.
        macro_videos, macro_skipped: how many videos that mean covers, and how many have one class only.
        macro_rules: the same mean by each rule in use.
        ap: average precision, abnormal frames the positive class, no interpolation.
        eer: equal error rate.
        frames, abnormal: how many frames were judged, and how many of them are abnormal.
    """
    table = pd.DataFrame({"video": video, "score": score, "abnormal": abnormal})
    by_video = video_aucs(table)
    rules = macro_aucs(by_video)
    both = int(np.isfinite(by_video["auc"].to_numpy()).sum())
    fpr, tpr, _ = roc_curve(abnormal, score)
    return {
        "auc_micro": float(roc_auc_score(abnormal, score)),
        "auc_macro": rules["skip"],
        "macro_videos": both,
        "macro_skipped": len(by_video) - both,
        "macro_rules": rules,
        "ap": float(average_precision_score(abnormal, score)),
        "eer": equal_error_rate(fpr, tpr),
        "frames": len(score),
        "abnormal": int(abnormal.sum()),
    }


def video_aucs(frames: pd.DataFrame) -> pd.DataFrame:
    """Each video's own area under the ROC curve: columns video, frames, abnormal, auc, in order of appearance.

    `frames` has columns video, score, abnormal. The area is NaN where the video has frames of one class only.
    """
    rows = []
    for name, own in rows_by(frames, "video").items():
        truth = own["abnormal"].to_numpy(bool)
        both = truth.any() and not truth.all()
        auc = float(roc_auc_score(truth, own["score"])) if both else np.nan
        rows.append({"video": name, "frames": len(own), "abnormal": int(truth.sum()), "auc": auc})
    return pd.DataFrame(rows)


def macro_aucs(videos: pd.DataFrame) -> dict[str, float | None]:
    """The mean of the videos' areas, by the four rules for videos of one class that are in use.

    Args:
        videos: as `video_aucs` gives them.

    Returns:
        skip: they are left out; None where nothing is left.
        pad: every video is given one more normal frame below all others and one more abnormal frame above all.
        one, zero: their area is taken for 1, or for 0.
    """
    auc, abnormal = videos["auc"].to_numpy(float), videos["abnormal"].to_numpy(int)
    normal = videos["frames"].to_numpy(int) - abnormal
    both = np.isfinite(auc)
    # pairs of a normal and an abnormal frame that are in order: the video's own, and those with a new frame
    won = np.where(both, auc, 0) * normal * abnormal + normal + abnormal + 1
    return {
        "skip": float(auc[both].mean()) if both.any() else None,
        "pad": float(np.mean(won / ((normal + 1) * (abnormal + 1)))),
        "one": float(np.where(both, auc, 1).mean()),
        "zero": float(np.where(both, auc, 0).mean()),
    }


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
