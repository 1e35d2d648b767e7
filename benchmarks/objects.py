"""What does decoding each frame once save? Cutting one video's objects, our way against the original's.

    python -m benchmarks.objects [--video train/01] [--rounds 3]

Needs a prepared data set, its boxes and its flow (dvc repro stages/dvc.yaml:objects makes all of them). The original
keeps flow as one file a frame, at the size of the frames; for every judged frame it decodes all frames of the window,
reads their flow, cuts and scales them, and the objects are saved a file a frame, flow in float32. Those flow files are
written before the clock starts. Both make the same objects, in turns within one run, one thread; medians.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from stages import params
from stages.io.flow import read_description
from stages.io.frames import FrameStore
from stages.objects import BOXES, SIDES, cut_objects, flow_file, prepared
from stages.videos import FRAMES, read_videos


def original(frames: FrameStore, boxes: list[np.ndarray], flow: Path, folder: Path, recipe: Any) -> None:
    """Cut each frame's boxes (N, 4) from a window that is read anew for every frame."""
    size, length = (recipe.size, recipe.size), 2 * recipe.context + 1
    for index, found in enumerate(boxes):
        start = min(max(index - recipe.context, 0), len(frames) - length)
        images = [frames[t] for t in range(start, start + length)]
        vectors = [np.load(flow / f"{t}.npy") for t in range(start, start + length)]
        corners = np.ceil(found).astype(int)
        for name, window in (("raw", images), ("flow", vectors)):
            parts = [[cv2.resize(image[y1:y2, x1:x2], size) for image in window] for x1, y1, x2, y2 in corners]
            np.save(folder / f"{index}-{name}.npy", np.array(parts))


def seconds(work: Any, *args: Any) -> float:
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def check_equal(made: Path, folder: Path) -> None:
    """Both ways' objects have the same pixels, and the same flow but for its rounding to float16."""
    ours = np.load(made, mmap_mode="r")
    for frame in np.unique(ours["frame"]):
        here = ours[ours["frame"] == frame]
        assert (here["raw"] == np.load(folder / f"{frame}-raw.npy")).all()
        np.testing.assert_array_equal(here["flow"], np.load(folder / f"{frame}-flow.npy").astype(np.float16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", default="")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    settings = params.load()
    recipe = settings.recipe("objects").model_copy(update={"motion": 0.0})
    videos = read_videos().set_index("video")
    video = arguments.video or videos.index[0]
    store, table = FRAMES / f"{video}.arrow", BOXES / f"{video}.parquet"
    frames, vectors, reduce = (
        FrameStore(store),
        flow_file(video, len(FrameStore(store))),
        read_description("state")["reduce"],
    )
    boxes = pd.read_parquet(table)
    of_frame = [boxes.loc[boxes.frame == frame, SIDES].to_numpy() for frame in range(len(frames))]
    times: dict[str, list[float]] = {"ours": [], "original": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "flow").mkdir()
        for index, (_, flow) in enumerate(
            prepared((frames[i] for i in range(len(frames))), np.load(vectors, mmap_mode="r"), reduce)
        ):
            np.save(folder / "flow" / f"{index}.npy", flow)
        (folder / "original").mkdir()
        made = folder / "ours.npy"
        for turn in range(arguments.rounds):
            for way in ("ours", "original") if turn % 2 == 0 else ("original", "ours"):
                if way == "ours":
                    taken = seconds(cut_objects, video, made, store, vectors, table, reduce, recipe)
                else:
                    taken = seconds(original, frames, of_frame, folder / "flow", folder / "original", recipe)
                times[way].append(taken)
        check_equal(made, folder / "original")
        written = {
            "ours": made.stat().st_size,
            "original": sum(f.stat().st_size for f in (folder / "original").iterdir()),
        }
    print(f"{settings.dataset}, {video}: {len(frames)} frames of {frames.width}x{frames.height}, {len(boxes)} boxes")
    for way, taken in times.items():
        spread = ", ".join(f"{value:.2f}" for value in taken)
        rate = len(boxes) / statistics.median(taken)
        print(
            f"{way:9s}{statistics.median(taken):7.2f} s ({spread}), {rate:6.0f} objects/s, {written[way] / 1e6:.1f} MB"
        )
    ratio = statistics.median(times["original"]) / statistics.median(times["ours"])
    space = written["original"] / written["ours"]
    print(f"the original's way takes {ratio:.1f} times as long, and {space:.2f} times the space")


if __name__ == "__main__":
    main()
