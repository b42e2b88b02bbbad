"""The generator's blocks and tails over strips of rows, and what they keep between strips."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.models.descriptor import INNER_ROWS, NEGATIVE_SLOPE, GeneratorConfig, nearest_stages
from sr_upscale.models.generator import GatedBlock, InceptionResidualBlock, NearestConvTail, PixelShuffleTail, Tail


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


class StreamTail(ABC):
    """A tail as a pipe: features of a strip and the image -> rows of output.

    A call takes three things. The features (1, C, n, W) come late by the `lag` of the arguments. The image
    (1, 3, n, W) float32 comes as late as the output. `at` is the number of the newest strip's first row. The call gives
    (1, 3, n * scale, W * scale) float32.

    Args:
        network: The network whose tail this is.
        height, width: The picture, in LR pixels.
        rows: Rows of a strip (n).
        lag: LR rows by which the features come late.

    Attributes:
        lag: Rows of output by which the tail's own come late.
    """

    lag: int

    @abstractmethod
    def __init__(self, network: OnDevice, height: int, width: int, rows: int, lag: int) -> None: ...

    @abstractmethod
    def __call__(self, features: Tensor, image: Tensor, at: int) -> Tensor: ...

    @staticmethod
    @abstractmethod
    def convs(tail: Tail) -> Iterable[nn.Conv2d]:
        """Lists the tail's convs, in the order in which they run."""


class ShuffleTail(StreamTail):
    """Streams a `PixelShuffleTail`: a conv, sub-pixels into place, plus the image by nearest neighbour."""

    def __init__(self, network: OnDevice, _height: int, width: int, rows: int, lag: int) -> None:
        self.conv, self.scale = network.tail[0], network.config.scale
        self.lines = Lines(network, network.config.num_feat, 2, rows, width)
        self.lag = (lag + 1) * self.scale

    @staticmethod
    def convs(tail: Tail) -> Iterable[nn.Conv2d]:
        return [cast("PixelShuffleTail", tail).last]

    def __call__(self, features: Tensor, image: Tensor, _at: int) -> Tensor:
        self.lines.new.copy_(features)
        residual = self.conv(self.lines.whole)
        self.lines.advance()
        rows, width = image.shape[2:]
        by_place = residual[0].permute(1, 2, 0).reshape(rows, width, 3, self.scale, self.scale).permute(0, 3, 1, 4, 2)
        out = image.new_empty(by_place.shape)  # (row, row inside, column, column inside, channel)
        torch.add(by_place, image[0].permute(1, 2, 0)[:, None, :, None], out=out)
        return out.view(1, rows * self.scale, width * self.scale, 3).permute(0, 3, 1, 2)


class NearestTail(StreamTail):
    """Streams a `NearestConvTail`: convs at growing resolution. Lags are counted in rows of each resolution."""

    def __init__(self, network: OnDevice, height: int, width: int, rows: int, lag: int) -> None:
        # conv, its input, factor before it, factor in all, lag
        self.layers: list[tuple[ConvWeights, Lines, int, int, int]] = []
        size, factors = 1, (*nearest_stages(network.config.scale), 1, 1)
        for conv, factor in zip(network.tail, factors, strict=True):
            size *= factor
            lag = lag * factor + 1
            lines = Lines(network, conv.weight.shape[1], 2, rows * size, width * size)
            self.layers.append((conv, lines, factor, size, lag))
        self.height, self.lag = height, lag

    @staticmethod
    def convs(tail: Tail) -> Iterable[nn.Conv2d]:
        published = cast("NearestConvTail", tail)
        return [*(cast("nn.Conv2d", stage) for stage in published.stages), published.conv, published.last]

    def __call__(self, features: Tensor, _image: Tensor, at: int) -> Tensor:
        rows = features
        for conv, lines, factor, size, lag in self.layers:
            height, width = rows.shape[2:]
            places = lines.new.view(1, -1, height, factor, width, factor)
            places.copy_(rows[:, :, :, None, :, None])  # nearest neighbour
            rows = conv(lines.whole)
            lines.advance()
            if conv is not self.layers[-1][0]:
                blank(F.leaky_relu(rows, NEGATIVE_SLOPE, inplace=True), at * size - lag, self.height * size)
        return rows.float()


STREAM_TAILS: dict[type[Tail], type[StreamTail]] = {PixelShuffleTail: ShuffleTail, NearestConvTail: NearestTail}
"""How each tail streams."""


class StreamBlock(ABC):
    """The blocks of one kind as a pipe, two rows late. All blocks of a network work in the same rows, in turn.

    Args:
        network: The network whose blocks these are; `config` gives its channels.
        height, width: The picture, in LR pixels.
        rows: Rows of a strip.

    Attributes:
        inner: Rows between the convs of a block. What they keep from strip to strip is each block's own.
    """

    inner: list[Lines]

    def __init__(self, network: OnDevice, height: int, width: int, rows: int) -> None:
        half = network.config.num_feat // 2
        self.height = height
        self.inner = [Lines(network, half, kept, rows, width) for kept in INNER_ROWS[network.config.block]]

    @staticmethod
    @abstractmethod
    def weights(block: nn.Module, dtype: torch.dtype) -> Any:
        """Takes the weights of a block, as `dtype`, ready to run."""

    @abstractmethod
    def __call__(self, weights: Any, lines: Lines, out: Lines, first: int) -> None:
        """Reads `lines.new`, whose first row is number `first`, and writes `out.new`, two rows late."""


@dataclass(frozen=True, kw_only=True)
class _InceptionWeights:
    """Weights of an `InceptionResidualBlock`. Its two 1x1 convs read the same rows and run as one.

    Attributes:
        reduce: The two 1x1 convs, (2 * half, in, 1, 1): first that of the short branch, then that of the long one.
        short: The 3x3 conv of the short branch.
        long1, long2: The 3x3 convs of the long branch, in order.
    """

    reduce: Tensor
    short: ConvWeights
    long1: ConvWeights
    long2: ConvWeights


class StreamInception(StreamBlock):
    """Streams an `InceptionResidualBlock`. `inner` is the short branch, then the long one after each conv."""

    @staticmethod
    def weights(block: nn.Module, dtype: torch.dtype) -> _InceptionWeights:
        ours = cast("InceptionResidualBlock", block)
        short, long1, long2 = (ConvWeights.of(conv, dtype) for conv in (ours.conv1, ours.conv2a, ours.conv2b))
        joined = torch.cat((ours.reduce1.weight, ours.reduce2.weight)).to(dtype)
        return _InceptionWeights(reduce=channels_last(joined), short=short, long1=long1, long2=long2)

    def __call__(self, weights: _InceptionWeights, lines: Lines, out: Lines, first: int) -> None:
        short, long1, long2 = self.inner
        reduced = F.conv2d(lines.new, weights.reduce)
        half = reduced.shape[1] // 2
        leaky_relu_into(reduced[:, :half], out=short.new)
        leaky_relu_into(reduced[:, half:], out=long1.new)
        leaky_relu_into(weights.long1(long1.whole), out=long2.new)
        blank(long2.new, first - 1, self.height)
        leaky_relu_into(weights.short(short.whole[:, :, :-1]), out=out.halves[0])
        leaky_relu_into(weights.long2(long2.whole), out=out.halves[1])
        blank(out.new.add_(lines.late), first - 2, self.height)


@dataclass(frozen=True, kw_only=True)
class _GatedWeights:
    """Weights of a `GatedBlock`.

    Attributes:
        first: Its first conv.
        slopes: Of the PReLU behind it, (C,). Where `second` is None, those of both PReLU.
        second: Its second conv, or None where that passes its input on, as in a network that was compact.
        second_slopes: Of the PReLU behind that, (C / 2,).
        gain: (C, 1, 1), or None where all gains are 0.
    """

    first: ConvWeights
    slopes: Tensor
    second: ConvWeights | None
    second_slopes: Tensor
    gain: Tensor | None


class StreamGated(StreamBlock):
    """Streams a `GatedBlock`. `inner` is the short branch and the long one, both after the first conv."""

    @staticmethod
    def weights(block: nn.Module, dtype: torch.dtype) -> _GatedWeights:
        ours = cast("GatedBlock", block)
        slopes, deeper = ours.first_act.weight.data, ours.second_act.weight.data
        short, long = slopes.chunk(2)
        plain = _passes_on(ours.second) and bool((long > 0).all())  # else one PReLU does not answer as two
        if plain:
            slopes = torch.cat((short, long * deeper))
        return _GatedWeights(
            first=ConvWeights.of(ours.first, dtype),
            slopes=slopes.to(dtype),
            second=None if plain else ConvWeights.of(ours.second, dtype),
            second_slopes=deeper.to(dtype),
            gain=ours.gain.to(dtype)[:, None, None] if bool(ours.gain.any()) else None,
        )

    def __call__(self, weights: _GatedWeights, lines: Lines, out: Lines, first: int) -> None:
        short, long = self.inner
        made = blank(F.prelu(weights.first(lines.whole), weights.slopes), first - 1, self.height)
        half = made.shape[1] // 2
        out.halves[0][:, :, :1] = short.old
        out.halves[0][:, :, 1:] = made[:, :half, :-1]
        short.last.copy_(made[:, :half, -1:])
        if weights.second is None:
            out.halves[1][:, :, :1] = long.old[:, :, 1:]
            out.halves[1][:, :, 1:] = made[:, half:, :-1]
            long.new[:, :, -2:] = made[:, half:, -2:]
        else:
            long.new.copy_(made[:, half:])
            out.halves[1].copy_(F.prelu(weights.second(long.whole), weights.second_slopes))
        if weights.gain is not None:
            out.new.addcmul_(lines.late, weights.gain)
        blank(out.new, first - 2, self.height)


def _passes_on(conv: nn.Conv2d) -> bool:
    """Says whether a 3x3 conv gives its input back."""
    delta = nn.init.dirac_(torch.empty_like(conv.weight))
    return torch.equal(conv.weight, delta) and not bool(conv.bias is not None and conv.bias.any())


STREAM_BLOCKS: dict[str, type[StreamBlock]] = {"inception": StreamInception, "gated": StreamGated}
"""How the blocks of each name stream."""
