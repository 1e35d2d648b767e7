import cv2
import numpy as np
import pytest

from stages.datasets import plaza


def background(height=120, width=160):
    return plaza.empty_plaza(height, width, np.random.default_rng(0))


@pytest.fixture(scope="module")
def films():
    rngs = [np.random.default_rng((5, index)) for index in range(len(plaza.SCENARIOS))]
    return [plaza.film(background(), 100, s, rng) for s, rng in zip(plaza.SCENARIOS, rngs, strict=True)]


def test_the_third_is_normal_the_fourth_abnormal_throughout_and_the_rest_are_both(films):
    shares = [film.mask.any((1, 2)).mean() for film in films]
    assert shares[2] == 0
    assert shares[3] == 1
    assert all(0.2 < share < 0.95 for index, share in enumerate(shares) if index not in (2, 3))
    assert 0.35 < np.mean(shares[:8]) < 0.55


def test_each_scenario_shows_what_it_names(films):
    kinds = {"patrol": "vehicle"}
    for scenario, film in zip(plaza.SCENARIOS, films, strict=True):
        abnormal = {kind for *_, kind, flag in film.tracks if flag}
        assert abnormal == {kinds.get(kind, kind) for kind, _ in scenario}


def test_masks_lie_in_the_boxes_of_abnormal_tracks(films):
    for film in films:
        inside = np.zeros_like(film.mask)
        for frame, _, x1, y1, x2, y2, _, abnormal in film.tracks:
            if abnormal:
                inside[frame, int(y1) : int(y2), int(x1) : int(x2)] = True
        assert not (film.mask & ~inside).any()


def test_about_as_many_walkers_at_all_times(films):
    for film in films:
        counts = np.bincount([frame for frame, *_, kind, flag in film.tracks if not flag], minlength=100)
        assert counts.min() >= 4
        assert counts.max() <= 12


def test_flow_carries_each_frame_onto_the_next(films):
    ys, xs = np.mgrid[:120, :160].astype(np.float32)
    moved, still = [], []
    for film in films[:4]:
        for frame in range(0, 99, 9):
            now, then = film.frames[frame].astype(np.float32), film.frames[frame + 1]
            flow = film.flow[frame].astype(np.float32)
            warped = cv2.remap(then, xs + flow[..., 0], ys + flow[..., 1], cv2.INTER_LINEAR).astype(np.float32)
            moving = np.hypot(*np.moveaxis(flow, -1, 0)) > 0.5
            moved.append(np.abs(now - warped)[moving])
            still.append(np.abs(now - then)[moving])
    assert np.concatenate(moved).mean() < 0.6 * np.concatenate(still).mean()


def test_flow_of_the_pavement_is_zero_and_of_a_track_its_own(films):
    film = films[1]
    vehicles = [row for row in film.tracks if row[-2] == "vehicle"]
    by_frame = {row[0]: row for row in vehicles}
    checked = 0
    for frame, row in by_frame.items():
        after = by_frame.get(frame + 1)
        if after is None or row[2] <= 0 or row[4] >= 160 or after[2] <= 0 or after[4] >= 160:
            continue
        step = (after[2] + after[4] - row[2] - row[4]) / 2
        assert np.median(film.flow[frame][film.mask[frame]][:, 0]) == pytest.approx(step, abs=1)
        checked += 1
    assert checked > 5
    assert not film.flow[:, :30].any()  # the house


def test_the_same_dice_make_the_same_film():
    one, two, other = (plaza.film(background(), 30, [("cyclist", 0.0)], np.random.default_rng(s)) for s in (1, 1, 2))
    assert (one.frames == two.frames).all()
    assert (one.flow == two.flow).all()
    assert one.tracks == two.tracks
    assert (one.frames != other.frames).any()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (90, 200)])
def test_other_sizes(height, width):
    film = plaza.film(background(height, width), 30, [("patrol", 0.0)], np.random.default_rng(0))
    assert film.frames.shape == (30, height, width, 3)
    assert film.mask.any((1, 2)).all()
    assert np.isfinite(film.flow).all()
