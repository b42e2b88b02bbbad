"""How the generator's tails (`models.tails`) run over strips of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.inference.strip_layers import ConvWeights, Lines, OnDevice, blank
from sr_upscale.models.descriptor import NEGATIVE_SLOPE, nearest_stages
from sr_upscale.models.tails import NearestConvTail, PixelShuffleTail, Tail


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
