"""The objects stage: known squares and windows, golden cubes, what is dropped, files, resuming, and what it refuses."""

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages import objects as stage
from stages import params
from stages.boxes import NOTHING, unscored, write_boxes
from stages.command import VigilError
from stages.io.frames import FrameStore, write_store
from stages.io.objects import object_type, read_objects
from stages.objects import cut, cut_objects, energy, main, prepared, windows
from stages.preview import flow_colours
from stages.recipes.objects import Recipe
from tests.conftest import set_params
from tests.golden import SHARED, assert_golden, golden, needs_golden, needs_ped2

VIDEOS = ["train/1", "train/2", "test/1", "test/2"]
FRAMES = 14
RECIPE = Recipe(size=8, context=3, motion=0.0)
SQUARE, GROUND, FLOW = 200, 60, (2.5, -1.0)


def write_flow(video: str, flow: np.ndarray, height: int = 40, width: int = 48) -> None:
    path = Path(f"data/flow/state/{video}.npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, flow.astype(np.float16))
    about = {"recipe": "state", "network": "dis", "reduce": 1, "height": height, "width": width, "videos": {}}
    path.parents[1].with_suffix(".json").write_text(json.dumps(about))


def write_table(video: str, frames: Sequence[Sequence[Sequence[float]]]) -> None:
    path = Path(f"data/boxes/{video}.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"imported": unscored(np.array(boxes).reshape(-1, 4)), "motion": NOTHING} if boxes else {"imported": NOTHING}
        for boxes in frames
    ]
    write_boxes(video, path, rows)


def square_at(frame: int) -> tuple[int, int, int, int]:
    """A square of 10 x 10 pixels that moves by 2 a frame."""
    x = 2 + 2 * frame
    return x, 10, x + 10, 20


@pytest.fixture
def project(prepared):
    """Exact squares on an even ground, their true flow, and boxes around them; no test/2 boxes in frames 3 to 5."""
    set_params(prepared, workers=1, dataset="demo", objects__size=8, objects__context=3)
    table = pd.read_parquet("data/videos.parquet")
    hashes = []
    for video in VIDEOS:
        images, flow = [], np.zeros((FRAMES, 40, 48, 2))
        for frame in range(FRAMES):
            x1, y1, x2, y2 = square_at(frame)
            image = np.full((40, 48, 3), GROUND, np.uint8)
            image[y1:y2, x1:x2] = SQUARE + frame, 10 * frame, 1
            images.append(cv2.imencode(".png", image)[1].tobytes())
            flow[frame, y1:y2, x1:x2] = FLOW
        hashes.append(write_store(f"data/frames/{video}.arrow", images, fps=25.0, source=video).hash)
        write_flow(video, flow)
        skipped = range(3, 6) if video == "test/2" else ()
        write_table(video, [[] if frame in skipped else [[*square_at(frame)]] for frame in range(FRAMES)])
    table.assign(hash=hashes).to_parquet("data/videos.parquet")
    return prepared


def test_moving_squares(project):
    main()
    found = read_objects("train/1")
    assert isinstance(found, np.memmap)
    assert found.dtype == object_type(3, 8)
    assert found["frame"].tolist() == list(range(FRAMES))
    assert found["box"].tolist() == [[*map(float, square_at(frame))] for frame in range(FRAMES)]
    # frame 6 is the middle of its window; the box is all square there, in colour and flow
    assert (found["raw"][6, 3] == (SQUARE + 6, 60, 1)).all()
    assert (found["flow"][6, 3] == FLOW).all()
    # three frames earlier the square was 6 of 10 pixels to the left: the right part of the box is ground, and still
    assert (found["raw"][6, 0, :, :3] == (SQUARE + 3, 30, 1)).all()
    assert (found["raw"][6, 0, :, 4:] == GROUND).all()
    assert (found["flow"][6, 0, :, 4:] == 0).all()
    # three frames later it is 6 pixels to the right
    assert (found["raw"][6, 6, :, :4] == GROUND).all()
    assert (found["raw"][6, 6, :, 5:] == (SQUARE + 9, 90, 1)).all()
    # at the ends the window stays inside: frame 1 is the second of it, frame 13 the last
    assert (found["raw"][1, 1] == (SQUARE + 1, 10, 1)).all()
    assert (found["raw"][13, 6] == (SQUARE + 13, 130, 1)).all()
    # frame 0 is the first: the right edge of its box is ground once the square has gone 10 pixels
    assert found["raw"][0, :, 0, -1, 0].tolist() == [*range(SQUARE, SQUARE + 5), GROUND, GROUND]
    assert [*read_objects("test/2")["frame"]] == [0, 1, 2, *range(6, FRAMES)]


def test_description_and_picture(project):
    main()
    about = json.loads(Path("data/objects.json").read_text())
    assert (about["size"], about["context"], about["motion"]) == (8, 3, 0.0)
    assert (about["frames"], about["objects"], about["empty"], about["still"]) == (56, 53, 0, 0)
    assert about["bytes_per_object"] == 4 + 16 + 7 * 8 * 8 * (3 + 4)
    assert about["videos"]["test/2"] == {"frames": 14, "objects": 11, "empty": 0, "still": 0}
    assert about["flow"]["network"] == "dis"
    size = Path("data/objects/train/1.npy").stat().st_size
    assert size == 14 * about["bytes_per_object"] + size % about["bytes_per_object"]
    with Image.open("metrics/previews/objects.png") as picture:
        shown = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    # frame 7's blue is 207, its green 70: the picture has red first, and its flow in colours
    assert (abs(shown - (1, 70, SQUARE + 7)).sum(1) < 6).any()
    ((expected,),) = flow_colours(torch.tensor(FLOW).view(2, 1, 1), float(np.hypot(*FLOW)))
    assert (abs(shown - expected).sum(1) < 6).any()


@given(st.integers(1, 40), st.integers(0, 4))
def test_windows(count, context):
    pulled = []
    found = []
    for index, window in enumerate(windows((pulled.append(i) or i for i in range(count)), context)):
        found.append(window)
        assert len(pulled) == min(max(index, context) + context + 1, count)
    assert len(found) == count
    for index, window in enumerate(found):
        assert len(window) == 2 * context + 1
        if count < len(window):
            assert window == [min(t, count - 1) for t in range(len(window))]
        else:
            centre = min(max(index, context), count - 1 - context)
            assert window == list(range(centre - context, centre + context + 1))


@needs_golden
@pytest.mark.parametrize("context", [1, 3])
def test_golden_windows(context):
    file = golden("state-foreground")
    found, start = [], 0
    for frames in file.meta["context_lengths"]:
        found += windows(range(start, start + frames), context)
        start += frames
    assert_golden(file, {f"context_elastic_{context}": np.array(found)})


def read_image(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


@needs_golden
@needs_ped2
def test_golden_cubes():
    file = golden("state-foreground")
    frames = [read_image(SHARED / f"data/ped2/training/frames/01/{i:03d}.jpg") for i in range(7)]
    window = list(zip(frames, file.input("flow").transpose(0, 2, 3, 1).copy(), strict=True))
    boxes = file.values["cube_boxes"].reshape(-1, 4)
    exact = np.dtype([*object_type(3, 32).descr[:3], ("flow", "<f4", (7, 32, 32, 2))])
    found = cut(window, boxes, exact)
    raw, flow = found["raw"].transpose(0, 1, 4, 2, 3), found["flow"].transpose(0, 1, 4, 2, 3)
    outputs = {
        "cube7": raw,
        "cube3": cut(window[:3], boxes, object_type(1, 32))["raw"].transpose(0, 1, 4, 2, 3),
        "cube_flow": flow,
        "train_x": raw.reshape(-1, 21, 32, 32).astype(np.float32) / 255,
        "train_flow": flow.reshape(-1, 14, 32, 32),
    }
    assert_golden(file, outputs)
    stored = cut(window, boxes, object_type(3, 32))
    assert (stored["raw"] == found["raw"]).all()
    assert (stored["flow"] == found["flow"].astype(np.float16)).all()
    assert (stored["box"] == boxes).all()


def flat(height: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A window of one frame whose pixels say where they are: red the row, green the column."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    image = np.stack([np.zeros_like(rows), columns, rows], -1)
    return [(image, image[..., 1:].astype(np.float32))]


@pytest.mark.parametrize(
    ("box", "columns", "rows"),
    [
        ((3, 5, 11, 13), (3, 11), (5, 13)),
        ((2.2, 4.01, 10.9, 12.5), (3, 11), (5, 13)),  # ceil at both sides
        ((-5, -7.5, 8, 8), (0, 8), (0, 8)),
        ((12, 22, 99, 300.5), (12, 20), (22, 30)),
        ((-1e9, -1e9, 1e9, 1e9), (0, 20), (0, 30)),
    ],
)
def test_boxes_are_cut_where_the_frame_ends(box, columns, rows):
    window = flat(30, 20)
    (found,) = cut(window, np.array([box], np.float32), object_type(0, 8))
    part = window[0][0][slice(*rows), slice(*columns)]
    assert (found["raw"][0] == cv2.resize(part, (8, 8))).all()
    assert (found["box"] == np.float32(box)).all()
    if part.shape == (8, 8, 3):
        assert (found["flow"][0] == part[..., 1:]).all()


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 9), (5, 9, 8, 9), (3.1, 3, 3.9, 9), (8, 5, 3, 9), (20, 3, 25, 9), (-9, 3, 0, 9), (3, 30, 9, 44)]
)
def test_boxes_without_a_pixel_are_dropped(box):
    kept = (1.0, 2.0, 9.0, 10.0)
    found = cut(flat(30, 20), np.array([box, kept], np.float32), object_type(0, 8))
    assert found["box"].tolist() == [[*kept]]
    assert len(cut(flat(30, 20), np.empty((0, 4), np.float32), object_type(0, 8))) == 0


def test_flow_is_scaled_to_the_frame_but_not_its_vectors(project):
    frames = FrameStore("data/frames/train/1.arrow")
    stored = np.zeros((FRAMES, 10, 6, 2), np.float16)
    stored[:, :, 3:] = 4, -8  # the right half moves
    for reduce in (1, 4):  # 40x24 with reduce: 4
        flows = [flow for _, flow in prepared((frames[i] for i in range(FRAMES)), stored, reduce)]
        assert len(flows) == FRAMES
        assert flows[0].shape == (40, 48, 2)
        assert (flows[5][:, 30:] == (4, -8)).all()
        assert (flows[5][:, :18] == 0).all()
    # what is stored small is enlarged first, as the flow's readers do
    enlarged = F.interpolate(torch.from_numpy(stored[5:6]).float().permute(0, 3, 1, 2), scale_factor=4, mode="bilinear")
    expected = cv2.resize(enlarged[0].permute(1, 2, 0).numpy(), (48, 40))
    np.testing.assert_allclose(flows[5], expected, atol=1e-5)
    assert np.abs(expected - cv2.resize(stored[5].astype(np.float32), (48, 40))).max() > 0.1


def test_energy_is_the_mean_squared_length():
    flow = np.zeros((3, 7, 4, 4, 2), np.float16)
    flow[1] = 3, 4
    flow[2, 0, 0, 0] = 300, 0  # whose square float16 cannot hold
    assert energy(flow).tolist() == pytest.approx([0, 25, 90_000 / 7 / 16])


@pytest.mark.parametrize(("motion", "kept"), [(0.0, 13), (7.0, 13), (7.5, 0)])
def test_objects_that_do_not_move_are_dropped(project, tmp_path, motion, kept):
    flow = np.zeros((FRAMES, 40, 48, 2))
    flow[:, 10:20] = FLOW  # squared length 7.25
    write_flow("train/1", flow)
    write_table("train/1", [[], *[[[*square_at(frame)], [0, 30, 8, 38]] for frame in range(1, FRAMES)]])
    record = run(tmp_path, RECIPE.model_copy(update={"motion": motion}))
    assert record == {"frames": 14, "objects": kept, "empty": 0, "still": 26 - kept}
    found = np.load(tmp_path / "made.npy", mmap_mode="r")
    assert found["frame"].tolist() == list(range(1, 14))[:kept]


def run(folder: Path, recipe: Recipe = RECIPE, video: str = "train/1") -> dict[str, int]:
    data = Path("data").absolute()
    sources = (data / f"frames/{video}.arrow", data / f"flow/state/{video}.npy", data / f"boxes/{video}.parquet")
    return cut_objects(video, folder / "made.npy", *sources, 1, recipe)


def test_rows_are_in_order_of_frame_then_of_the_table(project, tmp_path):
    boxes = [[k + 1.5, 8, k + 20, 22] for k in (4, 0, 9, 2)]
    write_table("train/1", [boxes] * FRAMES)
    table = pd.read_parquet("data/boxes/train/1.parquet")
    table.sort_values("frame", ascending=False, kind="stable").to_parquet("data/boxes/train/1.parquet")
    run(tmp_path)
    found = np.load(tmp_path / "made.npy")
    assert found["frame"].tolist() == [frame for frame in range(FRAMES) for _ in boxes]
    assert found["box"].tolist() == boxes * FRAMES


def test_each_frame_is_decoded_and_each_flow_scaled_once(project, tmp_path, monkeypatch):
    write_table("train/1", [[[*square_at(frame)]] * 5 for frame in range(FRAMES)])
    read, decoded, scaled = [], [], []
    original_read, original_decode, original_scale = FrameStore.read, cv2.imdecode, stage.full_size
    monkeypatch.setattr(FrameStore, "read", lambda self, i, *a: read.append(i) or original_read(self, i, *a))
    monkeypatch.setattr(cv2, "imdecode", lambda *a: decoded.append(1) or original_decode(*a))
    monkeypatch.setattr(stage, "full_size", lambda *a: scaled.append(1) or original_scale(*a))
    assert run(tmp_path)["objects"] == 5 * FRAMES
    assert read == list(range(FRAMES))
    assert len(decoded) == len(scaled) == FRAMES


@pytest.mark.parametrize("frames", [1, 3, 7])
def test_short_videos(project, tmp_path, frames):
    store = FrameStore("data/frames/train/1.arrow")
    write_store("data/frames/short.arrow", [bytes(store.encoded(i)) for i in range(frames)], fps=25.0, source="short")
    write_flow("short", np.load("data/flow/state/train/1.npy")[:frames])
    write_table("short", [[[0, 0, 48, 40]]] * frames)
    run(tmp_path, video="short")
    found = np.load(tmp_path / "made.npy")
    shown = [cv2.resize(store[min(t, frames - 1)], (8, 8)) for t in range(7)]
    assert len(found) == frames
    assert (found["raw"] == np.stack(shown)).all()


def test_a_video_without_boxes_has_an_empty_file(project):
    write_table("test/2", [[]] * FRAMES)
    main()
    found = read_objects("test/2")
    assert len(found) == 0
    assert found.dtype == object_type(3, 8)
    assert len(read_objects("test/1")) == FRAMES


def test_no_object_at_all_is_an_error(project):
    for video in VIDEOS:
        write_table(video, [[[48, 3, 60, 9]]] * FRAMES)
        write_flow(video, np.zeros((FRAMES, 40, 48, 2)))
    write_table("test/1", [[[3, 3, 6, 9]]] * FRAMES)
    with pytest.raises(SystemExit, match=r"of 56 boxes, 42 are outside of their frame and 14 do not move: .*json"):
        main()
    assert not Path("data/objects.json").exists()


def test_only_what_changed_is_cut_again(project, monkeypatch):
    main()
    before = {video: np.array(read_objects(video)) for video in VIDEOS}
    done = []
    original = stage.cut_objects
    monkeypatch.setattr(stage, "cut_objects", lambda video, *a: done.append(video) or original(video, *a))
    main()
    assert not done
    assert all((read_objects(video) == before[video]).all() for video in VIDEOS)
    # other boxes
    write_table("train/2", [[[*square_at(0)]]] * FRAMES)
    main()
    assert done == ["train/2"]
    assert (read_objects("train/2")["box"] == square_at(0)).all()
    # other flow, of the same size
    write_flow("test/1", np.ones((FRAMES, 40, 48, 2)))
    os.utime("data/flow/state/test/1.npy", ns=(1, 1))
    main()
    assert done == ["train/2", "test/1"]
    assert (read_objects("test/1")["flow"] == 1).all()
    # another recipe; videos for weak supervision only have no objects
    table = pd.read_parquet("data/videos.parquet")
    pd.concat([table, table.iloc[:1].assign(video="weak/1", split="")]).to_parquet("data/videos.parquet")
    done.clear()
    set_params(project, objects__context=1)
    main()
    assert done == VIDEOS
    assert read_objects("test/1").dtype == object_type(1, 8)
    assert not Path("data/objects/weak").exists()


def test_a_killed_run_goes_on(project, monkeypatch):
    original, done = stage.cut_objects, []

    def killed(video, *rest):
        if video == "test/1":
            raise KeyboardInterrupt
        return original(video, *rest)

    monkeypatch.setattr(stage, "cut_objects", killed)
    with pytest.raises(KeyboardInterrupt):
        main()
    assert not Path("data/objects").exists()
    monkeypatch.setattr(stage, "cut_objects", lambda video, *rest: done.append(video) or original(video, *rest))
    main()
    assert done == ["test/1", "test/2"]
    assert len(read_objects("train/1")) == FRAMES


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("data/boxes/test/2.parquet", r"data/boxes/test/2.parquet not found: run `dvc repro stages/dvc.yaml:boxes`"),
        ("data/boxes", r"data/boxes/train/1.parquet not found: run `dvc repro stages/dvc.yaml:boxes`"),
        ("data/flow/state/test/1.npy", r"state/test/1.npy not found: run `dvc repro stages/dvc.yaml:flow-state`"),
        ("data/flow/state.json", r"data/flow/state.json not found: run `dvc repro stages/dvc.yaml:flow-state`"),
        ("data/videos.parquet", r"data/videos.parquet not found: run `dvc repro stages/dvc.yaml:frames`"),
    ],
)
def test_what_is_missing_is_named_with_its_command(project, missing, message):
    path = Path(missing)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SystemExit, match=message):
        main()
    assert not Path("data/scratch").exists()


def test_objects_that_are_not_there(project):
    with pytest.raises(
        VigilError, match=r"data/objects/test/1.npy not found: run `dvc repro stages/dvc.yaml:objects` first"
    ):
        read_objects("test/1")


def test_flow_and_boxes_of_another_video_are_refused(project):
    write_table("train/1", [[[*square_at(0)]]] * (FRAMES + 1))
    with pytest.raises(SystemExit, match=r"train/1 has 14 frames and boxes of frames 0 to 14: run `dvc repro"):
        main()
    write_flow("train/1", np.zeros((FRAMES - 1, 40, 48, 2)))
    with pytest.raises(SystemExit, match=r"state/train/1.npy has the flow of 13 frames, the video has 14: run `dvc"):
        main()


def test_a_process_of_another_working_directory_makes_the_same(project, tmp_path_factory, monkeypatch):
    main()
    here = {video: Path(f"data/objects/{video}.npy").read_bytes() for video in VIDEOS}
    shutil.rmtree("data/scratch")
    original = stage.cut_objects

    def elsewhere(*args):
        with contextlib.chdir(tmp_path_factory.mktemp("elsewhere")):
            return original(*args)

    monkeypatch.setattr(stage, "cut_objects", elsewhere)
    main()
    assert {video: Path(f"data/objects/{video}.npy").read_bytes() for video in VIDEOS} == here


@pytest.mark.parametrize(
    ("key", "value"), [("size", 30), ("size", 4), ("size", "big"), ("context", -1), ("motion", -0.5), ("motion", "no")]
)
def test_wrong_values_stop_with_their_key(project, key, value):
    set_params(project, **{f"objects__{key}": value})
    with pytest.raises(VigilError, match=rf"objects\.{key}: found {value!r}"):
        params.load()


def test_published_values():
    settings = params.load().model_copy(update={"dataset": "avenue"})
    assert settings.recipe("objects").model_dump() == {"size": 32, "context": 3, "motion": 0.0}
    assert object_type(3, 32).itemsize == 4 + 16 + 7 * 32 * 32 * (3 + 4)
