"""S3R's training step: ours, against the original's way of doing the same work.

    python -m benchmarks.s3r_step [--batch 2] [--crops 10] [--slots 158] [--rounds 5]

Full-size network, the same weights and videos: `batch` normal and `batch` abnormal ones of 32 segments; the published
batch is 32. The original's way, written here from the description of its code: every video brings its own copy of the
dictionary, whose keys and values are made for each video; what is normal of a snippet goes through the convolutions as
2048 channels, not as the weights of its mixture; the two projections that nothing uses are parameters too (a gradient
they never get, so that the optimiser only holds them); Adam goes through the parameters one by one or in groups as
PyTorch chooses. A step is forward, losses, backward, and Adam. Timed as
`benchmarks.turns` says. Before that their losses and gradients are compared.
"""

import argparse
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.turns import Work, in_turns
from stages.device import device, device_name
from stages.io.features import CHANNELS
from stages.methods.s3r import GROUPS, SEGMENTS, Network, Output, losses

WEIGHTS = (1.0, 1e-4, 8e-4, 8e-3, 1.0)
DROPOUT = 0.7


class Original(Network):
    """The original's way. The same parameters, and those that nothing uses."""

    def __init__(self, dropout: float):
        super().__init__(512, dropout)
        self.video_projection, self.macro_projection = (
            nn.Sequential(nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1), nn.GroupNorm(GROUPS, CHANNELS), nn.ReLU())
            for _ in range(2)
        )

    def step(self, videos: Tensor, dictionary: Tensor) -> Output:
        """Scores and features."""
        crops = videos.shape[:2]
        module = self.en_normal.en_normal_module
        copies = dictionary.expand(len(videos), *dictionary.shape).contiguous()
        query = module.query_embedding(videos.flatten(1, 2))
        key, value = module.cache_embedding(copies), module.value_embedding(copies)
        macro = ((query @ key.mT).softmax(-1) @ value).unflatten(1, videos.shape[1:3]).flatten(0, 1)
        video = self.video_embedding(videos.flatten(0, 1).mT)
        macro = self.macro_embedding(macro.mT)
        gate = self.de_normal(video.mean(2) - macro.mean(2))[:, :, None]
        video, macro = (gate * video).mT, ((1 - gate) * macro).mT
        scores = self.video_classifier(video).sigmoid().squeeze(2).unflatten(0, crops).mean(1)
        normal = self.macro_classifier(macro.mean(1)).sigmoid().squeeze(1).unflatten(0, crops).mean(1)
        return Output(scores, normal, video.unflatten(0, crops), video.norm(dim=2).unflatten(0, crops).mean(1))


class Ours(Network):
    """As `stages.methods.s3r` trains it."""

    def __init__(self, dropout: float):
        super().__init__(512, dropout)

    def step(self, videos: Tensor, dictionary: Tensor) -> Output:
        """Scores and features."""
        return self(videos, *self.read(dictionary))


def built(way: type[Ours] | type[Original], dropout: float, on: torch.device) -> nn.Module:
    """The network, its parameters by their names, so that both ways have the same."""
    torch.manual_seed(0)
    network = way(dropout)
    generator = torch.Generator().manual_seed(1)
    named = dict(network.named_parameters())
    for name in sorted(name for name in named if "projection" not in name):
        if named[name].ndim > 1:
            bound = (6 / (named[name][0].numel() + named[name][:, 0].numel())) ** 0.5
            nn.init.uniform_(named[name], -bound, bound, generator=generator)
    return network.to(on).train()


def inputs(arguments: argparse.Namespace, batch: int, on: torch.device) -> tuple[Tensor, Tensor]:
    """Videos, and a dictionary with two non-zeros in a channel."""
    torch.manual_seed(2)
    videos = torch.rand(2 * batch, arguments.crops, SEGMENTS, CHANNELS)
    dictionary = torch.zeros(arguments.slots, CHANNELS)
    for channel in range(CHANNELS):
        dictionary[torch.randperm(arguments.slots)[:2], channel] = torch.randn(2)
    return videos.to(on), dictionary.to(on)


def loss_of(network: nn.Module, videos: Tensor, dictionary: Tensor, dropout: float) -> Tensor:
    """The weighted sum of all terms, with its gradients taken."""
    loss = torch.tensor(WEIGHTS, device=videos.device) @ losses(network.step(videos, dictionary), dropout)  # pyright: ignore[reportCallIssue]
    loss.backward()
    return loss


def ready(way: type[Ours] | type[Original], arguments: argparse.Namespace, on: torch.device) -> Work:
    """A step."""
    network = built(way, DROPOUT, on)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3, weight_decay=5e-3, fused=True if way is Ours else None)
    videos, dictionary = inputs(arguments, arguments.batch, on)

    def step() -> None:
        optimiser.zero_grad()
        loss_of(network, videos, dictionary, DROPOUT)
        optimiser.step()

    return step


def agree(arguments: argparse.Namespace, on: torch.device) -> float:
    """The largest difference of the two ways' gradients without dropout, of a parameter's largest."""
    videos, dictionary = inputs(arguments, 1, on)
    results = []
    for way in (Ours, Original):
        network = built(way, 0.0, on)
        loss = loss_of(network, videos, dictionary, 0.0)
        results.append((loss, {name: p.grad for name, p in network.named_parameters() if "projection" not in name}))
    (ours, own), (theirs, others) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    # a parameter with hardly any gradient is all rounding
    largest = max(float(gradient.abs().max()) for gradient in others.values())
    return max(float((own[name] - others[name]).abs().max()) for name in own) / largest


def main() -> None:
    """Compare, time, print."""
    parser = argparse.ArgumentParser(description="S3R's training step: ours, against the original's way.")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--crops", type=int, default=10)
    parser.add_argument("--slots", type=int, default=158)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    on = device(arguments.device)
    print(
        f"{device_name(on)}, {arguments.batch} + {arguments.batch} videos of {arguments.crops} crops, "
        f"{arguments.slots} slots, {arguments.rounds} rounds"
    )
    difference = agree(arguments, on)
    ways = {way.__name__: partial(ready, way, arguments) for way in (Ours, Original)}
    found = in_turns(ways, arguments.rounds, arguments.device)
    (seconds, memory), (their_seconds, their_memory) = found["Ours"], found["Original"]
    print(
        f"a step: ours {seconds:.2f} s, {memory:.2f} GB; the original's way {their_seconds:.2f} s, "
        f"{their_memory:.2f} GB: {their_seconds / seconds:.2f} times the time, {their_memory / memory:.2f} times the "
        f"memory; gradients differ by {difference:.1e} of the largest"
    )


if __name__ == "__main__":
    main()
