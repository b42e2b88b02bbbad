import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sr_upscale.errors import SrUpscaleError
from sr_upscale.inference.backends.torch import Network
from sr_upscale.inference.tiling import MIN_TILE, fit_tile_size, plan_tiles, run_tiles
from tests.helpers import micro_generator


@given(
    length=st.integers(1, 400),
    tile_size=st.just(0) | st.integers(16, 100),
    overlap=st.integers(0, 30).map(lambda half: 2 * half),
    halo=st.integers(0, 70),
)
def test_spans_cover_everything_once_and_stay_inside(length: int, tile_size: int, overlap: int, halo: int) -> None:
    plan = plan_tiles(length, length, tile_size=tile_size, overlap=overlap, halo=halo)
    assert plan.rows == plan.columns
    assert plan.rows[0].read_start == plan.rows[0].keep_start == 0
    assert plan.rows[-1].read_stop == plan.rows[-1].keep_stop == length
    for span in plan.rows:
        assert all(type(each) is int for each in (span.read_start, span.keep_start, span.keep_stop, span.read_stop))
        assert 0 <= span.read_start <= span.keep_start < span.keep_stop <= span.read_stop <= length
        assert span.keep_start - span.read_start == min(halo, span.keep_start)
        assert span.read_stop - span.keep_stop == min(halo, length - span.keep_stop)
    for before, after in zip(plan.rows, plan.rows[1:], strict=False):
        assert 0 <= before.keep_stop - after.keep_start <= overlap
    for before, after in zip(plan.rows, plan.rows[2:], strict=False):
        assert before.keep_stop <= after.keep_start  # never three tiles on one pixel
    if tile_size:
        assert all(span.keep_stop - span.keep_start <= tile_size + overlap for span in plan.rows)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (15, 17), (16, 16), (33, 31), (47, 64)])
@pytest.mark.parametrize("scale", [2, 3])
def test_tiled_equals_whole_with_the_receptive_field_as_halo(size: tuple[int, int], scale: int) -> None:
    network = Network(micro_generator(scale, blocks=3), torch.device("cpu"), torch.float32)
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(5))
    whole = network(image)[0]
    for tile_size, overlap in ((16, 0), (16, 8), (17, 4), (32, 16)):
        plan = plan_tiles(
            *size, tile_size=tile_size, overlap=overlap, halo=micro_generator(scale, blocks=3).config.halo
        )
        tiled = torch.from_numpy(
            np.concatenate(list(run_tiles(plan, network, image.split(7, dim=2), scale=scale)), axis=2)[0]
        )
        assert tiled.shape == whole.shape
        assert (tiled - whole).abs().max() <= 1e-5


def test_without_halo_the_difference_would_show() -> None:
    """The test above can fail: the same comparison without context does."""
    network = Network(micro_generator(2, blocks=3), torch.device("cpu"), torch.float32)
    image = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(5))
    plan = plan_tiles(40, 40, tile_size=16, overlap=0, halo=0)
    tiled = torch.from_numpy(np.concatenate(list(run_tiles(plan, network, [image], scale=2)), axis=2)[0])
    assert (tiled - network(image)[0]).abs().max() > 1 / 255


def test_overlaps_blend_with_weights_that_add_up_to_one() -> None:
    plan = plan_tiles(70, 45, tile_size=16, overlap=8, halo=0)
    image = torch.rand(1, 1, 70, 45)
    tiled = torch.from_numpy(np.concatenate(list(run_tiles(plan, lambda tile: tile, [image], scale=1)), axis=2)[0])
    torch.testing.assert_close(tiled, image[0])


def test_blending_is_a_straight_ramp() -> None:
    """Left tile says 0, right tile says 1: across the overlap the result climbs in equal steps."""
    plan = plan_tiles(16, 32, tile_size=16, overlap=8, halo=0)
    values = iter((0.0, 1.0))
    out = np.concatenate(
        list(run_tiles(plan, lambda tile: torch.full_like(tile, next(values)), [torch.zeros(1, 1, 16, 32)], scale=1)), 2
    )
    expected = torch.cat((torch.zeros(12), (torch.arange(8) + 0.5) / 8, torch.ones(12)))
    torch.testing.assert_close(torch.from_numpy(out[0, 0, 3]), expected)


def test_an_error_passes_through_and_later_bands_never_come() -> None:
    plan = plan_tiles(64, 16, tile_size=16, overlap=0, halo=0)
    calls = 0

    def network(tile: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tile

    bands = run_tiles(plan, network, [torch.ones(1, 1, 64, 16)], scale=1)
    assert next(bands).shape[2] + next(bands).shape[2] == 32
    with pytest.raises(torch.OutOfMemoryError):
        next(bands)


@given(height=st.integers(1, 3000), width=st.integers(1, 3000), max_pixels=st.integers(1, 10_000_000))
def test_fitted_tiles_read_no_more_than_allowed(height: int, width: int, max_pixels: int) -> None:
    size = fit_tile_size(height, width, max_pixels=max_pixels, overlap=8, halo=16)
    plan = plan_tiles(height, width, tile_size=size, overlap=8, halo=16)
    assert plan.largest_tile_pixels <= max_pixels or size == MIN_TILE
    assert plan.steps == 1 or height * width > max_pixels


class Broken(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 0


def test_a_tile_that_is_not_finite_in_fp32_fails() -> None:
    network = Network(Broken(), torch.device("cpu"), torch.bfloat16)
    with pytest.raises(SrUpscaleError, match="not finite even in fp32"):
        network(torch.ones(1, 3, 4, 4))
