"""Separable resampling that agrees with MATLAB's `imresize`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sr_upscale.errors import ShapeError
from sr_upscale.functional.color import Pixels, to_pixels, to_tensor

Kernel = Literal["bicubic", "lanczos3"]


def resize(image: Tensor, size: tuple[int, int], *, kernel: Kernel = "bicubic", antialias: bool = True) -> Tensor:
    """Resizes an image along each axis in turn, with MATLAB's kernels and sample positions.

    Args:
        image: (..., H, W), floating point.
        size: Target (height, width), at least 1 each.
        kernel: ``bicubic`` is Keys' cubic with a = -0.5; ``lanczos3`` is the Lanczos window of radius 3.
        antialias: Widen the kernel when shrinking, as MATLAB does by default.

    Returns:
        (..., height, width), same dtype and device. It is not clamped, and both kernels overshoot at edges.

    Raises:
        ShapeError: A size is not positive, the image has no (H, W), or it is not floating point.

    Source: Keys 1981, doi:10.1109/TASSP.1981.1163711. Borders repeat the edge pixel. The published LR files of Set5
    and Set14 agree with that, and not with mirroring or renormalising.
    """
    if min(size) < 1 or image.dim() < 2 or min(image.shape[-2:]) < 1:
        msg = f"cannot resize {tuple(image.shape)} to {size}; expected (..., H, W) and sizes of at least 1"
        raise ShapeError(msg)
    if not image.is_floating_point():
        msg = f"cannot resize a tensor of {image.dtype}; expected floating point in [0, 1]"
        raise ShapeError(msg)
    # the axis that shrinks most goes first, as in MATLAB; height first where they are equal
    scales = {-2: size[0] / image.shape[-2], -1: size[1] / image.shape[-1]}
    for dim in sorted(scales, key=lambda d: scales[d]):
        image = _resize_axis(image, dim, size[dim + 2], kernel, antialias)
    return image


def resize_pixels(pixels: Pixels, size: tuple[int, ...], *, kernel: Kernel = "bicubic") -> Pixels:
    """Resizes a picture like `resize`, and rounds.

    Args:
        pixels: (H, W, C), uint8 or uint16.
        size: Target (height, width), at least 1 each.
        kernel: As for `resize`, with antialiasing.

    Returns:
        (height, width, C) of the same type.
    """
    height, width = size
    return to_pixels(resize(to_tensor(np.ascontiguousarray(pixels)), (height, width), kernel=kernel), pixels.dtype)


def resize_rows(strips: Iterable[Tensor], height: int, size: tuple[int, int], *, kernel: Kernel) -> Iterator[Tensor]:
    """Resizes, like `resize`, a picture that comes in strips and leaves in strips.

    Only the rows under the kernel are held in memory.

    Args:
        strips: (..., n, W), floating point, from top to bottom, `height` rows together.
        height: Rows of the picture.
        size: Target (height, width), at least 1 each.
        kernel: As for `resize`, with antialiasing.

    Yields:
        (..., m, width) from top to bottom, `size[0]` rows together, same dtype and device, not clamped.
    """
    weights, indices = _taps(height, size[0], kernel, True)
    reaches = indices.amax(dim=1)  # last row that each output row needs
    top, done = 0, 0
    held: Tensor | None = None
    for strip in strips:
        wide = _resize_axis(strip, -1, size[1], kernel, True)
        held = wide if held is None else torch.cat((held, wide), dim=-2)
        ready = int((reaches < top + held.shape[-2]).sum())
        if ready > done:
            yield _weigh(held, -2, weights[done:ready], indices[done:ready] - top)
            done = ready
        if done < size[0]:
            needed = int(indices[done].min())
            held, top = held[..., needed - top :, :], needed


def _resize_axis(image: Tensor, dim: int, length: int, kernel: Kernel, antialias: bool) -> Tensor:
    source = image.shape[dim]
    if source == length:
        return image
    weights, indices = _taps(source, length, kernel, antialias)
    return _weigh(image, dim, weights, indices)


def _weigh(image: Tensor, dim: int, weights: Tensor, indices: Tensor) -> Tensor:
    """Sums samples along `dim`: those at `indices` (length, taps), weighted by `weights` (length, taps)."""
    weights, indices = weights.to(image), indices.to(image.device)
    shape = [1] * image.dim()
    shape[dim] = length = len(weights)
    out = torch.zeros_like(image.narrow(dim, 0, 1)).repeat_interleave(length, dim)
    for tap in range(weights.shape[1]):  # a loop over taps: memory stays at one output, whatever the factor
        out.addcmul_(image.index_select(dim, indices[:, tap]), weights[:, tap].reshape(shape))
    return out


@lru_cache(maxsize=64)
def _taps(source: int, length: int, kernel: Kernel, antialias: bool) -> tuple[Tensor, Tensor]:
    """Returns weights (length, taps) in float64 and source indices (length, taps) of each output sample."""
    function, radius = _KERNELS[kernel]
    scale = length / source
    stretch = min(scale, 1.0) if antialias else 1.0
    centre = (torch.arange(length, dtype=torch.float64) + 0.5) / scale - 0.5
    left = torch.floor(centre - radius / stretch).long()
    positions = left[:, None] + torch.arange(math.ceil(2 * radius / stretch) + 2)
    weights = function((centre[:, None] - positions) * stretch)
    weights = weights / weights.sum(dim=1, keepdim=True)
    used = (weights != 0).any(dim=0)
    return weights[:, used], positions.clamp(0, source - 1)[:, used]


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))


def _lanczos3(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


_KERNELS: dict[Kernel, tuple[Callable[[Tensor], Tensor], float]] = {
    "bicubic": (_cubic, 2.0),
    "lanczos3": (_lanczos3, 3.0),
}
