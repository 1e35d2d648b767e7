"""Clips: windows of consecutive frames, read from memory-mapped pixels and made into network input.

Shapes: B clips, T frames a clip, H = W = size, C = 1 for grey stores and 3 for colour (BGR).
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


class Clips:
    """All windows of `length` consecutive frames in some videos; none crosses from one video into the next.

    Frames are addressed by position, never by file name. Reading copies each clip's bytes once; they travel to the
    device as 8-bit integers and become numbers there.
    """

    def __init__(self, videos: dict[str, np.ndarray], length: int):
        """`videos`: name -> uint8 (frames, H, W, C). A video shorter than `length` has no clips."""
        self.videos = list(videos.values())
        self.length = length
        counts = [max(0, len(video) - length + 1) for video in self.videos]
        starts = [(video, start) for video, count in enumerate(counts) for start in range(count)]
        self.starts = np.array(starts, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.starts)

    def batches(self, size: int, seed: int, epoch: int) -> Iterator[Int[np.ndarray, "B 2"]]:
        """Every clip once, shuffled anew by (seed, epoch); an incomplete last batch is dropped."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self))
        for start in range(0, len(self) - size + 1, size):
            yield self.starts[order[start : start + size]]

    def in_order(self, size: int) -> Iterator[Int[np.ndarray, "B 2"]]:
        """Every clip once, in temporal order; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self.starts[start : start + size]

    def read(self, index: Int[np.ndarray, "B 2"], device: torch.device) -> Float[Tensor, "B T 3 H W"]:
        """The clips at `index`, BGR in [-1, 1]; grey frames are repeated to three channels."""
        clips = np.stack([self.videos[video][start : start + self.length] for video, start in index])
        pixels = torch.from_numpy(clips).to(device, non_blocking=True)
        pixels = pixels.permute(0, 1, 4, 2, 3).float().div_(127.5).sub_(1)
        return pixels.expand(-1, -1, 3, -1, -1)
