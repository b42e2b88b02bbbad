"""The generator's tails: from features at the input's resolution to a picture at the output's.

A tail is one class, known by its name in `TAILS`. Its receptive field and memory stand in `models.descriptor`, how it
runs over strips of rows in `inference.strip_tails`, and as ncnn's layers in `pretrained.ncnn_export`.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.models.descriptor import NEGATIVE_SLOPE, nearest_stages


class Tail(nn.Module):
    """Base of all tails.

    Args:
        scale: Factor.
        num_feat: Channels of the features.

    Shapes: (N, C, H, W) features and the (N, 3, H, W) image -> (N, 3, H*s, W*s) image.
    """

    def __init__(self, scale: int, num_feat: int) -> None:
        super().__init__()


class NearestConvTail(Tail):
    """The published tail.

    Each stage is nearest-neighbour upsampling, a conv and LeakyReLU. Two convs at full size follow the last one.
    """

    def __init__(self, scale: int, num_feat: int) -> None:
        super().__init__(scale, num_feat)
        self.factors = nearest_stages(scale)
        self.stages = nn.ModuleList(nn.Conv2d(num_feat, num_feat, 3, padding=1) for _ in self.factors)
        self.conv = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.last = nn.Conv2d(num_feat, 3, 3, padding=1)

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
