"""Colour under transparent pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


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
    top = np.iinfo(colour_hwc.dtype).max
    weight = (alpha_hw.astype(np.float32) / np.float32(top))[:, :, None]
    filled = _fill(colour_hwc.astype(np.float32), weight)
    out = colour_hwc.copy()
    out[hidden] = np.rint(filled[hidden]).clip(0, top).astype(colour_hwc.dtype)
    return out


def _fill(colour: Floats, weight: Floats) -> Floats:
    """Takes colour where weight is above 0, else the coarser level's fill.

    Shapes: (H, W, C), (H, W, 1) -> (H, W, C).
    """
    if weight.min() > 0 or max(weight.shape) == 1:
        return colour
    coarse_weight = _halved(weight)
    weighted = np.divide(_halved(colour * weight), np.maximum(coarse_weight, 1e-12), dtype=np.float32)
    coarse = _fill(weighted, coarse_weight)
    for axis in (0, 1):
        coarse = _stretched(coarse, axis, weight.shape[axis])
    return np.where(weight > 0, colour, coarse)


def _halved(x: Floats) -> Floats:
    """Computes means of 2x2 pixels, and at an odd edge of what there is of them."""
    for axis in (0, 1):
        starts = np.arange(0, x.shape[axis], 2)
        counts = np.minimum(2, x.shape[axis] - starts).astype(np.float32)
        x = np.add.reduceat(x, starts, axis=axis) / np.expand_dims(counts, (1, 2) if axis == 0 else (0, 2))
    return x


def _stretched(x: Floats, axis: int, length: int) -> Floats:
    """Interpolates linearly along an axis, to at most twice the length."""
    at = np.maximum((np.arange(length) + 0.5) * (x.shape[axis] / length) - 0.5, 0)
    low = at.astype(np.intp)
    share = np.expand_dims((at - low).astype(np.float32), (1, 2) if axis == 0 else (0, 2))
    high = np.minimum(low + 1, x.shape[axis] - 1)
    out: Floats = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return out
