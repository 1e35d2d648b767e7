"""Frames to be looked at: those that a method finds most anomalous, its false alarms, and what it misses."""

import numpy as np
import pandas as pd

from stages.evaluation.alarms import runs

SHOWN = 8  # of each kind
APART = 25  # frames, at least, between two of the highest of one video


def shown(frames: pd.DataFrame, bar: float | None) -> pd.DataFrame:
    """The frames of highest score, the false alarms and the misses; SHOWN of each kind at most.

    Args:
        frames: video, frame, score, and, where there are labels, abnormal; a row a frame, in order.
        bar: above which a frame is alarmed; None: there are no alarms.

    Returns:
        kind: "highest"; "false_alarm": a run of alarmed frames that touches no abnormal one, at its highest frame, by
            descending score; "miss": a run of abnormal frames without an alarmed one, likewise, the longest first.
        rank, video, frame, score: rank from 0 within the kind.
        start, stop: the frames of the run, stop exclusive; of "highest" the frame alone.
    """
    score = frames["score"].to_numpy()

    def peaks(kind: str, flag: np.ndarray, other: np.ndarray) -> pd.DataFrame:
        """The highest frame of each run of `flag` that has no frame of `other`."""
        touched = np.cumsum(np.append(0, other))
        spans = [(a, b) for a, b in zip(*runs(frames, flag), strict=True) if touched[a] == touched[b]]
        found = frames.iloc[[a + int(score[a:b].argmax()) for a, b in spans]]
        start = np.array([frames["frame"].iat[a] for a, _ in spans], int)
        return found.assign(kind=kind, start=start, stop=start + [b - a for a, b in spans])

    highest = highest_frames(frames, SHOWN, APART)
    parts = [highest.assign(kind="highest", start=highest["frame"], stop=highest["frame"] + 1)]
    if bar is not None and "abnormal" in frames:
        alarmed, abnormal = score > bar, frames["abnormal"].to_numpy(bool)
        parts.append(peaks("false_alarm", alarmed, abnormal).sort_values("score", ascending=False, kind="stable"))
        missed = peaks("miss", abnormal, alarmed)
        parts.append(missed.iloc[np.argsort(missed["start"] - missed["stop"], kind="stable")])
    found = pd.concat([part.head(SHOWN).assign(rank=range(min(len(part), SHOWN))) for part in parts])
    return found.filter(["kind", "rank", "video", "frame", "score", "start", "stop"]).reset_index(drop=True)


def highest_frames(frames: pd.DataFrame, count: int, apart: int) -> pd.DataFrame:
    """The `count` rows of highest score; none within `apart` frames of a higher one of its video: that is one event.

    `frames` has columns video, frame, score.
    """
    chosen: list[int] = []
    ranked = frames.sort_values("score", ascending=False, kind="stable")
    for row, video, frame in zip(ranked.index, ranked["video"], ranked["frame"], strict=True):
        near = [other for other in chosen if frames.at[other, "video"] == video]
        if all(abs(frames.at[other, "frame"] - frame) >= apart for other in near):
            chosen.append(row)
        if len(chosen) == count:
            break
    return frames.loc[chosen]
