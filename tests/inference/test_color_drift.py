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

from sr_upscale.errors import ModelError
from sr_upscale.images.picture import Frame, Picture
from sr_upscale.inference.backends.torch import Network
from sr_upscale.inference.color_drift import Drift, doubtful
from sr_upscale.inference.loaded_networks import ArrayNetwork, Run
from sr_upscale.inference.sizing import Target
from sr_upscale.pretrained.registry import resolve_weights
from sr_upscale.upscaler import Upscaler
from tests.helpers import Cli, pattern, pictures

Change = Callable[[torch.Tensor], torch.Tensor]

WRONG: dict[str, Change] = {
    "black": torch.zeros_like,
    "below black": lambda x: x * 0.01 - 1,
    "one colour": lambda x: torch.zeros_like(x) + x.mean(dim=(2, 3), keepdim=True),
    "white": lambda x: x + 2,
    "tint": lambda x: x + torch.tensor([0.1, 0.0, 0.0])[:, None, None],
    "not finite": lambda x: x / 0,
}
"""Answers that cannot be right."""


def shifted(path: Path, places: int, by: float) -> Path:
    """Writes psnr-x2 with other biases of its last conv, in the first of its twelve places."""
    source = resolve_weights("psnr-x2")
    tensors = load_file(source)
    bias = next(name for name, tensor in tensors.items() if name.startswith("tail.") and tensor.shape == (12,))
    tensors[bias][:places] += by
    with safe_open(source, framework="pt") as file:
        save_file(tensors, path, metadata=file.metadata())
    return path


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
    ran = cli(tmp_path / "a.png", "-n", "psnr-x2", "--json", code=0)
    assert json.loads(ran.out)["warnings"] == []


def test_a_tint_is_noticed_in_one_picture_and_in_a_folder(tmp_path: Path, cli: Cli) -> None:
    """Weights whose last conv makes everything red: the picture is written, and the warning names the colour."""
    red = shifted(tmp_path / "red.safetensors", 4, 0.2)  # the four places of red
    (tmp_path / "in").mkdir()
    gray = np.full((24, 30, 3), 100, np.uint8)
    gray[::2] += 20
    gray[:, ::3, 0] += 10
    Image.fromarray(gray).save(tmp_path / "in" / "a.png")
    one = cli(tmp_path / "in" / "a.png", "-n", red, "-o", tmp_path / "one.png")
    folder = cli("batch", tmp_path / "in", "-n", red, "-o", tmp_path / "out")
    for ran in (one, folder):
        assert ran.code == 0
        assert "the output's mean colour is not the input's (red +51 of 255)" in ran.err
    drift = Drift()
    upscaler = Upscaler(red)
    upscaler.engine.enlarged(Picture(frames=(Frame(pixels_hwc=gray),)), Target(scale=2.0), drift=drift)
    assert drift.levels() == pytest.approx([51, 0, 0], abs=1)


def varied() -> torch.Tensor:
    return torch.from_numpy(pattern(40, 30)).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_row_60_a_piece_that_half_precision_spoils_is_done_again_in_fp32(wrong: Change) -> None:
    class Spoilt(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return wrong(x) if torch.is_autocast_enabled("cpu") else x

    network = Network(Spoilt(), torch.device("cpu"), torch.bfloat16)
    assert torch.equal(network(varied()), varied())
    assert network.redone == 1


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_row_60_another_program_in_half_precision_too(wrong: Change) -> None:
    def start(dtype: str) -> Run:
        def answer(tile: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            return wrong(torch.from_numpy(tile)).numpy() if dtype == "bfloat16" else tile

        return answer

    np.testing.assert_array_equal(ArrayNetwork(start, "bfloat16")(varied()), varied().numpy())


def test_ordinary_pieces_are_not_done_again() -> None:
    """A flat piece stays flat; noise that a model cleans may become one colour; overshoot at edges is no drift."""
    flat = torch.full((1, 3, 20, 20), 0.7)
    faint = (torch.randn(1, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 0.02).clamp(0, 1)
    assert not doubtful(flat, flat.repeat_interleave(2, dim=3))
    assert not doubtful(faint, torch.zeros(1, 3, 40, 40))
    assert not doubtful(varied(), varied() * 1.2 - 0.08)


@pytest.mark.parametrize("strips", [(40,), (7, 1, 32)])
def test_row_60_one_colour_of_a_varied_picture_is_refused(strips: tuple[int, ...]) -> None:
    def seen(before: torch.Tensor, after: torch.Tensor) -> Drift:
        drift = Drift()
        for rows, out in zip(before.split(strips, dim=2), after.split(strips, dim=2), strict=True):
            drift.before(rows)
            drift.after(out)
        return drift

    flat = torch.full((1, 3, 40, 30), 0.5)
    with pytest.raises(ModelError, match=r"one colour \(128, 128, 128 of 255\)"):
        seen(varied(), flat).check()
    seen(flat, flat).check()
    seen(varied(), varied()).check()
    late = flat.clone()
    late[:, :, -1, -1] = 0.6
    seen(varied(), late).check()


@pytest.mark.parametrize("words", [(), ("--bf16",), ("-t", "16")])
def test_row_60_black_weights_write_nothing(tmp_path: Path, cli: Cli, words: tuple[str, ...]) -> None:
    black = shifted(tmp_path / "black.safetensors", 12, -5)
    pictures(tmp_path / "in", "a.png", size=(40, 30))
    ran = cli(tmp_path / "in" / "a.png", "-n", black, "-o", tmp_path / "out.png", *words, code=7)
    assert ran.err.splitlines()[-1].startswith("sr-upscale: the network makes one colour (0, 0, 0 of 255)")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "black.safetensors"}
    ran = cli("batch", tmp_path / "in", "-n", black, "-o", tmp_path / "out", *words)
    assert (ran.code, list((tmp_path / "out").glob("*.png"))) == (3, [])
