"""Seamless textures: a picture that is rolled comes out rolled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_upscale.images.formats import FORMATS
from sr_upscale.images.picture import RowSource
from sr_upscale.models.descriptor import GeneratorConfig
from sr_upscale.models.generator import Generator
from sr_upscale.pipeline import job
from sr_upscale.pipeline.executor import engine_for
from sr_upscale.pipeline.request import request_of
from sr_upscale.pretrained.weights_file import WeightsInfo, save_generator
from tests.helpers import Cli, pattern


@pytest.fixture
def neighbours(tmp_path: Path) -> Path:
    """Weights, x2, that add three neighbours to each pixel.

    No conv has more than one tap for an output, so that the order of sums, which differs between processors and
    within a row, changes no bit.
    """
    model = Generator(GeneratorConfig(scale=2, num_feat=8, num_blocks=1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for channel in range(3):
            model.head.weight[channel, channel, 0, 0] = 0.25
            model.trunk.weight[channel, channel, 2, 2] = 0.5
            model.tail.last.weight[4 * channel : 4 * channel + 4, channel, 0, 2] = 1
    save_generator(tmp_path / "neighbours-x2.safetensors", model, WeightsInfo(name="neighbours-x2"))
    return tmp_path / "neighbours-x2.safetensors"


@pytest.mark.parametrize(("wrap", "shift"), [("x", (0, 13)), ("y", (7, 0)), ("both", (7, 13))])
@pytest.mark.parametrize(("scale", "mode"), [(2, "RGB"), (4, "RGB"), (2, "RGBA"), (2, "L")])
def test_out_of_rolled_is_rolled_out(
    cli: Cli, tmp_path: Path, neighbours: Path, wrap: str, shift: tuple[int, int], scale: int, mode: str
) -> None:
    pixels = np.asarray(Image.fromarray(pattern(40, 56) // 2).convert(mode))
    run = ("-n", neighbours, "--fp32", "--backend", "torch", "-s", scale)
    for name, each in (("plain", pixels), ("rolled", np.roll(pixels, shift, (0, 1)))):
        Image.fromarray(each).save(tmp_path / f"{name}.png")
        cli(tmp_path / f"{name}.png", "-o", tmp_path / f"{name}-out.png", *run, "--wrap", wrap, code=0)
    cli(tmp_path / "plain.png", "-o", tmp_path / "seam.png", *run, code=0)
    plain, rolled, seam = (
        np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("plain-out", "rolled-out", "seam")
    )
    assert plain.shape[:2] == (40 * scale, 56 * scale)
    np.testing.assert_array_equal(rolled, np.roll(plain, [scale * step for step in shift], (0, 1)))
    assert (plain != seam).any()
    np.testing.assert_array_equal(plain[20:-20, 20:-20], seam[20:-20, 20:-20])


@pytest.mark.parametrize("wrap", ["x", "y", "both"])
def test_a_large_texture_goes_by_rows(
    cli: Cli, tmp_path: Path, micro: Path, monkeypatch: pytest.MonkeyPatch, wrap: str
) -> None:
    Image.fromarray(pattern(150, 40)).save(tmp_path / "in.png")
    for name in ("whole", "rows"):
        call = [tmp_path / "in.png", "-o", tmp_path / f"{name}.png", "-n", micro, "--fp32", "--backend", "torch"]
        assert cli(*call, "--wrap", wrap).code == 0
        monkeypatch.setattr("sr_upscale.images.decode.LAZY_PIXELS", 99)
        monkeypatch.setattr(RowSource, "__array__", lambda *_args, **_more: pytest.fail("it was read whole"))
    whole, by_rows = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("whole", "rows"))
    np.testing.assert_array_equal(by_rows, whole)


def test_the_memory_of_a_texture_grows_with_its_width_alone(
    tmp_path: Path, micro: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sr_upscale.images.decode.LAZY_PIXELS", 99)
    request = request_of({"model": str(micro), "wrap": "both"})
    engine = engine_for(request.network)
    needs = []
    for size in ((300, 3000), (300, 6000), (400, 3000)):
        Image.new("RGB", size).save(tmp_path / "in.png")
        needs.append(job.prepare(tmp_path / "in.png", FORMATS["png"], engine, request).plan.host_bytes)
    assert needs[0] == needs[1] < needs[2]
