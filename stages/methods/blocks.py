"""Convolution blocks that several methods' networks are built of. Their indices name published parameters."""

from torch import nn


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions with bias, each followed by batch norm and ReLU; (B, inputs, H, W) -> (B, outputs, H, W)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def upsample(inputs: int, outputs: int) -> nn.Sequential:
    """Transposed 3x3 convolution, batch norm, ReLU; (B, inputs, H, W) -> (B, outputs, 2H, 2W)."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def to_frame(inputs: int, width: int) -> nn.Sequential:
    """Three 3x3 convolutions to a colour frame in (-1, 1); (B, inputs, H, W) -> (B, 3, H, W)."""
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, 3, 3, padding=1),
        nn.Tanh(),
    )
