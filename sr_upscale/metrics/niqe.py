"""NIQE: how natural a picture looks, without a reference. Lower is more natural.

Source: Mittal, Soundararajan & Bovik 2013, doi:10.1109/LSP.2012.2227726. The pristine model in ``niqe_model.npz`` is
the one of the authors' release (LIVE, The University of Texas at Austin). It is free to use with the notice that lies
beside it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib import resources

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sr_upscale.errors import ShapeError
from sr_upscale.functional.color import rgb_to_y
from sr_upscale.functional.resize import resize

BLOCK = 96
"""Side of a block in pixels at full size."""
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


def niqe(image: Tensor, *, crop_border: int = 0) -> float:
    """Computes the NIQE of one picture.

    Args:
        image: (1, 3, H, W) RGB in [0, 1], on the CPU. Y is taken and rounded to 8 bits, as the published scores do.
        crop_border: Pixels left out along each edge.

    Returns:
        A positive number; about 3 for good photographs.

    Raises:
        ShapeError: The image has another shape, or fewer than two blocks of 96x96 pixels that are not flat.
    """
    if image.dim() != 4 or image.shape[0] != 1 or image.shape[1] != 3:
        raise ShapeError(f"NIQE of {tuple(image.shape)}; expected one picture (1, 3, H, W)")
    if crop_border:
        image = image[..., crop_border:-crop_border, crop_border:-crop_border]
    rows, columns = image.shape[-2] // BLOCK, image.shape[-1] // BLOCK
    if rows * columns < 2:
        raise ShapeError(f"NIQE needs two blocks of {BLOCK}x{BLOCK}; got {image.shape[-1]}x{image.shape[-2]} pixels")
    y = (rgb_to_y(image.double()) * 255).round()[..., : rows * BLOCK, : columns * BLOCK]
    half = _halved(y)
    features = np.concatenate([_block_features(y, BLOCK), _block_features(half, BLOCK // 2)], axis=1)
    mean, covariance = _pristine()
    textured = features[~np.isnan(features).any(axis=1)]
    if len(textured) < 2:
        raise ShapeError(
            f"NIQE needs two blocks with texture; {len(features) - len(textured)} of {len(features)} are flat"
        )
    found = np.nanmean(features, axis=0)
    spread = np.cov(textured, rowvar=False)
    difference = mean - found
    return math.sqrt(difference @ np.linalg.pinv((covariance + spread) / 2) @ difference)


def _halved(y: Tensor) -> Tensor:
    """Halves the size by MATLAB's bicubic. Borders are mirrored here, which the published scores need."""
    mirrored = torch.from_numpy(np.pad(y.numpy(), ((0, 0), (0, 0), (8, 8), (8, 8)), mode="symmetric"))
    return resize(mirrored, (y.shape[-2] // 2 + 8, y.shape[-1] // 2 + 8))[..., 4:-4, 4:-4]


def _block_features(y: Tensor, block: int) -> NDArray[np.float64]:
    """Computes the features of all blocks, (blocks, 18).

    They are the shapes of the distributions of normalised luminances and of products of neighbours.
    """
    normal = _normalised(y)[0, 0]
    blocks = normal.unfold(0, block, block).unfold(1, block, block).reshape(-1, block, block).numpy()
    return np.array([_features(each) for each in blocks])


def _normalised(y: Tensor) -> Tensor:
    """Computes (I - local mean) / (local deviation + 1), with a Gaussian of 7x7 and sigma 7/6."""
    taps = torch.arange(-3, 4, dtype=torch.float64)
    window = torch.exp(-(taps**2) / (2 * (7 / 6) ** 2))
    window /= window.sum()

    def smooth(x: Tensor) -> Tensor:
        padded = F.pad(x, (3, 3, 3, 3), mode="replicate")
        return F.conv2d(F.conv2d(padded, window.view(1, 1, 1, 7)), window.view(1, 1, 7, 1))

    mean = smooth(y)
    deviation = (smooth(y * y) - mean * mean).abs().sqrt()
    return (y - mean) / (deviation + 1)


def _features(block: NDArray[np.float64]) -> list[float]:
    shape, left, right = _asymmetric_gaussian(block)
    found = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right = _asymmetric_gaussian(block * np.roll(block, shift, axis=(0, 1)))
        mean = (right - left) * math.gamma(2 / shape) / math.gamma(1 / shape)
        found += [shape, mean, left, right]
    return found


def _asymmetric_gaussian(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Fits an asymmetric generalised Gaussian by its moments (Lasmar et al. 2009).

    Returns:
        Its shape, its left scale and its right scale; NaN where all values are 0 or of one sign.
    """
    values = values.ravel()
    with np.errstate(invalid="ignore", divide="ignore"):
        left = math.sqrt(np.square(values[values < 0]).mean()) if (values < 0).any() else math.nan
        right = math.sqrt(np.square(values[values > 0]).mean()) if (values > 0).any() else math.nan
        ratio = left / right
        raw = np.abs(values).mean() ** 2 / np.square(values).mean()
    wanted = raw * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    if math.isnan(wanted):
        return math.nan, math.nan, math.nan
    shapes, moments = _moment_table()
    shape = float(shapes[np.argmin(np.square(moments - wanted))])
    scale = math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    return shape, left * scale, right * scale


@lru_cache(maxsize=1)
def _moment_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    shapes = np.arange(0.2, 10.001, 0.001)
    moments = [math.exp(2 * math.lgamma(2 / a) - math.lgamma(1 / a) - math.lgamma(3 / a)) for a in shapes]
    return shapes, np.array(moments)


@lru_cache(maxsize=1)
def _pristine() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reads the mean (36,) and the covariance (36, 36) of the features of undistorted photographs."""
    with (resources.files("sr_upscale.metrics") / "niqe_model.npz").open("rb") as file, np.load(file) as model:
        return model["mean"], model["covariance"]
