"""What every training shares: epochs that survive a kill."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from stages.io.files import replacing


@runtime_checkable
class Stateful(Protocol):
    """A network, an optimiser, a schedule: anything whose state can be taken out and put back."""

    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...  # noqa: D102


def resumable_epochs(epochs: int, scratch: Path, parts: dict[str, Stateful], curve: list[dict]) -> Iterator[int]:
    """Yield the epochs that are still to be trained, saving `parts` and `curve` after each.

    The first epoch is the one after the last that was saved in `scratch`, whose state is then put back into `parts`
    and `curve`. Randomness within an epoch has to come from (seed, epoch) alone: then a training that was killed
    ends with the same weights as one that was not.
    """
    path = scratch / "epoch.pt"
    done = 0
    if path.exists():
        saved = torch.load(path, map_location="cpu", weights_only=True)
        done = saved["done"]
        curve[:] = saved["curve"]
        for name, part in parts.items():
            part.load_state_dict(saved["parts"][name])
    for epoch in range(done, epochs):
        yield epoch
        with replacing(path) as temporary:
            states = {name: part.state_dict() for name, part in parts.items()}
            torch.save({"done": epoch + 1, "curve": curve, "parts": states}, temporary)
