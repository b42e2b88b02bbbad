"""How near an image is to its ground truth."""

from __future__ import annotations

import torch
from torch import Tensor

from sr_upscale.color import rgb_to_y
from sr_upscale.errors import ShapeError


def psnr(sr: Tensor, hr: Tensor, *, data_range: float = 1.0, crop_border: int = 0, y_channel: bool = False) -> Tensor:
    """Peak signal-to-noise ratio per image, in dB.

    Args:
        sr: Restored images, (N, C, H, W), in [0, data_range]; quantise to 8 bits first to match papers.
        hr: Reference images, same shape and device.
        data_range: Difference between white and black.
        crop_border: Pixels left out along each edge; papers use the scale.
        y_channel: Compare luma (`rgb_to_y`); needs C = 3 and data_range 1.

    Returns:
        (N,) float64; inf where the images are equal.

    Raises:
        ShapeError: Shapes differ, or the crop leaves no pixels, or Y is asked for without RGB in [0, 1].

    Source: the convention of the MATLAB evaluation used since SRCNN (Dong et al. 2014, arXiv:1501.00092).
    """
    if sr.shape != hr.shape or sr.dim() != 4:
        msg = f"PSNR of {tuple(sr.shape)} against {tuple(hr.shape)}; expected two equal shapes (N, C, H, W)"
        raise ShapeError(msg)
    if min(sr.shape[-2:]) <= 2 * crop_border:
        msg = f"crop_border {crop_border} leaves no pixels of {sr.shape[-1]}x{sr.shape[-2]}"
        raise ShapeError(msg)
    if y_channel and (sr.shape[1] != 3 or data_range != 1.0):
        msg = f"Y needs 3 channels in [0, 1]; got {sr.shape[1]} channels and data_range {data_range}"
        raise ShapeError(msg)
    sr, hr = sr.double(), hr.double()
    if y_channel:
        sr, hr = rgb_to_y(sr), rgb_to_y(hr)
    if crop_border:
        inner = (..., slice(crop_border, -crop_border), slice(crop_border, -crop_border))
        sr, hr = sr[inner], hr[inner]
    mse = (sr - hr).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(data_range**2 / mse)
