"""Ways of doing the same work, timed in turns, each in a process of its own, so that its peak memory is its own."""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

import numpy as np
import torch

from stages.device import device, peak_memory

Work = Callable[[], object]


def in_turns(
    ways: Mapping[str, Callable[[torch.device], Work]], rounds: int, on: str
) -> dict[str, tuple[float, float]]:
    """Median seconds of each way's work, and the most GB that its process held above what it held when all was ready.

    Args:
        ways: name -> a function that can be pickled: given the device, it gets everything ready and returns the work.
        rounds: each way once a round, in turns the first and the last first. One round before them warms up.
        on: names the device.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for way, prepare in ways.items():
        pipes[way], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(theirs, prepare, on), daemon=True))
        processes[-1].start()
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for round_ in range(rounds + 1):
        for way in list(pipes) if round_ % 2 else reversed(pipes):
            pipes[way].send(True)
            found[way].append(pipes[way].recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    measured = {way: np.array(values[1:]) for way, values in found.items()}
    return {way: (float(np.median(values[:, 0])), float(values[:, 1].max())) for way, values in measured.items()}


def serve(pipe: Connection, prepare: Callable[[torch.device], Work], name: str) -> None:
    """Work each time that something true arrives; answer with the seconds, and the memory above that before."""
    on = device(name)
    work = prepare(on)
    before = peak_memory(on)
    while pipe.recv():
        start = time.perf_counter()
        work()
        if on.type == "cuda":
            torch.cuda.synchronize(on)
        pipe.send((time.perf_counter() - start, peak_memory(on) - before))
