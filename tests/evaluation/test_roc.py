import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import auc, roc_curve

from stages.evaluation.roc import equal_error_rate, macro_aucs, measure, roc_points, video_aucs

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
        # padded, 3 more of 9 pairs are in order for the new normal frame, 2 for the new abnormal one
        "macro_rules": {"skip": 0.75, "pad": pytest.approx((3 + 3 + 2) / 9), "one": 0.75, "zero": 0.75},
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
    by_video = video_aucs(pd.DataFrame({"video": video, "score": score, "abnormal": abnormal}))
    assert by_video.fillna(-1).to_dict("list") == {
        "video": ["test/10", "test/2", "test/3"], "frames": [2, 2, 2], "abnormal": [1, 1, 2], "auc": [1, 1, -1],
    }  # fmt: skip
    found = measure(score, abnormal, video)
    assert (found["auc_macro"], found["macro_videos"], found["macro_skipped"]) == (1, 2, 1)
    assert found["auc_micro"] == 7 / 8


def test_the_four_ways_of_macro_averaging_by_hand():
    # a: one of two pairs in order; b: all abnormal; c: all normal; d: the only pair in order
    videos = pd.DataFrame(
        {"video": [*"abcd"], "frames": [3, 4, 5, 2], "abnormal": [1, 4, 0, 1], "auc": [0.5, np.nan, np.nan, 1.0]}
    )
    # padded, a has 2 x 3 pairs: its own 2, of which 1, and 4 with a new frame, all in order; b, c, d are without fault
    assert macro_aucs(videos) == {
        "skip": (0.5 + 1) / 2,
        "pad": pytest.approx((5 / 6 + 1 + 1 + 1) / 4),
        "one": (0.5 + 1 + 1 + 1) / 4,
        "zero": (0.5 + 0 + 0 + 1) / 4,
    }


@given(st.lists(scored(), min_size=1, max_size=4))
def test_padding_is_what_the_area_of_the_padded_frames_is(videos):
    tables, padded = [], []
    for number, (score, abnormal) in enumerate(videos):
        tables.append(pd.DataFrame({"video": str(number), "score": score, "abnormal": abnormal}))
        more = np.concatenate([[score.min() - 1], score, [score.max() + 1]])
        fpr, tpr, _ = roc_curve(np.concatenate([[False], abnormal, [True]]), more)
        padded.append(auc(fpr, tpr))
    assert macro_aucs(video_aucs(pd.concat(tables)))["pad"] == pytest.approx(np.mean(padded))


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
    assert before.pop("macro_rules") == pytest.approx(after.pop("macro_rules"))
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
