"""Bootstrap intervals over videos: against scikit-learn on the frames themselves, and their coverage."""

import time

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from stages.evaluation.intervals import drawn, intervals, weighted_areas


@st.composite
def resampled(draw):
    """Scores with ties, labels, videos in no order, and how often each video is taken; both classes are left."""
    length, videos = draw(st.integers(2, 40)), draw(st.integers(1, 6))
    score = draw(arrays(np.int64, length, elements=st.integers(-5, 5))).astype(float)
    abnormal = draw(arrays(bool, length))
    video = draw(arrays(np.int64, length, elements=st.integers(0, videos - 1)))
    times = draw(arrays(np.int64, (3, videos), elements=st.integers(0, 4)))
    repeats = times[:, video]
    assume(np.all(repeats @ abnormal > 0) and np.all(repeats @ ~abnormal > 0))
    return score, abnormal, video, times


@given(resampled())
def test_weights_give_what_scikit_learn_gives_on_the_resampled_frames(case):
    score, abnormal, video, times = case
    auc, ap = weighted_areas(score, abnormal, video, times)
    for row, own_auc, own_ap in zip(times[:, video], auc, ap, strict=True):
        truth, values = np.repeat(abnormal, row), np.repeat(score, row)
        assert own_auc == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
        assert own_ap == pytest.approx(average_precision_score(truth, values), abs=1e-12)


def test_all_draws_are_summed_whatever_the_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    score, abnormal, video = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.4, np.arange(60) % 5
    times = drawn(abnormal, video, 37, rng)
    whole = weighted_areas(score, abnormal, video, times)
    for at_once in (1, 200, 1000):
        monkeypatch.setattr("stages.evaluation.intervals.SUMMED_AT_ONCE", at_once)
        np.testing.assert_allclose(weighted_areas(score, abnormal, video, times), whole, rtol=1e-12)


def test_a_draw_takes_as_many_videos_as_there_are_and_both_classes():
    # of three videos one is normal and two are abnormal: (2/3)^3 + (1/3)^3 = 1/3 of all draws have one class
    abnormal, video = np.array([False, True, True]), np.arange(3)
    times = drawn(abnormal, video, 5000, np.random.default_rng(0))
    assert times.shape == (5000, 3)
    assert (times.sum(axis=1) == 3).all()
    assert times[:, 0].min() == 1
    assert times[:, 0].max() == 2
    # the other 2/3 hold the normal video once (12 of 27 orders) or twice (6 of 27)
    assert (times[:, 0] == 2).mean() == pytest.approx(1 / 3, abs=0.03)


def test_an_interval_by_hand():
    # two alike videos of one pair, in order: whatever is drawn, the figures are the same
    video = np.array(["a", "a", "b", "b"])
    found = intervals(np.array([0.0, 1.0, 0.0, 1.0]), np.array([False, True, False, True]), video, 0)
    assert found == {"auc_micro": [1.0, 1.0], "ap": [1.0, 1.0]}
    # in b out of order: AUC 1 of a alone (a quarter of the draws), 0 of b alone; 95 % reach from one to the other
    found = intervals(np.array([0.0, 1.0, 1.0, 0.0]), np.array([False, True, False, True]), video, 0)
    assert found == {"auc_micro": [0.0, 1.0], "ap": [0.5, 1.0]}


def test_one_video_has_no_interval():
    one = np.full(2, "a")
    assert intervals(np.array([0.0, 1.0]), np.array([False, True]), one, 0) == {"auc_micro": None, "ap": None}


def test_the_seed_and_nothing_else_decides():
    rng = np.random.default_rng(0)
    video = np.repeat([f"v{i}" for i in range(8)], 20)
    abnormal = rng.random(160) < 0.5
    score = rng.normal(size=160) + abnormal
    one = intervals(score, abnormal, video, 1)
    assert one == intervals(score, abnormal, video, 1) != intervals(score, abnormal, video, 2)
    assert one == intervals(np.exp(score), abnormal, video, 1)


def simulated(rng: np.random.Generator, videos: int, frames: int, spread: float) -> tuple[np.ndarray, ...]:
    """Half of each video abnormal, 1 higher; a video's two levels lie `spread` around these, and noise of 1 on top."""
    abnormal = np.tile(np.arange(frames) < frames // 2, (videos, 1))
    level = np.where(abnormal, 1 + spread * rng.normal(size=(videos, 1)), spread * rng.normal(size=(videos, 1)))
    video = np.repeat(np.arange(videos), frames)
    return (level + rng.normal(size=level.shape)).ravel(), abnormal.ravel(), video


def test_intervals_hold_the_true_value_as_often_as_they_say():
    # over all videos normal and abnormal scores have variance 1 + spread^2, and the AUC is that of two normal curves
    rng, spread, rounds = np.random.default_rng(0), 1.0, 120
    truth = norm.cdf(1 / np.sqrt(2 * (1 + spread**2)))
    by_video = by_frame = 0
    for seed in range(rounds):
        score, abnormal, video = simulated(rng, 40, 20, spread)
        low, high = intervals(score, abnormal, video, seed, draws=300)["auc_micro"]
        by_video += low <= truth <= high
        low, high = intervals(score, abnormal, np.arange(len(score)), seed, draws=100)["auc_micro"]
        by_frame += low <= truth <= high
    assert 0.89 <= by_video / rounds <= 0.99
    assert by_frame / rounds < 0.8  # what drawing frames would claim


def test_shanghaitech_takes_seconds():
    rng = np.random.default_rng(0)
    video = np.sort(np.arange(40_791) % 107)
    abnormal = rng.random(len(video)) < 0.42
    start = time.process_time()
    intervals(rng.normal(size=len(video)) + abnormal, abnormal, video, 0)
    assert time.process_time() - start < 15
