"""The tile executor: any network, one tile at a time, blended where neighbours overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from sr_upscale.functional.planes import Planes, joined, on_host
from sr_upscale.inference.tiling import Span, TilePlan

Floats = NDArray[np.float32]


def run_tiles(
    plan: TilePlan,
    network: Callable[[Planes], Planes],
    strips: Iterable[Planes],
    *,
    scale: int,
    on_tile: Callable[[], None] = lambda: None,
) -> Iterator[Floats]:
    """Carries out a plan, one tile at a time.

    Errors of the network pass through; nothing of a failed tile is ever yielded.

    Args:
        plan: For exactly this picture's height and width.
        network: (1, C, h, w) -> (1, C, h*scale, w*scale), finite; arrays or tensors, as the strips.
        strips: The picture, as strips (1, C, n, W) float32 in [0, 1] of any heights, from top to bottom.
        scale: Factor of the network.
        on_tile: Called after each tile.

    Yields:
        Arrays (1, C, rows, W*scale) float32, from top to bottom. Together they have H*scale rows.
    """
    waiting = iter(strips)
    held, top = next(waiting), 0  # rows that tiles still read, and the number of the first
    carry: Floats | None = None  # rows that the next row of tiles also covers, already weighted
    for index, rows in enumerate(plan.rows):
        pieces = [held[:, :, rows.read_start - top :]]
        while sum(piece.shape[2] for piece in pieces) < rows.read_stop - rows.read_start:
            pieces.append(next(waiting))
        held, top = joined(pieces, 2), rows.read_start
        band = _run_row(plan, rows, network, held[:, :, : rows.read_stop - top], scale, on_tile)
        band *= _ramp(plan.rows, index, scale)[:, None]
        if carry is not None:
            band[:, : carry.shape[1]] += carry
        last = index + 1 == len(plan.rows)
        shared = 0 if last else (rows.keep_stop - plan.rows[index + 1].keep_start) * scale
        finished = band.shape[1] - shared
        carry = band[:, finished:].copy() if shared else None
        yield band[None, :, :finished]


def _run_row(
    plan: TilePlan,
    rows: Span,
    network: Callable[[Planes], Planes],
    rows_nchw: Planes,
    scale: int,
    on_tile: Callable[[], None],
) -> Floats:
    """Runs all tiles of a row span, from left to right, on the rows that the span reads.

    Gives (C, kept rows * scale, W * scale).
    """
    height = (rows.keep_stop - rows.keep_start) * scale
    band = np.zeros((rows_nchw.shape[1], height, plan.width * scale), np.float32)
    top = (rows.keep_start - rows.read_start) * scale
    for index, columns in enumerate(plan.columns):
        out = network(rows_nchw[:, :, :, columns.read_start : columns.read_stop])
        left = (columns.keep_start - columns.read_start) * scale
        width = (columns.keep_stop - columns.keep_start) * scale
        kept = on_host(out[0, :, top : top + height, left : left + width])
        target = band[:, :, columns.keep_start * scale : columns.keep_stop * scale]
        target += kept * _ramp(plan.columns, index, scale)
        on_tile()
    return band


def _ramp(spans: tuple[Span, ...], index: int, scale: int) -> Floats:
    """Computes the weights of a span's kept output samples.

    They are 1, with linear ramps where neighbours share. There the weights of both add up to 1.
    """
    span = spans[index]
    weights = np.ones((span.keep_stop - span.keep_start) * scale, np.float32)
    if index > 0:
        shared = (spans[index - 1].keep_stop - span.keep_start) * scale
        weights[:shared] = _rise(shared)
    if index + 1 < len(spans):
        shared = (span.keep_stop - spans[index + 1].keep_start) * scale
        if shared:
            weights[-shared:] = 1 - _rise(shared)
    return weights


def _rise(length: int) -> Floats:
    return (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(max(length, 1))
