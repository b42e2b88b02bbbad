import operator
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sr_upscale import device as device_module
from sr_upscale.errors import OutOfMemoryError, UsageError
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import resize
from sr_upscale.images import Frame, Picture
from sr_upscale.inference import loaded_networks, planning, strips
from sr_upscale.inference.memory import PROGRAM_BYTES, plan_host_bytes
from sr_upscale.inference.rows import extend_colour
from sr_upscale.inference.sizing import Target, choose_factors
from sr_upscale.inference.tiling import Pass, StripPlan, TilePlan
from sr_upscale.upscaler import Upscaler
from tests.helpers import ROOT, doubled, pattern


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 12)])
def test_arrays_come_back_as_arrays(nearest: Path, dtype: Any, channels: int, size: tuple[int, int]) -> None:
    pixels = pattern(*size, channels, dtype)
    out = Upscaler(nearest)(pixels)
    assert out.dtype == dtype
    assert np.array_equal(out, doubled(pixels))  # 16 bits exactly: the type is fp32 for them


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_stays_exactly_gray_also_in_rgb(micro: Path, dtype: Any) -> None:
    """Whatever the network does to neutral pixels, no tint comes out, and L and RGB agree."""
    gray = pattern(9, 11, 1, dtype)
    upscaler = Upscaler(micro)
    out = upscaler(np.repeat(gray, 3, axis=2))
    assert (out == out[:, :, :1]).all()
    assert np.array_equal(out[:, :, :1], upscaler(gray))


@pytest.mark.parametrize("scale", [1, 1.5, 2, 3, 3.5, 4, 7])
def test_any_scale_has_the_right_size_and_content(nearest: Path, scale: float) -> None:
    pixels = pattern(8, 13)
    out = Upscaler(nearest)(pixels, scale=scale)
    assert out.shape == (round(8 * scale), round(13 * scale), 3)
    steps = len(choose_factors({2}, scale))
    grown = pixels
    for _ in range(steps):
        grown = doubled(grown)
    expected = to_pixels(resize(to_tensor(grown), out.shape[:2], kernel="lanczos3"), out.dtype)
    assert np.abs(out.astype(int) - expected).max() <= 1


def test_target_sizes(nearest: Path) -> None:
    pixels = pattern(10, 20)
    upscaler = Upscaler(nearest)
    assert upscaler(pixels, width=50).shape == (25, 50, 3)
    assert upscaler(pixels, height=15).shape == (15, 30, 3)
    assert upscaler(pixels, width=31, height=47, fit="stretch").shape == (47, 31, 3)
    assert upscaler(pixels, width=31, height=47).shape == (16, 31, 3)
    assert upscaler(pixels, width=1000, height=25).shape == (25, 50, 3)
    assert upscaler(pixels, width=31, height=47, fit="cover").shape == (47, 31, 3)
    with pytest.raises(UsageError, match="--fit is 'fill'; expected inside, cover, stretch"):
        upscaler(pixels, width=31, height=47, fit="fill")


@pytest.mark.parametrize(("width", "height"), [(40, 12), (26, 22), (45, 21)])
def test_cover_is_the_middle_of_the_enlarged_picture_and_stretch_distorts_it(
    nearest: Path, width: int, height: int
) -> None:
    pixels = pattern(10, 20, 4)
    ratio = max(width / 20, height / 10)
    whole = to_tensor(doubled(pixels))
    large = to_pixels(resize(whole, (round(10 * ratio), round(20 * ratio)), kernel="lanczos3"), pixels.dtype)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    middle = large[top : top + height, left : left + width]
    upscaler = Upscaler(nearest, dtype="fp32")
    out = upscaler(pixels, width=width, height=height, fit="cover")
    assert out.shape == (height, width, 4)
    alpha = np.abs(out[:, :, 3].astype(int) - middle[:, :, 3])
    assert alpha.max() <= 1
    if width >= 20 and height >= 10:
        distorted = upscaler(pixels[:, :, :3], width=width, height=height, fit="stretch")
        expected = to_pixels(resize(whole[:, :3], (height, width), kernel="lanczos3"), pixels.dtype)
        assert np.abs(distorted.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("size", "target", "models"),
    [
        ((20, 10), {"width": 81}, ["nearest-x2"] * 2),  # 4.05 times: two passes and a little resampling, not three
        ((20, 10), {"width": 46, "height": 18, "fit": "stretch"}, ["nearest-x2"]),
        ((20, 10), {"width": 48, "height": 1000}, ["nearest-x2"]),
        ((20, 10), {"scale": 3.0}, ["nearest-x2"] * 2),
    ],
)
def test_no_pass_is_run_where_resampling_does(
    nearest: Path, size: tuple[int, int], target: dict[str, Any], models: list[str]
) -> None:
    picture = Picture(frames=(Frame(pixels_hwc=pattern(size[1], size[0])),))
    plan = Upscaler(nearest).engine.planner.plan(picture, Target(**target))
    assert [step.weights.stem for step in plan.passes] == models


@pytest.mark.parametrize(
    "bad",
    [
        {"scale": 0.5},
        {"scale": 65},
        {"scale": float("nan")},
        {"scale": 2, "width": 9},
        {"width": 0},
        {"width": 4},
        {"height": 10**6},
    ],
    ids=str,
)
def test_impossible_targets_are_refused(nearest: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Upscaler(nearest)(pattern(8, 8), **bad)


@pytest.mark.parametrize(
    "bad", [{"device": "cuda:99"}, {"device": "tpu"}, {"dtype": "fp8"}, {"tile_size": 3}, {"overlap": 5}], ids=str
)
def test_impossible_options_are_refused(nearest: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected|not available|numbered"):
        Upscaler(nearest, **bad)


# --- alpha ------------------------------------------------------------------------------------------


def test_no_dark_fringe_at_transparent_edges(micro: Path) -> None:
    """White on transparent black comes out as white on transparent white: the edge colours are all as in
    an opaque white picture."""
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[5:15, 5:15] = 255
    out = Upscaler(micro, dtype="fp32")(pixels)
    white = Upscaler(micro, dtype="fp32")(np.full((20, 20, 3), 255, np.uint8))
    visible = out[:, :, 3] > 0
    assert visible.any()
    assert np.array_equal(out[visible][:, :3], white[visible])


def test_extended_colour_keeps_visible_pixels_and_fills_hidden_ones_from_near_by() -> None:
    colour = pattern(23, 31)
    alpha = np.zeros((23, 31), np.uint8)
    alpha[4:12, 6:20] = 200
    out = extend_colour(colour, alpha)
    assert np.array_equal(out[alpha > 0], colour[alpha > 0])
    assert out.min() >= colour[alpha > 0].min() - 1
    assert out.max() <= colour[alpha > 0].max() + 1
    red = np.zeros((9, 9, 3), np.uint16)
    red[4, 4] = (60000, 10, 300)
    single = np.zeros((9, 9), np.uint16)
    single[4, 4] = 1
    assert (np.abs(extend_colour(red, single).astype(int) - (60000, 10, 300)) <= 1).all()


@pytest.mark.parametrize("value", [0, 77, 255])
def test_constant_alpha_stays_constant(micro: Path, value: int) -> None:
    pixels = pattern(6, 7, 4)
    pixels[:, :, 3] = value
    assert (Upscaler(micro)(pixels)[:, :, 3] == value).all()


def test_varied_alpha_is_upscaled_by_the_network(nearest: Path) -> None:
    pixels = pattern(6, 7, 4)
    assert np.array_equal(Upscaler(nearest, dtype="fp32")(pixels)[:, :, 3], doubled(pixels)[:, :, 3])


# --- tiles and memory -------------------------------------------------------------------------------


class Greedy:
    """Runs out of memory on tiles that read more than `limit` pixels."""

    def __init__(self, limit: int, error: Exception) -> None:
        self.limit, self.error, self.failed = limit, error, 0

    def __call__(self, tile: Any) -> torch.Tensor:
        if tile.shape[-1] * tile.shape[-2] > self.limit:
            self.failed += 1
            raise self.error
        return torch.as_tensor(tile).repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_halves_tiles_and_uses_nothing_of_the_failed_ones(
    nearest: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    upscaler = Upscaler(nearest, tile_size=64, overlap=0, halo=0)
    greedy = Greedy(33 * 33, error)
    monkeypatch.setattr(upscaler.engine.networks, "get", lambda *_: greedy)
    pixels = pattern(70, 90)
    assert np.array_equal(upscaler(pixels), doubled(pixels))
    assert greedy.failed >= 1


def test_out_of_memory_at_the_smallest_tile_is_an_error_of_its_own(
    nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upscaler = Upscaler(nearest, tile_size=64)
    monkeypatch.setattr(upscaler.engine.networks, "get", lambda *_: Greedy(0, torch.OutOfMemoryError("no")))
    with pytest.raises(OutOfMemoryError, match="even with tiles of 16 pixels"):
        upscaler(pattern(40, 40))


@pytest.mark.parametrize("limit", [200 << 20, 80 << 20])
def test_plan_follows_the_memory_there_is_and_that_is_allowed(
    nearest: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    picture = Picture(frames=(Frame(pixels_hwc=pattern(300, 4000)),))
    easy = Upscaler(nearest).engine.planner.plan(picture, Target())
    assert isinstance(easy.passes[0].cut, StripPlan)
    assert easy.passes[0].cut.rows == 8
    monkeypatch.setattr(planning, "free_memory", lambda _device: 8_000_000)
    small = Upscaler(nearest).engine.planner.plan(picture, Target())
    assert small.device_bytes <= 8_000_000 < easy.device_bytes
    tiles = Upscaler(nearest, overlap=8).engine.planner.plan(picture, Target())
    assert isinstance(tiles.passes[0].cut, TilePlan)
    assert tiles.passes[0].cut.steps > 1
    assert tiles.device_bytes <= 8_000_000
    monkeypatch.undo()
    allowed = Upscaler(nearest, max_memory=limit).engine.planner.plan(picture, Target(), streamed=True)
    assert allowed.device_bytes + allowed.host_bytes <= limit


def test_out_of_memory_makes_strips_smaller_until_single_rows(nearest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = Upscaler(nearest, dtype="fp32")
    real, tried = strips.stream_rows, []

    def greedy(network: Any, strips: Any, *, height: int, rows: int, column: int) -> Any:
        tried.append((rows, column))
        for number, band in enumerate(real(network, strips, height=height, rows=rows, column=column)):
            if number == 1 and rows > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield band

    monkeypatch.setattr(strips, "stream_rows", greedy)
    pixels = pattern(200, 300)
    assert np.array_equal(upscaler(pixels), doubled(pixels))
    assert tried == [(54, 0), (27, 0), (13, 0), (6, 0), (3, 0)]

    def hopeless(*_args: Any, **_more: Any) -> Any:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(strips, "stream_rows", hopeless)
    with pytest.raises(OutOfMemoryError, match="even with single rows of 75 pixels"):
        upscaler(pixels)


def test_plans_count_what_the_writer_holds(nearest: Path) -> None:
    picture = Picture(frames=(Frame(pixels_hwc=pattern(900, 40)),) * 2)
    planned = [
        Upscaler(nearest).engine.planner.plan(picture, Target(), writer_bytes=partial(operator.mul, each)).host_bytes
        for each in (0, 14)
    ]
    assert planned[1] - planned[0] == 14 * (2 * 900) * (2 * 40)
    streamed = Upscaler(nearest).engine.planner.plan(
        picture, Target(), streamed=True, writer_bytes=lambda pixels: 14 * pixels
    )
    assert streamed.host_bytes < planned[0]


def test_half_precision_is_only_taken_where_it_agrees(nearest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sr_upscale.device.cpu_has_bf16", lambda: True)
    upscaler = Upscaler(nearest)
    assert upscaler.engine.networks.get(upscaler.engine.planner.weights[2], "bfloat16").dtype == torch.bfloat16
    monkeypatch.setattr(loaded_networks, "agreement_db", lambda _network, _exact: 30.0)
    assert Upscaler(nearest).engine.networks.get(nearest, "bfloat16").dtype == torch.float32
    assert upscaler.engine.planner.dtype_for(16) == "float32"
    assert Upscaler(nearest, dtype="bf16").engine.planner.dtype_for(16) == "bfloat16"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "height", "scale"), [(8000, 200, 2), (2000, 800, 2), (1000, 1600, 2), (380, 380, 2), (380, 380, 4)]
)
def test_the_truth_is_within_a_quarter_of_the_planned_memory(
    tmp_path: Path, width: int, height: int, scale: int
) -> None:
    """From file to file, in a process of its own (`scripts/bench.py`)."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import bench

    found = bench.memory(tmp_path, width, height, scale)
    assert abs(found["peak_mib"] - found["plan_mib"]) <= 0.25 * found["plan_mib"]


@pytest.mark.parametrize(
    ("on_cpu", "half", "rows", "bands", "program"),
    [
        (True, True, 30, 0, 0),  # one piece: no bands beside the network
        (True, False, 30, 0, PROGRAM_BYTES),  # fp32: no check has left memory free
        (True, True, 10, 10 * 40 * (12 + 2 * 4 * 12), PROGRAM_BYTES),
        (False, True, 30, 30 * 40 * (12 + 2 * 4 * 12), PROGRAM_BYTES),  # a GPU's memory is another
    ],
)
def test_bands_are_planned_where_they_stand_beside_the_network(
    on_cpu: bool, half: bool, rows: int, bands: int, program: int
) -> None:
    """A picture of 40x30 at x2: a band is float32 RGB going in, and twice coming out."""
    cut = StripPlan(height=30, width=40, rows=rows, column=0, halo=3)
    planned = plan_host_bytes(
        input_bytes=3600,
        output_bytes=14400,
        row_bytes=(120, 240),
        channels=3,
        passes=[Pass(weights=Path("x2"), scale=2, cut=cut, half=half)],
        resample=False,
        filled_pixels=0,
        on_cpu=on_cpu,
    )
    assert planned == 3600 + 14400 + bands + program


def test_files_in_the_cache_of_a_container_are_not_memory_in_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device_module, "CGROUP", tmp_path)
    assert device_module._cgroup_headroom() == 1 << 62  # no such files
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("950\n")
    (tmp_path / "memory.stat").write_text("anon 200\ninactive_file 600\nactive_file 100\nslab 50\n")
    assert device_module._cgroup_headroom() == 750
    (tmp_path / "memory.current").write_text("2000\n")
    assert device_module._cgroup_headroom() == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert device_module._cgroup_headroom() == 1 << 62


def test_the_plan_counts_what_filling_takes(nearest: Path) -> None:
    """48 bytes a pixel where some pixels are transparent; nothing where all or none are."""
    pixels = pattern(40, 50, 4)
    needs = []
    for alpha in (255, 0, None):
        pixels[:, :, 3] = 0 if alpha is None else alpha
        pixels[:9, :, 3] = 200 if alpha is None else alpha
        needs.append(
            Upscaler(nearest).engine.planner.plan(Picture(frames=(Frame(pixels_hwc=pixels),)), Target()).host_bytes
        )
    assert needs[0] == needs[1] == needs[2] - 48 * 40 * 50


def test_damaged_exif_does_not_lose_a_pil_image(nearest: Path, tmp_path: Path) -> None:
    Image.fromarray(pattern(16, 24)).save(tmp_path / "a.png", exif=b"Exif\0\0garbage")
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(Upscaler(nearest)(image)), doubled(pattern(16, 24)))
