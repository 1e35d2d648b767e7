"""MNAD, prediction: "Learning Memory-guided Normality for Anomaly Detection", Park, Noh, Ham, CVPR 2020."""

from typing import Annotated

from pydantic import Field

from stages.params import Published, Section
from stages.recipes import Fusion


class Fit(Section):
    """Network and training."""

    size: Published[Annotated[int, Field(ge=32, multiple_of=8)]]  # pixels, height = width
    width: Published[Annotated[int, Field(ge=1)]]  # channels of the first block
    items: Published[Annotated[int, Field(ge=2)]]  # of the memory
    lambda_compact: Published[Annotated[float, Field(ge=0)]]
    lambda_separate: Published[Annotated[float, Field(ge=0)]]
    learning_rate: Published[Annotated[float, Field(gt=0)]]
    batch: Published[Annotated[int, Field(ge=1)]]  # clips
    epochs: Published[Annotated[int, Field(ge=0)]]


class Score(Section):
    """Test-time behaviour."""

    gamma: Published[Annotated[float, Field(ge=0)]]  # the memory learns from frames whose error is below


class Fuse(Section):
    """From components to one score."""

    alpha: Published[Annotated[float, Field(ge=0, le=1)]]  # weight of the prediction error


class Recipe(Section):
    """The section `mnad` of params.yaml."""

    fit: Fit
    score: Score
    fuse: Fuse


CODE = "authors' code, default of Train.py or Evaluate.py"
MINIATURE = "ours, to train in seconds; not published"
RECALLED = "paper, section 4.1, as recalled; the authors' code has 60 for every data set"

PUBLISHED = {
    "fit.size": {"default": (256, CODE), "demo": (64, MINIATURE)},
    "fit.width": {"default": (64, CODE), "demo": (8, MINIATURE)},
    "fit.items": {"default": (10, CODE)},
    "fit.lambda_compact": {"default": (0.1, CODE)},
    "fit.lambda_separate": {"default": (0.1, CODE)},
    "fit.learning_rate": {"default": (2e-4, CODE), "demo": (1e-3, MINIATURE)},
    "fit.batch": {"default": (4, CODE)},
    "fit.epochs": {"default": (60, CODE), "shanghaitech": (10, RECALLED), "demo": (4, MINIATURE)},
    "score.gamma": {"default": (0.01, CODE)},
    "fuse.alpha": {"default": (0.6, CODE)},
}


def ladder(fuse: Fuse) -> dict[str, Fusion]:
    """Section 3.3, equations 9 to 12: PSNR and feature distance, weighted by alpha.

    Honest: z-scores by the training videos, memory reset before each video. Paper: min-max within each video, memory
    carried from video to video.
    """
    alpha = float(fuse.alpha)
    reset = {"psnr_reset": -alpha, "feature_distance_reset": 1 - alpha}
    carried = {"psnr_carried": -alpha, "feature_distance_carried": 1 - alpha}
    return {
        "honest": Fusion(reset, normalise="train_zscore", frames="all"),
        "scored frames alone": Fusion(reset, normalise="train_zscore", frames="scored"),
        "min-max of each video": Fusion(reset, normalise="video_minmax", frames="scored"),
        "memory carried over": Fusion(carried, normalise="video_minmax", frames="scored"),
    }
