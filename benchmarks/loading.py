"""Does loading starve training? The loader alone against the training step alone, at 64 and at 256 pixels.

    python -m benchmarks.loading [--width 64] [--batches 20]

Needs a prepared data set (dvc repro stages/dvc.yaml:frames). Three times are taken in turn in one run, per batch of
four clips of five frames: our loader; the original's way of loading (each frame of each clip decoded and resized
again, every epoch, by `cv2.imread` and `cv2.resize`, one process); and MNAD's training step (forward, backward,
Adam, memory update) on a batch that is already there. Medians.
"""

import argparse
import time

import cv2
import numpy as np
import torch
from torch import Tensor

from stages import params
from stages.clips import Clips
from stages.device import device, device_name
from stages.io.frames import FrameStore, open_pixels
from stages.methods import memory, mnad
from stages.methods.memory_guided import input_and_target, losses
from stages.videos import FRAMES, read_videos

BATCH, LENGTH = 4, 5


def original_batch(stores: list[FrameStore], index: np.ndarray, size: int) -> Tensor:
    """The original's way: decode, resize and convert every frame of every clip."""
    clips = []
    for video, start in index:
        frames = [
            cv2.resize(stores[video][start + t], (size, size)).astype(np.float32) / 127.5 - 1 for t in range(LENGTH)
        ]
        clips.append(np.stack(frames).transpose(0, 3, 1, 2))
    return torch.from_numpy(np.stack(clips))


def training_step(network: mnad.Network, items: Tensor, optimiser: torch.optim.Optimizer, batch: Tensor) -> Tensor:
    """One step of `memory_guided.fit`."""
    x, target = input_and_target(batch, network.input_frames)
    frame, queries = network(x, items)
    optimiser.zero_grad()
    losses(frame, target, queries, items).sum().backward()
    optimiser.step()
    return memory.update(queries, items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batches", type=int, default=20)
    arguments = parser.parse_args()
    settings = params.load()
    chosen = device(settings.device)
    videos = read_videos().query("split == 'train'")
    stores = [FrameStore(FRAMES / f"{name}.arrow") for name in videos.video]
    print(f"{settings.dataset}, {device_name(chosen)}, MNAD width {arguments.width}, {arguments.batches} batches")
    for size in (64, 256):
        clips = Clips(open_pixels(videos, FRAMES, size, settings.workers), LENGTH)
        network = mnad.Network(arguments.width).to(chosen, memory_format=torch.channels_last)
        items = memory.initial_items(10, 8 * arguments.width).to(chosen)
        optimiser = torch.optim.Adam(network.parameters(), 2e-4)
        times: dict[str, list[float]] = {"loader": [], "original's loader": [], "training step": []}
        for _, index in zip(range(arguments.batches), clips.batches(BATCH, 0, 0), strict=False):
            marks = [time.perf_counter()]
            batch = clips.read(index, chosen)
            _wait(chosen)
            marks.append(time.perf_counter())
            again = original_batch(stores, index, size).to(chosen)
            marks.append(time.perf_counter())
            assert torch.allclose(batch, again, atol=1e-6)
            marks.append(time.perf_counter())
            items = training_step(network, items, optimiser, batch)
            _wait(chosen)
            marks.append(time.perf_counter())
            times["loader"].append(marks[1] - marks[0])
            times["original's loader"].append(marks[2] - marks[1])
            times["training step"].append(marks[4] - marks[3])
        ours, original, step = (1000 * float(np.median(values)) for values in times.values())
        print(
            f"{size:4d} px: loader {ours:.2f} ms, original's {original:.1f} ms ({original / ours:.0f} times ours), "
            f"training step {step:.0f} ms; the loader takes {100 * ours / step:.2f} % of a step"
        )


def _wait(chosen: torch.device) -> None:
    if chosen.type == "cuda":
        torch.cuda.synchronize(chosen)


if __name__ == "__main__":
    main()
