"""The streaming executor equals the whole picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sr_upscale.errors import SrUpscaleError
from sr_upscale.inference.strip_layers import STREAM_TAILS
from sr_upscale.inference.strips import StreamNetwork, evenly, stream_rows
from sr_upscale.models.generator import BLOCKS, TAILS, GatedBlock, Generator, GeneratorConfig

SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5), (7, 11), (13, 13), (17, 4), (31, 19), (40, 23)]


def model_of(scale: int, blocks: int, upsampler: str, block: str = "inception") -> Generator:
    torch.manual_seed(scale + blocks)
    config = GeneratorConfig(scale=scale, num_feat=8, num_blocks=blocks, upsampler=upsampler, block=block)
    model = Generator(config).requires_grad_(False).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize(
    ("scale", "blocks", "upsampler", "block"),
    [
        *((4, 3, name, block) for name, tail in TAILS.items() if tail in STREAM_TAILS for block in BLOCKS),
        (2, 1, "pixelshuffle", "inception"),
        (3, 5, "nearest_conv", "inception"),
        (8, 1, "nearest_conv", "gated"),
    ],
)
def test_strips_give_the_whole_pictures_rows(
    height: int, width: int, scale: int, blocks: int, upsampler: str, block: str
) -> None:
    """Every tail and block, many shapes, strips of one row, of a few, uneven ones, and the whole picture as one."""
    model = model_of(scale, blocks, upsampler, block)
    image = torch.rand(1, 3, height, width)
    with torch.inference_mode():
        expected = model(image)
    network = StreamNetwork(model)
    for rows in (1, 3, 16, height):
        for column in (0, 4):
            strips = image.split(rows + 2, dim=2)
            found = torch.cat(list(stream_rows(network, strips, height=height, rows=rows, column=column)), dim=2)
            assert found.shape == expected.shape
            assert (found - expected).abs().max() <= 1e-5


def test_second_convs_that_pass_their_input_on_are_left_out() -> None:
    """A network that was compact streams without them, and gives the same rows; one that learnt keeps them."""
    model = model_of(2, 3, "pixelshuffle", "gated")
    blocks = [block for block in model.blocks if isinstance(block, GatedBlock)]
    for block in blocks[:2]:
        block.become_conv(block.first.weight.clone(), torch.randn(8), torch.randn(8))
    network = StreamNetwork(model)
    assert [weights.second is None for weights in network.blocks] == [True, True, False]
    image = torch.rand(1, 3, 17, 9)
    with torch.inference_mode():
        expected = model(image)
    found = torch.cat(list(stream_rows(network, [image], height=17, rows=3)), dim=2)
    assert (found - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(("rows", "block"), [(7, "inception"), (16, "inception"), (60, "inception"), (7, "gated")])
def test_uneven_strips_and_the_full_depth(rows: int, block: str) -> None:
    """24 blocks: more rows of receptive field than most strips have."""
    model = model_of(4, 24, "pixelshuffle", block)
    image = torch.rand(1, 3, 90, 12)
    with torch.inference_mode():
        expected = model(image)
    cuts = [0, 1, 2, 40, 41, 77, 90]
    strips = [image[:, :, start:end] for start, end in itertools.pairwise(cuts)]
    found = torch.cat(list(stream_rows(StreamNetwork(model), strips, height=90, rows=rows)), dim=2)
    assert (found - expected).abs().max() <= 1e-5


def test_rows_come_as_soon_as_they_can() -> None:
    """After n rows all but the receptive field's radius are out: memory does not grow with the height."""
    model = model_of(2, 3, "pixelshuffle")
    asked = 0

    def rows() -> Iterator[Tensor]:
        nonlocal asked
        for _ in range(60):
            asked += 1
            yield torch.rand(1, 3, 1, 8)

    came = 0
    for band in stream_rows(StreamNetwork(model), rows(), height=60, rows=1):
        came += band.shape[2] // 2
        assert asked - came <= model.config.halo
    assert came == 60


@pytest.mark.parametrize("value", [float("inf"), 1e4], ids=["not finite", "far off"])
def test_strips_that_overflow_are_done_again_in_float32(value: float) -> None:
    """One strip of features is poisoned: only what sees it is redone, and exactly."""
    model = model_of(4, 2, "pixelshuffle")
    with torch.no_grad():
        for parameter in model.tail.parameters():
            parameter.mul_(0.05)  # else the answers to noise are far off by themselves
    image = torch.rand(1, 3, 64, 20)
    network = StreamNetwork(model, torch.bfloat16)
    original, calls = network.trunk, []
    assert original is not None

    def poisoned(rows: Tensor) -> Tensor:
        out = original(rows)
        calls.append(out)
        return out.index_fill(2, torch.tensor([3]), value) if len(calls) == 4 else out

    network.trunk = poisoned  # type: ignore[assignment]
    found = torch.cat(list(stream_rows(network, [image], height=64, rows=8)), dim=2)
    with torch.inference_mode():
        expected = model(image)
    exact_rows = ((found - expected).abs().amax(dim=(0, 1, 3)) < 1e-5).nonzero().flatten()
    assert network.redone in (1, 2)
    assert torch.isfinite(found).all()
    assert len(exact_rows) == network.redone * 8 * 4
    assert (found - expected).abs().max() < 0.1


def test_damaged_weights_are_found() -> None:
    model = model_of(2, 1, "pixelshuffle")
    model.trunk.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(SrUpscaleError, match="not finite even in fp32"):
        list(stream_rows(StreamNetwork(model), [torch.rand(1, 3, 9, 9)], height=9, rows=4))


def test_evenly() -> None:
    heights = [1, 5, 2, 11, 3]
    image = torch.rand(1, 2, sum(heights), 3)
    found = list(evenly(image.split(heights, dim=2), 4))
    assert [strip.shape[2] for strip in found] == [4, 4, 4, 4, 4, 2]
    assert torch.equal(torch.cat(found, dim=2), image)
