"""Where in a frame a network errs."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stages.io.maps import SIDE


def error_map(frame: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B side side"]:
    """The root of the mean squared error of each cell; frames are -1..1, errors those of pixels in 0..1."""
    return F.adaptive_avg_pool2d(((frame - target) / 2).square().mean(1), SIDE).sqrt()
