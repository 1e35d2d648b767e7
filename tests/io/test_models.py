"""Models on disk, and the authors' files: what is right loads, what is wrong or hostile does not run."""

import os
import pickle
import sys
import types

import pandas as pd
import pytest
import torch
from torch import nn

from stages.command import VigilError
from stages.io.checkpoints import load_authors_file
from stages.io.models import Model, load_model, save_model


def test_round_trip_and_stable_bytes(tmp_path):
    network = {
        "b": torch.randn(2, 3).to(memory_format=torch.contiguous_format),
        "a": torch.randn(1, 4, 3, 3).to(memory_format=torch.channels_last),
    }
    model = Model(network, {"items": torch.rand(3, 2)}, pd.DataFrame({"loss": [0.5, 0.25]}))
    for name in ("one", "two"):
        save_model(tmp_path / name, model, {"method": "mnad"})
    loaded, description = load_model(tmp_path / "one")
    assert description == {"method": "mnad"}
    assert all(torch.equal(loaded.network[key], network[key]) for key in network)
    assert torch.equal(loaded.state["items"], model.state["items"])
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_failed_write_leaves_the_old_model(tmp_path):
    model = Model({"a": torch.zeros(1)}, {})
    save_model(tmp_path / "m", model, {"method": "mnad"})
    with pytest.raises(TypeError):
        save_model(tmp_path / "m", model, {"method": object()})
    assert load_model(tmp_path / "m")[1] == {"method": "mnad"}
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_damaged_model_is_named(tmp_path):
    save_model(tmp_path / "m", Model({"a": torch.zeros(100)}, {}), {})
    path = tmp_path / "m/network.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(VigilError, match="m holds no readable model"):
        load_model(tmp_path / "m")


@pytest.fixture
def authors_package(monkeypatch):
    """The authors' package `model`, which exists where they saved their files and not where we load them."""
    package, module = types.ModuleType("model"), types.ModuleType("model.Reconstruction")

    class convAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=False), nn.MaxPool2d(2))
            self.decoder = nn.Sequential(nn.ConvTranspose2d(4, 3, 3), nn.Tanh())

    convAE.__module__, convAE.__qualname__ = "model.Reconstruction", "convAE"
    module.convAE = convAE
    monkeypatch.setitem(sys.modules, "model", package)
    monkeypatch.setitem(sys.modules, "model.Reconstruction", module)
    return convAE


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("zipped", [True, False])
def test_whole_pickled_module_gives_its_tensors(tmp_path, authors_package, monkeypatch, zipped):
    network = authors_package()
    torch.save(network, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    expected = network.state_dict()
    monkeypatch.delitem(sys.modules, "model.Reconstruction")
    monkeypatch.delitem(sys.modules, "model")
    loaded = load_authors_file(tmp_path / "model.pth")
    assert list(loaded) == list(expected)
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_tensors_and_state_dicts(tmp_path, zipped):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    torch.save(torch.ones(3), tmp_path / "keys.pt", _use_new_zipfile_serialization=zipped)
    assert torch.equal(load_authors_file(tmp_path / "a.pth")["a"], torch.ones(2))
    assert torch.equal(load_authors_file(tmp_path / "keys.pt"), torch.ones(3))


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, exec, getattr, __import__])
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch, function, zipped):
    monkeypatch.chdir(tmp_path)
    arguments = {
        os.system: ("touch ran",),
        os.mkdir: ("ran",),
        eval: ("__import__('os').mkdir('ran')",),
        exec: ("import os; os.mkdir('ran')",),
        getattr: (os, "getcwd"),
        __import__: ("os",),
    }[function]
    try:
        torch.save({"weights": Hostile(function, *arguments)}, "bad.pth", _use_new_zipfile_serialization=zipped)
    except (TypeError, pickle.PicklingError):
        torch.save({"weights": Hostile(function, "ran")}, "bad.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(VigilError, match=r"refused: .* nothing of it was executed"):
        load_authors_file("bad.pth")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "page.pth").write_text("<html>Google Drive - Quota exceeded</html>")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"a": torch.ones(1000)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:2000])
    for name in ("page.pth", "empty.pth", "cut.pth"):
        with pytest.raises(VigilError, match=name):
            load_authors_file(tmp_path / name)
    with pytest.raises(VigilError, match="not found"):
        load_authors_file(tmp_path / "none.pth")
