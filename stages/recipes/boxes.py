"""The section `boxes` of params.yaml: object boxes as STATE uses them, which takes VEC's rules and thresholds."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stages.params import Published, Section


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError("expected an odd number")
    return kernel


class Detector(Section):
    """Which of a detector's boxes are kept."""

    score: Published[Annotated[float, Field(ge=0, le=1)]]  # only boxes with a higher one
    area: Published[Annotated[int, Field(ge=0)]]  # pixels; no smaller boxes
    cover: Published[Annotated[float, Field(ge=0, le=1)]]  # fraction of a box that larger ones may cover
    batch: Annotated[int, Field(ge=1)]  # frames


class Motion(Section):
    """What moves, and the boxes around it."""

    difference: Published[Literal["wrap", "saturate"]]  # how two 8-bit differences are added
    blur: Published[Annotated[int, Field(ge=1), AfterValidator(_odd)]]  # pixels, side of the Gaussian filter
    threshold: Published[Annotated[int, Field(ge=0, le=255)]]  # grey levels
    area: Published[Annotated[int, Field(ge=0)]]  # pixels; only larger boxes
    extend: Published[Annotated[int, Field(ge=0)]]  # pixels, at each side


class Recipe(Section):
    """Where boxes come from. A detector's boxes are followed by motion boxes where it found nothing."""

    source: Literal["motion", "cascade_rcnn", "faster_rcnn", "imported"]
    detector: Detector
    motion: Motion


CODE = "VEC's and STATE's code, thresholds of the foreground extraction"
AS_PED2 = "ours: as for Ped2, by the same makers"
AS_SHANGHAITECH = "ours: as for ShanghaiTech, whose scenes are the most varied"
SATURATE = "ours: a sum that does not wrap, since no published boxes are to be met"
DEMO = "ours, for the made data set: the best of a grid against its true boxes"


def _table(ped2, avenue, shanghaitech) -> dict:
    return {
        "ped1": (ped2, AS_PED2),
        "ped2": (ped2, CODE),
        "avenue": (avenue, CODE),
        "shanghaitech": (shanghaitech, CODE),
        "default": (shanghaitech, AS_SHANGHAITECH),
    }


PUBLISHED = {
    "detector.score": _table(0.5, 0.25, 0.5),
    "detector.area": _table(10 * 10, 40 * 40, 8 * 8),
    "detector.cover": _table(0.6, 0.6, 0.65),
    "motion.difference": {**_table("wrap", "wrap", "wrap"), "default": ("saturate", SATURATE)},
    "motion.blur": {**_table(3, 5, 5), "demo": (1, DEMO)},
    "motion.threshold": {**_table(18, 18, 15), "demo": (40, DEMO)},
    "motion.area": {**_table(10 * 10, 40 * 40, 8 * 8), "demo": (80, DEMO)},
    "motion.extend": {**_table(2, 2, 2), "demo": (0, DEMO)},
}
