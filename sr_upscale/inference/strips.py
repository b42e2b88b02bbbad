"""The streaming executor: our generators, depth-first over strips of rows, each row computed once.

Every 3x3 conv keeps the last two rows of its input, so that its output lags one row behind. Whatever meets that output
(the block's shorter branch, both skips) is taken as many rows late. Zero rows stand above the picture's first and
below its last, and nowhere else. So the result is the whole picture's, without seams and without recomputation. The
memory grows with the width alone.

All strips have the same number of rows, at every layer. A layer that lags by d rows works on rows [a - d, a - d + n)
while the newest rows are [a, a + n). Rows outside the picture are set to zero. Layers that have only such rows rest.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_upscale.functional.planes import Planes, evenly
from sr_upscale.inference.color_drift import doubtful, finite
from sr_upscale.inference.strip_layers import (
    STREAM_BLOCKS,
    STREAM_TAILS,
    ConvWeights,
    Late,
    Lines,
    blank,
    channels_last,
)
from sr_upscale.inference.tiling import GPU_STRIP_PIXELS, fit_rows, plan_columns
from sr_upscale.interrupts import STOP
from sr_upscale.models.generator import Generator, leaky_relu


class Together:
    """A network that several threads call at once.

    While it is busy, pictures wait. Those that have the same size then run together. Nobody waits for company: a
    picture that comes alone runs alone.

    Args:
        network: (N, 3, H, W) -> (N, 3, H * scale, W * scale).
        max_pixels: Most LR pixels of all the pictures of a batch together. A picture larger than that runs alone.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], max_pixels: int) -> None:
        self.network, self.max_pixels = network, max_pixels
        self._busy = False
        self._waiting: list[_Request] = []
        self._changed = threading.Condition()

    def __call__(self, image_nchw: Tensor) -> Tensor:
        """Runs `network` for one picture, (1, 3, H, W) -> (1, 3, H * scale, W * scale).

        If a batch raises an error, each of its callers gets it.
        """
        mine = _Request(image_nchw)
        with self._changed:
            self._waiting.append(mine)
            self._changed.wait_for(lambda: mine.out.done() or not self._busy)
            if mine.out.done():
                return mine.out.result()
            self._busy = True
            batch = self._take(mine)
        try:
            outs = self.network(torch.cat([each.image for each in batch]))
            for number, each in enumerate(batch):
                each.out.set_result(outs[number : number + 1])
        except BaseException as error:
            for each in batch:
                each.out.set_exception(error)
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        return mine.out.result()

    def _take(self, first: _Request) -> list[_Request]:
        """Takes the first request and the oldest ones that fit with it; they wait no longer."""
        size = first.image.shape
        others = [each for each in self._waiting if each is not first and each.image.shape == size]
        batch = [first, *others[: max(0, self.max_pixels // (size[2] * size[3]) - 1)]]
        self._waiting = [each for each in self._waiting if each not in batch]
        return batch


class _Request:
    def __init__(self, image: Tensor) -> None:
        self.image = image
        self.out: Future[Tensor] = Future()


class StreamNetwork:
    """A generator made ready to stream. Its weights have the type of the convs, and sibling 1x1 convs are joined.

    Args:
        model: In evaluation mode, on the device to run on. It is kept for strips that have to be done again in float32.
        dtype: Number type of features and convs; the image skip stays float32.

    Attributes:
        redone: Strips that were doubtful in half precision (`color_drift.doubtful`) and were computed again in float32.
    """

    def __init__(self, model: Generator, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.dtype = model.to(memory_format=torch.channels_last), dtype
        self.config, self.scale = model.config, model.config.scale
        self.device = model.head.weight.device
        self.redone = 0
        self._together = Together(self._whole, GPU_STRIP_PIXELS)
        self.head = ConvWeights.of(model.head, dtype)
        self.head_slopes = model.head_act.weight.to(dtype) if self.config.block == "gated" else None
        self.stream_block = STREAM_BLOCKS[self.config.block]
        self.blocks = [self.stream_block.weights(block, dtype) for block in model.blocks]
        self.trunk = ConvWeights.of(model.trunk, dtype) if self.config.block == "inception" else None
        self.stream_tail = STREAM_TAILS[type(model.tail)]
        self.tail = [ConvWeights.of(conv, dtype) for conv in self.stream_tail.convs(model.tail)]

    def __call__(self, image_nchw: Planes) -> Tensor:
        """Runs over a whole picture or tile, (1, 3, H, W) -> (1, 3, H * scale, W * scale).

        Number types, ranges and errors are those of `stream_rows`.
        """
        height, width = image_nchw.shape[2:]
        rows = fit_rows(height, width, self.device.type, half=self.dtype != torch.float32)
        return torch.cat(list(stream_rows(self, [image_nchw], height=height, rows=rows)), dim=2)

    def whole(self, image_nchw: Tensor) -> Tensor:
        """Runs all layers over the whole picture, one after the other. Like `stream_rows`, in much more memory.

        On a GPU, pictures of the same size that several threads bring at the same time run as one batch.

        Args:
            image_nchw: (1, 3, H, W) float32 in [0, 1].

        Returns:
            (1, 3, H * scale, W * scale) float32 on the network's device, finite.

        Raises:
            SrUpscaleError: The network's output is not finite even in float32.
        """
        image = channels_last(image_nchw.to(self.device))
        return self._together(image) if self.device.type != "cpu" else self._whole(image)

    @torch.no_grad()
    def _whole(self, images: Tensor) -> Tensor:
        """Runs a batch, (N, 3, H, W) -> float32 (N, 3, H * scale, W * scale).

        Pictures whose output is doubtful in half precision are done again in float32.
        """
        if self.dtype == torch.float32:
            return cast("Tensor", finite(self.model(images)))
        with torch.autocast(self.device.type, self.dtype):
            out = cast("Tensor", self.model(images)).float()
        for number in range(len(images)):
            one = slice(number, number + 1)
            if doubtful(images[one], out[one]):
                self.redone += 1
                out[one] = finite(self.model(images[one]))
        return out


@torch.no_grad()
def stream_rows(
    network: StreamNetwork, strips: Iterable[Planes], *, height: int, rows: int, column: int = 0
) -> Iterator[Tensor]:
    """Runs a generator over a picture that comes in strips.

    Args:
        network: What to run.
        strips: (1, 3, n, W) float32 in [0, 1] of any heights, arrays or tensors, from top to bottom. Together they have
            `height` rows.
        height: Rows of the picture.
        rows: Rows to work on at a time; `height` or more runs the picture whole.
        column: Columns to work on at a time, beside the receptive field on both sides. 0 takes the whole width.

    Yields:
        Bands (1, 3, m, W * scale) float32 on the network's device, from top to bottom, finite. Together they have
        height * scale rows.

    Raises:
        SrUpscaleError: The network's output is not finite even in float32.
    """
    scale = network.scale
    if rows >= height and not column:
        yield network.whole(torch.cat([torch.as_tensor(strip) for strip in strips], dim=2))
        return
    columns: list[tuple[_Column, slice, slice]] = []
    for number, strip in enumerate(_with_rows_below(evenly(strips, rows), rows, network.config.halo)):
        STOP.check(any_thread=True)
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


def _with_rows_below(strips: Iterable[Planes], rows: int, below: int) -> Iterator[Tensor]:
    """Makes strips of exactly `rows` rows. The last is filled up with zeros, and strips of zeros follow."""
    strip = torch.empty(0)
    for planes in strips:
        strip = torch.as_tensor(planes)
        yield strip if strip.shape[2] == rows else F.pad(strip, (0, 0, 0, rows - strip.shape[2]))
    for _ in range(math.ceil(below / rows)):
        yield strip.new_zeros(1, 3, rows, strip.shape[3])


class _Column:
    """A generator as a pipe: every call takes the next strip and gives one, `lag` rows of output late.

    The call gives None where the output holds no row of the picture.
    """

    def __init__(self, network: StreamNetwork, height: int, width: int, rows: int) -> None:
        self.network, self.height, self.rows = network, height, rows
        self.at = -rows  # number of the newest strip's first row
        feat = network.config.num_feat
        self.head = Lines(network, 3, 2, rows, width)
        self.features = [Lines(network, feat, 2, rows, width) for _ in range(2)]  # read one, write the other
        self.block = network.stream_block(network, height, width, rows)
        shared = (self.features[0], *self.block.inner)
        self.kept = [[torch.zeros_like(lines.old) for lines in shared] for _ in network.blocks]
        self.trunk_lag = network.config.trunk_reach
        if network.trunk is not None:
            self.trunk = Lines(network, feat, 2, rows, width)
            self.shallow = Late(self.features[0].new, self.trunk_lag - 1)
        self.tail = network.stream_tail(network, height, width, rows, self.trunk_lag)
        self.lag = self.tail.lag
        self.image_lag = -(-self.lag // network.scale)
        empty = torch.zeros(1, 3, rows, width, device=network.device)
        self.image = Late(empty, self.image_lag + network.config.halo)

    def __call__(self, strip: Tensor) -> Tensor | None:
        self.at += self.rows
        self.image.put(strip)
        features = self._features(strip)
        if features is None:
            return None
        out = self.tail(features, self.image.get(self.image_lag), self.at)
        return self._in_float32(out) if self._is_doubtful(out) else out

    def _features(self, strip: Tensor) -> Tensor | None:
        """Runs head, blocks, and trunk and long skip where there are: (1, 3, n, W) -> (1, C, n, W), `trunk_lag` late.

        Gives None while the blocks have not reached the picture's first row.
        """
        network, (lines, other) = self.network, self.features
        self.head.new.copy_(strip)
        shallow = network.head(self.head.whole)
        slopes = network.head_slopes
        lines.new.copy_(leaky_relu(shallow) if slopes is None else F.prelu(shallow, slopes))
        self.head.advance()
        blank(lines.new, self.at - 1, self.height)
        if network.trunk is not None:
            self.shallow.put(lines.new)
        for number, (weights, kept) in enumerate(zip(network.blocks, self.kept, strict=True)):
            first = self.at - 1 - 2 * number
            if first + self.rows <= 0:
                return None  # the picture has not come this far
            if first - 2 < self.height:
                working = (lines, *self.block.inner)
                for each, memory in zip(working, kept, strict=True):
                    each.old.copy_(memory)
                self.block(weights, lines, other, first)
                for each, memory in zip(working, kept, strict=True):
                    memory.copy_(each.last)
            else:
                other.new.zero_()  # the picture has passed
            lines, other = other, lines
        if network.trunk is None:
            return lines.new
        self.trunk.new.copy_(lines.new)
        out = network.trunk(self.trunk.whole)
        self.trunk.advance()
        out += self.shallow.get(self.trunk_lag - 1)
        return blank(out, self.at - self.trunk_lag, self.height)

    def _is_doubtful(self, out: Tensor) -> bool:
        """Says whether a strip is not finite, or in half precision not an answer to the rows that it enlarges."""
        network, scale = self.network, self.network.scale
        if not torch.isfinite(out.sum()):
            return True
        first, start, stop = self._inside(out)
        top, bottom = -(-start // scale), stop // scale
        if network.dtype == torch.float32 or bottom <= top:
            return False
        rows = self.image.get(self.at - top, bottom - top)
        return doubtful(rows, out[:, :, top * scale - first : bottom * scale - first])

    def _inside(self, out: Tensor) -> tuple[int, int, int]:
        """Returns the number of a strip's first row, and of the first row and the end of what lies in the picture."""
        scale = self.network.scale
        first = self.at * scale - self.lag
        return first, max(first, 0), min(first + out.shape[2], self.height * scale)

    def _in_float32(self, out: Tensor) -> Tensor:
        """Computes the strip again by the whole network, from as many rows of the picture as it can depend on."""
        network, scale = self.network, self.network.scale
        network.redone += 1
        first, start, stop = self._inside(out)
        top = max(0, start // scale - network.config.halo)
        bottom = min(self.height, -(-stop // scale) + network.config.halo)
        rows = self.image.get(self.at - top, bottom - top)
        exact = finite(network.model(channels_last(rows)))[:, :, start - top * scale : stop - top * scale]
        fresh = torch.zeros_like(out)
        fresh[:, :, start - first : stop - first] = exact
        return fresh
