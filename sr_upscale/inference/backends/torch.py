"""torch: our generators in strips, all other networks in tiles, in their number type and checked.

Pixels go to a CUDA device and back through pinned memory, on a stream of their own. So the GPU computes one strip while
the strip after it arrives and the strip before it leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from sr_upscale.device import Device
from sr_upscale.functional.color import Pixels, host_levels, to_levels, unit_range
from sr_upscale.functional.planes import Planes, into_pixels
from sr_upscale.inference.backends import Start
from sr_upscale.inference.color_drift import doubtful, finite
from sr_upscale.inference.strips import StreamNetwork
from sr_upscale.interrupts import STOP
from sr_upscale.models.generator import Generator
from sr_upscale.pretrained.load import module_of


def starter(weights: Path, device: Device) -> Start:
    """See `backends.starter`."""
    module, place = STOP.check_layers(module_of(weights)), torch.device(str(device))
    if isinstance(module, Generator):
        stream = partial(StreamNetwork, module.to(place))
        return lambda dtype: stream(getattr(torch, dtype))
    return lambda dtype: Network(module, place, getattr(torch, dtype))


class Network:
    """A network ready to run: (1, 3, H, W) float32 in [0, 1] -> (1, 3, H*s, W*s) float32 on `device`, always finite.

    It takes arrays and tensors, and gives tensors.

    Weights stay float32 and convs run under autocast, so that the image skip keeps all its bits. A doubtful result
    (fp16 overflows on some inputs: `color_drift.doubtful`) is computed again in float32.

    Args:
        module: Network in evaluation mode.
        device: Where to run.
        dtype: Type of the convs.

    Attributes:
        redone: Inputs that were computed again in float32.

    Raises:
        SrUpscaleError: When called: the result is not finite even in float32.
    """

    def __init__(self, module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.module = module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = device
        self.dtype = dtype
        self.redone = 0

    def __call__(self, planes_nchw: Planes) -> Tensor:
        tile_nchw = torch.as_tensor(planes_nchw).to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            out = self._run(tile_nchw, self.dtype)
            if self.dtype != torch.float32 and doubtful(tile_nchw, out):
                self.redone += 1
                out = self._run(tile_nchw, torch.float32)
        return finite(out)

    def _run(self, tile_nchw: Tensor, dtype: torch.dtype) -> Tensor:
        half: AbstractContextManager[Any] = (
            nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)
        )
        with half:
            out: Tensor = self.module(tile_nchw)
        return out.float()


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
