"""Thresholds and alarms, worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, precision_score, recall_score

from stages.evaluation.alarms import at_threshold, runs, threshold
from stages.evaluation.fusion import fuse_table
from stages.recipes import Fusion


def table(split: str, video: str, frames, values, **columns) -> pd.DataFrame:
    return pd.DataFrame({"video": video, "split": split, "frame": frames, "value": np.array(values, float)} | columns)


def judged(video: str, score, abnormal) -> pd.DataFrame:
    return pd.DataFrame({"video": video, "frame": range(len(score)), "score": score, "abnormal": abnormal}).astype(
        {"score": float, "abnormal": bool}
    )


FRAMES = pd.concat(
    # alarms: 1-2 (touches abnormal 2), 5 (in vain), 7 to the end (in vain) and, in the next video, from its start
    [judged("a", [0, 9, 9, 0, 0, 9, 1, 9, 9], [0, 0, 1, 1, 0, 0, 0, 0, 0]), judged("b", [9, 1, 1], [1, 1, 0])],
    ignore_index=True,
)


def test_alarms_by_hand():
    starts, stops = runs(FRAMES, FRAMES["score"].to_numpy() > 1)
    assert list(zip(starts, stops, strict=True)) == [(1, 3), (5, 6), (7, 9), (9, 10)]


def test_frames_that_are_not_judged_part_alarms():
    starts, stops = runs(FRAMES.drop(index=2), np.delete(FRAMES["score"].to_numpy() >= 0, 2))
    assert list(zip(starts, stops, strict=True)) == [(0, 2), (2, 8), (8, 11)]


def test_figures_by_hand():
    # 6 frames alarmed (a score equal to the threshold is none), 2 of them abnormal, of 4 abnormal in all; 9 frames at
    # 9 a second and 3 at 1 make 4 seconds
    found = at_threshold(FRAMES, 1.0, {"a": 9.0, "b": 1.0, "other": np.nan})
    assert found == {
        "f1": pytest.approx(2 * 2 / (6 + 4)),
        "precision": pytest.approx(2 / 6),
        "recall": 0.5,
        "alarms": 4,
        "false_alarms": 2,
        "false_alarms_per_hour": pytest.approx(2 / 4 * 3600),
    }


def test_without_frames_a_second_there_is_a_count_and_a_reason():
    found = at_threshold(FRAMES, 1.0, {"a": np.nan, "b": np.nan})
    assert (found["false_alarms"], found["false_alarms_per_hour"]) == (2, None)
    assert found["reason"] == "frames a second unknown: a and 1 more"
    assert at_threshold(FRAMES, 1.0, {"a": 25.0, "b": 0.0})["reason"] == "frames a second unknown: b"


def test_nothing_alarmed_has_no_precision():
    found = at_threshold(FRAMES, 9.0, {"a": 1.0, "b": 1.0})
    assert (found["f1"], found["precision"], found["recall"]) == (0, None, 0)
    assert (found["alarms"], found["false_alarms"], found["false_alarms_per_hour"]) == (0, 0, 0)


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n))))
def test_frames_count_as_in_scikit_learn(case):
    alarmed, abnormal = case
    found = at_threshold(judged("a", alarmed, abnormal), 0.5, {"a": 1.0})
    zero = {"zero_division": 0}
    assert (found["f1"] or 0) == pytest.approx(f1_score(abnormal, alarmed, **zero))
    assert (found["precision"] or 0) == pytest.approx(precision_score(abnormal, alarmed, **zero))
    assert (found["recall"] or 0) == pytest.approx(recall_score(abnormal, alarmed, **zero))
    assert found["false_alarms"] <= found["alarms"] <= alarmed.sum()


def test_the_threshold_is_the_training_frames_quantile_and_no_test_frame_moves_it():
    fusion = Fusion({"value": -1.0}, "none", "all")
    # frames 1 to 4 of 6; frame 0 is filled with -1 and frame 5 with -4
    train = table("train", "t/1", range(1, 5), [1, 2, 3, 4])
    for test in ([0, 0], [-100, 100]):
        scores = pd.concat([train, table("test", "v/1", range(2), test)], ignore_index=True)
        lengths = {"t/1": 6, "t/unscored": 9}
        assert threshold(scores, fusion, 0.0, lengths, 0.5) == -2.5
        assert threshold(scores, fusion, 0.0, lengths, 0.8) == -1
        assert threshold(scores, fusion, 0.0, lengths, 0.1) == -4


def test_training_frames_are_fused_as_test_frames_are():
    rng = np.random.default_rng(0)
    train, other = rng.random(20), rng.random(30)
    fusion = Fusion({"value": 1.0}, "train_zscore", "all")
    scores = pd.concat([table("train", "t/1", range(20), train), table("test", "v/1", range(30), other)])
    found = threshold(scores, fusion, 2.0, {"t/1": 20}, 0.9)
    turned = scores.assign(split="test").replace({"video": {"t/1": "v/2"}})
    fused = fuse_table(pd.concat([scores.query("split == 'train'"), turned]), fusion, 2.0, {"v/2": 20})
    assert found == pytest.approx(np.quantile(fused["score"], 0.9))


def test_a_training_frame_has_its_highest_objects_score():
    # frames 0 and 3 have no object and get the lowest score, 1
    train = table("train", "t/1", [1, 1, 2], [5, 1, 2])
    fusion = Fusion({"value": 1.0}, "none", "objects")
    assert threshold(train, fusion, 0.0, {"t/1": 4}, 1.0) == 5
    assert threshold(train, fusion, 0.0, {"t/1": 4}, 0.5) == (1 + 2) / 2


def test_statistics_of_an_imported_model_are_of_no_frames():
    scores = pd.concat([table("train", "published statistics", [0, 0], [1, 2]), table("test", "v", [0], [1])])
    assert threshold(scores, Fusion({"value": 1.0}, "train_zscore", "objects"), 0.0, {"v": 1}, 0.99) is None


def test_without_training_frames_there_is_no_threshold():
    assert threshold(table("test", "v", [0], [1]), Fusion({"value": 1.0}, "none", "all"), 0.0, {}, 0.99) is None
