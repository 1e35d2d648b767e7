"""ShanghaiTech Campus: the one-class split of its makers and, with its lists, the weakly supervised split.

All truths that are there must agree; they make the one label set `shanghaitech`. In the weak split a video is
abnormal exactly when it comes from the testing folder; the normal videos of its test list have no abnormal frame.
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
    Truth,
    Video,
    agreed,
    first_with_videos,
    from_concatenated,
    incomplete,
    load_npy,
    present,
)

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
  SH_Train.txt, SH_Test.txt                 video names
  shanghaitech_ground_truth.testing.json    optional; compared with the other truths
""",
        "https://svip-lab.github.io/dataset/campus_dataset.html",
        "Liu, Luo, Lian, Gao: Future Frame Prediction for Anomaly Detection, CVPR 2018",
        videos={"train": 330, "test": 107},
        test_frames=40791,
        abnormal={"shanghaitech": 17326},
    )
}
FRAME_MASKS = ["testing/test_frame_mask", "test_frame_mask", "testing/testframemask", "testframemask"]
PIXEL_MASKS = ["testing/test_pixel_mask", "test_pixel_mask"]
WEAK = {"train": (63, 175), "test": (44, 155)}  # abnormal, normal; Zhong et al., CVPR 2019
SNIPPET = 16  # frames; the weak truth repeats a video's last label up to a multiple of it


def videos(root: Path) -> list[Video]:
    """The videos that are there, with both splits. Raises VigilError where training or test videos are missing."""
    train = first_with_videos(root, [f"training{level}" for level in ("/videos", "/frames", "/videosFrame", "")],
                              "train")  # fmt: skip
    test = first_with_videos(root, [f"testing{level}" for level in ("/frames", "/videos", "/videosFrame", "")], "test")
    missing = ["training videos (training/videos or training/frames)"] * (not train)
    missing += ["test videos (testing/frames)"] * (not test)
    if missing:
        raise incomplete(root, CARDS["shanghaitech"], missing)
    weak = weak_split(root)
    return [
        replace(video, weak_split=weak[name], weak_abnormal=video.split == "test")
        if (name := native(video.name)) in weak
        else video
        for video in train + test
    ]


def weak_split(root: Path) -> dict[str, str]:
    """Native video name -> "train" or "test"; empty without the lists. Raises VigilError for wrong lists.

    A name with four digits after the camera's number is from the testing folder, hence abnormal.
    """
    split: dict[str, str] = {}
    for part, file in (("train", "SH_Train.txt"), ("test", "SH_Test.txt")):
        if not (root / file).exists():
            return {}
        names = (root / file).read_text().split()
        abnormal = sum(len(name.rpartition("_")[2]) == 4 for name in names)
        found = (abnormal, len(names) - abnormal)
        if found != WEAK[part] or any(name in split for name in names):
            raise VigilError(
                f"{root / file}: found {found[0]} abnormal and {found[1]} normal videos, expected "
                f"{WEAK[part][0]} and {WEAK[part][1]}, none of them in both lists; fetch the list again"
            )
        split |= dict.fromkeys(names, part)
    return split


def mask(root: Path, video: Video) -> Bool[np.ndarray, "T H W"] | None:
    """A test video's pixel masks; None where it has none."""
    if video.split != "test":
        return None
    path = present(root, [f"{folder}/{native(video.name)}.npy" for folder in PIXEL_MASKS])
    return load_npy(path) > 0 if path else None


def labels(root: Path, frames: dict[str, int], masked: Truth) -> Labels:
    """One label set. Raises VigilError where a video has no truth, or two truths differ."""
    truths: dict[str, Truth] = {"pixel masks": masked, "frame masks": {}}
    for video in frames:
        if path := present(root, [f"{folder}/{native(video)}.npy" for folder in FRAME_MASKS]):
            truths["frame masks"][video] = np.asarray(load_npy(path)).ravel() > 0
    path = root / "frame_labels_shanghai.npy"
    whole = len(frames) == CARDS["shanghaitech"].videos["test"]
    if path.exists() and whole:  # of a part of the data set, nobody knows where in the file it lies
        truths[path.name] = from_concatenated(path, frames)
    truths["shanghaitech_ground_truth.testing.json"] = weak_truth(root, frames)
    truth = agreed(truths, root)
    unlabelled = [video for video in frames if video not in truth]
    if unlabelled:
        missing = [f"labels of {len(unlabelled)} videos, {unlabelled[0]} and on"]
        missing += [f"{path.name} is there, but serves only the whole test set"] * (path.exists() and not whole)
        raise incomplete(root, CARDS["shanghaitech"], missing)
    return {"shanghaitech": {video: truth[video] for video in frames}}


def weak_truth(root: Path, frames: dict[str, int]) -> Truth:
    """What the weak split's truth says of the test videos in it, without its padding; empty without the file."""
    path = root / "shanghaitech_ground_truth.testing.json"
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


def native(video: str) -> str:
    """A video's name without its folder of origin."""
    return video.partition("/")[2]
