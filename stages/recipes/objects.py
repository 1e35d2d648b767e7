"""The section `objects` of params.yaml: what STATE and VEC cut out of the video for each object."""

from typing import Annotated

from pydantic import Field

from stages.params import Published, Section


class Recipe(Section):
    """An object is its box in 2 * context + 1 frames, each part scaled to size x size."""

    size: Published[Annotated[int, Field(ge=8, multiple_of=4)]]  # pixels, height = width; STATE halves it twice
    context: Published[Annotated[int, Field(ge=0, le=4)]]  # frames on each side; STATE knows positions of ten
    motion: Annotated[float, Field(ge=0)]  # squared length of the flow, mean of an object; only larger ones are kept


CODE = "authors' code (MRMGA4VAD), options of its training and test"

PUBLISHED = {
    "size": {"default": (32, CODE), "demo": (16, "miniature for the made data set")},
    "context": {"default": (3, CODE)},
}
