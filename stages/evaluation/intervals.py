"""How far a figure would move with other test videos: percentile intervals of a bootstrap over whole videos.

Frames of one video are alike, so it is videos that are drawn, as many as there are, with replacement. A draw is nothing
but a weight for every video, how often it was drawn: the scores are sorted once for all draws.

Shapes: N frames of V videos, D draws.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

DRAWS = 1000
LEVEL = 95  # percent of the draws that an interval holds, as many left out below as above
SUMMED_AT_ONCE = 2**21  # frames of all draws of a chunk: what stays in a processor's cache is faster


def intervals(
    score: Float[np.ndarray, " N"], abnormal: Bool[np.ndarray, " N"], video: np.ndarray, seed: int, draws: int = DRAWS
) -> dict[str, list[float] | None]:
    """Intervals [low, high] of the micro AUC (`auc_micro`) and of the average precision (`ap`).

    None where there is one video alone: nothing is known of others. Needs frames of both classes.
    """
    names, of_frame = np.unique(video, return_inverse=True)
    if len(names) < 2:
        return {"auc_micro": None, "ap": None}
    times = drawn(abnormal, of_frame, draws, np.random.default_rng(seed))
    ends = [(100 - LEVEL) / 2, (100 + LEVEL) / 2]
    auc, ap = weighted_areas(score, abnormal, of_frame, times)
    return {"auc_micro": np.percentile(auc, ends).tolist(), "ap": np.percentile(ap, ends).tolist()}


def drawn(
    abnormal: Bool[np.ndarray, " N"], of_frame: Int[np.ndarray, " N"], draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "D V"]:
    """How often each draw holds each video. One without normal or without abnormal frames is drawn again."""
    frames = np.bincount(of_frame)
    hits = np.bincount(of_frame, abnormal)
    kept = np.empty((0, len(frames)), np.int64)
    while len(kept) < draws:
        times = rng.multinomial(len(frames), np.full(len(frames), 1 / len(frames)), draws)
        both = (times @ hits > 0) & (times @ (frames - hits) > 0)
        kept = np.concatenate([kept, times[both]])
    return kept[:draws]


def weighted_areas(
    score: Float[np.ndarray, " N"],
    abnormal: Bool[np.ndarray, " N"],
    of_frame: Int[np.ndarray, " N"],
    times: Int[np.ndarray, "D V"],
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    """Area under the ROC curve and average precision with each video taken `times` times; frames with a tie are one.

    Args:
        score: of the frames of all videos.
        abnormal: likewise.
        of_frame: number of each frame's video.
        times: of each draw and video.
    """
    order = np.argsort(-score, kind="stable")
    hit, of_frame = abnormal[order], of_frame[order]
    last = np.flatnonzero(np.diff(score[order], append=np.nan) != 0)  # of the frames of equal score
    parts = []
    for chunk in np.array_split(times, min(len(times), max(1, len(times) * len(score) // SUMMED_AT_ONCE))):
        weight = chunk[:, of_frame]
        above = np.cumsum(weight, axis=1)[:, last]
        true = np.cumsum(weight * hit, axis=1)[:, last]
        false = above - true
        gained = np.diff(true, axis=1, prepend=0)
        steps = np.diff(false, axis=1, prepend=0)
        # integers, so that no rounding adds up; halves come from the ties alone
        pairs = np.sum(steps * (2 * true - gained), axis=1) / 2
        auc = pairs / (true[:, -1] * false[:, -1])
        ap = np.sum(gained * true / np.maximum(above, 1), axis=1) / true[:, -1]
        parts.append((auc, ap))
    auc, ap = zip(*parts, strict=True)
    return np.concatenate(auc), np.concatenate(ap)
