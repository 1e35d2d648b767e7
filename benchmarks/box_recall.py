"""How many reference boxes do ours meet? Per video, at an intersection over union of 0.5.

    python -m benchmarks.box_recall

Needs data/boxes (dvc repro stages/dvc.yaml:boxes). The reference is VEC's arrays in data/raw/<dataset>/boxes, or, for
the made data set, its true boxes. Recall: the share of reference boxes that one of ours meets. Precision: the share of
ours that meet one of the reference.

Motion boxes alone cannot reach all of VEC's. On Ped2 97 % of theirs are a detector's: tight around each person, also
one who stands still or walks in a group, where motion gives nothing or one box for all. And a motion box is larger:
it holds the places where the person was and will be a frame later, and two pixels more at each side.
"""

import json

import numpy as np
import pandas as pd
import torch
from torchvision.ops import box_iou

from stages import params
from stages.boxes import FOLDER, published_boxes, published_files
from stages.datasets import RAW
from stages.videos import read_videos

MEETS = 0.5
SIDES = ["x1", "y1", "x2", "y2"]


def reference_boxes(dataset: str, videos: pd.DataFrame) -> dict[str, list[np.ndarray]]:
    """Video -> an array (boxes, 4) a frame."""
    if dataset != "demo":
        return published_boxes(published_files(RAW / dataset / "boxes", videos), videos)
    truth = pd.read_parquet(RAW / dataset / "boxes.parquet")
    return {
        video: by_frame(truth.query("video == @video"), frames)
        for video, frames in zip(videos.video, videos.frames, strict=True)
    }


def by_frame(boxes: pd.DataFrame, frames: int) -> list[np.ndarray]:
    """One array (boxes, 4) a frame, from a table of boxes."""
    return [boxes.loc[boxes.frame == frame, SIDES].to_numpy() for frame in range(frames)]


def met(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of `boxes` (N, 4) one of `others` (M, 4) meets."""
    overlap = box_iou(torch.tensor(boxes, dtype=torch.float64), torch.tensor(others, dtype=torch.float64)).numpy()
    return overlap.max(1, initial=0) >= MEETS


def main() -> None:
    settings = params.load()
    videos = read_videos().query("split != ''")
    reference = reference_boxes(settings.dataset, videos)
    rows = []
    for video, frames in zip(videos.video, videos.frames, strict=True):
        ours = by_frame(pd.read_parquet(FOLDER / f"{video}.parquet"), frames)
        pairs = list(zip(reference[video], ours, strict=True))
        recalled = np.concatenate([met(theirs, found) for theirs, found in pairs])
        precise = np.concatenate([met(found, theirs) for theirs, found in pairs])
        rows.append([video, frames, len(recalled), len(precise), recalled.sum(), precise.sum()])
    table = pd.DataFrame(rows, columns=["video", "frames", "reference", "ours", "recall", "precision"])
    total = table.drop(columns="video").sum()
    table.loc[len(table)] = ["all", *total]
    table["recall"] /= table.reference
    table["precision"] /= table.ours
    source = json.loads(FOLDER.with_suffix(".json").read_text())["source"]
    print(f"{settings.dataset}, boxes.source {source}, IoU {MEETS}")
    print(table.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
