import hashlib

import cv2
import numpy as np
import pandas as pd
import pytest

from stages import demo
from stages.datasets import demo as layout
from stages.frames import decoded
from stages.params import Demo

SMALL = Demo(seed=3, train_videos=2, test_videos=4, frames=40, height=64, width=80)


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "demo"
    demo.make(folder, SMALL, workers=1)
    return folder


def test_the_same_seed_makes_the_same_bytes(made, tmp_path):
    demo.make(tmp_path / "again", SMALL, workers=2)
    assert hashes(tmp_path / "again") == hashes(made)
    demo.make(tmp_path / "other", SMALL.model_copy(update={"seed": 4}), workers=1)
    assert hashes(tmp_path / "other")["train/01.mkv"] != hashes(made)["train/01.mkv"]


def test_files(made):
    expected = {
        f"{kind}/{i:02d}.mkv" for kind, count in (("train", 2), ("test", 4), ("weak", 2)) for i in range(1, count + 1)
    }
    expected |= {f"flow/{name[:-4]}.npy" for name in expected if not name.startswith("weak")}
    expected |= {f"masks/test/{i:02d}.npz" for i in range(1, 5)}
    assert set(hashes(made)) == expected | {"labels.parquet", "tracks.parquet", "boxes.parquet"}


def test_both_splits(made):
    found = {video.name: (video.split, video.weak_split, video.weak_abnormal) for video in layout.videos(made)}
    assert found == {
        "train/01": ("train", "train", False), "train/02": ("train", "train", False),
        "weak/01": ("", "train", True), "weak/02": ("", "train", True),
        "test/01": ("test", "test", True), "test/02": ("test", "test", True),
        "test/03": ("test", "test", False), "test/04": ("test", "test", True),
    }  # fmt: skip


def test_labels_are_the_frames_with_abnormal_pixels(made):
    tests = [video for video in layout.videos(made) if video.split == "test"]
    masks = {video.name: layout.mask(made, video) for video in tests}
    assert all(mask.shape == (40, 64, 80) for mask in masks.values())
    labels = layout.labels(made, dict.fromkeys(masks, 40), {})["demo"]
    for name, mask in masks.items():
        assert (labels[name] == mask.any((1, 2))).all()
    assert not labels["test/03"].any()
    assert labels["test/04"].all()


def test_tracks_boxes_and_flow(made):
    tracks, boxes = pd.read_parquet(made / "tracks.parquet"), pd.read_parquet(made / "boxes.parquet")
    assert (tracks.x1 < tracks.x2).all()
    assert (tracks.y1 < tracks.y2).all()
    assert tracks[["x1", "y1"]].min().min() >= 0
    assert tracks.x2.max() <= 80
    assert tracks.y2.max() <= 64
    assert not tracks[tracks.video.str.startswith("train")].abnormal.any()
    assert len(boxes) == len(tracks)
    assert (boxes.x2 == tracks.x2).all()
    assert boxes["class"].equals(tracks.kind.rename("class"))
    flow = np.load(made / "flow/train/01.npy")
    assert flow.shape == (40, 64, 80, 2)
    assert flow.dtype == np.float16


def test_the_video_file_is_lossless(made):
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 80, 3), dtype=np.uint8)
    demo.write_video(made.parent / "noise.mkv", frames)
    read = [
        cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) for image in decoded(made.parent / "noise.mkv")
    ]
    assert (np.stack(read) == frames).all()
