"""How the generator's blocks (`models.generator.BLOCKS`) run over strips of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.inference.strip_layers import ConvWeights, Lines, OnDevice, blank, channels_last, leaky_relu_into
from sr_upscale.models.descriptor import INNER_ROWS
from sr_upscale.models.generator import GatedBlock, InceptionResidualBlock


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
        first, second: Its convs. `second` is None where it passes its input on, as in a network that was compact.
        first_slopes, second_slopes: Slopes of the PReLU behind each, (C,) and (C / 2,).
        gain: (C, 1, 1), or None where all gains are 0.
    """

    first: ConvWeights
    first_slopes: Tensor
    second: ConvWeights | None
    second_slopes: Tensor
    gain: Tensor | None


class StreamGated(StreamBlock):
    """Streams a `GatedBlock`. `inner` is the short branch and the long one, both after the first conv."""

    @staticmethod
    def weights(block: nn.Module, dtype: torch.dtype) -> _GatedWeights:
        ours = cast("GatedBlock", block)
        return _GatedWeights(
            first=ConvWeights.of(ours.first, dtype),
            first_slopes=ours.first_act.weight.to(dtype),
            second=None if _passes_on(ours.second) else ConvWeights.of(ours.second, dtype),
            second_slopes=ours.second_act.weight.to(dtype),
            gain=ours.gain.to(dtype)[:, None, None] if bool(ours.gain.any()) else None,
        )

    def __call__(self, weights: _GatedWeights, lines: Lines, out: Lines, first: int) -> None:
        short, long = self.inner
        made = F.prelu(weights.first(lines.whole), weights.first_slopes)
        half = made.shape[1] // 2
        short.new.copy_(made[:, :half])
        long.new.copy_(made[:, half:])
        for each in (short, long):
            blank(each.new, first - 1, self.height)
        out.halves[0].copy_(short.late)
        deep = long.whole[:, :, 1:-1] if weights.second is None else weights.second(long.whole)
        out.halves[1].copy_(F.prelu(deep, weights.second_slopes))
        if weights.gain is not None:
            out.new.addcmul_(lines.late, weights.gain)
        blank(out.new, first - 2, self.height)


def _passes_on(conv: nn.Conv2d) -> bool:
    """Says whether a 3x3 conv gives its input back."""
    delta = nn.init.dirac_(torch.empty_like(conv.weight))
    return torch.equal(conv.weight, delta) and not bool(conv.bias is not None and conv.bias.any())


STREAM_BLOCKS: dict[str, type[StreamBlock]] = {"inception": StreamInception, "gated": StreamGated}
"""How the blocks of each name stream."""
