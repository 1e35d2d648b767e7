"""MNAD, prediction: "Learning Memory-guided Normality for Anomaly Detection", Park, Noh, Ham, CVPR 2020.

A U-Net predicts a frame from the four before it. The features at its bottleneck are looked up in a small memory of
normal patterns, so that what was never normal is predicted badly, and lies far from every memory item.
Trained and scored as `stages.methods.memory_guided` says.

Shapes: B clips, C channels, H = W = size.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.methods import memory_guided
from stages.methods.blocks import double_conv, to_frame, upsample


class Network(memory_guided.Network):
    """Section 3.1. Attribute names are those of the authors' checkpoints."""

    input_frames = 4
    predicts = True

    def __init__(self, width: int = 64):
        super().__init__()
        self.encoder = Encoder(3 * self.input_frames, width)
        self.decoder = Decoder(width)

    def encode(self, clip: Float[Tensor, "B 12 H W"]) -> tuple[Float[Tensor, "B D h w"], tuple[Tensor, ...]]:
        """Bottleneck features, D = 8 width and h = H / 8, and the skip connections, finest first."""
        *skips, features = self.encoder(clip)
        return features, tuple(skips)

    def decode(
        self, query: Float[Tensor, "B D h w"], memory: Float[Tensor, "B D h w"], skips: tuple[Tensor, ...]
    ) -> Float[Tensor, "B 3 H W"]:
        """The predicted frame from normalised features, what the memory returned for them, and the skips."""
        return self.decoder(torch.cat([query, memory], 1), skips)


class Encoder(nn.Module):
    """Four resolutions: (B, inputs, H, W) -> width at H, 2 width at H/2, 4 width at H/4, 8 width at H/8."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.moduleConv1 = double_conv(inputs, width)
        self.moduleConv2 = double_conv(width, 2 * width)
        self.moduleConv3 = double_conv(2 * width, 4 * width)
        # the features are normalised next, so the last block ends without batch norm and ReLU; the authors
        # construct that batch norm all the same and never call it, and their checkpoints hold it
        self.moduleConv4 = double_conv(4 * width, 8 * width)[:4]
        self.moduleBatchNorm = nn.BatchNorm2d(8 * width)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All four levels, finest first."""
        level1 = self.moduleConv1(x)
        level2 = self.moduleConv2(self.pool(level1))
        level3 = self.moduleConv3(self.pool(level2))
        return level1, level2, level3, self.moduleConv4(self.pool(level3))


class Decoder(nn.Module):
    """Query and memory read, concatenated, back to a frame, with the encoder's levels as skip connections."""

    def __init__(self, width: int):
        super().__init__()
        self.moduleConv = double_conv(16 * width, 8 * width)
        self.moduleUpsample4 = upsample(8 * width, 4 * width)
        self.moduleDeconv3 = double_conv(8 * width, 4 * width)
        self.moduleUpsample3 = upsample(4 * width, 2 * width)
        self.moduleDeconv2 = double_conv(4 * width, 2 * width)
        self.moduleUpsample2 = upsample(2 * width, width)
        self.moduleDeconv1 = to_frame(2 * width, width)

    def forward(self, x: Tensor, skips: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """(B, 16 width, H/8, W/8) -> (B, 3, H, W)."""
        skip1, skip2, skip3 = skips
        x = self.moduleUpsample4(self.moduleConv(x))
        x = self.moduleUpsample3(self.moduleDeconv3(torch.cat([skip3, x], 1)))
        x = self.moduleUpsample2(self.moduleDeconv2(torch.cat([skip2, x], 1)))
        return self.moduleDeconv1(torch.cat([skip1, x], 1))


fit = partial(memory_guided.fit, Network)
score = partial(memory_guided.score, Network)
stream = partial(memory_guided.stream, Network)
cost_input = partial(memory_guided.cost_input, Network)
from_authors = memory_guided.from_authors
