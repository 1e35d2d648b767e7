"""Work video by video: finished videos are kept, by all that their results depend on; bad ones are named together."""

import os
import shutil
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from stages import params, videos
from stages.command import VigilError
from stages.videos import VIDEOS, code_hash, one_class_videos, per_video, prefetched, read_videos

FOLDER = Path("data/made")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def double(video: str, path: Path, log: Path, bad: tuple = ()) -> dict | None:
    """The task of these tests: notes that it ran; `bad` videos fail, "none" has nothing to write."""
    with open(log, "a") as file:
        file.write(f"{video}\n")
    if video in bad:
        raise VigilError(f"{video}: first line\n{video}: second line")
    if video == "none":
        return None
    path.write_text(video * 2)
    return {"length": len(video)}


def make(depends: dict, identity="a", bad=(), workers=1, **options) -> tuple[dict, list[str]]:
    """Run the task over all videos; return the records, and the videos that it ran for."""
    log = Path("log").absolute()
    log.write_text("")
    try:
        done = per_video(
            double, depends, FOLDER, ".txt", (log, bad), identity=identity, workers=workers, desc="double", **options
        )
    finally:
        make.ran = sorted(set(log.read_text().split()))
    return done, make.ran


def test_files_and_records_in_the_order_of_the_videos():
    done, ran = make({"b/2": "x", "a": "y", "none": "z"})
    assert done == {"b/2": {"length": 3}, "a": {"length": 1}, "none": None}
    assert list(done) == ["b/2", "a", "none"]
    assert ran == ["a", "b/2", "none"]
    assert {str(path.relative_to(FOLDER)): path.read_text() for path in FOLDER.rglob("*.txt")} == {
        "b/2.txt": "b/2b/2",
        "a.txt": "aa",
    }


def test_processes_give_what_one_process_gives():
    depends = {str(i): i for i in range(5)}
    alone = make(depends)
    shutil.rmtree("data")
    assert make(depends, workers=2) == alone


def test_only_what_is_new_or_changed_runs():
    depends = {"a": 1, "b": 1}
    first, _ = make(depends)
    shutil.rmtree(FOLDER)  # as DVC does before it runs a stage
    assert make(depends) == (first, [])
    assert (FOLDER / "a.txt").read_text() == "aa"
    assert make(depends | {"c": 1})[1] == ["c"]
    assert make({"a": 1, "b": 2})[1] == ["b"]
    assert not (FOLDER / "c.txt").exists()
    assert make({"a": 1, "b": 2}, identity="b")[1] == ["a", "b"]


def test_changed_code_is_not_answered_with_an_old_result(monkeypatch):
    make({"a": 1})
    monkeypatch.setattr(videos, "code_hash", lambda: "another")
    assert make({"a": 1})[1] == ["a"]


def test_the_code_is_what_is_imported_without_the_recipes(monkeypatch):
    params.recipe_module("mnad")
    before = code_hash()
    modules = {name: module for name, module in sys.modules.items() if not name.startswith("stages.recipes")}
    monkeypatch.setattr(sys, "modules", modules)
    assert code_hash() == before
    del modules["stages.params"]
    assert code_hash() != before


def test_bad_videos_are_named_together_and_the_others_kept():
    depends = {"a": 1, "b": 1, "c": 1}
    with pytest.raises(VigilError, match=r"4 problem\(s\)[\s\S]*a: first line[\s\S]*c: second line"):
        make(depends, bad=("a", "c"))
    assert not FOLDER.exists()
    done, ran = make(depends)
    assert ran == ["a", "c"]
    assert done["b"] == {"length": 1}


def test_a_killed_run_goes_on(monkeypatch):
    def killed(video, path, log, bad):
        if video == "b":
            raise KeyboardInterrupt
        return double(video, path, log, bad)

    log = Path("log").absolute()
    log.write_text("")
    with pytest.raises(KeyboardInterrupt):
        per_video(killed, {"a": 1, "b": 1}, FOLDER, ".txt", (log, ()), identity="a", workers=1, desc="double")
    assert not FOLDER.exists()
    assert make({"a": 1, "b": 1})[1] == ["b"]


def test_a_kept_file_that_is_gone_or_was_written_to_is_made_again():
    make({"a": 1, "b": 1})
    kept = {path.read_text(): path for path in Path("data/scratch/made").glob("*.txt")}
    kept["aa"].unlink()
    assert make({"a": 1, "b": 1})[1] == ["a"]
    kept["bb"].chmod(0o644)
    kept["bb"].write_text("overwritten")
    assert make({"a": 1, "b": 1})[1] == ["b"]
    assert (FOLDER / "b.txt").read_text() == "bb"
    assert not os.access(FOLDER / "b.txt", os.W_OK) or os.geteuid() == 0


def test_what_a_killed_process_left_is_removed():
    make({"a": 1})
    left = Path("data/scratch/made/.key.123.partial.txt")
    left.write_text("half")
    make({"a": 1})
    assert not left.exists()


def test_one_class_videos_are_those_of_a_split():
    table = pd.DataFrame({"video": ["train/1", "weak/1", "test/1"], "split": ["train", "", "test"]})
    Path("data").mkdir()
    table.to_parquet(VIDEOS)
    assert list(one_class_videos().video) == ["train/1", "test/1"]
    table[1:2].to_parquet(VIDEOS)
    with pytest.raises(VigilError, match="no training and no test videos"):
        one_class_videos()


def test_a_full_disk_is_foreseen_for_what_is_missing(monkeypatch):
    make({"a": 1})
    monkeypatch.setattr(videos.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(VigilError, match=r"double: needs about"):
        make({"a": 1, "b": 1}, sizes={"a": 5, "b": 11})
    assert make({"a": 1, "b": 1}, sizes={"a": 50, "b": 9})[1] == ["b"]


def test_arguments_by_video():
    log = Path("log").absolute()
    done = per_video(
        double, {"a": 1, "b": 1}, FOLDER, ".txt", {"a": (log,), "b": (log, ())}, identity=0, workers=1, desc="d"
    )
    assert done["b"] == {"length": 1}


def test_prefetched_keeps_order_reads_ahead_and_passes_errors_on():
    def items():
        for i in range(5):
            taken.append(i)
            if i == 2:
                second.set()
            yield i

    taken, second = [], threading.Event()
    ahead = prefetched(items(), ahead=2)
    assert next(ahead) == 0
    assert second.wait(5)
    assert list(ahead) == [1, 2, 3, 4]

    def broken():
        yield 1
        raise ValueError("bad frame")

    with pytest.raises(ValueError, match="bad frame"):
        list(prefetched(broken()))
    assert list(prefetched([])) == []


def test_a_data_set_that_is_not_prepared_is_named():
    with pytest.raises(VigilError, match=r"dvc repro stages/dvc\.yaml:frames"):
        read_videos()
