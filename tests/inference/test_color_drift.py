"""Enlarging keeps the mean colour, or a warning says that it did not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sr_upscale.images.picture import Frame, Picture
from sr_upscale.inference.color_drift import Drift
from sr_upscale.inference.sizing import Target
from sr_upscale.pretrained.registry import resolve_weights
from sr_upscale.upscaler import Upscaler
from tests.helpers import Ran, pattern

Cli = Callable[..., Ran]


def test_levels_are_the_difference_of_the_means_whatever_the_strips() -> None:
    random = np.random.default_rng(0)
    before, after = random.random((40, 30, 3)) * 0.5, random.random((80, 60, 3))
    drift = Drift()
    for watch, pixels, cuts in ((drift.before, before, (0, 7, 8, 40)), (drift.after, after, (0, 50, 80))):
        for start, stop in zip(cuts, cuts[1:], strict=False):
            watch(torch.from_numpy(pixels[start:stop]).permute(2, 0, 1)[None])
    expected = 255 * (after.mean(axis=(0, 1)) - before.mean(axis=(0, 1)))
    np.testing.assert_allclose(drift.levels(), expected, atol=1e-3)
    assert "red +6" in drift.warnings()[0]
    drift.clear()
    assert drift.warnings() == []


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_our_weights_do_not_drift(mode: str, tmp_path: Path, cli: Cli) -> None:
    Image.fromarray(pattern(40, 50)).convert(mode).save(tmp_path / "a.png")
    ran = cli(tmp_path / "a.png", "-n", "psnr-x2", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["warnings"] == []


def test_a_tint_is_noticed_in_one_picture_and_in_a_folder(tmp_path: Path, cli: Cli) -> None:
    """Weights whose last conv makes everything red: the picture is written, and the warning names the colour."""
    source = resolve_weights("psnr-x2")
    tensors = load_file(source)
    bias = next(name for name, tensor in tensors.items() if name.startswith("tail.") and tensor.shape == (12,))
    tensors[bias][:4] += 0.2  # the four places of red
    with safe_open(source, framework="pt") as file:
        header = file.metadata()
    save_file(tensors, tmp_path / "red.safetensors", metadata=header)
    (tmp_path / "in").mkdir()
    gray = np.full((24, 30, 3), 100, np.uint8)
    gray[::2] += 20
    gray[:, ::3, 0] += 10
    Image.fromarray(gray).save(tmp_path / "in" / "a.png")
    one = cli(tmp_path / "in" / "a.png", "-n", tmp_path / "red.safetensors", "-o", tmp_path / "one.png")
    folder = cli("batch", tmp_path / "in", "-n", tmp_path / "red.safetensors", "-o", tmp_path / "out")
    for ran in (one, folder):
        assert ran.code == 0
        assert "the output's mean colour is not the input's (red +51 of 255)" in ran.err
    drift = Drift()
    upscaler = Upscaler(tmp_path / "red.safetensors")
    upscaler.upscale(Picture(frames=(Frame(pixels_hwc=gray),)), Target(scale=2.0), drift=drift)
    assert drift.levels() == pytest.approx([51, 0, 0], abs=1)
