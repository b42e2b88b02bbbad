"""A network made ready to run: its device, its number type, and a check of what comes out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sr_upscale.functional.planes import Planes
from sr_upscale.inference.color_drift import doubtful, finite


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
