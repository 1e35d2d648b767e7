import json
from pathlib import Path

import numpy as np
import pytest

from stages.command import VigilError
from stages.datasets import shanghaitech
from tests.datasets import raw

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FRAMES = {"test/01_0014": 20, "test/01_0015": 16}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "shanghaitech"
    raw.images(root / "training/frames/01_001", 2)
    raw.images(root / "training/frames/01_002", 2)
    for name, count in FRAMES.items():
        raw.images(root / f"testing/frames/{name[5:]}", count, "{:d}.png")
        flags = np.arange(count) >= 12
        (root / "testing/test_frame_mask").mkdir(exist_ok=True)
        np.save(root / f"testing/test_frame_mask/{name[5:]}.npy", flags.astype(np.uint8))
    return root


def weak_lists(root):
    """Lists of the published lengths in which 01_0014, 01_001 train and 01_0015, 01_002 test."""
    train = ["01_0014", *(f"90_{i:04d}" for i in range(62)), "01_001", *(f"91_{i:03d}" for i in range(174))]
    test = ["01_0015", *(f"92_{i:04d}" for i in range(43)), "01_002", *(f"93_{i:03d}" for i in range(154))]
    (root / "SH_Train.txt").write_text("\n".join(train))
    (root / "SH_Test.txt").write_text("\n".join(test))


@pytest.mark.parametrize("level", ["frames/", "videosFrame/", ""])
def test_levels_of_folders(root, level):
    if level != "frames/":
        for part in ("training", "testing"):
            (root / part / "frames").rename(root / part / "there")
            (root / part / level).mkdir(exist_ok=True)
            for path in list((root / part / "there").iterdir()):
                path.rename(root / part / level / path.name)
    found = {video.name: video for video in shanghaitech.videos(root)}
    assert set(found) == {"train/01_001", "train/01_002", *FRAMES}
    assert [path.stem for path in found["test/01_0014"].source] == [str(i) for i in range(20)]
    assert {video.weak_split for video in found.values()} == {""}


def test_training_videos_as_files(root):
    raw.video(root / "training/videos/01_001.avi", 3)
    train = [video for video in shanghaitech.videos(root) if video.split == "train"]
    assert [video.source.name for video in train] == ["01_001.avi"]


def test_the_weak_split(root):
    weak_lists(root)
    found = {video.name: (video.weak_split, video.weak_abnormal) for video in shanghaitech.videos(root)}
    assert found == {
        "train/01_001": ("train", False), "train/01_002": ("test", False),
        "test/01_0014": ("train", True), "test/01_0015": ("test", True),
    }  # fmt: skip
    (root / "SH_Test.txt").write_text((root / "SH_Test.txt").read_text().rpartition("\n")[0])
    with pytest.raises(VigilError, match=r"SH_Test.txt: found 44 abnormal and 154 normal videos, expected 44 and 155"):
        shanghaitech.videos(root)


def test_truths(root):
    labels = shanghaitech.labels(root, FRAMES, {})["shanghaitech"]
    assert np.flatnonzero(labels["test/01_0014"]).tolist() == list(range(12, 20))
    weak = {"01_0014": {"labels": [0.0] * 12 + [1.0] * 20}, "01_0015": {"labels": [0.0] * 12 + [1.0] * 4}}
    path = root / "shanghaitech_ground_truth.testing.json"
    path.write_text(json.dumps(weak))
    assert shanghaitech.labels(root, FRAMES, {})["shanghaitech"].keys() == FRAMES.keys()
    weak["01_0015"]["labels"][11] = 1.0
    path.write_text(json.dumps(weak))
    with pytest.raises(VigilError, match=r"frame masks and .*json disagree, first at test/01_0015, frame 11 "):
        shanghaitech.labels(root, FRAMES, {})
    weak["01_0015"]["labels"].append(1.0)
    path.write_text(json.dumps(weak))
    with pytest.raises(VigilError, match="17 labels for 01_0015, expected 16"):
        shanghaitech.labels(root, FRAMES, {})


def test_pixel_masks(root):
    (root / "testing/test_pixel_mask").mkdir()
    pixels = np.zeros((20, 12, 16), np.uint8)
    pixels[12:, 2, 3] = 1
    np.save(root / "testing/test_pixel_mask/01_0014.npy", pixels)
    video = next(video for video in shanghaitech.videos(root) if video.name == "test/01_0014")
    mask = shanghaitech.mask(root, video)
    assert (mask == pixels.astype(bool)).all()
    shanghaitech.labels(root, FRAMES, {"test/01_0014": mask.any((1, 2))})
    mask[0, 0, 0] = True
    with pytest.raises(VigilError, match="pixel masks and frame masks disagree, first at test/01_0014, frame 0 "):
        shanghaitech.labels(root, FRAMES, {"test/01_0014": mask.any((1, 2))})


def test_the_concatenated_file_serves_the_whole_set_only(tmp_path):
    np.save(tmp_path / "frame_labels_shanghai.npy", np.arange(40791) % 2)
    counts = {f"test/01_{i:04d}": 381 for i in range(106)} | {"test/99_0001": 40791 - 106 * 381}
    labels = shanghaitech.labels(tmp_path, counts, {})["shanghaitech"]
    assert labels["test/01_0001"][0]  # frame 381 of all, an odd one
    counts.pop("test/99_0001")
    with pytest.raises(VigilError, match="serves only the whole test set"):
        shanghaitech.labels(tmp_path, counts, {})


@pytest.mark.skipif(not (SHARED / "shanghaitech").exists(), reason="the real lists are not here")
def test_the_real_lists_and_truth():
    split = shanghaitech.weak_split(SHARED / "shanghaitech")
    assert list(split.values()).count("train") == 238
    assert list(split.values()).count("test") == 199
    truth = json.loads((SHARED / "shanghaitech/shanghaitech_ground_truth.testing.json").read_text())
    frames = {f"test/{name}": entry["num_frames"] for name, entry in truth.items() if len(name) == 7}
    assert len(frames) == 44
    found = shanghaitech.weak_truth(SHARED / "shanghaitech", frames)
    assert sum(flags.sum() for flags in found.values()) == 8028
