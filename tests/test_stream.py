"""The streaming executor equals the whole picture."""

from __future__ import annotations

import itertools

import pytest
import torch

from sr_upscale.engine.stream import stream_rows
from sr_upscale.models.generator import Generator, GeneratorConfig

SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5), (7, 11), (13, 13), (17, 4), (31, 19), (40, 23)]


def model_of(scale: int, blocks: int, upsampler: str) -> Generator:
    torch.manual_seed(scale + blocks)
    config = GeneratorConfig(scale=scale, num_feat=8, num_blocks=blocks, upsampler=upsampler)  # type: ignore[arg-type]
    model = Generator(config).requires_grad_(False).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize(
    ("scale", "blocks", "upsampler"),
    [
        (4, 3, "pixelshuffle"),
        (2, 1, "pixelshuffle"),
        (3, 5, "nearest_conv"),
        (4, 2, "nearest_conv"),
        (8, 1, "nearest_conv"),
    ],
)
def test_strips_give_the_whole_pictures_rows(height: int, width: int, scale: int, blocks: int, upsampler: str) -> None:
    """Fifty shapes and configurations, with strips of one row, of a few, uneven ones, and the whole picture as one."""
    model = model_of(scale, blocks, upsampler)
    image = torch.rand(1, 3, height, width)
    with torch.inference_mode():
        expected = model(image)
    for rows in (1, 3, 16, height):
        strips = image.split(rows, dim=2)
        found = torch.cat(list(stream_rows(model, strips)), dim=2)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 1e-5


def test_uneven_strips_and_the_full_depth() -> None:
    """24 blocks: more rows of receptive field than most strips have."""
    model = model_of(4, 24, "pixelshuffle")
    image = torch.rand(1, 3, 90, 12)
    with torch.inference_mode():
        expected = model(image)
    cuts = [0, 1, 2, 40, 41, 77, 90]
    strips = [image[:, :, start:end] for start, end in itertools.pairwise(cuts)]
    found = torch.cat(list(stream_rows(model, strips)), dim=2)
    assert (found - expected).abs().max() <= 1e-5


def test_rows_come_as_soon_as_they_can() -> None:
    """After n rows all but the receptive field's radius are out: memory does not grow with the height."""
    model = model_of(2, 3, "pixelshuffle")
    radius = model.config.halo
    came = 0
    for number, band in enumerate(stream_rows(model, (torch.rand(1, 3, 1, 8) for _ in range(60)))):
        came += band.shape[2] // 2
        if number < 40:
            assert band.shape[2] == 2
    assert came == 60
    assert radius == 9


def test_half_precision_agrees() -> None:
    from sr_upscale.metrics import psnr

    model = model_of(2, 3, "pixelshuffle")
    image = torch.rand(1, 3, 40, 30)
    exact, half = (
        torch.cat(list(stream_rows(model, image.split(8, dim=2), dtype=dtype)), dim=2).clamp(0, 1)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert psnr(half, exact).item() > 40
