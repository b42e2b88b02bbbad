"""Planes: pictures as floating point (1, C, H, W), NumPy arrays or torch tensors alike.

This module imports torch only where it joins tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Planes = Any
"""(1, C, H, W) float32: an array, or a tensor on any device."""


def from_pixels(pixels_hwc: NDArray[Any]) -> NDArray[np.float32]:
    """Turns pixels, (H, W, C) uint8 or uint16, into planes in [0, 1], (1, C, H, W)."""
    planes = np.ascontiguousarray(pixels_hwc.transpose(2, 0, 1)[None], dtype=np.float32)
    planes /= np.float32(np.iinfo(pixels_hwc.dtype).max)
    return planes


def into_pixels(planes_nchw: Planes, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Turns planes, nominally in [0, 1], into pixels (H, W, C) of uint8 or uint16, clamped and rounded."""
    if not isinstance(planes_nchw, np.ndarray):
        from sr_upscale.functional.color import to_pixels

        return to_pixels(planes_nchw, dtype)
    levels = planes_nchw[0].clip(0, 1)
    levels *= np.float32(np.iinfo(dtype).max)
    return np.ascontiguousarray(np.rint(levels, out=levels).transpose(1, 2, 0), dtype=dtype)


def on_host(planes: Planes) -> NDArray[Any]:
    """Returns planes as an array, of tensors on a CPU without a copy."""
    return planes if isinstance(planes, np.ndarray) else planes.detach().cpu().numpy()


def joined(pieces: Sequence[Planes], axis: int) -> Planes:
    """Joins arrays, or tensors of one device, along an axis."""
    if len(pieces) == 1:
        return pieces[0]
    if isinstance(pieces[0], np.ndarray):
        return np.concatenate(pieces, axis=axis)
    import torch

    return torch.cat(list(pieces), dim=axis)


def evenly(strips: Iterable[Planes], rows: int) -> Iterator[Planes]:
    """Cuts strips of any heights into strips of one height.

    Args:
        strips: (..., n, W), from top to bottom.
        rows: Rows of each new strip.

    Yields:
        (..., rows, W); the last may have fewer rows.
    """
    waiting: list[Planes] = []
    held = 0
    for strip in strips:
        start = 0
        while start < strip.shape[-2]:
            piece = strip[..., start : start + rows - held, :]
            waiting.append(piece)
            start, held = start + piece.shape[-2], held + piece.shape[-2]
            if held == rows:
                yield joined(waiting, -2)
                waiting, held = [], 0
    if waiting:
        yield joined(waiting, -2)
