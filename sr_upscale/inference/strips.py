"""The streaming executor: our generators, depth-first over strips of rows, each row computed once.

Every 3x3 conv keeps the last two rows of its input, so that its output lags one row behind; whatever meets that output
(the block's shorter branch, both skips) is taken as many rows late. Zero rows stand above the picture's first and
below its last, and nowhere else. So the result is the whole picture's, without seams and without recomputation, in
memory that grows with the width alone.

All strips have the same number of rows, at every layer: a layer that lags by d rows works on rows [a - d, a - d + n)
while the newest rows are [a, a + n). Rows outside the picture are set to zero, layers that have only such rows rest.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.errors import SrUpscaleError
from sr_upscale.inference.dynamic_batching import Together
from sr_upscale.inference.tiling import plan_columns
from sr_upscale.models.generator import (
    NEGATIVE_SLOPE,
    Generator,
    GeneratorConfig,
    InceptionResidualBlock,
    NearestConvTail,
)

STRIP_PIXELS = 16384
"""Pixels of a strip on a CPU, where its maps stay in the caches."""

GPU_STRIP_PIXELS = 1 << 20
"""Pixels of a strip on a GPU, so that it has enough to do at a time; chosen by reasoning, not yet measured."""

WHOLE_PIXELS, WHOLE_PIXELS_HALF = 192 * 192, 384 * 384
"""Pictures of at most so many pixels, in fp32 and in half precision, run whole on a CPU: strips would not be faster."""

MIN_FAST_ROWS, MAX_FAST_ROWS = 8, 64
"""Fewer rows spend their time on copies, more leave the caches or repeat rows at the picture's edges."""


class StreamNetwork:
    """A generator made ready to stream: weights in the type of the convs, sibling 1x1 convs joined.

    Args:
        model: In evaluation mode, on the device to run on; kept, for strips that have to be done again in float32.
        dtype: Of features and convs; the image skip stays float32.

    Attributes:
        redone: Strips that were not finite in half precision and were computed again in float32.
    """

    def __init__(self, model: Generator, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.dtype = model.to(memory_format=torch.channels_last), dtype
        self.config, self.scale = model.config, model.config.scale
        self.device = model.head.weight.device
        self.redone = 0
        self._together = Together(self._whole, GPU_STRIP_PIXELS)
        self.head = _Weights.of(model.head, dtype)
        self.blocks = [_BlockWeights.of(cast("InceptionResidualBlock", block), dtype) for block in model.blocks]
        self.trunk = _Weights.of(model.trunk, dtype)
        tail = model.tail
        if isinstance(tail, NearestConvTail):
            stages = [cast("nn.Conv2d", stage) for stage in tail.stages]
            self.tail = [_Weights.of(conv, dtype) for conv in (*stages, tail.conv, tail.last)]
        else:
            self.tail = [_Weights.of(tail.last, dtype)]

    def __call__(self, image_nchw: Tensor) -> Tensor:
        """A whole picture or tile, (1, 3, H, W) -> (1, 3, H * scale, W * scale); values as in `stream_rows`."""
        height, width = image_nchw.shape[2:]
        rows = fit_rows(height, width, self.device.type, half=self.dtype != torch.float32)
        return torch.cat(list(stream_rows(self, [image_nchw], height=height, rows=rows)), dim=2)

    def whole(self, image_nchw: Tensor) -> Tensor:
        """All layers over the whole picture, one after the other; like `stream_rows`, in much more memory.

        On a GPU, pictures of the same size that several threads bring at the same time run as one batch.
        """
        image = _channels_last(image_nchw.to(self.device))
        return self._together(image) if self.device.type != "cpu" else self._whole(image)

    @torch.no_grad()
    def _whole(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> float32 (N, 3, H * scale, W * scale); what is not finite is done again in float32."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out = cast("Tensor", self.model(images)).float()
        if not torch.isfinite(out.sum()):
            for number in range(len(images)):
                if not torch.isfinite(out[number].sum()):
                    self.redone += self.dtype != torch.float32
                    out[number] = _finite(self.model(images[number : number + 1]))[0]
        return out


def fit_rows(height: int, width: int, device_type: str, *, half: bool) -> int:
    """Rows of a strip that run fastest (docs/speed.md): what fits the caches, but not so few that overheads count.

    All rows where the whole picture fits.
    """
    pixels = STRIP_PIXELS if device_type == "cpu" else GPU_STRIP_PIXELS
    whole = (WHOLE_PIXELS_HALF if half else WHOLE_PIXELS) if device_type == "cpu" else GPU_STRIP_PIXELS
    if height * width <= whole:
        return height
    return min(height, max(MIN_FAST_ROWS, min(MAX_FAST_ROWS, pixels // width)))


@torch.no_grad()
def stream_rows(
    network: StreamNetwork, strips: Iterable[Tensor], *, height: int, rows: int, column: int = 0
) -> Iterator[Tensor]:
    """Runs a generator over a picture that comes in strips.

    Args:
        network: What to run.
        strips: (1, 3, n, W) float32 in [0, 1], from top to bottom, `height` rows together; of any heights.
        height: Rows of the picture.
        rows: Rows to work on at a time; `height` or more runs the picture whole.
        column: Columns to work on at a time, beside the receptive field on both sides; 0 takes the whole width.

    Yields:
        (1, 3, m, W * scale) float32 on the network's device, from top to bottom, height * scale rows together, finite.

    Raises:
        SrUpscaleError: The network's output is not finite even in float32.
    """
    scale = network.scale
    if rows >= height and not column:
        yield network.whole(torch.cat(list(strips), dim=2))
        return
    columns: list[tuple[_Column, slice, slice]] = []
    for number, strip in enumerate(_with_rows_below(evenly(strips, rows), rows, network.config.halo)):
        columns = columns or [
            (_Column(network, height, read.stop - read.start, rows), read, keep)
            for read, keep in plan_columns(strip.shape[3], column, network.config.halo)
        ]
        on_device = strip.to(network.device)
        bands = [
            None if (band := run(on_device[..., read])) is None else band[..., keep.start * scale : keep.stop * scale]
            for run, read, keep in columns
        ]
        first = number * rows * scale - columns[0][0].lag
        start, stop = max(first, 0), min(first + rows * scale, height * scale)
        if stop > start:
            whole = torch.cat([band for band in bands if band is not None], dim=3) if len(bands) > 1 else bands[0]
            assert whole is not None
            yield whole[:, :, start - first : stop - first]


def evenly(strips: Iterable[Tensor], rows: int) -> Iterator[Tensor]:
    """Strips (..., n, W) of any heights as strips of `rows` rows each; the last may have fewer."""
    waiting: list[Tensor] = []
    held = 0
    for strip in strips:
        start = 0
        while start < strip.shape[-2]:
            piece = strip[..., start : start + rows - held, :]
            waiting.append(piece)
            start, held = start + piece.shape[-2], held + piece.shape[-2]
            if held == rows:
                yield waiting[0] if len(waiting) == 1 else torch.cat(waiting, dim=-2)
                waiting, held = [], 0
    if waiting:
        yield torch.cat(waiting, dim=-2)


def stream_bytes(config: GeneratorConfig, width: int, rows: int, *, column: int = 0, half: bool = False) -> int:
    """Memory that `stream_rows` takes, in bytes: what it keeps, works in, and what a conv makes."""
    size, feat, scale = (2 if half else 4), config.num_feat, config.scale
    widths = [read.stop - read.start for read, _keep in plan_columns(width, column, config.halo)]
    of_block = 2 * feat + (3 + 2 + 2) * feat // 2
    kept = config.num_blocks * of_block + (2 * config.num_blocks + 2 + rows) * feat
    work = (rows + 3) * (3 * feat + 3 * feat // 2)
    image = 4 * 3 * (2 * config.halo + 2 * rows)
    fresh = 3 * rows * size * feat  # outputs of convs, and what the library packs for them
    if config.upsampler == "pixelshuffle":
        tail = 3 * scale**2 * rows * (size + 3 * 4)
    else:
        tail = 4 * scale**2 * rows * feat * size
    return int(sum(widths) * ((kept + work) * size + image) + max(widths) * (fresh + tail))


def _with_rows_below(strips: Iterable[Tensor], rows: int, below: int) -> Iterator[Tensor]:
    """Strips of exactly `rows` rows: the last is filled up with zeros, and strips of zeros follow."""
    strip = torch.empty(0)
    for strip in strips:
        yield strip if strip.shape[2] == rows else F.pad(strip, (0, 0, 0, rows - strip.shape[2]))
    for _ in range(math.ceil(below / rows)):
        yield strip.new_zeros(1, 3, rows, strip.shape[3])


# --- rows in memory ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """A conv's."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, conv: nn.Conv2d, dtype: torch.dtype) -> _Weights:
        return cls(
            weight=_channels_last(conv.weight.to(dtype)), bias=None if conv.bias is None else conv.bias.to(dtype)
        )

    def __call__(self, rows: Tensor) -> Tensor:
        """A 3x3 conv of rows that stand between one more row on either side."""
        return F.conv2d(rows, self.weight, self.bias, padding=(0, 1))


@dataclass(frozen=True, kw_only=True)
class _BlockWeights:
    """A block's; its two 1x1 convs, which read the same rows, run as one."""

    reduce: Tensor
    short: _Weights
    long1: _Weights
    long2: _Weights

    @classmethod
    def of(cls, block: InceptionResidualBlock, dtype: torch.dtype) -> _BlockWeights:
        short, long1, long2 = (_Weights.of(conv, dtype) for conv in (block.conv1, block.conv2a, block.conv2b))
        joined = torch.cat((block.reduce1.weight, block.reduce2.weight)).to(dtype)
        return cls(reduce=_channels_last(joined), short=short, long1=long1, long2=long2)


class _Lines:
    """Rows in place: `kept` from before, then the strip's own. What a layer writes is where the next one reads."""

    def __init__(self, network: StreamNetwork, channels: int, kept: int, rows: int, width: int) -> None:
        memory = torch.zeros(1, kept + rows, width, channels, dtype=network.dtype, device=network.device)
        self.whole = memory.permute(0, 3, 1, 2)
        self.old, self.new = self.whole[:, :, :kept], self.whole[:, :, kept:]
        self.late = self.whole[:, :, :rows]  # as many rows as the strip has, `kept` rows late
        self.last = self.whole[:, :, rows:]  # what is kept for the next strip
        self.halves = self.new[:, : channels // 2], self.new[:, channels // 2 :]

    def advance(self) -> None:
        """What was last becomes old."""
        self.old.copy_(self.last.clone())


class _Late:
    """The last strips, and rows of them that wait until the layers between have caught up."""

    def __init__(self, blank: Tensor, lag: int) -> None:
        self.rows = blank.shape[2]
        self.strips = deque(blank.clone() for _ in range(math.ceil(lag / self.rows) + 1))

    def put(self, strip: Tensor) -> None:
        """A copy of the newest strip, in place of the oldest."""
        self.strips.rotate(-1)
        self.strips[-1].copy_(strip)

    def get(self, lag: int, rows: int | None = None) -> Tensor:
        """As many rows as a strip has, or `rows`; the first lies `lag` rows before the newest strip's first."""
        start = (len(self.strips) - 1) * self.rows - lag
        stop = start + (self.rows if rows is None else rows)
        pieces = [
            strip[:, :, max(0, start - at) : stop - at]
            for at, strip in zip(itertools.count(0, self.rows), self.strips)
            if at < stop and start < at + self.rows
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


# --- the layers -------------------------------------------------------------------------------------


class _Column:
    """A generator as a pipe: every call takes the next strip and gives one, `lag` rows of output late.

    None comes where the output holds no row of the picture.
    """

    def __init__(self, network: StreamNetwork, height: int, width: int, rows: int) -> None:
        self.network, self.height, self.rows = network, height, rows
        self.at = -rows  # number of the newest strip's first row
        feat = network.config.num_feat
        self.head = _Lines(network, 3, 2, rows, width)
        self.features = [_Lines(network, feat, 2, rows, width) for _ in range(2)]  # read one, write the other
        inner = [_Lines(network, feat // 2, kept, rows, width) for kept in (3, 2, 2)]
        self.short, self.long1, self.long2 = inner
        shared = (self.features[0], *inner)
        self.kept = [[torch.zeros_like(lines.old) for lines in shared] for _ in network.blocks]
        self.trunk = _Lines(network, feat, 2, rows, width)
        self.trunk_lag = 2 * network.config.num_blocks + 2
        self.shallow = _Late(self.features[0].new, self.trunk_lag - 1)
        shuffles = network.config.upsampler == "pixelshuffle"
        self.tail = (_ShuffleTail if shuffles else _NearestTail)(network, height, width, rows, self.trunk_lag)
        self.lag = self.tail.lag
        self.image_lag = -(-self.lag // network.scale)
        blank = torch.zeros(1, 3, rows, width, device=network.device)
        self.image = _Late(blank, self.image_lag + network.config.halo)

    def __call__(self, strip: Tensor) -> Tensor | None:
        self.at += self.rows
        self.image.put(strip)
        features = self._features(strip)
        if features is None:
            return None
        out = self.tail(features, self.image.get(self.image_lag), self.at)
        return out if torch.isfinite(out.sum()) else self._in_float32(out)

    def _features(self, strip: Tensor) -> Tensor | None:
        """Head, blocks, trunk and long skip: (1, C, n, W), `trunk_lag` rows late."""
        network, (lines, other) = self.network, self.features
        self.head.new.copy_(strip)
        _leaky_relu(network.head(self.head.whole), out=lines.new)
        self.head.advance()
        _blank(lines.new, self.at - 1, self.height)
        self.shallow.put(lines.new)
        for number, (weights, kept) in enumerate(zip(network.blocks, self.kept, strict=True)):
            first = self.at - 1 - 2 * number
            if first + self.rows <= 0:
                return None  # the picture has not come this far
            if first - 2 < self.height:
                self._block(weights, kept, lines, other, first)
            else:
                other.new.zero_()  # the picture has passed
            lines, other = other, lines
        self.trunk.new.copy_(lines.new)
        out = network.trunk(self.trunk.whole)
        self.trunk.advance()
        out += self.shallow.get(self.trunk_lag - 1)
        return _blank(out, self.at - self.trunk_lag, self.height)

    def _block(self, weights: _BlockWeights, kept: list[Tensor], lines: _Lines, out: _Lines, first: int) -> None:
        """Reads `lines.new`, whose first row is number `first`, and writes `out.new`, two rows late."""
        short, long1, long2 = self.short, self.long1, self.long2
        for each, memory in zip((lines, short, long1, long2), kept, strict=True):
            each.old.copy_(memory)
        reduced = F.conv2d(lines.new, weights.reduce)
        half = reduced.shape[1] // 2
        _leaky_relu(reduced[:, :half], out=short.new)
        _leaky_relu(reduced[:, half:], out=long1.new)
        _leaky_relu(weights.long1(long1.whole), out=long2.new)
        _blank(long2.new, first - 1, self.height)
        _leaky_relu(weights.short(short.whole[:, :, :-1]), out=out.halves[0])
        _leaky_relu(weights.long2(long2.whole), out=out.halves[1])
        _blank(out.new.add_(lines.late), first - 2, self.height)
        for each, memory in zip((lines, short, long1, long2), kept, strict=True):
            memory.copy_(each.last)

    def _in_float32(self, out: Tensor) -> Tensor:
        """The strip again, by the whole network, from as many rows of the picture as it can depend on."""
        network, scale = self.network, self.network.scale
        network.redone += 1
        first = self.at * scale - self.lag
        start, stop = max(first, 0), min(first + out.shape[2], self.height * scale)
        top = max(0, start // scale - network.config.halo)
        bottom = min(self.height, -(-stop // scale) + network.config.halo)
        rows = self.image.get(self.at - top, bottom - top)
        exact = _finite(network.model(_channels_last(rows)))[:, :, start - top * scale : stop - top * scale]
        fresh = torch.zeros_like(out)
        fresh[:, :, start - first : stop - first] = exact
        return fresh


class _ShuffleTail:
    """Conv, sub-pixels into place, plus the image by nearest neighbour."""

    def __init__(self, network: StreamNetwork, _height: int, width: int, rows: int, lag: int) -> None:
        self.conv, self.scale = network.tail[0], network.scale
        self.lines = _Lines(network, network.config.num_feat, 2, rows, width)
        self.lag = (lag + 1) * self.scale

    def __call__(self, features: Tensor, image: Tensor, _at: int) -> Tensor:
        self.lines.new.copy_(features)
        residual = self.conv(self.lines.whole)
        self.lines.advance()
        rows, width = image.shape[2:]
        by_place = residual[0].permute(1, 2, 0).reshape(rows, width, 3, self.scale, self.scale).permute(0, 3, 1, 4, 2)
        out = image.new_empty(by_place.shape)  # (row, row inside, column, column inside, channel)
        torch.add(by_place, image[0].permute(1, 2, 0)[:, None, :, None], out=out)
        return out.view(1, rows * self.scale, width * self.scale, 3).permute(0, 3, 1, 2)


class _NearestTail:
    """Convs at growing resolution; lags are counted in rows of each."""

    def __init__(self, network: StreamNetwork, height: int, width: int, rows: int, lag: int) -> None:
        self.layers: list[tuple[_Weights, _Lines, int, int, int]] = []  # conv, its input, factor before it, height, lag
        size, factors = 1, (*network.config.stages, 1, 1)
        for conv, factor in zip(network.tail, factors, strict=True):
            size *= factor
            lag = lag * factor + 1
            lines = _Lines(network, conv.weight.shape[1], 2, rows * size, width * size)
            self.layers.append((conv, lines, factor, size, lag))
        self.height, self.lag = height, lag

    def __call__(self, features: Tensor, _image: Tensor, at: int) -> Tensor:
        rows = features
        for conv, lines, factor, size, lag in self.layers:
            height, width = rows.shape[2:]
            places = lines.new.view(1, -1, height, factor, width, factor)
            places.copy_(rows[:, :, :, None, :, None])  # nearest neighbour
            rows = conv(lines.whole)
            lines.advance()
            if conv is not self.layers[-1][0]:
                _blank(F.leaky_relu(rows, NEGATIVE_SLOPE, inplace=True), at * size - lag, self.height * size)
        return rows.float()


def _leaky_relu(rows: Tensor, *, out: Tensor) -> None:
    torch.ops.aten.leaky_relu.out(rows, NEGATIVE_SLOPE, out=out)


def _blank(rows: Tensor, first: int, height: int) -> Tensor:
    """Sets rows outside the picture to zero; `first` is the number of the first of `rows`."""
    if first < 0:
        rows[:, :, :-first] = 0
    if first + rows.shape[2] > height:
        rows[:, :, max(0, height - first) :] = 0
    return rows


def _finite(out: Tensor) -> Tensor:
    if not torch.isfinite(out.sum()):
        msg = "the network's output is not finite even in fp32; the weights are damaged, get them again"
        raise SrUpscaleError(msg)
    return out


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
