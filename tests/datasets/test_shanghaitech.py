import json
from pathlib import Path

import numpy as np
import pytest

from stages.command import VigilError
from stages.datasets import find_labels, find_videos, recognised, shanghaitech
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


def test_the_weak_split_by_lists_with_labels(root):
    weak_lists(root)
    expected = shanghaitech.weak_split(root)
    for part, old, new in (("train", "SH_Train.txt", "training"), ("test", "SH_Test.txt", "testing")):
        path = root / f"shanghaitech.{new}.csv"
        path.write_text("video-id\n" + (root / old).read_text())
        with pytest.raises(VigilError, match="say the same thing; remove one"):
            shanghaitech.weak_split(root)
        (root / old).unlink()
        first = {"train": 63, "test": 44}[part]
        with pytest.raises(VigilError, match=f"{path.name} has no column `label`.* the first {first} rows are"):
            shanghaitech.weak_split(root)
        rows = [f"{name},{int(expected[name][1])}" for name in path.read_text().split()[1:]]
        path.write_text("\n".join(["video-id,label", *rows]))
        assert shanghaitech.weak_split(root) == expected
    path.write_text(path.read_text().replace("01_0015,1", "01_0015,0"))
    with pytest.raises(VigilError, match=r"testing.csv: found 43 abnormal and 156 normal videos, expected 44 and 155"):
        shanghaitech.weak_split(root)


def test_normal_videos_of_the_weak_test_set_are_labelled(root):
    """01_002 is from the training folder, and its five frames do not count in the totals of the one-class test set."""
    weak_lists(root)
    frames = FRAMES | {"train/01_002": 5}
    labels = find_labels("shanghaitech", shanghaitech.videos(root), frames, {}, partial=True, raw=root.parent)
    truth = labels["shanghaitech"]
    assert list(truth) == list(frames)
    assert truth["train/01_002"].tolist() == [False] * 5
    assert truth["test/01_0014"].sum() == 8
    with pytest.raises(VigilError, match="found 36 test frames, expected 40791"):
        find_labels("shanghaitech", shanghaitech.videos(root), frames, {}, partial=False, raw=root.parent)
    np.save(root / "testing/test_frame_mask/01_0015.npy", np.zeros(16))
    with pytest.raises(VigilError, match="first test/01_0015: abnormal by the list, no abnormal frame by the truth"):
        find_labels("shanghaitech", shanghaitech.videos(root), frames, {}, partial=True, raw=root.parent)


@pytest.fixture
def alone(tmp_path):
    """Features, lists and truth, without videos."""
    root = tmp_path / "shanghaitech"
    raw.shanghaitech_features(root)
    return root


def test_features_alone(alone):
    found = {video.name: video for video in find_videos("shanghaitech", partial=False, raw=alone.parent)}
    assert len(found) == 437
    assert {video.split for video in found.values()} == {""}
    assert not any(video.has_frames for video in found.values())
    assert (found["train/02_002"].weak_split, found["train/02_002"].weak_abnormal) == ("test", False)
    assert (found["test/01_0007"].weak_split, found["test/01_0007"].weak_abnormal) == ("train", True)
    assert found["test/01_0007"].source == alone / "features/train/01_0007_i3d.npy"
    raw.images(alone / "training/frames/01_001", 2)
    raw.images(alone / "testing/frames/01_0001", 2)
    found = find_videos("shanghaitech", partial=True, raw=alone.parent)  # videos win
    assert [video.name for video in found] == ["test/01_0001", "train/01_001"]
    assert all(video.has_frames for video in found)


def test_missing_parts_of_features_alone(alone):
    raw.features(alone / "features/again", {"02_003": 1})
    with pytest.raises(VigilError, match=r"02_003_i3d.npy, .*02_003_i3d.npy: one of them has to be train/02_003"):
        find_videos("shanghaitech", partial=True, raw=alone.parent)
    (alone / "features/again/02_003_i3d.npy").unlink()
    (alone / "features/test/02_003_i3d.npy").unlink()
    with pytest.raises(VigilError, match=r"1 of 437 videos have no features, first train/02_003: expected .*/02_003_i"):
        find_videos("shanghaitech", partial=False, raw=alone.parent)
    assert len(find_videos("shanghaitech", partial=True, raw=alone.parent)) == 436
    (alone / "SH_Test.txt").unlink()
    with pytest.raises(VigilError, match=r"Missing: the lists SH_Train.txt or shanghaitech.training.csv and SH_Test"):
        find_videos("shanghaitech", partial=True, raw=alone.parent)


@pytest.mark.parametrize(
    ("snippets", "abnormal", "name"),
    [(8932, 8028, "shanghaitech-s3r"), (8757, 7874, "shanghaitech-pel4vad"), (8932, 8027, None), (8931, 8028, None)],
)
def test_truths_of_features_alone_are_recognised(tmp_path, snippets, abnormal, name):
    counts = raw.shanghaitech_features(tmp_path / "shanghaitech", snippets, abnormal)
    videos = find_videos("shanghaitech", partial=False, raw=tmp_path)
    frames = {f"{shanghaitech.origin(video)}/{video}": 16 * count for video, count in counts.items()}
    if name is None:
        message = f"found {16 * snippets} test frames with {abnormal} abnormal ones, .*142912 with 8028 .*140112 with"
        with pytest.raises(VigilError, match=message):
            find_labels("shanghaitech", videos, frames, {}, partial=False, raw=tmp_path)
    labels = find_labels("shanghaitech", videos, frames, {}, partial=name is None, raw=tmp_path)
    assert list(labels) == [name or "shanghaitech"]
    (truth,) = labels.values()
    assert sum(flags.sum() for flags in truth.values()) == abnormal
    frames["train/02_005"] += 16
    with pytest.raises(VigilError, match=r"features of 1 of 199 test videos, first 02_005: \d+ labels, but \d+ snip"):
        find_labels("shanghaitech", videos, frames, {}, partial=False, raw=tmp_path)
    (tmp_path / "shanghaitech/shanghaitech_ground_truth.testing.json").unlink()
    with pytest.raises(VigilError, match=r"Missing: shanghaitech_ground_truth.testing.json"):
        find_labels("shanghaitech", videos, frames, {}, partial=True, raw=tmp_path)


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
    raw.images(tmp_path / "testing/frames/01_0001", 1)
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
    assert [part for part, _ in split.values()].count("train") == 238
    assert [part for part, _ in split.values()].count("test") == 199
    truth = json.loads((SHARED / "shanghaitech/shanghaitech_ground_truth.testing.json").read_text())
    frames = {f"test/{name}": entry["num_frames"] for name, entry in truth.items() if len(name) == 7}
    assert len(frames) == 44
    found = shanghaitech.weak_truth(SHARED / "shanghaitech", frames)
    assert sum(flags.sum() for flags in found.values()) == 8028
    frames = {f"{shanghaitech.origin(name)}/{name}": entry["num_frames"] for name, entry in truth.items()}
    found = shanghaitech.snippet_truth(SHARED / "shanghaitech", frames)
    assert recognised("shanghaitech", found, partial=False) == "shanghaitech-s3r"
    assert {name for name, flags in found.items() if flags.any()} == {name for name in frames if name[:4] == "test"}
