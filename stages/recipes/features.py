"""The section `features` of params.yaml: I3D features of 16-frame snippets, for methods that learn from features."""

from typing import Annotated, Literal

from pydantic import Field

from stages.params import Published, Section


class Recipe(Section):
    """Extracting features, or taking published ones."""

    source: Literal["own", "imported"]
    network: Literal["i3d", "i3d_nonlocal"]
    weights: Literal["random", "pretrained"]
    resize: Literal["short_side", "stretch"]
    short_side: Published[Annotated[int, Field(ge=32)]]
    crop: Published[Annotated[int, Field(ge=32)]]
    crops: Published[Literal[10, 1]]
    order: Literal["centre_last", "centre_third"]
    normalise: Literal["caffe", "unit"]
    snippets: Literal["ceil", "floor"]
    batch: Annotated[int, Field(ge=1)]


KINETICS = "how the published weights were trained and are evaluated (video-nonlocal-net, pytorch-resnet3d)"
MINIATURE = "a miniature for the made data set; not published"

TEN_CROPS = "S3R and RTFM: features of ten crops"

PUBLISHED = {
    "crops": {"default": (10, TEN_CROPS)},
    "short_side": {"default": (256, KINETICS), "demo": (56, MINIATURE)},
    "crop": {"default": (224, KINETICS), "demo": (48, MINIATURE)},
}
