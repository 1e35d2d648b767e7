"""Streams against the stages' files and the tables of scores: the same, frame by frame, and no frame too early."""

import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from stages import boxes, flow, objects, params, score, segments, streams
from stages.command import VigilError
from stages.io.flow import read_flow
from stages.io.frames import FrameStore, write_store
from stages.io.maps import unpacked
from stages.io.models import Model, load_trained, save_model
from stages.io.objects import read_objects
from stages.io.segments import read_segments
from stages.methods import mama, state
from stages.networks.detectors import Detections
from tests.conftest import set_params

CPU = torch.device("cpu")
SIZE = 64
LENGTHS = {"train/1": 9, "test/colour": 24, "test/grey": 24, "test/one": 1, "test/three": 3, "test/five": 5}
STILL = range(9, 14)  # frames that look like the one before
SIDES = ["x1", "y1", "x2", "y2"]


def images(frames: int, grey: bool, seed: int) -> Iterator[np.ndarray]:
    """A square that crosses a textured scene, stands still for a while, and goes on."""
    rng = np.random.default_rng(seed)
    scene = cv2.GaussianBlur(rng.integers(0, 140, (40, 48, 3), dtype=np.uint8), (5, 5), 2)
    square = cv2.GaussianBlur(rng.integers(100, 256, (12, 12, 3), dtype=np.uint8), (3, 3), 1)
    x = 2
    for t in range(frames):
        x += 0 if t in STILL else 3
        image = scene.copy()
        at = x % 36
        image[10:22, at : at + 12] = square
        yield image[..., 1].copy() if grey else image


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A data set of short and grey videos with all that MAMA and STATE need, made by the stages, and small models."""
    folder = tmp_path_factory.mktemp("streams")
    shutil.copy("params.yaml", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(torch, "use_deterministic_algorithms", lambda on: None)
        set_params(
            folder,
            workers=1,
            device="cpu",
            dataset="demo",
            score__train_frames=1,
            segments__size=SIZE,
            objects__size=8,
            objects__context=2,
            boxes__motion={"difference": "saturate", "blur": 3, "threshold": 25, "area": 20, "extend": 1},
            **{f"flow__{name}__{side}": SIZE for name in ("state", "mama") for side in ("height", "width")},
            mama__generator__size=SIZE,
            **{f"mama__{part}__width": 2 for part in ("generator", "destroyer")},
            state__fit__width=2,
        )
        rows = []
        for i, (video, frames) in enumerate(LENGTHS.items()):
            encoded = [cv2.imencode(".png", image)[1].tobytes() for image in images(frames, video == "test/grey", i)]
            stored = write_store(f"data/frames/{video}.arrow", encoded, fps=25.0, source=video)
            row = {"video": video, "split": video.split("/")[0], "frames": frames, "height": 40, "width": 48}
            rows.append(row | {"hash": stored.hash, "fps": 25.0, "grey": stored.grey})
        pd.DataFrame(rows).to_parquet("data/videos.parquet")
        flow.main("state")
        flow.main("mama")
        boxes.main()
        segments.main()
        objects.main()
        write_models()
        yield folder


def write_models() -> None:
    """Random models, whose features are not all alike."""
    settings = params.load()
    torch.manual_seed(0)
    recipe = settings.recipe("mama")
    network = mama.Network(recipe)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    for part in ("generator", "destroyer"):
        description = {"method": "mama", "recipe": getattr(recipe, part).model_dump(), "origin": "made"}
        save_model(f"models/mama-{part}", Model(network.get_submodule(part).state_dict(), {}), description)
    recipe = settings.recipe("state")
    network = state.Network(recipe.fit.width, recipe.fit.layers, recipe.fit.heads)
    records = read_objects("train/1")
    statistics = {name: torch.ones(len(records), dtype=torch.double) for name in ("train_raw", "train_flow")}
    model = Model(network.state_dict(), statistics | {"cube_shape": torch.tensor(records.dtype["raw"].shape[:2])})
    save_model("models/state", model, {"method": "state", "recipe": recipe.fit.model_dump(), "origin": "made"})


def frames_of(video: str) -> Iterator[np.ndarray]:
    store = FrameStore(f"data/frames/{video}.arrow")
    return (store.read(index, store.grey) for index in range(len(store)))


def streamed(method: str, frames: Iterator[np.ndarray]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """A method's stream, as it is used."""
    settings = params.load()
    models, recipe, _ = load_trained(method, settings.recipe(method), params.trainings(method))
    module = {"mama": mama, "state": state}[method]
    return module.stream(streams.inputs(method, frames, settings, CPU), recipe, models, CPU)


@pytest.mark.parametrize("video", LENGTHS)
def test_what_mama_is_given_is_what_the_stages_store(project, video):
    items = list(streams.inputs("mama", frames_of(video), params.load(), CPU))
    assert len(items) == LENGTHS[video]
    vectors, labels = read_flow("mama", video), read_segments(video)
    assert items[0][1] is None
    assert len(np.unique(labels)) > 3 or len(items) == 1
    for i, ((frame, before, logits), expected) in enumerate(zip(items, frames_of(video), strict=True)):
        assert np.array_equal(frame, expected)
        assert np.array_equal(logits, labels[i])
        if i:
            assert before.dtype == vectors.dtype
            assert np.array_equal(before, vectors[i - 1])


@pytest.mark.parametrize("video", LENGTHS)
def test_what_state_is_given_is_what_the_stages_store(project, video):
    items = list(streams.inputs("state", frames_of(video), params.load(), CPU))
    assert len(items) == LENGTHS[video]
    expected = read_objects(video)
    found = np.concatenate(items)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    assert all(set(item["frame"]) <= {i} for i, item in enumerate(items))
    if LENGTHS[video] > 9:
        assert {len(item) for item in items} >= {0, 2}


@pytest.mark.parametrize("recipe", ["state", "mama"])
def test_flow_is_that_of_the_stage_to_the_last_frame(project, recipe):
    settings = getattr(params.load().recipe("flow"), recipe)
    for video in LENGTHS:
        found = np.stack(list(streams.vectors(frames_of(video), settings, CPU)))
        assert np.array_equal(found, read_flow(recipe, video))


@pytest.fixture(scope="module")
def scores(project):
    tables = {}
    for method in ("mama", "state"):
        score.main(method)
        tables[method] = pd.read_parquet(f"data/scores/{method}.parquet")
    return tables


@pytest.mark.parametrize("video", [video for video in LENGTHS if video.startswith("test")])
@pytest.mark.parametrize("method", ["mama", "state"])
def test_a_streams_columns_are_the_rows_of_the_table(scores, method, video):
    table = scores[method].query("video == @video").set_index("frame").drop(columns=["video", "split"])
    found = list(streamed(method, frames_of(video)))
    assert [number for number, _ in found] == list(range(LENGTHS[video]))
    assert sum(len(columns["flow" if method == "state" else "motion"]) for _, columns in found) == len(table)
    for number, columns in found:
        rows = table[table.index == number]
        assert set(columns) == set(rows.columns) - {"checkpoint"}
        for name, values in columns.items():
            if name == "map":
                assert values.shape == (len(rows), 32, 32)
                assert np.allclose(values, unpacked(rows[name]), rtol=1e-3)  # stored in half precision
            else:
                assert values.shape == (len(rows),)
                assert np.allclose(values, rows[name], rtol=1e-4)
    if method == "mama":
        assert list(table.index) == list(range(4, LENGTHS[video]))
    elif LENGTHS[video] > 9:
        assert table.raw.nunique() > 5
        assert any(len(columns["raw"]) == 0 for _, columns in found)


@pytest.mark.parametrize("method", ["mama", "state"])
def test_a_stream_waits_for_no_more_frames_than_its_lag_and_keeps_few(project, method):
    pulled, alive = [], weakref.WeakSet()

    class Kept(np.ndarray):
        __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]

    def recorded():
        for image in images(60, False, 3):
            frame = image.view(Kept)
            alive.add(frame)
            pulled.append(1)
            yield frame

    settings = params.load()
    lag, context = streams.lag(method, settings), settings.recipe("objects").context
    assert lag == {"mama": 0, "state": context + 1}[method]
    most = 0
    for number, _ in streamed(method, recorded()):
        first = max(number, context) if method == "state" else number
        assert len(pulled) == min(first + lag + 1, 60)
        most = max(most, len(alive))
    assert number == 59
    assert most <= 2 * context + 4


def test_frame_methods_are_given_the_frames_themselves(project):
    frames = frames_of("test/three")
    for method in ("frame_difference", "mnad", "mnad_recon", "lgn_net"):
        assert streams.inputs(method, frames, params.load(), CPU) is frames
        assert streams.lag(method, params.load()) == 0


@pytest.mark.parametrize("method", ["mama", "state"])
def test_a_stream_without_a_frame_has_no_result(project, method):
    assert list(streamed(method, iter([]))) == []


def test_whole_videos_cannot_be_streamed(project):
    for refused in (
        lambda: streams.inputs("s3r", iter([]), params.load(), CPU),
        lambda: streams.lag("s3r", params.load()),
    ):
        with pytest.raises(
            VigilError, match=r"s3r cannot .* past and future\. Methods that can: frame_difference, .*state"
        ):
            refused()


@pytest.fixture
def changed(project):
    """A function that changes params.yaml until the test's end and returns it checked."""
    before = Path("params.yaml").read_text()

    def change(**values):
        set_params(project, **values)
        return params.load()

    yield change
    Path("params.yaml").write_text(before)


def test_imported_boxes_cannot_be_streamed(changed):
    settings = changed(boxes__source="imported")
    with pytest.raises(VigilError, match=r"boxes.source is imported: .*Write boxes.source: motion, .* cascade_rcnn or"):
        streams.inputs("state", frames_of("test/three"), settings, CPU)


def test_sizes_that_do_not_fit_are_named(changed):
    settings = changed(segments__size=72)
    with pytest.raises(
        VigilError, match=r"flow.mama has 64 x 64 pixels, segments.size is 72: set flow.mama.height and"
    ):
        streams.inputs("mama", frames_of("test/three"), settings, CPU)
    changed(flow__mama__height=72, flow__mama__width=72)
    with pytest.raises(
        VigilError, match=r"found 72 x 72 pixels, mama.generator.size is 64: set segments.size and flow"
    ):
        list(streamed("mama", frames_of("test/three")))
    settings = changed(flow__mama__height=70)
    with pytest.raises(VigilError, match=r"flow.mama: dis with reduce: 4 takes heights and widths that are multiples"):
        streams.inputs("mama", frames_of("test/three"), settings, CPU)
    changed(objects__size=12)
    with pytest.raises(
        VigilError, match=r"the stream: found objects of 5 frames of 12 pixels, the model takes 5 .* of 8"
    ):
        list(streamed("state", frames_of("test/five")))


@pytest.mark.parametrize("video", ["test/colour", "test/grey"])
def test_a_detectors_boxes_are_streamed_in_the_stages_order(changed, video, monkeypatch):
    seen = []

    def detect(network, frames):
        assert all(frame.shape == (40, 48, 3) for frame in frames)
        seen.append(len(frames))
        left = [float(frame[15, 0, 0] % 7) for frame in frames]
        made = [np.array([[x, 5, x + 9, 30], [30, 2, 40, 39]], np.float32) for x in left]
        return [Detections(one, np.array([0.9, 0.8], np.float32), ["cat", "dog"]) for one in made]

    monkeypatch.setattr(boxes, "detect", detect)
    monkeypatch.setattr(boxes, "network", lambda source, where: (source, where))
    keep = {"score": 0.5, "area": 9, "cover": 0.6, "batch": 5}
    settings = changed(boxes__source="faster_rcnn", boxes__detector=keep, objects__motion=0.01)
    recipe, path = settings.recipe("boxes"), Path("made.parquet").absolute()
    boxes.find_boxes(video, path, Path("data/frames"), recipe, ("cpu",))
    table = pd.read_parquet(path)
    assert set(table.origin) == {"detector", "motion"}
    assert seen == [5, 5, 5, 5, 4]
    store, vectors = Path(f"data/frames/{video}.arrow"), Path(f"data/flow/state/{video}.npy")
    objects.cut_objects(video, Path("made.npy"), store, vectors, path, 1, settings.recipe("objects"))
    expected = np.load("made.npy")
    assert 24 < len(expected) < len(table)
    found = np.concatenate(list(streams.inputs("state", frames_of(video), settings, CPU)))
    assert seen[5:] == [1] * 24
    assert np.array_equal(found, expected)
