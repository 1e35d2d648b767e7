"""Convolution blocks that several methods' networks are built of. Their indices name published parameters."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def double_conv(inputs: int, outputs: int, bias: bool = True) -> nn.Sequential:
    """Two 3x3 convolutions, each followed by batch norm and ReLU; (B, inputs, H, W) -> (B, outputs, H, W)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias),
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


class DoubleConv(nn.Module):
    """`double_conv` without bias, under the names of MAMA's U-Nets."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = double_conv(inputs, outputs, bias=False)

    def forward(self, x: Float[Tensor, "B inputs H W"]) -> Float[Tensor, "B outputs H W"]:
        """Features of the same height and width."""
        return self.conv(x)


class First(nn.Module):
    """A U-Net's first block."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = DoubleConv(inputs, outputs)

    def forward(self, x: Float[Tensor, "B inputs H W"]) -> Float[Tensor, "B outputs H W"]:
        """Features of the same height and width."""
        return self.conv(x)


class Down(nn.Module):
    """A U-Net's block on the way down: the largest of 2 x 2, then the convolutions."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.mpconv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(inputs, outputs))

    def forward(self, x: Float[Tensor, "B inputs H W"]) -> Float[Tensor, "B outputs H//2 W//2"]:
        """Features of half the height and width."""
        return self.mpconv(x)


class Up(nn.Module):
    """A U-Net's block on the way up: enlarged by two, joined after what skipped the way, then the convolutions."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        self.conv = DoubleConv(inputs, outputs)

    def forward(
        self, x: Float[Tensor, "B inputs h w"], skip: Float[Tensor, "B outputs 2*h 2*w"]
    ) -> Float[Tensor, "B outputs 2*h 2*w"]:
        """Features of twice the height and width of `x`; inputs = 2 outputs."""
        return self.conv(torch.cat([skip, self.up(x)], 1))
