"""CUHK Avenue, as its makers ship it or as frames.

Two label sets are in circulation. They differ on 441 of 15,324 frames and are never mixed:
    avenue-official-masks   the makers' pixel masks; a frame with a non-zero pixel is abnormal
    avenue-hasan2016        frame_labels_avenue.npy or avenue.mat, after Hasan et al., CVPR 2016
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from stages.datasets.common import (
    Card,
    Labels,
    Truth,
    Video,
    agreed,
    first_with_videos,
    from_cells,
    from_concatenated,
    incomplete,
    load_mat,
    number,
    present,
    ranges_from_mat,
)

CARDS = {
    "avenue": Card(
        "CUHK Avenue: 16 training and 21 test videos of a campus avenue",
        """
  training_videos/01.avi ... 16.avi        or training/frames/01/0000.jpg ...
  testing_videos/01.avi ... 21.avi         or testing/frames/01/0000.jpg ...
  and at least one of the two label sets:
  testing_label_mask/1_label.mat ...       the makers' masks (also in ground_truth_demo/)
  frame_labels_avenue.npy or avenue.mat    after Hasan et al. 2016
  A folder "Avenue Dataset" around the videos, as in the makers' archive, is fine.
""",
        "http://www.cse.cuhk.edu.hk/leojia/projects/detectabnormal/dataset.html",
        "Lu, Shi, Jia: Abnormal Event Detection at 150 FPS in MATLAB, ICCV 2013",
        videos={"train": 16, "test": 21},
        test_frames=15324,
        abnormal={"avenue-official-masks": 3712, "avenue-hasan2016": 3867},
    )
}
TEST_FRAMES = [1439, 1211, 923, 947, 1007, 1283, 605, 36, 1175, 841, 472,
               1271, 549, 507, 1001, 740, 426, 294, 248, 273, 76]  # fmt: skip
AROUND = ["", "Avenue Dataset/", "Avenue_Dataset/"]
MASKS = [f"{outer}{inner}testing_label_mask" for outer in AROUND for inner in ("", "ground_truth_demo/")]


def videos(root: Path) -> list[Video]:
    """The videos that are there. Raises VigilError where training or test videos are missing."""
    train = first_with_videos(
        root,
        [f"{outer}{inner}" for outer in AROUND for inner in ("training_videos", "training/videos", "training/frames")],
        "train",
    )
    test = first_with_videos(
        root,
        [f"{outer}{inner}" for outer in AROUND for inner in ("testing_videos", "testing/videos", "testing/frames")],
        "test",
    )
    missing = ["training videos (training_videos or training/frames)"] * (not train)
    missing += ["test videos (testing_videos or testing/frames)"] * (not test)
    if missing:
        raise incomplete(root, CARDS["avenue"], missing)
    return train + test


def mask(root: Path, video: Video) -> Bool[np.ndarray, "T H W"] | None:
    """The makers' masks of a test video: `volLabel` of N_label.mat, one cell a frame; None where it has none."""
    if video.split != "test":
        return None
    path = present(root, [f"{folder}/{number(video.name)}_label.mat" for folder in MASKS])
    return np.stack([cell > 0 for cell in load_mat(path, "volLabel").ravel()]) if path else None


def labels(root: Path, frames: dict[str, int], masked: Truth) -> Labels:
    """One or both label sets. Raises VigilError where there is none, or one lacks a video that is there."""
    found: Labels = {}
    if masked:
        absent = [video for video in frames if video not in masked]
        if absent:
            raise incomplete(root, CARDS["avenue"], [f"masks of {', '.join(absent)}, while other videos have theirs"])
        found["avenue-official-masks"] = {video: masked[video] for video in frames}
    truths: dict[str, Truth] = {}
    if path := present(root, ["avenue.mat"]):
        truths[path.name] = from_cells(ranges_from_mat(path), frames, path)
    if path := present(root, ["frame_labels_avenue.npy"]):
        # a part of the data set is cut by the numbers of frames of the whole
        truth = from_concatenated(path, {str(i): count for i, count in enumerate(TEST_FRAMES, 1)})
        truths[path.name] = {video: truth[str(number(video))] for video in frames}
    if truths:
        found["avenue-hasan2016"] = agreed(truths, root)
    if not found:
        raise incomplete(root, CARDS["avenue"], ["labels"])
    return found
