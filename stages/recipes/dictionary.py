"""The section `dictionary` of params.yaml: what normal videos are made of, for S3R.

"Self-supervised Sparse Representation for Video Anomaly Detection", Wu, Hsieh, Chen, Fuh, Liu, ECCV 2022.
"""

from typing import Annotated, Literal

from pydantic import Field

from stages.params import Published, Section


class Recipe(Section):
    """Learning a dictionary from features, or taking the authors'."""

    kind: Literal["codes", "atoms", "imported"]
    percentile: Published[Annotated[float, Field(gt=0, le=100)]]
    nonzeros: Annotated[int, Field(ge=1)]
    seed: Published[Annotated[int, Field(ge=0)]]
    rounds: Annotated[int, Field(ge=1)]


FILES = "name and shape of the authors' published dictionary"
CODE = "authors' code"

PUBLISHED = {
    "percentile": {
        "shanghaitech": (90.0, f"{FILES}: 158 slots of 175 videos"),
        "ucf_crime": (50.0, f"{FILES}: 400 slots of 800 videos"),
        "default": (90.0, f"{FILES} for ShanghaiTech"),
    },
    "seed": {"default": (42, CODE)},
}
