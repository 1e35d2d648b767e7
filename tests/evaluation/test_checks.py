import re

import numpy as np
import pandas as pd
import pytest

from stages.command import VigilError
from stages.evaluation.checks import check_classes, check_labels, check_scores
from stages.recipes import Fusion

LENGTHS = {"test/01": 5, "test/02": 4}
HONEST = Fusion({"psnr": -1.0}, "train_zscore", "all")
PAPER = Fusion({"psnr": -1.0}, "video_minmax", "scored")


def scores_table() -> pd.DataFrame:
    """Frames 1 to the last of each test video, and of one training video."""
    parts = [
        pd.DataFrame({"video": video, "split": video.split("/")[0], "frame": np.arange(1, length, dtype=np.int32)})
        for video, length in {"train/01": 6, **LENGTHS}.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(psnr=30.0)


def labels_table(name: str = "made") -> pd.DataFrame:
    parts = [
        pd.DataFrame({"label_set": name, "video": video, "frame": np.arange(length, dtype=np.int32)})
        for video, length in LENGTHS.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    return table.assign(abnormal=table["frame"] == 2)


@pytest.mark.parametrize("fusion", [HONEST, PAPER])
def test_good_scores_pass(fusion):
    check_scores(scores_table(), fusion, LENGTHS)


def test_good_labels_pass():
    check_labels(pd.concat([labels_table("a"), labels_table("b")]), LENGTHS)
    check_labels(labels_table().iloc[:0], LENGTHS)


def refused(message: str):
    return pytest.raises(VigilError, match=re.escape(message))


def test_unknown_component():
    with refused("no component psnr_reset, only psnr"):
        check_scores(scores_table(), Fusion({"psnr_reset": 1.0}, "none", "all"), LENGTHS)


def test_video_without_scores_and_scores_without_video():
    table = scores_table()
    with refused("test video test/03: in the video table, not in the scores"):
        check_scores(table, PAPER, {**LENGTHS, "test/03": 4})
    with refused("test video test/02: in the scores, not in the video table"):
        check_scores(table, PAPER, {"test/01": 5})


def test_scores_beyond_the_end():
    with refused("video test/02: scored frames 1 to 3, expected 0 to 2 at most"):
        check_scores(scores_table(), PAPER, {**LENGTHS, "test/02": 3})


def test_hole_in_the_scores():
    table = scores_table()
    hole = (table["video"] == "test/01") & (table["frame"] == 2)
    with refused("video test/01: frame 1 is followed by 3"):
        check_scores(table[~hole], PAPER, LENGTHS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_components_that_are_not_finite(value):
    table = scores_table()
    table.loc[(table["video"] == "test/02") & (table["frame"] == 3), "psnr"] = value
    with refused(f"psnr is {value} at video test/02, frame 3 (1 such of 7 frames)"):
        check_scores(table, PAPER, LENGTHS)


def test_training_frames_matter_to_z_scores_only():
    table = scores_table()
    table.loc[table["split"] == "train", "psnr"] = np.nan
    check_scores(table, PAPER, LENGTHS)
    with refused("psnr is nan at video train/01, frame 1 (5 such of 12 frames)"):
        check_scores(table, HONEST, LENGTHS)
    table = table[table["split"] == "test"]
    check_scores(table, PAPER, LENGTHS)
    with refused("the scores have no training frames"):
        check_scores(table, HONEST, LENGTHS)


def test_labels_off_by_one_name_the_video():
    with refused("video test/02: found 4 labels, expected 5, one a frame"):
        check_labels(labels_table(), {**LENGTHS, "test/02": 5})


def test_labels_out_of_order():
    table = labels_table()
    table.loc[0, "frame"] = 1
    with refused("video test/01: the labelled frames are not 0 to 4 in order"):
        check_labels(table, LENGTHS)


def test_labels_of_other_videos():
    with refused("test video test/03: in the video table, not in label set made"):
        check_labels(labels_table(), {**LENGTHS, "test/03": 2})
    with refused("test video test/02: in label set b, not in the video table"):
        both = pd.concat([labels_table("a").query("video == 'test/01'"), labels_table("b")])
        check_labels(both, {"test/01": 5})


def test_a_long_list_of_problems_is_cut():
    lengths = {f"test/{i:02d}": 4 for i in range(1, 11)}
    with pytest.raises(VigilError) as refusal:
        check_labels(labels_table().query("video == 'test/02'"), lengths)
    assert str(refusal.value).count("test video test/") == 5
    assert "and 4 more" in str(refusal.value)


@pytest.mark.parametrize(("value", "word"), [(True, "abnormal"), (False, "normal")])
def test_one_class_is_refused(value, word):
    with refused(f"label set made: all 3 judged frames are {word}"):
        check_classes(np.full(3, value), "made")


OBJECTS = Fusion({"psnr": -1.0}, "train_zscore", "objects")


def test_objects_come_many_or_none_a_frame():
    rows = [("t", "train", 0, 1.0), ("a", "test", 0, 1.0), ("a", "test", 0, 2.0), ("a", "test", 2, 3.0)]
    table = pd.DataFrame(rows, columns=["video", "split", "frame", "psnr"])
    check_scores(table, OBJECTS, {"a": 3, "b": 2})
    with pytest.raises(VigilError, match="frame 2 is followed by 0, expected ascending frames"):
        check_scores(table.iloc[[0, 3, 1]], OBJECTS, {"a": 3, "b": 2})
    with pytest.raises(VigilError, match="scored frames 0 to 2, expected 0 to 1 at most"):
        check_scores(table, OBJECTS, {"a": 2, "b": 2})
    with pytest.raises(VigilError, match="test video a: in the scores, not in the video table"):
        check_scores(table, OBJECTS, {"b": 2})
    with pytest.raises(VigilError, match="no test video has an object"):
        check_scores(table[:1], OBJECTS, {"a": 3, "b": 2})
