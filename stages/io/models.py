"""Trained models on disk: a folder with the network, its state that is not a parameter, and a description.

network.safetensors   parameters and buffers, with the names of the authors' checkpoints
state.safetensors     what the method keeps beside the network, such as memory items
model.json            recipe, data set, seed, and where the model comes from
loss.csv              a row an epoch
history.parquet       what the test videos would have got at each checkpoint; only of methods that validate
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.command import VigilError
from stages.io.files import file_hash, replacing


@dataclass
class Model:
    """A trained network's tensors, its state beside the parameters, and the training curve.

    `history` has columns checkpoint, video, split, frame and components, of test videos, a block a validation. No label
    was looked at for it; the authors of some methods publish the checkpoint that is best on the test labels, and
    `stages.evaluate` finds from it what that is worth.
    """

    network: dict[str, Tensor]
    state: dict[str, Tensor]
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)
    history: pd.DataFrame = field(default_factory=pd.DataFrame)


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
        if len(model.history):
            model.history.to_parquet(temporary / "history.parquet", index=False)


def load_model(folder: str | Path) -> tuple[Model, dict[str, Any]]:
    """Read a model and its description. Raises VigilError where a file is missing or damaged."""
    folder = Path(folder)
    try:
        model = Model(load_file(folder / "network.safetensors"), load_file(folder / "state.safetensors"))
        if (history := folder / "history.parquet").exists():
            model.history = pd.read_parquet(history)
        return model, json.loads((folder / "model.json").read_text())
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise VigilError(f"{folder} holds no readable model ({error}): run its fit stage again") from None


def load_trained(method: str, recipe: Any, folders: Mapping[str, str]) -> tuple[list[Model], Any, list[dict[str, Any]]]:
    """The models of a method's trainings, and the recipe with the parts that they were trained by.

    Args:
        method: its name.
        recipe: its section of params.yaml.
        folders: part of the recipe -> folder of its model, as `params.trainings` gives them.

    Returns the models, the recipe, and each model's description with the `hash` of its tensors.
    Raises VigilError where a model is missing, damaged, or another method's.
    """
    models, descriptions = [], []
    for part, folder in folders.items():
        model, description = load_model(folder)
        if description.get("method") != method:
            stage = folder.replace("models/", "fit-")
            raise VigilError(f"{folder} holds a model of {description.get('method')}: run {stage} again")
        recipe = recipe.model_copy(update={part: type(getattr(recipe, part))(**description["recipe"])})
        hashes = [file_hash(path) for path in sorted(Path(folder).glob("*.safetensors"))]
        models.append(model)
        descriptions.append(description | {"hash": hashes})
    return models, recipe, descriptions
