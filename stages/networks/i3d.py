"""I3D on ResNet-50, with and without non-local blocks: snippets of a video to features.

A two-dimensional ResNet-50 whose kernels reach into time in every second block ("Quo Vadis, Action Recognition?",
Carreira, Zisserman, CVPR 2017; in this form the baseline of "Non-local Neural Networks", Wang, Girshick, Gupta, He,
CVPR 2018, table 1 and section 4). Trained on Kinetics-400 it gives the features that RTFM, S3R and most weakly
supervised methods publish.

Shapes: B snippets (or crops of them), T frames, H, W pixels, C channels; w the width, 64 as published.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

WIDTH = 64
CLASSES = 400  # of Kinetics


class I3D(nn.Module):
    """I3D ResNet-50. Attribute names are those of the published checkpoints.

    Args:
        nonlocal_blocks: the variant with five of them.
        width: channels after the first convolution; a feature has 32 times as many.
        classes: outputs of the classifier.
    """

    def __init__(self, nonlocal_blocks: bool = False, width: int = WIDTH, classes: int = CLASSES):
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, (5, 7, 7), (2, 2, 2), (2, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool1 = nn.MaxPool3d((2, 3, 3), (2, 2, 2))
        self.maxpool2 = nn.MaxPool3d((2, 1, 1), (2, 1, 1))
        # which blocks' first convolutions span three frames, and which are followed by a non-local block
        some, more = ((1, 3), (1, 3, 5)) if nonlocal_blocks else ((), ())
        self.layer1 = layer(width, 4 * width, 1, blocks=3, spanning=(0, 1, 2))
        self.layer2 = layer(4 * width, 8 * width, 2, blocks=4, spanning=(0, 2), nonlocal_after=some)
        self.layer3 = layer(8 * width, 16 * width, 2, blocks=6, spanning=(0, 2, 4), nonlocal_after=more)
        self.layer4 = layer(16 * width, 32 * width, 2, blocks=3, spanning=(1,))
        self.fc = nn.Linear(32 * width, classes)

    def features(self, snippets: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B C"]:
        """Mean over time and space of the last layer; C = 32 w.

        `snippets` are RGB as `stages.features.normalised` makes them, at least 5 frames of 33 pixels, published with
        16 frames of 224 pixels.
        """
        x = self.maxpool1(self.relu(self.bn1(self.conv1(snippets))))
        x = self.maxpool2(self.layer1(x))
        return self.layer4(self.layer3(self.layer2(x))).mean((2, 3, 4))

    def forward(self, snippets: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B K"]:
        """Class scores before the softmax."""
        return self.fc(self.features(snippets))


def layer(
    inputs: int, outputs: int, stride: int, *, blocks: int, spanning: tuple[int, ...], nonlocal_after: tuple = ()
) -> nn.Sequential:
    """Bottlenecks of one resolution; the first one changes channels and resolution."""
    return nn.Sequential(
        *(
            Bottleneck(outputs if i else inputs, outputs, 1 if i else stride, i in spanning, i in nonlocal_after)
            for i in range(blocks)
        )
    )


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the first one spans three frames where `span` says so."""

    def __init__(self, inputs: int, outputs: int, stride: int, span: bool, nonlocal_block: bool):
        super().__init__()
        inner = outputs // 4
        self.conv1 = nn.Conv3d(inputs, inner, (1 + 2 * span, 1, 1), padding=(int(span), 0, 0), bias=False)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = nn.Conv3d(inner, inner, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(inner)
        self.conv3 = nn.Conv3d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv3d(inputs, outputs, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(outputs))
            if inputs != outputs
            else nn.Identity()
        )
        self.nl = NonLocal(outputs) if nonlocal_block else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T, H, W) -> (B, outputs, T, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y)).add_(self.downsample(x))
        return self.nl(self.relu(y))


class NonLocal(nn.Module):
    """Each position takes from all positions of all frames what resembles it ("Non-local Neural Networks", eq. 6).

    Embedded Gaussian with the scaled softmax of the published configuration; keys and values are taken at half the
    resolution.
    """

    def __init__(self, channels: int):
        super().__init__()
        inner = channels // 2
        self.theta = nn.Conv3d(channels, inner, 1)
        self.maxpool = nn.MaxPool3d((1, 2, 2))
        self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        self.out = nn.Conv3d(inner, channels, 1)
        self.bn = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same shape."""
        pooled = self.maxpool(x)
        query, key, value = (part.flatten(2).mT for part in (self.theta(x), self.phi(pooled), self.g(pooled)))
        taken = nn.functional.scaled_dot_product_attention(query, key, value)
        return x + self.bn(self.out(taken.mT.unflatten(2, x.shape[2:])))


def initialise(network: I3D, seed: int) -> I3D:
    """Seeded random weights, for features without any download; in place.

    He's initialisation, with each kernel's mean taken out: after a ReLU all inputs are positive, and their common
    part would otherwise drown what tells two snippets apart (mean cosine of the demo's snippets, one crop: 0.998,
    without it 0.91). The gains keep the size of the signal from block to block.
    """
    generator = torch.Generator().manual_seed(seed)
    gains = {"conv3": 0.5, "nl.out": 0.5, "downsample.0": 0.7}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            with torch.no_grad():
                module.weight -= module.weight.flatten(1).mean(1).view(-1, *[1] * (module.weight.ndim - 1))
                # a ReLU's output of normal input has 1 - 1/pi of its power beside its mean
                module.weight *= (1 - 1 / math.pi) ** -0.5
                module.weight *= next((gain for end, gain in gains.items() if name.endswith(end)), 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def from_caffe2(blobs: dict[str, np.ndarray], keys: Iterable[str]) -> dict[str, Tensor]:
    """A state dictionary from the Caffe2 blobs of "Non-local Neural Networks".

    Momenta, learning rate and counter, which training left beside the weights, are dropped; a weight that is none of
    `keys` keeps its Caffe2 name, for a strict loading to complain about. Batch norm's counters are not in the blobs.
    """
    names = {caffe2_name(key): key for key in keys if not key.endswith("num_batches_tracked")}
    return {
        names.get(name, name): torch.from_numpy(np.asarray(blob, np.float32))
        for name, blob in blobs.items()
        if name.endswith(("_w", "_b", "_s", "_rm", "_riv"))
    }


def caffe2_name(key: str) -> str:
    """The Caffe2 blob of a parameter. Its res2 is layer1; its `riv` is the running variance, not the inverse."""
    *path, leaf = key.split(".")
    match path:
        case ["conv1"]:
            name = "conv1"
        case ["bn1"]:
            name = "res_conv1_bn"
        case ["fc"]:
            name = "pred"
        case [layer, block, "downsample", index]:
            name = f"res{_stage(layer)}_{block}_branch1" + ("_bn" if index == "1" else "")
        case [layer, block, "nl", part]:
            name = f"nonlocal_conv{_stage(layer)}_{block}_{part}"
        case [layer, block, part]:
            name = f"res{_stage(layer)}_{block}_branch2{'abc'[int(part[-1]) - 1]}" + ("_bn" if "bn" in part else "")
        case _:
            raise ValueError(f"{key} is no parameter of I3D")
    suffixes = {"weight": "s" if name.endswith("_bn") else "w", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    return f"{name}_{suffixes[leaf]}"


def _stage(layer: str) -> int:
    return int(layer.removeprefix("layer")) + 1
