"""Devices: what params.yaml may name, and one worker process for each."""

import subprocess
import sys

import pytest
import torch

from stages.command import VigilError
from stages.device import device, device_name, devices, own_device

NAMES = ("cuda:0", "cuda:1", "cuda:2")


def test_the_cpu_is_named_and_alone():
    assert device("cpu") == torch.device("cpu")
    assert devices("cpu") == ["cpu"]
    assert "threads" in device_name(torch.device("cpu"))


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(VigilError, match="no CUDA device"):
        device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(VigilError, match="'cuda:2': PyTorch finds 2 CUDA devices"):
        device("cuda:2")


def test_auto_shares_work_among_all_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices("auto") == list(NAMES)
    assert devices("cuda:1") == ["cuda:1"]


def claiming() -> subprocess.Popen:
    """A process that takes a device, says which, and keeps it until its input ends."""
    code = f"from stages.device import own_device; print(own_device({NAMES}), flush=True); input()"
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_each_process_holds_a_device_of_its_own():
    assert own_device(("cpu",)) == "cpu"
    with claiming() as first, claiming() as second, claiming() as third:
        held = [process.stdout.readline().strip() for process in (first, second, third)]
        assert sorted(held) == list(NAMES)
        free = held.index("cuda:0")
        (first, second, third)[free].communicate("\n")
        with claiming() as fourth:
            assert fourth.communicate("\n")[0].strip() == "cuda:0"
        for process in (first, second, third):
            if process.poll() is None:
                process.communicate("\n")


def test_peak_memory_counts_what_was_let_go():
    """In a process of its own: how much this one has held nobody knows."""
    code = """
import torch
from stages.device import peak_memory
before = peak_memory(torch.device("cpu"))
held = torch.ones(300_000_000, dtype=torch.uint8)
del held
print(peak_memory(torch.device("cpu")) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.2 < float(done.stdout) < 0.5
