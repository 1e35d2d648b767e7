"""The adapter for mmcv's compiled kernels against what mmcv documents, written out slowly in 64 bits.

The kernels are called through mmcv's own functions, so these tests hold for a full mmcv as well.
"""

import importlib.util
import math
import sys
import warnings
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.networks import mmcv_ops

mmcv_ops.install()
with warnings.catch_warnings(action="ignore"):  # PyTorch's, about what mmcv imports of it
    from mmcv import ops


def slow_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list[int]:
    """From the highest score down, the earlier first on ties: keep a box unless a kept one overlaps it by more."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(slow_iou(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def slow_iou(a: np.ndarray, b: np.ndarray, offset: int) -> float:
    def area(x1, y1, x2, y2):
        return max(x2 - x1 + offset, 0) * max(y2 - y1 + offset, 0)

    common = area(*np.maximum(a, b)[:2], *np.minimum(a, b)[2:])
    return common / (area(*a) + area(*b) - common)


def slow_roi_align(features, rois, size, scale, sampling, aligned, mode):
    """Average or maximum of bilinear samples, evenly spread over each of the bins of a region."""
    out = np.zeros((len(rois), features.shape[1], *size))
    shift = 0.5 if aligned else 0.0
    for n, (image, x1, y1, x2, y2) in enumerate(rois):
        left, top = x1 * scale - shift, y1 * scale - shift
        width, height = x2 * scale - shift - left, y2 * scale - shift - top
        if not aligned:
            width, height = max(width, 1), max(height, 1)
        rows = sampling or math.ceil(height / size[0])
        columns = sampling or math.ceil(width / size[1])
        for i, j in np.ndindex(*size):
            values = [
                bilinear(
                    features[int(image)],
                    top + (i + (a + 0.5) / rows) * height / size[0],
                    left + (j + (b + 0.5) / columns) * width / size[1],
                )
                for a in range(rows)
                for b in range(columns)
            ]
            if values:
                out[n, :, i, j] = np.mean(values, 0) if mode == "avg" else np.max(values, 0)
    return out


def bilinear(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """One sample (C,): 0 where it is more than a pixel outside, the border's value nearer by."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(len(image))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    y, x = y - top, x - left
    (a, b), (c, d) = image[:, top : top + 2, left : left + 2].transpose(1, 2, 0)
    return (1 - y) * ((1 - x) * a + x * b) + y * ((1 - x) * c + x * d)


CORNERS = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 10)] * 2)
SCORED = st.lists(st.tuples(CORNERS, st.sampled_from([0.1, 0.4, 0.5, 0.9]), st.integers(0, 2)), max_size=25)


def as_arrays(scored):
    """Whole-numbered boxes overlap by exactly the threshold now and then; few scores and classes make ties."""
    boxes = np.array([[x, y, x + w, y + h] for (x, y, w, h), *_ in scored], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in scored], np.float32)
    return boxes, scores, np.array([number for *_, number in scored], np.int64)


@given(SCORED, st.sampled_from([0.0, 0.25, 0.5, 0.6, 0.7]), st.sampled_from([0, 1]))
@settings(max_examples=200)
def test_nms(scored, threshold, offset):
    boxes, scores, _ = as_arrays(scored)
    found, kept = ops.nms(boxes, scores, threshold, offset)
    assert kept.tolist() == slow_nms(boxes.astype(float), scores, threshold, offset)
    assert (found == np.c_[boxes, scores][kept]).all()


@given(SCORED.filter(len), st.sampled_from([0.25, 0.5, 0.6]), st.sampled_from([-1, 3]))
@settings(max_examples=200)
def test_nms_within_a_class(scored, threshold, most):
    boxes, scores, classes = as_arrays(scored)
    config = {"type": "nms", "iou_threshold": threshold, "max_num": most}
    found, kept = ops.batched_nms(*map(torch.from_numpy, (boxes, scores, classes)), config)
    expected = []
    for number in set(classes):
        members = np.flatnonzero(classes == number)
        expected += [members[i] for i in slow_nms(boxes[members].astype(float), scores[members], threshold, 0)]
    expected = sorted(expected, key=lambda i: (-scores[i], i))[: most if most > 0 else None]
    assert kept.tolist() == expected
    assert (found.numpy() == np.c_[boxes, scores][expected]).all()


@pytest.mark.parametrize(("threshold", "kept"), [(0.6, [0, 1]), (0.59, [0])])
def test_a_box_at_exactly_the_threshold_stays(threshold, kept):
    boxes = np.array([[0, 0, 5, 1], [0, 0, 3, 1]], np.float32)  # intersection over union 3 / 5
    assert ops.nms(boxes, np.array([0.9, 0.8], np.float32), threshold)[1].tolist() == kept


def test_offset_counts_the_last_pixel():
    boxes = np.array([[0, 0, 9, 9], [5, 0, 14, 9]], np.float32)  # 4 / 14 of lengths, 5 / 15 of pixels
    scores = np.array([0.9, 0.8], np.float32)
    assert len(ops.nms(boxes, scores, 0.3, offset=0)[1]) == 2
    assert len(ops.nms(boxes, scores, 0.3, offset=1)[1]) == 1


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("size", "sampling", "scale"), [((7, 7), 0, 0.25), ((2, 3), 0, 1.0), ((3, 2), 2, 0.5)])
def test_roi_align(size, sampling, scale, aligned, mode):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 3, 9, 12))
    low = rng.uniform(-8, 30, (20, 2)) / scale / 4
    rois = np.c_[rng.integers(0, 2, 20), low, low + rng.uniform(0.3, 60, (20, 2)) / scale / 4].astype(np.float32)
    layer = ops.RoIAlign(size, scale, sampling, pool_mode=mode, aligned=aligned)
    found = layer(torch.from_numpy(features).float(), torch.from_numpy(rois))
    expected = slow_roi_align(features, rois.astype(float), size, scale, sampling, aligned, mode)
    assert found.shape == (20, 3, *size)
    assert np.abs(found.numpy() - expected).max() < 1e-4
    assert np.abs(expected).max() > 1


def test_roi_align_by_hand():
    """Mean of a ramp over a region is the ramp at its centre; pixel centres at halves, or at whole numbers."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    roi = torch.tensor([[0, 2.0, 2.0, 6.0, 6.0]])
    assert ops.RoIAlign(1, 1.0, aligned=True)(ramp, roi).item() == 3.5
    assert ops.RoIAlign(1, 1.0, aligned=False)(ramp, roi).item() == 4.0
    assert ops.RoIAlign(1, 1.0, aligned=True, pool_mode="max")(ramp, roi).item() == 5.0
    point = torch.tensor([[0, 2.0, 2.0, 2.0, 2.0]])
    assert ops.RoIAlign(1, 1.0, aligned=True)(ramp, point).item() == 0.0  # no samples
    assert ops.RoIAlign(1, 1.0, aligned=False)(ramp, point).item() == 2.5  # at least one pixel


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_no_boxes(mode):
    assert ops.nms(np.empty((0, 4), np.float32), np.empty(0, np.float32), 0.5)[1].shape == (0,)
    assert ops.RoIAlign(7, 0.25, pool_mode=mode)(torch.ones(1, 4, 8, 8), torch.empty(0, 5)).shape == (0, 4, 7, 7)


@pytest.mark.skipif(not isinstance(sys.modules["mmcv._ext"], mmcv_ops.Extension), reason="a full mmcv is installed")
def test_what_is_not_there_says_so():
    with pytest.raises(NotImplementedError, match="softnms needs a full mmcv"):
        ops.soft_nms(np.zeros((1, 4), np.float32), np.ones(1, np.float32))


def test_what_is_installed_stays(monkeypatch):
    assert importlib.util.find_spec("mmcv._ext") is not None
    before = sys.modules["mmcv._ext"]
    mmcv_ops.install()
    assert sys.modules["mmcv._ext"] is before
    compiled = ModuleType("mmcv._ext")
    compiled.__spec__ = importlib.util.spec_from_loader("mmcv._ext", loader=None)
    monkeypatch.setitem(sys.modules, "mmcv._ext", compiled)
    mmcv_ops.install()
    assert sys.modules["mmcv._ext"] is compiled
