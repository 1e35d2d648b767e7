"""What a run prepares: which training videos are scored, where interrupted work is kept."""

import os

import pandas as pd
import pytest
import torch

from stages import params
from stages.command import VigilError
from stages.run import evenly_chosen, running
from stages.videos import read_videos


def table(*frames: int) -> pd.DataFrame:
    return pd.DataFrame({"video": [f"train/{i}" for i in range(len(frames))], "frames": frames})


def test_whole_videos_evenly_chosen_until_there_are_enough_frames():
    videos = table(*[100] * 10)
    assert list(evenly_chosen(videos, 250).video) == ["train/0", "train/4", "train/9"]
    assert len(evenly_chosen(videos, 1000)) == len(evenly_chosen(videos, 10**9)) == 10
    assert len(evenly_chosen(videos, 1)) == 1


def test_scratch_is_named_by_what_the_result_depends_on_and_kept_only_when_interrupted(prepared):
    settings = params.load()
    with running(settings, "fit", "mnad", {"epochs": 1}) as run:
        first = run.scratch
        assert first.is_dir()
    assert not first.exists()
    with pytest.raises(KeyboardInterrupt), running(settings, "fit", "mnad", {"epochs": 1}):
        raise KeyboardInterrupt
    assert first.is_dir()
    with running(settings, "fit", "mnad", {"epochs": 2}) as run:
        assert run.scratch != first


def test_a_data_set_that_is_not_prepared_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VigilError, match=r"dvc repro stages/dvc\.yaml:frames"):
        read_videos()


def test_killed_scoring_goes_on_with_the_next_video_its_state_and_its_time(prepared):
    settings = params.load()
    scored = []

    def score(pixels, split, state):
        if len(scored) == 2:
            scored.append("killed")
            raise KeyboardInterrupt
        scored.append(split)
        return pd.DataFrame({"frame": range(len(pixels)), "value": state.item()}), state + 1

    with pytest.raises(KeyboardInterrupt), running(settings, "score", "mnad") as run:
        run.score_videos(lambda videos: run.pixels(videos, 32), score, torch.zeros(1))
    with running(settings, "score", "mnad") as run:
        rows, speed = run.score_videos(lambda videos: run.pixels(videos, 32), score, torch.zeros(1))
    assert scored == ["train", "train", "killed", "test", "test"]
    assert rows.groupby("video", sort=False).value.first().to_dict() == {
        "train/1": 0,
        "train/2": 1,
        "test/1": 2,
        "test/2": 3,
    }
    assert 0 < speed < float("inf")


def test_test_videos_alone_and_what_they_are_scored_by(prepared):
    def load(videos):
        loaded.append(list(videos.video))
        return {video: len(video) for video in videos.video}

    loaded = []
    with running(params.load(), "score", "mnad") as run:
        rows, _ = run.score_videos(
            load, lambda given, split, state: (pd.DataFrame({"frame": [0], "value": [given]}), state), splits=("test",)
        )
    assert loaded == [["test/1", "test/2"]]
    assert rows.video.tolist() == ["test/1", "test/2"]
    assert rows.value.tolist() == [6, 6]


def test_a_split_without_videos_is_named(prepared):
    with running(params.load(), "fit", "mnad") as run:
        assert list(run.split("train").video) == ["train/1", "train/2"]
        with pytest.raises(VigilError, match="no weak videos"):
            run.split("weak")


def test_scratch_knows_which_video_is_in_which_split(prepared):
    settings = params.load()
    with running(settings, "fit", "mnad") as run:
        before = run.scratch
    videos = read_videos()
    videos["split"] = videos.split.map({"train": "test", "test": "train"})
    videos.to_parquet("data/videos.parquet")
    with running(settings, "fit", "mnad") as run:
        assert run.scratch != before


def test_scratch_knows_the_files_that_a_run_reads(prepared):
    paths = [prepared / "one.npy", prepared / "two.npy"]
    paths[0].write_bytes(b"1")
    with running(params.load(), "score", "mnad") as run:
        found = [run.keyed_by(paths).scratch, run.keyed_by(iter(paths)).scratch]  # the second file is not there yet
        paths[1].write_bytes(b"2")
        found.append(run.keyed_by(paths).scratch)
        os.utime(paths[1], ns=(1, 1))
        found.append(run.keyed_by(paths).scratch)
        assert all(scratch.is_dir() and scratch.parent == run.scratch for scratch in found)
        assert run.keyed_by(paths).seed == run.seed
    assert found[0] == found[1]
    assert len(set(found)) == 3
