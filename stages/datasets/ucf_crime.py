"""UCF-Crime: long surveillance videos, labelled as a whole for training and by time for testing.

The one-class split trains on the normal training videos. Of several files with one name (the makers' archive
repeats some normal videos) the first counts. Features alone serve the weak split alone.
"""

import os
from dataclasses import replace
from pathlib import Path

from stages.command import VigilError
from stages.datasets.common import (
    VIDEOS,
    Card,
    Labels,
    Split,
    Truth,
    Video,
    from_ranges,
    incomplete,
    natural,
)
from stages.datasets.weak import FEATURES, find_features, read_list
from stages.io.features import feature_files

ANNOTATIONS = ("Temporal_Anomaly_Annotation.txt", "Temporal_Anomaly_Annotation_for_Testing_Videos.txt")
PARTS: tuple[Split, Split] = ("train", "test")
LISTS = {  # the makers', or S3R's with a column `label`
    "train": ("Anomaly_Train.txt", "ucf-crime.training.csv"),
    "test": ("Anomaly_Test.txt", "ucf-crime.testing.csv"),
}

CARDS = {
    "ucf_crime": Card(
        "UCF-Crime: 1,900 surveillance videos, 13 kinds of anomaly",
        """
  anywhere below: Abuse/Abuse001_x264.mp4 ..., Training_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4 ...
  Temporal_Anomaly_Annotation.txt           of the 290 test videos
  Anomaly_Train.txt, Anomaly_Test.txt       optional; without them every video that is not annotated trains; or
                                            ucf-crime.training.csv, ucf-crime.testing.csv as S3R publishes them, with a
                                            column `label`, 1 abnormal or 0 normal
  or, for weak supervision alone, without any video: these texts, and
  features/Abuse001_x264_i3d.npy ...        the published features (snippets, 10, 2048), in subfolders or not
""",
        "https://www.crcv.ucf.edu/projects/real-world/",
        "Sultani, Chen, Shah: Real-World Anomaly Detection in Surveillance Videos, CVPR 2018",
        videos={"train": 800, "test": 290, "": 810},
        weak={"train": (810, 800), "test": (140, 150)},
        weak_truths={  # the annotation is one, what differs is how many snippets an extractor makes of a video
            "ucf_crime-s3r": (1114144, None),  # RTFM's too; the last snippet counts whole
            "ucf_crime-floor": (1109824, None),  # without incomplete snippets
            "ucf_crime-pel4vad": (1109680, None),  # DeepMIL's and UR-DMU's too: without some of the last whole ones
        },
    )
}


def videos(root: Path) -> list[Video]:
    """The videos that are there; abnormal training videos are in the weak split only, features alone too.

    Raises VigilError where the annotation, the training videos or the test videos are missing.
    """
    files = walk(root)
    annotated = annotation(root, files)
    lists = [weak_list(part, files, root) for part in PARTS]
    listed: dict[str, tuple[Split, bool]] = {}
    for part, names in zip(PARTS, lists, strict=True):
        listed |= {name: (part, abnormal) for name, abnormal in (names or {}).items()}
    whole = None not in lists
    sources: dict[str, Path] = {}
    for path in files.values():
        if path.suffix.lower() in VIDEOS:
            sources.setdefault(path.stem, path)
    alone = not sources and (root / FEATURES).is_dir()
    names = list(sources)
    if alone:
        others = [name.rpartition("/")[2] for name in feature_files(root / FEATURES)]
        names = list(dict.fromkeys([*listed, *annotated, *others]))
    found = []
    for name in names:
        unlisted: tuple[Split, bool] = "" if whole else "test" if name in annotated else "train", not is_normal(name)
        part, abnormal = listed.get(name, unlisted)
        if part:
            split: Split = "" if alone or (part == "train" and abnormal) else part
            found.append(Video(f"{part}/{name}", split, sources.get(name, root / FEATURES), part, abnormal))
    if alone:
        there = find_features(root, [video.name for video in found])
        found = [replace(video, source=there[video.name]) for video in found]
    missing = [f"{part} videos" for part in PARTS if all(v.weak_split != part for v in found)]
    if missing:
        raise incomplete(root, CARDS["ucf_crime"], missing)
    unannotated = [video.name for video in found if video.weak_split == "test" and native(video.name) not in annotated]
    if unannotated:
        raise incomplete(root, CARDS["ucf_crime"], [f"annotation of {', '.join(unannotated[:5])}"])
    return found


def weak_list(part: Split, files: dict[str, Path], root: Path) -> dict[str, bool] | None:
    """Video name -> abnormal, of the training or the test list; None without it. Raises VigilError for a wrong list."""
    plain, table = (files.get(name, root / name) for name in LISTS[part])
    return read_list(plain, table, lambda name: not is_normal(name), CARDS["ucf_crime"].weak[part][0])


def is_normal(name: str) -> bool:
    """What the makers' names say of a video."""
    return name.startswith("Normal")


def native(video: str) -> str:
    """A video's name without its part."""
    return video.partition("/")[2]


def mask(root: Path, video: Video) -> None:
    """There is no pixel truth."""


def labels(root: Path, frames: dict[str, int], masked: Truth) -> Labels:
    """One label set. A range that ends after the video's last frame, as two published ones do, ends with it.

    Raises VigilError for an abnormal test video without an abnormal frame.
    """
    annotated = annotation(root, walk(root))
    truth: Truth = {}
    for video, count in frames.items():
        name = native(video)
        ranges = [(start, min(end, count)) for start, end in annotated[name]]
        truth[video] = from_ranges(ranges, count, f"{root}, annotation of {name}")
    return {"ucf_crime": truth}


def annotation(root: Path, files: dict[str, Path]) -> dict[str, list[tuple[int, int]]]:
    """Test video -> ranges, counted from 1, both ends in; none for a normal video.

    A line has name, class, and two pairs of start and end, -1 where there is none. Raises VigilError where the
    file is missing, a line is not understood, or a class of anomaly has no range.
    """
    path = next((files[name] for name in ANNOTATIONS if name in files), None)
    if path is None:
        raise incomplete(root, CARDS["ucf_crime"], [ANNOTATIONS[0]])
    ranges = {}
    for count, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            name, kind, *times = line.split()
            pairs = list(zip(map(int, times[::2]), map(int, times[1::2]), strict=True))
        except ValueError:
            raise VigilError(
                f"{path}, line {count}: found {line!r}, expected: name class start end start end"
            ) from None
        ranges[Path(name).stem] = [(start, end) for start, end in pairs if start >= 0]
        if kind != "Normal" and not ranges[Path(name).stem]:
            raise VigilError(
                f"{path}, line {count}: {name} of class {kind} has no abnormal frame; fetch the file again"
            )
    return ranges


def walk(root: Path) -> dict[str, Path]:
    """File name -> the first file of that name below the folder, in natural order; follows symbolic links."""
    paths = [Path(folder) / file for folder, _, files in os.walk(root, followlinks=True) for file in files]
    found: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: natural(str(path))):
        if not path.name.startswith("."):
            found.setdefault(path.name, path)
    return found
