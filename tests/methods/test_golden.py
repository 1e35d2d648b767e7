"""MNAD and LGN-Net against numbers from the authors' own networks."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.clips import Clips
from stages.methods import lgn_net, memory, mnad, mnad_recon
from stages.methods.memory_guided import components, input_and_target, losses
from tests.golden import SHARED, assert_golden, filled, golden, needs_golden, needs_ped2, published_keys

pytestmark = needs_golden

NETWORKS = {
    "mnad-prediction": (mnad.Network, 15_651_843),
    "mnad-reconstruction": (mnad_recon.Network, 17_196_291),
    "lgn-net": (lgn_net.Network, 22_753_667),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_keys_are_the_published_ones(name):
    network_class, parameters = NETWORKS[name]
    network = network_class()
    found = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert found == published_keys(name)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_network_memory_losses_and_gradients(name):
    file = golden(name)
    network = filled(NETWORKS[name][0](), name)
    x, items = torch.tensor(file.input("x")), torch.tensor(file.input("keys"))[None]
    target = torch.tensor(file.input("target")) if network.predicts else x
    features, around = network.encode(x)
    frame, queries = network.recall(features, around, items)
    read = memory.as_map(memory.read(queries, items), *features.shape[-2:])
    query = memory.as_map(queries, *features.shape[-2:])
    prediction, compact, separate = losses(frame, target, queries, items)
    updated = memory.update(queries, items)[0]
    found = {
        "output": frame,
        "fea": features,
        "updated_fea": torch.cat([query, read], 1),
        "test_compactness": compact[None],
        "test_updated_keys": updated,
        "train_output": frame,
        "train_updated_keys": updated,
        "train_compactness": compact[None],
        "train_separateness": separate[None],
        "train_loss_pixel": prediction[None],
    }
    if name == "lgn-net":
        found |= {"updated_orig": read, "st_features": around[0]}
    assert_golden(file, found)
    lambdas = {"mnad-prediction": (0.1, 0.1), "mnad-reconstruction": (0.1, 0.1), "lgn-net": (10, 5)}[name]
    loss = prediction + lambdas[0] * compact + lambdas[1] * separate
    loss.backward()
    norms = [0.0 if p.grad is None else p.grad.norm().item() for p in network.parameters()]
    assert_golden(file, {"train_loss_total": loss[None], "train_grad_norms": np.array(norms)})


def test_memory_alone():
    file = golden("mnad-memory")
    raw = torch.tensor(file.input("query"))
    queries = memory.queries_of(raw)
    items = F.normalize(torch.tensor(file.input("keys_raw")), dim=-1)
    items[9] = -F.normalize(queries[0].mean(0), dim=-1)  # an item that no query is nearest to
    items = items[None]
    nearest = (queries @ items.mT).argmax(-1)[0]
    updated = memory.update(queries, items)[0]
    found = {
        "argmax": nearest,
        "slot_counts": torch.bincount(nearest, minlength=10),
        "pred_updated_query": torch.cat(
            [memory.as_map(queries, 6, 7), memory.as_map(memory.read(queries, items), 6, 7)], 1
        ),
        "pred_updated_memory": updated,
        "pred_separateness": memory.separateness(queries, items)[None],
        "pred_compactness": memory.compactness(queries, items),
        "recon_test_update": updated,
    }
    assert_golden(file, found)
    assert torch.allclose(updated[9], items[0, 9], atol=1e-6)
    for shift in range(10):
        items = memory.update(memory.queries_of(raw.roll(shift, -1)), items)
    assert_golden(file, {"chained_10_updates": items[0]})


def test_st_lstm_cell():
    file = golden("lgn-stlstm-unit")
    cell = filled(lgn_net.STLSTMCell(128), "lgn-stlstm-unit")
    x = torch.tensor(file.input("x"))
    h = c = m = torch.zeros_like(x[0])
    found = {}
    for t in range(3):
        h, c, m = cell(x[t], h, c, m)
        found |= {f"h{t}": h, f"c{t}": c, f"m{t}": m}
    assert_golden(file, found)


@needs_ped2
@torch.inference_mode()
def test_scoring_loop_on_real_frames():
    file = golden("score-mnad-evalloop")
    network = filled(mnad.Network(), "mnad-prediction")
    items = torch.tensor(file.input("keys"))[None]
    paths = sorted((SHARED / "data/ped2/training/frames/01").iterdir())[:10][::-1]
    pixels = np.stack([cv2.resize(cv2.imread(str(path)), (256, 256)) for path in paths])
    clips = Clips({"01": pixels}, 5)
    rows = []
    for index in clips.in_order(1):
        x, target = input_and_target(clips.read(index, torch.device("cpu")), 4)
        frame, queries = network.recall(*network.encode(x), items)
        psnr, distance, error = components(frame, target[0], queries, items)
        learns = error < file.meta["th"]
        items = memory.update(queries, items) if learns else items
        rows.append((psnr.item(), distance.item(), error.item(), learns.item()))
    psnr, distance, error, learnt = np.array(rows).T
    assert_golden(
        file,
        {"psnr": psnr, "compactness": distance, "point_score": error, "updated": learnt, "final_keys": items[0]},
    )


def test_weighted_error():
    file = golden("score-mnad")
    frame, target = torch.tensor(file.input("outputs")), torch.tensor(file.input("imgs"))[0]
    queries = items = F.normalize(torch.ones(1, 2, 4), dim=-1)
    psnr, _, error = components(frame, target, queries, items)
    assert_golden(file, {"point_score": error, "frame_psnr": psnr})
