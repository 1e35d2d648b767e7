"""STATE: "Making Reconstruction-based Method Great Again for Video Anomaly Detection", Wang et al., ICDM 2022.

How many frames and pixels an object has is in the section `objects`.
"""

from typing import Annotated, Literal

from pydantic import Field

from stages.params import Published, Section
from stages.recipes import Fusion


class Fit(Section):
    """Network and training."""

    width: Published[Annotated[int, Field(ge=1)]]  # channels of the first block
    layers: Published[Annotated[int, Field(ge=1)]]  # of the transformer
    heads: Published[Literal[1, 2, 4]]  # of its attention; they share its 4 width channels
    lambda_raw: Published[Annotated[float, Field(ge=0)]]
    lambda_flow: Published[Annotated[float, Field(ge=0)]]
    learning_rate: Published[Annotated[float, Field(gt=0)]]
    batch: Published[Annotated[int, Field(ge=1)]]  # objects
    epochs: Published[Annotated[int, Field(ge=0)]]


class Score(Section):
    """Test-time behaviour."""

    epsilon: Published[Annotated[float, Field(ge=0)]]  # of 1: how far each pixel is moved
    target: Literal["perturbed", "original"]  # pixels that the reconstruction is compared with
    detach_target: bool  # whether the gradient ignores that the target is the input


class Fuse(Section):
    """From components to one score."""

    raw: Published[Annotated[float, Field(ge=0)]]  # weight of the pixels' error
    flow: Published[Annotated[float, Field(ge=0)]]  # weight of the flow's error


class Recipe(Section):
    """The section `state` of params.yaml."""

    fit: Fit
    score: Score
    fuse: Fuse


RESTS_ON = {"flow.state.network": ("dis",), "boxes.source": ("motion",)}

CODE = "authors' code, default of train.py or test.py"
COMMAND = "authors' README, command for the data set"
AS_AVENUE = "ours: as for Avenue"
AS_SHANGHAITECH = "ours: as for ShanghaiTech"
MINIATURE = "ours, to train in seconds, chosen on the made data set itself; not published"

PUBLISHED = {
    "fit.width": {"default": (32, CODE), "demo": (8, MINIATURE)},
    "fit.layers": {
        "avenue": (3, COMMAND),
        "shanghaitech": (5, COMMAND),
        "default": (3, AS_AVENUE),
        "demo": (1, MINIATURE),
    },
    "fit.heads": {"default": (4, COMMAND)},
    "fit.lambda_raw": {"default": (1.0, CODE)},
    "fit.lambda_flow": {"default": (1.0, CODE)},
    "fit.learning_rate": {"default": (1e-3, CODE), "demo": (3e-3, MINIATURE)},
    "fit.batch": {"default": (128, CODE), "demo": (32, MINIATURE)},
    "fit.epochs": {"default": (20, CODE), "demo": (2, MINIATURE)},
    "score.epsilon": {"avenue": (0.002, COMMAND), "shanghaitech": (0.005, COMMAND), "default": (0.002, AS_AVENUE)},
    "fuse.raw": {"avenue": (0.3, COMMAND), "shanghaitech": (1.0, COMMAND), "default": (1.0, AS_SHANGHAITECH)},
    "fuse.flow": {"default": (1.0, COMMAND)},
}


def ladder(fuse: Fuse) -> dict[str, Fusion]:
    """Both errors of an object as z-scores by the training objects, weighted; a frame's highest object.

    One rung: the published rule looks at no test frame but the one that it judges.
    """
    weights = {"raw": float(fuse.raw), "flow": float(fuse.flow)}
    return {"honest": Fusion(weights, normalise="train_zscore", frames="objects")}
