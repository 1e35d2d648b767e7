"""The authors' files become the model that scoring uses, or are refused with the first thing that is wrong."""

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stages import import_checkpoint, score
from stages.io.models import load_model
from stages.methods import lgn_net, mama_destroyer, mama_generator, memory, mnad
from tests.conftest import set_params


@pytest.fixture
def small(prepared, monkeypatch):
    for method in ("mnad", "lgn_net"):
        set_params(prepared, **{f"{method}__fit__size": 32, f"{method}__fit__width": 2})
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    torch.save(memory.initial_items(10, 16)[0], "keys.pt")
    return commands


def save_as_authors(network: nn.Module, path: str, monkeypatch) -> None:
    """Pickle the whole module, its classes named as in the authors' package, which is gone afterwards."""
    name = "model.final_future_prediction_with_memory_spatial_sumonly_weight_ranking_top1"
    module = types.ModuleType(name)
    for part, class_name in ((network, "convAE"), (network.encoder, "Encoder"), (network.decoder, "Decoder")):
        copy = type(class_name, (type(part),), {"__module__": name})
        setattr(module, class_name, copy)
        part.__class__ = copy
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "model", types.ModuleType("model"))
        patch.setitem(sys.modules, name, module)
        torch.save(network, path)


def test_mnad_whole_module(small, monkeypatch):
    network = mnad.Network(width=2)
    expected = {key: value.clone() for key, value in network.state_dict().items()}
    save_as_authors(network, "model.pth", monkeypatch)
    import_checkpoint.main("mnad", [Path("model.pth"), Path("keys.pt")])
    model, description = load_model("models/mnad")
    assert all(torch.equal(model.network[key], expected[key]) for key in expected)
    assert description["origin"].startswith("imported from model.pth (sha256 ")
    assert small[0][-1] == "stages/dvc.yaml:fit-mnad"
    score.main("mnad")  # and it is the model that is scored
    assert '"model": "imported from' in Path("data/scores/mnad.json").read_text()


def test_lgn_net_state_dict(small):
    torch.save(lgn_net.Network(width=2).state_dict(), "60model.pth")
    import_checkpoint.main("lgn_net", [Path("60model.pth"), Path("keys.pt")])
    assert load_model("models/lgn_net")[1]["method"] == "lgn_net"


def test_mamas_file_becomes_the_models_of_both_trainings(small, prepared):
    for part in ("generator", "destroyer"):
        set_params(prepared, **{f"mama__{part}__width": 2})
    networks = {"net_g": mama_generator.Network(width=2), "net_a": mama_destroyer.Network(width=2)}
    content = {name: network.state_dict() for name, network in networks.items()}
    torch.save({**content, "step": 100, "a_best_auc": np.float64(0.9), "a_auc_list": [np.float64(0.9)]}, "a.pth")
    import_checkpoint.main("mama", [Path("a.pth")])
    assert [command[-1] for command in small] == [
        "stages/dvc.yaml:fit-mama-generator",
        "stages/dvc.yaml:fit-mama-destroyer",
    ]
    for part, network in zip(("generator", "destroyer"), networks.values(), strict=True):
        model, description = load_model(f"models/mama-{part}")
        assert all(torch.equal(model.network[key], tensor) for key, tensor in network.state_dict().items())
        assert (description["method"], description["part"], description["recipe"]["width"]) == ("mama", part, 2)


def test_wrong_files_are_refused(small):
    def refused(method, files, message):
        with pytest.raises(SystemExit, match=message):
            import_checkpoint.main(method, [Path(file) for file in files])
        assert not Path(f"models/{method}").exists()

    torch.save(lgn_net.Network(width=2).state_dict(), "lgn.pth")
    torch.save(mnad.Network(width=4).state_dict(), "wide.pth")
    torch.save(torch.ones(3, 16), "few.pt")
    refused(
        "mnad",
        ["lgn.pth", "keys.pt"],
        r"decoder.moduleConv.0.weight: found \(16, 16, 3, 3\), expected \(16, 32, 3, 3\)",
    )
    refused(
        "mnad",
        ["wide.pth", "keys.pt"],
        r"encoder.moduleConv1.0.weight: found \(4, 12, 3, 3\), expected \(2, 12, 3, 3\)",
    )
    refused("mnad", ["keys.pt", "keys.pt"], "expected a state dictionary")
    refused("mnad", ["lgn.pth"], "expected two")
    refused("mnad", ["wide.pth", "few.pt"], r"memory items: found \(3, 16\), expected a tensor of shape \(10, 16\)")
    refused("mnad", ["wide.pth", "lgn.pth"], "memory items: found OrderedDict")
    refused("frame_difference", ["wide.pth"], "no published checkpoint")
    refused("mndad", ["wide.pth"], "no method 'mndad'")
