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

from sr_upscale.models.descriptor import NEGATIVE_SLOPE, GeneratorConfig


@dataclass(frozen=True, kw_only=True)
class ConvWeights:
    """Weights of a conv, ready to run.

    Attributes:
        weight: (out, in, 3, 3), channels last in memory.
        bias: (out,), or None.
    """

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, conv: nn.Conv2d, dtype: torch.dtype) -> ConvWeights:
        """Takes the weights of a conv, as `dtype`."""
        return cls(weight=channels_last(conv.weight.to(dtype)), bias=None if conv.bias is None else conv.bias.to(dtype))

    def __call__(self, rows: Tensor) -> Tensor:
        """Runs a 3x3 conv of rows that stand between one more row on either side.

        Args:
            rows: (1, in, n + 2, W).

        Returns:
            (1, out, n, W).
        """
        return F.conv2d(rows, self.weight, self.bias, padding=(0, 1))


class OnDevice(Protocol):
    """Where rows stand, in which number type, and of which network; `tail` is the convs of its tail."""

    config: GeneratorConfig
    dtype: torch.dtype
    device: torch.device
    tail: list[ConvWeights]


class Lines:
    """Rows in place: `kept` from before, then the strip's own. What a layer writes is where the next one reads.

    Args:
        network: Gives device and number type.
        channels: Of the rows, even.
        kept: How many rows are kept from before.
        rows: Rows of a strip.
        width: Columns.

    Attributes:
        whole: All rows, (1, channels, kept + rows, width). The other attributes are views of it.
        old: The rows that were kept.
        new: The strip's own rows.
        late: As many rows as the strip has, `kept` rows late.
        last: The rows that are kept for the next strip.
        halves: The first and the second half of the channels of `new`.
    """

    def __init__(self, network: OnDevice, channels: int, kept: int, rows: int, width: int) -> None:
        memory = torch.zeros(1, kept + rows, width, channels, dtype=network.dtype, device=network.device)
        self.whole = memory.permute(0, 3, 1, 2)
        self.old, self.new = self.whole[:, :, :kept], self.whole[:, :, kept:]
        self.late = self.whole[:, :, :rows]  # as many rows as the strip has, `kept` rows late
        self.last = self.whole[:, :, rows:]  # what is kept for the next strip
        self.halves = self.new[:, : channels // 2], self.new[:, channels // 2 :]

    def advance(self) -> None:
        """Copies the last rows to the place of the old ones, for the next strip."""
        self.old.copy_(self.last.clone())


class Late:
    """The last strips, whose rows wait until the layers between have caught up.

    Args:
        blank: A strip (1, C, n, W) of zeros.
        lag: By how many rows a strip can be taken late.
    """

    def __init__(self, blank: Tensor, lag: int) -> None:
        self.rows = blank.shape[2]
        self.strips = deque(blank.clone() for _ in range(math.ceil(lag / self.rows) + 1))

    def put(self, strip: Tensor) -> None:
        """Copies the newest strip, (1, C, n, W), into the place of the oldest."""
        self.strips.rotate(-1)
        self.strips[-1].copy_(strip)

    def get(self, lag: int, rows: int | None = None) -> Tensor:
        """Returns as many rows as a strip has, or `rows`: (1, C, rows, W).

        The first of them lies `lag` rows before the newest strip's first.
        """
        start = (len(self.strips) - 1) * self.rows - lag
        stop = start + (self.rows if rows is None else rows)
        pieces = [
            strip[:, :, max(0, start - at) : stop - at]
            for at, strip in zip(itertools.count(0, self.rows), self.strips)
            if at < stop and start < at + self.rows
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


def leaky_relu_into(rows: Tensor, *, out: Tensor) -> None:
    """Writes LeakyReLU(0.2) of rows into `out`, a tensor of the same shape."""
    torch.ops.aten.leaky_relu.out(rows, NEGATIVE_SLOPE, out=out)


def blank(rows: Tensor, first: int, height: int) -> Tensor:
    """Sets rows outside the picture to zero, in place.

    Args:
        rows: (1, C, n, W).
        first: Number of the first of them; negative above the picture.
        height: Rows of the picture.

    Returns:
        `rows`.
    """
    if first < 0:
        rows[:, :, :-first] = 0
    if first + rows.shape[2] > height:
        rows[:, :, max(0, height - first) :] = 0
    return rows


def channels_last(x: Tensor) -> Tensor:
    """Returns (N, C, H, W) with the channels last in memory."""
    return x.contiguous(memory_format=torch.channels_last)
