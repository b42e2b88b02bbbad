"""Strips of rows and tiles: plans for cutting a picture, which are integers only, and any network run by tiles.

All numbers are LR pixels. Strips are computed once each and have no seams (`inference.strips`). A tile is a row span
times a column span. Of each span::

    read_start    keep_start        core        keep_stop    read_stop
        |  halo       |  overlap/2   |...|  overlap/2  |    halo   |

``read`` goes into the network. The halo's output is cropped again. ``keep`` is used. Neighbouring spans keep `overlap`
pixels in common, where the executor blends them. Spans end at the picture's edges, so the network's zero padding is
only ever seen there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sr_upscale.functional.planes import Planes, joined, on_host

MIN_TILE = 16
"""Smallest core, in LR pixels, that halving goes down to."""

STRIP_PIXELS = 16384
"""Pixels of a strip on a CPU, where its maps stay in the caches."""

GPU_STRIP_PIXELS = 1 << 20
"""Pixels of a strip on a GPU, so that it has enough to do at a time. Chosen by reasoning, not yet measured."""

WHOLE_PIXELS, WHOLE_PIXELS_HALF = 192 * 192, 384 * 384
"""Pictures of at most so many pixels, in fp32 and in half precision, run whole on a CPU: strips would not be faster."""

MIN_FAST_ROWS, MAX_FAST_ROWS = 8, 64
"""Rows of a strip, at least and at most. Fewer spend their time on copies. More leave the caches, or repeat rows at the
picture's edges."""


@dataclass(frozen=True, kw_only=True)
class StripPlan:
    """Which strips to run, from top to bottom.

    Attributes:
        height, width: Size of the picture.
        rows: Rows of a strip.
        column: Columns to work on at a time, beside the receptive field on both sides; 0 for the whole width.
        halo: Radius of the receptive field.
    """

    height: int
    width: int
    rows: int
    column: int
    halo: int

    @property
    def whole(self) -> bool:
        """Says whether the picture is one piece, which a network takes layer by layer."""
        return self.rows >= self.height and not self.column

    @property
    def steps(self) -> int:
        """Returns the number of strips."""
        return math.ceil(self.height / self.rows)

    @property
    def pixels_read(self) -> int:
        """Counts the pixels that the network computes: the picture's own, plus what columns have in common."""
        columns = plan_columns(self.width, self.column, self.halo)
        return self.height * sum(int(read.stop - read.start) for read, _keep in columns)


def fit_rows(height: int, width: int, device_type: str, *, half: bool) -> int:
    """Finds the number of rows of a strip that run fastest (docs/speed.md).

    As many are taken as fit the caches, but not so few that overheads count. A picture that fits as a whole is one
    strip.

    Args:
        height, width: The picture, in LR pixels.
        device_type: ``cpu``, ``cuda`` or ``mps``.
        half: Whether the network runs in half precision.
    """
    pixels = STRIP_PIXELS if device_type == "cpu" else GPU_STRIP_PIXELS
    whole = (WHOLE_PIXELS_HALF if half else WHOLE_PIXELS) if device_type == "cpu" else GPU_STRIP_PIXELS
    if height * width <= whole:
        return height
    return min(height, max(MIN_FAST_ROWS, min(MAX_FAST_ROWS, pixels // width)))


def plan_columns(width: int, column: int, halo: int) -> list[tuple[slice, slice]]:
    """Cuts the width of a picture into nearly equal columns.

    Args:
        width: Columns of the picture.
        column: Largest width of what is kept of a column; 0 for one column.
        halo: Pixels of context on both sides.

    Returns:
        For each column, what of the picture is read, and what of that is kept.
    """
    count = math.ceil(width / column) if column else 1
    borders = [round(index * width / count) for index in range(count + 1)]
    plan = []
    for start, stop in itertools.pairwise(borders):
        first, last = max(0, start - halo), min(width, stop + halo)
        plan.append((slice(first, last), slice(start - first, stop - first)))
    return plan


@dataclass(frozen=True, kw_only=True)
class Span:
    """An interval of rows or columns; see the module's drawing."""

    read_start: int
    keep_start: int
    keep_stop: int
    read_stop: int


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """Which tiles to run, row by row.

    Attributes:
        height, width: Size of the picture.
        tile_size: Largest core; 0 means the whole picture as one tile.
        overlap: Pixels that neighbours share and blend.
        halo: Pixels of context around what is kept.
        rows, columns: Spans; every pair of them is a tile.
    """

    height: int
    width: int
    tile_size: int
    overlap: int
    halo: int
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    @property
    def steps(self) -> int:
        """Returns the number of tiles."""
        return len(self.rows) * len(self.columns)

    @property
    def largest_tile_pixels(self) -> int:
        """Counts the pixels that the network reads for the largest tile, which memory is needed for."""
        return max(_length(span) for span in self.rows) * max(_length(span) for span in self.columns)

    @property
    def pixels_read(self) -> int:
        """Counts the pixels that the network reads for all tiles: the picture's own, plus the price of tiling."""
        return sum(_length(span) for span in self.rows) * sum(_length(span) for span in self.columns)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One run of a network over the whole picture, in strips (our generators) or in tiles.

    Attributes:
        weights: File of the network.
        scale: Its factor.
        cut: How the picture is cut for it.
        half: Whether it runs in half precision.
    """

    weights: Path
    scale: int
    cut: StripPlan | TilePlan
    half: bool


def plan_tiles(height: int, width: int, *, tile_size: int, overlap: int, halo: int) -> TilePlan:
    """Cuts a picture of height x width into tiles of nearly equal cores of at most `tile_size`.

    Args:
        height, width: At least 1.
        tile_size: Largest core in pixels; 0 for one tile.
        overlap: Pixels that neighbours share, even; less where cores are smaller than that.
        halo: Context in pixels.

    Raises:
        ValueError: A number is out of its range.
    """
    if min(height, width) < 1 or tile_size < 0 or overlap < 0 or overlap % 2 or halo < 0:
        msg = f"no plan for {width}x{height} with tile_size {tile_size}, overlap {overlap}, halo {halo}"
        raise ValueError(msg)
    return TilePlan(
        height=height,
        width=width,
        tile_size=tile_size,
        overlap=overlap,
        halo=halo,
        rows=_spans(height, tile_size, overlap, halo),
        columns=_spans(width, tile_size, overlap, halo),
    )


def fit_tile_size(height: int, width: int, *, max_pixels: int, overlap: int, halo: int) -> int:
    """Finds the largest tile size whose tiles read at most `max_pixels`.

    It is never less than `MIN_TILE`, even if that is too much: the executor will find out.

    Args:
        height, width: Size of the picture.
        max_pixels: Most pixels that a tile may read.
        overlap: Pixels that neighbours share.
        halo: Context in pixels.

    Returns:
        A multiple of 16, or 0 where the whole picture is at most `max_pixels`.
    """
    if height * width <= max_pixels:
        return 0
    side = math.isqrt(max_pixels) - 2 * halo - overlap
    return max(MIN_TILE, side // 16 * 16)


def _spans(length: int, tile_size: int, overlap: int, halo: int) -> tuple[Span, ...]:
    count = math.ceil(length / tile_size) if tile_size else 1
    borders = [round(index * length / count) for index in range(count + 1)]
    shortest = min(stop - start for start, stop in zip(borders, borders[1:], strict=False))
    reach = min(overlap // 2, shortest // 2)
    spans = []
    for start, stop in zip(borders, borders[1:], strict=False):
        keep_start, keep_stop = max(0, start - reach), min(length, stop + reach)
        spans.append(
            Span(
                read_start=max(0, keep_start - halo),
                keep_start=keep_start,
                keep_stop=keep_stop,
                read_stop=min(length, keep_stop + halo),
            )
        )
    return tuple(spans)


def _length(span: Span) -> int:
    return span.read_stop - span.read_start


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
