"""Segmentation: DeepLabv3's cached logits are its output, motion sees only the past, the stage stores both alike."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from stages import segments
from stages.io.weights import PRETRAINED, WEIGHTS
from stages.segments import BACKGROUND, CLASSES, PERSON, deeplab_logits, motion_logits
from tests.conftest import set_params
from tests.golden import needs_golden, published_keys


@pytest.fixture(scope="module")
def deeplab():
    torch.manual_seed(0)
    return segments.build().eval()


@needs_golden
def test_parameters_are_the_published_ones(deeplab):
    found = {key: tuple(value.shape) for key, value in deeplab.state_dict().items()}
    assert found == published_keys("deeplabv3_resnet101-coco")


def test_scaled_up_logits_are_the_networks_output(deeplab):
    images = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
    (logits,) = deeplab_logits([images], deeplab)
    assert logits.shape == (3, 21, 12, 12)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        expected = deeplab(x)["out"]
    assert torch.equal(interpolate(logits, (96, 96), mode="bilinear"), expected)
    batches = list(deeplab_logits([images[:2], images[2:]], deeplab))
    assert [len(batch) for batch in batches] == [2, 1]
    assert torch.allclose(torch.cat(batches), logits, rtol=1e-4, atol=0.01)  # logits of some 100


def test_grey_frames_are_fed_as_three_equal_channels(deeplab):
    grey = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 1), np.uint8)
    (one,) = deeplab_logits([grey], deeplab)
    (three,) = deeplab_logits([np.repeat(grey, 3, -1)], deeplab)
    assert torch.allclose(one, three, rtol=1e-4, atol=0.01)


def test_a_thing_that_appears_is_a_person_and_the_rest_background():
    images = np.full((3, 64, 64, 1), 90, np.uint8)
    images[2, 16:32, 40:56] = 160
    logits = np.stack(list(motion_logits(images)))
    person = logits[:, PERSON] > logits[:, BACKGROUND]
    assert not person[:2].any()
    assert person[2, 2:4, 5:7].all()
    assert person[2].sum() <= 16
    assert (logits.argmax(1)[:2] == BACKGROUND).all()
    assert logits.shape == (3, 21, 8, 8)
    assert CLASSES[PERSON] == "person"


def test_motion_sees_only_the_past():
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    before = np.stack(list(motion_logits(images)))
    images[4:] = 0
    assert np.array_equal(np.stack(list(motion_logits(images)))[:4], before[:4])


def test_the_stage_by_motion(prepared, monkeypatch):
    set_params(prepared, segments__size=64, workers=1, device="cpu")
    segments.main()
    stored = np.load("data/segments/test/2.npy", mmap_mode="r")
    assert (stored.shape, stored.dtype) == ((14, 21, 8, 8), np.float16)
    assert json.loads(Path("data/segments.json").read_text())["network"] == "motion"
    assert Path("metrics/previews/segments.png").stat().st_size > 1000
    monkeypatch.setattr(segments, "motion_logits", None)  # nothing is computed again
    segments.main()


def test_the_stage_with_published_weights(prepared, deeplab, monkeypatch):
    set_params(prepared, segments__size=64, segments__network="deeplabv3", segments__batch=5, device="cpu")
    with pytest.raises(SystemExit, match=r"python -m stages\.weights deeplabv3"):
        segments.main()
    assert not Path("data/scratch").exists()
    path = PRETRAINED / WEIGHTS["deeplabv3"].file
    path.parent.mkdir(parents=True)
    torch.save(deeplab.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(WEIGHTS, "deeplabv3", dataclasses.replace(WEIGHTS["deeplabv3"], sha256=digest))
    segments.main()
    stored = np.load("data/segments/train/1.npy")
    pixels = np.load(next(Path("data/scratch/pixels/64").glob("*.npy")))
    assert (stored.shape, pixels.shape) == ((14, 21, 8, 8), (14, 64, 64, 3))
    videos = {path.name: path for path in Path("data/scratch/pixels/64").glob("*.npy")}
    assert len(videos) == 4
    computed = [torch.cat(list(deeplab_logits([np.load(path)], deeplab))).numpy() for path in videos.values()]
    assert min(np.abs(stored - logits).max() for logits in computed) < 0.001 * np.abs(stored).max()
