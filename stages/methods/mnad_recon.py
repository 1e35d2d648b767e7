"""MNAD, reconstruction: the paper of `stages.methods.mnad`, with one frame in and the same frame out.

Without skip connections, which would let the input through: the decoder's upsamplings keep their width instead.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.methods import memory_guided
from stages.methods.blocks import double_conv, to_frame, upsample
from stages.methods.mnad import Encoder


class Network(memory_guided.Network):
    """Attribute names are those of the authors' checkpoints."""

    input_frames = 1
    predicts = False

    def __init__(self, width: int = 64):
        super().__init__()
        self.encoder = Encoder(3 * self.input_frames, width)
        self.decoder = Decoder(width)

    def encode(self, frame: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B D h w"], tuple[Tensor, ...]]:
        """Bottleneck features, D = 8 width and h = H / 8; nothing goes round the memory."""
        return self.encoder(frame)[-1], ()

    def decode(
        self, query: Float[Tensor, "B D h w"], memory: Float[Tensor, "B D h w"], skips: tuple[Tensor, ...]
    ) -> Float[Tensor, "B 3 H W"]:
        """The reconstructed frame from normalised features and what the memory returned for them."""
        return self.decoder(torch.cat([query, memory], 1))


class Decoder(nn.Module):
    """(B, 16 width, H/8, W/8) -> (B, 3, H, W)."""

    def __init__(self, width: int):
        super().__init__()
        self.moduleConv = double_conv(16 * width, 8 * width)
        self.moduleUpsample4 = upsample(8 * width, 8 * width)
        self.moduleDeconv3 = double_conv(8 * width, 4 * width)
        self.moduleUpsample3 = upsample(4 * width, 4 * width)
        self.moduleDeconv2 = double_conv(4 * width, 2 * width)
        self.moduleUpsample2 = upsample(2 * width, 2 * width)
        self.moduleDeconv1 = to_frame(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Coarse to fine."""
        x = self.moduleUpsample4(self.moduleConv(x))
        x = self.moduleUpsample3(self.moduleDeconv3(x))
        x = self.moduleUpsample2(self.moduleDeconv2(x))
        return self.moduleDeconv1(x)


fit = partial(memory_guided.fit, Network)
score = partial(memory_guided.score, Network)
stream = partial(memory_guided.stream, Network)
cost_input = partial(memory_guided.cost_input, Network)
from_authors = memory_guided.from_authors
