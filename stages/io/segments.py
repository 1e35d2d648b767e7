"""What each pixel belongs to, on disk: one memory-mapped file a video.

data/segments/<video>.npy   float16 (T, 21, h, w): logits of Pascal VOC's classes; h, w = size / STRIDE

T frames; size: height and width of the frames that were segmented. Enlarged bilinearly (align_corners=False), these
are exactly DeepLabv3's output.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float16

from stages.command import VigilError

SEGMENTS = Path("data/segments")
CLASSES, STRIDE = 21, 8


def read_segments(video: str) -> Float16[np.ndarray, "T 21 h w"]:
    """A video's logits as a read-only memory map. Raises VigilError where the stage has not made them."""
    path = SEGMENTS / f"{video}.npy"
    if not path.is_file():
        raise VigilError(f"{path} not found: run `dvc repro stages/dvc.yaml:segments` first")
    return np.load(path, mmap_mode="r")
