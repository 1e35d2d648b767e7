import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.evaluation.fusion import fill_ends, fuse, fuse_table, smooth, train_zscore, video_minmax
from stages.recipes import Fusion

series = arrays(float, st.integers(1, 40), elements=st.integers(-1000, 1000).map(lambda value: value / 8))


def test_video_minmax_by_hand():
    np.testing.assert_array_equal(video_minmax(np.array([2.0, 6.0, 3.0])), [0.0, 1.0, 0.25])


def test_video_minmax_of_constant_values_is_zero():
    np.testing.assert_array_equal(video_minmax(np.full(4, 0.1)), np.zeros(4))


@given(series)
def test_video_minmax_spans_0_to_1_in_the_same_order(values):
    scaled = video_minmax(values)
    if len(np.unique(values)) > 1:
        assert (scaled.min(), scaled.max()) == (0, 1)
    np.testing.assert_array_equal(np.unique(values, return_inverse=True)[1], np.unique(scaled, return_inverse=True)[1])


def test_train_zscore_by_hand():
    # mean 3, population variance (4 + 0 + 4) / 3 = 8 / 3
    np.testing.assert_allclose(train_zscore(np.array([3.0, 7.0]), np.array([1.0, 3.0, 5.0])), [0, 4 / np.sqrt(8 / 3)])


def test_train_zscore_of_constant_training_values_only_shifts():
    # 0.1 is chosen because the mean of three is not 0.1 in floating point, so that a plain deviation is 1e-17, not 0
    np.testing.assert_allclose(train_zscore(np.array([0.1, 2.1]), np.full(3, 0.1)), [0, 2], atol=1e-12)


@given(series)
def test_train_zscore_of_the_training_values_is_standard(values):
    standard = train_zscore(values, values)
    np.testing.assert_allclose(standard.mean(), 0, atol=1e-9)
    if len(np.unique(values)) > 1:
        np.testing.assert_allclose(standard.std(), 1)


def test_smooth_by_hand():
    # an impulse spreads into the normalised Gaussian: neighbour / peak = exp(-1 / 2) at sigma 1
    spread = smooth(np.eye(21)[10], 1.0)
    np.testing.assert_allclose(spread[[9, 11]] / spread[10], np.exp(-0.5))
    np.testing.assert_allclose(spread.sum(), 1)


@given(st.floats(-5, 5), st.integers(1, 30), st.floats(0.01, 10))
def test_smooth_keeps_constants(value, length, sigma):
    np.testing.assert_allclose(smooth(np.full(length, value), sigma), np.full(length, value), atol=1e-12)


def test_smooth_0_changes_nothing():
    score = np.array([1.0, 5.0, 2.0])
    np.testing.assert_array_equal(smooth(score, 0.0), score)


def test_fill_ends_by_hand():
    np.testing.assert_array_equal(fill_ends(np.array([5.0, 7.0, 6.0]), 2, 6), [5, 5, 5, 7, 6, 6])


@given(series, st.integers(0, 9), st.integers(0, 9))
def test_fill_ends_keeps_the_scored_frames_and_adds_no_value(values, before, after):
    filled = fill_ends(values, before, before + len(values) + after)
    assert len(filled) == before + len(values) + after
    np.testing.assert_array_equal(filled[before : before + len(values)], values)
    assert set(filled) == set(values)


def test_fuse_by_hand():
    video = {"psnr": np.array([20.0, 30.0]), "distance": np.array([4.0, 2.0])}
    train = {"psnr": np.array([29.0, 31.0]), "distance": np.array([0.0, 4.0])}
    weights = {"psnr": -0.5, "distance": 2.0}
    none = fuse(Fusion(weights, "none", "all"), video, train)
    np.testing.assert_allclose(none, [-10 + 8, -15 + 4])
    minmax = fuse(Fusion(weights, "video_minmax", "all"), video, train)
    np.testing.assert_allclose(minmax, [2, -0.5])
    # psnr: mean 30, deviation 1; distance: mean 2, deviation 2
    zscore = fuse(Fusion(weights, "train_zscore", "all"), video, train)
    np.testing.assert_allclose(zscore, [-0.5 * -10 + 2 * 1, 0])


@pytest.fixture
def table() -> pd.DataFrame:
    """Two test videos of 4 and 3 frames, of which frame 0 and the last frame of the first are not scored."""
    rows = [
        ("train/01", "train", 1, 1.0),
        ("train/01", "train", 2, 3.0),
        ("test/02", "test", 1, 7.0),
        ("test/02", "test", 2, 5.0),
        ("test/10", "test", 1, 0.0),
        ("test/10", "test", 2, 40.0),
    ]
    return pd.DataFrame(rows, columns=["video", "split", "frame", "mean"])


LENGTHS = {"test/02": 4, "test/10": 3}


def test_fuse_table_scored_frames(table):
    fused = fuse_table(table, Fusion({"mean": 1.0}, "video_minmax", "scored"), 0.0, LENGTHS)
    expected = pd.DataFrame(
        {"video": ["test/02"] * 2 + ["test/10"] * 2, "frame": [1, 2, 1, 2], "score": [1.0, 0.0, 0.0, 1.0]}
    )
    pd.testing.assert_frame_equal(fused, expected)


def test_fuse_table_all_frames_by_training_scores(table):
    fused = fuse_table(table, Fusion({"mean": 1.0}, "train_zscore", "all"), 0.0, LENGTHS)
    assert list(zip(fused["video"], fused["frame"], strict=True)) == [
        (video, frame) for video, length in LENGTHS.items() for frame in range(length)
    ]
    np.testing.assert_allclose(fused["score"], [5, 5, 3, 3, -2, -2, 38])


def test_fuse_table_smooths_within_a_video_only(table):
    table.loc[table["video"] == "test/02", "mean"] = 7.0
    fused = fuse_table(table, Fusion({"mean": 1.0}, "none", "scored"), 5.0, LENGTHS)
    np.testing.assert_allclose(fused["score"][:2], 7)  # the 40 of the next video does not leak
    assert 0 < fused["score"][2] < fused["score"][3] < 40


def test_a_frame_has_the_score_of_its_most_anomalous_object():
    table = pd.DataFrame(
        [
            ("t", "train", 0, 1.0, 0.0),
            ("t", "train", 1, 3.0, 2.0),
            ("a", "test", 1, 4.0, 1.0),
            ("a", "test", 1, 2.0, 5.0),
            ("a", "test", 3, 0.0, 1.0),
            ("c", "test", 0, 2.0, -1.0),
        ],
        columns=["video", "split", "frame", "raw", "flow"],
    )
    # training: raw has mean 2 and deviation 1, flow mean 1 and deviation 1
    fused = fuse_table(
        table, Fusion({"raw": 0.5, "flow": 1.0}, "train_zscore", "objects"), 0.0, {"a": 4, "b": 2, "c": 1}
    )
    lowest = -2.0  # of video c's object; those of training have -1.5 and 1.5
    assert fused.score.tolist() == [lowest, max(1.0, 4.0), lowest, -1.0, lowest, lowest, -2.0]
    assert fused.frame.tolist() == [0, 1, 2, 3, 0, 1, 0]
    assert fused.video.tolist() == ["a"] * 4 + ["b"] * 2 + ["c"]


def test_frames_without_objects_do_not_leak_into_smoothing():
    table = pd.DataFrame(
        [("t", "train", 0, 0.0), ("t", "train", 1, 2.0), ("a", "test", 2, 9.0), ("a", "test", 3, 9.0)],
        columns=["video", "split", "frame", "raw"],
    )
    fused = fuse_table(table, Fusion({"raw": 1.0}, "train_zscore", "objects"), 1.0, {"a": 6})
    assert fused.score.min() >= -1
    assert fused.score.argmax() in (2, 3)
