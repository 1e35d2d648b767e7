"""Pixel truth on disk: a file a test video, one bit a pixel, which is set where something abnormal is.

data/masks/<video>.npz   mask: (frames, height, bytes), bits packed along the width; shape: (frames, height, width)
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool

MASKS = Path("data/masks")


def masked(video: str) -> bool:
    """Whether a video has pixel truth."""
    return (MASKS / f"{video}.npz").exists()


def read_masks(video: str) -> Iterator[Bool[np.ndarray, "H W"]]:
    """A video's pixel truth, a frame at a time: unpacked, all of them together may not fit in memory."""
    with np.load(MASKS / f"{video}.npz") as file:
        packed, width = file["mask"], int(file["shape"][2])
    for rows in packed:
        yield np.unpackbits(rows, axis=-1, count=width).view(bool)
