"""The section `segments` of params.yaml: what each pixel belongs to, for MAMA's label branch."""

from typing import Annotated, Literal

from pydantic import Field

from stages.params import Published, Section

SOURCE = "the authors' code: frames resized to 256x256 before every network"
DEMO = "a miniature for the made data set"


class Recipe(Section):
    """Semantic segmentation of every frame."""

    network: Literal["motion", "deeplabv3"]
    size: Published[Annotated[int, Field(ge=64, multiple_of=8)]]
    batch: Annotated[int, Field(ge=1)]


PUBLISHED = {"size": {"default": (256, SOURCE), "demo": (64, DEMO)}}
