import numpy as np
import pytest

from stages.command import VigilError
from stages.datasets import folder
from tests.datasets import raw

FRAMES = {"test/front": 6, "test/yard.2": 4}


def test_files_and_folders_mixed(tmp_path):
    raw.video(tmp_path / "train/door.mp4", 3, "mpeg4", "yuv420p")
    raw.images(tmp_path / "train/hall", 3)
    raw.images(tmp_path / "test/front", 3)
    assert {(video.name, video.split) for video in folder.videos(tmp_path)} == {
        ("train/door", "train"), ("train/hall", "train"), ("test/front", "test"),
    }  # fmt: skip
    assert folder.labels(tmp_path, {"test/front": 3}, {}) == {}


def test_training_videos_are_enough_and_needed(tmp_path):
    raw.images(tmp_path / "test/front", 3)
    with pytest.raises(VigilError, match=r"videos in train/"):
        folder.videos(tmp_path)
    (tmp_path / "test").rename(tmp_path / "train")
    assert [(video.name, video.split) for video in folder.videos(tmp_path)] == [("train/front", "train")]


@pytest.mark.parametrize("name", ["front", "test/front", "front.mp4"])
def test_a_table_of_ranges_counts_from_zero(tmp_path, name):
    (tmp_path / "labels.csv").write_text(f"video,start,end\n{name},1,2\n{name}, 5, 5\n")
    labels = folder.labels(tmp_path, FRAMES, {})[tmp_path.name]
    assert np.flatnonzero(labels["test/front"]).tolist() == [1, 2, 5]
    assert labels["test/yard.2"].tolist() == [False] * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,start,end\nfront,1,6\n", "line 2: frames 1 to 6 of test/front; expected within 0 to 5"),
        ("video,start,end\nback,1,2\n", "line 2: no test video is called 'back'; there are front, yard.2"),
        ("video,from,to\nfront,1,2\n", "expected .*video,start,end"),
        ("video,start,end\nfront,one,2\n", "frames as whole numbers"),
    ],
)
def test_a_wrong_table_is_explained(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(VigilError, match=message):
        folder.labels(tmp_path, FRAMES, {})


def test_one_array_a_video(tmp_path):
    (tmp_path / "labels").mkdir()
    np.save(tmp_path / "labels/yard.2.npy", np.array([0, 1, 1, 0]))
    labels = folder.labels(tmp_path, FRAMES, {})[tmp_path.name]
    assert list(labels) == ["test/yard.2"]
    assert labels["test/yard.2"].tolist() == [False, True, True, False]
    np.save(tmp_path / "labels/garden.npy", np.zeros(4))
    with pytest.raises(VigilError, match="garden"):
        folder.labels(tmp_path, FRAMES, {})
    (tmp_path / "labels.csv").write_text("video,start,end\n")
    with pytest.raises(VigilError, match=r"labels.csv and labels/"):
        folder.labels(tmp_path, FRAMES, {})
