import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.command import VigilError
from stages.datasets import LAYOUTS, card, check_totals, find_videos, layout
from stages.datasets.common import agreed, collect, from_concatenated, from_ranges, natural
from tests.datasets import raw


def flags(text):
    return np.array([character == "1" for character in text])


def test_natural_order_counts():
    ordered = ["test/1", "test/01_0014", "test/01_014", "test/2", "test/10", "test/a9b", "test/a10b", "train/1"]
    names = random.Random(0).sample(ordered, len(ordered))
    assert sorted(names, key=natural) == ordered


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_the_order_of_numbers(numbers):
    names = [f"{number}.jpg" for number in numbers]
    assert sorted(names, key=natural) == [f"{number}.jpg" for number in sorted(numbers)]


@given(st.lists(st.text("ab01_/.", min_size=1, max_size=8)))
def test_natural_order_is_total(names):
    assert sorted(names, key=natural) == sorted(reversed(names), key=natural)


def test_collect_reads_folders_and_files_in_natural_order(tmp_path):
    for name in ("0.png", "1.png", "10.png", "2.png", "._2.png"):
        raw.image(tmp_path / "set" / "7" / name)
    (tmp_path / "set/7/Thumbs.db").write_bytes(b"x")
    (tmp_path / "set/.DS_Store").write_bytes(b"x")
    (tmp_path / "set/empty").mkdir()
    (tmp_path / "set/clip.mp4").write_bytes(b"x")
    (tmp_path / "linked").symlink_to(tmp_path / "set")
    found = {video.name: video for video in collect(tmp_path / "linked", "test")}
    assert set(found) == {"test/7", "test/clip"}
    assert [path.name for path in found["test/7"].source] == ["0.png", "1.png", "2.png", "10.png"]
    assert found["test/clip"].source.name == "clip.mp4"


def test_ranges_count_from_one_and_include_both_ends():
    assert from_ranges([(1, 2), (5, 5)], 6, "here").tolist() == flags("110010").tolist()


@pytest.mark.parametrize("pair", [(0, 2), (3, 2), (4, 7)])
def test_a_range_outside_the_video_is_refused(pair):
    with pytest.raises(VigilError, match=r"here: range .* within 1\.\.6"):
        from_ranges([pair], 6, "here")


@pytest.mark.parametrize("shape", [(6,), (1, 6)])
def test_concatenated_labels_are_cut_in_order(tmp_path, shape):
    np.save(tmp_path / "labels.npy", np.array([0, 1, 1, 0, 0, 1]).reshape(shape))
    truth = from_concatenated(tmp_path / "labels.npy", {"a": 2, "b": 4})
    assert truth["a"].tolist() == [False, True]
    assert truth["b"].tolist() == [True, False, False, True]
    with pytest.raises(VigilError, match="holds 6 labels; expected 7"):
        from_concatenated(tmp_path / "labels.npy", {"a": 2, "b": 5})


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "labels.npy", np.array([[1], [1, 2]], dtype=object), allow_pickle=True)
    with pytest.raises(VigilError, match="cannot be read"):
        from_concatenated(tmp_path / "labels.npy", {"a": 2})


def test_agreeing_truths_are_merged_and_a_difference_is_named(tmp_path):
    one = {"a": flags("011")}
    assert agreed({"x": one, "y": {"a": flags("011"), "b": flags("1")}}, tmp_path).keys() == {"a", "b"}
    with pytest.raises(VigilError, match=r"x and y disagree, first at a, frame 2 .* abnormal and normal"):
        agreed({"x": one, "y": {"a": flags("010")}}, tmp_path)
    with pytest.raises(VigilError, match="x has 3 frames for a, y has 2"):
        agreed({"x": one, "y": {"a": flags("01")}}, tmp_path)


TOTALS = {"ped1": 7200, "ped2": 2010, "avenue": 15324, "shanghaitech": 40791}


@pytest.mark.parametrize(("dataset", "frames"), TOTALS.items())
def test_test_frames_of_the_benchmarks_are_asserted(dataset, frames):
    check_totals(dataset, {"a": frames}, {}, partial=False)
    with pytest.raises(VigilError, match=f"found {frames - 1} test frames, expected {frames}; set `frames.partial"):
        check_totals(dataset, {"a": frames - 1}, {}, partial=False)
    check_totals(dataset, {"a": frames - 1}, {}, partial=True)
    with pytest.raises(VigilError, match=f"found {frames + 1} test frames"):
        check_totals(dataset, {"a": frames + 1}, {}, partial=True)


@pytest.mark.parametrize(
    ("dataset", "label_set", "abnormal"),
    [("ped2", "ped2", 1648), ("avenue", "avenue-official-masks", 3712), ("avenue", "avenue-hasan2016", 3867),
     ("shanghaitech", "shanghaitech", 17326)],
)  # fmt: skip
def test_abnormal_frames_of_the_benchmarks_are_asserted(dataset, label_set, abnormal):
    frames = {"a": TOTALS[dataset]}
    truth = np.arange(TOTALS[dataset]) < abnormal
    check_totals(dataset, frames, {label_set: {"a": truth}}, partial=False)
    truth[abnormal] = True
    with pytest.raises(VigilError, match=f"found {abnormal + 1} abnormal frames of label set {label_set}, expected"):
        check_totals(dataset, frames, {label_set: {"a": truth}}, partial=True)


def test_labels_of_another_length_and_labels_without_abnormal_frames_are_refused():
    with pytest.raises(VigilError, match="has 2 labels for a, which has 3 frames"):
        check_totals("own", {"a": 3}, {"own": {"a": flags("01")}}, partial=False)
    with pytest.raises(VigilError, match="no abnormal frame"):
        check_totals("own", {"a": 3}, {"own": {"a": flags("000")}}, partial=False)


@pytest.mark.parametrize("dataset", [*LAYOUTS, "own"])
def test_a_missing_data_set_is_explained(dataset, tmp_path):
    with pytest.raises(VigilError) as caught:
        find_videos(dataset, partial=False, raw=tmp_path)
    message = str(caught.value)
    assert "does not exist" in message
    assert card(dataset).tree.strip() in message
    assert card(dataset).address in message
    (tmp_path / dataset).mkdir()
    with pytest.raises(VigilError, match=r"not a complete data set\. Missing: "):
        find_videos(dataset, partial=True, raw=tmp_path)


def test_a_misspelt_data_set_is_told_the_nearest(tmp_path):
    (tmp_path / "garage").mkdir()
    with pytest.raises(VigilError, match=r"known are avenue, .* did you mean 'garage'"):
        find_videos("garag", partial=False, raw=tmp_path)


def test_two_videos_of_one_name_are_refused(tmp_path):
    raw.images(tmp_path / "own/train/a", 1)
    raw.images(tmp_path / "own/test/b", 1)
    (tmp_path / "own/test/b.mp4").write_bytes(b"x")
    with pytest.raises(VigilError, match="two videos are called test/b"):
        find_videos("own", partial=False, raw=tmp_path)


def test_every_layout_has_its_functions():
    for dataset in LAYOUTS:
        assert all(callable(getattr(layout(dataset), name)) for name in ("videos", "mask", "labels"))
        assert dataset in layout(dataset).CARDS
