import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.networks.flownet2 import (
    UNIT,
    FlowNet2,
    FlowNetSD,
    channel_norm,
    correlation,
    enlarged,
    fusion_input,
    normalised,
    resample,
    with_warped,
)
from tests.golden import assert_golden, filled, golden, needs_golden, published_keys


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_correlation(a, b):
    """The definition, in float64, a pixel at a time."""
    a, b = a.double(), b.double()
    B, C, H, W = a.shape
    found = torch.zeros(B, 441, H, W, dtype=torch.float64)
    for j in range(-10, 11):
        for i in range(-10, 11):
            for y in range(H):
                for x in range(W):
                    y2, x2 = y + 2 * j, x + 2 * i
                    if 0 <= y2 < H and 0 <= x2 < W:
                        dot = (a[:, :, y, x] * b[:, :, y2, x2]).sum(1)
                        found[:, (j + 10) * 21 + i + 10, y, x] = dot / C
    return found


def slow_resample(image, flow):
    """FlowNet2's kernel, in float64: four clamped indices, weights from the position as it is."""
    image, flow = image.double(), flow.double()
    B, _, H, W = image.shape
    found = torch.zeros_like(image)
    for n in range(B):
        for y in range(H):
            for x in range(W):
                u, v = x + flow[n, 0, y, x].item(), y + flow[n, 1, y, x].item()
                left, top = math.floor(u), math.floor(v)
                alpha, beta = u - left, v - top
                for row, down in ((top, 1 - beta), (top + 1, beta)):
                    for column, right in ((left, 1 - alpha), (left + 1, alpha)):
                        pixel = image[n, :, min(max(row, 0), H - 1), min(max(column, 0), W - 1)]
                        found[n, :, y, x] += down * right * pixel
    return found


@pytest.mark.parametrize("shape", [(2, 3, 5, 9), (1, 4, 26, 3), (1, 1, 1, 1)])
def test_correlation_is_its_definition(shape):
    a, b = random(*shape), random(*shape, seed=1)
    torch.testing.assert_close(correlation(a, b).double(), slow_correlation(a, b), atol=1e-6, rtol=0)


def test_correlation_of_mirrored_images_is_the_mirrored_correlation():
    a, b = random(1, 4, 24, 28), random(1, 4, 24, 28, seed=1)
    there = correlation(a, b).unflatten(1, (21, 21))
    back = correlation(a.flip(-1), b.flip(-1)).unflatten(1, (21, 21))
    torch.testing.assert_close(back, there.flip(2, -1))


def test_correlation_finds_a_shift():
    a = random(1, 128, 48, 48)
    best = correlation(a, a.roll((6, -4), (2, 3)))[:, :, 20:-20, 20:-20].argmax(1)
    assert (best == (10 + 3) * 21 + (10 - 2)).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.5, 3.0, 40.0]))
def test_resample_is_the_kernel_with_clamped_indices(seed, scale):
    image, flow = random(2, 2, 6, 7, seed=seed), random(2, 2, 6, 7, seed=seed + 1, scale=scale)
    torch.testing.assert_close(resample(image, flow).double(), slow_resample(image, flow), atol=2e-5, rtol=0)


def test_resample_by_whole_pixels():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    torch.testing.assert_close(resample(image, flow), image)
    flow[:, 0], flow[:, 1] = 1, -1  # one to the right, one up; beyond the border: the border
    expected = torch.tensor([[1.0, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]]).view(1, 1, 3, 4)
    torch.testing.assert_close(resample(image, flow), expected)


def test_channel_norm():
    x = torch.tensor([3.0, 4.0, 12.0]).view(1, 3, 1, 1)
    assert channel_norm(x).item() == 13


def test_normalised_takes_out_the_mean_of_both_frames_and_orders_the_channels():
    pair = random(2, 3, 2, 4, 4, scale=255)
    x = normalised(pair)
    assert x.shape == (2, 6, 4, 4)
    torch.testing.assert_close((x[:, :3] + x[:, 3:]).mean((2, 3)), torch.zeros(2, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(x[1, 4] - x[1, 1], (pair[1, 1, 1] - pair[1, 1, 0]) / 255)


def test_mamas_input_is_twice_the_contrast():
    frames = torch.randint(0, 256, (1, 3, 2, 8, 8)).float()
    torch.testing.assert_close(normalised((frames / 127.5 - 1) * 255), normalised(2 * frames), atol=1e-5, rtol=0)


def test_inputs_of_the_later_networks():
    x, flow = random(1, 6, 8, 8), random(1, 2, 8, 8)
    warped = resample(x[:, 3:], flow)
    left = (x[:, :3] - warped).pow(2).sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(with_warped(x, flow), torch.cat([x, warped, flow / 20, left], 1))
    still = torch.zeros_like(flow)
    found = fusion_input(x, still, flow)
    assert found.shape == (1, 11, 8, 8)
    torch.testing.assert_close(found[:, [9, 10]], torch.cat([channel_norm(x[:, :3] - x[:, 3:]), left], 1))
    torch.testing.assert_close(found[:, 3:9], torch.cat([still, flow, still[:, :1], channel_norm(flow)], 1))


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_pair_does_not_depend_on_its_batch(align_corners):
    torch.manual_seed(0)
    network = FlowNet2(width=4, align_corners=align_corners).eval()
    pairs = random(2, 3, 2, 64, 128, scale=80) + 128
    flow = network(pairs)
    assert flow.shape == (2, 2, 64, 128)
    torch.testing.assert_close(flow[1:], network(pairs[1:]), atol=1e-5, rtol=1e-4)
    assert [level.shape[-2:] for level in network.flownets_d(normalised(pairs))] == [
        (16, 32), (8, 16), (4, 8), (2, 4), (1, 2)
    ]  # fmt: skip


def test_corners_are_kept_only_if_aligned():
    flow = random(1, 2, 4, 4)
    corners = enlarged(flow, True)[..., ::15, ::15]
    torch.testing.assert_close(corners, flow[..., ::3, ::3])
    torch.testing.assert_close(enlarged(flow, False), F.interpolate(flow, size=(16, 16), mode="bilinear"))


@needs_golden
@pytest.mark.parametrize(("name", "build", "count"), [("flownet2", FlowNet2, 220), ("flownet2-sd", FlowNetSD, 60)])
def test_keys_are_the_published_ones(name, build, count):
    with torch.device("meta"):
        found = {key: tuple(value.shape) for key, value in build().state_dict().items()}
    assert found == published_keys(name)
    assert len(found) == count


@needs_golden
def test_golden_operations():
    file = golden("flownet2-ops")
    a, b, image, flow = (torch.tensor(file.input(name)) for name in ("a", "b", "image", "flow"))
    flow[:, :, :4, :4] = flow[:, :, :4, :4].round()
    found = correlation(a, b)
    outputs = {
        "correlation": found,
        "correlation_channels": found.pow(2).mean((0, 2, 3)).sqrt(),
        "resample2d": resample(image, flow),
        "channelnorm": channel_norm(a),
    }
    assert set(outputs) == set(file.values)
    assert_golden(file, outputs)


@pytest.fixture(scope="module")
def small_displacements():
    return filled(FlowNetSD(), "flownet2-sd")


@needs_golden
@pytest.mark.parametrize(("name", "scale"), [("flownet2-sd", 1), ("flownet2sd-mama", 255)])
def test_golden_flownet2_sd(name, scale, small_displacements):
    file = golden(name)
    levels = small_displacements(normalised(scale * torch.tensor(file.input("pair"))))
    flow = enlarged(UNIT * levels[0], align_corners=False)
    outputs = {"flow": flow, "motion": flow / 255} | {f"flow{n}": level for n, level in enumerate(levels, 2)}
    assert_golden(file, {key: value for key, value in outputs.items() if key in file.values})


@needs_golden
def test_golden_flownet2():
    file = golden("flownet2")
    network = filled(FlowNet2(), "flownet2")
    seen = {}
    for name in ("flownetc", "flownetc.conv3", "flownets_1", "flownets_2", "flownets_d", "flownetfusion"):
        network.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)})
        )
    flow = network(torch.tensor(file.input("pair")))
    first, second, fused = (seen[name][0] for name in ("flownets_1", "flownets_2", "flownetfusion"))
    x = first[:, :6]
    outputs = {
        "corr": correlation(*seen["flownetc.conv3"][1].chunk(2)),
        "flownetc_flow2": seen["flownetc"][1][0],
        "flownetc_flow": UNIT * first[:, 9:11],
        "warped1": first[:, 6:9],
        "flownets1_flow2": seen["flownets_1"][1][0],
        "flownets1_flow": UNIT * second[:, 9:11],
        "warped2": second[:, 6:9],
        "flownets2_flow2": seen["flownets_2"][1][0],
        "flownets2_flow": fused[:, 5:7],
        "warped_s2": resample(x[:, 3:], fused[:, 5:7]),
        "flownetsd_flow2": seen["flownets_d"][1][0],
        "flownetsd_flow": fused[:, 3:5],
        "warped_sd": resample(x[:, 3:], fused[:, 3:5]),
        "concat3": fused,
        "flow": flow,
    }
    assert set(outputs) == set(file.values)
    assert_golden(file, outputs)
