"""Trained models on disk: a folder with the network, its state that is not a parameter, and a description.

network.safetensors   parameters and buffers, with the names of the authors' checkpoints
state.safetensors     what the method keeps beside the network, such as memory items
model.json            recipe, data set, seed, and where the model comes from
loss.csv              a row an epoch
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.command import VigilError
from stages.io.files import replacing


@dataclass
class Model:
    """A trained network's tensors, its state beside the parameters, and the training curve."""

    network: dict[str, Tensor]
    state: dict[str, Tensor]
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)


def save_model(folder: str | Path, model: Model, description: dict[str, Any]) -> None:
    """Write a model, wholly or not at all."""
    with replacing(folder) as temporary:
        temporary.mkdir()
        for name, tensors in (("network", model.network), ("state", model.state)):
            # plain row-major copies: channels-last strides would otherwise be refused
            tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(tensors, temporary / f"{name}.safetensors")
        (temporary / "model.json").write_text(json.dumps(description, indent=2) + "\n")
        model.curve.rename_axis("epoch").to_csv(temporary / "loss.csv", float_format="%.6g")


def load_model(folder: str | Path) -> tuple[Model, dict[str, Any]]:
    """Read a model and its description. Raises VigilError where a file is missing or damaged."""
    folder = Path(folder)
    try:
        model = Model(load_file(folder / "network.safetensors"), load_file(folder / "state.safetensors"))
        return model, json.loads((folder / "model.json").read_text())
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise VigilError(f"{folder} holds no readable model ({error}): run its fit stage again") from None
