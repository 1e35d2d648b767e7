"""The made data set: a plaza with walkers. For trying out and for tests; not a benchmark.

The one-class split is train/ and test/. The weak split trains on train/ (normal) and weak/ (abnormal), and tests on
test/. The truth covers every video: labels.parquet (video, frame, abnormal).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool

from stages.datasets.common import Card, Labels, Split, Truth, Video, collect, incomplete

CARDS = {
    "demo": Card(
        "Vigil demo",
        """
  nothing; `python -m stages.demo` (or dvc repro) makes it: train/, test/, weak/ (videos), labels.parquet,
  masks/, tracks.parquet, boxes.parquet, flow/
""",
    )
}


def videos(root: Path) -> list[Video]:
    """All videos. Raises VigilError where the data set has not been made."""
    if not (root / "labels.parquet").exists():
        raise incomplete(root, CARDS["demo"], ["everything"])
    truth = pd.read_parquet(root / "labels.parquet").groupby("video").abnormal.any()
    parts: list[tuple[str, Split, Split]] = [
        ("train", "train", "train"),
        ("test", "test", "test"),
        ("weak", "", "train"),
    ]
    return [
        Video(video.name, split, video.source, weak_split, bool(truth[video.name]))
        for folder, split, weak_split in parts
        for video in collect(root / folder, split, folder)
    ]


def mask(root: Path, video: Video) -> Bool[np.ndarray, "T H W"] | None:
    """The pixels of abnormal actors; None outside the test split."""
    if video.split != "test":
        return None
    with np.load(root / "masks" / f"{video.name}.npz") as file:
        return np.unpackbits(file["mask"], axis=-1, count=int(file["shape"][2])).astype(bool)


def labels(root: Path, frames: dict[str, int], masked: Truth) -> Labels:
    """One label set: the frames in which an abnormal actor shows."""
    truth = pd.read_parquet(root / "labels.parquet").groupby("video").abnormal
    return {"demo": {video: truth.get_group(video).to_numpy() for video in frames}}
