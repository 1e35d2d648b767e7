"""A small prepared data set: the frames stage's outputs for made videos, in a folder of their own."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, settings

from stages.io.flow import FLOW
from stages.io.frames import write_store
from stages.io.objects import OBJECTS, object_type
from stages.io.segments import CLASSES, SEGMENTS, STRIDE

# a busy machine is no failure; what CI has set, such as the same examples each time, stays
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def moving_square(frames: int, speed: int, seed: int) -> list[bytes]:
    """A bright square that crosses a noisy 40 x 48 scene, as PNG."""
    rng = np.random.default_rng(seed)
    images = []
    for t in range(frames):
        image = rng.integers(60, 70, (40, 48, 3), dtype=np.uint8)
        x = 2 + (t * speed) % 36
        image[10:20, x : x + 10] = (200, 150, 250)
        images.append(cv2.imencode(".png", image)[1].tobytes())
    return images


@pytest.fixture
def prepared(tmp_path, monkeypatch, request):
    """Two training and two test videos of moving squares; the second test video moves too fast from frame 6 on.

    The working directory is a folder with params.yaml and data/ as the frames stage leaves it.
    """
    shutil.copy("params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    rows, labels = [], []
    for i, name in enumerate(["train/1", "train/2", "test/1", "test/2"]):
        images = moving_square(14, 2, i)
        if name == "test/2":
            images[6:] = moving_square(8, 9, i)
        stored = write_store(f"data/frames/{name}.arrow", images, fps=25.0, source=name)
        rows.append(
            {
                "video": name,
                "split": name.split("/")[0],
                "frames": stored.frames,
                "height": 40,
                "width": 48,
                "fps": 25.0,
                "source": name,
                "hash": stored.hash,
                "grey": stored.grey,
                "weak_split": "",
                "weak_abnormal": None,
            }
        )
        if name.startswith("test"):
            abnormal = np.arange(14) >= 6 if name == "test/2" else np.zeros(14, bool)
            labels.append(
                pd.DataFrame(
                    {"label_set": "made", "video": name, "frame": np.arange(14, dtype=np.int32), "abnormal": abnormal}
                )
            )
    pd.DataFrame(rows).to_parquet("data/videos.parquet")
    pd.concat(labels, ignore_index=True).to_parquet("data/labels.parquet")
    return tmp_path


def write_objects(video: str, count: int, seed: int) -> None:
    """Random objects of a video, two a frame, as the objects stage leaves them: 3 frames of 8 pixels."""
    rng = np.random.default_rng(seed)
    records = np.zeros(count, object_type(context=1, size=8))
    records["frame"] = np.arange(count) // 2
    records["box"] = rng.uniform(0, 30, (count, 4))
    records["raw"] = rng.integers(0, 256, records["raw"].shape)
    records["flow"] = rng.normal(size=records["flow"].shape)
    path = OBJECTS / f"{video}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, records)


def write_motion_and_labels(video: str, frames: int = 14, reduce: int = 2, size: int = 32, seed: int = 0) -> None:
    """Random flow and labels of a video for MAMA, as the stages flow-mama and segments leave them."""
    rng = np.random.default_rng(seed)
    side = size // reduce
    flow = rng.normal(size=(frames, side, side, 2)) * 3
    labels = rng.normal(size=(frames, CLASSES, size // STRIDE, size // STRIDE)) * 3
    for folder, values in ((FLOW / "mama", flow), (SEGMENTS, labels)):
        path = folder / f"{video}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values.astype(np.float16))
    (FLOW / "mama.json").write_text(json.dumps({"reduce": reduce}))


def set_params(folder, **changes) -> None:
    """Change values in a params.yaml: set_params(folder, mnad__fit__epochs=1)."""
    from ruamel.yaml import YAML

    yaml = YAML()
    content = yaml.load((folder / "params.yaml").read_text())
    for key, value in changes.items():
        *path, last = key.split("__")
        target = content
        for step in path:
            target = target[step]
        target[last] = value
    with open(folder / "params.yaml", "w") as file:
        yaml.dump(content, file)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small networks gain nothing from threads, and parallel test processes would fight over the cores."""
    torch.set_num_threads(1)
