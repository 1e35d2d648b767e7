"""I3D features: from frames to the published layout, and published files taken instead."""

import json
import os
import pickle
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.transforms.functional import ten_crop

from stages import features
from stages.command import VigilError
from stages.features import ORDERS, cropped, extract, normalised, read_snippets, resized
from stages.io.features import check_length, match_files, read_features, segments, snippet_count
from stages.io.frames import FrameStore, write_store
from stages.networks.i3d import I3D, caffe2_name, initialise
from tests.conftest import set_params
from tests.golden import SHARED, assert_golden, golden, needs_golden, needs_ped2

CENTRE_LAST, CENTRE_THIRD = ORDERS["centre_last"], ORDERS["centre_third"]
SMALL = {"short_side": 36, "crop": 32, "crops": 10, "order": "centre_last", "normalise": "caffe", "snippets": "ceil"}


def recipe(**changes):
    return SimpleNamespace(**{**SMALL, "resize": "short_side", "batch": 1, **changes})


@pytest.fixture
def store(tmp_path):
    """A video of 37 frames, each of another colour: red rises, blue falls."""
    images = []
    for t in range(37):
        image = np.zeros((40, 60, 3), np.uint8)
        image[:] = (200 - 3 * t, 50, 20 + 3 * t)
        image[5:15, 8 + t // 2 : 20 + t // 2] = (255, 255, 0)
        images.append(cv2.imencode(".png", image)[1].tobytes())
    write_store(tmp_path / "video.arrow", images, fps=25.0, source="made")
    return FrameStore(tmp_path / "video.arrow")


def test_numbers_that_the_network_sees():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(1, 1, 1, 1, 3)
    red_green_blue = normalised(pixels, "caffe")[0, :, 0, 0, 0]
    assert torch.allclose(red_green_blue, torch.tensor([-2.0, -63.75 / 57.375, 140.25 / 57.375]))
    assert torch.allclose(normalised(pixels, "unit")[0, :, 0, 0, 0], torch.tensor([-1.0, -0.6, 1.0]))


@pytest.mark.parametrize(
    ("height", "width", "resize", "size"),
    [
        (480, 856, "short_side", (256, 456)),
        (240, 360, "short_side", (256, 384)),
        (360, 240, "short_side", (384, 256)),
        (240, 360, "stretch", (256, 340)),
        (360, 240, "stretch", (256, 340)),
    ],
)
def test_sizes_of_frames(height, width, resize, size):
    assert resized(np.zeros((height, width, 3), np.uint8), 256, resize).shape == (*size, 3)


def test_a_constant_frame_stays_constant():
    image = np.full((50, 77, 3), (10, 20, 30), np.uint8)
    assert (resized(image, 32, "short_side") == (10, 20, 30)).all()


@needs_golden
@needs_ped2
def test_stretched_frame_is_that_of_the_copied_extractor():
    image = cv2.imread(str(SHARED / "data/ped2/training/frames/01/000.jpg"))[..., ::-1]
    frame = torch.from_numpy(resized(image, 256, "stretch").copy())[None, None]
    found = normalised(frame, "unit")[0, :, 0].permute(1, 2, 0)
    assert_golden(golden("i3d-tencrop"), {"frame_340x256": found})


@needs_golden
def test_order_of_the_copied_extractor():
    file = golden("i3d-tencrop")
    frames = torch.from_numpy(file.input("image")).permute(0, 4, 1, 2, 3)
    crops = cropped(frames, 224, CENTRE_THIRD, flips=True)
    assert_golden(file, {"crops": crops.permute(1, 0, 3, 4, 5, 2)})


@pytest.mark.parametrize(("height", "width", "size"), [(36, 51, 32), (33, 40, 32), (32, 32, 32)])
def test_default_order_is_torchvisions(height, width, size):
    image = torch.rand(3, height, width)
    crops = cropped(image[None, :, None], size, CENTRE_LAST, flips=True)
    assert torch.equal(crops[0, :, :, 0], torch.stack(ten_crop(image, size)))


def test_one_crop_is_the_centre():
    frames = torch.rand(2, 3, 4, 36, 50)
    ten = cropped(frames, 32, CENTRE_LAST, flips=True)
    assert torch.equal(cropped(frames, 32, (features.CENTRE,), flips=False)[:, 0], ten[:, 4])


@needs_golden
def test_snippets_of_the_copied_extractor():
    frames, clips = golden("i3d-tencrop").values["frames_to_clips"].reshape(2, -1)
    assert [snippet_count(int(n), "floor") for n in frames] == clips.tolist()


@pytest.mark.parametrize(("frames", "ceil", "floor"), [(1, 1, 0), (16, 1, 1), (17, 2, 1), (31, 2, 1), (32, 2, 2)])
def test_snippet_counts(frames, ceil, floor):
    assert (snippet_count(frames, "ceil"), snippet_count(frames, "floor")) == (ceil, floor)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_each_frame_is_decoded_once_and_the_last_one_fills_up(store, monkeypatch, batch):
    read = []
    plain = FrameStore.read
    monkeypatch.setattr(FrameStore, "read", lambda self, index, grey=False: read.append(index) or plain(self, index))
    parts = list(read_snippets(store, recipe(short_side=40, batch=batch)))
    assert read == list(range(37))
    assert [len(part) for part in parts] == {1: [1, 1, 1], 2: [2, 1], 5: [3]}[batch]
    snippets = np.concatenate(parts)
    assert snippets.shape == (3, 16, 40, 60, 3)
    corner = snippets[:, :, 39, 59].reshape(48, 3)  # red, green, blue
    t = np.minimum(np.arange(48), 36)
    assert np.array_equal(corner, np.stack([20 + 3 * t, np.full(48, 50), 200 - 3 * t], 1))


def test_floor_drops_the_incomplete_snippet(store):
    parts = list(read_snippets(store, recipe(snippets="floor", batch=8)))
    assert [part.shape[0] for part in parts] == [2]


def test_features_are_of_the_crops_by_hand_and_batches_do_not_matter(store):
    network = initialise(I3D(width=4), 0).eval()
    found = extract(network, store, recipe())
    assert found.shape == (3, 10, 128)
    assert found.dtype == np.float32
    assert np.allclose(extract(network, store, recipe(batch=3)), found, atol=1e-5)
    third = extract(network, store, recipe(order="centre_third"))
    assert np.allclose(third[:, [0, 1, 3, 4, 2, 5, 6, 8, 9, 7]], found, atol=1e-5)
    assert np.allclose(extract(network, store, recipe(crops=1)), found[:, 4:5], atol=1e-5)
    snippet = np.stack([resized(store[t][..., ::-1], 36, "short_side") for t in range(16, 32)])
    bottom_right_of_mirrored = snippet[:, 4:36, ::-1][:, :, 22:54]  # 36 x 54 pixels
    x = (torch.from_numpy(bottom_right_of_mirrored.copy()).float() - 114.75) / 57.375
    with torch.inference_mode():
        expected = network.features(x.permute(3, 0, 1, 2)[None])
    assert np.allclose(found[1, 8], expected, atol=1e-5)


@pytest.fixture
def stage(prepared):
    set_params(prepared, features__short_side=36, features__crop=32, device="cpu", workers=1)
    return prepared


def test_stage_writes_the_published_layout_and_a_manifest(stage, capsys):
    features.main()
    manifest = json.loads(Path("data/features.json").read_text())
    assert manifest["weights"] == "random, seed 0"
    assert (manifest["network"], manifest["order"], manifest["snippets"]) == ("i3d", "centre_last", "ceil")
    assert list(manifest["videos"]) == ["train/1", "train/2", "test/1", "test/2"]
    one = read_features("data/features/train/1_i3d.npy")
    assert one.shape == (1, 10, 2048)
    assert manifest["videos"]["train/1"] | {"hash": ""} == {"frames": 14, "snippets": 1, "hash": ""}
    written = Path("data/features/test/2_i3d.npy").stat().st_mtime_ns
    features.main()  # all videos are found again
    assert Path("data/features/test/2_i3d.npy").stat().st_mtime_ns == written
    set_params(stage, seed=1)
    features.main()
    assert not np.allclose(read_features("data/features/train/1_i3d.npy"), one)
    assert "4 snippets of 10 crops" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 40}, "a crop of 40 pixels does not fit into frames of 36"),
        ({"snippets": "floor"}, "4 videos are shorter than a snippet of 16 frames, the first is train/1"),
        ({"weights": "pretrained"}, "i3d_baseline_32x2_IN_pretrain_400k.pkl not found"),
        ({"network": "i3d_nonlocal", "weights": "pretrained"}, "python -m stages.weights i3d_nonlocal"),
        ({"source": "imported"}, "data/raw/demo/features not found"),
    ],
)
def test_what_cannot_work_stops_at_once(stage, changes, message):
    set_params(stage, **{f"features__{key}": value for key, value in changes.items()})
    with pytest.raises(SystemExit, match=message):
        features.main()
    assert not Path("data/features").exists()


def test_both_forms_of_the_published_weights(stage, monkeypatch):
    monkeypatch.setattr(features, "I3D", partial(I3D, width=4))
    features.network.cache_clear()
    set_params(stage, features__weights="pretrained")
    state = initialise(I3D(width=4), 5).state_dict()
    plain = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    folder = Path("models/pretrained")
    folder.mkdir(parents=True)
    original = folder / "i3d_baseline_32x2_IN_pretrain_400k.pkl"
    blobs = {caffe2_name(key): value.numpy() for key, value in plain.items()}
    original.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    features.main()
    found = np.load("data/features/train/1_i3d.npy")
    assert json.loads(Path("data/features.json").read_text())["weights"].startswith(f"{original.name}, SHA-256 ")
    original.unlink()
    torch.save(plain, folder / "i3d_r50_kinetics.pth")
    features.main()
    assert json.loads(Path("data/features.json").read_text())["weights"].startswith("i3d_r50_kinetics.pth, ")
    assert np.array_equal(np.load("data/features/train/1_i3d.npy"), found)
    torch.save({**plain, "fc.weight": torch.zeros(3, 128)}, folder / "i3d_r50_kinetics.pth")
    features.network.cache_clear()
    with pytest.raises(VigilError, match=r"i3d_r50_kinetics.pth: fc.weight: found \(3, 128\), expected \(400, 128\)"):
        features.network("i3d", folder / "i3d_r50_kinetics.pth", "cpu")
    original.write_bytes(pickle.dumps({"weights": {}}))
    with pytest.raises(VigilError, match="no Caffe2 blobs"):
        features.network("i3d", original, "cpu")
    features.network.cache_clear()


@pytest.fixture
def published(stage):
    """A file for each video of the data set, as they are published."""
    set_params(stage, features__source="imported")
    folder = Path("data/raw/demo/features")
    rng = np.random.default_rng(0)
    for video in ("train/1", "train/2", "test/1", "test/2"):
        (folder / video).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{video}_i3d.npy", rng.random((1, 10, 2048)))
    return folder


def test_published_files_are_taken(published):
    features.main()
    found = np.load("data/features/test/2_i3d.npy")
    assert found.dtype == np.float32
    assert np.array_equal(found, np.load(published / "test/2_i3d.npy").astype(np.float32))
    manifest = json.loads(Path("data/features.json").read_text())
    assert manifest["source"] == "imported"
    assert "weights" not in manifest


def test_other_published_files_of_the_same_size_and_time_are_not_taken_for_the_old_ones(published):
    files = sorted(published.rglob("*.npy"))
    for file in files:
        os.utime(file, (1e9, 1e9))
    features.main()
    for file in files:
        np.save(file, 2 * np.load(file))
        os.utime(file, (1e9, 1e9))
    features.main()
    for file in files:
        made = np.load(Path("data/features") / file.relative_to(published))
        np.testing.assert_array_equal(made, np.load(file).astype(np.float32))


def test_published_files_without_folders_and_with_other_videos(published, stage):
    table = pd.read_parquet("data/videos.parquet")
    table["video"] = ["train/01_001", "train/01_002", "test/01_0014", "test/01_0015"]
    table.to_parquet("data/videos.parquet")
    for path, video in zip(sorted(published.rglob("*.npy")), table.video, strict=True):
        path.rename(published / f"{Path(video).name}_i3d.npy")
    np.save(published / "99_999_i3d.npy", np.zeros((2, 10, 2048)))
    features.main()
    assert sorted(p.name for p in Path("data/features").rglob("*.npy"))[0] == "01_0014_i3d.npy"
    (published / "01_002_i3d.npy").unlink()
    with pytest.raises(SystemExit, match=r"lacks features of 1 of 4 videos:\n  train/01_002: expected 01_002_i3d.npy"):
        features.main()


def test_files_are_matched_by_name(tmp_path):
    for name in ("a/1_i3d.npy", "b/1_i3d.npy", "b/2.npy", "3_i3d.npy", "4_i3d.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, problems = match_files(["b/1", "c/2", "x/3"], tmp_path)
    assert found == {"b/1": tmp_path / "b/1_i3d.npy", "c/2": tmp_path / "b/2.npy", "x/3": tmp_path / "3_i3d.npy"}
    assert not problems
    found, problems = match_files(["c/1", "d/4", "e/4", "f/5"], tmp_path)
    assert not found  # 4_i3d.npy could be of either
    assert problems == [
        "a/1_i3d.npy, b/1_i3d.npy: one of them has to be c/1_i3d.npy",
        "d/4: expected d/4_i3d.npy",
        "e/4: expected e/4_i3d.npy",
        "f/5: expected 5_i3d.npy, there or in a folder below",
    ]


BAD = np.zeros((3, 10, 2048))
BAD[1, 4, 7] = np.nan


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((10, 5, 2048)), r"crops come first; save it as numpy.load\(file\).transpose\(1, 0, 2\)"),
        (np.zeros((5, 2048)), r"found shape \(5, 2048\), expected \(snippets, 10, 2048\): it has no axis of crops"),
        (np.zeros((5, 1, 2048)), "1 crops: write `features.crops`"),
        (np.zeros((5, 10, 1024)), "another network's features"),
        (np.zeros(7), "another kind of file"),
        (np.zeros((0, 10, 2048)), "no snippets"),
        (BAD, "NaN or infinite values in 1 snippets, first in 1"),
        (np.array([{}, 1], object), "no array of numbers"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, array, message):
    np.save(tmp_path / "x_i3d.npy", array)
    with pytest.raises(VigilError, match=message):
        read_features(tmp_path / "x_i3d.npy")


def test_a_damaged_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"<html>")
    with pytest.raises(VigilError, match="damaged"):
        read_features(tmp_path / "x.npy")
    with pytest.raises(VigilError, match="not found"):
        read_features(tmp_path / "y.npy")


@pytest.mark.parametrize(
    ("snippets", "rule", "message"),
    [
        (2, "ceil", "drops the incomplete last snippet; write `features.snippets: floor`"),
        (3, "floor", "keeps the incomplete last snippet; write `features.snippets: ceil`"),
        (5, "ceil", "5 snippets, but the video has 40 frames, hence 3"),
    ],
)
def test_numbers_of_snippets_are_checked(snippets, rule, message):
    check_length("x", 3, 40, "ceil")
    check_length("x", 2, 40, "floor")
    with pytest.raises(VigilError, match=message):
        check_length("x", snippets, 40, rule)


def test_a_published_file_of_another_length_is_named(published):
    np.save(published / "test/1_i3d.npy", np.zeros((2, 10, 2048)))
    with pytest.raises(SystemExit, match=r"test/1_i3d.npy: 2 snippets, but the video has 14 frames, hence 1"):
        features.main()


@needs_golden
@pytest.mark.parametrize("length", [1, 5, 32, 57, 300])
def test_segments_of_training_videos(length):
    file = golden("s3r-segments")
    assert_golden(file, {f"segments_T{length}": segments(file.input(f"feat_T{length}"))})


def test_segments_by_hand():
    ramp = np.arange(4, dtype=np.float32)[:, None, None]
    assert segments(ramp, 4)[0, :, 0].tolist() == [0, 1, 2, 3]
    assert segments(ramp, 2)[0, :, 0].tolist() == [0.5, 2.5]
    assert segments(ramp, 8)[0, :, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
