"""FlowNet2: "Evolution of Optical Flow Estimation with Deep Networks", Ilg et al., CVPR 2017, without a compiler.

A stack of networks: FlowNetC compares two images by correlation, two FlowNetS refine its flow on the warped second
image, FlowNetSD looks for small motions beside them, and a fusion network decides at each pixel. FlowNetSD alone,
with its flow enlarged, is what is called FlowNet2-SD. Attribute names are those of the published checkpoints.

Shapes: B pairs, C channels, H, W multiples of 64. A pair is (B, 3, 2, H, W): image 0 and image 1, values 0..255,
blue first or red first as the weights want it. Flow has x (to the right), then y (down), from image 0 to image 1.
Level n is at 1 / 2^n of the resolution. Networks of the stack give flow in units of 20 pixels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

UNIT = 20  # pixels; what the networks of the stack call 1 ("div_flow" of the published training code)
REACH = 10  # steps of the correlation in each direction
STEP = 2  # pixels of level 3 a step


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution and leaky ReLU; the size is divided by the stride."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2), nn.LeakyReLU(0.1, inplace=True))


def deconv(inputs: int, outputs: int) -> nn.Sequential:
    """Transposed convolution to twice the size, and leaky ReLU."""
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.1, inplace=True))


def inter_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution without activation, between features and prediction."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1))


def predict_flow(inputs: int) -> nn.Conv2d:
    """From features to flow."""
    return nn.Conv2d(inputs, 2, 3, padding=1)


def upsampled_flow(bias: bool = True) -> nn.ConvTranspose2d:
    """Flow to twice the size, by learnt weights."""
    return nn.ConvTranspose2d(2, 2, 4, 2, 1, bias=bias)


def correlation(a: Float[Tensor, "B C H W"], b: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 441 H W"]:
    """Mean over channels of a(y, x) b(y + 2 j, x + 2 i) for i, j = -10..10, zero outside; channel 21 (j + 10) + i + 10.

    FlowNet, section 3, equation 1, with a kernel of one pixel. For each j, one matrix product per image row compares
    all pixels of the row with all of the other image's row; the displacements wanted are on its diagonals.
    """
    B, C, H, W = a.shape
    pad, side = REACH * STEP, 2 * REACH + 1
    rows = a.permute(0, 2, 3, 1).contiguous() / C
    others = F.pad(b, [pad] * 4).permute(0, 2, 1, 3).contiguous()
    found = a.new_empty(B, side, side, H, W)
    for j in range(side):
        products = rows @ others[:, STEP * j : STEP * j + H]  # (B, H, W, W + 2 pad)
        length = products.shape[-1]
        diagonals = products.as_strided((B, H, W, side), (H * W * length, W * length, length + 1, STEP))
        found[:, j] = diagonals.permute(0, 3, 1, 2)
    return found.flatten(1, 2)


def resample(image: Float[Tensor, "B C H W"], flow: Float[Tensor, "B 2 H W"]) -> Float[Tensor, "B C H W"]:
    """The image seen at (x + u, y + v), bilinear; what lies outside has the value of the nearest border pixel.

    FlowNet2's kernel clamps the indices of the four neighbours and keeps the weights. Neighbours beyond the border
    are then one pixel twice, with weights that sum to 1: the same as clamping the position.
    """
    H, W = image.shape[-2:]
    x = torch.arange(W, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    y = torch.arange(H, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
    grid = torch.stack([2 * x / (W - 1) - 1, 2 * y / (H - 1) - 1], -1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def channel_norm(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
    """Euclidean norm over channels."""
    return torch.linalg.vector_norm(x, dim=1, keepdim=True)


def normalised(pair: Float[Tensor, "B 3 2 H W"]) -> Float[Tensor, "B 6 H W"]:
    """Image 0 and image 1 without their common mean a channel, over 255."""
    x = (pair - pair.mean((2, 3, 4), keepdim=True)) / 255
    return torch.cat([x[:, :, 0], x[:, :, 1]], 1)


def enlarged(flow: Float[Tensor, "B 2 h w"], align_corners: bool) -> Float[Tensor, "B 2 H W"]:
    """Flow at four times the resolution, bilinear; the values stay."""
    return F.interpolate(flow, scale_factor=4, mode="bilinear", align_corners=align_corners)


def with_warped(x: Float[Tensor, "B 6 H W"], flow: Float[Tensor, "B 2 H W"]) -> Float[Tensor, "B 12 H W"]:
    """Input of FlowNetS, section 4: the images, image 1 warped by the flow so far, that flow, and what it leaves."""
    warped = resample(x[:, 3:], flow)
    return torch.cat([x, warped, flow / UNIT, channel_norm(x[:, :3] - warped)], 1)


def fusion_input(
    x: Float[Tensor, "B 6 H W"], small: Float[Tensor, "B 2 H W"], large: Float[Tensor, "B 2 H W"]
) -> Float[Tensor, "B 11 H W"]:
    """Input of the fusion network, section 5: image 0, both flows, their lengths, and what they leave."""
    left = [channel_norm(x[:, :3] - resample(x[:, 3:], flow)) for flow in (small, large)]
    return torch.cat([x[:, :3], small, large, channel_norm(small), channel_norm(large), *left], 1)


class FlowNet(nn.Module):
    """What C, S and SD share: levels 3 to 6 of the encoder, and the decoder back to level 2.

    Args:
        width: channels of the first level.
        level3: channels that `conv3_1` is given.
        inter: whether a convolution stands between features and prediction.
        bias: whether the upsampling of the flow has one.
    """

    def __init__(self, width: int, level3: int, inter: bool = False, bias: bool = True):
        super().__init__()
        self.conv3_1 = conv(level3, 4 * width)
        self.conv4, self.conv4_1 = conv(4 * width, 8 * width, stride=2), conv(8 * width, 8 * width)
        self.conv5, self.conv5_1 = conv(8 * width, 8 * width, stride=2), conv(8 * width, 8 * width)
        self.conv6, self.conv6_1 = conv(8 * width, 16 * width, stride=2), conv(16 * width, 16 * width)
        self.predict_flow6 = predict_flow(16 * width)
        features = 16 * width
        for level, skip, up in ((5, 8, 8), (4, 8, 4), (3, 4, 2), (2, 2, 1)):
            self.add_module(f"deconv{level}", deconv(features, up * width))
            self.add_module(f"upsampled_flow{level + 1}_to_{level}", upsampled_flow(bias))
            features = (skip + up) * width + 2
            self.add_module(f"inter_conv{level}", inter_conv(features, up * width) if inter else nn.Identity())
            self.add_module(f"predict_flow{level}", predict_flow(up * width if inter else features))

    def decode(self, level2: Float[Tensor, "B C2 h w"], level3: Float[Tensor, "B C3 _ _"]) -> tuple[Tensor, ...]:
        """Flow at levels 2, 3, 4, 5, 6, from the encoder's features at level 2 and the input of `conv3_1`."""
        conv3 = self.conv3_1(level3)
        conv4 = self.conv4_1(self.conv4(conv3))
        conv5 = self.conv5_1(self.conv5(conv4))
        features = self.conv6_1(self.conv6(conv5))
        flows = [self.predict_flow6(features)]
        for level, skip in ((5, conv5), (4, conv4), (3, conv3), (2, level2)):
            up = self.get_submodule(f"upsampled_flow{level + 1}_to_{level}")(flows[-1])
            features = torch.cat([skip, self.get_submodule(f"deconv{level}")(features), up], 1)
            inter = self.get_submodule(f"inter_conv{level}")(features)
            flows.append(self.get_submodule(f"predict_flow{level}")(inter))
        return tuple(reversed(flows))


class FlowNetC(FlowNet):
    """Features of each image, compared by correlation: large motions. (B, 6, H, W) -> flow at levels 2 to 6."""

    def __init__(self, width: int = 64):
        super().__init__(width, width // 2 + (2 * REACH + 1) ** 2)
        self.conv1, self.conv2 = conv(3, width, 7, 2), conv(width, 2 * width, 5, 2)
        self.conv3 = conv(2 * width, 4 * width, 5, 2)
        self.conv_redir = conv(4 * width, width // 2, 1)

    def forward(self, x: Float[Tensor, "B 6 H W"]) -> tuple[Tensor, ...]:
        """See the class."""
        level2 = self.conv2(self.conv1(torch.cat([x[:, :3], x[:, 3:]])))
        a, b = self.conv3(level2).chunk(2)
        compared = F.leaky_relu(correlation(a, b), 0.1)
        return self.decode(level2[: len(x)], torch.cat([self.conv_redir(a), compared], 1))


class FlowNetS(FlowNet):
    """A plain encoder and decoder on `with_warped`. (B, 12, H, W) -> flow at levels 2 to 6."""

    def __init__(self, width: int = 64):
        super().__init__(width, 4 * width, bias=False)
        self.conv1, self.conv2 = conv(12, width, 7, 2), conv(width, 2 * width, 5, 2)
        self.conv3 = conv(2 * width, 4 * width, 5, 2)

    def forward(self, x: Float[Tensor, "B 12 H W"]) -> tuple[Tensor, ...]:
        """See the class."""
        level2 = self.conv2(self.conv1(x))
        return self.decode(level2, self.conv3(level2))


class FlowNetSD(FlowNet):
    """Small kernels throughout: small displacements. (B, 6, H, W) -> flow at levels 2 to 6.

    FlowNet2-SD is `enlarged(UNIT * FlowNetSD()(normalised(pair))[0], align_corners=False)`, in pixels.
    """

    def __init__(self, width: int = 64):
        super().__init__(width, 4 * width, inter=True)
        self.conv0 = conv(6, width)
        self.conv1, self.conv1_1 = conv(width, width, stride=2), conv(width, 2 * width)
        self.conv2, self.conv2_1 = conv(2 * width, 2 * width, stride=2), conv(2 * width, 2 * width)
        self.conv3 = conv(2 * width, 4 * width, stride=2)

    def forward(self, x: Float[Tensor, "B 6 H W"]) -> tuple[Tensor, ...]:
        """See the class."""
        level2 = self.conv2_1(self.conv2(self.conv1_1(self.conv1(self.conv0(x)))))
        return self.decode(level2, self.conv3(level2))


class Fusion(nn.Module):
    """Which flow is right at a pixel: `fusion_input` -> flow in pixels, at full resolution."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.conv0 = conv(11, width)
        self.conv1, self.conv1_1 = conv(width, width, stride=2), conv(width, 2 * width)
        self.conv2, self.conv2_1 = conv(2 * width, 2 * width, stride=2), conv(2 * width, 2 * width)
        self.predict_flow2 = predict_flow(2 * width)
        self.deconv1, self.upsampled_flow2_to_1 = deconv(2 * width, width // 2), upsampled_flow()
        features = 2 * width + width // 2 + 2
        self.inter_conv1, self.predict_flow1 = inter_conv(features, width // 2), predict_flow(width // 2)
        self.deconv0, self.upsampled_flow1_to_0 = deconv(features, width // 4), upsampled_flow()
        features = width + width // 4 + 2
        self.inter_conv0, self.predict_flow0 = inter_conv(features, width // 4), predict_flow(width // 4)

    def forward(self, x: Float[Tensor, "B 11 H W"]) -> Float[Tensor, "B 2 H W"]:
        """See the class."""
        conv0 = self.conv0(x)
        conv1 = self.conv1_1(self.conv1(conv0))
        conv2 = self.conv2_1(self.conv2(conv1))
        flow2 = self.predict_flow2(conv2)
        features = torch.cat([conv1, self.deconv1(conv2), self.upsampled_flow2_to_1(flow2)], 1)
        flow1 = self.predict_flow1(self.inter_conv1(features))
        features = torch.cat([conv0, self.deconv0(features), self.upsampled_flow1_to_0(flow1)], 1)
        return self.predict_flow0(self.inter_conv0(features))


class FlowNet2(nn.Module):
    """The whole stack: a pair -> flow in pixels, at full resolution.

    Args:
        width: channels of each network's first level, 64 as published; a multiple of 4.
        align_corners: how the flow of one network is enlarged for the next: True as in PyTorch 0.3, False since.
    """

    def __init__(self, width: int = 64, align_corners: bool = False):
        super().__init__()
        self.align_corners = align_corners
        self.flownetc = FlowNetC(width)
        self.flownets_1 = FlowNetS(width)
        self.flownets_2 = FlowNetS(width)
        self.flownets_d = FlowNetSD(width)
        self.flownetfusion = Fusion(width)

    def forward(self, pair: Float[Tensor, "B 3 2 H W"]) -> Float[Tensor, "B 2 H W"]:
        """See the class."""
        x = normalised(pair)
        flow = enlarged(UNIT * self.flownetc(x)[0], self.align_corners)
        flow = enlarged(UNIT * self.flownets_1(with_warped(x, flow))[0], self.align_corners)
        large = F.interpolate(UNIT * self.flownets_2(with_warped(x, flow))[0], scale_factor=4)
        # FlowNetSD was trained in the stack on another scale, in units of 1 / 20 pixel
        small = F.interpolate(self.flownets_d(x)[0] / UNIT, scale_factor=4)
        return self.flownetfusion(fusion_input(x, small, large))
