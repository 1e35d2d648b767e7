"""Lists of the weakly supervised split, and features alone."""

from pathlib import Path

import numpy as np
import pytest

from stages.command import VigilError
from stages.datasets.common import Video
from stages.datasets.weak import feature_frames, find_features, read_list
from tests.datasets import raw


def read(tmp_path):
    return read_list(tmp_path / "a.txt", tmp_path / "a.csv", lambda name: name.startswith("x"), 63)


def test_lists_of_both_kinds(tmp_path):
    assert read(tmp_path) is None
    (tmp_path / "a.txt").write_text("x/x1.mp4\n\n y2\n")
    assert read(tmp_path) == {"x1": True, "y2": False}
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.csv").write_text("more,video-id,label\n1,x1,normal\n2,y2, 1\n3,z3,Abnormal\n4,x4,0\n")
    assert read(tmp_path) == {"x1": False, "y2": True, "z3": True, "x4": False}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video-id\na\n", "no column `label`: add one, 1 for an abnormal video .* the first 63 rows are the abnormal"),
        ("video,label\na,1\n", "found the columns video,label; expected video-id,label"),
        ("video-id,label\na,1\nb,\n", "line 3: found video 'b' with label ''"),
        ("video-id,label\na,2\n", "line 2: found video 'a' with label '2'"),
        ("video-id,label\na,1\nb,0\na,0\n", "a is normal in one row and abnormal in another"),
        ("", "No columns to parse"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(VigilError, match=message):
        read(tmp_path)


def test_feature_files_are_found_below_and_two_of_one_video_are_refused(tmp_path):
    raw.features(tmp_path / "features/one", {"a": 1, "b": 1})
    assert find_features(tmp_path, ["test/b", "test/c"]) == {
        "test/b": tmp_path / "features/one/b_i3d.npy",
        "test/c": tmp_path / "features/c_i3d.npy",
    }
    raw.features(tmp_path / "features", {"b": 1})
    with pytest.raises(VigilError, match=r"b_i3d.npy, one/b_i3d.npy: one of them has to be test/b_i3d.npy"):
        find_features(tmp_path, ["test/b", "test/c"])


def video(path: Path) -> Video:
    return Video(path.stem, "", path, "train", False)


def test_frames_by_the_files_headers(tmp_path):
    raw.features(tmp_path, {"a": 3}, crops=10)
    assert feature_frames([video(tmp_path / "a_i3d.npy")]) == {"a_i3d": 48}


def test_files_that_are_no_features_are_named_together(tmp_path):
    np.save(tmp_path / "empty.npy", np.zeros((0, 10, 2048)))
    np.save(tmp_path / "flat.npy", np.zeros((3, 2048)))
    np.save(tmp_path / "other.npy", np.zeros((3, 10, 1024)))
    (tmp_path / "text.npy").write_text("<html>")
    np.save(tmp_path / "short.npy", np.zeros((3, 10, 2048)))
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-9])
    with pytest.raises(VigilError) as caught:
        feature_frames([video(path) for path in sorted(tmp_path.glob("*.npy"))])
    message = str(caught.value)
    assert message.startswith("5 feature file(s) cannot be used:")
    for expected in (r"empty.npy", "flat.npy: found shape (3, 2048)", "other.npy: found shape (3, 10, 1024)",
                     "text.npy cannot be read", "short.npy cannot be read"):  # fmt: skip
        assert expected in message
