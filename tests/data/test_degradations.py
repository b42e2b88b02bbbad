"""Second-order degradations: each part against an independent implementation, and the chain as a whole."""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, special

from sr_upscale.data.degradations import (
    Family,
    Pass,
    RealWorld,
    _circular_lowpass,
    _noise,
    bell_kernel,
    blur,
    degrade,
    gaussian_blur,
    jpeg,
    sinc_kernel,
)
from sr_upscale.data.rendered import Rendered
from sr_upscale.errors import ShapeError
from tests.helpers import pattern

CHANCES = [each.name for each in dataclasses.fields(Rendered) if each.name.endswith("_prob")]
NOTHING = Pass(blur_prob=0, resize_up=0, resize_down=0, noise_prob=0, jpeg_prob=0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def chain(**changes: float) -> RealWorld:
    """Only what is named."""
    quiet = RealWorld(clean_prob=0, second_prob=0, final_sinc_prob=0, first=NOTHING, second=NOTHING)
    return dataclasses.replace(quiet, first=dataclasses.replace(NOTHING, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(31, 44), (8, 9)])
def test_blur_equals_scipys_convolution(height: int, width: int) -> None:
    image = torch.from_numpy(pattern(height, width).transpose(2, 0, 1).astype(np.float32) / 255)[None]
    kernel = bell_kernel((0.5, 3.0), rng(3))
    kernel[0, 1] += 0.2  # not symmetric: a flipped kernel would show
    expected = np.stack(
        [ndimage.convolve(plane.astype(np.float64), kernel, mode="nearest") for plane in image[0].numpy()]
    )
    np.testing.assert_allclose(blur(image, kernel)[0].numpy(), expected, atol=2e-6)


def test_kernels_sum_to_one_and_follow_their_widths() -> None:
    for seed in range(40):
        kernel = bell_kernel((0.2, 3.0), rng(seed))
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        assert kernel.min() >= 0
        assert sinc_kernel(rng(seed)).sum() == pytest.approx(1, abs=1e-5)


def test_sinc_kernel_by_its_formula() -> None:
    """omega / (2 pi r) J1(omega r), and its limit omega^2 / (4 pi) in the middle, normalised."""
    size, cutoff = 13, 1.9
    y, x = np.mgrid[:size, :size] - size // 2
    r = np.hypot(x, y)
    r[size // 2, size // 2] = 1e-9
    expected = cutoff * special.j1(cutoff * r) / (2 * math.pi * r)
    np.testing.assert_allclose(_circular_lowpass(size, cutoff), expected / expected.sum(), atol=1e-6)


@pytest.mark.parametrize("gray", [0.0, 1.0])
def test_gaussian_noise_has_its_standard_deviation(gray: float) -> None:
    flat = torch.full((1, 3, 200, 200), 0.5)
    noisy = _noise(flat, Pass(poisson_prob=0, gray_prob=gray, noise_sigma=(10, 10)), rng()) - 0.5
    assert noisy.std().item() * 255 == pytest.approx(10, rel=0.02)
    assert bool(torch.equal(noisy[:, 0], noisy[:, 1])) == bool(gray)


def test_photon_noise_grows_with_the_root_of_the_level() -> None:
    settings = Pass(poisson_prob=1, gray_prob=0, poisson_scale=(0.8, 0.8))
    for level in (20, 80, 200):
        flat = torch.full((1, 3, 200, 200), level / 255)
        noisy = _noise(flat, settings, rng())
        assert (noisy * 255).std().item() == pytest.approx(0.8 * math.sqrt(level), rel=0.03)


def test_jpeg_is_a_jpeg() -> None:
    pixels = pattern(24, 32)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=37)
    expected = np.asarray(Image.open(buffer))
    found = jpeg(torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255))[None], 37)
    np.testing.assert_array_equal((found[0].permute(1, 2, 0) * 255).round().byte().numpy(), expected)


@pytest.mark.parametrize("family", [RealWorld(), Rendered()], ids=["real", "rendered"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_same_generator_same_lr_and_the_right_size(scale: int, family: Family) -> None:
    hr = pattern(scale * 13, scale * 17)
    first, second = ([degrade(hr, scale, family, rng(seed)) for seed in range(20)] for _ in range(2))
    assert {(each.shape, each.dtype.name) for each in first} == {((13, 17, 3), "uint8")}
    np.testing.assert_array_equal(first, second)
    assert len({each.tobytes() for each in first}) > 15


def test_every_part_of_the_chain_is_reached() -> None:
    """Over many draws LR is sometimes clean, mostly not, and never empty or shifted in colour by much."""
    hr = pattern(96, 96)
    small = np.asarray(Image.fromarray(hr).resize((24, 24), Image.Resampling.BOX)).astype(float)
    distances = [np.abs(degrade(hr, 4, RealWorld(), rng(seed)) - small).mean() for seed in range(200)]
    assert len({round(distance, 3) for distance in distances}) > 150
    means = [degrade(hr, 4, RealWorld(), rng(seed)).mean() - small.mean() for seed in range(60)]
    assert np.abs(means).max() < 12
    assert abs(float(np.mean(means))) < 2


@pytest.mark.parametrize(
    ("family", "most"), [(chain(), 1), (Rendered(**dict.fromkeys(CHANCES, 0.0)), 1.5)], ids=["real", "rendered"]
)
def test_without_faults_only_the_resize_is_left(family: Family, most: float) -> None:
    """Area, bilinear and bicubic are all near the box mean on a slope; nothing is displaced."""
    y, x = np.mgrid[0:96, 0:128]
    hr = np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)
    expected = hr.reshape(24, 4, 32, 4, 3).mean(axis=(1, 3))
    for seed in range(12):
        assert np.abs(degrade(hr, 4, family, rng(seed))[2:-2, 2:-2] - expected[2:-2, 2:-2]).max() <= most


@pytest.mark.parametrize(
    "changes",
    [
        {"blur_prob": 1.0},
        {"noise_prob": 1.0, "noise_sigma": (20, 20)},
        {"jpeg_prob": 1.0, "jpeg_quality": (10, 10)},
        {"resize_down": 1.0, "resize_range": (0.3, 1.4)},
    ],
)
def test_each_fault_changes_the_lr(changes: dict[str, float]) -> None:
    hr = pattern(96, 96)
    plain = [degrade(hr, 4, chain(), rng(seed)).astype(int) for seed in range(30)]
    faulty = [degrade(hr, 4, chain(**changes), rng(seed)).astype(int) for seed in range(30)]
    nearest = [min(np.abs(one - other).mean() for other in plain) for one in faulty]
    assert np.median(nearest) > 0.5


def test_sides_must_divide() -> None:
    with pytest.raises(ShapeError, match="HR of 10x8 does not divide by 4"):
        degrade(pattern(8, 10), 4, RealWorld(), rng())


def test_a_gaussian_blur_equals_scipys() -> None:
    image = torch.from_numpy(pattern(40, 31).transpose(2, 0, 1).astype(np.float32) / 255)[None]
    for sigma in (0.8, 2.5):
        reach = math.ceil(3 * sigma)
        expected = [ndimage.gaussian_filter(plane, sigma, mode="nearest", radius=reach) for plane in image[0].numpy()]
        np.testing.assert_allclose(gaussian_blur(image, sigma)[0].numpy(), np.stack(expected), atol=1e-5)


def test_without_a_section_the_ranges_are_real_esrgans() -> None:
    """options/train_realesrgan_x4plus.yml of github.com/xinntao/Real-ESRGAN."""
    family = RealWorld()
    first, second = family.first, family.second
    assert (family.second_prob, family.final_sinc_prob) == (1.0, 0.8)
    assert (first.blur_prob, first.sinc_prob, first.blur_sigma) == (1.0, 0.1, (0.2, 3.0))
    assert (first.resize_up, first.resize_down, first.resize_range) == (0.2, 0.7, (0.15, 1.5))
    assert (first.poisson_prob, first.noise_sigma, first.poisson_scale) == (0.5, (1.0, 30.0), (0.05, 3.0))
    assert (first.gray_prob, first.jpeg_prob, first.jpeg_quality) == (0.4, 1.0, (30.0, 95.0))
    assert (second.blur_prob, second.sinc_prob, second.blur_sigma) == (0.8, 0.1, (0.2, 1.5))
    assert (second.resize_up, second.resize_down, second.resize_range) == (0.3, 0.4, (0.3, 1.2))
    assert (second.poisson_prob, second.noise_sigma, second.poisson_scale) == (0.5, (1.0, 25.0), (0.05, 2.5))
    assert (second.gray_prob, second.jpeg_prob, second.jpeg_quality) == (0.4, 1.0, (30.0, 95.0))


def test_large_sinc_kernels_go_down_to_a_fifth_of_pi() -> None:
    """The gain at 0.3 pi: kernels below 13 always pass it, larger ones sometimes do not."""
    gains: dict[int, list[float]] = {}
    for seed in range(300):
        kernel = sinc_kernel(rng(seed))
        axis = np.arange(len(kernel)) - len(kernel) // 2
        gains.setdefault(len(kernel), []).append(float(kernel.sum(axis=0) @ np.cos(0.27 * math.pi * axis)))
    assert min(min(values) for size, values in gains.items() if size < 13) > 0.5
    assert min(min(values) for size, values in gains.items() if size >= 17) < 0.3
