"""Degradations of rendered pictures: each part against an independent truth, and the chain as a whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from sr_upscale.data import rendered
from sr_upscale.data.degradations import degrade, webp
from sr_upscale.data.rendered import DITHERS, Rendered, on_paper, palette, resized, sharpened, two_levels
from sr_upscale.errors import UsageError
from sr_upscale.functional.color import to_pixels, to_tensor
from tests.helpers import pattern

CHANCES = [each.name for each in dataclasses.fields(Rendered) if each.name.endswith("_prob")]
NOTHING = Rendered(**dict.fromkeys(CHANCES, 0.0))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def page(height: int = 96, width: int = 128, ink: tuple[int, int, int] = (20, 20, 20)) -> np.ndarray:
    """Black letters on white."""
    image = Image.new("RGB", (width, height), (255, 255, 255))
    ImageDraw.Draw(image).multiline_text((4, 2), "Rendered\nletters 123", ink, font=ImageFont.load_default(24))
    return np.asarray(image)


def colors_of(pixels: np.ndarray) -> int:
    return len(np.unique(pixels.reshape(-1, 3), axis=0))


def test_no_chain_displaces_the_picture() -> None:
    """The shift against the plain reduction, by least squares on its gradient: hundredths of a pixel in every chain."""
    y, x = np.mgrid[0:128, 0:160]
    wave = 128 + 50 * np.sin(2 * np.pi * x / 53 + 1) + 50 * np.cos(2 * np.pi * y / 47)
    hr = np.repeat(np.rint(wave).astype(np.uint8)[..., None], 3, axis=2)
    plain = hr.reshape(32, 4, 40, 4, 3).mean(axis=(1, 3))[..., 0]
    gradients = np.stack(np.gradient(plain))[:, 2:-2, 2:-2]
    family = dataclasses.replace(
        Rendered(), bitonal_prob=0.0, paper_prob=0.0
    )  # light that falls off has a gradient, too
    for seed in range(150):
        difference = degrade(hr, 4, family, rng(seed)).mean(axis=2)[2:-2, 2:-2] - plain[2:-2, 2:-2]
        difference -= difference.mean()
        shift = (gradients * difference).sum(axis=(1, 2)) / (gradients**2).sum(axis=(1, 2))
        assert np.abs(shift).max() < 0.1, seed


@pytest.mark.parametrize("name", [name for name in CHANCES if name != "clean_prob"])
def test_each_fault_changes_the_lr(name: str) -> None:
    changed = dataclasses.replace(
        NOTHING, **{name: 1.0}, colors=(8, 8), quality=(20, 20), soft_sigma=(1, 1), resize_range=(1.3, 1.7)
    )
    plain = {degrade(page(), 4, NOTHING, rng(seed)).tobytes() for seed in range(40)}
    faulty = [degrade(page(), 4, changed, rng(seed)).tobytes() for seed in range(20)]
    assert sum(each not in plain for each in faulty) >= 18


def test_clean_crops_are_only_reduced() -> None:
    clean = degrade(page(), 4, dataclasses.replace(Rendered(), clean_prob=1.0), rng())
    np.testing.assert_array_equal(
        clean, rendered.to_pixels(rendered.resize(to_tensor(page()), (24, 32)), np.dtype("u1"))
    )


@pytest.mark.parametrize("dither", DITHERS)
@pytest.mark.parametrize("colors", [2, 8, 64, 256])
def test_a_palette_has_so_many_colours(dither: str, colors: int) -> None:
    found = to_pixels(palette(to_tensor(pattern(60, 80)), colors, dither), np.dtype(np.uint8))
    assert colors / 2 <= colors_of(found) <= colors


@pytest.mark.parametrize("dither", DITHERS)
def test_the_web_safe_palette_has_six_levels(dither: str) -> None:
    found = to_pixels(palette(to_tensor(pattern(60, 80)), None, dither), np.dtype(np.uint8))
    assert set(np.unique(found)) <= {0, 51, 102, 153, 204, 255}


def test_dithers_keep_the_mean_where_a_palette_alone_does_not() -> None:
    """A flat 76 lies between 51 and 102: without dither it goes to one, with it the means meet."""
    flat = torch.full((1, 3, 64, 64), 72 / 255)
    means = {dither: palette(flat, None, dither).mean().item() * 255 for dither in DITHERS}
    assert means["none"] == pytest.approx(51)
    assert means["floyd-steinberg"] == pytest.approx(72, abs=1)
    assert means["ordered"] == pytest.approx(72, abs=3.2)  # sixteen thresholds between two levels


def test_sharpening_is_an_unsharp_mask() -> None:
    pixels = pattern(40, 31).astype(np.float64) / 255
    blurred = np.stack([ndimage.gaussian_filter(pixels[..., c], 1.2, mode="nearest", radius=4) for c in range(3)])
    expected = (pixels.transpose(2, 0, 1) * 1.7 - 0.7 * blurred).clip(0, 1)
    found = sharpened(torch.from_numpy(pixels.transpose(2, 0, 1)).float()[None], 0.7, 1.2)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-5)


def test_webp_is_a_webp() -> None:
    """It is lossy, near the picture at a high quality, and further at a low one."""
    x = to_tensor(np.asarray(Image.fromarray(page()).resize((64, 48))))
    high, low = ((webp(x, quality) - x).abs().mean().item() for quality in (95, 5))
    assert 0 < high < low < 0.1


def test_two_levels_are_black_and_white_where_the_ink_is() -> None:
    x = to_tensor(page())
    found = two_levels(x, rng(4))
    assert set(found.unique().tolist()) == {0.0, 1.0}
    dark = x.mean(dim=1) < 0.5
    assert ((found[:, 0] == 0) == dark).float().mean() > 0.97


def test_only_pages_of_one_ink_become_bitonal() -> None:
    """Colours and halftones could not be had back."""
    family = dataclasses.replace(NOTHING, bitonal_prob=1.0)
    slope = np.repeat(np.tile(np.arange(128, dtype=np.uint8) * 2, (96, 1))[..., None], 3, axis=2)
    for kept in (page(ink=(200, 30, 30)) // 2 + np.array([100, 40, 10], dtype=np.uint8), slope):
        for seed in range(8):
            lr = degrade(kept, 4, family, rng(seed))
            expected = kept.reshape(24, 4, 32, 4, 3).mean(axis=(1, 3))
            assert np.abs(lr[2:-2, 2:-2] - expected[2:-2, 2:-2]).mean() < 12


def test_paper_shows_its_back_and_keeps_its_light() -> None:
    """A stroke on the left of the front darkens the right, mirrored; the mean stays within a few hundredths."""
    x = torch.ones(1, 3, 60, 80)
    x[..., 10:16] = 0.1
    found = torch.stack([on_paper(x, rng(seed)) for seed in range(60)])
    assert (found.mean(dim=(1, 2, 3, 4)) - x.mean()).abs().max() < 0.04
    columns = found.mean(dim=(0, 1, 2, 3))
    assert columns[64:70].mean() < columns[30:36].mean() - 0.01


@pytest.mark.parametrize(("height", "width"), [(24, 32), (37, 41), (1, 9)])
def test_every_resize_gives_the_size_and_the_range(height: int, width: int) -> None:
    x = to_tensor(pattern(96, 128))
    for seed in range(30):
        found = resized(x, (height, width), rng(seed))
        assert found.shape == (1, 3, height, width)
        assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colors": (1, 300)}, "colors is 1 to 300; expected a range within 2 to 256"),
        ({"quality": (0, 50)}, "quality is 0 to 50; expected a range within 1 to 100"),
        ({"file_prob": 1.5}, "file_prob is 1.5; expected a probability, 0 to 1"),
        ({"margin": -1}, "margin is -1; expected 0 or more"),
    ],
)
def test_wrong_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Rendered(**changes)
