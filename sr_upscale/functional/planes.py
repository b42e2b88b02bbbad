"""Planes: pictures as floating point (1, C, H, W), NumPy arrays or torch tensors alike; and their eight turns.

This module imports torch only where it joins tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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


TURNS = 8
"""Times that the network runs."""


def self_ensemble(
    network: Callable[[Planes], Planes], on_turn: Callable[[], None] = lambda: None
) -> Callable[[Planes], Planes]:
    """Makes a function that averages a network's answers to the eight turns and mirrorings of its input.

    Each answer is turned back first. The network runs `TURNS` times, one after the other, so that memory stays what
    one answer takes and a sum.

    Args:
        network: Takes (N, C, H, W) and gives (N, C, H*s, W*s), arrays or tensors. It must take W and H exchanged too.
        on_turn: Called after each run.

    Returns:
        A function that takes and gives the same shapes as `network`.

    Source: Timofte et al. 2016, "Seven ways to improve example-based single image super resolution", arXiv:1511.02228.
    """

    def run(tile_nchw: Planes) -> Planes:
        total: Planes = 0
        for mirrored in (False, True):
            for turns in range(4):
                total = total + _back(network(_there(tile_nchw, turns, mirrored)), turns, mirrored)
                on_turn()
        return total / TURNS

    return run


def _there(x: Planes, turns: int, mirrored: bool) -> Planes:
    return _turned(_mirrored(x) if mirrored else x, turns)


def _back(x: Planes, turns: int, mirrored: bool) -> Planes:
    turned = _turned(x, -turns)
    return _mirrored(turned) if mirrored else turned


def _turned(x: Planes, turns: int) -> Planes:
    if isinstance(x, np.ndarray):
        return np.ascontiguousarray(np.rot90(x, turns, (-2, -1)))  # torch takes no negative strides
    return x.rot90(turns, (-2, -1))


def _mirrored(x: Planes) -> Planes:
    return np.flip(x, -1) if isinstance(x, np.ndarray) else x.flip(-1)
