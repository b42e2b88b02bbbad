"""Pixels to the device and back.

They go to and from a GPU through pinned memory, on a stream of their own. So the GPU computes one strip while the strip
after it arrives and the strip before it leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sr_upscale.functional.color import Pixels, host_levels, to_levels, to_pixels, to_tensor, unit_range

Item = TypeVar("Item")


def to_device(strips: Iterable[Pixels], device: torch.device) -> Iterator[Tensor]:
    """Brings strips of pixels to a device; to a GPU one strip ahead.

    Args:
        strips: (n, W, C) uint8 or uint16.
        device: Where they go.

    Returns:
        (1, C, n, W) float32 in [0, 1] on the device, one for each strip.
    """
    if device.type != "cuda":
        return (to_tensor(strip, device) for strip in strips)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _finished(one_late(_begin_upload(strip, device, stream) for strip in strips))


def to_host(bands: Iterable[Tensor], dtype: np.dtype[Any], device: torch.device) -> Iterator[Pixels]:
    """Brings bands back as pixels; from a GPU one band behind.

    Args:
        bands: (1, C, m, W) on the device or the host, nominally in [0, 1].
        dtype: `numpy.uint8` or `numpy.uint16`.
        device: Where the bands are computed.

    Returns:
        (m, W, C) of `dtype`, clamped and rounded, one for each band.
    """
    if device.type != "cuda":
        return (to_pixels(band, dtype) for band in bands)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _finished(one_late(_begin_download(band, dtype, stream) for band in bands))


def one_late(items: Iterable[Item]) -> Iterator[Item]:
    """Yields the same items, each only when the next has been made; the last one at the end."""
    waiting: list[Item] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting


def _finished(transfers: Iterable[Callable[[], Item]]) -> Iterator[Item]:
    return (finish() for finish in transfers)


def _begin_upload(strip: Pixels, device: torch.device, stream: torch.cuda.Stream) -> Callable[[], Tensor]:
    pinned = host_levels(strip).pin_memory()
    with torch.cuda.stream(stream):
        levels = pinned.to(device, non_blocking=True)
        arrived = stream.record_event()

    def finish() -> Tensor:
        computing = torch.cuda.current_stream(device)
        computing.wait_event(arrived)
        levels.record_stream(computing)
        return unit_range(levels, strip.dtype)

    return finish


def _begin_download(band: Tensor, dtype: np.dtype[Any], stream: torch.cuda.Stream) -> Callable[[], Pixels]:
    if band.device.type != "cuda":  # tiles are put together on the host
        return lambda: to_pixels(band, dtype)
    levels = to_levels(band, dtype)
    pinned = torch.empty(levels.shape, dtype=levels.dtype, pin_memory=True)
    stream.wait_stream(torch.cuda.current_stream(band.device))
    with torch.cuda.stream(stream):
        pinned.copy_(levels, non_blocking=True)
        arrived = stream.record_event()
    levels.record_stream(stream)

    def finish() -> Pixels:
        arrived.synchronize()
        return pinned.numpy().astype(dtype, copy=False)

    return finish
