"""The compiled kernels that Cascade R-CNN's inference calls, for an mmcv that was installed without a compiler.

mmcv keeps its kernels in the extension module `mmcv._ext`; the package mmcv-lite lacks it, and mmdet then fails at
import. `install` puts a module of that name in its place, with NMS and RoIAlign on torchvision's kernels. A kernel
that is not here is named when it is called. Where a full mmcv is installed, its own extension is used.

Semantics: mmcv 2.1, documentation of `mmcv.ops.nms` and `mmcv.ops.RoIAlign`. N boxes or regions, C channels.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import nms as torchvision_nms
from torchvision.ops import roi_align

MAX = 0  # mmcv's code for pool_mode "max"; 1 is "avg"


def install() -> None:
    """Make `mmcv._ext` importable: the compiled one where it is there, else this adapter.

    To be called before mmdet is imported.
    """
    if importlib.util.find_spec("mmcv._ext") is None:
        extension = Extension("mmcv._ext")
        # mmengine asks importlib whether the module exists, which raises for a module without a specification
        extension.__spec__ = ModuleSpec("mmcv._ext", loader=None)
        sys.modules["mmcv._ext"] = extension


class Extension(ModuleType):
    """Stands for `mmcv._ext`. mmcv checks at import that its several hundred kernels exist, hence `__getattr__`."""

    def __getattr__(self, name: str) -> Any:
        """The adapter's kernel of that name, or a function that says that there is none."""
        if name.startswith("__"):
            raise AttributeError(name)
        return KERNELS.get(name) or absent(name)


def absent(name: str):
    """A function that raises NotImplementedError."""

    def kernel(*args, **kwargs):
        raise NotImplementedError(f"mmcv's kernel {name} needs a full mmcv (pip install mmcv==2.1.0, which compiles)")

    return kernel


def nms(boxes: Float[Tensor, "N 4"], scores: Float[Tensor, "N"], iou_threshold: float, offset: int) -> Int[Tensor, "K"]:
    """Greedy non-maximum suppression: indices of the kept boxes, highest score first, the earlier one first on ties.

    A box goes if its intersection over union with a kept one is above `iou_threshold`. Boxes are (x1, y1, x2, y2),
    and `x2 - x1 + offset` wide: offset 1 counts pixels, as mmdet 1 did, 0 measures lengths.
    """
    grown = boxes + boxes.new_tensor([0, 0, offset, offset])
    # mmcv compares in 32 bits; torchvision's 64-bit threshold would drop a box at exactly the threshold (0.6, say)
    threshold = torch.tensor(iou_threshold, dtype=torch.float32).item()
    return torchvision_nms(grown, scores, threshold)


def roi_align_forward(
    input: Float[Tensor, "B C H W"],
    rois: Float[Tensor, "N 5"],
    output: Float[Tensor, "N C h w"],
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign: fill `output` with the average or the maximum of bilinear samples in each of h x w bins of a region.

    Args:
        input: feature maps.
        rois: (index in the batch, x1, y1, x2, y2), in pixels of the image.
        output: filled.
        argmax_y: for the backward pass only; left as it is.
        argmax_x: likewise.
        aligned_height: h.
        aligned_width: w.
        spatial_scale: from image pixels to pixels of `input`.
        sampling_ratio: samples along a side of a bin; 0: one for every pixel that it spans, rounded up.
        pool_mode: 0 maximum, 1 average.
        aligned: pixel centres lie at half-integers; else at integers, and a region is at least one pixel wide.
    """
    size = (aligned_height, aligned_width)
    if pool_mode != MAX:
        output.copy_(roi_align(input, rois, size, spatial_scale, sampling_ratio, aligned))
        return
    sides = (rois[:, [4, 3]] - rois[:, [2, 1]]) * spatial_scale
    grid = (sides / sides.new_tensor(size)).ceil().clamp(min=1).long()
    if sampling_ratio > 0:
        grid = torch.full_like(grid, sampling_ratio)
    for samples in grid.unique(dim=0):  # regions with equally many samples in a bin: one bin a sample, then pooled
        chosen = (grid == samples).all(1)
        rows, columns = samples.tolist()
        fine = (aligned_height * rows, aligned_width * columns)
        values = roi_align(input, rois[chosen], fine, spatial_scale, 1, aligned)
        output[chosen] = F.max_pool2d(values, (rows, columns))


KERNELS = {"nms": nms, "roi_align_forward": roi_align_forward}
