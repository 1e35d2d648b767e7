"""RBDC and TBDC, worked out by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluation.regions import (
    SIDES,
    area,
    hot,
    ious,
    rbdc_tbdc,
    tracked,
    tracks,
    true_regions,
    truth_table,
)  # fmt: skip
from stages.evaluation.regions import detections as detected
from stages.io.maps import SIDE, packed
from stages.recipes import Fusion

BOX = [10, 10, 20, 20]
AWAY = [50, 50, 60, 60]


def truth(*rows) -> pd.DataFrame:
    """Rows of video, frame, box, track."""
    flat = [(video, frame, *box, track) for video, frame, box, track in rows]
    return pd.DataFrame(flat, columns=["video", "frame", *SIDES, "track"])


def detections(*rows) -> pd.DataFrame:
    """Rows of video, frame, box, score."""
    flat = [(video, frame, *box, float(score)) for video, frame, box, score in rows]
    columns = ["video", "frame", *SIDES, "score"]
    return pd.DataFrame(flat, columns=columns).astype({column: float for column in [*SIDES, "score"]})


ONE = truth(*[("a", frame, BOX, 0) for frame in range(10)])
"""A track of 10 frames that stands still."""


def shifted(by: int) -> list[int]:
    return [10 + by, 10, 20 + by, 20]


def test_a_perfect_detector():
    assert rbdc_tbdc(ONE, detections(*[("a", frame, BOX, 1) for frame in range(10)]), 20) == (1, 1)


def test_missed():
    assert rbdc_tbdc(ONE, detections(), 20) == (0, 0)
    # the right place in another video, or another frame
    other = detections(("b", 0, BOX, 1), ("a", 10, BOX, 1))
    assert rbdc_tbdc(ONE, other, 20) == (0, 0)


@pytest.mark.parametrize(
    ("by", "found"),
    # a shift of d leaves (10 - d) / (10 + d): 2/18 is more than a tenth, 1/19 less
    [(0, True), (8, True), (9, False), (10, False)],
)
def test_shifted(by, found):
    shown = detections(*[("a", frame, shifted(by), 1) for frame in range(10)])
    # a box that does not count is a false positive: with 10 in 20 frames the rate is 0 throughout
    assert rbdc_tbdc(ONE, shown, 20) == ((1, 1) if found else (0, 0))


def test_exactly_beta_is_enough():
    assert ious(np.array([[0.0, 0, 10, 10]]), np.array([[0.0, 0, 10, 1]])) == 0.1
    shown = detections(("a", 0, [10, 10, 20, 11], 1))
    assert rbdc_tbdc(ONE, shown, 20)[0] == pytest.approx(1 / 10)


def test_one_region_of_ten_is_a_tenth_of_the_regions_and_the_whole_track():
    assert rbdc_tbdc(ONE, detections(("a", 4, BOX, 1)), 20) == (pytest.approx(0.1), 1)
    # of 11 regions a tenth are 1.1: one is not enough, two are
    longer = pd.concat([ONE, truth(("a", 10, BOX, 0))], ignore_index=True)
    assert rbdc_tbdc(longer, detections(("a", 4, BOX, 1)), 20) == (pytest.approx(1 / 11), 0)
    assert rbdc_tbdc(longer, detections(("a", 4, BOX, 1), ("a", 9, BOX, 1)), 20) == (pytest.approx(2 / 11), 1)


@pytest.mark.parametrize("length", [10, 20, 30, 60, 70, 100])
def test_a_tenth_of_a_track_is_not_rounded_up(length):
    level = np.full(length, -np.inf)
    level[: length // 10] = 5.0
    assert tracked(level) == 5
    level[0] = -np.inf
    assert tracked(level) == -np.inf


def test_false_positives_by_hand():
    # 2 frames, a region in each. In order of score: found (0, 1/2); false positive (1/2, 1/2); found (1/2, 1); two
    # false positives at once (3/2, 1)
    regions = truth(("a", 0, BOX, 0), ("a", 1, BOX, 0))
    shown = detections(("a", 0, BOX, 5), ("a", 0, AWAY, 4), ("a", 1, BOX, 3), ("a", 1, AWAY, 2), ("a", 0, AWAY, 2))
    rbdc, tbdc = rbdc_tbdc(regions, shown, 2)
    assert rbdc == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 1)
    assert tbdc == 1


def test_straight_lines_join_the_points_and_are_cut_at_one_false_positive_a_frame():
    # one frame; what is found and two false positives have one score: from (0, 0) to (2, 1), so up to (1, 1/2)
    regions = truth(("a", 0, BOX, 0))
    shown = detections(("a", 0, BOX, 1), ("a", 0, AWAY, 1), ("a", 0, AWAY, 1))
    assert rbdc_tbdc(regions, shown, 1) == (1 / 4, 1 / 4)
    # with one false positive: from (0, 0) to (1, 1)
    assert rbdc_tbdc(regions, shown[:2], 1) == (1 / 2, 1 / 2)


def test_what_is_found_beyond_one_false_positive_a_frame_is_worth_nothing():
    regions = truth(("a", 0, BOX, 0))
    many = [("a", 0, AWAY, score) for score in (3, 4)]
    assert rbdc_tbdc(regions, detections(*many, ("a", 0, BOX, 1)), 1) == (0, 0)
    assert rbdc_tbdc(regions, detections(*many[:1], ("a", 0, BOX, 1)), 2) == (1 / 2, 1 / 2)


def test_many_boxes_on_one_region_are_no_false_positives():
    shown = detections(*[("a", frame, shifted(by), 1) for frame in range(10) for by in (-3, 0, 3)])
    assert rbdc_tbdc(ONE, shown, 10) == (1, 1)


def test_one_box_may_find_two_regions():
    regions = truth(("a", 0, [0, 0, 10, 10], 0), ("a", 0, [10, 0, 20, 10], 1))
    assert rbdc_tbdc(regions, detections(("a", 0, [0, 0, 20, 10], 1)), 1) == (1, 1)


def test_a_detector_that_is_split_over_two_boxes():
    halves = [[10, 10, 15, 20], [15, 10, 20, 20]]
    shown = detections(*[("a", frame, half, 1) for frame in range(10) for half in halves])
    assert rbdc_tbdc(ONE, shown, 10) == (1, 1)


def test_tracks_of_one_number_in_two_videos_are_two():
    regions = truth(("a", 0, BOX, 0), ("b", 0, BOX, 0))
    assert rbdc_tbdc(regions, detections(("b", 0, BOX, 1)), 2) == (1 / 2, 1 / 2)


def test_the_order_of_rows_is_of_no_matter():
    regions = truth(*[(video, frame, BOX, track) for video in "ba" for frame, track in ((3, 1), (0, 0), (1, 0))])
    shown = detections(("a", 0, BOX, 3), ("b", 1, AWAY, 2), ("b", 3, BOX, 1), ("a", 3, AWAY, 5))
    expected = rbdc_tbdc(regions, shown, 6)
    order = np.random.default_rng(0).permutation(len(regions))
    assert rbdc_tbdc(regions.iloc[order], shown.iloc[::-1], 6) == expected


def swept(regions: pd.DataFrame, shown: pd.DataFrame, frames: int) -> list[float]:
    """RBDC and TBDC as the definition reads: a threshold after the other, a pair of boxes after the other."""

    def overlaps(left, right) -> bool:
        pair = [np.array([[getattr(box, side) for side in SIDES]], float) for box in (left, right)]
        return (left.video, left.frame) == (right.video, right.frame) and ious(*pair)[0, 0] >= 0.1

    points = [(0.0, 0.0, 0.0)]
    for bar in sorted(set(shown.score), reverse=True):
        kept = [box for box in shown.itertuples() if box.score >= bar]
        found = [any(overlaps(region, box) for box in kept) for region in regions.itertuples()]
        false = sum(not any(overlaps(region, box) for region in regions.itertuples()) for box in kept)
        by_track = regions.assign(found=found).groupby(["video", "track"]).found.mean() >= 0.1
        points.append((false / frames, float(np.mean(found)), float(by_track.mean())))
    points.append((np.inf, *points[-1][1:]))
    areas = [0.0, 0.0]
    for (start, *low), (stop, *high) in itertools.pairwise(points):
        width = min(stop, 1.0) - start
        for kind in range(2):
            if width > 0:
                end = low[kind] + (high[kind] - low[kind]) * (width / (stop - start))
                areas[kind] += width * (low[kind] + end) / 2
    return areas


place = st.tuples(st.sampled_from("ab"), st.integers(0, 2))
box = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], *[st.integers(0, 6)] * 2, *[st.integers(1, 6)] * 2)


@given(
    st.lists(st.tuples(place, box, st.integers(0, 2)), min_size=1, max_size=6),
    st.lists(st.tuples(place, box, st.integers(0, 4)), max_size=8),
    st.integers(1, 6),
)
def test_both_are_what_sweeping_the_threshold_gives(regions, shown, frames):
    regions = truth(*[(*at, sides, track) for at, sides, track in regions])
    shown = detections(*[(*at, sides, score) for at, sides, score in shown])
    assert list(rbdc_tbdc(regions, shown, frames)) == pytest.approx(swept(regions, shown, frames))


values = st.lists(st.integers(-5, 5).map(float), max_size=12)


@given(values.filter(bool), values, st.integers(1, 8), st.integers(-5, 5))
def test_false_positives_never_help_and_what_is_found_never_harms(level, false, frames, score):
    level, false = np.array([*level, -np.inf]), np.array(false)
    before = area(level, false, frames)
    assert 0 <= before <= 1 - 1 / len(level) + 1e-12
    assert area(level, np.append(false, score), frames) <= before + 1e-12
    more = level.copy()
    more[-1] = score
    assert area(more, false, frames) >= before - 1e-12
    assert area(2 * level - 3, 2 * false - 3, frames) == pytest.approx(before)


def boxes(*rows) -> np.ndarray:
    return np.array(rows, float).reshape(-1, 4)


def test_true_regions_by_hand():
    mask = np.zeros((20, 30), bool)
    mask[1:3, 2:5] = True
    mask[9, 11] = True  # 6 rows and 6 columns of pixels away: one region with the first
    mask[12, 19] = True  # 7 columns from that: another one, alone
    mask[19, 29] = True  # in the corner
    assert sorted(true_regions(mask).tolist()) == [[2, 1, 12, 10], [19, 12, 20, 13], [29, 19, 30, 20]]
    assert true_regions(np.zeros((4, 4), bool)).shape == (0, 4)
    assert true_regions(np.ones((4, 6), bool)).tolist() == [[0, 0, 6, 4]]


def test_the_table_of_the_truth_by_hand():
    mask = np.zeros((3, 18, 20), bool)
    mask[0, 1:3, 2:5] = mask[1, 1:3, 3:6] = mask[1, 16:, 18:] = True
    found = truth_table({"b": mask, "a": mask[:1], "none": np.zeros((2, 18, 20), bool)})
    expected = truth(
        ("b", 0, [2, 1, 5, 3], 0), ("b", 1, [3, 1, 6, 3], 0), ("b", 1, [18, 16, 20, 18], 1), ("a", 0, [2, 1, 5, 3], 0)
    )  # fmt: skip
    pd.testing.assert_frame_equal(found[expected.columns], expected.astype(dict.fromkeys(SIDES, float)))
    assert truth_table({"none": mask[2:]}).empty


def test_a_track_goes_on_while_it_overlaps_and_ends_with_a_gap():
    moving = [boxes(shifted(by)) for by in (0, 4, 8)]
    found = tracks([*moving, boxes(), boxes(shifted(8)), boxes(shifted(30))])
    assert [own.tolist() for own in found] == [[0], [0], [0], [], [1], [2]]


def test_merged_and_split():
    left, right, both = [0, 0, 10, 10], [12, 0, 30, 10], [0, 0, 30, 10]
    found = tracks([boxes(left, right), boxes(both), boxes(right, left)])
    # the right one is most of both: it goes on, the left track ends, and what splits off is a new one
    assert [own.tolist() for own in found] == [[0, 1], [1], [1, 2]]


def test_links_are_one_to_one_and_best_in_sum():
    # the first new box fits the first old one best, but the second new one fits that alone
    old = boxes([0, 0, 10, 10], [8, 0, 18, 10])
    new = boxes([3, 0, 13, 10], [-6, 0, 4, 10])
    overlap = ious(old, new)
    assert overlap[0, 0] > overlap[1, 0] > 0 == overlap[1, 1]
    assert [own.tolist() for own in tracks([old, new])] == [[0, 1], [1, 0]]


@given(st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=4), max_size=8))
def test_no_track_is_twice_in_a_frame_or_has_a_gap(frames):
    found = tracks([boxes(*[(x, 0, x + side, side) for x, side in frame]) for frame in frames])
    seen: dict[int, list[int]] = {}
    for frame, own in enumerate(found):
        assert len(set(own)) == len(own)
        for track in own:
            seen.setdefault(int(track), []).append(frame)
    assert sorted(seen) == list(range(len(seen)))
    assert all(np.all(np.diff(at) == 1) for at in seen.values())


def test_objects_are_scored_by_the_training_ones():
    box = {"x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0}
    scores = pd.DataFrame(
        [
            {"video": "t", "split": "train", "frame": 0, **box, "raw": 1.0, "flow": 0.0},
            {"video": "t", "split": "train", "frame": 1, **box, "raw": 3.0, "flow": 4.0},
            {"video": "a", "split": "test", "frame": 7, **box, "raw": 5.0, "flow": 2.0},
        ]
    )
    found = detected(scores, Fusion({"raw": 1.0, "flow": 2.0}, "train_zscore", "objects"), pd.DataFrame())
    assert found is not None
    assert found.to_dict("records") == [{"video": "a", "frame": 7, **box, "score": 3.0}]


def table_with_maps(maps: np.ndarray, split: str, video: str) -> pd.DataFrame:
    return pd.DataFrame({"video": video, "split": split, "frame": range(4, 4 + len(maps)), "map": packed(maps)})


def test_hot_cells_become_boxes_in_pixels_of_the_source():
    # of 1,024 cells a frame one reaches 1 in training: just above what the quantile bears
    train = np.zeros((3, SIDE, SIDE))
    train[:, 0, 0] = 0.5
    test = np.zeros((2, SIDE, SIDE))
    test[1, 2:4, 8:12] = 0.75
    test[1, 3, 9] = 1.0
    test[1, 4, 12] = 0.875  # touches by a corner
    test[1, 20, 31] = 0.625
    videos = pd.DataFrame({"height": [320], "width": [64]}, index=["test/1"])
    scores = pd.concat([table_with_maps(train, "train", "train/1"), table_with_maps(test, "test", "test/1")])
    found = detected(scores, Fusion({"psnr_reset": -1.0}, "train_zscore", "all"), videos)
    assert found is not None
    place = {"video": "test/1", "frame": 5}
    assert found.to_dict("records") == [
        {**place, "x1": 16.0, "y1": 20.0, "x2": 26.0, "y2": 50.0, "score": 1.0},
        {**place, "x1": 62.0, "y1": 200.0, "x2": 64.0, "y2": 210.0, "score": 0.625},
    ]


def test_one_cell_a_frame_of_normal_frames_is_hot():
    maps = np.random.default_rng(0).random((50, SIDE, SIDE)).astype(np.float16)
    above = (maps > hot(maps)).sum() / len(maps)
    assert 0.5 < above <= 1


def test_without_maps_or_training_frames_nothing_is_detected():
    fusion = Fusion({"psnr_reset": -1.0}, "train_zscore", "all")
    scores = table_with_maps(np.zeros((1, SIDE, SIDE)), "test", "test/1")
    assert detected(scores, fusion, pd.DataFrame()) is None
    assert detected(scores.drop(columns="map"), fusion, pd.DataFrame()) is None
