"""Arrays <-> tensors in [0, 1], and RGB -> Y."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_upscale.errors import ShapeError

Pixels = NDArray[Any]
"""(H, W, C) uint8 or uint16."""


def to_tensor(pixels_hwc: Pixels, device: torch.device | None = None) -> Tensor:
    """(H, W, C) uint8 or uint16 -> (1, C, H, W) float32 in [0, 1] on the device; 8 bits travel there as 8 bits.

    Raises:
        ShapeError: Another number of dimensions or another dtype.
    """
    levels = host_levels(pixels_hwc)
    return unit_range(levels.to(device or "cpu"), pixels_hwc.dtype)


def host_levels(pixels_hwc: Pixels) -> Tensor:
    """(H, W, C) uint8 or uint16 -> the same values, uint8 or float32 (torch computes little with uint16).

    Raises:
        ShapeError: As `to_tensor`.
    """
    if pixels_hwc.ndim != 3 or pixels_hwc.dtype not in (np.uint8, np.uint16):
        msg = f"pixels are {pixels_hwc.shape} {pixels_hwc.dtype}; expected (H, W, C) uint8 or uint16"
        raise ShapeError(msg)
    values = pixels_hwc if pixels_hwc.dtype == np.uint8 else pixels_hwc.astype(np.float32)
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))


def unit_range(levels_hwc: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """(H, W, C) levels of `dtype` -> (1, C, H, W) float32 in [0, 1], where they are."""
    planes = levels_hwc.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    return planes[None].div_(float(np.iinfo(dtype).max))


def to_pixels(tensor_nchw: Tensor, dtype: np.dtype[Any]) -> Pixels:
    """(1, C, H, W) or (C, H, W) nominally in [0, 1] -> (H, W, C) of `dtype`, clamped and rounded.

    Args:
        tensor_nchw: Floating point values.
        dtype: `numpy.uint8` or `numpy.uint16`.
    """
    return to_levels(tensor_nchw, dtype).cpu().numpy().astype(dtype, copy=False)


def to_levels(tensor_nchw: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """The first step of `to_pixels`, where the tensor is: (H, W, C) whole levels of `dtype`, uint8 or float32."""
    values = tensor_nchw.detach().float().clamp(0, 1).mul_(float(np.iinfo(dtype).max)).round_()
    values = (values[0] if values.dim() == 4 else values).permute(1, 2, 0)
    if dtype == np.uint8:
        values = values.to(torch.uint8)  # four times less to bring to the host
    return values.contiguous()


def rgb_to_y(rgb: Tensor) -> Tensor:
    """BT.601 luma in studio range, as MATLAB's `rgb2ycbcr` makes it and the papers measure it.

    Args:
        rgb: (N, 3, H, W) in [0, 1].

    Returns:
        (N, 1, H, W) in [16/255, 235/255], unrounded.
    """
    weights = torch.tensor((65.481, 128.553, 24.966), dtype=rgb.dtype, device=rgb.device) / 255
    return (rgb * weights.view(1, 3, 1, 1)).sum(dim=1, keepdim=True) + 16 / 255
