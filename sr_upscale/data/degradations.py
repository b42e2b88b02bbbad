"""HR -> LR as it happens to real pictures: blur, resizing, noise and JPEG, up to twice over.

This is the second-order chain of Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833). It works on one crop at a time, on
the CPU. Blurs are products in the Fourier domain, so that a kernel of 21x21 costs what one of 7x7 does. Every draw
comes from the generator that the caller hands over: the same generator gives the same LR.
"""

from __future__ import annotations

import dataclasses
import io
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sr_upscale.errors import ShapeError, UsageError
from sr_upscale.functional.resize import resize


class Family(Protocol):
    """A family of chains that `degrade` draws from: `RealWorld`, or `data.rendered.Rendered`.

    Attributes:
        clean_prob: Share of crops that are only reduced (MATLAB's bicubic), since clean input must stay clean.
        margin: LR pixels that are made and cut off again at a random place. So JPEG's 8x8 grid does not always begin at
            the corner of a patch.
    """

    @property
    def clean_prob(self) -> float: ...

    @property
    def margin(self) -> int: ...

    def spoiled(self, x: Tensor, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """Draws a chain and returns what it makes of HR, (1, 3, H, W) in [0, 1], at the (height, width) of LR."""
        ...


KERNEL_SIZES = (7, 9, 11, 13, 15, 17, 19, 21)
RESIZE_MODES = ("area", "bilinear", "bicubic")  # without antialiasing: real programs alias, too


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One round of blur, resize, noise and JPEG. Ranges are (lowest, highest), probabilities and shares 0 to 1.

    Attributes:
        blur_prob: Probability of a blur.
        sinc_prob: Share of the blurs that are sinc low-passes (ringing) and not bell-shaped.
        blur_sigma: Standard deviation of the blur along each axis, in pixels.
        resize_up, resize_down: Probabilities of enlarging and of shrinking; the rest keeps the size.
        resize_range: Factor of the resize, counted from the size of HR in the first round and of LR in the second.
        noise_prob: Probability of noise.
        poisson_prob: Share of the noise that is photon (Poisson) noise; the rest is Gaussian.
        gray_prob: Share of the noise that is equal in the three channels.
        noise_sigma: Standard deviation of Gaussian noise, in levels of 255.
        poisson_scale: Strength of photon noise; its standard deviation in levels is about scale * sqrt(level).
        jpeg_prob: Probability of JPEG.
        jpeg_quality: Quality of the JPEG, on Pillow's scale up to 100.
    """

    blur_prob: float = 1.0
    sinc_prob: float = 0.1
    blur_sigma: tuple[float, float] = (0.2, 3.0)
    resize_up: float = 0.2
    resize_down: float = 0.7
    resize_range: tuple[float, float] = (0.15, 1.5)
    noise_prob: float = 1.0
    poisson_prob: float = 0.5
    gray_prob: float = 0.4
    noise_sigma: tuple[float, float] = (1.0, 30.0)
    poisson_scale: tuple[float, float] = (0.05, 3.0)
    jpeg_prob: float = 1.0
    jpeg_quality: tuple[float, float] = (30.0, 95.0)

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            check(each.name, getattr(self, each.name))
        if self.resize_up + self.resize_down > 1:
            chances = f"{self.resize_up:g} and {self.resize_down:g}"
            raise UsageError(f"degradation: resize_up and resize_down are {chances}; expected at most 1 together")


@dataclass(frozen=True, kw_only=True)
class RealWorld:
    """A family of chains.

    Its defaults are those of Real-ESRGAN (``options/train_realesrgan_x4plus.yml`` of github.com/xinntao/Real-ESRGAN),
    apart from `clean_prob`, which it does not have.

    Attributes:
        clean_prob, margin: See `Family`.
        second_prob: Probability of the second round.
        final_sinc_prob: Probability of a sinc low-pass after the last resize.
        first, second: The rounds.
    """

    clean_prob: float = 0.1
    second_prob: float = 1.0
    final_sinc_prob: float = 0.8
    margin: int = 8
    first: Pass = field(default_factory=Pass)
    second: Pass = field(
        default_factory=lambda: Pass(
            blur_prob=0.8,
            blur_sigma=(0.2, 1.5),
            resize_up=0.3,
            resize_down=0.4,
            resize_range=(0.3, 1.2),
            noise_sigma=(1.0, 25.0),
            poisson_scale=(0.05, 2.5),
        )
    )

    def __post_init__(self) -> None:
        for name in ("clean_prob", "second_prob", "final_sinc_prob"):
            check(name, getattr(self, name))
        if self.margin < 0:
            raise UsageError(f"degradation: margin is {self.margin}; expected 0 or more")

    def spoiled(self, x: Tensor, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """Runs one round or two; see `Family`."""
        x = _round(x, self.first, (x.shape[-2], x.shape[-1]), rng)
        if rng.random() < self.second_prob:
            return _round(x, self.second, size, rng, end=size, final_sinc=self.final_sinc_prob)
        return _finish(x, size, self.final_sinc_prob, rng)


LIMITS = {"jpeg_quality": (1.0, 100.0), "quality": (1.0, 100.0), "resize_range": (0.01, 100.0), "colors": (2.0, 256.0)}
"""Lowest and highest value of ranges that have other limits than 0 and 255."""


def check(name: str, value: float | tuple[float, float]) -> None:
    """Refuses a probability outside 0 to 1, and a range that is reversed or beyond its limits."""
    if isinstance(value, tuple):
        lowest, highest = LIMITS.get(name, (0.0, 255.0))
        if not lowest <= value[0] <= value[1] <= highest:
            given = f"{value[0]:g} to {value[1]:g}"
            raise UsageError(f"degradation: {name} is {given}; expected a range within {lowest:g} to {highest:g}")
    elif not 0 <= value <= 1:
        raise UsageError(f"degradation: {name} is {value:g}; expected a probability, 0 to 1")


def degrade(hr: NDArray[np.uint8], scale: int, family: Family, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Makes a degraded LR of one HR crop.

    Args:
        hr: (H, W, 3) uint8, RGB; H and W multiples of `scale`.
        scale: Integer factor.
        family: Chains to draw from.
        rng: Source of every draw.

    Returns:
        (H / scale, W / scale, 3) uint8, RGB.

    Raises:
        ShapeError: H or W is not a multiple of `scale`.
    """
    height, width = hr.shape[:2]
    if height % scale or width % scale:
        raise ShapeError(f"HR of {width}x{height} does not divide by {scale}; crop it to a multiple first")
    small = (height // scale, width // scale)
    x = torch.from_numpy(np.ascontiguousarray(hr.transpose(2, 0, 1))).float().div_(255)[None]
    if rng.random() < family.clean_prob:
        return _to_uint8(resize(x, small))
    return _to_uint8(family.spoiled(x, small, rng))


def _round(
    x: Tensor,
    p: Pass,
    base: tuple[int, int],
    rng: np.random.Generator,
    *,
    end: tuple[int, int] | None = None,
    final_sinc: float = 0.0,
) -> Tensor:
    """Runs one pass. Sizes are factors of `base`. With `end`, the last resize and the JPEG come in either order."""
    if rng.random() < p.blur_prob:
        x = blur(x, sinc_kernel(rng) if rng.random() < p.sinc_prob else bell_kernel(p.blur_sigma, rng))
    choice = rng.random()
    low, high = p.resize_range
    if choice < p.resize_up:
        factor = rng.uniform(1.0, max(high, 1.0))
    elif choice < p.resize_up + p.resize_down:
        factor = rng.uniform(min(low, 1.0), 1.0)
    else:
        factor = 1.0
    x = _resize(x, (max(8, round(base[0] * factor)), max(8, round(base[1] * factor))), rng)
    if rng.random() < p.noise_prob:
        x = _noise(x, p, rng)
    compress = rng.random() < p.jpeg_prob
    quality = round(rng.uniform(*p.jpeg_quality))
    if end is None:
        return jpeg(x, quality) if compress else x
    if rng.random() < 0.5:
        x = _finish(x, end, final_sinc, rng)
        return jpeg(x, quality) if compress else x
    return _finish(jpeg(x, quality) if compress else x, end, final_sinc, rng)


def _finish(x: Tensor, size: tuple[int, int], sinc_prob: float, rng: np.random.Generator) -> Tensor:
    x = _resize(x, size, rng)
    return blur(x, sinc_kernel(rng)) if rng.random() < sinc_prob else x


def _resize(x: Tensor, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
    mode = RESIZE_MODES[int(rng.integers(len(RESIZE_MODES)))]
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode=mode, align_corners=None if mode == "area" else False)


# --- blur -------------------------------------------------------------------------------------------


def blur(x: Tensor, kernel: NDArray[np.float32]) -> Tensor:
    """Convolves a picture with a kernel. The border repeats the edge pixel.

    Args:
        x: (1, 3, H, W).
        kernel: (k, k) with k odd.

    Returns:
        (1, 3, H, W).
    """
    reach = kernel.shape[0] // 2
    height, width = x.shape[-2:]
    size = (_fast_length(height + 2 * reach), _fast_length(width + 2 * reach))
    spectrum = torch.fft.rfft2(F.pad(x, (reach,) * 4, mode="replicate"), s=size)
    spectrum *= torch.fft.rfft2(torch.from_numpy(kernel), s=size)
    whole = torch.fft.irfft2(spectrum, s=size)
    inner: Tensor = whole[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]
    return inner


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Convolves a picture with a round Gaussian, cut at three standard deviations. The border repeats the edge pixel.

    Args:
        x: (1, 3, H, W).
        sigma: Standard deviation in pixels, more than 0.

    Returns:
        (1, 3, H, W).
    """
    reach = math.ceil(3 * sigma)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return blur(x, np.asarray(np.outer(bell, bell) / bell.sum() ** 2, dtype=np.float32))


@lru_cache(maxsize=4096)
def _fast_length(length: int) -> int:
    """Returns the first number from `length` on without prime factors above 5."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def bell_kernel(sigma_range: tuple[float, float], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draws a bell-shaped kernel of random width, axes and turn.

    It is a Gaussian (70 %), a generalised Gaussian (15 %) or a plateau (15 %).

    Args:
        sigma_range: Lowest and highest standard deviation along each axis, in pixels.
        rng: Source of every draw.

    Returns:
        (k, k) with k of `KERNEL_SIZES`; sums to 1.
    """
    size = int(rng.choice(KERNEL_SIZES))
    sigma_x, sigma_y = rng.uniform(*sigma_range, size=2)
    angle = rng.uniform(0, math.pi)
    if rng.random() < 0.6:  # round
        sigma_y, angle = sigma_x, 0.0
    kind = rng.random()
    y, x = np.mgrid[:size, :size] - size // 2
    u = (math.cos(angle) * x + math.sin(angle) * y) / sigma_x
    v = (math.cos(angle) * y - math.sin(angle) * x) / sigma_y
    squared = u**2 + v**2
    if kind < 0.70:
        kernel = np.exp(-0.5 * squared)
    elif kind < 0.85:
        kernel = np.exp(-0.5 * squared ** rng.uniform(0.5, 4.0))
    else:
        kernel = 1 / (squared ** rng.uniform(1.0, 2.0) + 1)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def sinc_kernel(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draws a circular ideal low-pass of random cutoff, cut to its kernel.

    The cutoff is pi / 3 to pi. Kernels of 13x13 and more go down to pi / 5, as Real-ESRGAN's do.

    Args:
        rng: Source of every draw.

    Returns:
        (k, k) with k of `KERNEL_SIZES`; sums to 1.
    """
    size = int(rng.choice(KERNEL_SIZES))
    lowest = math.pi / 3 if size < 13 else math.pi / 5
    return _circular_lowpass(size, rng.uniform(lowest, math.pi))


def _circular_lowpass(size: int, cutoff: float) -> NDArray[np.float32]:
    y, x = np.mgrid[:size, :size] - size // 2
    radius = np.hypot(x, y)
    center = cutoff**2 / (4 * math.pi)
    with np.errstate(invalid="ignore", divide="ignore"):
        kernel = cutoff * _bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[size // 2, size // 2] = center
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _bessel_j1(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return torch.special.bessel_j1(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]


# --- noise and JPEG ---------------------------------------------------------------------------------


def _noise(x: Tensor, p: Pass, rng: np.random.Generator) -> Tensor:
    gray = rng.random() < p.gray_prob
    shape = (1, 1 if gray else 3, *x.shape[-2:])
    if rng.random() < p.poisson_prob:
        level = x.mean(dim=1, keepdim=True) if gray else x
        sigma = rng.uniform(*p.poisson_scale) * (level.clamp(0, 1) * 255).sqrt() / 255  # normal limit of Poisson
    else:
        sigma = torch.tensor(rng.uniform(*p.noise_sigma) / 255)
    normal = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    return (x + sigma * normal).clamp_(0, 1)


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Passes a picture through a JPEG file of 4:2:0, as cameras and web pages write it.

    Args:
        x: (1, 3, H, W) in [0, 1], rounded to 8 bits on the way.
        quality: Quality of the JPEG, on Pillow's scale up to 100.

    Returns:
        (1, 3, H, W) in [0, 1], on the grid of 1/255.
    """
    return _through_file(x, "JPEG", quality=quality)


def webp(x: Tensor, quality: int) -> Tensor:
    """Passes a picture through a lossy WebP file; as `jpeg`."""
    return _through_file(x, "WEBP", quality=quality, method=0)


def _through_file(x: Tensor, kind: str, **options: int) -> Tensor:
    buffer = io.BytesIO()
    Image.fromarray(_to_uint8(x)).save(buffer, kind, **options)
    with Image.open(buffer) as image:
        pixels = np.asarray(image)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float().div_(255)[None]


def _to_uint8(x: Tensor) -> NDArray[np.uint8]:
    return (x[0].clamp(0, 1) * 255).round_().byte().permute(1, 2, 0).numpy()
