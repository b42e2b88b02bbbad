"""What the generator and the discriminator are taught by: pure functions on batches.

Pixel losses and the frequency loss compare pictures. The perceptual loss compares features (`models.features`). The
adversarial losses compare logits of a discriminator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_upscale.errors import ShapeError


def charbonnier_loss(sr: Tensor, hr: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """Computes the mean of sqrt(difference^2 + epsilon^2): L1 without its corner.

    Args:
        sr, hr: (N, C, H, W), of equal shape.
        epsilon: Width of the rounded corner, in the units of `sr` and `hr`.

    Returns:
        A scalar.

    Source: Charbonnier et al. 1994.
    """
    return ((sr - hr).square() + epsilon**2).sqrt().mean()


def unsharp_mask(x: Tensor, amount: float, *, sigma: float = 8.0, threshold: float = 10 / 255) -> Tensor:
    """Sharpens edges, and leaves flat parts and fine grain as they are.

    Args:
        x: (N, C, H, W) in [0, 1].
        amount: Share of the detail that is added; 0 changes nothing.
        sigma: Standard deviation of the blur that tells detail, in pixels.
        threshold: Detail of less than this is left alone.

    Returns:
        (N, C, H, W) in [0, 1].

    Source: Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833), which sharpens HR with 0.5 for L1 and VGG19 losses.
    """
    detail = x - gaussian_blur(x, sigma)
    mask = gaussian_blur((detail.abs() > threshold).to(x.dtype), sigma)
    return x.lerp((x + amount * detail).clamp(0, 1), mask)


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Blurs (N, C, H, W) along both axes, with a kernel of three standard deviations and mirrored borders.

    Args:
        x: The batch.
        sigma: Standard deviation in pixels.
    """
    reach = min(math.ceil(3 * sigma), x.shape[-2] - 1, x.shape[-1] - 1)
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype) / sigma) ** 2)
    bell = (bell / bell.sum()).expand(x.shape[1], 1, 1, -1)
    across = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="reflect"), bell, groups=x.shape[1])
    return F.conv2d(F.pad(across, (0, 0, reach, reach), mode="reflect"), bell.transpose(2, 3), groups=x.shape[1])


STROKE_WEIGHT, STROKE_SIGMA = 6.0, 24.0
"""How much more a pixel counts whose gray is 1 from its surroundings, and the blur that makes these, in pixels."""


def stroke_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Computes L2 in which a pixel counts more, the further HR is from its surroundings there.

    L2 answers a doubt with the mean. A thin stroke is a small part of its surroundings, so its mean is too pale to be
    read. Here the stroke counts more than the paper beside it, whichever of the two is darker.

    Args:
        sr, hr: (N, C, H, W) in [0, 1], of equal shape.

    Returns:
        A scalar.
    """
    gray = hr.mean(dim=1, keepdim=True)
    weight = 1 + STROKE_WEIGHT * (gray - gaussian_blur(gray, STROKE_SIGMA)).square()
    return (weight * (sr - hr).square()).mean()


PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": lambda sr, hr: F.l1_loss(sr, hr),
    "l2": lambda sr, hr: F.mse_loss(sr, hr),
    "charbonnier": charbonnier_loss,
    "strokes": stroke_loss,
}
"""Pixel losses by name. Each takes SR and HR of one shape, (N, 3, H, W), and gives a scalar."""


def fft_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Computes the mean absolute difference of the two-dimensional spectra, real and imaginary parts taken apart.

    Args:
        sr, hr: (N, C, H, W), float32.

    Returns:
        A scalar.

    Source: the frequency term of MIMO-UNet (Cho et al. 2021, arXiv:2108.05054), used with 0.05 by SAFMN.
    """
    difference = torch.fft.rfft2(sr - hr, norm="backward")
    return torch.view_as_real(difference).abs().mean()


def color_loss(sr: Tensor, hr: Tensor, scale: int) -> Tensor:
    """Computes the mean absolute difference of means over `COLOR_WINDOW` LR pixels a side: colours without detail.

    What LR says of these means is certain, so that this loss does not blur as a pixel loss does. Smaller windows would
    also hold down the contrast of parts, which damage has made uncertain.

    Args:
        sr, hr: (N, C, H, W), of equal shape.
        scale: HR pixels of an LR pixel.

    Returns:
        A scalar.
    """
    return F.avg_pool2d(sr - hr, COLOR_WINDOW * scale, ceil_mode=True).abs().mean()


COLOR_WINDOW = 16
"""LR pixels of a side over which `color_loss` averages."""

LATTICE_WINDOW = 6
"""Periods of a side over which `lattice_loss` averages."""


def lattice_loss(sr: Tensor, hr: Tensor, period: int, *, window: int = LATTICE_WINDOW) -> Tensor:
    """Computes the mean absolute bias of the places of a lattice.

    The bias is what is left of SR - HR when places of one phase are averaged. For each of the period * period positions
    inside a cell, the mean of the difference is taken over `window` x `window` cells. Texture averages out, a lattice
    does not. What all positions share is no lattice and does not count.

    Args:
        sr, hr: (N, C, H * period, W * period), on the grid of the lattice: not cut, not turned.
        period: Side of a cell in pixels.
        window: Cells of a side, at most H and W.

    Returns:
        A scalar.
    """
    count, channels = sr.shape[:2]
    phases = F.avg_pool2d(F.pixel_unshuffle(sr - hr, period), window)
    by_phase = phases.view(count, channels, period**2, *phases.shape[-2:])
    return (by_phase - by_phase.mean(dim=2, keepdim=True)).abs().mean()


def lattice_losses(sr: Tensor, hr: Tensor, scale: int) -> Tensor:
    """Adds up `lattice_loss` at the period of the tail's sub-pixels and at twice the period, a mesh of LR pixels.

    An enlarged rounding to 8 bits looks like a checkerboard of LR pixels. That has no bias at the period `scale`.
    Patches too small for `LATTICE_WINDOW` of the larger cells are averaged over those that they have.

    Args:
        sr, hr: (N, C, H * scale, W * scale), on the grid of LR pixels.
        scale: Factor.

    Returns:
        A scalar.
    """
    double = 2 * scale
    height, width = (side // double * double for side in sr.shape[-2:])
    window = min(LATTICE_WINDOW, height // double, width // double)
    even = (..., slice(height), slice(width))
    return lattice_loss(sr, hr, scale) + lattice_loss(sr[even], hr[even], double, window=window)


def perceptual_loss(sr: Mapping[str, Tensor], hr: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Computes the weighted sum over layers of the mean absolute difference of features.

    Args:
        sr, hr: Features by layer, (N, C, H, W) each, as `models.features.VGG19Features` gives them.
        weights: Weight of each layer; all must be in both.

    Returns:
        A scalar.

    Raises:
        ShapeError: A layer is missing.

    Source: Johnson et al. 2016, arXiv:1603.08155.
    """
    if missing := [layer for layer in weights if layer not in sr or layer not in hr]:
        raise ShapeError(f"perceptual loss: no features of {', '.join(missing)}; got {', '.join(sr)}")
    terms = [weight * F.l1_loss(sr[layer].float(), hr[layer].float()) for layer, weight in weights.items()]
    return torch.stack(terms).sum()


def texture_loss(sr: Mapping[str, Tensor], hr: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Computes the weighted sum over layers of how differently strong features are in small windows.

    The strength of a feature is its standard deviation within a window: it says how much detail of a kind is there, not
    where. So detail counts even where it is not in its exact place, and blur does not pay off, as it does under losses
    that compare places.

    Args:
        sr, hr: Features by layer, (N, C, H, W) each. A window has `TEXTURE_WINDOW` pixels a side of the first layer.
        weights: Weight of each layer; all must be in both.

    Returns:
        A scalar: mean absolute difference of the strengths, as a share of the mean strength in HR.

    Source: local windows as in EnhanceNet (Sajjadi et al. 2017, arXiv:1612.07919); deviations in place of its Gram
        matrices after Li et al. 2017, arXiv:1701.01036: a number for each channel, not for each pair of them.
    """
    full = max(features.shape[-1] for features in hr.values())
    terms = []
    for layer, weight in weights.items():
        window = max(2, TEXTURE_WINDOW * hr[layer].shape[-1] // full)
        ours, theirs = (_strengths(features[layer].float(), window) for features in (sr, hr))
        terms.append(weight * (ours - theirs).abs().mean() / theirs.mean().clamp_min(1e-6))
    return torch.stack(terms).sum()


TEXTURE_WINDOW = 16
"""HR pixels of a side of the windows that `texture_loss` compares."""


def _strengths(features: Tensor, window: int) -> Tensor:
    """Computes standard deviations within windows: (N, C, H, W) -> (N, C, H // window, W // window).

    Features smaller than a window are one.
    """
    window = min(window, *features.shape[-2:])
    means, squares = F.avg_pool2d(features, window), F.avg_pool2d(features.square(), window)
    return (squares - means.square()).clamp_min(1e-6).sqrt()


# --- adversarial ------------------------------------------------------------------------------------

Mean = Callable[[Tensor], Tensor]
"""Mean over the whole batch, which may lie on several machines."""


class GanLoss(NamedTuple):
    """Losses of both sides.

    Each takes the logits of real pictures, those of fake pictures, and a `Mean`, and gives a scalar. The logits have
    any shape, equal for both.

    Attributes:
        generator: Loss of the generator, which makes the fake pictures.
        discriminator: Loss of the discriminator, which tells them apart.
    """

    generator: Callable[[Tensor, Tensor, Mean], Tensor]
    discriminator: Callable[[Tensor, Tensor, Mean], Tensor]


def _bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _relativistic(winner: Tensor, loser: Tensor, mean: Mean) -> Tensor:
    """Asks the winner to look more real than the average loser, and the loser less real than the average winner."""
    return (_bce(winner - mean(loser), 1.0) + _bce(loser - mean(winner), 0.0)) / 2


def _mse(logits: Tensor, target: float) -> Tensor:
    return (logits - target).square().mean()


GAN_LOSSES: dict[str, GanLoss] = {
    # relativistic average (Jolicoeur-Martineau 2018, arXiv:1807.00734), halved as ESRGAN's code does
    "relativistic": GanLoss(
        generator=lambda real, fake, mean: _relativistic(fake, real, mean),
        discriminator=lambda real, fake, mean: _relativistic(real, fake, mean),
    ),
    # non-saturating (Goodfellow et al. 2014, arXiv:1406.2661)
    "standard": GanLoss(
        generator=lambda _real, fake, _mean: _bce(fake, 1.0),
        discriminator=lambda real, fake, _mean: (_bce(real, 1.0) + _bce(fake, 0.0)) / 2,
    ),
    # least squares (Mao et al. 2017, arXiv:1611.04076)
    "lsgan": GanLoss(
        generator=lambda _real, fake, _mean: _mse(fake, 1.0),
        discriminator=lambda real, fake, _mean: (_mse(real, 1.0) + _mse(fake, 0.0)) / 2,
    ),
}
"""Adversarial losses by name."""
