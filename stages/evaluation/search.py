"""What authors choose by looking at the test labels: the weights of the score, and the checkpoint.

Only the paper's protocol does so, and says so; what it is worth is a rung of the ladder in metrics.json.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from stages.evaluation.fusion import fuse_table, rescaled, smooth
from stages.evaluation.tables import rows_by, with_truth
from stages.recipes import Fusion

RANKED_AT_ONCE = 2**23  # scores


def settle(
    scores: pd.DataFrame, fusion: Fusion, sigma: float, lengths: Mapping[str, int], truth: pd.DataFrame | None
) -> tuple[Fusion, pd.DataFrame]:
    """The fusion with the weights and the checkpoint that have the highest AUC, the first of several.

    Args:
        scores: as `fuse_table` takes them, of all checkpoints.
        fusion: with weights to be tried, or checkpoint "best_on_test", or neither: then it stays as it is.
        sigma: of the smoothing along each video, in frames; 0 for none.
        lengths: test video -> frames.
        truth: rows of video, frame, abnormal; None: without labels the fixed weights and the chosen checkpoint stay.

    Returns:
        The fusion with nothing left to choose, and rows of checkpoint and auc: the best that each one reaches, the
        chosen one's first. No rows where no checkpoint is chosen.
    """
    by_name = checkpoints(scores, fusion)
    searched = fusion.checkpoint == "best_on_test"
    names = [*by_name] if searched else [[*by_name][-1] if fusion.checkpoint == "last" else "chosen"]
    if truth is None or not (fusion.tried or searched):
        return replace(fusion, checkpoint=names[0], tried=()), pd.DataFrame()
    candidates = fusion.tried or (fusion.weights,)
    found = [aucs_of_weights(by_name[name], fusion, candidates, sigma, lengths, truth) for name in names]
    best = [float(one.max()) for one in found]
    which = int(np.argmax(best))
    weights = candidates[int(found[which].argmax())]
    curve = pd.DataFrame({"checkpoint": names, "auc": best}) if searched else pd.DataFrame()
    return replace(fusion, weights=weights, checkpoint=names[which], tried=()), curve


def checkpoints(scores: pd.DataFrame, fusion: Fusion) -> dict[str, pd.DataFrame]:
    """Checkpoint -> its test rows and all training rows, "chosen" first; those that have all components."""
    if "checkpoint" not in scores:
        return {"chosen": scores}
    complete = scores.loc[scores[list(fusion.weights)].notna().all(axis=1)]
    train = complete.loc[complete["split"] == "train"]
    by_name = rows_by(complete.loc[complete["split"] == "test"], "checkpoint")
    return {name: pd.concat([train, rows]) for name, rows in by_name.items()}


def aucs_of_weights(
    scores: pd.DataFrame,
    fusion: Fusion,
    candidates: Sequence[Mapping[str, float]],
    sigma: float,
    lengths: Mapping[str, int],
    truth: pd.DataFrame,
) -> Float[np.ndarray, " M"]:
    """AUC of each of M candidates' weights. A sum is linear in them: components are normalised once for all."""
    components = list(candidates[0])
    alone = [replace(fusion, weights={component: 1.0}, rescale=False) for component in components]
    tables = [fuse_table(scores, one, 0.0, lengths) for one in alone]
    judged = with_truth(tables[0], truth)
    abnormal = judged["abnormal"].to_numpy(bool)
    values = np.stack([table["score"] for table in tables])
    ends = judged.groupby("video", sort=False).size().cumsum().to_numpy()[:-1]
    weights = np.array([[candidate[component] for component in components] for candidate in candidates])
    chunks = np.array_split(weights, max(1, weights.shape[0] * values.shape[1] // RANKED_AT_ONCE))
    found = []
    for chunk in chunks:
        videos = np.split(chunk @ values, ends, axis=1)
        videos = [rescaled(video) for video in videos] if fusion.rescale else videos
        found.append(aucs(np.concatenate([smooth(video, sigma) for video in videos], axis=1), abnormal))
    return np.concatenate(found)


def aucs(scores: Float[np.ndarray, "M N"], abnormal: Bool[np.ndarray, " N"]) -> Float[np.ndarray, " M"]:
    """Area under the ROC curve of each row: how often an abnormal frame ranks above a normal one, ties half."""
    positive = int(abnormal.sum())
    ranks = rankdata(scores, axis=1)[:, abnormal].sum(axis=1)
    return (ranks - positive * (positive + 1) / 2) / (positive * (len(abnormal) - positive))
