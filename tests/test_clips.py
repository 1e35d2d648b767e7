"""Windows of frames: which, in what order, and how they become numbers."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.clips import Clips

CPU = torch.device("cpu")


def video(frames: int, channels: int = 1, first: int = 0) -> np.ndarray:
    """Frame i holds the value first + i everywhere."""
    return np.broadcast_to(
        np.arange(first, first + frames, dtype=np.uint8)[:, None, None, None], (frames, 2, 2, channels)
    )


def test_windows_do_not_cross_videos():
    clips = Clips({"a": video(6), "b": video(4), "c": video(5, first=100)}, 5)
    assert clips.starts.tolist() == [[0, 0], [0, 1], [2, 0]]  # b is too short
    values = clips.read(clips.starts, CPU)
    assert values.shape == (3, 5, 3, 2, 2)
    assert torch.allclose(
        (values[:, :, 0, 0, 0] + 1) * 127.5,
        torch.tensor([[0.0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [100, 101, 102, 103, 104]]),
    )


def test_range_is_minus_one_to_one_and_grey_is_repeated():
    pixels = np.array([0, 255], np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    values = Clips({"a": pixels}, 1).read(np.array([[0, 0], [0, 1]]), CPU)
    assert values.unique().tolist() == [-1, 1]
    assert values.shape == (2, 1, 3, 2, 2)


def test_channels_stay_in_order():
    pixels = np.arange(3, dtype=np.uint8)[None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    values = Clips({"a": pixels}, 1).read(np.array([[0, 0]]), CPU)[0, 0, :, 0, 0]
    assert torch.allclose((values + 1) * 127.5, torch.tensor([0.0, 1, 2]))


@given(st.integers(5, 30), st.integers(1, 7), st.integers(0, 5))
def test_an_epoch_shows_every_clip_at_most_once(frames, size, epoch):
    clips = Clips({"a": video(frames), "b": video(frames + 1)}, 3)
    shown = np.concatenate(list(clips.batches(size, 0, epoch)) or [np.empty((0, 2), int)])
    assert len(np.unique(shown, axis=0)) == len(shown) == len(clips) // size * size


def test_shuffling_depends_on_seed_and_epoch_alone():
    clips = Clips({"a": video(40)}, 5)
    first = np.concatenate(list(clips.batches(4, 1, 2)))
    assert np.array_equal(first, np.concatenate(list(clips.batches(4, 1, 2))))
    assert not np.array_equal(first, np.concatenate(list(clips.batches(4, 1, 3))))
    assert not np.array_equal(first, np.concatenate(list(clips.batches(4, 2, 2))))


def test_in_order_covers_all():
    clips = Clips({"a": video(10)}, 3)
    assert np.array_equal(np.concatenate(list(clips.in_order(3))), clips.starts)


def test_no_videos_at_all():
    assert len(Clips({}, 3)) == len(list(Clips({}, 3).in_order(4))) == 0
