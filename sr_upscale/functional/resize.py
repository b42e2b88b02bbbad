"""Separable resampling that agrees with MATLAB's `imresize`, of tensors and of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import ShapeError
from sr_upscale.functional.planes import Planes, joined

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
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
        raise ShapeError(f"cannot resize {tuple(image.shape)} to {size}; expected (..., H, W) and sizes of at least 1")
    if not image.is_floating_point():
        raise ShapeError(f"cannot resize a tensor of {image.dtype}; expected floating point in [0, 1]")
    # the axis that shrinks most goes first, as in MATLAB; height first where they are equal
    scales = {-2: size[0] / image.shape[-2], -1: size[1] / image.shape[-1]}
    for dim in sorted(scales, key=lambda d: scales[d]):
        image = _resize_axis(image, dim, size[dim + 2], kernel, antialias)
    return image


def resize_pixels(pixels: NDArray[Any], size: tuple[int, ...], *, kernel: Kernel = "bicubic") -> NDArray[Any]:
    """Resizes a picture like `resize`, and rounds.

    Args:
        pixels: (H, W, C), uint8 or uint16.
        size: Target (height, width), at least 1 each.
        kernel: As for `resize`, with antialiasing.

    Returns:
        (height, width, C) of the same type.
    """
    from sr_upscale.functional.color import to_pixels, to_tensor

    height, width = size
    return to_pixels(resize(to_tensor(np.ascontiguousarray(pixels)), (height, width), kernel=kernel), pixels.dtype)


def resize_rows(strips: Iterable[Planes], height: int, size: tuple[int, int], *, kernel: Kernel) -> Iterator[Planes]:
    """Resizes, like `resize`, a picture that comes in strips and leaves in strips.

    Only the rows under the kernel are held in memory.

    Args:
        strips: (..., n, W), floating point, from top to bottom, `height` rows together.
        height: Rows of the picture.
        size: Target (height, width), at least 1 each.
        kernel: As for `resize`, with antialiasing.

    Yields:
        (..., m, width) from top to bottom, `size[0]` rows together, same kind, dtype and device, not clamped.
    """
    weights, indices = _taps(height, size[0], kernel, True)
    reaches = indices.max(axis=1)  # last row that each output row needs
    top, done = 0, 0
    held: Planes | None = None
    for strip in strips:
        wide = _resize_axis(strip, -1, size[1], kernel, True)
        held = wide if held is None else joined((held, wide), -2)
        ready = int((reaches < top + held.shape[-2]).sum())
        if ready > done:
            yield _weigh(held, -2, weights[done:ready], indices[done:ready] - top)
            done = ready
        if done < size[0]:
            needed = int(indices[done].min())
            held, top = held[..., needed - top :, :], needed


def _resize_axis(image: Planes, dim: int, length: int, kernel: Kernel, antialias: bool) -> Planes:
    source = image.shape[dim]
    if source == length:
        return image
    weights, indices = _taps(source, length, kernel, antialias)
    return _weigh(image, dim, weights, indices)


def _weigh(image: Planes, dim: int, weights: Floats, indices: NDArray[np.int64]) -> Planes:
    """Sums samples along `dim`: those at `indices` (length, taps), weighted by `weights` (length, taps)."""
    shape = [1] * image.ndim
    shape[dim] = length = len(weights)
    if isinstance(image, np.ndarray):
        columns = zip(indices.T, weights.T.astype(image.dtype), strict=True)
        return sum(image.take(index, dim) * weight.reshape(shape) for index, weight in columns)
    return _weigh_tensor(image, dim, length, shape, weights, indices)


def _weigh_tensor(
    image: Tensor, dim: int, length: int, shape: list[int], of_taps: Floats, at: NDArray[np.int64]
) -> Tensor:
    import torch

    weights, indices = torch.from_numpy(of_taps).to(image), torch.from_numpy(at).to(image.device)
    out = torch.zeros_like(image.narrow(dim, 0, 1)).repeat_interleave(length, dim)
    for tap in range(weights.shape[1]):  # a loop over taps: memory stays at one output, whatever the factor
        out.addcmul_(image.index_select(dim, indices[:, tap]), weights[:, tap].reshape(shape))
    return out


@lru_cache(maxsize=64)
def _taps(source: int, length: int, kernel: Kernel, antialias: bool) -> tuple[Floats, NDArray[np.int64]]:
    """Returns weights (length, taps) in float64 and source indices (length, taps) of each output sample."""
    function, radius = _KERNELS[kernel]
    scale = length / source
    stretch = min(scale, 1.0) if antialias else 1.0
    centre = (np.arange(length) + 0.5) / scale - 0.5
    left = np.floor(centre - radius / stretch).astype(np.int64)
    positions = left[:, None] + np.arange(math.ceil(2 * radius / stretch) + 2)
    weights = function((centre[:, None] - positions) * stretch)
    weights = weights / weights.sum(axis=1, keepdims=True)
    used = (weights != 0).any(axis=0)
    return weights[:, used], positions.clip(0, source - 1)[:, used]


def _cubic(x: Floats) -> Floats:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _lanczos3(x: Floats) -> Floats:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


_KERNELS: dict[Kernel, tuple[Callable[[Floats], Floats], float]] = {
    "bicubic": (_cubic, 2.0),
    "lanczos3": (_lanczos3, 3.0),
}


def downscale_matlab(hr: Tensor, scale: int) -> Tensor:
    """Reduces an HR picture to its bicubic LR twin, as MATLAB's `imresize` does.

    The result is in 8 bits, as the papers' LR files are.

    Args:
        hr: (..., H, W) in [0, 1]; H and W must be multiples of `scale`.
        scale: Integer factor.

    Returns:
        (..., H / scale, W / scale) in [0, 1], on the grid of 1/255.

    Raises:
        ShapeError: H or W is not a multiple of `scale`.
    """
    height, width = hr.shape[-2:]
    if height % scale or width % scale:
        raise ShapeError(f"HR of {width}x{height} does not divide by {scale}; crop it to a multiple first")
    rows = resize(hr, (height // scale, width)).clamp(0, 1)  # MATLAB saturates 8-bit values between the axes
    lr = resize(rows, (height // scale, width // scale))
    return (lr.clamp(0, 1) * 255).round() / 255
