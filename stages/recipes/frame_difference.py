"""Frame difference: the floor. Trains nothing; a method that does not beat it has learnt nothing."""

from typing import Annotated, Literal

from pydantic import Field

from stages.params import Section
from stages.recipes import Fusion


class Score(Section):
    """What is measured between a frame and the one before it."""

    size: Annotated[int, Field(ge=16)]  # pixels, height = width
    blur: Annotated[int, Field(ge=1)]  # pixels, side of the box blur before the peak is taken


class Fuse(Section):
    """From components to one score."""

    component: Literal["mean", "peak"]


class Recipe(Section):
    """The section `frame_difference` of params.yaml."""

    score: Score
    fuse: Fuse


PUBLISHED: dict = {}


def ladder(fuse: Fuse) -> dict[str, Fusion]:
    """One component. Paper: min-max within each video, as the prediction methods do. Honest: z-score by training."""
    weights = {fuse.component: 1.0}
    return {
        "honest": Fusion(weights, normalise="train_zscore", frames="all"),
        "scored frames alone": Fusion(weights, normalise="train_zscore", frames="scored"),
        "min-max of each video": Fusion(weights, normalise="video_minmax", frames="scored"),
    }
