import numpy as np
import pytest

from stages.command import VigilError
from stages.datasets import avenue
from tests.datasets import raw

STARTS = np.cumsum([0, *avenue.TEST_FRAMES])


def hasan(path, ranges):
    """The label array of all 21 test videos, shape (1, N); `ranges` are video, first, last, counted from 0."""
    whole = np.zeros((1, 15324), np.int8)
    for video, first, last in ranges:
        whole[0, STARTS[video - 1] + first : STARTS[video - 1] + last + 1] = 1
    np.save(path, whole)


@pytest.mark.parametrize("around", ["", "Avenue Dataset/"])
@pytest.mark.parametrize("demo", ["", "ground_truth_demo/"])
def test_videos_with_both_label_sets(tmp_path, around, demo):
    root = tmp_path / "avenue"
    raw.video(root / f"{around}training_videos/01.avi", 3)
    raw.video(root / f"{around}testing_videos/08.avi", 36)
    raw.mat_masks(root / f"{demo}testing_label_mask/8_label.mat", [0] * 30 + [1] * 6)
    hasan(root / "frame_labels_avenue.npy", [(7, 0, 604), (8, 26, 35), (9, 0, 3)])
    videos = {video.name: video for video in avenue.videos(root)}
    assert set(videos) == {"train/01", "test/08"}
    mask = avenue.mask(root, videos["test/08"])
    assert mask.shape == (36, 32, 48)
    labels = avenue.labels(root, {"test/08": 36}, {"test/08": mask.any((1, 2))})
    assert np.flatnonzero(labels["avenue-official-masks"]["test/08"]).tolist() == list(range(30, 36))
    assert np.flatnonzero(labels["avenue-hasan2016"]["test/08"]).tolist() == list(range(26, 36))


def test_one_label_set_stands_alone_and_none_is_refused(tmp_path):
    root = tmp_path / "avenue"
    raw.images(root / "training/frames/01", 2)
    raw.images(root / "testing/frames/08", 36)
    with pytest.raises(VigilError, match="Missing: labels"):
        avenue.labels(root, {"test/08": 36}, {})
    hasan(root / "frame_labels_avenue.npy", [(8, 0, 0)])
    assert list(avenue.labels(root, {"test/08": 36}, {})) == ["avenue-hasan2016"]
    raw.mat_ranges(root / "avenue.mat", [[[1], [1]]] * 21)
    assert list(avenue.labels(root, {"test/08": 36}, {})) == ["avenue-hasan2016"]
    raw.mat_ranges(root / "avenue.mat", [[[1], [2]]] * 21)
    with pytest.raises(VigilError, match="disagree, first at test/08, frame 1 "):
        avenue.labels(root, {"test/08": 36}, {})


def test_masks_of_some_videos_only_are_refused(tmp_path):
    with pytest.raises(VigilError, match="masks of test/21"):
        avenue.labels(tmp_path, {"test/08": 2, "test/21": 2}, {"test/08": np.array([True, False])})


def test_a_broken_mask_file_is_named(tmp_path):
    root = tmp_path / "avenue"
    raw.images(root / "training/frames/01", 2)
    raw.images(root / "testing/frames/08", 2)
    video = next(video for video in avenue.videos(root) if video.split == "test")
    path = root / "testing_label_mask/8_label.mat"
    raw.mat_masks(path, [0, 1])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(VigilError, match=r"8_label.mat"):
        avenue.mask(root, video)


def test_known_numbers_of_frames():
    assert len(avenue.TEST_FRAMES) == 21
    assert sum(avenue.TEST_FRAMES) == 15324
