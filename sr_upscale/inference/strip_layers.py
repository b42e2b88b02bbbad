"""What streaming keeps between strips: weights ready to run, rows in place, rows that wait."""

from __future__ import annotations

import itertools
import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.models.generator import InceptionResidualBlock
from sr_upscale.models.tails import NEGATIVE_SLOPE


@dataclass(frozen=True, kw_only=True)
class ConvWeights:
    """A conv's."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, conv: nn.Conv2d, dtype: torch.dtype) -> ConvWeights:
        return cls(weight=channels_last(conv.weight.to(dtype)), bias=None if conv.bias is None else conv.bias.to(dtype))

    def __call__(self, rows: Tensor) -> Tensor:
        """A 3x3 conv of rows that stand between one more row on either side."""
        return F.conv2d(rows, self.weight, self.bias, padding=(0, 1))


@dataclass(frozen=True, kw_only=True)
class BlockWeights:
    """A block's; its two 1x1 convs, which read the same rows, run as one."""

    reduce: Tensor
    short: ConvWeights
    long1: ConvWeights
    long2: ConvWeights

    @classmethod
    def of(cls, block: InceptionResidualBlock, dtype: torch.dtype) -> BlockWeights:
        short, long1, long2 = (ConvWeights.of(conv, dtype) for conv in (block.conv1, block.conv2a, block.conv2b))
        joined = torch.cat((block.reduce1.weight, block.reduce2.weight)).to(dtype)
        return cls(reduce=channels_last(joined), short=short, long1=long1, long2=long2)


class OnDevice(Protocol):
    """Where rows stand, and as what."""

    dtype: torch.dtype
    device: torch.device


class Lines:
    """Rows in place: `kept` from before, then the strip's own. What a layer writes is where the next one reads."""

    def __init__(self, network: OnDevice, channels: int, kept: int, rows: int, width: int) -> None:
        memory = torch.zeros(1, kept + rows, width, channels, dtype=network.dtype, device=network.device)
        self.whole = memory.permute(0, 3, 1, 2)
        self.old, self.new = self.whole[:, :, :kept], self.whole[:, :, kept:]
        self.late = self.whole[:, :, :rows]  # as many rows as the strip has, `kept` rows late
        self.last = self.whole[:, :, rows:]  # what is kept for the next strip
        self.halves = self.new[:, : channels // 2], self.new[:, channels // 2 :]

    def advance(self) -> None:
        """What was last becomes old."""
        self.old.copy_(self.last.clone())


class Late:
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


def leaky_relu_into(rows: Tensor, *, out: Tensor) -> None:
    torch.ops.aten.leaky_relu.out(rows, NEGATIVE_SLOPE, out=out)


def blank(rows: Tensor, first: int, height: int) -> Tensor:
    """Sets rows outside the picture to zero; `first` is the number of the first of `rows`."""
    if first < 0:
        rows[:, :, :-first] = 0
    if first + rows.shape[2] > height:
        rows[:, :, max(0, height - first) :] = 0
    return rows


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
