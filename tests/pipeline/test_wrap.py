"""Seamless textures: a picture that is rolled comes out rolled, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import Ran, pattern

Cli = Callable[..., Ran]


@pytest.mark.parametrize(("wrap", "shift"), [("x", (0, 13)), ("y", (7, 0)), ("both", (7, 13))])
@pytest.mark.parametrize(("scale", "mode"), [(2, "RGB"), (4, "RGB"), (2, "RGBA"), (2, "L")])
def test_out_of_rolled_is_rolled_out(
    cli: Cli, tmp_path: Path, micro: Path, wrap: str, shift: tuple[int, int], scale: int, mode: str
) -> None:
    pixels = np.asarray(Image.fromarray(pattern(40, 56)).convert(mode))
    for name, each in (("plain", pixels), ("rolled", np.roll(pixels, shift, (0, 1)))):
        Image.fromarray(each).save(tmp_path / f"{name}.png")
        run = (
            tmp_path / f"{name}.png",
            "-n",
            micro,
            "-o",
            tmp_path / f"{name}-out.png",
            "--fp32",
            "--backend",
            "torch",
        )
        ran = cli(*run, "-s", scale, "--wrap", wrap)
        assert ran.code == 0, ran.err
    plain, rolled = (np.asarray(Image.open(tmp_path / f"{name}-out.png")) for name in ("plain", "rolled"))
    assert plain.shape[:2] == (40 * scale, 56 * scale)
    np.testing.assert_array_equal(rolled, np.roll(plain, [scale * step for step in shift], (0, 1)))
