"""The parity report: each planted difference is found, and said in words."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import parity
from stages.command import VigilError
from stages.parity import compare, matched, verdict

LAST_TO_THIRD = [0, 1, 4, 2, 3, 5, 6, 9, 7, 8]


@pytest.fixture
def video():
    """Features of 12 snippets that resemble each other, as those of one camera do; never negative."""
    rng = np.random.default_rng(0)
    scene, crops = rng.normal(size=2048), rng.normal(size=(10, 2048))
    parts = scene + 0.5 * crops + 0.3 * rng.normal(size=(12, 1, 2048)) + 0.1 * rng.normal(size=(12, 10, 2048))
    return np.maximum(parts, 0).astype(np.float32)


def words(published, own, weights=""):
    return " | ".join(verdict(compare(published, own), weights))


def test_the_same_features(video):
    found = compare(video, video)
    assert words(video, video) == "the same features"
    assert np.allclose(found.cosine, 1, atol=1e-6)
    assert np.isclose(found.correlation, 1, atol=1e-6)
    assert (found.shift, found.order, found.published, found.own) == (0, tuple(range(10)), (12, 10), (12, 10))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: f[:, LAST_TO_THIRD], "the published crops have the centre last"),
        (lambda f: f[:, np.argsort(LAST_TO_THIRD)], "the published crops have the centre third"),
        (lambda f: np.roll(f, 5, 1), "the published crops begin with the mirrored ones"),
        (lambda f: f[:, [0, 2, 1, 3, 4, 5, 6, 7, 9, 8]], "yours in the order 0 2 1 3 4 5 6 7 9 8"),
        (lambda f: f[:-1], "yours have one snippet less: the published keep an incomplete one"),
        (lambda f: np.concatenate([f, f[-1:]]), "yours have one snippet more: the published drop an incomplete one"),
        (lambda f: f[:-4], "12 published snippets, 8 of yours: another cut or decoding"),
        (lambda f: f[2:], "a published snippet is yours 2 earlier"),
        (lambda f: np.concatenate([f[:1] * 0.5 + 0.3, f[:-1]]), "a published snippet is yours 1 later"),
        (lambda f: 2.2 * f, "yours are 2.2 times as long: something scales"),
    ],
)
def test_planted_differences_are_named(video, change, expected):
    found = words(video, np.ascontiguousarray(change(video)))
    assert expected in found
    assert found.count(" | ") == 1  # and nothing else


def test_other_numbers_of_crops(video):
    found = compare(video, np.ascontiguousarray(video[:, 4:5]))
    assert np.isnan(found.crops)
    assert "10 published crops, 1 of yours: see `features.crops`" in verdict(found)


def test_a_published_file_with_the_centre_third_asks_for_that_order(video):
    assert "write `features.order: centre_third`" in words(video[:, LAST_TO_THIRD], video)


def test_frames_that_were_prepared_differently(video):
    noise = np.random.default_rng(1).normal(size=video.shape).astype(np.float32)
    found = words(video, 0.4 * np.maximum(video + 1.2 * noise, 0))
    assert "the same network, most likely, but it saw the frames prepared or decoded differently" in found
    assert "compare `features.normalise`" in found


def test_unrelated_features_are_told_from_related_ones_though_their_cosine_is_large(video):
    other = np.maximum(np.random.default_rng(2).normal(0.5, 1, video.shape), 0).astype(np.float32)
    found = compare(video, other)
    assert np.nanmean(found.cosine) > 0.5
    assert abs(found.correlation) < 0.1
    assert verdict(found) == ["unrelated: another network, other weights, or another video"]
    assert "write `features.weights: pretrained`" in verdict(found, "random, seed 0")[0]


def test_a_last_snippet_that_differs_is_no_shift():
    rng = np.random.default_rng(0)
    scene = rng.random((1, 1, 256)).astype(np.float32)
    own = scene + 0.02 * rng.random((12, 1, 256)).astype(np.float32)  # little moves
    published = own.copy()
    published[-1] += 0.3 * rng.random((1, 256)).astype(np.float32)
    assert compare(published, own).shift == 0


def test_ends_of_shifted_videos_have_no_cosine(video):
    found = compare(video, video[2:])
    assert found.shift == -2
    assert np.isnan(found.cosine).tolist() == [True] * 2 + [False] * 10


def test_single_snippets_and_zeros(video):
    assert words(video[:1], video[:1]) == "the same features"
    assert "unrelated" in words(video, np.zeros_like(video))
    assert "unrelated" in words(np.zeros_like(video), video)


@pytest.fixture
def folders(tmp_path, monkeypatch, video):
    """Published files without folders, own ones as the features stage leaves them."""
    monkeypatch.chdir(tmp_path)
    Path("published").mkdir()
    for i in range(3):
        np.save(f"published/0{i}_i3d.npy", video)
        own = Path(f"data/features/test/0{i}_i3d.npy")
        own.parent.mkdir(parents=True, exist_ok=True)
        np.save(own, video if i else video[:, LAST_TO_THIRD] * np.float32(0.5))
    np.save("published/other_i3d.npy", video)
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["parity", *map(str, arguments)])
    parity.main()


def test_report_of_folders(folders, monkeypatch, capsys):
    run(monkeypatch, "published")
    out, err = capsys.readouterr()
    assert "2 of 3 videos:\n  - the same features\n" in out
    assert "1 of 3 videos:\n  - the same features\n  - yours are 0.5 times as long" in out
    assert "published, data/features (3 videos) -> metrics/parity.png, metrics/parity.csv" in err
    table = pd.read_csv("metrics/parity.csv")
    assert set(table.video) == {"test/00", "test/01", "test/02"}
    assert table.set_index("video").ratio["test/00"] == 0.5
    assert table.set_index("video").order["test/00"] == "other"
    assert Path("metrics/parity.png").read_bytes().startswith(b"\x89PNG")


def test_report_of_single_files_reads_the_manifest(folders, monkeypatch, capsys, video):
    rng = np.random.default_rng(3)
    np.save("published/00_i3d.npy", np.abs(rng.normal(size=video.shape)))
    Path("data/features.json").write_text(json.dumps({"weights": "random, seed 0"}))
    run(monkeypatch, "published/00_i3d.npy")
    assert "yours come from random weights" in capsys.readouterr().out
    run(monkeypatch, "published/01_i3d.npy", "data/features/test/02_i3d.npy")
    assert "the same features" in capsys.readouterr().out


def test_more_videos_than_fit(folders, monkeypatch, capsys, video):
    for i in range(30):
        np.save(f"published/v{i}_i3d.npy", video[:4])
        np.save(f"data/features/v{i}_i3d.npy", video[:4])
    run(monkeypatch, "published")
    out = capsys.readouterr().out
    assert "and 9 more videos, which agree better, in metrics/parity.csv" in out
    assert len(pd.read_csv("metrics/parity.csv")) == 33


def test_what_cannot_be_matched(folders):
    with pytest.raises(VigilError, match="nowhere not found"):
        matched(Path("nowhere"), Path("data/features"))
    Path("empty").mkdir()
    with pytest.raises(VigilError, match=r"published has 00, 01, 02 and 1 more, empty has no \.npy file"):
        matched(Path("published"), Path("empty"))
    with pytest.raises(VigilError, match=r"has other_i3d.npy, data/features has test/00, test/01"):
        matched(Path("published/other_i3d.npy"), Path("data/features"))
    one = Path("data/features/test/01_i3d.npy")
    assert matched(Path("published"), one) == {"01": (Path("published/01_i3d.npy"), one)}
    assert matched(one, Path("published")) == {"01": (one, Path("published/01_i3d.npy"))}
