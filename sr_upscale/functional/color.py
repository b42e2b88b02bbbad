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
    """Turns pixels into a tensor in [0, 1] on a device. 8 bits travel there as 8 bits.

    Args:
        pixels_hwc: (H, W, C) uint8 or uint16.
        device: Where the tensor goes; None is the CPU.

    Returns:
        (1, C, H, W) float32 in [0, 1].

    Raises:
        ShapeError: The pixels have another number of dimensions or another dtype.
    """
    levels = host_levels(pixels_hwc)
    return unit_range(levels.to(device or "cpu"), pixels_hwc.dtype)


def host_levels(pixels_hwc: Pixels) -> Tensor:
    """Turns pixels into a tensor of the same values on the CPU.

    Args:
        pixels_hwc: (H, W, C) uint8 or uint16.

    Returns:
        (H, W, C), uint8 for uint8. It is float32 for uint16, with which torch computes little.

    Raises:
        ShapeError: The pixels have another number of dimensions or another dtype.
    """
    if pixels_hwc.ndim != 3 or pixels_hwc.dtype not in (np.uint8, np.uint16):
        raise ShapeError(f"pixels are {pixels_hwc.shape} {pixels_hwc.dtype}; expected (H, W, C) uint8 or uint16")
    values = pixels_hwc if pixels_hwc.dtype == np.uint8 else pixels_hwc.astype(np.float32)
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))


def unit_range(levels_hwc: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """Scales levels to [0, 1] on the device where they are.

    Args:
        levels_hwc: (H, W, C), 0 to the maximum of `dtype`. float32 levels may be divided in place.
        dtype: `numpy.uint8` or `numpy.uint16`.

    Returns:
        (1, C, H, W) float32 in [0, 1].
    """
    planes = levels_hwc.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    return planes[None].div_(float(np.iinfo(dtype).max))


def to_pixels(tensor_nchw: Tensor, dtype: np.dtype[Any]) -> Pixels:
    """Turns a tensor into pixels, clamped and rounded.

    Args:
        tensor_nchw: (1, C, H, W) or (C, H, W), floating point, nominally in [0, 1].
        dtype: `numpy.uint8` or `numpy.uint16`.

    Returns:
        (H, W, C) of `dtype`.
    """
    return to_levels(tensor_nchw, dtype).cpu().numpy().astype(dtype, copy=False)


def to_levels(tensor_nchw: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """Clamps and rounds a tensor to whole levels: the first step of `to_pixels`, on the device of the tensor.

    Args:
        tensor_nchw: (1, C, H, W) or (C, H, W), floating point, nominally in [0, 1].
        dtype: `numpy.uint8` or `numpy.uint16`.

    Returns:
        (H, W, C), contiguous, 0 to the maximum of `dtype`; uint8 for `numpy.uint8`, else float32.
    """
    values = tensor_nchw.detach().float().clamp(0, 1).mul_(float(np.iinfo(dtype).max)).round_()
    values = (values[0] if values.dim() == 4 else values).permute(1, 2, 0)
    if dtype == np.uint8:
        values = values.to(torch.uint8)  # four times less to bring to the host
    return values.contiguous()


def rgb_to_y(rgb: Tensor) -> Tensor:
    """Computes BT.601 luma in studio range, as MATLAB's `rgb2ycbcr` makes it and the papers measure it.

    Args:
        rgb: (N, 3, H, W) in [0, 1].

    Returns:
        (N, 1, H, W) in [16/255, 235/255], unrounded.
    """
    weights = torch.tensor((65.481, 128.553, 24.966), dtype=rgb.dtype, device=rgb.device) / 255
    return (rgb * weights.view(1, 3, 1, 1)).sum(dim=1, keepdim=True) + 16 / 255
