"""ShanghaiTech Campus: the one-class split of its makers and, with its lists, the weakly supervised split.

All truths that are there must agree; they make the one label set `shanghaitech`. The abnormal videos of the weak split
come from the testing folder; the normal ones of its test list come from the training folder, hence have no abnormal
frame. Of features alone the truth is that of the weak split, whose videos are filled up to whole snippets.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from stages.command import VigilError
from stages.datasets.common import (
    Card,
    Labels,
    Split,
    Truth,
    Video,
    agreed,
    first_with_videos,
    from_concatenated,
    incomplete,
    load_npy,
    present,
)
from stages.datasets.weak import FEATURES, find_features, read_list
from stages.io.features import SNIPPET

LISTS = {  # the makers' names, or S3R's list with a column `label`
    "train": ("SH_Train.txt", "shanghaitech.training.csv"),
    "test": ("SH_Test.txt", "shanghaitech.testing.csv"),
}
TRUTH = "shanghaitech_ground_truth.testing.json"  # of the weak split

CARDS = {
    "shanghaitech": Card(
        "ShanghaiTech Campus: 330 training and 107 test videos from 13 cameras",
        """
  training/videos/01_001.avi ...            or training/frames/01_001/000.jpg ... (also videosFrame, or no level)
  testing/frames/01_0014/000.jpg ...        or testing/01_0014/000.jpg ...
  at least one of
  testing/test_frame_mask/01_0014.npy ...   (also testframemask/)
  testing/test_pixel_mask/01_0014.npy ...
  frame_labels_shanghai.npy
  and for the weakly supervised split
  SH_Train.txt, SH_Test.txt                 video names; or shanghaitech.training.csv, shanghaitech.testing.csv as S3R
                                            publishes them, with a column `label`, 1 abnormal or 0 normal
  shanghaitech_ground_truth.testing.json    optional; compared with the other truths
  or, for weak supervision alone, without any video: these lists, that truth, and
  features/01_001_i3d.npy ...               the published features (snippets, 10, 2048), in subfolders or not
""",
        "https://svip-lab.github.io/dataset/campus_dataset.html",
        "Liu, Luo, Lian, Gao: Future Frame Prediction for Anomaly Detection, CVPR 2018",
        videos={"train": 330, "test": 107},
        test_frames=40791,
        abnormal={"shanghaitech": 17326},
        weak={"train": (63, 175), "test": (44, 155)},  # Zhong et al., CVPR 2019
        weak_truths={
            "shanghaitech-s3r": (142912, 8028),  # RTFM's too; the last snippet counts whole
            "shanghaitech-pel4vad": (140112, 7874),  # for features of fewer snippets
        },
    )
}
FRAME_MASKS = ["testing/test_frame_mask", "test_frame_mask", "testing/testframemask", "testframemask"]
PIXEL_MASKS = ["testing/test_pixel_mask", "test_pixel_mask"]


def videos(root: Path) -> list[Video]:
    """The videos that are there, with both splits. Raises VigilError where training or test videos are missing."""
    train, test = with_frames(root)
    weak = weak_split(root)
    if not train and not test and (root / FEATURES).is_dir():
        if not weak:
            names = " and ".join(" or ".join(names) for names in LISTS.values())
            raise incomplete(root, CARDS["shanghaitech"], [f"the lists {names} (there are features, and no videos)"])
        named = {f"{origin(name)}/{name}": about for name, about in weak.items()}
        files = find_features(root, named)
        return [Video(name, "", files[name], *about) for name, about in named.items()]
    missing = ["training videos (training/videos or training/frames)"] * (not train)
    missing += ["test videos (testing/frames)"] * (not test)
    if missing:
        raise incomplete(root, CARDS["shanghaitech"], missing)
    unlisted = ("", None)
    found = []
    for video in train + test:
        part, abnormal = weak.get(native(video.name), unlisted)
        found.append(replace(video, weak_split=part, weak_abnormal=abnormal))
    return found


def with_frames(root: Path) -> tuple[list[Video], list[Video]]:
    """The training and the test videos that are there as videos or frames."""
    train = [f"training{level}" for level in ("/videos", "/frames", "/videosFrame", "")]
    test = [f"testing{level}" for level in ("/frames", "/videos", "/videosFrame", "")]
    return first_with_videos(root, train, "train"), first_with_videos(root, test, "test")


def weak_split(root: Path) -> dict[str, tuple[Split, bool]]:
    """Native video name -> "train" or "test", and whether it is abnormal; empty without the lists.

    Raises VigilError for wrong lists.
    """
    split: dict[str, tuple[Split, bool]] = {}
    weak = CARDS["shanghaitech"].weak
    for part in ("train", "test"):
        plain, table = (root / name for name in LISTS[part])
        listed = read_list(plain, table, lambda name: origin(name) == "test", weak[part][0])
        if listed is None:
            return {}
        found = (sum(listed.values()), len(listed) - sum(listed.values()))
        if found != weak[part] or any(name in split for name in listed):
            raise VigilError(
                f"{plain if plain.exists() else table}: found {found[0]} abnormal and {found[1]} normal videos, "
                f"expected {weak[part][0]} and {weak[part][1]}, none of them in both lists; fetch the list again"
            )
        split |= {name: (part, abnormal) for name, abnormal in listed.items()}
    return split


def origin(name: str) -> str:
    """The folder that a video comes from: those of the testing folder have four digits after the camera's number."""
    return "test" if len(name.rpartition("_")[2]) == 4 else "train"


def mask(root: Path, video: Video) -> Bool[np.ndarray, "T H W"] | None:
    """A test video's pixel masks; None where it has none."""
    if video.split != "test":
        return None
    path = present(root, [f"{folder}/{native(video.name)}.npy" for folder in PIXEL_MASKS])
    return load_npy(path) > 0 if path else None


def labels(root: Path, frames: dict[str, int], masked: Truth) -> Labels:
    """One label set. Raises VigilError where a video has no truth, or two truths differ."""
    if not any(with_frames(root)):
        return {"shanghaitech": snippet_truth(root, frames)}
    tests = {video: count for video, count in frames.items() if video.startswith("test/")}
    truths: dict[str, Truth] = {"pixel masks": masked, "frame masks": {}}
    for video in tests:
        if path := present(root, [f"{folder}/{native(video)}.npy" for folder in FRAME_MASKS]):
            truths["frame masks"][video] = np.asarray(load_npy(path)).ravel() > 0
    path = root / "frame_labels_shanghai.npy"
    whole = len(tests) == CARDS["shanghaitech"].videos["test"]
    if path.exists() and whole:  # of a part of the data set, nobody knows where in the file it lies
        truths[path.name] = from_concatenated(path, tests)
    truths[TRUTH] = weak_truth(root, tests)
    truth = agreed(truths, root)
    unlabelled = [video for video in tests if video not in truth]
    if unlabelled:
        missing = [f"labels of {len(unlabelled)} videos, {unlabelled[0]} and on"]
        missing += [f"{path.name} is there, but serves only the whole test set"] * (path.exists() and not whole)
        raise incomplete(root, CARDS["shanghaitech"], missing)
    return {
        "shanghaitech": {video: truth[video] if video in tests else np.zeros(frames[video], bool) for video in frames}
    }


def weak_truth(root: Path, frames: dict[str, int]) -> Truth:
    """What the weak split's truth says of the test videos in it, without its padding; empty without the file."""
    path = root / TRUTH
    if not path.exists():
        return {}
    content = json.loads(path.read_text())
    truth = {}
    for video, count in frames.items():
        if entry := content.get(native(video)):
            padded = -(-count // SNIPPET) * SNIPPET
            if len(entry["labels"]) != padded:
                raise VigilError(
                    f"{path}: {len(entry['labels'])} labels for {native(video)}, expected {padded}: its {count} "
                    f"frames, filled up to a multiple of {SNIPPET}"
                )
            truth[video] = np.array(entry["labels"][:count]) > 0
    return truth


def snippet_truth(root: Path, frames: dict[str, int]) -> Truth:
    """What the weak split's truth says of videos that are whole snippets.

    Raises VigilError where the file is missing, or has no labels or too few or many of them for a video's features.
    """
    path = root / TRUTH
    if not path.exists():
        raise incomplete(root, CARDS["shanghaitech"], [f"{TRUTH} (there are features, and no videos)"])
    content = json.loads(path.read_text())
    labels = {video: content.get(native(video), {}).get("labels", []) for video in frames}
    wrong = [video for video, count in frames.items() if len(labels[video]) != count]
    if wrong:
        first = wrong[0]
        raise VigilError(
            f"{path} does not fit the features of {len(wrong)} of {len(frames)} test videos, first {native(first)}: "
            f"{len(labels[first])} labels, but {frames[first] // SNIPPET} snippets, hence {frames[first]} frames; take "
            "features and truth of one source"
        )
    return {video: np.array(flags) > 0 for video, flags in labels.items()}


def native(video: str) -> str:
    """A video's name without its folder of origin."""
    return video.partition("/")[2]
