"""How a method's raw components become one anomaly score a frame. Scores: higher is more anomalous.

Shapes: T scored frames of one video, L frames of that video, N frames of all training videos.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d

from stages.evaluation.tables import rows_by
from stages.recipes import Fusion

SNIPPET = 16  # frames
GUARD = 1e-8  # that MAMA adds where it divides by what may be 0


def video_minmax(values: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """Scale one video's values to 0..1. A video whose values are all equal gets 0: no frame of it stands out."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def video_zscore(values: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """Give one video's values mean 0 and standard deviation 1 (population, ddof 0), as MAMA does."""
    return (values - values.mean()) / (values.std() + GUARD)


def rescaled(score: Float[np.ndarray, "*rows T"]) -> Float[np.ndarray, "*rows T"]:
    """Scale one video's score to 0..1, as MAMA does: to a little less than 1."""
    low, high = score.min(-1, keepdims=True), score.max(-1, keepdims=True)
    return (score - low) / (high - low + GUARD)


def train_zscore(values: Float[np.ndarray, " T"], train: Float[np.ndarray, " N"]) -> Float[np.ndarray, " T"]:
    """Subtract the training frames' mean and divide by their standard deviation (population, ddof 0).

    Where the training values are all equal they give no scale: the mean is subtracted and nothing divided.
    """
    spread = train.std() if train.max() > train.min() else 0.0
    return (values - train.mean()) / (spread or 1.0)


def smooth(score: Float[np.ndarray, "*rows T"], sigma: float) -> Float[np.ndarray, "*rows T"]:
    """Gaussian over time, `sigma` in frames, past and future; the ends are mirrored, as MAMA does."""
    return gaussian_filter1d(score, sigma, mode="reflect") if sigma > 0 else score


def fill_ends(score: Float[np.ndarray, " T"], first: int, length: int) -> Float[np.ndarray, " L"]:
    """Extend a score that starts at frame `first` to all `length` frames by its first and its last value."""
    return np.pad(score, (first, length - first - len(score)), mode="edge")


def highest_by_frame(
    frame: Int[np.ndarray, " T"], score: Float[np.ndarray, " T"], length: int, lowest: float
) -> Float[np.ndarray, " L"]:
    """Each frame's highest score of its objects; `lowest` for a frame without any."""
    highest = np.full(length, lowest)
    np.maximum.at(highest, frame, score)
    return highest


def fuse(
    fusion: Fusion, video: Mapping[str, Float[np.ndarray, " T"]], train: Mapping[str, Float[np.ndarray, " N"]]
) -> Float[np.ndarray, " T"]:
    """Normalise one video's components as `fusion` says and add them up by weight. Only z-scores look at `train`."""

    def normalised(component: str) -> np.ndarray:
        match fusion.normalise:
            case "video_minmax":
                return video_minmax(video[component])
            case "video_zscore":
                return video_zscore(video[component])
            case "train_zscore":
                return train_zscore(video[component], train[component])
            case "none":
                return video[component]

    score = np.sum([weight * normalised(component) for component, weight in fusion.weights.items()], axis=0)
    return rescaled(score) if fusion.rescale else score


def fuse_table(scores: pd.DataFrame, fusion: Fusion, sigma: float, lengths: Mapping[str, int]) -> pd.DataFrame:
    """One score a frame for every test video.

    Args:
        scores: rows of video, split, frame and one column a component, as `checks.check_scores` accepts them; a row
            a frame, an object or a snippet, and no frame twice for several checkpoints: see `of_checkpoint`.
        fusion: weights, normalisation, and which frames.
        sigma: of the smoothing along each video, in frames; 0 for none.
        lengths: test video -> frames, in the order of the result.

    Returns:
        Columns video, frame, score.
    """

    def columns(rows: pd.DataFrame) -> dict[str, np.ndarray]:
        return {component: rows[component].to_numpy() for component in fusion.weights}

    train = columns(scores.loc[scores["split"] == "train"])
    test = scores.loc[scores["split"] == "test"]
    by_video = rows_by(test, "video")
    lowest = fuse(fusion, columns(scores), train).min() if fusion.frames == "objects" else np.nan
    parts = []
    for video, length in lengths.items():
        rows = by_video[video] if video in by_video else test[:0]
        frame, score = rows["frame"].to_numpy(), fuse(fusion, columns(rows), train)
        match fusion.frames:
            case "objects":
                score = smooth(highest_by_frame(frame, score, length, lowest), sigma)
            case "snippets":
                score = smooth(np.repeat(score, SNIPPET)[:length], sigma)
            case "whole_snippets":
                score = smooth(np.repeat(score, SNIPPET), sigma)
            case "all":
                score = fill_ends(smooth(score, sigma), int(frame[0]), length)
            case "scored":
                score = smooth(score, sigma)
        frame = frame if fusion.frames == "scored" else np.arange(len(score))
        parts.append(pd.DataFrame({"video": video, "frame": frame, "score": score}))
    return pd.concat(parts, ignore_index=True)


def of_checkpoint(scores: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one checkpoint, and of the training videos; all rows where there are no checkpoints."""
    if "checkpoint" not in scores:
        return scores
    return scores.loc[(scores["checkpoint"] == name) | (scores["split"] == "train")]
