"""The frames that a method finds most anomalous, to be looked at."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from stages.evaluation.fusion import fuse
from stages.recipes import Fusion

SIDES = ["x1", "y1", "x2", "y2"]


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


def scored_objects(scores: pd.DataFrame, fusion: Fusion) -> pd.DataFrame:
    """Every test object's box and fused score: columns video, frame, x1, y1, x2, y2, score."""

    def columns(split: str) -> Mapping[str, np.ndarray]:
        rows = scores.loc[scores["split"] == split]
        return {component: rows[component].to_numpy() for component in fusion.weights}

    test = scores.loc[scores["split"] == "test", ["video", "frame", *SIDES]]
    return test.assign(score=fuse(fusion, columns("test"), columns("train")))
