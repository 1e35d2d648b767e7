from pathlib import Path

import numpy as np
import pytest

from stages.command import VigilError
from stages.datasets import ucf_crime

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


@pytest.mark.skipif(not (SHARED / "ucf-crime").exists(), reason="the real annotation is not here")
def test_the_real_annotation():
    root = SHARED / "ucf-crime"
    ranges = ucf_crime.annotation(root, ucf_crime.walk(root))
    assert len(ranges) == 290
    assert sum(bool(pairs) for pairs in ranges.values()) == 140
    assert sum(end - start + 1 for pairs in ranges.values() for start, end in pairs) == 84345
