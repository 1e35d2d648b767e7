"""Watching a video gives the table of scores, frame by frame, and pictures of it; nothing that was scored is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from av.error import FFmpegError

from stages import fit, overlay, params, score, sources, watch
from stages.evaluation.alarms import threshold
from stages.evaluation.fusion import fuse_table
from stages.frames import whole_frames
from stages.io.frames import FrameStore, ImageError
from stages.io.maps import unpacked
from stages.io.models import load_trained
from stages.recipes import Fusion
from tests.conftest import set_params

METHODS = ["frame_difference", "lgn_net", "mnad", "mnad_recon"]
SMALL = {"size": 32, "width": 2, "items": 4, "epochs": 2, "batch": 3}


@pytest.fixture
def small(prepared, monkeypatch):
    """The prepared data set, networks small; nothing here has to be deterministic to the last bit."""
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)
    for method in METHODS[1:]:
        set_params(prepared, **{f"{method}__fit__{key}": value for key, value in SMALL.items()})
    set_params(prepared, device="cpu")
    return prepared


@pytest.fixture
def floor(small):
    """The floor, scored: what needs no network is tested with it."""
    score.main("frame_difference")
    return small


def write_video(path: str, video: str = "test/2", repeat: int = 1, codec: str = "ffv1", pix_fmt: str = "bgr0") -> Path:
    """A video file with the frames of a video of the data set, 10 a second, the first at 3 s."""
    store = FrameStore(f"data/frames/{video}.arrow")
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = store.width, store.height, pix_fmt
        for index in range(repeat * len(store)):
            image = store.read(index % len(store), grey=pix_fmt == "gray")
            frame = av.VideoFrame.from_ndarray(image, format="gray" if pix_fmt == "gray" else "bgr24")
            frame.pts = 30 + index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("method", METHODS)
def test_what_is_watched_is_what_is_scored(small, method):
    if params.trainings(method):
        set_params(small, **{f"{method}__score__gamma": 1.0})  # the memory goes on learning
        fit.main(method)
    score.main(method)
    watch.main(str(write_video("a.mkv")), method, overlay=False)
    folder = Path(f"data/watch/{method}/a")
    found, all_scores = pd.read_parquet(folder / "scores.parquet"), pd.read_parquet(f"data/scores/{method}.parquet")
    expected = all_scores.query("video == 'test/2'")
    assert found["frame"].tolist() == [*range(14)]
    assert np.allclose(found["seconds"], np.arange(14) / 10)
    scored = found.iloc[expected["frame"]]
    fusion = next(iter(params.recipe_module(method).ladder(params.load().recipe(method).fuse).values()))
    for component in fusion.weights:
        assert np.allclose(scored[component], expected[component], rtol=1e-4)
    assert found["score"].notna().sum() == len(expected)

    # the threshold and the fused score are those of an evaluation
    bar = threshold(all_scores, fusion, 0.0, {"train/1": 14, "train/2": 14}, 0.99)
    fused = fuse_table(all_scores, fusion, 0.0, {"test/2": 14})["score"].to_numpy()[expected["frame"]]
    assert np.allclose(scored["score"], fused, rtol=1e-3, atol=1e-3)
    assert found["alarm"].tolist() == (found["score"] > bar).tolist()
    record = json.loads((folder / "watch.json").read_text())
    assert record["threshold"] == pytest.approx(bar)
    assert (record["frames"], record["fps"], record["lag"], record["train_frames"]) == (14, 10, 0, 28)
    assert len(record["models"]) == len(params.trainings(method))
    assert sorted(path.name for path in folder.iterdir()) == ["alarms.csv", "curve.png", "scores.parquet", "watch.json"]


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_gives_the_maps_of_the_scores_and_takes_no_frame_too_early(small, method):
    if params.trainings(method):
        fit.main(method)
    score.main(method)
    models, recipe, _ = load_trained(method, params.load().recipe(method), params.trainings(method))
    store = FrameStore("data/frames/test/2.arrow")
    module, pulled = import_module(f"stages.methods.{method}"), []

    def frames(count):
        for index in range(count):
            pulled.append(index)
            yield store[index]

    rows = pd.read_parquet(f"data/scores/{method}.parquet").query("video == 'test/2'")
    expected = dict(zip(rows["frame"], unpacked(rows["map"]), strict=True))
    for number, columns in module.stream(frames(14), recipe, models, torch.device("cpu")):
        assert len(pulled) == number + 1
        assert {len(column) for column in columns.values()} == {int(number in expected)}
        if number in expected:
            assert np.allclose(columns["map"][0], expected[number], atol=1e-3)
    assert len(pulled) == 14
    (first,) = module.stream(frames(1), recipe, models, torch.device("cpu"))  # a video of one frame
    assert first[1]["map"].shape == (int(0 in expected), 32, 32)


def test_alarms_by_hand(floor, monkeypatch, capsys):
    """Scores of one component, threshold by hand; the parts hold four frames each."""
    monkeypatch.setattr(watch, "PART", 4)
    scores = pd.read_parquet("data/scores/frame_difference.parquet")
    train = scores[scores["split"] == "train"]["mean"].to_numpy()
    watch.main(str(write_video("a.mkv")), "frame_difference")
    folder = Path("data/watch/frame_difference/a")
    parts = sorted(path.name for path in (folder / "scores.parquet").iterdir())
    assert parts == [f"{first:010d}.parquet" for first in (0, 4, 8, 12)]
    found, record = pd.read_parquet(folder / "scores.parquet"), json.loads((folder / "watch.json").read_text())
    assert [str(dtype) for dtype in found.dtypes] == ["int32", "float64", "float32", "bool", "float64"]
    z = (scores.query("video == 'test/2'")["mean"].to_numpy() - train.mean()) / train.std()
    # evaluation judges a training video's first frame by its second
    padded = np.concatenate([np.r_[part[0], part] for part in np.split((train - train.mean()) / train.std(), 2)])
    assert record["threshold"] == pytest.approx(np.quantile(padded, 0.99))
    assert np.allclose(found["score"][1:], z, rtol=1e-5)
    assert np.isnan(found["score"][0])
    # the square jumps from frame 6 on, the first time back to its start
    (alarm,) = pd.read_csv(folder / "alarms.csv").to_dict("records")
    assert (alarm["first"], alarm["last"], alarm["start"], alarm["end"]) == (6, 13, 0.6, 1.3)
    assert alarm["highest"] == pytest.approx(z.max(), rel=1e-5)
    assert (record["alarms"], record["alarmed"]) == (1, 8)
    assert found["alarm"].tolist() == [False] * 6 + [True] * 8
    said = capsys.readouterr().out
    assert "0.99 quantile of 28 normal training frames of demo" in said
    assert "frames 6 to 13, 0:00.6 to 0:01.3" in said
    assert "the video's 10" in said
    assert "smooth" not in said
    assert "more than half of all frames are alarmed" in said  # 8 of 14


def test_the_overlay_can_be_read_and_is_warm_where_the_map_is_hot(floor):
    watch.main(str(write_video("a.mkv")), "frame_difference")
    seen = frames_of(Path("data/watch/frame_difference/a/overlay.mp4")).astype(int)
    assert seen.shape == (14, 400 + 76, 480, 3)  # the picture ten times as large, and the strip
    store = FrameStore("data/frames/test/2.arrow")
    plain = np.stack([cv2.resize(store[i], (480, 400)) for i in range(14)])
    changed = np.abs(seen[:, :400] - plain).max(-1) > 60
    assert changed[8, 100:200].mean() > 0.1  # the square's rows
    assert changed[8, 230:].mean() < 0.01
    assert changed[1:4].mean() < 0.02  # normal frames
    warm = changed & (seen[:, :400, :, 2] > seen[:, :400, :, 0] + 60)
    assert warm[8, 100:200].mean() > 0.05
    red = (np.abs(seen[:, 400:] - overlay.ALARM) < 40).all(-1).mean((1, 2))
    assert (red[6:] > 0.02).all()  # the word, and the curve
    assert (red[:6] == 0).all()


def test_grey_videos_and_folders_of_images_give_the_same(floor):
    folder = Path("images")
    folder.mkdir()
    store = FrameStore("data/frames/test/2.arrow")
    for index in range(len(store)):
        cv2.imwrite(str(folder / f"{index}.png"), store.read(index, grey=True))
    watch.main(str(write_video("grey.mkv", pix_fmt="gray")), "frame_difference")
    watch.main("images", "frame_difference", out=Path("out"))
    film, images = (pd.read_parquet(f"{at}/scores.parquet") for at in ("data/watch/frame_difference/grey", "out"))
    assert images["seconds"].isna().all()
    assert images.drop(columns="seconds").equals(film.drop(columns="seconds"))
    assert frames_of(Path("out/overlay.mp4")).shape[0] == 14
    record = json.loads(Path("out/watch.json").read_text())
    assert record["fps"] is None
    assert pd.read_csv("out/alarms.csv").loc[0, ["first", "last", "start"]].tolist() == pytest.approx(
        [6, 13, np.nan], nan_ok=True
    )
    watch.main("images", "frame_difference", out=Path("out"), fps=5.0)  # what was there is replaced
    assert pd.read_parquet("out/scores.parquet")["seconds"].iloc[-1] == pytest.approx(13 / 5)
    assert not [path for path in Path().iterdir() if "partial" in path.name]


def test_a_damaged_image_ends_a_folder(floor, capsys):
    folder = Path("images")
    folder.mkdir()
    for index in range(12):
        cv2.imwrite(str(folder / f"{index}.png"), FrameStore("data/frames/test/2.arrow")[index])
    whole = (folder / "10.png").read_bytes()
    (folder / "10.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit, match=r"images: 10.png: .*the 10 frames before are scored"):
        watch.main("images", "frame_difference")
    cv2.imwrite(str(folder / "9.png"), np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(SystemExit, match=r"images: 9.png: 10x10 pixels, the first has 48x40; the 9 frames before"):
        watch.main("images", "frame_difference")
    assert len(pd.read_parquet("data/watch/frame_difference/images/scores.parquet")) == 9
    for index in range(12):
        cv2.imwrite(str(folder / f"{index}.png"), FrameStore("data/frames/test/2.arrow").read(index, grey=True))
    (folder / "8.png").write_text("text")
    with pytest.raises(SystemExit, match=r"images: 8.png: not an image; the 8 frames before"):
        watch.main("images", "frame_difference")


def test_a_truncated_file_keeps_what_was_scored(floor):
    path = write_video("a.mkv", repeat=5)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SystemExit, match=r"a.mkv: .*the \d+ frames before are scored, see data/watch"):
        watch.main("a.mkv", "frame_difference")
    folder = Path("data/watch/frame_difference/a")
    count = len(pd.read_parquet(folder / "scores.parquet"))
    assert 20 < count < 40
    assert len(frames_of(folder / "overlay.mp4")) == count
    record = json.loads((folder / "watch.json").read_text())
    assert record["frames"] == count
    assert record["broken"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_as_the_end_does(floor, monkeypatch, capsys, number):
    def interrupted(images):
        for index, item in enumerate(images):
            if index == 9:
                signal.raise_signal(number)
            yield item

    before = signal.getsignal(number)
    monkeypatch.setattr(watch, "prefetched", interrupted)
    watch.main(str(write_video("a.mkv")), "frame_difference")
    assert signal.getsignal(number) == before
    folder = Path("data/watch/frame_difference/a")
    assert pd.read_parquet(folder / "scores.parquet")["frame"].tolist() == [*range(10)]  # nothing that was read is lost
    assert len(frames_of(folder / "overlay.mp4")) == 10
    assert (folder / "curve.png").exists()
    assert pd.read_csv(folder / "alarms.csv")[["first", "last"]].to_numpy().tolist() == [[6, 9]]
    assert "stopped: a.mkv (10 frames)" in capsys.readouterr().err


def test_a_killed_process_leaves_what_it_had(floor):
    """Of a pipe that stays open nothing is finished; finished parts and the overlay up to there can be read."""
    video = write_video("a.mkv", repeat=10)
    code = "from stages import watch; watch.PART = 20; watch.main('-', 'frame_difference')"
    environment = os.environ | {"PYTHONPATH": str(Path(watch.__file__).parents[1])}
    with open("said", "w") as said:
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, env=environment, stderr=said)
    assert process.stdin
    process.stdin.write(video.read_bytes())
    process.stdin.flush()
    (folder,) = [Path(f"data/watch/frame_difference/stdin.{process.pid}.partial")]
    deadline = time.monotonic() + 60
    while len([*folder.glob("scores.parquet/[!.]*")]) < 6:
        assert process.poll() is None, Path("said").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert pd.read_parquet(folder / "scores.parquet")["frame"].tolist() == [*range(120)]
    with av.open(str(folder / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 60


def test_after_an_error_of_ours_the_old_results_stay(floor, monkeypatch, capsys):
    video = str(write_video("a.mkv"))
    watch.main(video, "frame_difference")

    def broken(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(watch, "curve", broken)
    with pytest.raises(ZeroDivisionError):
        watch.main(video, "frame_difference", fps=5.0)
    folder = Path("data/watch/frame_difference")
    assert (folder / "a/curve.png").exists()
    (partial,) = folder.glob("*.partial")
    assert f"what was scored before the error is in {partial}" in capsys.readouterr().err
    assert len(pd.read_parquet(partial / "scores.parquet")) == 14


def test_what_waits_for_its_score_is_bounded_by_the_lag():
    """A method that looks three frames ahead: every frame once, in order, with its own image, none kept longer."""
    pulled, alive = [], []

    def images():
        for number in range(200):
            pulled.append(number)
            yield number / 10, np.full((2, 2), number, np.uint8)

    def stream(frames):
        waiting = []
        for number, _ in enumerate(frames):
            waiting.append(number)
            if len(waiting) > 3:
                yield waiting.pop(0), {"mean": np.array([1.0])}
        yield from ((number, {"mean": np.array([1.0])}) for number in waiting)

    ladder = params.recipe_module("frame_difference").ladder(params.load().recipe("frame_difference").fuse)
    normal = watch.Normal(ladder["honest"], {"mean": np.array([0.0, 2.0])}, np.nan, 1, overlay.Scale(0.1, -1.0, 0.5))
    for seen in watch.judged(images(), stream, normal):
        assert seen.image[0, 0] == seen.number
        assert seen.seconds == seen.number / 10
        assert (seen.score, seen.alarm) == (0.0, False)  # mean 1, deviation 1
        alive.append(len(pulled) - seen.number)
    assert len(alive) == 200
    assert max(alive) == 4


def test_objects_give_the_highest_of_a_frame_and_the_lowest_where_there_is_none():
    fusion = params.recipe_module("state").ladder(params.load().recipe("state").fuse)["honest"]
    train = {name: np.array([0.0, 2.0]) for name in fusion.weights}
    normal = watch.Normal(fusion, train, -3.0, 1, overlay.Scale(np.nan, -3.0, 2.0))

    def stream(frames):
        for number, _ in enumerate(frames):
            errors = np.array([1.0, 4.0, 2.0][: number * 3])
            yield number, {"raw": errors, "flow": errors}

    none, three = watch.judged(iter([(0.0, np.zeros((2, 2), np.uint8))] * 2), stream, normal)
    assert (none.score, none.alarm) == (-3.0, False)
    assert three.score == pytest.approx(3 * sum(fusion.weights.values()))
    assert three.scores.tolist() == pytest.approx([0, three.score, three.score / 3])
    assert three.alarm


def test_two_values_stand_for_all_training_frames(floor):
    """Their mean and deviation are those of all, also where all are equal."""
    recipe = params.load().recipe("frame_difference")
    normal = watch.normality("frame_difference", recipe, 0.9)
    train = pd.read_parquet("data/scores/frame_difference.parquet").query("split == 'train'")["mean"]
    assert (normal.train["mean"].mean(), normal.train["mean"].std()) == pytest.approx((train.mean(), train.std(ddof=0)))
    assert np.isnan(normal.lowest)
    table = pd.read_parquet("data/scores/frame_difference.parquet").assign(mean=0.1)
    table.to_parquet("data/scores/frame_difference.parquet")
    same = watch.normality("frame_difference", recipe, 0.9)
    assert same.train["mean"] == pytest.approx(0.1)
    assert np.ptp(same.train["mean"]) == 0


def test_smoothing_is_said_not_to_be_applied(floor, capsys):
    set_params(floor, evaluate__smooth=5.0)
    watch.main(str(write_video("a.mkv")), "frame_difference", overlay=False)
    assert "evaluate.smooth is not applied: it looks ahead" in capsys.readouterr().out


def test_what_cannot_be_watched_is_refused(floor):
    video = str(write_video("a.mkv"))

    def refused(message, *args, **more):
        with pytest.raises(SystemExit, match=message):
            watch.main(*args, **more)

    refused("s3r cannot score frames as they come", video, "s3r")
    refused("no method 'mndad': expected one of .*; did you mean 'mnad'", video, "mndad")
    refused(r"models/mnad/model.json not found: .* run dvc repro stages/dvc.yaml:score-mnad", video, "mnad")
    refused(r"b.mkv cannot be opened as a video: No such file", "b.mkv", "frame_difference")
    refused(r"params.yaml cannot be opened as a video: Invalid data", "params.yaml", "frame_difference")
    refused(r"found -1 frames a second", video, "frame_difference", fps=-1.0)
    refused(r"data has no images in it", "data", "frame_difference")
    refused(
        r"rtsp://127.0.0.1:9/door cannot be opened.*refused", "rtsp://me:secret@127.0.0.1:9/door", "frame_difference"
    )
    assert not Path("data/watch").exists()

    Path("mine").mkdir()
    Path("mine/diary.txt").write_text("dear diary")
    refused("mine holds something else, which would be lost", video, "frame_difference", out=Path("mine"))
    assert Path("mine/diary.txt").exists()
    with av.open("sound.wav", "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    refused("sound.wav has no video in it", "sound.wav", "frame_difference")

    fit.main("mnad")
    refused(r"data/scores/mnad.parquet not found", video, "mnad")
    score.main("mnad")
    set_params(floor, dataset="ped2")
    refused("models/mnad was trained on demo, params.yaml names ped2: write dataset: demo", video, "mnad")
    table = pd.read_parquet("data/scores/frame_difference.parquet")
    table.query("split == 'test'").to_parquet("data/scores/frame_difference.parquet")
    refused("scores without a training frame", video, "frame_difference")
    table.replace({"video": {"train/1": "train/9"}}).to_parquet("data/scores/frame_difference.parquet")
    refused("scores of train/9, which is no video here", video, "frame_difference")
    Path("data/scores/frame_difference.parquet").unlink()
    refused("data/scores/frame_difference.parquet not found", video, "frame_difference")


def test_names_hold_no_password():
    assert sources.without_password("rtsp://me:secret@door:554/a") == "rtsp://door:554/a"
    assert sources.without_password("films/me@home.mp4") == "films/me@home.mp4"


def test_a_live_source_goes_on_after_damage(floor):
    """Joined in the middle, as a stream is: the file's frames without a beginning to refer to are left out."""
    path = write_video("a.ts", repeat=8, codec="mpeg2video", pix_fmt="yuv420p")
    content = path.read_bytes()
    at = len(content) // 2 // 188 * 188
    path.write_bytes(content[:at] + bytes(188 * 4) + content[at + 188 * 8 :])
    with av.open(str(path)) as container, pytest.raises((ImageError, FFmpegError)):
        list(whole_frames(container))
    with av.open(str(path)) as container:
        live = list(sources.live_frames(container))
    assert 90 < len(live) < 112


def test_a_stream_that_falls_silent_keeps_what_was_scored(floor, monkeypatch):
    """A camera that answers with 28 frames, then with nothing; the next time with nothing at all."""
    monkeypatch.setattr(sources, "SILENT", 1.0)
    content = write_video("a.ts", repeat=2, codec="mpeg2video", pix_fmt="yuv420p").read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def answer(words: bytes) -> socket.socket:
            connection, _ = server.accept()
            connection.sendall(words)
            return connection

        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        camera = pool.submit(answer, content)
        with pytest.raises(SystemExit, match=r"tcp://.*: silent for 1 s; the 2\d frames before are scored"):
            watch.main(address, "frame_difference", out=Path("out"))
        camera.result().close()
        camera = pool.submit(answer, b"")
        with pytest.raises(SystemExit, match="cannot be opened as a video: silent for 1 s"):
            watch.main(address, "frame_difference", out=Path("other"))
        camera.result().close()
    table = pd.read_parquet("out/scores.parquet")
    assert len(table) > 20
    assert table["seconds"].iloc[-1] == pytest.approx((len(table) - 1) / 10)
    assert not Path("other").exists()


def test_many_alarms_are_counted_and_twenty_are_said(tmp_path):
    """Every third frame alone, to the last one: 34 of 100."""
    normal = watch.Normal(Fusion({}, "none", "scored"), {}, np.nan, 1, overlay.Scale(np.nan, 0.0, 1.0))
    image = np.zeros((4, 4), np.uint8)
    frames = (
        watch.Seen(i, i / 10, image, {}, np.array([float(i % 3 == 0)]), 2.0 * (i % 3 == 0), i % 3 == 0)
        for i in range(100)
    )
    source = sources.Source("a", 10.0, None, False, iter([]))
    (tmp_path / "scores.parquet").mkdir()
    tally = watch.write_results(tmp_path, source, frames, normal, False)
    assert (tally.frames, tally.alarmed, tally.alarms, len(tally.shown)) == (100, 34, 34, 20)
    table = pd.read_csv(tmp_path / "alarms.csv")
    assert table["first"].tolist() == table["last"].tolist() == [*range(0, 100, 3)]
    assert table["start"].iloc[-1] == 9.9
    said = [*watch.said_at_the_end(tally, 9.0, source)]
    assert said[:2] == ["100 frames, 9.0 a second: cannot keep up with the video's 10", "34 alarms"]
    assert said[-1] == "  and 14 more, see alarms.csv"


def test_no_peak_is_lost_in_a_long_curve(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "POINTS", 20)
    (tmp_path / "scores.parquet").mkdir()
    values = np.random.default_rng(0).normal(size=3000).round(3)
    values[[0, 1]] = np.nan
    values[1234] = 50
    for first in range(0, 3000, 1000):
        frame = np.arange(first, first + 1000)
        rows = {"frame": frame, "seconds": frame / 10, "score": values[frame], "alarm": values[frame] > 40}
        watch.write_part(tmp_path, pd.DataFrame(rows).to_dict("records"))
    (axes,) = watch.curve(tmp_path, 40.0, "title").axes
    drawn = np.asarray(axes.lines[0].get_ydata(), float)
    assert len(drawn) <= 2 * 20
    assert (np.nanmax(drawn), np.nanmin(drawn)) == (50, np.nanmin(values).astype(np.float32))
    (shaded,) = axes.collections
    (path,) = shaded.get_paths()
    left, right = path.vertices[:, 0].min(), path.vertices[:, 0].max()
    assert left <= 123.4 <= right
    assert right - left < 20
    assert shaded.get_hatch()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0:00.0"), (59.96, "1:00.0"), (83.25, "1:23.2"), (7325.0, "2:02:05.0"), (np.nan, "")]
)
def test_clock(seconds, text):
    assert watch.clock(seconds) == text


@pytest.mark.parametrize(("height", "width"), [(41, 49), (2, 3), (1080, 1921), (300, 641)])
def test_overlays_have_even_sides_of_any_frame(height, width):
    scale = overlay.Scale(0.1, -1.0, 2.0)
    image = np.full((height, width, 3), 90, np.uint8)
    cells = np.zeros((1, 32, 32))
    found = overlay.drawn(image, {"map": cells}, np.array([1.0]), [np.nan, 1.0], 250, scale, "frame 3")
    assert found.shape[0] % 2 == found.shape[1] % 2 == 0
    assert overlay.NARROWEST <= found.shape[1] <= overlay.WIDEST
    assert (found[: found.shape[0] - 2 * round(found.shape[1] * 0.08)] == 90).all()  # nothing is hot


def test_heat_is_where_cells_are_hot_and_nowhere_else():
    picture = np.full((320, 320, 3), 90, np.uint8)
    cells = np.full((32, 32), 0.1)
    cells[4:8, 20:24] = 0.4
    changed = (overlay.heated(picture, cells, 0.2) != picture).any(-1)
    assert changed[45:75, 205:235].all()
    rows, columns = np.nonzero(changed)
    assert (rows.min(), columns.min()) >= (30, 190)
    assert (rows.max(), columns.max()) <= (90, 250)
    assert (overlay.heated(picture, cells, 0.5) == picture).all()
    assert (overlay.heated(picture, np.zeros((32, 32)), 0.0) == picture).all()


def test_boxes_above_the_threshold_stand_out():
    picture = np.full((200, 300, 3), 90, np.uint8)
    boxes = np.array([[20.0, 50, 80, 120], [150.0, 50, 220, 120]])
    drawn = overlay.boxed(picture, boxes, np.array([1.0, 9.0]), 5.0)
    alarmed = (drawn == overlay.ALARM).all(-1)
    assert alarmed[85, 145:155].any()
    assert not alarmed[:, :120].any()
    assert (drawn[85, 15:25] != 90).any()
    assert (drawn[60:110, 30:70] == 90).all()


def test_the_strip_says_alarm_above_the_threshold_alone():
    scale = overlay.Scale(np.nan, -1.0, 2.0)
    calm, alarm, none = (overlay.strip(600, [0.0, last], 100, scale, "frame 1") for last in (1.9, 2.1, np.nan))
    said = [(image[:, 408:] == overlay.ALARM).all(-1).any() for image in (calm, alarm, none)]
    assert said == [False, True, False]
