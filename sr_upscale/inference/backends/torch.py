"""torch: our generators in strips, all other networks in tiles, in their number type and checked."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sr_upscale.device import Device
from sr_upscale.functional.planes import Planes
from sr_upscale.inference.color_drift import doubtful, finite
from sr_upscale.inference.strips import StreamNetwork
from sr_upscale.interrupts import STOP
from sr_upscale.models.generator import Generator
from sr_upscale.pretrained.load import module_of

if TYPE_CHECKING:
    from sr_upscale.inference.backends import Start


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
