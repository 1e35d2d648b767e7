"""Optical flow on disk: one memory-mapped file a video, and a description of all of a recipe's files.

data/flow/<recipe>/<video>.npy   float16 (T, h, w, 2): x to the right, y down, in pixels of the recipe's resolution
data/flow/<recipe>.json          network, height, width, `reduce` (h = height / reduce), which pair a frame has

T frames, H, W height and width of the recipe.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float16
from torch import Tensor

from stages.command import VigilError

FLOW = Path("data/flow")


def read_flow(recipe: str, video: str) -> Float16[np.ndarray, "T h w 2"]:
    """A video's flow as a read-only memory map. Raises VigilError where the stage has not made it."""
    path = FLOW / recipe / f"{video}.npy"
    if not path.is_file():
        raise VigilError(f"{path} not found: run `dvc repro stages/dvc.yaml:flow-{recipe}` first")
    return np.load(path, mmap_mode="r")


def read_description(recipe: str) -> dict[str, Any]:
    """What the flow stage wrote about a recipe's flow. Raises VigilError where it has not run."""
    path = FLOW / f"{recipe}.json"
    if not path.is_file():
        raise VigilError(f"{path} not found: run `dvc repro stages/dvc.yaml:flow-{recipe}` first")
    return json.loads(path.read_text())


def full_size(flow: Float16[np.ndarray, "N h w 2"], reduce: int) -> Float[Tensor, "N 2 H W"]:
    """Stored flow at the recipe's resolution, in float32: bilinear, as FlowNet2-SD enlarges its own."""
    planes = torch.from_numpy(np.array(flow, np.float32)).permute(0, 3, 1, 2)
    return F.interpolate(planes, scale_factor=reduce, mode="bilinear") if reduce > 1 else planes
