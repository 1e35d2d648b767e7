"""One module a layout of a raw data set; all of them give the same videos, labels and masks.

A layout module has
    CARDS                        data set name -> Card
    videos(root)                 the videos that are there
    mask(root, video)            pixel truth (T, H, W), or None
    labels(root, frames, masked) label set -> video -> abnormal (T,); from the number of frames of each test
                                 video, and the frames with a non-zero pixel of each video that has masks
and raises VigilError where files are missing, unreadable or contradict each other.
"""

import difflib
import importlib
from pathlib import Path
from types import ModuleType

from stages.command import VigilError
from stages.datasets.common import Card, Labels, Video, natural

RAW = Path("data/raw")
LAYOUTS = {
    "demo": "demo",
    "ped1": "ucsd",
    "ped2": "ucsd",
    "avenue": "avenue",
    "shanghaitech": "shanghaitech",
    "ucf_crime": "ucf_crime",
}  # any other name is a folder of one's own


def layout(dataset: str) -> ModuleType:
    """The module that reads a data set's layout."""
    return importlib.import_module(f"stages.datasets.{LAYOUTS.get(dataset, 'folder')}")


def card(dataset: str) -> Card:
    """What a data set is, where its makers offer it, and what must be in it."""
    cards = layout(dataset).CARDS
    return cards.get(dataset) or cards["folder"]


def find_videos(dataset: str, partial: bool, raw: Path = RAW) -> list[Video]:
    """All videos of a data set in natural order by split folder and name.

    Raises VigilError where the data set, a part of it, or (unless `partial`) a video is missing.
    """
    root, about = raw / dataset, card(dataset)
    if not root.is_dir():
        if dataset in LAYOUTS:
            raise VigilError(f"data set {dataset} is not there: {root} does not exist.\n{about.describe(dataset)}")
        own = [path.name for path in raw.iterdir() if path.is_dir()] if raw.is_dir() else []
        known = sorted({*LAYOUTS, *own})
        near = difflib.get_close_matches(dataset, known, n=1)
        raise VigilError(
            f"data set {dataset!r} is not known and {root} does not exist: known are {', '.join(known)}"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + f"\nFor videos of your own:\n{about.describe(dataset)}"
        )
    found = sorted(layout(dataset).videos(root), key=lambda video: natural(video.name))
    names = [video.name for video in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise VigilError(f"{root}: two videos are called {twice}; rename or remove one")
    for split, expected in about.videos.items():
        _check(f"{split} videos", sum(video.split == split for video in found), expected, partial, root)
    return found


def check_totals(dataset: str, frames: dict[str, int], labels: Labels, partial: bool, raw: Path = RAW) -> None:
    """Compare test frames and labels with each other and with what the data set is known to hold.

    Args:
        dataset: its name.
        frames: test video -> number of frames.
        labels: label set -> test video -> abnormal.
        partial: accept less than the data set is known to hold.
        raw: folder of the raw data sets.

    Raises VigilError naming what was found and what was expected.
    """
    root, about = raw / dataset, card(dataset)
    if about.test_frames is not None:
        _check("test frames", sum(frames.values()), about.test_frames, partial, root)
    for label_set, videos in labels.items():
        for video, abnormal in videos.items():
            if len(abnormal) != frames[video]:
                raise VigilError(
                    f"{root}: label set {label_set} has {len(abnormal)} labels for {video}, "
                    f"which has {frames[video]} frames: expected one a frame"
                )
        total = sum(int(abnormal.sum()) for abnormal in videos.values())
        if total == 0:
            raise VigilError(
                f"{root}: label set {label_set} has no abnormal frame in {len(videos)} test video(s): nothing can be "
                "evaluated on it; check the label files, or add a test video that has an anomaly"
            )
        if label_set in about.abnormal:
            _check(f"abnormal frames of label set {label_set}", total, about.abnormal[label_set], partial, root)


def _check(what: str, found: int, expected: int, partial: bool, root: Path) -> None:
    if found > expected or (found < expected and not partial):
        remedy = (
            "set `frames.partial: true` in params.yaml to accept part of the data set"
            if found < expected
            else "remove what does not belong to the data set, or read it under a name of its own"
        )
        raise VigilError(f"{root}: found {found} {what}, expected {expected}; {remedy}")
