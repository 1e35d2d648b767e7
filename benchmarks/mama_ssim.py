"""MAMA's Destroyer loss: ours, one call for all patches, against the published way, a call a patch and image.

    python -m benchmarks.mama_ssim [--batches 2 4] [--rounds 20] [--device auto]

Forward and backward of the loss on frames of 256 x 256 (64 patches of 32 x 32 an image), the same frames. The two are
timed in turns, round by round, first one and then the other first. Medians. Before that their losses and gradients
are compared.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.device import device, device_name
from stages.methods.mama_destroyer import CONTRAST, PATCH, SIGMA, WINDOW, drop, losses, patches

SIZE = 256
BACKGROUND = -1.0


def similarity_of_one(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity of one patch, (1, 3, 32, 32): five convolutions with the window in two dimensions."""
    place = torch.arange(WINDOW, device=first.device) - WINDOW // 2
    line = torch.exp(-place.square() / (2 * SIGMA**2))
    line = line / line.sum()
    window = torch.outer(line, line).expand(3, 1, WINDOW, WINDOW).contiguous()

    def mean(maps: Tensor) -> Tensor:
        return F.conv2d(maps, window, groups=3)

    span = 2.0 if first.min() < -0.5 else 1.0
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean1, mean2 = mean(first), mean(second)
    variance1, variance2 = mean(first * first) - mean1**2, mean(second * second) - mean2**2
    covariance = mean(first * second) - mean1 * mean2
    above = (2 * mean1 * mean2 + c1) * (2 * covariance + c2)
    return (above / ((mean1**2 + mean2**2 + c1) * (variance1 + variance2 + c2))).mean()


def one_by_one(output: Tensor, prediction: Tensor, noisy: Tensor, target: Tensor, background: float) -> Tensor:
    """The loss of all clips, patch by patch."""
    parts = [patches(frames) for frames in (output, prediction, noisy, target)]
    loss = torch.zeros((), device=output.device)
    for b in range(len(output)):
        for p in range(parts[0].shape[1]):
            of_output, of_prediction, of_noisy, of_target = (part[b : b + 1, p] for part in parts)
            destroyed = (CONTRAST * (1 - similarity_of_one(of_noisy, of_target))).clamp(max=1)
            loss = loss + destroyed * F.mse_loss(torch.full_like(of_output, background), of_output)
            loss = loss + (1 - destroyed) * F.mse_loss(of_prediction, of_output)
    return loss


def at_once(*arguments) -> Tensor:
    """The loss of all clips, as it is trained with."""
    return losses(*arguments).sum()


def frames(batch: int, on: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, prediction, the prediction with parts dropped, and the true frame; smooth, as frames are."""
    torch.manual_seed(0)
    scene = F.interpolate(torch.rand(batch, 3, SIZE // PATCH, SIZE // PATCH), (SIZE, SIZE), mode="bilinear")
    target = (2 * scene - 1 + 0.02 * torch.randn(batch, 3, SIZE, SIZE)).clamp(-1, 1)
    prediction = (target + 0.05 * torch.randn_like(target)).clamp(-1, 1)
    noisy = drop(prediction, np.random.default_rng(0))
    output = (prediction + 0.1 * torch.randn_like(target)).tanh()
    output, prediction, noisy, target = (part.to(on) for part in (output, prediction, noisy, target))
    return output.requires_grad_(), prediction, noisy, target


def passed(way: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> tuple[float, Tensor]:
    """Forward and backward; returns the loss and its gradient to the output."""
    loss = way(*inputs, BACKGROUND)
    (gradient,) = torch.autograd.grad(loss, inputs[0])
    return loss.item(), gradient


def timed(way: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> float:
    """Seconds that a pass takes; taking the loss's value waits for the GPU."""
    start = time.perf_counter()
    passed(way, inputs)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    on = device(arguments.device)
    print(f"{device_name(on)}, {SIZE} x {SIZE}, {arguments.rounds} rounds")
    for batch in arguments.batches:
        inputs = frames(batch, on)
        (loss, gradient), (their_loss, their_gradient) = (passed(way, inputs) for way in (at_once, one_by_one))
        difference = float((gradient - their_gradient).abs().max() / their_gradient.abs().max())
        assert abs(loss - their_loss) < 1e-4 * their_loss
        assert difference < 1e-3
        seconds: dict[Callable, list[float]] = {at_once: [], one_by_one: []}
        for round_ in range(arguments.rounds):
            for way in list(seconds) if round_ % 2 else reversed(seconds):
                seconds[way].append(timed(way, inputs))
        ours, theirs = (1000 * float(np.median(times)) for times in seconds.values())
        print(
            f"batch {batch}: ours {ours:.1f} ms, {batch * (SIZE // PATCH) ** 2} calls {theirs:.1f} ms: "
            f"{theirs / ours:.1f} times; losses {loss:.5f} and {their_loss:.5f}, gradients differ by {difference:.1e} "
            "of the largest"
        )


if __name__ == "__main__":
    main()
