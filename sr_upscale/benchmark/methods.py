"""What can be measured or compared: resampling, our weights, and those of others, behind one face."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from sr_upscale.benchmark.protocol import KERNELS
from sr_upscale.errors import SrUpscaleError, UsageError
from sr_upscale.functional.color import Pixels
from sr_upscale.functional.pil_arrays import rgb8
from sr_upscale.functional.resize import Kernel, resize_pixels
from sr_upscale.images import load_image
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
    index = upscaler.engine.choice.device.index or 0
    return Method(
        name=path.stem,
        run=lambda lr: upscaler(lr),
        device=str(upscaler.engine.choice.device),
        dtype=upscaler.engine.choice.dtype,
        parameters=parameters,
        macs_720p=macs,
        device_index=index if upscaler.engine.choice.device.type == "cuda" else None,
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


def enlarged_by(
    names: Sequence[str],
    source: Path,
    scale: int,
    *,
    box: tuple[int, int, int, int] | None = None,
    device: str = "auto",
    on_progress: Callable[[float, str], None] = lambda _share, _title: None,
) -> dict[str, Pixels]:
    """Enlarges a picture by each of several methods.

    Args:
        names: What `make_method` takes.
        source: The picture's file; of an animation, the first frame counts.
        scale: Factor.
        box: Only this part: left, top, width and height in pixels.
        device: Where networks run.
        on_progress: Called with the finished share (0 to 1) and the method at work.

    Returns:
        (H * scale, W * scale, 3) uint8 by the method's name. The first one, ``input``, is the picture itself, each
        pixel repeated.

    Raises:
        UsageError: The box is not within the picture, or a model has another factor.
        InputError, ModelError and others: As of `load_image` and `Upscaler`.
    """
    pixels = rgb8(np.asarray(load_image(source).frames[0].pixels_hwc))
    if box is not None:
        pixels = _cropped(pixels, *box)
    images: dict[str, Pixels] = {"input": pixels.repeat(scale, 0).repeat(scale, 1)}
    for number, name in enumerate(names):
        on_progress(number / len(names), name)
        method = make_method(name, scale, **({} if name in KERNELS else {"device": device}))
        images[method.name if method.name not in images else name] = method.run(pixels)
    return images


def _cropped(pixels: Pixels, left: int, top: int, width: int, height: int) -> Pixels:
    full_height, full_width = pixels.shape[:2]
    if min(width, height) < 1 or left + width > full_width or top + height > full_height:
        raise UsageError(
            f"--crop is {left},{top},{width},{height}; expected a part of the picture of {full_width}x{full_height}"
        )
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


# --- memory -----------------------------------------------------------------------------------------

_PROBE = """
import json, resource, sys
from pathlib import Path
import psutil
import numpy as np
from sr_upscale.benchmark.methods import make_method
model, scale, height, width, channels, options = json.loads(sys.argv[1])
method = make_method(model, scale, **options)
picture = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
before = psutil.Process().memory_info().rss
if sys.platform == "linux":  # ru_maxrss is inherited from the parent there
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    method.run(picture)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
else:
    method.run(picture)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak - before)
"""


def host_peak_bytes(
    model: str, scale: int, shape: tuple[int, int, int], options: Mapping[str, Any], *, timeout_s: float = 600
) -> int | None:
    """Measures what a first run adds at most to a process that has loaded the program.

    It runs in a process of its own: in a shared one, what one model freed serves the next.

    Args:
        model, scale: As `make_method` takes them.
        shape: (H, W, C) of the picture to run on.
        options: Other arguments of `make_method`, ready for JSON.
        timeout_s: Seconds after which the process is given up.

    Returns:
        Bytes. None where they cannot be measured (Windows has no such counter).

    Raises:
        SrUpscaleError: The process failed, or took too long.
    """
    if sys.platform == "win32":
        return None
    arguments = json.dumps([model, scale, *shape, dict(options)])
    command = [sys.executable, "-c", _PROBE, arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise SrUpscaleError(f"measuring the memory of {model} took more than {timeout_s:g} s") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        raise SrUpscaleError(f"measuring the memory of {model} failed: {reason[:200]}")
    return max(0, int(done.stdout.split()[-1]))
