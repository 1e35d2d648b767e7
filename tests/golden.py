"""Numbers from the authors' networks, kept outside this repository; tests that need them skip where they are absent."""

import importlib.util
from pathlib import Path

import pytest
from torch import nn

SHARED = Path(__file__).resolve().parents[2] / "shared"
needs_golden = pytest.mark.skipif(
    not (SHARED / "golden").is_dir(), reason="golden numbers (../shared/golden) are absent"
)
needs_ped2 = pytest.mark.skipif(not (SHARED / "data/ped2").is_dir(), reason="UCSD Ped2 (../shared/data/ped2) is absent")


def _tools():
    spec = importlib.util.spec_from_file_location("golden_fill", SHARED / "golden/fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden(name: str):
    """One file of golden numbers: `.input(name)`, `.values`, `.meta`, `.check(outputs)`."""
    return _tools().Golden(SHARED / "golden" / f"{name}.npz")


def filled(network: nn.Module, net: str, prefix: str = "") -> nn.Module:
    """A network in eval mode with the deterministic weights of the golden numbers."""
    tools = _tools()
    if not prefix:
        return tools.load(network, 0, net)
    import torch

    state = network.state_dict()
    new = {key: tools.value(prefix + key, value.shape, 0, net) for key, value in state.items()}
    network.load_state_dict({key: state[key] if v is None else torch.from_numpy(v) for key, v in new.items()})
    return network.eval()


def assert_golden(file, outputs: dict) -> None:
    """Each output agrees with the stored numbers within the stored tolerance."""
    rows = file.check(outputs)
    wrong = [row for row in rows if not row[1]]
    assert not wrong, "\n".join(
        f"{name}: off by {worst:.3g}, allowed {tol:.3g} {note}" for name, _, worst, tol, note in wrong
    )


def published_keys(name: str) -> dict[str, tuple[int, ...]]:
    """Parameter names and shapes of an authors' network."""
    lines = (SHARED / "spec/keys" / f"{name}.txt").read_text().splitlines()
    return {
        key: tuple(int(n) for n in shape.strip("()").split(",") if n.strip())
        for key, shape in (line.split("\t") for line in lines)
    }
