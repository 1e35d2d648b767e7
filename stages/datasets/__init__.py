"""One module a layout of a raw data set; all of them give the same videos, labels and masks.

A layout module has
    CARDS                        data set name -> Card
    videos(root)                 the videos that are there
    mask(root, video)            pixel truth (T, H, W), or None
    labels(root, frames, masked) label set -> video -> abnormal (T,); from the number of frames of each test video of
                                 either protocol, and the frames with a non-zero pixel of each video that has masks
and raises VigilError where files are missing, unreadable or contradict each other. A data set of features alone has
videos of the weakly supervised protocol alone.
"""

import difflib
import importlib
from pathlib import Path
from types import ModuleType

from stages.command import VigilError
from stages.datasets.common import Card, Labels, Truth, Video, natural

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
    absent = [video for video in found if isinstance(video.source, Path) and not video.source.exists()]
    if absent and (not partial or len(absent) == len(found)):
        raise VigilError(
            f"{root}: {len(absent)} of {len(found)} videos have no features, first {absent[0].name}: expected "
            f"{absent[0].folder}, there or in a folder below; fetch them, or set `frames.partial: true` in params.yaml"
        )
    found = [video for video in found if video not in absent]
    if any(video.has_frames for video in found):
        for split, expected in about.videos.items():
            _check(f"{split} videos", sum(video.split == split for video in found), expected, partial, root)
    else:
        for split, numbers in about.weak.items():
            for abnormal, expected in zip((True, False), numbers, strict=True):
                count = sum(video.weak_split == split and video.weak_abnormal == abnormal for video in found)
                what = f"{'abnormal' if abnormal else 'normal'} {split} videos of features alone"
                _check(what, count, expected, partial, root)
    return found


def find_labels(
    dataset: str, videos: list[Video], frames: dict[str, int], masked: Truth, partial: bool, raw: Path = RAW
) -> Labels:
    """The labels of the test videos of either protocol, checked.

    Of features alone, the one label set has the name of the known truth that it is.

    Args:
        dataset: its name.
        videos: all of them.
        frames: test video -> number of frames; may lack videos whose number is not known yet.
        masked: the frames with a non-zero pixel of each video that has masks.
        partial: accept less than the data set is known to hold.
        raw: folder of the raw data sets.

    Raises VigilError naming what was found and what was expected.
    """
    labels = layout(dataset).labels(raw / dataset, frames, masked)
    tests = {video.name for video in videos if video.split == "test"} & set(frames)
    if tests:
        own = {name: {video: truth[video] for video in truth if video in tests} for name, truth in labels.items()}
        check_totals(dataset, {video: frames[video] for video in frames if video in tests}, own, partial, raw)
    weak = [video for video in videos if video.weak_split == "test" and video.name in frames]
    for truth in labels.values():
        check_weak_labels(weak, truth, raw / dataset)
    if not any(video.has_frames for video in videos):
        labels = {recognised(dataset, truth, partial, raw): truth for truth in labels.values()}
    return labels


def check_weak_labels(videos: list[Video], truth: Truth, root: Path) -> None:
    """Raise VigilError where a weakly supervised test video's own label and its frames' contradict each other."""
    wrong = [video for video in videos if truth[video.name].any() != video.weak_abnormal]
    if wrong:
        listed, found = ("abnormal", "no") if wrong[0].weak_abnormal else ("normal", "an")
        raise VigilError(
            f"{root}: list and truth contradict each other on {len(wrong)} test video(s), first {wrong[0].name}: "
            f"{listed} by the list, {found} abnormal frame by the truth; fetch the one that is wrong again"
        )


def recognised(dataset: str, truth: Truth, partial: bool, raw: Path = RAW) -> str:
    """The name of a truth in whole snippets, by its totals; the data set's where it is none of the known ones.

    Raises VigilError for the latter unless `partial`.
    """
    frames = sum(len(flags) for flags in truth.values())
    abnormal = sum(int(flags.sum()) for flags in truth.values())
    known = card(dataset).weak_truths
    for name, (total, flagged) in known.items():
        if frames == total and flagged in (None, abnormal):
            return name
    if partial:
        return dataset
    expected = "; ".join(
        f"{total}{'' if flagged is None else f' with {flagged}'} ({name})" for name, (total, flagged) in known.items()
    )
    raise VigilError(
        f"{raw / dataset}: found {frames} test frames with {abnormal} abnormal ones, in whole snippets; known are "
        f"{expected}. Take features and truth of one source, or set `frames.partial: true` in params.yaml to accept "
        "others"
    )


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
