"""The generator: inception-residual blocks between a 3x3 head and one of two upsampling tails.

The trunk is the published one (github.com/hueindahaus/srgan, after SRGAN, Ledig et al. 2017,
arXiv:1609.04802, and ESRGAN, Wang et al. 2018, arXiv:1809.00219). Two tails:

``nearest_conv``
    the published tail: per stage nearest-neighbour upsampling, conv, LeakyReLU; then two convs at the
    output's resolution. 913 027 parameters at x4.
``pixelshuffle``
    one conv to 3*s*s channels, sub-pixel rearrangement (Shi et al. 2016, arXiv:1609.05158), plus the
    input enlarged by nearest neighbour: the network learns a residual and never leaves the input's
    resolution. 828 208 parameters at x4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.errors import ModelError

Upsampler = Literal["pixelshuffle", "nearest_conv"]

NEGATIVE_SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Everything that is needed to build a `Generator`.

    Attributes:
        scale: Integer factor of the network: 2, 3, 4 or 8.
        num_feat: Channels of the trunk, even.
        num_blocks: Inception-residual blocks.
        upsampler: Tail, ``pixelshuffle`` or ``nearest_conv``.
    """

    scale: int = 4
    num_feat: int = 64
    num_blocks: int = 24
    upsampler: Upsampler = "pixelshuffle"

    def __post_init__(self) -> None:
        if self.scale not in (2, 3, 4, 8):
            msg = f"generator scale is {self.scale}; expected 2, 3, 4 or 8"
            raise ModelError(msg)
        if self.num_feat < 2 or self.num_feat % 2:
            msg = f"generator num_feat is {self.num_feat}; expected an even number of at least 2"
            raise ModelError(msg)
        if self.num_blocks < 1:
            msg = f"generator num_blocks is {self.num_blocks}; expected at least 1"
            raise ModelError(msg)
        if self.upsampler not in get_args(Upsampler):
            names = " or ".join(get_args(Upsampler))
            msg = f"generator upsampler is {self.upsampler!r}; expected {names}"
            raise ModelError(msg)

    @property
    def stages(self) -> tuple[int, ...]:
        """Upsampling factors of the ``nearest_conv`` tail, first to last."""
        return (3,) if self.scale == 3 else (2,) * int(math.log2(self.scale))

    @property
    def halo(self) -> int:
        """Radius of the receptive field in LR pixels: an output pixel depends on nothing farther."""
        radius = 0
        if self.upsampler == "pixelshuffle":
            radius += 1
        else:
            radius += 2  # the two convs at the output's resolution
            for factor in reversed(self.stages):
                radius = math.ceil((radius + 1) / factor)
        return radius + 1 + 2 * self.num_blocks + 1  # trunk conv, two 3x3 convs a block, head


PRESETS: dict[str, GeneratorConfig] = {
    "published-x4": GeneratorConfig(scale=4, upsampler="nearest_conv"),
    "ours-x2": GeneratorConfig(scale=2),
    "ours-x3": GeneratorConfig(scale=3),
    "ours-x4": GeneratorConfig(scale=4),
    "ours-x8": GeneratorConfig(scale=8),
}
"""Configurations by name; ``published-x4`` is the generator of the course project, unchanged."""


class InceptionResidualBlock(nn.Module):
    """Two branches of 1x1 and 3x3 convs, concatenated, plus the input. (N, C, H, W) -> same.

    Every conv is bias-free and followed by LeakyReLU(0.2); each branch makes half of the channels.
    """

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        half = num_feat // 2
        self.reduce1 = nn.Conv2d(num_feat, half, 1, bias=False)
        self.conv1 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.reduce2 = nn.Conv2d(num_feat, half, 1, bias=False)
        self.conv2a = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.conv2b = nn.Conv2d(half, half, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        short = _lrelu(self.conv1(_lrelu(self.reduce1(x))))
        long = _lrelu(self.conv2b(_lrelu(self.conv2a(_lrelu(self.reduce2(x))))))
        return torch.cat((short, long), dim=1) + x


class NearestConvTail(nn.Module):
    """The published tail. (N, C, H, W) features -> (N, 3, H*s, W*s) image."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        feat = config.num_feat
        self.factors = config.stages
        self.stages = nn.ModuleList(nn.Conv2d(feat, feat, 3, padding=1) for _ in self.factors)
        self.conv = nn.Conv2d(feat, feat, 3, padding=1)
        self.last = nn.Conv2d(feat, 3, 3, padding=1)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:  # noqa: ARG002 (one signature for both tails)
        for factor, conv in zip(self.factors, self.stages, strict=True):
            features = _lrelu(conv(F.interpolate(features, scale_factor=factor, mode="nearest")))
        return cast("Tensor", self.last(_lrelu(self.conv(features))))


class PixelShuffleTail(nn.Module):
    """One conv, pixel shuffle, plus the image by nearest neighbour. -> (N, 3, H*s, W*s) image."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.scale = config.scale
        self.last = nn.Conv2d(config.num_feat, 3 * config.scale**2, 3, padding=1)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        residual = F.pixel_shuffle(self.last(features), self.scale)
        return residual + F.interpolate(image, scale_factor=self.scale, mode="nearest")


class Generator(nn.Module):
    """LR image -> SR image.

    Args:
        config: Sizes and tail.

    Shapes: (N, 3, H, W) RGB in [0, 1] -> (N, 3, H*scale, W*scale), RGB, nominally in [0, 1] but not
    clamped. Any H and W of at least 1.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        feat = config.num_feat
        self.head = nn.Conv2d(3, feat, 3, padding=1)
        self.blocks = nn.Sequential(*(InceptionResidualBlock(feat) for _ in range(config.num_blocks)))
        self.trunk = nn.Conv2d(feat, feat, 3, padding=1, bias=False)
        tail = PixelShuffleTail if config.upsampler == "pixelshuffle" else NearestConvTail
        self.tail = tail(config)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming start with quiet branches: 3x3 convs of the blocks x0.3, the last conv x0.1.

        Without batch norm the sum over 24 residual blocks would grow; small branches keep the start
        near the identity (the idea of ESRGAN's residual scaling and initialisation).
        """
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d):
                continue
            nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            with torch.no_grad():
                if name.startswith("blocks.") and module.kernel_size == (3, 3):
                    module.weight.mul_(0.3)
                elif name == "tail.last":
                    module.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        shallow = _lrelu(self.head(x))
        features = self.trunk(self.blocks(shallow)) + shallow
        return cast("Tensor", self.tail(features, x))


def _lrelu(x: Tensor) -> Tensor:
    # in place: every caller hands over a conv's fresh output, and LeakyReLU's gradient needs only the result
    return F.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)
