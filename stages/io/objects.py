"""Objects on disk: one memory-mapped file a video, a record an object, in order of frame, then of the boxes table.

data/objects/<video>.npy   records of `object_type`
data/objects.json          how they were made, and counts
"""

from pathlib import Path

import numpy as np

from stages.command import VigilError

OBJECTS = Path("data/objects")


def object_type(context: int, size: int) -> np.dtype:
    """The record of one object, with T = 2 * context + 1 frames and S = size.

    frame   the frame that is judged
    box     x1, y1, x2, y2: pixels of the source
    raw     (T, S, S, 3): its part of T frames around, blue first
    flow    (T, S, S, 2): its part of their flow, x then y, in pixels of the flow's resolution
    """
    frames = 2 * context + 1
    return np.dtype(
        [
            ("frame", "<i4"),
            ("box", "<f4", (4,)),
            ("raw", "u1", (frames, size, size, 3)),
            ("flow", "<f2", (frames, size, size, 2)),
        ]
    )


def read_objects(video: str) -> np.ndarray:
    """A video's objects, (N,) records of `object_type`, as a read-only memory map.

    Raises VigilError where the stage has not made them.
    """
    path = OBJECTS / f"{video}.npy"
    if not path.is_file():
        raise VigilError(f"{path} not found: run `dvc repro stages/dvc.yaml:objects` first")
    return np.load(path, mmap_mode="r")
