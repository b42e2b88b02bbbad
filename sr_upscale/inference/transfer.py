"""Pixels to a CUDA device and back.

They go through pinned memory, on a stream of their own. So the GPU computes one strip while the strip
after it arrives and the strip before it leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sr_upscale.functional.color import Pixels, host_levels, to_levels, unit_range
from sr_upscale.functional.planes import Planes, into_pixels

Item = TypeVar("Item")


def to_device(strips: Iterable[Pixels], device: torch.device) -> Iterator[Tensor]:
    """Brings strips of pixels to a device, one strip ahead.

    Args:
        strips: (n, W, C) uint8 or uint16.
        device: Where they go.

    Returns:
        (1, C, n, W) float32 in [0, 1] on the device, one for each strip.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _finished(one_late(_begin_upload(strip, device, stream) for strip in strips))


def to_host(bands: Iterable[Planes], dtype: np.dtype[Any], device: torch.device) -> Iterator[Pixels]:
    """Brings bands back as pixels, one band behind.

    Args:
        bands: (1, C, m, W), tensors on the device or arrays, nominally in [0, 1].
        dtype: `numpy.uint8` or `numpy.uint16`.
        device: Where the bands are computed.

    Returns:
        (m, W, C) of `dtype`, clamped and rounded, one for each band.
    """
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


def _begin_download(band: Planes, dtype: np.dtype[Any], stream: torch.cuda.Stream) -> Callable[[], Pixels]:
    if isinstance(band, np.ndarray):  # tiles are put together on the host
        return lambda: into_pixels(band, dtype)
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
