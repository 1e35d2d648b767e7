import numpy as np
import pytest

from stages.command import VigilError
from stages.datasets import ucsd
from tests.datasets import raw

M = """% ground truth of the clips
TestVideoFile = {};
TestVideoFile{end+1}.gt_frame = [2:3];  % [1:5]
TestVideoFile{end+1}.gt_frame = [1:1, 4 : 5];
"""
FIRST, SECOND = [0, 1, 1, 0, 0], [1, 0, 0, 1, 1]


@pytest.fixture
def makers(tmp_path):
    """Ped1 as its makers ship it, two clips of five frames; the second one's masks count from frame001.bmp."""
    root = tmp_path / "ped1"
    raw.images(root / "Train/Train001", 5, "{:03d}.tif", 1)
    for clip in (1, 2):
        raw.images(root / f"Test/Test{clip:03d}", 5, "{:03d}.tif", 1)
    raw.masks(root / "Test/Test001_gt", FIRST, "{:03d}.bmp", 1)
    raw.masks(root / "Test/Test002_gt", SECOND, "frame{:03d}.bmp", 1)
    (root / "Test/.DS_Store").write_bytes(b"x")
    (root / "Test/Test001/._001.tif").write_bytes(b"x")
    (root / "Test/UCSDped1.m").write_text(M)
    return root


def truth(root):
    videos = {video.name: video for video in ucsd.videos(root)}
    tests = {name: video for name, video in videos.items() if video.split == "test"}
    masked = {n: m.any((1, 2)) for n, v in tests.items() if (m := ucsd.mask(root, v)) is not None}
    return ucsd.labels(root, {name: len(video.source) for name, video in tests.items()}, masked)


def test_as_the_makers_ship_it(makers):
    assert {(v.name, v.split, len(v.source)) for v in ucsd.videos(makers)} == {
        ("train/Train001", "train", 5), ("test/Test001", "test", 5), ("test/Test002", "test", 5),
    }  # fmt: skip
    labels = truth(makers)
    assert list(labels) == ["ped1"]
    assert labels["ped1"]["test/Test001"].tolist() == [bool(x) for x in FIRST]
    assert labels["ped1"]["test/Test002"].tolist() == [bool(x) for x in SECOND]


@pytest.mark.parametrize("lost", ["Test/UCSDped1.m", "Test/Test001_gt/001.bmp"])
def test_one_truth_is_enough(makers, lost):
    expected = truth(makers)
    if lost.endswith(".m"):
        (makers / lost).unlink()
    else:
        for path in (makers / lost).parent.iterdir():
            path.unlink()
    for video, flags in truth(makers)["ped1"].items():
        assert (flags == expected["ped1"][video]).all()


def test_a_clip_without_any_truth_is_named(makers):
    (makers / "Test/UCSDped1.m").write_text(M[: M.index("TestVideoFile{end+1}.gt_frame = [1")])
    for path in (makers / "Test/Test002_gt").iterdir():
        path.unlink()
    with pytest.raises(VigilError, match="none of test/Test002"):
        truth(makers)
    (makers / "Test/UCSDped1.m").unlink()
    with pytest.raises(VigilError, match="labels of test/Test002"):
        truth(makers)


def test_disagreeing_truths_are_refused(makers):
    (makers / "Test/UCSDped1.m").write_text(M.replace("[2:3]", "[2:4]"))
    with pytest.raises(VigilError, match=r"UCSDped1.m and masks disagree, first at test/Test001, frame 3 "):
        truth(makers)


def test_an_unreadable_mask_is_named(makers):
    (makers / "Test/Test001_gt/003.bmp").write_bytes(b"BM")
    with pytest.raises(VigilError, match=r"Test001_gt/003.bmp cannot be read"):
        truth(makers)


def test_frames_with_a_mat_file_or_a_label_array(tmp_path):
    root = tmp_path / "ped2"
    raw.images(root / "training/frames/01", 2, "{:03d}.jpg")
    for clip in (1, 3):  # a part: clips 1 and 3 of 12
        raw.images(root / f"testing/frames/{clip:02d}", ucsd.TEST_FRAMES["ped2"][clip - 1], "{:03d}.jpg")
    raw.mat_ranges(root / "ped2.mat", [[[61], [180]], [[95], [180]], [[1, 148], [146, 149]]])
    from_mat = truth(root)["ped2"]
    assert np.flatnonzero(from_mat["test/01"]).tolist() == list(range(60, 180))
    assert np.flatnonzero(from_mat["test/03"]).tolist() == [*range(146), 147, 148]
    whole = np.zeros((1, 2010), int)
    whole[0, 60:180] = 1
    whole[0, 360:506] = whole[0, 507:509] = 1
    np.save(root / "frame_labels_ped2.npy", whole)
    for video, flags in truth(root)["ped2"].items():
        assert (flags == from_mat[video]).all()
    whole[0, 360] = 0
    np.save(root / "frame_labels_ped2.npy", whole)
    with pytest.raises(VigilError, match="first at test/03, frame 0 "):
        truth(root)
    (root / "ped2.mat").unlink()
    assert not truth(root)["ped2"]["test/03"][0]


def test_known_numbers_of_frames():
    assert sum(ucsd.TEST_FRAMES["ped2"]) == 2010
    assert sum(ucsd.TEST_FRAMES["ped1"]) == 7200
