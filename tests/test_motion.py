"""Motion boxes and the cover filter: by hand, against the authors' numbers, against VEC's arrays on Ped2."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.io.checkpoints import load_arrays
from stages.motion import areas, blurred, motion_boxes, motion_map, uncovered
from tests.golden import SHARED, assert_golden, golden, needs_golden, needs_ped2

NONE = np.empty((0, 4), np.float32)
RULES = {  # minimal area, threshold, extension, Gaussian kernel, cover
    "UCSDped2": (100, 18, 2, 3, 0.6),
    "avenue": (1600, 18, 2, 5, 0.6),
    "ShanghaiTech": (64, 15, 2, 5, 0.65),
}
RECTANGLES = [  # of the golden numbers' made frames: frame, rows, columns, grey level
    (0, 10, 60, 10, 70, 200),
    (1, 10, 30, 94, 120, 150),
    (2, 86, 155, 10, 90, 255),
    (0, 100, 160, 120, 200, 130),
    (2, 100, 160, 120, 200, 130),
    (2, 20, 23, 150, 250, 90),
    (1, 70, 76, 240, 246, 60),
    (0, 170, 180, 60, 71, 25),
    (1, 176, 200, 200, 260, 100),
]


def boxes_of(frames, area, threshold, extend, kernel, known=NONE, difference="wrap"):
    moves = motion_map(*[blurred(frame, kernel) for frame in frames], threshold, difference)
    return motion_boxes(moves, known, area, extend)


def in_order(boxes: np.ndarray) -> np.ndarray:
    return boxes[np.lexsort(boxes.T[::-1])]


def ped2_frames(clip: str, count: int | None = None) -> list[np.ndarray]:
    files = sorted((SHARED / "data/ped2/training/frames" / clip).glob("*.jpg"))[:count]
    return [cv2.imread(str(file)) for file in files]


def drawn(*rectangles, shape=(30, 40)) -> np.ndarray:
    moves = np.zeros(shape, np.uint8)
    for x1, y1, x2, y2 in rectangles:
        moves[y1:y2, x1:x2] = 255
    return moves


@needs_golden
@needs_ped2
@pytest.mark.parametrize("dataset", RULES)
def test_boxes_of_a_real_clip_are_the_authors(dataset):
    file, frames = golden("state-foreground"), ped2_frames("01", 3)
    assert_golden(file, {"frame0_pixels": frames[0]})
    *rules, _ = RULES[dataset]
    found = boxes_of(frames, *rules)
    outside = boxes_of(frames, *rules, known=file.values["ob_boxes"].reshape(-1, 4))
    assert_golden(file, {f"fg_{dataset}_sorted": in_order(found), f"fg_{dataset}_with_ob_sorted": in_order(outside)})


@needs_golden
@pytest.mark.parametrize("dataset", RULES)
def test_boxes_of_made_frames_are_the_authors(dataset):
    frames = np.zeros((3, 200, 260, 3), np.uint8)
    for frame, y1, y2, x1, x2, level in RECTANGLES:
        frames[frame, y1:y2, x1:x2] = level
    *rules, _ = RULES[dataset]
    assert_golden(golden("state-foreground"), {f"fg_synthetic_{dataset}_sorted": in_order(boxes_of(frames, *rules))})


@needs_golden
@pytest.mark.parametrize("dataset", RULES)
def test_cover_filter_is_the_authors(dataset):
    file = golden("state-foreground")
    boxes = file.values["cover_boxes"].reshape(-1, 4)
    assert_golden(file, {f"cover_kept_{dataset}": boxes[uncovered(boxes, RULES[dataset][-1])]})


@needs_ped2
def test_motion_boxes_outside_vecs_detections_are_vecs():
    """VEC's own frames are TIFF files, these are JPEG copies, hence not all of them."""
    frames = [blurred(frame, 3) for frame in ped2_frames("06")]
    published = load_arrays(SHARED / "data/ped2/boxes/bboxes_train.npy")[120 + 150 + 150 + 180 + 180 :]
    ends = [frames[0], *frames, frames[-1]]
    same = total = 0
    for index, theirs in zip(range(len(frames)), published, strict=False):
        whole = (theirs == theirs.round()).all(1)  # a detector's box never has four whole numbers
        found = motion_boxes(motion_map(*ends[index : index + 3], 18, "wrap"), theirs[~whole], 100, 2)
        same += {*map(tuple, theirs[whole])} == {*map(tuple, found.astype(float))}
        total += whole.sum()
    assert total > 20
    assert same > 0.9 * len(frames)


@pytest.mark.parametrize(
    ("levels", "wrap", "saturate"),
    [
        ((0, 130, 0), 0, 255),  # 130 + 130 = 260, modulo 256: 4
        ((0, 10, 0), 255, 255),
        ((0, 9, 0), 0, 0),  # 18 is not above 18
        ((0, 19, 19), 255, 255),
        ((200, 100, 200), 255, 255),  # the differences are absolute
        ((7, 7, 7), 0, 0),
    ],
)
def test_motion_map_by_hand(levels, wrap, saturate):
    frames = [np.full((2, 3), level, np.uint8) for level in levels]
    assert (motion_map(*frames, 18, "wrap") == wrap).all()
    assert (motion_map(*frames, 18, "saturate") == saturate).all()


@pytest.mark.parametrize("channel", range(3))
def test_one_channel_that_moves_is_motion(channel):
    still = np.zeros((4, 4, 3), np.uint8)
    moved = still.copy()
    moved[1, 2, channel] = 50
    moves = motion_map(still, moved, moved, 18, "wrap")
    assert moves[1, 2] == 255
    assert np.count_nonzero(moves) == 1


GREY = arrays(np.uint8, (3, 8, 9))


@given(GREY, st.integers(0, 255))
def test_a_grey_video_needs_one_channel(frames, threshold):
    colour = np.repeat(frames[..., None], 3, -1)
    for difference in ("wrap", "saturate"):
        one = motion_map(*[blurred(frame, 5) for frame in frames], threshold, difference)
        three = motion_map(*[blurred(frame, 5) for frame in colour], threshold, difference)
        assert (one == three).all()


@given(GREY, st.integers(0, 255))
def test_wrapping_only_loses_motion(frames, threshold):
    wrap, saturate = motion_map(*frames, threshold, "wrap"), motion_map(*frames, threshold, "saturate")
    assert (wrap <= saturate).all()
    assert (motion_map(*frames[::-1], threshold, "wrap") == wrap).all()  # past and future count alike
    total = np.abs(np.diff(frames.astype(int), axis=0)).sum(0)
    assert ((saturate > 0) == (total.clip(max=255) > threshold)).all()


def test_a_box_grows_and_stops_at_the_frame():
    assert motion_boxes(drawn((10, 8, 16, 13)), NONE, 0, 2).tolist() == [[8, 6, 18, 15]]
    assert motion_boxes(drawn((0, 0, 6, 5)), NONE, 0, 2).tolist() == [[0, 0, 8, 7]]
    assert motion_boxes(drawn((33, 24, 40, 30)), NONE, 0, 2).tolist() == [[31, 22, 40, 30]]
    assert motion_boxes(drawn((10, 8, 16, 13)), NONE, 0, 0).tolist() == [[10, 8, 16, 13]]


def test_small_boxes_go():
    moves = drawn((10, 8, 19, 17))  # (9 + 1) * (9 + 1)
    assert len(motion_boxes(moves, NONE, 99, 2)) == 1
    assert len(motion_boxes(moves, NONE, 100, 2)) == 0


def test_slender_boxes_go():
    assert len(motion_boxes(drawn((0, 0, 29, 3)), NONE, 0, 2)) == 1
    assert len(motion_boxes(drawn((0, 0, 30, 3)), NONE, 0, 2)) == 0
    assert len(motion_boxes(drawn((0, 0, 2, 19)), NONE, 0, 2)) == 1
    assert len(motion_boxes(drawn((0, 0, 2, 20)), NONE, 0, 2)) == 0


def test_what_lies_inside_a_region_is_part_of_it():
    ring = drawn((5, 5, 25, 25))
    ring[8:22, 8:22] = 0
    ring[14:16, 14:16] = 255
    assert motion_boxes(ring, NONE, 0, 0).tolist() == [[5, 5, 25, 25]]


def test_regions_that_touch_at_a_corner_are_one():
    assert motion_boxes(drawn((5, 5, 8, 8), (8, 8, 12, 12)), NONE, 0, 0).tolist() == [[5, 5, 12, 12]]
    assert len(motion_boxes(drawn((5, 5, 8, 8), (9, 9, 12, 12)), NONE, 0, 0)) == 2


def test_what_moves_in_a_known_box_does_not_count():
    moves = drawn((10, 8, 20, 18))
    before = moves.copy()
    # rows and columns 10 - 2 to 13 + 2 are taken, both ends included; fractions are cut off
    known = np.array([[10.9, 8.2, 13.9, 25.0]], np.float32)
    assert motion_boxes(moves, known, 0, 2).tolist() == [[14, 6, 22, 20]]
    assert motion_boxes(moves, known, 0, 0).tolist() == [[14, 8, 20, 18]]
    assert len(motion_boxes(moves, np.array([[8.0, 8.0, 18.0, 16.0]], np.float32), 0, 2)) == 0
    assert len(motion_boxes(moves, np.array([[-9.0, -9.0, -5.0, -5.0]], np.float32), 0, 2)) == 1
    assert (moves == before).all()


def test_areas_count_the_last_pixel():
    assert areas(np.array([[0, 0, 0, 0], [2, 3, 11, 12]], np.float32)).tolist() == [1, 100]


def test_covered_boxes_by_hand():
    boxes = np.array(
        [
            [0, 0, 99, 99],
            [10, 10, 19, 19],  # inside the first
            [90, 0, 109, 9],  # half of it inside the first
            [200, 0, 209, 9],  # alone
        ],
        np.float32,
    )
    assert uncovered(boxes, 0.6).tolist() == [3, 2, 0]
    assert uncovered(boxes, 0.5).tolist() == [3, 2, 0]  # half is not more than half
    assert uncovered(boxes, 0.49).tolist() == [3, 0]
    assert uncovered(boxes, 1.0).tolist() == [1, 3, 2, 0]
    assert uncovered(NONE, 0.6).tolist() == []


def test_one_of_two_equal_boxes_stays():
    assert uncovered(np.array([[0, 0, 9, 9], [0, 0, 9, 9]], np.float32), 0.6).tolist() == [1]


def test_a_covered_box_still_covers():
    nested = np.array([[0, 0, 9, 9], [0, 0, 11, 9], [0, 0, 30, 9]], np.float32)
    assert uncovered(nested, 0.6).tolist() == [2]


CORNERS = st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 20)] * 2)


@given(st.lists(CORNERS, max_size=12), st.sampled_from([0.0, 0.3, 0.5, 0.65, 1.0]))
def test_cover_filter_is_its_definition(corners, cover):
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in corners], np.float32).reshape(-1, 4)
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: areas(boxes)[i]):
        larger = [j for j in range(len(boxes)) if (areas(boxes)[j], j) > (areas(boxes)[i], i)]
        pixels = np.zeros((60, 60), bool)
        x1, y1, x2, y2 = boxes[i].astype(int)
        pixels[y1 : y2 + 1, x1 : x2 + 1] = True
        shares = []
        for x1, y1, x2, y2 in boxes[larger].astype(int):
            shares.append(pixels[y1 : y2 + 1, x1 : x2 + 1].sum() / pixels.sum())
        if max(shares, default=0) <= cover:
            kept.append(i)
    assert uncovered(boxes, cover).tolist() == kept
