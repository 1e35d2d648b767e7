"""Make the demo data set.

reads  params.yaml: demo
writes data/raw/demo: train/, test/, weak/ (NN.mkv), labels.parquet, masks/, tracks.parquet, boxes.parquet, flow/

    labels   video, frame, abnormal; of every video
    masks    of test videos: `mask`, bits packed along the width, and `shape` (frames, height, width)
    tracks   video, frame, track, x1, y1, x2, y2 in pixels (upper ends excluded), kind, abnormal
    boxes    the same boxes as a detector would give them: score, class, origin
    flow     of training and test videos: float16 (frames, height, width, 2), pixels from frame i to i + 1

The same seed and sizes give the same bytes. The videos in weak/ are abnormal ones for weakly supervised training.
"""

from pathlib import Path

import av
import cv2
import joblib
import numpy as np
import pandas as pd
from av.codec.context import Flags as CodecFlags
from av.container import Flags as ContainerFlags
from tqdm import tqdm

from stages.command import command
from stages.datasets import RAW
from stages.datasets.plaza import SCENARIOS, empty_plaza, film
from stages.io.files import replacing
from stages.params import Demo, load

RATE = 15  # frames a second, at which the walkers' pace is a person's
FOLDERS = ("train", "test", "weak")
FFV1 = {"level": "3", "slices": "4", "slicecrc": "0"}


@command
def main() -> str:
    """Make the videos and their truth as params.yaml says."""
    params = load()
    made = RAW / "demo"
    with replacing(made) as folder:
        make(folder, params.demo, params.workers)
    return f"seed {params.demo.seed} -> {made}"


def make(folder: Path, demo: Demo, workers: int) -> None:
    """Write the data set into a folder."""
    counts = {"train": demo.train_videos, "test": demo.test_videos, "weak": demo.train_videos}
    anomalies = [scenario for scenario in SCENARIOS if scenario]
    videos = []
    for kind, count in counts.items():
        cycle = {"train": [[]], "test": SCENARIOS, "weak": anomalies}[kind]
        videos += [(f"{kind}/{index + 1:02d}", cycle[index % len(cycle)]) for index in range(count)]
    run = joblib.Parallel(n_jobs=min(workers or joblib.cpu_count(), len(videos)), return_as="generator")
    tables = run(joblib.delayed(make_video)(folder, name, scenario, demo) for name, scenario in videos)
    labels, tracks = zip(*tqdm(tables, "demo", len(videos), unit="video", disable=None), strict=True)
    pd.concat(labels, ignore_index=True).to_parquet(folder / "labels.parquet", index=False)
    table = pd.concat(tracks, ignore_index=True)
    table.to_parquet(folder / "tracks.parquet", index=False)
    boxes = table.drop(columns=["track", "abnormal"]).rename(columns={"kind": "class"})
    boxes.assign(score=np.float32(1), origin="imported").to_parquet(folder / "boxes.parquet", index=False)


def make_video(
    folder: Path, name: str, scenario: list[tuple[str, float]], demo: Demo
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write one video with its masks and flow; return its labels and its tracks."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    kind, number = name.split("/")
    background = empty_plaza(demo.height, demo.width, np.random.default_rng(demo.seed))
    rng = np.random.default_rng((demo.seed, FOLDERS.index(kind), int(number)))
    made = film(background, demo.frames, scenario, rng)
    for part in (kind, f"masks/{kind}", f"flow/{kind}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_video(folder / f"{name}.mkv", made.frames)
    if kind == "test":
        packed = np.packbits(made.mask, axis=-1)
        np.savez_compressed(folder / "masks" / f"{name}.npz", mask=packed, shape=np.array(made.mask.shape))
    if kind != "weak":
        np.save(folder / "flow" / f"{name}.npy", made.flow)
    labels = pd.DataFrame(
        {
            "video": name,
            "frame": np.arange(demo.frames, dtype=np.int32),
            "abnormal": made.mask.any(axis=(1, 2)),
        }
    )
    columns = ["frame", "track", "x1", "y1", "x2", "y2", "kind", "abnormal"]
    tracks = pd.DataFrame(made.tracks, columns=columns).astype(
        {"frame": np.int32, "track": np.int32} | dict.fromkeys(("x1", "y1", "x2", "y2"), np.float32)
    )
    tracks.insert(0, "video", name)
    return labels, tracks


def write_video(path: Path, frames: np.ndarray) -> None:
    """Write frames (T, H, W, 3), blue first, without loss (FFV1), the same bytes every time."""
    with av.open(str(path), "w") as container:
        container.flags |= ContainerFlags.bitexact.value
        stream = container.add_stream("ffv1", rate=RATE, options=FFV1)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        stream.thread_count = 1
        stream.codec_context.flags |= CodecFlags.bitexact.value
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
