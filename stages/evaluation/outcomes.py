"""What a rule makes of a method's scores: one score a frame, and, with labels, the truth beside it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.evaluation.checks import check_classes, check_scores
from stages.evaluation.fusion import fuse_table, of_checkpoint
from stages.evaluation.search import settle
from stages.evaluation.tables import with_truth
from stages.recipes import Fusion


@dataclass(frozen=True)
class Outcome:
    """One rule on one label set.

    Attributes:
        fusion: with nothing left to choose.
        checkpoints: rows of checkpoint and auc, where the rule takes the best of them; else empty.
        frames: video, frame, score and, with labels, abnormal, of every frame that the rule judges.
    """

    fusion: Fusion
    checkpoints: pd.DataFrame
    frames: pd.DataFrame

    @property
    def judged(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Score, abnormal and video of each judged frame. Needs labels."""
        frames = self.frames
        return frames["score"].to_numpy(), frames["abnormal"].to_numpy(bool), frames["video"].to_numpy()


def outcome(
    scores: pd.DataFrame, fusion: Fusion, sigma: float, lengths: Mapping[str, int], truth: pd.DataFrame | None
) -> Outcome:
    """Check the scores, choose what the rule leaves to choose, and fuse.

    Args:
        scores: as `fuse_table` takes them, of all checkpoints.
        fusion: the rule.
        sigma: of the smoothing along each video, in frames; 0 for none.
        lengths: test video -> frames.
        truth: rows of label_set, video, frame, abnormal, of one set; None without labels.

    Raises VigilError where scores and videos do not fit, or the judged frames are of one class.
    """
    check_scores(of_checkpoint(scores, "chosen"), fusion, lengths)
    settled, checkpoints = settle(scores, fusion, sigma, lengths, truth)
    frames = fuse_table(of_checkpoint(scores, settled.checkpoint), settled, sigma, lengths)
    if truth is not None:
        frames = with_truth(frames, truth)
        check_classes(frames["abnormal"].to_numpy(bool), truth["label_set"].iat[0])
    return Outcome(settled, checkpoints, frames)
