"""S3R: "Self-supervised Sparse Representation for Video Anomaly Detection", Wu et al., ECCV 2022.

Weakly supervised: whole training videos are labelled. Features are those of the section `features`, normality that of
the section `dictionary`. The authors' seeds are 823 for ShanghaiTech and 49 for UCF-Crime; here `seed` counts.
"""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from stages.params import Published, Section
from stages.recipes import Fusion

SPLIT = "weak_split"
RESTS_ON = {"features.source": (), "features.weights": ("random",)}


class Fit(Section):
    """Network and training. A step is counted once its weights have changed: the first is 1."""

    width: Published[Annotated[int, Field(ge=8, multiple_of=8)]]  # channels inside the network, between 2048 and 2048
    dropout: Published[Annotated[float, Field(ge=0, lt=1)]]
    lambda_magnitude: Published[Annotated[float, Field(ge=0)]]
    lambda_smooth: Published[Annotated[float, Field(ge=0)]]
    lambda_sparsity: Published[Annotated[float, Field(ge=0)]]
    learning_rate: Published[Annotated[float, Field(gt=0)]]
    weight_decay: Published[Annotated[float, Field(ge=0)]]
    batch: Published[Annotated[int, Field(ge=1)]]  # normal videos, and as many abnormal ones
    steps: Published[Annotated[int, Field(ge=1)]]
    test_every: Published[Annotated[int, Field(ge=1)]]  # steps; the test videos are scored, their labels not touched
    test_after: Published[Annotated[int, Field(ge=0)]]  # steps, before which no videos are scored
    held_out: Annotated[float, Field(ge=0, lt=1)]  # fraction of the training videos that choose the step; 0: the last


class Fuse(Section):
    """From snippets' scores to frames'."""

    checkpoint: Literal["chosen", "last"]  # by the held-out videos, or of the last step


class Recipe(Section):
    """The section `s3r` of params.yaml. Scoring has nothing to choose, and there is one component."""

    fit: Fit
    fuse: Fuse


CODE = "authors' code, default of its options or of its configuration for the data set"
AS_SHANGHAITECH = "ours: as for ShanghaiTech"
MINIATURE = "ours, to train in seconds, chosen on the made data set itself; not published"

PUBLISHED = {
    "fit.width": {"default": (512, CODE), "demo": (32, MINIATURE)},
    "fit.dropout": {"default": (0.7, CODE)},
    "fit.lambda_magnitude": {"default": (1e-4, CODE)},
    "fit.lambda_smooth": {"default": (8e-4, CODE)},
    "fit.lambda_sparsity": {"default": (8e-3, CODE)},
    "fit.learning_rate": {"default": (1e-3, CODE)},
    "fit.weight_decay": {"default": (5e-3, CODE)},
    "fit.batch": {"default": (32, CODE), "demo": (4, MINIATURE)},
    "fit.steps": {"default": (15_000, CODE), "demo": (100, MINIATURE)},
    "fit.test_every": {"default": (1, CODE), "demo": (20, MINIATURE)},
    "fit.test_after": {
        "shanghaitech": (5_000, CODE),
        "ucf_crime": (10, CODE),
        "default": (5_000, AS_SHANGHAITECH),
        "demo": (0, MINIATURE),
    },
}


def ladder(fuse: Fuse) -> dict[str, Fusion]:
    """A snippet's score, in 0..1, is that of its frames; nothing is normalised.

    Honest: the step that held-out training videos chose, or the last one. Paper: 16 frames of the last snippet too,
    with the last frame's label repeated, and the step that is best on the test labels.
    """
    honest = Fusion({"score": 1.0}, normalise="none", frames="snippets", checkpoint=fuse.checkpoint)
    last = replace(honest, checkpoint="last")
    whole = replace(last, frames="whole_snippets")
    return {
        "honest": honest,
        "last checkpoint": last,
        "whole last snippets": whole,
        "checkpoint chosen on test labels": replace(whole, checkpoint="best_on_test"),
    }
