import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import auc, roc_curve

from stages.evaluation.roc import equal_error_rate, measure, roc_points, video_aucs

SCORE = np.array([0.1, 0.4, 0.35, 0.8])
ABNORMAL = np.array([False, False, True, True])
ONE = np.full(4, "test/01")


@st.composite
def scored(draw):
    """Scores with ties, and labels of both classes."""
    length = draw(st.integers(2, 40))
    score = draw(arrays(np.int64, length, elements=st.integers(-20, 20)))
    abnormal = draw(arrays(bool, length))
    assume(abnormal.any() and not abnormal.all())
    return score.astype(float), abnormal


def test_measure_by_hand():
    # of the 4 pairs (abnormal, normal) 3 are in order; precision is 1 at recall 1/2 and 2/3 at recall 1; the curve
    # runs (0,0) (0,.5) (.5,.5) (.5,1) (1,1) and meets fpr = 1 - tpr at (.5,.5)
    found = measure(SCORE, ABNORMAL, ONE)
    assert found == {
        "auc_micro": 0.75,
        "auc_macro": 0.75,
        "macro_videos": 1,
        "macro_skipped": 0,
        "ap": pytest.approx((1 + 2 / 3) / 2),
        "eer": 0.5,
        "frames": 4,
        "abnormal": 2,
    }


def test_macro_skips_videos_of_one_class():
    # each mixed video is in order, yet the first one's normal frame is above the second one's abnormal one
    score = np.array([5.0, 6.0, 1.0, 2.0, 9.0, 9.0])
    abnormal = np.array([False, True, False, True, True, True])
    video = np.array(["test/10", "test/10", "test/2", "test/2", "test/3", "test/3"])
    assert video_aucs(score, abnormal, video) == {"test/10": 1, "test/2": 1}
    found = measure(score, abnormal, video)
    assert (found["auc_macro"], found["macro_videos"], found["macro_skipped"]) == (1, 2, 1)
    assert found["auc_micro"] == 7 / 8


def test_macro_is_none_where_all_videos_have_one_class():
    found = measure(np.array([1.0, 2.0]), np.array([False, True]), np.array(["test/1", "test/2"]))
    assert (found["auc_macro"], found["macro_videos"], found["macro_skipped"]) == (None, 0, 2)


def test_equal_error_rate_is_interpolated():
    # between (0, .5) and (1, 1): fpr = x, tpr = .5 + x / 2, so x = 1 - tpr at x = 1/3
    assert equal_error_rate(np.array([0, 0, 1.0]), np.array([0, 0.5, 1.0])) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("score", "expected"), [([0, 1], 0), ([1, 0], 1), ([3, 3], 0.5)])
def test_equal_error_rate_of_perfect_wrong_and_blind_scores(score, expected):
    found = measure(np.array(score, float), np.array([False, True]), np.array(["a", "a"]))
    assert found["eer"] == expected


@given(scored())
def test_auc_counts_pairs_in_order(case):
    score, abnormal = case
    pairs = np.sign(score[abnormal][:, None] - score[~abnormal])
    assert measure(score, abnormal, np.full(len(score), "v"))["auc_micro"] == pytest.approx((pairs.mean() + 1) / 2)


@given(scored(), st.floats(0.1, 10), st.integers(-50, 50))
def test_measures_do_not_change_with_a_monotone_transform(case, factor, shift):
    score, abnormal = case
    video = np.array(["a", "b", "c"])[np.arange(len(score)) % 3]
    before, after = measure(score, abnormal, video), measure(factor * score**3 + shift, abnormal, video)
    assert before == pytest.approx(after)


@given(scored())
def test_reversing_the_labels_or_the_score_reverses_the_curve(case):
    score, abnormal = case
    video = np.full(len(score), "v")
    forward = measure(score, abnormal, video)
    for other in (measure(score, ~abnormal, video), measure(-score, abnormal, video)):
        assert other["auc_micro"] == pytest.approx(1 - forward["auc_micro"])
        assert other["eer"] == pytest.approx(1 - forward["eer"])


def test_roc_points_are_few_and_keep_the_curve():
    rng = np.random.default_rng(0)
    abnormal = rng.random(40_791) < 0.4
    score = rng.normal(size=len(abnormal)) + 1.5 * abnormal
    fpr, tpr = roc_points(score, abnormal)
    full_fpr, full_tpr, _ = roc_curve(abnormal, score)
    assert len(fpr) <= 200 < len(full_fpr)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert auc(fpr, tpr) == pytest.approx(auc(full_fpr, full_tpr), abs=1e-4)
    assert set(zip(fpr, tpr, strict=True)) <= set(zip(full_fpr, full_tpr, strict=True))
