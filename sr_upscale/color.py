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


def to_tensor(pixels_hwc: Pixels) -> Tensor:
    """(H, W, C) uint8 or uint16 -> (1, C, H, W) float32 in [0, 1].

    Raises:
        ShapeError: Another number of dimensions or another dtype.
    """
    if pixels_hwc.ndim != 3 or pixels_hwc.dtype not in (np.uint8, np.uint16):
        msg = f"pixels are {pixels_hwc.shape} {pixels_hwc.dtype}; expected (H, W, C) uint8 or uint16"
        raise ShapeError(msg)
    top = float(np.iinfo(pixels_hwc.dtype).max)
    values = np.ascontiguousarray(pixels_hwc.transpose(2, 0, 1)).astype(np.float32)
    return torch.from_numpy(values)[None] / top


def to_pixels(tensor_nchw: Tensor, dtype: np.dtype[Any]) -> Pixels:
    """(1, C, H, W) or (C, H, W) nominally in [0, 1] -> (H, W, C) of `dtype`, clamped and rounded.

    Args:
        tensor_nchw: Floating point values.
        dtype: `numpy.uint8` or `numpy.uint16`.
    """
    top = float(np.iinfo(dtype).max)
    values = tensor_nchw.detach().float().clamp(0, 1).mul(top).round()
    if values.dim() == 4:
        values = values.squeeze(0)
    return np.ascontiguousarray(values.permute(1, 2, 0).cpu().numpy()).astype(dtype)


def rgb_to_y(rgb: Tensor) -> Tensor:
    """BT.601 luma in studio range, as MATLAB's `rgb2ycbcr` makes it and the papers measure it.

    Args:
        rgb: (N, 3, H, W) in [0, 1].

    Returns:
        (N, 1, H, W) in [16/255, 235/255], unrounded.
    """
    weights = torch.tensor((65.481, 128.553, 24.966), dtype=rgb.dtype, device=rgb.device) / 255
    return (rgb * weights.view(1, 3, 1, 1)).sum(dim=1, keepdim=True) + 16 / 255
