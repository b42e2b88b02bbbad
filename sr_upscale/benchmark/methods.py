"""What can be measured: resampling, our weights, and those of others, behind one face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sr_upscale.benchmark.names import KERNELS
from sr_upscale.errors import UsageError
from sr_upscale.functional.color import Pixels
from sr_upscale.functional.resize import Kernel, resize_pixels
from sr_upscale.pretrained.load import module_of
from sr_upscale.pretrained.registry import resolve_family
from sr_upscale.upscaler import Upscaler

PROBE = 64
"""Side of the LR picture on which operations are counted."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """Something that enlarges by an integer factor.

    Attributes:
        name: How tables call it.
        run: (H, W, 1 or 3) uint8 -> (H * scale, W * scale, same) uint8.
        device, dtype: Where and in which number type it runs.
        parameters: Number of the network's parameters; 0 for resampling.
        macs_720p: Multiply-adds for an output of 1280x720; 0 for resampling.
        device_index: CUDA device whose memory is measured; None elsewhere.
        model, options: What `make_method` was called with, to make it again in another process.
    """

    name: str
    run: Callable[[Pixels], Pixels]
    device: str = "cpu"
    dtype: str = "float64"
    parameters: int = 0
    macs_720p: int = 0
    device_index: int | None = None
    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def make_method(model: str, scale: int, **options: Any) -> Method:
    """Makes a method by its name.

    Args:
        model: ``bicubic``, ``lanczos``, a model's name, or a weights file.
        scale: Factor; a model must have it.
        options: Arguments of `Upscaler`: device, dtype, tile_size, backend, tta, fidelity.

    Raises:
        UsageError: The model has another factor, or as `Upscaler`.
        ModelError and others: As `Upscaler`.
    """
    if model in KERNELS:
        return Method(name=model, run=lambda lr: _resampled(lr, scale, KERNELS[model]), model=model)
    family = resolve_family(model)
    if scale not in family:
        factors = ", ".join(f"x{factor}" for factor in family)
        raise UsageError(f"{model} enlarges {factors}, and x{scale} is measured; leave it out, or change --scale")
    path = family[scale]
    upscaler = Upscaler(path, **options)
    parameters, macs = count(path, scale)
    index = upscaler.choice.device.index or 0
    return Method(
        name=path.stem if Path(model).suffix or model != path.stem else model,
        run=lambda lr: upscaler(lr),
        device=str(upscaler.choice.device),
        dtype=upscaler.choice.dtype,
        parameters=parameters,
        macs_720p=macs,
        device_index=index if upscaler.choice.device.type == "cuda" else None,
        model=str(path),
        options=options,
    )


def count(weights: Path, scale: int) -> tuple[int, int]:
    """Counts the parameters and operations of a network.

    Operations are counted on a small picture and scaled by area.

    Args:
        weights: A weights file of any make.
        scale: Its factor.

    Returns:
        Number of parameters, and multiply-adds for an output of 1280x720.

    Raises:
        ModelError: The file cannot be used.
    """
    module = module_of(weights)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        module(torch.zeros(1, 3, PROBE, PROBE))
    per_pixel = counter.get_total_flops() / 2 / (PROBE * PROBE * scale**2)
    return sum(parameter.numel() for parameter in module.parameters()), round(per_pixel * 1280 * 720)


def _resampled(lr: Pixels, scale: int, kernel: Kernel) -> Pixels:
    return resize_pixels(lr, (lr.shape[0] * scale, lr.shape[1] * scale), kernel=kernel)
