"""The generator's tails: from features at the input's resolution to a picture at the output's.

A tail is one class: its layers, its receptive field, its memory. It is known by its name in `TAILS`. How it runs over
strips of rows stands in `inference.strip_tails`. A tail without an entry there runs in tiles.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

NEGATIVE_SLOPE = 0.2


class Tail(nn.Module, ABC):
    """Base of all tails.

    Args:
        scale: Factor.
        num_feat: Channels of the features.

    Shapes: (N, C, H, W) features and the (N, 3, H, W) image -> (N, 3, H*s, W*s) image.
    """

    @abstractmethod
    def __init__(self, scale: int, num_feat: int) -> None:
        super().__init__()

    @staticmethod
    @abstractmethod
    def halo(scale: int) -> int:
        """Returns the radius of its receptive field in LR pixels."""

    @staticmethod
    @abstractmethod
    def tile_bytes(scale: int, num_feat: int, size: int) -> int:
        """Estimates the bytes of memory that it takes for each LR pixel of a tile, beside those of the blocks.

        Args:
            scale, num_feat: See `Tail`.
            size: Bytes of a number.
        """

    @staticmethod
    @abstractmethod
    def strip_bytes(scale: int, num_feat: int, size: int) -> int:
        """Estimates the bytes of memory that it takes for each LR pixel of a strip.

        Args:
            scale, num_feat: See `Tail`.
            size: Bytes of a number.
        """


class NearestConvTail(Tail):
    """The published tail.

    Each stage is nearest-neighbour upsampling, a conv and LeakyReLU. Two convs at full size follow the last one.
    """

    def __init__(self, scale: int, num_feat: int) -> None:
        super().__init__(scale, num_feat)
        self.factors = self.stages_of(scale)
        self.stages = nn.ModuleList(nn.Conv2d(num_feat, num_feat, 3, padding=1) for _ in self.factors)
        self.conv = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.last = nn.Conv2d(num_feat, 3, 3, padding=1)

    @staticmethod
    def stages_of(scale: int) -> tuple[int, ...]:
        """Returns the upsampling factors of the stages, first to last. Their product is the scale."""
        return (3,) if scale == 3 else (2,) * int(math.log2(scale))

    @staticmethod
    def halo(scale: int) -> int:
        radius = 2  # the two convs at the output's resolution
        for factor in reversed(NearestConvTail.stages_of(scale)):
            radius = math.ceil((radius + 1) / factor)
        return radius

    @staticmethod
    def tile_bytes(scale: int, num_feat: int, size: int) -> int:
        return scale**2 * (3 * 3 * 4 + 3 * num_feat * size)

    @staticmethod
    def strip_bytes(scale: int, num_feat: int, size: int) -> int:
        return scale**2 * 4 * num_feat * size

    def forward(self, features: Tensor, image: Tensor) -> Tensor:  # noqa: ARG002 (one signature for all tails)
        for factor, conv in zip(self.factors, self.stages, strict=True):
            features = leaky_relu(conv(F.interpolate(features, scale_factor=factor, mode="nearest")))
        return cast("Tensor", self.last(leaky_relu(self.conv(features))))


class PixelShuffleTail(Tail):
    """One conv to 3*s*s channels and a pixel shuffle (Shi et al. 2016, arXiv:1609.05158).

    The image, enlarged by nearest neighbours, is added.
    """

    def __init__(self, scale: int, num_feat: int) -> None:
        super().__init__(scale, num_feat)
        self.scale = scale
        self.last = nn.Conv2d(num_feat, 3 * scale**2, 3, padding=1)

    @staticmethod
    def halo(scale: int) -> int:  # noqa: ARG004
        return 1

    @staticmethod
    def tile_bytes(scale: int, num_feat: int, size: int) -> int:  # noqa: ARG004
        return scale**2 * 3 * 4

    @staticmethod
    def strip_bytes(scale: int, num_feat: int, size: int) -> int:
        return scale**2 * 3 * (size + 3 * 4)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        residual = F.pixel_shuffle(self.last(features), self.scale)
        return residual + F.interpolate(image, scale_factor=self.scale, mode="nearest")


TAILS: dict[str, type[Tail]] = {"pixelshuffle": PixelShuffleTail, "nearest_conv": NearestConvTail}
"""Tails by the name in a configuration."""


def leaky_relu(x: Tensor) -> Tensor:
    """Applies LeakyReLU(0.2) in place, to a tensor of any shape.

    That is safe: every caller hands over a conv's fresh output, and the gradient needs the result alone.
    """
    return F.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)
