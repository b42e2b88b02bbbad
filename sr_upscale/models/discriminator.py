"""Two discriminators: the published VGG-style network and a U-Net with spectral norm.

``vgg``
    gives one logit a picture (Ledig et al. 2017, arXiv:1609.04802). It has the course project's sizes.
``unet``
    gives one logit a pixel, with spectral norm instead of batch norm. It is Real-ESRGAN's, for real-world degradations
    (Wang et al. 2021, arXiv:2107.10833, after Schonfeld et al. 2020, arXiv:2002.12655).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

NEGATIVE_SLOPE = 0.2


class VGGDiscriminator(nn.Module):
    """Discriminator that gives one logit a picture.

    Args:
        num_feat: Channels of the first conv; the last has eight times as many. The published size is 64.
        channels: Of its input: 3, or 6 with LR behind the picture (`beside`).

    Shapes: (N, channels, H, W), RGB in [0, 1], H and W of at least 16 -> (N, 1) logits.
    """

    def __init__(self, num_feat: int = 64, channels: int = 3) -> None:
        super().__init__()
        widths = [num_feat * factor for factor in (1, 1, 2, 2, 4, 4, 8, 8)]
        layers: list[nn.Module] = []
        before = channels
        for index, width in enumerate(widths):
            layers.append(nn.Conv2d(before, width, 3, stride=1 + index % 2, padding=1, bias=index == 0))
            if index > 0:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True))
            before = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(6)
        self.hidden = nn.Linear(before * 36, 16 * num_feat)
        self.logit = nn.Linear(16 * num_feat, 1)

    def forward(self, image: Tensor) -> Tensor:
        pooled = self.pool(self.features(image)).flatten(1)
        return cast("Tensor", self.logit(F.leaky_relu(self.hidden(pooled), NEGATIVE_SLOPE)))


class UNetDiscriminator(nn.Module):
    """Discriminator that gives one logit a pixel.

    Args:
        num_feat: Channels at full resolution; 64 in Real-ESRGAN.
        channels: Of its input: 3, or 6 with LR behind the picture (`beside`).

    Shapes: (N, channels, H, W), RGB in [0, 1], H and W multiples of 8 -> (N, 1, H, W) logits.
    """

    def __init__(self, num_feat: int = 64, channels: int = 3) -> None:
        super().__init__()

        def down(inside: int, outside: int) -> nn.Module:
            return spectral_norm(nn.Conv2d(inside, outside, 4, stride=2, padding=1, bias=False))

        def flat(inside: int, outside: int) -> nn.Module:
            return spectral_norm(nn.Conv2d(inside, outside, 3, padding=1, bias=False))

        n = num_feat
        self.first = nn.Conv2d(channels, n, 3, padding=1)
        self.down = nn.ModuleList((down(n, 2 * n), down(2 * n, 4 * n), down(4 * n, 8 * n)))
        self.up = nn.ModuleList((flat(8 * n, 4 * n), flat(4 * n, 2 * n), flat(2 * n, n)))
        self.tail = nn.Sequential(
            flat(n, n),
            nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
            flat(n, n),
            nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
            nn.Conv2d(n, 1, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        skips = [F.leaky_relu(self.first(image), NEGATIVE_SLOPE)]
        for conv in self.down:
            skips.append(F.leaky_relu(conv(skips[-1]), NEGATIVE_SLOPE))
        x = skips.pop()
        for conv in self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), NEGATIVE_SLOPE) + skips.pop()
        return cast("Tensor", self.tail(x))


DISCRIMINATORS: dict[str, Callable[[int, int], nn.Module]] = {"vgg": VGGDiscriminator, "unet": UNetDiscriminator}
"""Discriminators by name. Each takes num_feat and channels."""


def build_discriminator(name: str, num_feat: int, *, sees_lr: bool = False) -> nn.Module:
    """Builds a discriminator, with random weights from torch's global generator.

    Args:
        name: A key of `DISCRIMINATORS`.
        num_feat: Channels of its first conv.
        sees_lr: Whether its input is `beside` LR.
    """
    return DISCRIMINATORS[name](num_feat, 6 if sees_lr else 3)


def beside(image: Tensor, lr: Tensor | None) -> Tensor:
    """Puts LR behind a picture's channels, so that a discriminator asks whether the one can be the HR of the other.

    Args:
        image: (N, 3, H, W).
        lr: (N, 3, H, W), enlarged; None leaves the picture as it is.

    Returns:
        (N, 6, H, W), or the picture.

    Source: the conditional discriminator of Isola et al. 2017, arXiv:1611.07004.
    """
    return image if lr is None else torch.cat((image, lr), dim=1)
