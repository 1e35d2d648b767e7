"""Small raw data sets as people have them, written to disk."""

from pathlib import Path

import av
import cv2
import numpy as np
from scipy.io import savemat


def image(path: Path, value: int = 90, shape: tuple = (12, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full(shape, value, np.uint8))


def images(folder: Path, count: int, pattern: str = "{:03d}.png", start: int = 0) -> None:
    for index in range(count):
        image(folder / pattern.format(index + start), 60 + index)


def masks(folder: Path, abnormal: list[int], pattern: str = "{:03d}.png", start: int = 0) -> None:
    """One mask a frame; an abnormal frame's has a single bright pixel."""
    for index, flag in enumerate(abnormal):
        mask = np.zeros((12, 16), np.uint8)
        mask[3, 5] = 255 * flag
        path = folder / pattern.format(index + start)
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), mask)


def video(path: Path, count: int, codec: str = "ffv1", pix_fmt: str = "bgr0") -> np.ndarray:
    """A video of random frames, (count, 32, 48, 3); returns them."""
    frames = np.random.default_rng(count).integers(0, 256, (count, 32, 48, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pix_fmt
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())
    return frames


def mat_ranges(path: Path, ranges: list[list[list[int]]]) -> None:
    """`gt`: a cell a video of starts and ends, counted from 1."""
    cells = np.empty((1, len(ranges)), object)
    for index, pair in enumerate(ranges):
        cells[0, index] = np.array(pair)
    savemat(path, {"gt": cells})


def mat_masks(path: Path, abnormal: list[int]) -> None:
    """`volLabel`: a cell a frame."""
    cells = np.empty((1, len(abnormal)), object)
    for index, flag in enumerate(abnormal):
        cells[0, index] = np.full((32, 48), flag, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"volLabel": cells})
