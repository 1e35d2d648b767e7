"""UCSD Ped1 and Ped2, as their makers ship them or as frames with one label file.

All truths that are there must agree; they make one label set, named like the data set.
"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from stages.datasets.common import (
    IMAGES,
    Card,
    Labels,
    Truth,
    Video,
    agreed,
    first_with_videos,
    from_cells,
    from_concatenated,
    image_masks,
    incomplete,
    listed,
    number,
    present,
    ranges_from_mat,
)

ADDRESS = "http://www.svcl.ucsd.edu/projects/anomaly/dataset.htm"
CITATION = "Mahadevan, Li, Bhalodia, Vasconcelos: Anomaly Detection in Crowded Scenes, CVPR 2010"
TREE = """
  as the makers ship it:
    Train/Train001/001.tif ...
    Test/Test001/001.tif ...
    Test/Test001_gt/*.bmp               masks (Ped1: some clips only)
    Test/UCSD{name}.m                   abnormal ranges a clip
  or as frames:
    training/frames/01/000.jpg ...
    testing/frames/01/000.jpg ...
    {name}.mat or frame_labels_{name}.npy
    testing/masks/01/000.png            optional
"""

CARDS = {
    "ped1": Card(
        "UCSD Ped1: 34 training and 36 test clips of a walkway, 200 frames each",
        TREE.format(name="ped1"),
        ADDRESS,
        CITATION,
        videos={"train": 34, "test": 36},
        test_frames=7200,
    ),
    "ped2": Card(
        "UCSD Ped2: 16 training and 12 test clips of a walkway",
        TREE.format(name="ped2"),
        ADDRESS,
        CITATION,
        videos={"train": 16, "test": 12},
        test_frames=2010,
        abnormal={"ped2": 1648},
    ),
}
TEST_FRAMES = {
    "ped1": [200] * 36,
    "ped2": [180, 180, 150, 180, 150, 180, 180, 180, 120, 150, 180, 180],
}


def videos(root: Path) -> list[Video]:
    """The clips that are there. Raises VigilError where training or test clips are missing."""
    train = first_with_videos(root, ["Train", "training/frames"], "train")
    test = first_with_videos(root, ["Test", "testing/frames"], "test")
    test = [video for video in test if not video.name.endswith("_gt")]
    missing = ["training clips (Train or training/frames)"] * (not train)
    missing += ["test clips (Test or testing/frames)"] * (not test)
    if missing:
        raise incomplete(root, CARDS[root.name], missing)
    return train + test


def mask(root: Path, video: Video) -> Bool[np.ndarray, "T H W"] | None:
    """The clip's masks, one image a frame; None where the clip has none."""
    name = video.name.split("/")[1]
    folder = present(root, [f"Test/{name}_gt", f"testing/masks/{name}"]) if video.split == "test" else None
    files = listed(folder, IMAGES) if folder else []
    return image_masks(files) if files else None


def labels(root: Path, frames: dict[str, int], masked: Truth) -> Labels:
    """One label set. Raises VigilError where a clip has no truth, or two truths differ."""
    name = root.name
    truths: dict[str, Truth] = {}
    for path in (present(root, [f"{name}.mat"]), present(root, [f"Test/UCSD{name}.m", f"UCSD{name}.m"])):
        if path:
            ranges = ranges_from_mat(path) if path.suffix == ".mat" else ranges_from_m(path.read_text())
            truths[path.name] = from_cells(ranges, frames, path)
    if path := present(root, [f"frame_labels_{name}.npy"]):
        # a part of the data set is cut by the numbers of frames of the whole
        by_number = {str(i): count for i, count in enumerate(TEST_FRAMES[name], 1)}
        by_number |= {str(number(video)): count for video, count in frames.items()}
        truth = from_concatenated(path, by_number)
        truths[path.name] = {video: truth[str(number(video))] for video in frames}
    truths["masks"] = masked
    truth = agreed(truths, root)
    unlabelled = [video for video in frames if video not in truth]
    if unlabelled:
        raise incomplete(root, CARDS[name], [f"labels of {', '.join(unlabelled)}"])
    return {name: {video: truth[video] for video in frames}}


def ranges_from_m(text: str) -> list[list[tuple[int, int]]]:
    """One list of ranges a clip from the makers' script: `TestVideoFile{end+1}.gt_frame = [5:90, 140:200];`."""
    code = re.sub(r"%.*", "", text)
    return [
        [(int(start), int(end)) for start, end in re.findall(r"(\d+)\s*:\s*(\d+)", ranges)]
        for ranges in re.findall(r"gt_frame\s*=\s*\[([^\]]*)\]", code)
    ]
