"""UCF-Crime: long surveillance videos, labelled as a whole for training and by time for testing.

The one-class split trains on the normal training videos. Of several files with one name (the makers' archive
repeats some normal videos) the first counts.
"""

import os
from pathlib import Path

from stages.command import VigilError
from stages.datasets.common import (
    VIDEOS,
    Card,
    Labels,
    Truth,
    Video,
    from_ranges,
    incomplete,
    natural,
)

ANNOTATIONS = ("Temporal_Anomaly_Annotation.txt", "Temporal_Anomaly_Annotation_for_Testing_Videos.txt")
LISTS = ("Anomaly_Train.txt", "Anomaly_Test.txt")

CARDS = {
    "ucf_crime": Card(
        "UCF-Crime: 1,900 surveillance videos, 13 kinds of anomaly",
        """
  anywhere below: Abuse/Abuse001_x264.mp4 ..., Training_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4 ...
  Temporal_Anomaly_Annotation.txt           of the 290 test videos
  Anomaly_Train.txt, Anomaly_Test.txt       optional; without them every video that is not annotated trains
""",
        "https://www.crcv.ucf.edu/projects/real-world/",
        "Sultani, Chen, Shah: Real-World Anomaly Detection in Surveillance Videos, CVPR 2018",
        videos={"train": 800, "test": 290, "": 810},
    )
}


def videos(root: Path) -> list[Video]:
    """The videos that are there; abnormal training videos are in the weak split only.

    Raises VigilError where the annotation, the training videos or the test videos are missing.
    """
    files = walk(root)
    annotated = annotation(root, files)
    listed = {}
    for part, file in zip(("train", "test"), LISTS, strict=True):
        if file in files:
            listed |= {Path(line.strip()).stem: part for line in files[file].read_text().splitlines() if line.strip()}
    found: dict[str, Video] = {}
    for path in files.values():
        name = path.stem
        if path.suffix.lower() not in VIDEOS or name in found:
            continue
        part = listed.get(
            name, "" if all(file in files for file in LISTS) else "test" if name in annotated else "train"
        )
        abnormal = not name.startswith("Normal")
        if part:
            split = "" if part == "train" and abnormal else part
            found[name] = Video(f"{part}/{name}", split, path, part, abnormal)
    missing = [f"{part} videos" for part in ("train", "test") if all(v.weak_split != part for v in found.values())]
    if missing:
        raise incomplete(root, CARDS["ucf_crime"], missing)
    unannotated = [
        video.name for video in found.values() if video.split == "test" and video.folder.stem not in annotated
    ]
    if unannotated:
        raise incomplete(root, CARDS["ucf_crime"], [f"annotation of {', '.join(unannotated[:5])}"])
    return list(found.values())


def mask(root: Path, video: Video) -> None:
    """There is no pixel truth."""


def labels(root: Path, frames: dict[str, int], masked: Truth) -> Labels:
    """One label set. A range that ends after the video's last frame, as two published ones do, ends with it.

    Raises VigilError for an abnormal test video without an abnormal frame.
    """
    annotated = annotation(root, walk(root))
    truth: Truth = {}
    for video, count in frames.items():
        name = video.partition("/")[2]
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
