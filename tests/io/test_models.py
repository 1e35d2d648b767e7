"""Models on disk, and the authors' files: what is right loads, what is wrong or hostile does not run."""

import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from stages.command import VigilError
from stages.io.checkpoints import load_arrays, load_authors_file
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


def test_numpy_numbers_beside_tensors(tmp_path):
    content = {"net_g": {"a": torch.ones(2)}, "auc_list": [np.float64(0.5), np.float32(0.25)], "scores": np.arange(3)}
    torch.save(content, tmp_path / "a.pth")
    loaded = load_authors_file(tmp_path / "a.pth")
    assert loaded["auc_list"] == [0.5, 0.25]
    assert loaded["scores"].tolist() == [0, 1, 2]
    assert torch.equal(loaded["net_g"]["a"], torch.ones(2))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickled_arrays(tmp_path, protocol):
    content = {"blobs": {"conv1_w": np.arange(6, dtype=np.float32).reshape(2, 3), "name": "conv", "lr": np.float64(2)}}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    loaded = load_arrays(tmp_path / "a.pkl")["blobs"]
    assert loaded["conv1_w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (loaded["name"], loaded["lr"]) == ("conv", 2)


def test_python_2_pickles_are_read(tmp_path):
    # pickle.dumps({"blobs": {"w": numpy.float32([1, 2])}}, 2) of Python 2: arrays' bytes are 8-bit text
    (tmp_path / "a.pkl").write_bytes(
        b"\x80\x02}q\x00U\x05blobsq\x01}q\x02U\x01wq\x03cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\n"
        b"q\x05K\x00\x85q\x06U\x01bq\x07\x87q\x08Rq\t(K\x01K\x02\x85q\ncnumpy\ndtype\nq\x0bU\x02f4q\x0cK\x00K\x01\x87"
        b"q\rRq\x0e(K\x03U\x01<q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x89U\x08\x00\x00\x80?\x00\x00"
        b"\x00@q\x11tq\x12bss."
    )
    assert load_arrays(tmp_path / "a.pkl")["blobs"]["w"].tolist() == [1, 2]


def test_object_arrays_and_plain_ones(tmp_path):
    ragged = np.empty(2, object)
    ragged[0], ragged[1] = np.ones((2, 4)), np.zeros((0, 4))
    np.save(tmp_path / "boxes.npy", ragged)
    np.save(tmp_path / "plain.npy", np.arange(3))
    loaded = load_arrays(tmp_path / "boxes.npy")
    assert [boxes.shape for boxes in loaded] == [(2, 4), (0, 4)]
    assert load_arrays(tmp_path / "plain.npy").tolist() == [0, 1, 2]


@pytest.mark.parametrize("function", [os.mkdir, eval, getattr])
@pytest.mark.parametrize("suffix", [".npy", ".pkl"])
def test_nothing_in_a_file_of_arrays_is_executed(tmp_path, monkeypatch, function, suffix):
    monkeypatch.chdir(tmp_path)
    hostile = Hostile(function, "__import__('os').mkdir('ran')")
    if suffix == ".npy":
        content = np.empty(1, object)
        content[0] = hostile
        np.save("bad.npy", content, allow_pickle=True)
    else:
        Path("bad.pkl").write_bytes(pickle.dumps(hostile))
    with pytest.raises(VigilError, match=r"refused: .* nothing of it was executed"):
        load_arrays("bad" + suffix)
    assert list(tmp_path.iterdir()) == [tmp_path / ("bad" + suffix)]


def test_what_is_no_file_of_arrays_is_named(tmp_path):
    (tmp_path / "text.npy").write_text("boxes")
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps(np.arange(1000))[:500])
    for name in ("text.npy", "cut.pkl"):
        with pytest.raises(VigilError, match=name):
            load_arrays(tmp_path / name)
    with pytest.raises(VigilError, match="not found"):
        load_arrays(tmp_path / "none.npy")


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
