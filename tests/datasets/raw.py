"""Small raw data sets as people have them, written to disk."""

import json
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


def features(folder: Path, snippets: dict[str, int], crops: int = 1) -> None:
    """A feature file of zeros a video, in the published layout; takes no room on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in snippets.items():
        np.lib.format.open_memmap(folder / f"{name}_i3d.npy", "w+", np.float16, (count, crops, 2048))


def shanghaitech_features(root: Path, snippets: int = 8932, abnormal: int = 8028) -> dict[str, int]:
    """ShanghaiTech's weak split as features, lists and truth of made videos; returns the snippets of each test video.

    `snippets`, and `abnormal` frames, of all test videos together.
    """
    train = [f"01_{i:04d}" for i in range(63)] + [f"01_{i:03d}" for i in range(175)]
    test = [f"02_{i:04d}" for i in range(44)] + [f"02_{i:03d}" for i in range(155)]
    counts = {name: snippets // 199 + (i < snippets % 199) for i, name in enumerate(test)}
    flagged = [abnormal // 44 + (i < abnormal % 44) for i in range(44)] + [0] * 155
    truth = {
        name: {"num_frames": 16 * counts[name], "labels": [1.0] * ones + [0.0] * (16 * counts[name] - ones)}
        for name, ones in zip(test, flagged, strict=True)
    }
    features(root / "features/train", dict.fromkeys(train, 2))
    features(root / "features/test", counts)
    (root / "SH_Train.txt").write_text("\n".join(train))
    (root / "SH_Test.txt").write_text("\n".join(test))
    (root / "shanghaitech_ground_truth.testing.json").write_text(json.dumps(truth))
    return counts
