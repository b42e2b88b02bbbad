"""Self-ensemble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sr_upscale.functional.planes import self_ensemble
from sr_upscale.upscaler import Upscaler
from tests.helpers import pattern


def test_the_mean_of_a_directed_network() -> None:
    """A network that shifts to the right: the ensemble blurs alike to all sides."""

    def shift(x: Tensor) -> Tensor:
        return torch.roll(x, 1, -1)

    x = torch.zeros(1, 1, 7, 7)
    x[..., 3, 3] = 1
    expected = torch.zeros(1, 1, 7, 7)
    for row, column in ((2, 3), (4, 3), (3, 2), (3, 4)):
        expected[..., row, column] = 0.25
    torch.testing.assert_close(self_ensemble(shift)(x), expected)


def test_an_even_handed_network_is_left_alone() -> None:
    x = torch.rand(1, 3, 6, 4)
    grow = lambda tile: F.interpolate(tile, scale_factor=2, mode="nearest")  # noqa: E731
    turns: list[None] = []
    torch.testing.assert_close(self_ensemble(grow, lambda: turns.append(None))(x), grow(x))
    assert len(turns) == 8


def test_tta_of_the_upscaler(nearest: Path, micro: Path) -> None:
    pixels = pattern(9, 12)
    np.testing.assert_array_equal(
        Upscaler(nearest, dtype="fp32", tta=True)(pixels), Upscaler(nearest, dtype="fp32")(pixels)
    )
    turned = Upscaler(micro, dtype="fp32", tta=True)(np.rot90(pixels).copy())
    assert np.abs(np.rot90(turned, -1).astype(int) - Upscaler(micro, dtype="fp32", tta=True)(pixels)).max() <= 1
    steps: list[tuple[int, int]] = []
    Upscaler(micro, dtype="fp32", tta=True, tile_size=16)(pattern(9, 30), progress=lambda *step: steps.append(step))
    assert steps == [(done, 16) for done in range(1, 17)]  # two tiles
    assert (Upscaler(micro, dtype="fp32", tta=True)(pixels) != Upscaler(micro, dtype="fp32")(pixels)).any()
