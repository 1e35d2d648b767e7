"""How fast is each extractor at its published size? Frames a second, memory, and the share of what the device can do.

    python -m benchmarks.extractors [--frames 64] [--batches 1 4] [--only flownet2 i3d] [--video train/01]

Needs a prepared data set (dvc repro stages/dvc.yaml:frames). Runs the stages' own work on the first frames of one
video, each extractor and batch size in a process of its own. The weights are random, written in the published form
and loaded from there as the published ones would be; what a detector finds with them is meaningless, what it costs
is not. The ceiling is the speed of one large matrix product on the same device in the same run.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import optical_flow

from stages import boxes, features, flow, params, segments
from stages.device import device, device_name
from stages.io import weights
from stages.io.frames import FrameStore, write_store
from stages.networks.detectors import cascade_rcnn, faster_rcnn
from stages.networks.flownet2 import FlowNet2, FlowNetSD
from stages.videos import FRAMES, read_videos

DATASET = "ped2"  # whose published sizes and thresholds are used
VIDEO = "clip"


def flow_task(network: str, part: str) -> Callable[..., Any]:
    def run(folder: Path, recipes: params.Params, batch: int, where: str) -> None:
        chosen = {"network": network, "batch": batch, "first": "self"}  # as many different pairs as frames, nearly
        recipe = getattr(recipes.recipe("flow"), part).model_copy(update=chosen)
        flow.write_flow(VIDEO, folder / "flow.npy", folder / f"{VIDEO}.arrow", recipe, (where,))

    return run


def boxes_task(source: str) -> Callable[..., Any]:
    def run(folder: Path, recipes: params.Params, batch: int, where: str) -> None:
        recipe = recipes.recipe("boxes")
        detector = recipe.detector.model_copy(update={"batch": batch})
        recipe = recipe.model_copy(update={"source": source, "detector": detector})
        boxes.find_boxes(VIDEO, folder / "boxes.parquet", folder, recipe, () if source == "motion" else (where,))

    return run


def segments_task(network: str) -> Callable[..., Any]:
    def run(folder: Path, recipes: params.Params, batch: int, where: str) -> None:
        recipe = recipes.recipe("segments").model_copy(update={"network": network, "batch": batch})
        segments.segment(VIDEO, folder / "segments.npy", folder, folder, VIDEO, recipe, (where,))

    return run


def features_task(network: str) -> Callable[..., Any]:
    def run(folder: Path, recipes: params.Params, batch: int, where: str) -> None:
        recipe = recipes.recipe("features").model_copy(update={"network": network, "batch": batch})
        features.extract_video(VIDEO, folder / "features.npy", folder, 0, recipe, (where,))

    return run


# name -> how its network is built (None: no published file is read), what runs, what one frame means
EXTRACTORS: dict[str, tuple[Callable[[], torch.nn.Module] | None, Callable[..., Any], str]] = {
    "dis": (None, flow_task("dis", "state"), "a pair of 512x384"),
    "flownet2": (FlowNet2, flow_task("flownet2", "state"), "a pair of 512x384"),
    "flownet2_sd": (FlowNetSD, flow_task("flownet2_sd", "mama"), "a pair of 256x256"),
    "raft_large": (
        lambda: optical_flow.raft_large(weights=None),
        flow_task("raft_large", "state"),
        "a pair of 512x384",
    ),
    "raft_small": (
        lambda: optical_flow.raft_small(weights=None),
        flow_task("raft_small", "state"),
        "a pair of 512x384",
    ),
    "motion": (None, boxes_task("motion"), "a frame of the source"),
    "cascade_rcnn": (cascade_rcnn, boxes_task("cascade_rcnn"), "a frame, scaled to 800 or 1333 pixels"),
    "faster_rcnn": (faster_rcnn, boxes_task("faster_rcnn"), "a frame, scaled to 800 or 1333 pixels"),
    "deeplabv3": (segments.build, segments_task("deeplabv3"), "a frame of 256x256"),
    "i3d": (None, features_task("i3d"), "a 16th of a snippet, ten crops of 224x224"),
    "i3d_nonlocal": (None, features_task("i3d_nonlocal"), "a 16th of a snippet, ten crops of 224x224"),
}


def ceiling(where: str, side: int = 4096) -> float:
    """Multiply-accumulates a second, times two, of a matrix product in single precision (TF32 on a GPU)."""
    a = torch.randn(side, side, device=device(where))
    times = []
    for _ in range(4):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)


def measure(name: str, video: str, frames: int, batch: int, where: str) -> tuple[float, float, float]:
    """Seconds and floating-point operations a frame, and the peak memory in bytes."""
    build, task, _ = EXTRACTORS[name]
    recipes = params.load().model_copy(update={"dataset": DATASET})
    store = FrameStore(FRAMES / f"{video}.arrow")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if build is not None:
            weights.PRETRAINED = folder
            weights.WEIGHTS[name] = replace(weights.WEIGHTS[name], sha256="")
            torch.save(build().state_dict(), folder / weights.WEIGHTS[name].file)
        count = min(frames, len(store))
        multiple = 16 if name.startswith("i3d") else 1
        counted = min(max(batch, 2) * multiple, count)
        write(store, counted, folder)
        with FlopCounterMode(display=False) as flops:  # loads the network too
            task(folder, recipes, batch, where)
        write(store, count, folder)
        for made_before in folder.glob("pixels/*/*"):
            made_before.unlink()
        start = time.perf_counter()
        task(folder, recipes, batch, where)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if where.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated()
    return seconds / count, flops.get_total_flops() / counted, peak


def write(store: FrameStore, count: int, folder: Path) -> None:
    """The first frames of a store, as a store of its own."""
    images = (bytes(store.encoded(index)) for index in range(count))
    write_store(folder / f"{VIDEO}.arrow", images, fps=store.fps, source=store.source)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the extractors at their published sizes.")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", choices=EXTRACTORS, default=list(EXTRACTORS))
    parser.add_argument("--video", default=str(read_videos().video[0]))
    arguments = parser.parse_args()
    where = str(device(params.load().device))
    best = ceiling(where)
    print(f"{device_name(torch.device(where))}; matrix product {best / 1e12:.3g} TFLOP/s; {arguments.video}")
    print(f"{'extractor':13} {'batch':>5} {'frames/s':>9} {'GFLOP':>7} {'of ceiling':>10} {'memory':>9}  a frame is")
    context = multiprocessing.get_context("spawn")
    for name in arguments.only:
        for batch in arguments.batches:
            with ProcessPoolExecutor(1, mp_context=context) as alone:
                seconds, flops, peak = alone.submit(
                    measure, name, arguments.video, arguments.frames, batch, where
                ).result()
            share = f"{100 * flops / seconds / best:9.0f}%" if flops else f"{'-':>10}"
            print(
                f"{name:13} {batch:5d} {1 / seconds:9.3g} {flops / 1e9:7.3g} {share} {peak / 2**20:6.0f} MB"
                f"  {EXTRACTORS[name][2]}",
                flush=True,
            )


if __name__ == "__main__":
    main()
