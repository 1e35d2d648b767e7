"""LGN-Net: "Local-Global Normality Network for Video Anomaly Detection", Zhao et al., arXiv 2211.07454.

Two branches predict a frame from the four before it. The global branch is MNAD's encoder and memory, but decodes
only what the memory returns; the local branch follows motion frame by frame with a spatio-temporal LSTM.
Trained and scored as `stages.methods.memory_guided` says.

Because the read carries no gradient and the query is not decoded, the pixel loss does not reach the global
encoder: compactness and separateness alone train it, as in the authors' code.

Shapes: B clips, C channels, H = W = size.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.methods import memory_guided
from stages.methods.blocks import double_conv, to_frame, upsample
from stages.methods.mnad import Encoder

CELLS = 4  # stacked ST-LSTM cells


class Network(memory_guided.Network):
    """Attribute names are those of the authors' checkpoints."""

    input_frames = 4
    predicts = True

    def __init__(self, width: int = 64):
        super().__init__()
        self.encoder = Encoder(3 * self.input_frames, width)
        self.decoder = Decoder(width)
        self.pred = LocalBranch(width)
        self.st_decoder = nn.Sequential(*upsample(4 * width, 2 * width), *upsample(2 * width, width))

    def encode(self, clip: Float[Tensor, "B 12 H W"]) -> tuple[Float[Tensor, "B D h w"], tuple[Tensor, ...]]:
        """Global features, D = 8 width and h = H / 8, and the local branch's feature map at full resolution."""
        return self.encoder(clip)[-1], (self.st_decoder(self.pred(clip)),)

    def decode(
        self, query: Float[Tensor, "B D h w"], memory: Float[Tensor, "B D h w"], local: tuple[Tensor, ...]
    ) -> Float[Tensor, "B 3 H W"]:
        """The predicted frame from what the memory returned, without the query, and the local features."""
        return self.decoder(memory, *local)


class Decoder(nn.Module):
    """(B, 8 width, H/8, W/8) and the local features (B, width, H, W) -> (B, 3, H, W)."""

    def __init__(self, width: int):
        super().__init__()
        self.moduleConv = double_conv(8 * width, 8 * width)
        self.moduleUpsample4 = upsample(8 * width, 4 * width)
        self.moduleDeconv3 = double_conv(4 * width, 4 * width)
        self.moduleUpsample3 = upsample(4 * width, 2 * width)
        self.moduleDeconv2 = double_conv(2 * width, 2 * width)
        self.moduleUpsample2 = upsample(2 * width, width)
        self.moduleDeconv1 = to_frame(2 * width, width)

    def forward(self, x: Tensor, local: Tensor) -> Tensor:
        """The local features join at full resolution."""
        x = self.moduleUpsample4(self.moduleConv(x))
        x = self.moduleUpsample3(self.moduleDeconv3(x))
        x = self.moduleUpsample2(self.moduleDeconv2(x))
        return self.moduleDeconv1(torch.cat([x, local], 1))


class LocalBranch(nn.Module):
    """Each frame encoded alone, then stacked ST-LSTM cells over time; (B, 12, H, W) -> (B, 4 width, H/4, W/4)."""

    def __init__(self, width: int):
        super().__init__()

        def conv(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

        self.encoder = nn.Sequential(
            *conv(3, width, 2), *conv(width, width, 1), *conv(width, 2 * width, 2), *conv(2 * width, 2 * width, 1)
        )
        self.convlstm_list = nn.ModuleList(STLSTMCell(2 * width) for _ in range(CELLS))

    def forward(self, clip: Tensor) -> Tensor:
        """The hidden state of the top cell and the spatio-temporal memory after the last frame.

        The memory runs in zigzag: up through the cells within a frame, then on to the lowest cell of the next.
        """
        # frame by frame also in batch norm: in training each frame is normalised by its own statistics
        frames = [self.encoder(frame) for frame in clip.split(3, dim=1)]
        memory = torch.zeros_like(frames[0])
        states = [(memory, memory)] * CELLS
        for hidden in frames:
            for i, cell in enumerate(self.convlstm_list):
                hidden, carry, memory = cell(hidden, *states[i], memory)
                states[i] = hidden, carry
        return torch.cat([hidden, memory], 1)


class STLSTMCell(nn.Module):
    """A spatio-temporal LSTM cell (PredRNN, Wang et al., NeurIPS 2017) without biases or layer norm."""

    def __init__(self, channels: int):
        super().__init__()

        def gates(inputs: int, count: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, count * channels, 3, padding=1, bias=False))

        self.conv_x = gates(channels, 7)
        self.conv_h = gates(channels, 4)
        self.conv_m = gates(channels, 3)
        self.conv_o = gates(2 * channels, 1)
        self.conv_last = nn.Conv2d(2 * channels, channels, 1, bias=False)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Input, hidden state, temporal memory c, spatio-temporal memory m -> the new h, c, m; all (B, C, H, W)."""
        i_x, f_x, g_x, i_xm, f_xm, g_xm, o_x = self.conv_x(x).chunk(7, dim=1)
        i_h, f_h, g_h, o_h = self.conv_h(h).chunk(4, dim=1)
        i_m, f_m, g_m = self.conv_m(m).chunk(3, dim=1)
        c = (f_x + f_h + 1).sigmoid() * c + (i_x + i_h).sigmoid() * (g_x + g_h).tanh()
        m = (f_xm + f_m + 1).sigmoid() * m + (i_xm + i_m).sigmoid() * (g_xm + g_m).tanh()
        both = torch.cat([c, m], 1)
        h = (o_x + o_h + self.conv_o(both)).sigmoid() * self.conv_last(both).tanh()
        return h, c, m


fit = partial(memory_guided.fit, Network)
score = partial(memory_guided.score, Network)
stream = partial(memory_guided.stream, Network)
cost_input = partial(memory_guided.cost_input, Network)
from_authors = memory_guided.from_authors
