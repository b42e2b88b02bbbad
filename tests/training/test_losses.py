"""Losses against closed forms and against what they are meant to do."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sr_upscale.errors import ShapeError
from sr_upscale.training.losses import (
    GAN_LOSSES,
    PIXEL_LOSSES,
    color_loss,
    fft_loss,
    gaussian_blur,
    lattice_loss,
    lattice_losses,
    perceptual_loss,
    texture_loss,
    unsharp_mask,
)


@pytest.mark.parametrize(
    ("name", "expected"), [("l1", 0.25), ("l2", 0.0625), ("charbonnier", math.sqrt(0.0625 + 1e-6))]
)
def test_pixel_losses_of_a_constant_difference(name: str, expected: float) -> None:
    hr = torch.rand(2, 3, 5, 4)
    assert PIXEL_LOSSES[name](hr + 0.25, hr).item() == pytest.approx(expected, rel=1e-5)
    assert PIXEL_LOSSES[name](hr - 0.25, hr).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("paper", [0.0, 1.0])
def test_a_missing_stroke_costs_more_than_a_false_one(paper: float) -> None:
    """A pixel of 1 on 0 (or 0 on 1) whose surroundings hold next to nothing of it weighs 1 + 6, one of paper 1."""
    hr = torch.full((1, 1, 255, 255), paper)
    hr[..., 127, 127] = 1 - paper
    error = torch.zeros_like(hr)
    error[..., 127, 127] = 0.5
    loss, pixels = PIXEL_LOSSES["strokes"], hr.numel()
    assert loss(hr + error, hr).item() == pytest.approx(0.25 * 7 / pixels, rel=5e-3)
    assert loss(hr + error.roll(50, 3), hr).item() == pytest.approx(0.25 / pixels, rel=1e-5)


def test_gaussian_blur_is_opencv_s() -> None:
    x = torch.rand(1, 1, 40, 50, generator=torch.Generator().manual_seed(0))
    wanted = cv2.GaussianBlur(x[0, 0].numpy(), (9, 9), 1.2, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(gaussian_blur(x, 1.2)[0, 0].numpy(), wanted, atol=1e-5)


def test_fft_loss_of_one_wave() -> None:
    """A cosine of amplitude a has a spectrum of a * H * W / 2 at its frequency (twice that at W/2), zero elsewhere."""
    height, width = 8, 8
    x = torch.arange(width) / width
    wave = (0.3 * torch.cos(2 * math.pi * 2 * x)).expand(1, 1, height, width)
    bins = height * (width // 2 + 1) * 2  # of the half spectrum, real and imaginary
    assert fft_loss(wave, torch.zeros_like(wave)).item() == pytest.approx(0.3 * height * width / 2 / bins, rel=1e-4)
    assert fft_loss(wave, wave).item() == 0


def test_unsharp_mask_is_opencv_s_recipe_as_real_esrgan_writes_it() -> None:
    x = torch.zeros(1, 3, 90, 80)
    x[..., 30:60, 20:50], x[:, 1, 70:], x[..., 60:] = 0.8, 0.5, 0.3
    picture = x[0].permute(1, 2, 0).numpy()
    detail = picture - cv2.GaussianBlur(picture, (51, 51), 8.0)
    mask = cv2.GaussianBlur((np.abs(detail) * 255 > 10).astype(np.float32), (51, 51), 8.0)
    wanted = mask * np.clip(picture + 0.5 * detail, 0, 1) + (1 - mask) * picture
    np.testing.assert_allclose(unsharp_mask(x, 0.5)[0].permute(1, 2, 0).numpy(), wanted, atol=2e-3)
    assert torch.equal(unsharp_mask(x, 0.0), x)


def test_colour_loss_sees_means_of_lr_pixels_and_no_detail() -> None:
    hr = torch.rand(2, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    assert color_loss(hr + 0.25, hr, 2).item() == pytest.approx(0.25, rel=1e-5)
    checks = torch.ones(32, 16)
    checks[::2, 1::2] = checks[1::2, ::2] = -1
    assert color_loss(hr + 0.25 * checks, hr, 2).item() == pytest.approx(0, abs=1e-6)
    lopsided = hr.clone()
    lopsided[..., :8, :8] += 0.4  # one window of four LR pixels a side, of eight in all
    assert color_loss(lopsided, hr, 2).item() == pytest.approx(0.4 / 8, rel=1e-5)


def test_lattice_loss_sees_the_lattice_and_nothing_else() -> None:
    """One sub-pixel of sixteen raised by a: its bias is a * 15/16, that of the others a / 16."""
    hr = torch.rand(2, 3, 48, 48)
    lattice = torch.zeros_like(hr)
    lattice[..., 1::4, 2::4] = 0.16
    expected = 0.16 * (15 / 16 + 15 * (1 / 16)) / 16
    assert lattice_loss(hr + lattice, hr, 4).item() == pytest.approx(expected, rel=1e-4)
    assert lattice_loss(hr + 0.3, hr, 4).item() == pytest.approx(0, abs=1e-6)  # a tint is not a lattice
    ripple = 0.2 * torch.sign(torch.sin(torch.arange(48.0) * math.pi / 12 + 0.1))  # twelve pixels up, twelve down
    assert lattice_loss(hr + ripple, hr, 4).item() == pytest.approx(0, abs=1e-6)


def test_a_checkerboard_of_lr_pixels_is_a_lattice_of_twice_the_period() -> None:
    """Half of the 64 places are raised by a, half lowered: a mean bias of a, where the period of 4 sees none."""
    hr = torch.rand(1, 3, 48, 56)
    y, x = torch.meshgrid(torch.arange(48) // 4, torch.arange(56) // 4, indexing="ij")
    mesh = 0.1 * ((x + y) % 2 * 2 - 1)
    assert lattice_loss(hr + mesh, hr, 4).item() == pytest.approx(0, abs=1e-6)
    assert lattice_losses(hr + mesh, hr, 4).item() == pytest.approx(0.1, rel=1e-4)
    assert lattice_losses(hr + 0.3, hr, 4).item() == pytest.approx(0, abs=1e-6)


def test_perceptual_loss_is_the_weighted_mean_difference_of_layers() -> None:
    a = {"x": torch.zeros(1, 2, 2, 2), "y": torch.ones(1, 4, 1, 1)}
    b = {"x": torch.full((1, 2, 2, 2), 3.0), "y": torch.full((1, 4, 1, 1), -1.0)}
    assert perceptual_loss(a, b, {"x": 0.1, "y": 2.0}).item() == pytest.approx(0.1 * 3 + 2 * 2)
    with pytest.raises(ShapeError, match="no features of z; got x, y"):
        perceptual_loss(a, b, {"z": 1.0})


def test_texture_loss_by_its_formula_on_layers_of_two_sizes() -> None:
    """A window of the deeper layer, half as large, has 8 places a side."""
    hr = {"x": torch.randn(1, 2, 16, 32), "y": torch.randn(1, 4, 8, 16)}
    sr = {name: 3 * torch.rand_like(features) for name, features in hr.items()}

    def strengths(features: torch.Tensor) -> torch.Tensor:
        halves = features[0].chunk(2, dim=2)
        return torch.stack([half.flatten(1).std(dim=1, correction=0) for half in halves])

    shares = {
        name: (strengths(sr[name]) - strengths(hr[name])).abs().mean() / strengths(hr[name]).mean() for name in hr
    }
    found = texture_loss(sr, hr, {"x": 0.3, "y": 2.0})
    assert found.item() == pytest.approx((0.3 * shares["x"] + 2 * shares["y"]).item(), rel=1e-4)


def test_relativistic_average_loss_by_its_formula() -> None:
    """Jolicoeur-Martineau 2018, equations 7 and 8, written with log-sigmoids, halved."""
    real, fake = torch.tensor([[1.5], [-0.5]]), torch.tensor([[0.2], [2.0]])
    d_real, d_fake = real - fake.mean(), fake - real.mean()
    d = -(F.logsigmoid(d_real).mean() + F.logsigmoid(-d_fake).mean()) / 2
    g = -(F.logsigmoid(d_fake).mean() + F.logsigmoid(-d_real).mean()) / 2
    loss = GAN_LOSSES["relativistic"]
    assert loss.discriminator(real, fake, torch.mean).item() == pytest.approx(d.item(), rel=1e-5)
    assert loss.generator(real, fake, torch.mean).item() == pytest.approx(g.item(), rel=1e-5)


def test_closed_forms_of_the_plain_losses() -> None:
    zeros = torch.zeros(3, 1)
    assert GAN_LOSSES["standard"].generator(zeros, zeros, torch.mean).item() == pytest.approx(math.log(2))
    assert GAN_LOSSES["standard"].discriminator(zeros, zeros, torch.mean).item() == pytest.approx(math.log(2))
    assert GAN_LOSSES["lsgan"].generator(zeros, zeros - 1, torch.mean).item() == pytest.approx(4)
    assert GAN_LOSSES["lsgan"].discriminator(zeros, zeros - 1, torch.mean).item() == pytest.approx(1)
