from pathlib import Path

import numpy as np
import pytest

from stages.command import VigilError
from stages.datasets import find_labels, find_videos, ucf_crime
from stages.datasets.common import Card
from tests.datasets import raw

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
ANNOTATION = """Abuse028_x264.mp4  Abuse  3  5  8  99
Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1
"""


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "ucf_crime"
    for path in ("part one/Abuse/Abuse001_x264.mp4", "part one/Abuse/Abuse028_x264.mp4",
                 "Training_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4",
                 "Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4",
                 "Z_event/Normal_Videos_003_x264.mp4"):  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    (root / "Temporal_Anomaly_Annotation.txt").write_text(ANNOTATION)
    return root


def test_splits(root):
    expected = {
        "train/Abuse001_x264": ("", "train", True),
        "test/Abuse028_x264": ("test", "test", True),
        "train/Normal_Videos001_x264": ("train", "train", False),
        "test/Normal_Videos_003_x264": ("test", "test", False),
    }
    found = ucf_crime.videos(root)
    assert {video.name: (video.split, video.weak_split, video.weak_abnormal) for video in found} == expected
    assert next(v for v in found if v.name.endswith("003_x264")).source.parent.name.startswith("Testing")
    (root / "Anomaly_Train.txt").write_text("Training_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4\n")
    (root / "Anomaly_Test.txt").write_text(
        "Abuse/Abuse028_x264.mp4\nTesting_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4\n"
    )
    del expected["train/Abuse001_x264"]
    assert {video.name for video in ucf_crime.videos(root)} == set(expected)


def test_ranges_count_from_one_and_end_with_the_video(root):
    labels = ucf_crime.labels(root, {"test/Abuse028_x264": 10, "test/Normal_Videos_003_x264": 4}, {})["ucf_crime"]
    assert np.flatnonzero(labels["test/Abuse028_x264"]).tolist() == [2, 3, 4, 7, 8, 9]
    assert not labels["test/Normal_Videos_003_x264"].any()


def test_a_range_after_the_end_is_refused(root):
    with pytest.raises(VigilError, match="Abuse028_x264: range 8"):
        ucf_crime.labels(root, {"test/Abuse028_x264": 6}, {})


def test_an_anomaly_without_a_range_and_an_odd_line_are_refused(root):
    path = root / "Temporal_Anomaly_Annotation.txt"
    path.write_text("Arson002_x264.mp4 Arson -1 -1 -1 -1\n")
    with pytest.raises(VigilError, match=r"line 1: Arson002_x264.mp4 of class Arson has no abnormal frame"):
        ucf_crime.videos(root)
    path.write_text(ANNOTATION + "Arson002_x264.mp4 Arson 3\n")
    with pytest.raises(VigilError, match="line 3: found 'Arson002"):
        ucf_crime.videos(root)


def test_a_listed_test_video_without_annotation_is_named(root):
    (root / "Anomaly_Test.txt").write_text("Abuse/Abuse001_x264.mp4\n")
    with pytest.raises(VigilError, match="annotation of test/Abuse001_x264"):
        ucf_crime.videos(root)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """Features of two training and two test videos; the card is of so many."""
    root = tmp_path / "ucf_crime"
    raw.features(root / "features/UCF_Train", {"Abuse001_x264": 3, "Normal_Videos001_x264": 2})
    raw.features(root / "features/UCF_Test", {"Abuse028_x264": 1, "Normal_Videos_003_x264": 4})
    (root / "Temporal_Anomaly_Annotation.txt").write_text(ANNOTATION)
    truths = {"ucf_crime-small": (80, None)}
    small = Card("small", "", weak={"train": (1, 1), "test": (1, 1)}, weak_truths=truths)
    monkeypatch.setitem(ucf_crime.CARDS, "ucf_crime", small)
    return root


def plain_lists(root):
    (root / "Anomaly_Train.txt").write_text("Abuse/Abuse001_x264.mp4\nNormal/Normal_Videos001_x264.mp4\n")
    (root / "Anomaly_Test.txt").write_text("Abuse/Abuse028_x264.mp4\nNormal/Normal_Videos_003_x264.mp4\n")


def tables(root):
    (root / "ucf-crime.training.csv").write_text("video-id,label\nAbuse001_x264,1\nNormal_Videos001_x264,0\n")
    (root / "ucf-crime.testing.csv").write_text("video-id,label\nAbuse028_x264,abnormal\nNormal_Videos_003_x264,normal")


@pytest.mark.parametrize("lists", [plain_lists, tables, lambda root: None])
def test_features_alone(alone, lists):
    lists(alone)
    found = find_videos("ucf_crime", partial=False, raw=alone.parent)
    assert {video.name: (video.split, video.weak_split, video.weak_abnormal) for video in found} == {
        "train/Abuse001_x264": ("", "train", True),
        "test/Abuse028_x264": ("", "test", True),
        "train/Normal_Videos001_x264": ("", "train", False),
        "test/Normal_Videos_003_x264": ("", "test", False),
    }
    frames = {"test/Abuse028_x264": 16, "test/Normal_Videos_003_x264": 64}
    labels = find_labels("ucf_crime", found, frames, {}, partial=False, raw=alone.parent)
    assert list(labels) == ["ucf_crime-small"]
    flags = labels["ucf_crime-small"]["test/Abuse028_x264"]  # the range to frame 99 ends with the features
    assert np.flatnonzero(flags).tolist() == [2, 3, 4, *range(7, 16)]
    frames["test/Normal_Videos_003_x264"] = 48
    with pytest.raises(
        VigilError, match=r"found 64 test frames with 12 abnormal ones, .* known are 80 \(ucf_crime-small"
    ):
        find_labels("ucf_crime", found, frames, {}, partial=False, raw=alone.parent)
    (alone / "features/UCF_Test/Abuse028_x264_i3d.npy").unlink()
    with pytest.raises(VigilError, match="1 of 4 videos have no features, first test/Abuse028_x264"):
        find_videos("ucf_crime", partial=False, raw=alone.parent)
    assert len(find_videos("ucf_crime", partial=True, raw=alone.parent)) == 3


def test_unlisted_features_do_not_count_and_unannotated_ones_are_named(alone):
    plain_lists(alone)
    raw.features(alone / "features", {"Abuse999_x264": 1})
    assert len(find_videos("ucf_crime", partial=False, raw=alone.parent)) == 4
    (alone / "Anomaly_Test.txt").write_text("Abuse/Abuse028_x264.mp4\nAbuse/Abuse999_x264.mp4\n")
    with pytest.raises(VigilError, match="annotation of test/Abuse999_x264"):
        find_videos("ucf_crime", partial=False, raw=alone.parent)


def test_videos_win_over_features(root, alone):
    found = find_videos("ucf_crime", partial=True, raw=root.parent)
    assert all(video.has_frames for video in found)
    assert {video.split for video in found} == {"train", "test", ""}


@pytest.mark.skipif(not (SHARED / "ucf-crime").exists(), reason="the real annotation is not here")
def test_the_real_annotation():
    root = SHARED / "ucf-crime"
    ranges = ucf_crime.annotation(root, ucf_crime.walk(root))
    assert len(ranges) == 290
    assert sum(bool(pairs) for pairs in ranges.values()) == 140
    assert sum(end - start + 1 for pairs in ranges.values() for start, end in pairs) == 84345
