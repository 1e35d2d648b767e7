"""I3D: the published keys, numbers from the original network, and both forms of its weights."""

import numpy as np
import pytest
import torch

from stages.networks.i3d import I3D, caffe2_name, from_caffe2, initialise
from tests.golden import assert_golden, filled, golden, needs_golden, published_keys

VARIANTS = {"i3d-resnet50": (False, 28_043_472), "i3d-resnet50-nonlocal": (True, 35_401_936)}


def small(nonlocal_blocks: bool, seed: int = 0) -> I3D:
    """Every parameter and running statistic has a value of its own."""
    network = I3D(nonlocal_blocks, width=4, classes=5).eval()
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return network


@needs_golden
@pytest.mark.parametrize("name", VARIANTS)
def test_keys_are_the_published_ones(name):
    nonlocal_blocks, parameters = VARIANTS[name]
    network = I3D(nonlocal_blocks)
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == published_keys(name)
    assert sum(p.numel() for p in network.parameters()) == parameters


@needs_golden
@pytest.mark.parametrize("name", VARIANTS)
@torch.inference_mode()
def test_numbers_of_the_original(name):
    file = golden(name)
    network = filled(I3D(VARIANTS[name][0]), name)
    found = {}
    places = ["conv1", "maxpool1", "layer1", "maxpool2", "layer2", "layer3", "layer4"]
    for place in places:
        getattr(network, place).register_forward_hook(
            # a copy: batch norm's ReLU and the sum of the branches work in place
            lambda module, inputs, output, place=place: found.__setitem__(place, output.clone())
        )
    if VARIANTS[name][0]:
        block = network.layer2[1].nl
        block.register_forward_pre_hook(lambda module, inputs: found.__setitem__("layer2_1_nl_in", inputs[0].clone()))
        block.register_forward_hook(lambda module, i, output: found.__setitem__("layer2_1_nl_out", output.clone()))
    feature = network.features(torch.tensor(file.input("x")))
    assert_golden(file, {**found, "feature": feature, "logits": network.fc(feature)})
    assert set(found) | {"feature", "logits"} == set(file.values)


@pytest.mark.parametrize("nonlocal_blocks", [False, True])
def test_caffe2_blobs_give_the_same_network(nonlocal_blocks):
    source, network = small(nonlocal_blocks), I3D(nonlocal_blocks, width=4, classes=5)
    blobs = {
        caffe2_name(key): value.numpy()
        for key, value in source.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    momenta = {f"{name}_momentum": blob for name, blob in blobs.items()}
    state = from_caffe2({**blobs, **momenta, "lr": np.float32(0.1), "model_iter": np.int64(9)}, network.state_dict())
    network.load_state_dict(state)
    loaded = network.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in source.state_dict().items() if "num_b" not in key)


@pytest.mark.parametrize(
    ("key", "blob"),
    [
        ("conv1.weight", "conv1_w"),
        ("bn1.running_var", "res_conv1_bn_riv"),
        ("layer1.0.downsample.0.weight", "res2_0_branch1_w"),
        ("layer4.0.downsample.1.running_mean", "res5_0_branch1_bn_rm"),
        ("layer1.2.conv1.weight", "res2_2_branch2a_w"),
        ("layer3.5.bn3.weight", "res4_5_branch2c_bn_s"),
        ("layer2.1.nl.theta.bias", "nonlocal_conv3_1_theta_b"),
        ("layer3.3.nl.bn.weight", "nonlocal_conv4_3_bn_s"),
        ("fc.weight", "pred_w"),
    ],
)
def test_names_of_caffe2_blobs(key, blob):
    assert caffe2_name(key) == blob


def test_weights_of_the_other_variant_are_refused():
    blobs = {
        caffe2_name(key): value.numpy() for key, value in small(True).state_dict().items() if "num_batches" not in key
    }
    network = small(False)
    with pytest.raises(RuntimeError, match="nonlocal_conv3_1_theta_w"):
        network.load_state_dict(from_caffe2(blobs, network.state_dict()))


@torch.inference_mode()
def test_non_local_block_by_hand():
    block = small(True).layer2[1].nl
    x = torch.rand(2, 32, 2, 4, 6)
    pooled = torch.nn.functional.max_pool3d(x, (1, 2, 2))

    def linear(convolution, y):
        return torch.einsum("oc,bcthw->bothw", convolution.weight[:, :, 0, 0, 0], y) + convolution.bias.view(
            -1, 1, 1, 1
        )

    query, key, value = linear(block.theta, x), linear(block.phi, pooled), linear(block.g, pooled)
    attention = torch.einsum("bcthw,bcsij->bthwsij", query, key) / 16**0.5
    attention = attention.flatten(4).softmax(-1).view(attention.shape)
    taken = linear(block.out, torch.einsum("bthwsij,bcsij->bcthw", attention, value))
    assert torch.allclose(block(x), x + block.bn(taken), atol=1e-5)


@torch.inference_mode()
def test_crops_do_not_see_each_other_and_time_matters():
    network = initialise(I3D(width=4), 0).eval()
    x = torch.rand(3, 3, 16, 48, 48, generator=torch.Generator().manual_seed(0))
    features = network.features(x)
    assert features.shape == (3, 128)
    assert torch.allclose(network.features(x[1:2]), features[1:2], atol=1e-5)
    assert not torch.allclose(network.features(x.flip(2)), features, atol=1e-2)


@torch.inference_mode()
def test_random_weights_follow_the_seed_and_keep_the_signal():
    networks = [initialise(I3D(True), seed).eval() for seed in (0, 0, 1)]
    x = torch.randn(2, 3, 16, 40, 40, generator=torch.Generator().manual_seed(0))
    first, again, other = (network.features(x) for network in networks)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert 0.1 < first.std() < 10
