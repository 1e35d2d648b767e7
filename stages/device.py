"""Where networks run: the device of params.yaml, set up and named."""

import fcntl
import functools
import os
import resource
import tempfile
from pathlib import Path

import torch

from stages.command import VigilError


def device(name: str) -> torch.device:
    """The device of params.yaml, set up: deterministic on the CPU, fast on a GPU.

    Raises VigilError where a GPU is asked for and none is there.
    """
    found = torch.cuda.is_available()
    if name.startswith("cuda") and not found:
        raise VigilError(f"device {name!r}: PyTorch finds no CUDA device here; write `device: auto` or `device: cpu`")
    if name.startswith("cuda:") and int(name[5:]) >= torch.cuda.device_count():
        raise VigilError(
            f"device {name!r}: PyTorch finds {torch.cuda.device_count()} CUDA devices here, from cuda:0 on"
        )
    chosen = torch.device("cuda" if name == "auto" and found else "cpu" if name == "auto" else name)
    if chosen.type == "cpu":
        torch.use_deterministic_algorithms(True)
    else:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return chosen


def devices(name: str) -> list[str]:
    """Names of the devices that share work on whole videos: with `auto` every GPU, else the one that is named.

    Raises VigilError as `device` does.
    """
    chosen = device(name)
    if name == "auto" and chosen.type == "cuda":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [str(chosen)]


@functools.cache
def own_device(names: tuple[str, ...]) -> str:
    """The device of this process: the first that no other process with the same parent holds, else the last.

    Workers take whatever video is next, so a device belongs to a worker, not to a video.
    """
    for name in names[:-1]:
        path = Path(tempfile.gettempdir(), f"vigil-{os.getppid()}-{name.replace(':', '')}.lock")
        held = os.open(path, os.O_CREAT | os.O_RDWR)  # closed, and so released, when the process ends
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
        else:
            return name
    return names[-1]


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has held so far, in GB: on the GPU where that is the device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says is there at least what the parent process held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # bytes on macOS


def device_name(device: torch.device) -> str:
    """What a metrics file calls the device: the GPU's name, or the processor's and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "CPU")
    return f"{model}, {torch.get_num_threads()} threads"
