"""The streaming executor: our generators, depth-first over strips of rows, each row computed once.

Every 3x3 conv keeps the last two rows of its input; the shorter branch of a block and both skips wait until the longer
branch has the same row. Zero rows stand above the picture's first and below its last, and nowhere else. So the result
is the whole picture's, without seams and without recomputation, in memory that grows with the width alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.models.generator import (
    NEGATIVE_SLOPE,
    Generator,
    InceptionResidualBlock,
    NearestConvTail,
    PixelShuffleTail,
)

Feed = Callable[[Tensor, bool], Tensor]
"""Takes the next rows of an input (1, C, n, W) and whether they are the last; gives the output rows that are ready."""


def stream_rows(model: Generator, strips: Iterable[Tensor], *, dtype: torch.dtype = torch.float32) -> Iterator[Tensor]:
    """Runs a generator over a picture that comes in strips.

    Args:
        model: In evaluation mode, on the device to run on; it is not changed.
        strips: (1, 3, n, W) float32 in [0, 1], from top to bottom, of one width, each of at least one row.
        dtype: Of features and convs; the image skip stays float32.

    Yields:
        (1, 3, m * scale, W * scale) float32, from top to bottom, together as many rows as came in times the scale. The
        first comes when the receptive field below the first row is filled.
    """
    network = _Network(model, dtype)
    waiting: Tensor | None = None
    with torch.inference_mode():
        for strip in strips:
            if waiting is not None:
                out = network(waiting, False)
                if out.shape[2]:
                    yield out
            waiting = strip
        if waiting is not None:
            yield network(waiting, True)


class _Network:
    """A generator as a pipe of rows."""

    def __init__(self, model: Generator, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.head = _Conv(model.head, dtype)
        self.blocks = [_Block(cast("InceptionResidualBlock", block), dtype) for block in model.blocks]
        self.trunk = _Conv(model.trunk, dtype)
        self.long_skip = _Delay()
        self.image = _Delay()
        tail = model.tail
        self.tail: Feed
        if isinstance(tail, PixelShuffleTail):
            self.tail, self.scale = _shuffle_tail(tail, self.image, dtype), tail.scale
        else:
            self.tail, self.scale = _nearest_tail(tail, dtype), model.config.scale

    def __call__(self, rows: Tensor, last: bool) -> Tensor:
        rows = rows.contiguous(memory_format=torch.channels_last)
        self.image.put(rows)
        features = _lrelu(self.head(rows.to(self.dtype), last))
        self.long_skip.put(features)
        for block in self.blocks:
            features = block(features, last)
        features = self.trunk(features, last)
        features = features + self.long_skip.take(features.shape[2])
        return self.tail(features, last)


class _Conv:
    """A 3x3 conv with zero padding, fed with rows."""

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        self.weight = conv.weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = conv.bias.to(dtype) if conv.bias is not None else None
        self.kept: Tensor | None = None  # the last rows of the input, two at most; None before the first

    def __call__(self, rows: Tensor, last: bool) -> Tensor:
        if rows.shape[2] == 0 and not last:
            return _no_rows(rows, self.weight.shape[0])
        zero = rows.new_zeros(1, rows.shape[1], 1, rows.shape[3])
        above = zero if self.kept is None else self.kept
        whole = torch.cat((above, rows, zero) if last else (above, rows), dim=2)
        self.kept = whole[:, :, -2:]
        if whole.shape[2] < 3:
            return _no_rows(rows, self.weight.shape[0])
        return F.conv2d(whole, self.weight, self.bias, padding=(0, 1))


class _Delay:
    """Rows that wait for others."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None

    def put(self, rows: Tensor) -> None:
        self.rows = rows if self.rows is None or self.rows.shape[2] == 0 else torch.cat((self.rows, rows), dim=2)

    def take(self, count: int) -> Tensor:
        assert self.rows is not None
        taken, self.rows = self.rows[:, :, :count], self.rows[:, :, count:]
        return taken


class _Block:
    """An inception-residual block; its two 1x1 convs, which read the same rows, run as one."""

    def __init__(self, block: InceptionResidualBlock, dtype: torch.dtype) -> None:
        joined = torch.cat((block.reduce1.weight, block.reduce2.weight)).to(dtype)
        self.reduce = joined.contiguous(memory_format=torch.channels_last)
        self.half = block.reduce1.weight.shape[0]
        self.short, self.long1, self.long2 = (_Conv(conv, dtype) for conv in (block.conv1, block.conv2a, block.conv2b))
        self.short_rows, self.input_rows = _Delay(), _Delay()

    def __call__(self, rows: Tensor, last: bool) -> Tensor:
        self.input_rows.put(rows)
        reduced = _lrelu(F.conv2d(rows, self.reduce)) if rows.shape[2] else _no_rows(rows, 2 * self.half)
        self.short_rows.put(_lrelu(self.short(reduced[:, : self.half], last)))
        long = _lrelu(self.long2(_lrelu(self.long1(reduced[:, self.half :], last)), last))
        count = long.shape[2]
        return torch.cat((self.short_rows.take(count), long), dim=1).add_(self.input_rows.take(count))


def _shuffle_tail(tail: PixelShuffleTail, image: _Delay, dtype: torch.dtype) -> Feed:
    conv = _Conv(tail.last, dtype)

    def feed(features: Tensor, last: bool) -> Tensor:
        residual = conv(features, last).float()
        rows = image.take(residual.shape[2])
        if residual.shape[2] == 0:
            return residual.new_zeros(1, 3, 0, residual.shape[3] * tail.scale)
        enlarged = F.interpolate(rows, scale_factor=tail.scale, mode="nearest")
        return F.pixel_shuffle(residual, tail.scale) + enlarged

    return feed


def _nearest_tail(tail: NearestConvTail, dtype: torch.dtype) -> Feed:
    stages = [_Conv(cast("nn.Conv2d", conv), dtype) for conv in tail.stages]
    conv, final = _Conv(tail.conv, dtype), _Conv(tail.last, dtype)

    def feed(features: Tensor, last: bool) -> Tensor:
        for factor, stage in zip(tail.factors, stages, strict=True):
            larger = features.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
            features = _lrelu(stage(larger.contiguous(memory_format=torch.channels_last), last))
        return final(_lrelu(conv(features, last)), last).float()

    return feed


def _no_rows(like: Tensor, channels: int) -> Tensor:
    return like.new_zeros(1, channels, 0, like.shape[3])


def _lrelu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)
