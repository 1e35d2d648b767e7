"""The memory: worked out by hand, its invariances, and a few numbers of the authors' module."""

from zlib import crc32

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.methods import memory
from stages.methods.lgn_net import STLSTMCell

E = np.e


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_read_by_hand():
    items = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    queries = torch.tensor([[[1.0, 0.0]]])
    # similarities 1 and 0: softmax gives e / (e + 1) and 1 / (e + 1)
    assert torch.allclose(memory.read(queries, items), torch.tensor([[[E / (E + 1), 1 / (E + 1)]]]))


def test_update_by_hand():
    items = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    queries = torch.tensor([[[1.0, 0.0], [0.8, 0.6]]])
    # both are nearest to item 0, with weights 1 and exp(0.8 - 1); item 1 has none and stays
    expected = F.normalize(torch.tensor([1 + 1 + np.exp(-0.2) * 0.8, np.exp(-0.2) * 0.6]), dim=0).float()
    updated = memory.update(queries, items)
    assert torch.allclose(updated[0, 0], expected)
    assert torch.allclose(updated[0, 1], items[0, 1])


def test_update_weighs_against_the_best_of_all_queries():
    items = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    # 45.1 degrees: nearest to item 1; the other query is the best for item 1 too, though both count
    angle = np.deg2rad(45.1)
    queries = torch.tensor([[[np.cos(angle), np.sin(angle)], [0.0, 1.0]]], dtype=torch.float32)
    weight = np.exp(np.sin(angle) - 1)
    expected = np.array([weight * np.cos(angle), 1 + 1 + weight * np.sin(angle)])
    assert np.allclose(memory.update(queries, items)[0, 1], expected / np.linalg.norm(expected), atol=1e-6)


def test_losses_by_hand():
    items = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    queries = torch.tensor([[[0.6, 0.8]]])
    # nearest is item 1: squared distances 0.36 and 0.04, mean 0.2; the other item is at sqrt(0.16 + 0.64)
    assert memory.compactness(queries, items).item() == pytest.approx(0.2, abs=1e-6)
    near, far = np.sqrt(0.36 + 0.04), np.sqrt(0.16 + 0.64)
    assert memory.separateness(queries, items).item() == pytest.approx(near - far + 1, abs=1e-5)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_order_of_queries_does_not_matter(seed, count):
    queries, items = unit(1, count, 8, seed=seed), unit(1, 5, 8, seed=seed + 1)
    shuffled = queries[:, torch.randperm(count, generator=torch.Generator().manual_seed(seed))]
    assert torch.allclose(memory.update(queries, items), memory.update(shuffled, items), atol=1e-6)


def test_several_memories_at_once_equal_one_by_one():
    queries, items = unit(1, 30, 8), unit(3, 5, 8, seed=1)
    for function in (memory.read, memory.update, memory.compactness):
        together = function(queries, items)
        apart = torch.cat([function(queries, one[None]) for one in items])
        assert torch.allclose(together, apart, atol=1e-6)


def test_items_stay_unit_and_get_no_gradient():
    queries, items = unit(1, 30, 8).requires_grad_(), unit(1, 5, 8, seed=1).requires_grad_()
    assert torch.allclose(memory.update(queries, items).norm(dim=-1), torch.ones(1, 5))
    assert not memory.read(queries, items).requires_grad
    (memory.compactness(queries, items).sum() + memory.separateness(queries, items)).backward()
    assert items.grad is None
    assert queries.grad.abs().sum() > 0


def test_maps_round_trip():
    features = torch.randn(2, 8, 3, 4)
    assert torch.allclose(memory.as_map(memory.queries_of(features), 3, 4), F.normalize(features, dim=1))


def authors_normal(name: str, *shape: int, gain: float = 1.0) -> torch.Tensor:
    """The draw from which the authors' modules were given their weights and inputs when these numbers were taken."""
    generator = np.random.Generator(np.random.PCG64(crc32(name.encode())))
    return torch.tensor(generator.standard_normal(shape) * gain, dtype=torch.float32)


def test_numbers_of_the_authors_memory():
    queries = memory.queries_of(authors_normal("mnad-memory/query", 2, 512, 6, 7))
    items = F.normalize(authors_normal("mnad-memory/keys_raw", 10, 512), dim=-1)
    items[9] = -F.normalize(queries[0].mean(0), dim=-1)
    items = items[None]
    assert memory.compactness(queries, items).item() == pytest.approx(0.003649127, abs=4e-8)
    assert memory.separateness(queries, items).item() == pytest.approx(0.9823219, abs=1e-5)
    found = memory.update(queries, items)
    assert found.mean().item() == pytest.approx(-0.0002166166, abs=2e-6)
    assert found.std(correction=0).item() == pytest.approx(0.04419364, abs=2e-6)


def test_numbers_of_the_authors_st_lstm():
    cell = STLSTMCell(128)
    weights = {}
    for key, value in cell.state_dict().items():
        weights[key] = authors_normal(key, *value.shape, gain=np.sqrt(2 / np.prod(value.shape[1:])))
    cell.load_state_dict(weights)
    x = authors_normal("lgn-stlstm-unit/x", 3, 1, 128, 16, 20)
    h = c = m = torch.zeros_like(x[0])
    with torch.no_grad():
        for frame in x:
            h, c, m = cell(frame, h, c, m)
    assert h.mean().item() == pytest.approx(0.000125064, abs=2e-5)
    assert h.std(correction=0).item() == pytest.approx(0.3173653, abs=2e-5)
