"""What the layouts share: videos, cards, natural order, and readers of the label files in circulation.

T frames, H, W height and width in pixels. Frames count from 0 here; the label files of MATLAB count from 1.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool
from scipy.io import loadmat

from stages.command import VigilError

IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}
VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}

Split = Literal["train", "test", ""]
Abnormal = Bool[np.ndarray, " T"]
Truth = dict[str, Abnormal]
"""Video name -> which of its frames are abnormal."""
Labels = dict[str, Truth]
"""Label set -> truth."""


@dataclass(frozen=True)
class Video:
    """One video of a raw data set.

    Attributes:
        name: folder of origin and native name, "train/01".
        split: of the one-class protocol; "" where the video has no place in it.
        source: a video file, or the image files of its frames in order; a feature file (.npy) where there are features
            alone.
        weak_split: of the weakly supervised protocol; "" where there is none.
        weak_abnormal: the video-level label of that protocol; None where there is none.
    """

    name: str
    split: Split
    source: Path | tuple[Path, ...]
    weak_split: Split = ""
    weak_abnormal: bool | None = None

    @property
    def folder(self) -> Path:
        """The file, or the folder of its images."""
        return self.source if isinstance(self.source, Path) else self.source[0].parent

    @property
    def has_frames(self) -> bool:
        """Whether there is more than features."""
        return not (isinstance(self.source, Path) and self.source.suffix == ".npy")


@dataclass(frozen=True)
class Card:
    """What a data set is and what must be in it.

    Attributes:
        title, address, citation: its name, where its makers offer it, what to cite.
        tree: the layouts that are understood, as text.
        videos: split -> number of videos.
        test_frames: their number; None where it is not known.
        abnormal: label set -> number of abnormal test frames.
        weak: split of the weakly supervised protocol -> number of abnormal and of normal videos.
        weak_truths: label set -> number of frames of the test videos of that protocol, in whole snippets, and of
            abnormal ones, None where it is not known.
    """

    title: str
    tree: str
    address: str = ""
    citation: str = ""
    videos: dict[str, int] = field(default_factory=dict)
    test_frames: int | None = None
    abnormal: dict[str, int] = field(default_factory=dict)
    weak: dict[str, tuple[int, int]] = field(default_factory=dict)
    weak_truths: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    def describe(self, dataset: str) -> str:
        """The card as text for a person: expected tree, address, citation."""
        lines = [self.title, f"Expected in data/raw/{dataset} (a symbolic link is fine):", self.tree.strip("\n")]
        lines += [f"Its makers offer it at {self.address}"] * bool(self.address)
        lines += [f"Cite: {self.citation}"] * bool(self.citation)
        return "\n".join(lines)


def natural(name: str) -> tuple:
    """A sort key by which 2 comes before 10, in each part of a path."""
    return tuple(
        [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in re.split(r"(\d+)", part) if piece]
        for part in name.split("/")
    ), name


def listed(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files of a folder with one of the suffixes, in natural order; hidden files (`._001.tif`) are not files."""
    paths = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return sorted(paths, key=lambda path: natural(path.name))


def collect(folder: Path, split: Split, origin: str | None = None) -> list[Video]:
    """Every video file and every folder of images directly in a folder, called `<origin or split>/<name>`."""
    if not folder.is_dir():
        return []
    videos = [Video(f"{origin or split}/{path.stem}", split, path) for path in listed(folder, VIDEOS)]
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            images = listed(path, IMAGES)
            if images:
                videos.append(Video(f"{origin or split}/{path.name}", split, tuple(images)))
    return videos


def first_with_videos(root: Path, folders: Iterable[str], split: Split) -> list[Video]:
    """The videos of the first of some folders that holds any."""
    return next((videos for folder in folders if (videos := collect(root / folder, split))), [])


def present(root: Path, names: Iterable[str]) -> Path | None:
    """The first of some files or folders that exists."""
    return next((root / name for name in names if (root / name).exists()), None)


def incomplete(root: Path, card: Card, missing: list[str]) -> VigilError:
    """The error for a data set of which parts are missing."""
    return VigilError(f"{root} is not a complete data set. Missing: {'; '.join(missing)}\n{card.describe(root.name)}")


def number(video: str) -> int:
    """The number at the end of a video's name, by which label files are ordered: test/Test012 -> 12."""
    digits = re.search(r"(\d+)$", video)
    if digits is None:
        raise VigilError(f"video {video}: expected a name that ends in its number, like 01 or Test001")
    return int(digits[1])


def image_masks(files: list[Path]) -> Bool[np.ndarray, "T H W"]:
    """Masks stored as one image a frame: non-zero pixels are abnormal. Raises VigilError naming a bad file."""
    masks = []
    for file in files:
        mask = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise VigilError(f"mask {file} cannot be read; fetch it again")
        if masks and mask.shape != masks[0].shape:
            raise VigilError(f"mask {file} is {mask.shape[::-1]} pixels, the video's first is {masks[0].shape[::-1]}")
        masks.append(mask > 0)
    return np.stack(masks)


def from_ranges(ranges: Iterable[tuple[int, int]], frames: int, where: str) -> Abnormal:
    """Labels from (start, end) pairs that count from 1 and include both ends.

    Raises VigilError, naming `where`, for a range that is not within 1..frames.
    """
    abnormal = np.zeros(frames, bool)
    for start, end in ranges:
        if not 1 <= start <= end <= frames:
            raise VigilError(f"{where}: range {start}..{end}, expected within 1..{frames}, the video's frames")
        abnormal[start - 1 : end] = True
    return abnormal


def from_cells(cells: list[list[tuple[int, int]]], frames: dict[str, int], path: Path) -> Truth:
    """Labels from one list of ranges a video: the video whose name ends in 1 has the first.

    Raises VigilError for a video without a list, and for a range outside its frames.
    """
    if bad := [video for video in frames if not 1 <= number(video) <= len(cells)]:
        raise VigilError(f"{path} has labels of {len(cells)} videos, none of {bad[0]}")
    return {
        video: from_ranges(cells[number(video) - 1], count, f"{path}, video {number(video)}")
        for video, count in frames.items()
    }


def ranges_from_mat(path: Path) -> list[list[tuple[int, int]]]:
    """One list of ranges a video from the variable `gt` of a .mat file: a cell a video, 2 rows (starts, ends)."""
    cells = load_mat(path, "gt").ravel()
    return [[(int(start), int(end)) for start, end in np.asarray(cell).reshape(2, -1).T] for cell in cells]


def load_mat(path: Path, variable: str) -> np.ndarray:
    """A variable of a MATLAB file. Raises VigilError where the file is broken or has no such variable."""
    try:
        return loadmat(path, variable_names=[variable])[variable]
    except KeyError:
        raise VigilError(f"{path} has no variable {variable!r}") from None
    except (ValueError, OSError, NotImplementedError, TypeError) as error:
        raise VigilError(f"{path} cannot be read as a MATLAB file: {error}") from None


def load_npy(path: Path) -> np.ndarray:
    """An array file, memory-mapped. Raises VigilError where it is broken or holds Python objects."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise VigilError(f"{path} cannot be read as a NumPy array: {error}") from None


def from_concatenated(path: Path, counts: dict[str, int]) -> Truth:
    """Labels of all test videos one after the other, shape (N,) or (1, N), cut by the videos' numbers of frames."""
    values = load_npy(path).ravel()
    if values.size != sum(counts.values()):
        raise VigilError(
            f"{path} holds {values.size} labels; expected {sum(counts.values())}, the frames of {len(counts)} videos"
        )
    ends = np.cumsum(list(counts.values()))
    return dict(zip(counts, np.split(np.asarray(values) > 0, ends[:-1]), strict=True))


def agreed(truths: dict[str, Truth], root: Path) -> Truth:
    """The one truth that several files tell; where they overlap they must be equal.

    Args:
        truths: file -> what it says.
        root: of the data set, for the message.

    Raises VigilError naming the first video and frame where two differ.
    """
    merged: Truth = {}
    origin: dict[str, str] = {}
    for file, truth in truths.items():
        for video, abnormal in truth.items():
            if video not in merged:
                merged[video], origin[video] = abnormal, file
                continue
            first = merged[video]
            if len(first) != len(abnormal):
                raise VigilError(
                    f"{root}: {origin[video]} has {len(first)} frames for {video}, {file} has {len(abnormal)}; "
                    "remove the one that is wrong"
                )
            if (first != abnormal).any():
                frame = int(np.flatnonzero(first != abnormal)[0])
                raise VigilError(
                    f"{root}: {origin[video]} and {file} disagree, first at {video}, frame {frame} (counted from 0): "
                    f"{'abnormal' if first[frame] else 'normal'} and {'abnormal' if abnormal[frame] else 'normal'}; "
                    "remove the one that you do not trust"
                )
    return merged
