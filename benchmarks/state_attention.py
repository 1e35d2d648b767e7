"""STATE's attention: ours, a sum of two maps a pair of frames, against the published way, a convolution a pair.

    python -m benchmarks.state_attention [--batch 128] [--layers 3] [--rounds 5]

The layers of one stream at published size (7 frames, 128 channels, 4 heads, 8 x 8), whole, and their attention alone.
Forward and backward, the same weights and input, timed as `benchmarks.turns` says. Before that their outputs and
gradients are compared.
"""

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.turns import Work, in_turns
from stages.device import device, device_name
from stages.methods.state import POSITIONS, SLOPE, Attention, Layer

CHANNELS, HEADS, FRAMES, SIZE = 128, 4, 7, 8


class PairAttention(Attention):
    """The published way: head by head, the query and the key of every pair of frames joined and convolved."""

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """As `Attention.forward`."""
        batch, frames, channels, height, width = x.shape
        size = channels // self.heads
        place = position[:, :, None, None]
        outputs = []
        for head, z in enumerate(x.split(size, 2)):
            flat, own = z.flatten(0, 1), slice(head * size, (head + 1) * size)
            query = F.conv2d(flat, self.query.weight[own], self.query.bias[own], padding=1)
            value = F.conv2d(flat, self.key_value.weight[own], self.key_value.bias[own], padding=1)
            query = F.leaky_relu(query, SLOPE).view(z.shape)
            value = F.leaky_relu(value, SLOPE).view(z.shape)
            pairs = (batch, frames, frames, size, height, width)
            joined = torch.cat(
                [(query + place)[:, :, None].expand(pairs), (value + place)[:, None].expand(pairs)], 3
            ).flatten(0, 2)
            logits = F.conv2d(joined, self.pair.weight[head : head + 1], self.pair.bias[head : head + 1], padding=1)
            weights = F.leaky_relu(logits, SLOPE).view(batch, frames, frames, 1, height, width).softmax(2)
            outputs.append((weights * value[:, None]).sum(2))
        return torch.cat(outputs, 2)


class Layers(nn.Module):
    """The layers of a stream's encoder, or their attention alone."""

    def __init__(self, layers: int, attention: type[Attention], alone: bool):
        super().__init__()
        built = [Layer(CHANNELS, HEADS) for _ in range(layers)]
        for layer in built:
            layer.attention = attention(CHANNELS, HEADS)
        self.layers = nn.ModuleList([layer.attention for layer in built] if alone else built)
        self.position = nn.Embedding(POSITIONS, CHANNELS // HEADS)

    def forward(self, x: Tensor) -> Tensor:
        """The last layer's output."""
        for layer in self.layers:
            x = layer(x, self.position.weight[:FRAMES])
        return x


def built(layers: int, attention: type[Attention], alone: bool, batch: int, on: torch.device) -> tuple[Layers, Tensor]:
    torch.manual_seed(0)
    network = Layers(layers, attention, alone)
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    x = torch.randn(batch, FRAMES, CHANNELS, SIZE, SIZE)
    return network.to(on), x.to(on).requires_grad_()


def passed(network: Layers, x: Tensor) -> Tensor:
    """Forward and backward; returns the output."""
    output = network(x)
    output.square().mean().backward()
    return output


def ready(layers: int, attention: type[Attention], alone: bool, batch: int, on: torch.device) -> Work:
    """One pass, once the libraries are loaded."""
    passed(*built(layers, attention, alone, 1, on))
    return partial(passed, *built(layers, attention, alone, batch, on))


def agree(layers: int, alone: bool, on: torch.device) -> float:
    """The largest difference of the two ways' gradients to the input, relative to the largest of them."""
    results = []
    for attention in (Attention, PairAttention):
        network, x = built(layers, attention, alone, 2, on)
        output = passed(network, x)
        results.append((output, x.grad))
    (ours, our_gradient), (theirs, their_gradient) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-2, atol=1e-3 * float(their_gradient.abs().max()))
    return float((our_gradient - their_gradient).abs().max() / their_gradient.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    on = device(arguments.device)
    print(f"{device_name(on)}, {arguments.layers} layers, batch {arguments.batch}, {arguments.rounds} rounds")
    for alone in (False, True):
        difference = agree(arguments.layers, alone, on)
        ways = {
            name: partial(ready, arguments.layers, attention, alone, arguments.batch)
            for name, attention in (("ours", Attention), ("pairs", PairAttention))
        }
        found = in_turns(ways, arguments.rounds, arguments.device)
        (seconds, memory), (their_seconds, their_memory) = found["ours"], found["pairs"]
        print(
            f"{'attention alone' if alone else 'whole layers':16s} ours {1000 * seconds:.0f} ms, "
            f"{memory:.2f} GB; a convolution a pair {1000 * their_seconds:.0f} ms, {their_memory:.2f} GB: "
            f"{their_seconds / seconds:.1f} times the time, {their_memory / memory:.1f} times the memory; "
            f"gradients differ by {difference:.1e} of the largest"
        )


if __name__ == "__main__":
    main()
