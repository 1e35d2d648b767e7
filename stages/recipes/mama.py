"""MAMA: F2LM generator and Destroyer (IEEE Access 12, pages 36712 to 36726, 2024)."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from stages.params import Published, Section
from stages.recipes import Fusion


class Training(Section):
    """What both trainings share. A batch has one clip of each of `batch` videos."""

    width: Published[Annotated[int, Field(ge=1)]]  # channels of the first block
    learning_rate: Published[Annotated[float, Field(gt=0)]]
    weight_decay: Published[Annotated[float, Field(ge=0)]]
    batch: Published[Annotated[int, Field(ge=1)]]  # clips
    iterations: Published[Annotated[int, Field(ge=1)]]
    validate_every: Published[Annotated[int, Field(ge=1)]]  # iterations
    held_out: Annotated[float, Field(ge=0, lt=1)]  # fraction of the training videos that choose the checkpoint; 0: last
    batch_norm: Literal["frozen", "trained"]  # after the first validation


class Generator(Training):
    """F2LM: the network that predicts, and its discriminator."""

    size: Published[Annotated[int, Field(ge=32, multiple_of=32)]]  # pixels, height = width
    discriminator_rate: Published[Annotated[float, Field(gt=0)]]
    lambda_gradient: Published[Annotated[float, Field(ge=0)]]
    lambda_adversarial: Published[Annotated[float, Field(ge=0)]]
    lambda_triplet: Published[Annotated[float, Field(ge=0)]]
    triplet_axis: Literal["width", "channels"]  # along which features are compared


class Destroyer(Training):
    """The network that makes what was predicted badly worse."""

    background: Annotated[float, Field(ge=-1, le=1)]  # grey level, -1..1, that bad patches are to become


class Fuse(Section):
    """From components to one score: weights."""

    motion: Annotated[float, Field(ge=0)]  # of the distance of motion features
    label: Annotated[float, Field(ge=0)]  # of the distance of label features
    prediction: Annotated[float, Field(ge=0)]  # of the generator's error
    destroyed: Annotated[float, Field(ge=0)]  # of the Destroyer's error


class Recipe(Section):
    """The section `mama` of params.yaml."""

    generator: Generator
    destroyer: Destroyer
    fuse: Fuse


RESTS_ON = {"flow.mama.network": ("dis",), "segments.network": ("motion",)}

CODE = "authors' code, default of its options or of its configuration for the data set"
README = "authors' README, command for the data set"
MINIATURE = "ours, to train in seconds; not published"
AS_AVENUE = "ours: as for Avenue"


def rate(ped: float, others: float) -> dict[str, tuple[float, str]]:
    """A value that the authors set for Ped1 and Ped2, and for Avenue and ShanghaiTech."""
    known = {"ped1": ped, "ped2": ped, "avenue": others, "shanghaitech": others}
    return {dataset: (value, CODE) for dataset, value in known.items()} | {"default": (others, AS_AVENUE)}


PUBLISHED = {
    "generator.size": {"default": (256, CODE), "demo": (64, MINIATURE)},
    "generator.width": {"default": (64, CODE), "demo": (8, MINIATURE)},
    "generator.lambda_gradient": {"default": (1.0, CODE)},
    "generator.lambda_adversarial": {"default": (0.05, CODE)},
    "generator.lambda_triplet": {"default": (1.0, CODE)},
    "generator.learning_rate": rate(1e-4, 2e-4) | {"demo": (1e-3, MINIATURE)},
    "generator.discriminator_rate": rate(1e-5, 2e-5) | {"demo": (1e-4, MINIATURE)},
    "generator.weight_decay": rate(1e-4, 2e-4),
    "generator.batch": {"default": (4, CODE)},
    "generator.iterations": {"default": (60_000, README), "demo": (200, MINIATURE)},
    "generator.validate_every": {"default": (1_000, CODE), "demo": (50, MINIATURE)},
    "destroyer.width": {"default": (64, CODE), "demo": (8, MINIATURE)},
    "destroyer.learning_rate": rate(1e-4, 2e-4) | {"demo": (1e-3, MINIATURE)},
    "destroyer.weight_decay": rate(1e-4, 2e-4),
    "destroyer.batch": {"default": (4, CODE)},
    "destroyer.iterations": {"default": (15_000, README), "demo": (100, MINIATURE)},
    "destroyer.validate_every": {"default": (100, README), "demo": (50, MINIATURE)},
}

TENTHS = 50  # that the weights of motion, label and prediction add up to
DESTROYED = (0.25, 0.5, 0.75, 1.0)


def ladder(fuse: Fuse) -> dict[str, Fusion]:
    """Distances of motion and of label features, errors of the prediction and of the Destroyer, weighted.

    Honest: z-scores by the training videos, fixed weights, the checkpoint that held-out training videos chose. Paper:
    z-scores within each video, the sum scaled to 0..1 there, and the weights and the checkpoint that are best on the
    test labels: what the authors report is the highest of all these weights and of all their validations.
    """
    weights = {name: float(weight) for name, weight in fuse if weight > 0}
    honest = Fusion(weights, normalise="train_zscore", frames="all")
    scored = replace(honest, frames="scored")
    by_video = replace(scored, normalise="video_zscore", rescale=True)
    searched = replace(by_video, tried=grid(with_destroyer=fuse.destroyed > 0))
    return {
        "honest": honest,
        "scored frames alone": scored,
        "z-score and min-max of each video": by_video,
        "weights searched on test labels": searched,
        "checkpoint chosen on test labels": replace(searched, checkpoint="best_on_test"),
    }


def grid(with_destroyer: bool) -> tuple[dict[str, float], ...]:
    """The weights that the authors try: steps of 0.1, motion, label and prediction add up to 5; 1,176 of these.

    Theirs are 1,179: rounding lets in three that leave the prediction out.
    """
    three = [
        {"motion": motion / 10, "label": label / 10, "prediction": (TENTHS - motion - label) / 10}
        for motion in range(1, TENTHS)
        for label in range(1, TENTHS - motion)
    ]
    if not with_destroyer:
        return tuple(three)
    return tuple(weights | {"destroyed": destroyed} for weights in three for destroyed in DESTROYED)
