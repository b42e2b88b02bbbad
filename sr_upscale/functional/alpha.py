"""Colour under transparent pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def extend_colour(colour_hwc: NDArray[Any], alpha_hw: NDArray[Any]) -> NDArray[Any]:
    """Fills fully transparent pixels with the colours of the visible ones around them.

    Files often keep black there. A network (or any resampler) would pull it into the visible edge as a dark fringe.
    The fill comes from a pyramid of averages, weighted by alpha. A pixel takes it from the finest level that knows a
    colour there (push-pull).

    Args:
        colour_hwc: (H, W, C) uint8 or uint16, straight (not premultiplied).
        alpha_hw: (H, W), same type; 0 is transparent.

    Returns:
        (H, W, C), same type. Pixels with alpha above 0 are unchanged. The input itself comes back where all pixels or
        none are transparent.

    Source: Gortler et al. 1996, doi:10.1145/237170.237200.
    """
    hidden = alpha_hw == 0
    if not hidden.any() or hidden.all():
        return colour_hwc
    top = float(np.iinfo(colour_hwc.dtype).max)
    weight = torch.from_numpy(alpha_hw.astype(np.float32) / top)[None, None]
    colour = torch.from_numpy(np.ascontiguousarray(colour_hwc.transpose(2, 0, 1)).astype(np.float32))[None]
    filled = _fill(colour, weight)[0].permute(1, 2, 0).numpy()
    out = colour_hwc.copy()
    out[hidden] = np.rint(filled[hidden]).clip(0, top).astype(colour_hwc.dtype)
    return out


def _fill(colour: Tensor, weight: Tensor) -> Tensor:
    """Takes colour where weight is above 0, else the coarser level's fill.

    Shapes: (1, C, H, W), (1, 1, H, W) -> (1, C, H, W).
    """
    if weight.min() > 0 or max(weight.shape[-2:]) == 1:
        return colour
    coarse_weight = F.avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False)
    weighted = F.avg_pool2d(colour * weight, 2, ceil_mode=True, count_include_pad=False)
    coarse = _fill(weighted / coarse_weight.clamp_min(1e-12), coarse_weight)
    coarse = F.interpolate(coarse, size=weight.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(weight > 0, colour, coarse)
