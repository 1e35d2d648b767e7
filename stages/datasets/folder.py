"""A folder of one's own videos or frame folders, labels optional."""

from pathlib import Path

import numpy as np
import pandas as pd

from stages.command import VigilError
from stages.datasets.common import VIDEOS, Card, Labels, Truth, Video, collect, from_ranges, incomplete, load_npy

CARDS = {
    "folder": Card(
        "Videos of your own",
        """
  train/   normal videos: video files (front.mp4) and folders of images (yard/0001.jpg ...), mixed as you like
  test/    videos to judge, the same way; without it a model can be trained and a video watched, nothing evaluated
  and, to be told how good the judgement is, one of
  labels.csv              columns video,start,end: abnormal frames, counted from 0, both ends in, as many rows
                          a video as it has anomalies; a test video without a row is normal
  labels/<video>.npy      one 0 or 1 a frame; a test video without a file is not evaluated
""",
    )
}


def videos(root: Path) -> list[Video]:
    """All videos in train/ and test/. Raises VigilError where train/ has none."""
    train, test = collect(root / "train", "train"), collect(root / "test", "test")
    if not train:
        raise incomplete(root, CARDS["folder"], ["videos in train/"])
    return train + test


def mask(root: Path, video: Video) -> None:
    """There is no pixel truth."""


def labels(root: Path, frames: dict[str, int], masked: Truth) -> Labels:
    """One label set, named like the data set; none without label files.

    Raises VigilError for labels of a video that is not there, and for both kinds of label files at once.
    """
    table, folder = root / "labels.csv", root / "labels"
    if table.exists() and folder.exists():
        raise VigilError(f"{root} has labels.csv and labels/; remove the one that is not meant")
    if table.exists():
        return {root.name: from_table(table, frames)}
    if folder.exists():
        return {root.name: from_files(folder, frames)}
    return {}


def from_table(path: Path, frames: dict[str, int]) -> Truth:
    """Labels from rows of video, start, end. Raises VigilError for unknown columns, videos, or frames."""
    try:
        rows = pd.read_csv(path, dtype={"video": str, "start": "int64", "end": "int64"}, skipinitialspace=True)
    except (ValueError, pd.errors.ParserError) as error:
        raise VigilError(f"{path}: {error}; expected the columns video,start,end, frames as whole numbers") from None
    if list(rows.columns) != ["video", "start", "end"]:
        raise VigilError(f"{path}: found the columns {','.join(rows.columns)}; expected video,start,end")
    ranges: dict[str, list[tuple[int, int]]] = {video: [] for video in frames}
    columns = (rows[column].tolist() for column in rows)
    for line, (name, start, end) in enumerate(zip(*columns, strict=True), 2):
        video = known(name, frames, f"{path}, line {line}")
        if not 0 <= start <= end < frames[video]:
            raise VigilError(
                f"{path}, line {line}: frames {start} to {end} of {video}; expected within 0 to {frames[video] - 1}"
            )
        ranges[video].append((start + 1, end + 1))
    return {video: from_ranges(ranges[video], count, str(path)) for video, count in frames.items()}


def from_files(folder: Path, frames: dict[str, int]) -> Truth:
    """Labels from one .npy file a video. Raises VigilError for a file that belongs to no test video."""
    return {
        known(path.stem, frames, str(path)): np.asarray(load_npy(path)).ravel() > 0
        for path in sorted(folder.glob("*.npy"))
    }


def known(name: str, frames: dict[str, int], where: str) -> str:
    """The test video that a person calls by its name, with or without `test/` and the file's suffix."""
    name = name.removeprefix("test/")
    if Path(name).suffix.lower() in VIDEOS:
        name = name.removesuffix(Path(name).suffix)
    if f"test/{name}" not in frames:
        there = ", ".join(video.removeprefix("test/") for video in list(frames)[:10])
        raise VigilError(f"{where}: no test video is called {name!r}; there are {there}")
    return f"test/{name}"
