"""Optical flow, stored once per video: as STATE uses it, and as MAMA does."""

from typing import Annotated, Literal

from pydantic import Field

from stages.params import Published, Section

Network = Literal["dis", "flownet2", "flownet2_sd", "raft_large", "raft_small"]
"""`dis`: OpenCV's dense inverse search, which needs no weights. The others are networks with published weights."""


class Flow(Section):
    """How a method's flow is computed. Both methods take the pair (i, i + 1) for frame i, the last repeats its pair."""

    network: Network
    height: Published[Annotated[int, Field(ge=64)]]  # pixels, to which frames are resized
    width: Published[Annotated[int, Field(ge=64)]]
    first: Literal["self", "next"]  # the pair of frame 0: with itself, or with frame 1
    contrast: Annotated[float, Field(gt=0)]  # factor on frames 0..255 that FlowNet2 is given; it subtracts their mean
    align_corners: bool  # of the bilinear enlarging of FlowNet2's flows
    reduce: Literal[1, 4]  # stored at 1 / reduce of height and width
    batch: Annotated[int, Field(ge=1)]  # pairs


class Recipe(Section):
    """The section `flow` of params.yaml."""

    state: Flow
    mama: Flow


STATE = "authors' code (MRMGA4VAD), optical flow extraction: frames resized to 512x384"
MAMA = "authors' code, frames resized to 256x256"
MINIATURE = "miniature for the made data set"

PUBLISHED = {
    "state.height": {"default": (384, STATE), "demo": (128, MINIATURE)},
    "state.width": {"default": (512, STATE), "demo": (192, MINIATURE)},
    "mama.height": {"default": (256, MAMA), "demo": (64, MINIATURE)},
    "mama.width": {"default": (256, MAMA), "demo": (64, MINIATURE)},
}
