"""Animations: frames as the specifications compose them, against a compositor of the tests' own."""

import itertools
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sr_upscale.errors import InputError, OutputError
from sr_upscale.images import FORMATS, Frame, Picture, SaveOptions, decode, load_image, save_image
from sr_upscale.images.adapt import adapt
from sr_upscale.images.codecs.codec import Codec
from sr_upscale.images.picture import FrameSource
from tests.images.animation_files import CLEAR, KEEP, RESTORE, Drawn, apng, blocks, chunk, expected, gif, packed

COLOURS = [(10, 200, 30), (250, 5, 90), (0, 40, 160), (128, 129, 130)]
WHOLE, INNER, BEYOND, ELSEWHERE = (0, 0, 4, 3), (1, 1, 2, 1), (2, 1, 4, 5), (9, 9, 2, 2)


def alike(found: Any, wanted: NDArray[Any], top: int = 255) -> None:
    """Compares pixels and alpha, also where the program left out an alpha that hides nothing."""
    found = np.asarray(found)
    if found.shape[2] in (1, 3):
        assert (wanted[..., -1] == top).all()
        wanted = wanted[..., :-1]
    assert np.array_equal(found, wanted)


# --- GIF --------------------------------------------------------------------------------------------


def with_alpha(indices: NDArray[Any], transparent: int | None) -> NDArray[np.uint8]:
    table = np.array([(*colour, 255) for colour in COLOURS], np.uint8)
    if transparent is not None:
        table[transparent] = 0
    return table[indices]


@pytest.mark.parametrize("first_place", [WHOLE, INNER])
def test_gif_frames_of_every_disposal_transparency_and_size(first_place: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(1)
    kinds = list(itertools.product([KEEP, CLEAR, RESTORE], [None, 2]))
    for (one, clear_one), (two, clear_two), place in itertools.product(kinds, kinds, [WHOLE, INNER, BEYOND, ELSEWHERE]):
        frames, clear = [], [clear_one, clear_two, None, 1]
        for (left, top, width, height), disposal in zip(
            (first_place, place, INNER, WHOLE), (one, two, KEEP, KEEP), strict=True
        ):
            indices = rng.integers(0, 4, (height, width))
            frames.append(Drawn(pixels=indices, left=left, top=top, disposal=disposal, over=True))
        data = gif(4, 3, frames, COLOURS, transparent=clear)
        shown = [
            Drawn(pixels=with_alpha(each.pixels, hole), left=each.left, top=each.top, disposal=each.disposal, over=True)
            for each, hole in zip(frames, clear, strict=True)
        ]
        wanted = expected(4, 3, shown, 255)
        found = load_image(data).frames
        assert len(found) == 4
        opaque = all((each[..., 3] == 255).all() for each in wanted)
        for ours, theirs in zip(found, wanted, strict=True):
            assert ours.pixels_hwc.shape[2] == (3 if opaque else 4)
            alike(ours.pixels_hwc, theirs)
        number = int(rng.integers(4))
        alike(load_image(data, frame=number).frames[0].pixels_hwc, wanted[number])


@pytest.mark.parametrize(
    ("written", "means"), [(0, KEEP), (1, KEEP), (2, CLEAR), (3, RESTORE), (4, RESTORE), (7, KEEP)]
)
def test_gif_numbers_of_disposal(written: int, means: str) -> None:
    indices = [np.full((3, 4), 0), np.full((1, 2), 1), np.full((1, 1), 2)]
    frames = [Drawn(pixels=each, left=1 * (at > 0), top=1 * (at > 0), over=True) for at, each in enumerate(indices)]
    data = gif(4, 3, frames, COLOURS, disposals=[1, written, 1])
    shown = [
        Drawn(pixels=with_alpha(each.pixels, None), left=each.left, top=each.top, disposal=disposal, over=True)
        for each, disposal in zip(frames, (KEEP, means, KEEP), strict=True)
    ]
    for ours, theirs in zip(load_image(data).frames, expected(4, 3, shown, 255), strict=True):
        alike(ours.pixels_hwc, theirs)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 9), (9, 1), (7, 12)])
@pytest.mark.parametrize("interlaced", [False, True])
def test_gif_rows_of_any_order(width: int, height: int, interlaced: bool) -> None:
    indices = [np.random.default_rng(seed).integers(0, 4, (height, width)) for seed in (1, 2)]
    data = gif(width, height, [Drawn(pixels=each, over=True) for each in indices], COLOURS, interlaced=interlaced)
    for ours, theirs in zip(load_image(data).frames, indices, strict=True):
        assert np.array_equal(ours.pixels_hwc, with_alpha(theirs, None)[..., :3])


def test_still_gif_of_gray_colours_is_gray() -> None:
    indices = np.array([[0, 1, 2], [2, 1, 0]])
    grays = [(0, 0, 0), (90, 90, 90), (200, 200, 200)]
    opaque = load_image(gif(3, 2, [Drawn(pixels=indices)], grays))
    assert opaque.frames[0].pixels_hwc[..., 0].tolist() == [[0, 90, 200], [200, 90, 0]]
    clear = load_image(gif(3, 2, [Drawn(pixels=indices)], grays, transparent=[1])).frames[0].pixels_hwc
    assert clear.tolist() == [[[0, 255], [0, 0], [200, 255]], [[200, 255], [0, 0], [0, 255]]]


def test_canvas_grows_to_the_first_frame_of_a_gif_alone() -> None:
    first, second = np.full((3, 5), 1), np.full((9, 9), 2)
    frames = load_image(gif(2, 2, [Drawn(pixels=first, left=1), Drawn(pixels=second, top=2)], COLOURS)).frames
    assert [frame.pixels_hwc.shape for frame in frames] == [(3, 6, 4)] * 2
    assert frames[0].pixels_hwc[:, 0, 3].tolist() == [0, 0, 0]
    assert (frames[0].pixels_hwc[:, 1:, :3] == COLOURS[1]).all()
    assert (frames[1].pixels_hwc[2:, :, :3] == COLOURS[2]).all()


@pytest.mark.parametrize("where", ["canvas", "first frame", "later frame", "many frames"])
def test_row_03_gif_bombs_are_refused_by_their_descriptors(where: str) -> None:
    """65 535 pixels a side in some tens of bytes. Decoding, or only opening, would take 4 GiB."""
    huge = b"!\xf9\x04\x08\0\0\0\0," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02" + blocks(packed([1]))
    small = gif(2, 2, [Drawn(pixels=np.zeros((2, 2), int))], COLOURS)
    data = {
        "canvas": gif(65535, 65535, [Drawn(pixels=np.zeros((2, 2), int))], COLOURS),
        "first frame": small[:25] + huge + b";",
        "later frame": small[:-1] + huge + b";",
        "many frames": gif(2000, 2000, [Drawn(pixels=np.zeros((1, 1), int))] * 50, COLOURS),
    }[where]
    with pytest.raises(
        InputError, match=r"MP exceeds 17\d MP; use --max-pixels" if where != "many frames" else "200 MP"
    ):
        load_image(data)


@pytest.mark.parametrize("kind", ["gif", "apng"])
def test_row_03_frames_without_end_are_refused_before_one_is_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 000 frames of one pixel took 45 s without a word."""
    monkeypatch.setattr(decode, "FRAME_PIXELS", 1 << 24)
    if kind == "gif":
        data = gif(1, 1, [Drawn(pixels=np.zeros((1, 1), int))] * 11, COLOURS)
    else:
        data = apng(1, 1, [Drawn(pixels=np.zeros((1, 1, 3), np.uint8))] * 11, colour=2)
    monkeypatch.setattr(Codec, "decode_frames", lambda *_args, **_more: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match="11 frames are more than 10; use --max-pixels 185MP to allow them"):
        load_image(data)
    with pytest.raises(pytest.fail.Exception, match="it was decoded"):
        load_image(data, max_pixels=185_000_000)


@pytest.mark.parametrize("cut", [3, 9, 14, 17])
def test_gif_cut_in_a_frame_is_refused_or_taken_so_far(cut: int) -> None:
    frames = [Drawn(pixels=np.full((2, 2), index), over=True) for index in (0, 1, 2)]
    data = gif(2, 2, frames, COLOURS)
    last = data.rindex(b"!\xf9")
    with pytest.raises(InputError, match="truncated or damaged at frame 2 of 3"):
        load_image(data[: last + cut])
    taken = load_image(data[: last + cut], allow_truncated=True).frames
    assert [frame.pixels_hwc[0, 0].tolist() for frame in taken[:2]] == [list(COLOURS[0]), list(COLOURS[1])]


# --- APNG -------------------------------------------------------------------------------------------


def soft(rng: np.random.Generator, height: int, width: int, channels: int, dtype: Any) -> NDArray[Any]:
    """Random pixels; a third of them opaque, a third transparent."""
    top = np.iinfo(dtype).max
    pixels = rng.integers(0, top + 1, (height, width, channels)).astype(dtype)
    alpha = rng.integers(0, 3, (height, width))
    pixels[alpha == 0, -1], pixels[alpha == 1, -1] = 0, top
    return pixels


@pytest.mark.parametrize(
    ("colour", "depth", "places"),
    [(6, 8, (WHOLE, INNER, (0, 1, 3, 2))), (6, 16, (INNER,)), (4, 8, (INNER,)), (4, 16, (WHOLE,))],
)
def test_apng_frames_of_every_disposal_blend_and_size(colour: int, depth: int, places: Any) -> None:
    rng = np.random.default_rng(2)
    dtype, top = (np.uint8, 255) if depth == 8 else (np.uint16, 65535)
    channels = 4 if colour == 6 else 2
    kinds = list(itertools.product([KEEP, CLEAR, RESTORE], [False, True]))
    for first, second, place in itertools.product(kinds, kinds, places):
        frames = [
            Drawn(
                pixels=soft(rng, height, width, channels, dtype), left=left, top=upper, disposal=disposal, over=blended
            )
            for (left, upper, width, height), (disposal, blended) in zip(
                (WHOLE, place, INNER, (0, 0, 4, 2)), (first, second, (KEEP, True), (KEEP, True)), strict=True
            )
        ]
        found = load_image(apng(4, 3, frames, colour=colour, depth=depth)).frames
        for ours, theirs in zip(found, expected(4, 3, frames, top), strict=True):
            assert ours.pixels_hwc.dtype == dtype
            assert np.array_equal(ours.pixels_hwc, theirs)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1), (5, 3)])
def test_apng_of_every_kind_keeps_its_bits(colour: int, channels: int, depth: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    dtype = np.uint8 if depth == 8 else np.uint16
    frames = [rng.integers(0, 2**depth, (*size, channels)).astype(dtype) for _ in range(3)]
    data = apng(size[1], size[0], [Drawn(pixels=each) for each in frames], colour=colour, depth=depth)
    found = load_image(data)
    assert found.bits == depth
    for ours, theirs in zip(found.frames, frames, strict=True):
        assert np.array_equal(ours.pixels_hwc, theirs)


def test_apng_without_alpha_gets_one_where_its_canvas_is_empty() -> None:
    hidden, frame = np.full((3, 4, 1), 9, np.uint8), np.full((1, 2, 1), 200, np.uint8)
    frames = [Drawn(pixels=frame, left=1, top=1, disposal=CLEAR), Drawn(pixels=frame, left=2, top=2)]
    shown = [
        Drawn(
            pixels=np.concatenate((frame, np.full_like(frame, 255)), 2),
            left=each.left,
            top=each.top,
            disposal=each.disposal,
        )
        for each in frames
    ]
    found = load_image(apng(4, 3, frames, colour=0, hidden=hidden)).frames
    for ours, theirs in zip(found, expected(4, 3, shown, 255), strict=True):
        assert np.array_equal(ours.pixels_hwc, theirs)


def test_apng_of_a_palette_with_transparency() -> None:
    tables = [(b"PLTE", bytes(value for colour in COLOURS for value in colour)), (b"tRNS", bytes([255, 90, 0]))]
    table = np.array(
        [(*colour, alpha) for colour, alpha in zip(COLOURS, (255, 90, 0, 255), strict=True)], dtype=np.uint8
    )
    indices = [np.random.default_rng(seed).integers(0, 4, (3, 4, 1)).astype(np.uint8) for seed in (4, 5)]
    stored = [Drawn(pixels=each, over=True) for each in indices]
    shown = [Drawn(pixels=table[each[..., 0]], over=True) for each in indices]
    found = load_image(apng(4, 3, stored, colour=3, tables=tables)).frames
    for ours, theirs in zip(found, expected(4, 3, shown, 255), strict=True):
        assert np.array_equal(ours.pixels_hwc, theirs)


@pytest.mark.parametrize("damage", ["cut", "promise", "checksum", "number", "place"])
def test_damaged_apng_is_refused_or_taken_so_far(damage: str) -> None:
    frames = [Drawn(pixels=np.full((5, 5, 3), level, np.uint8)) for level in (10, 90, 200)]
    data = apng(5, 5, frames, colour=2)
    last = data.rindex(b"fcTL") - 4
    if damage == "cut":
        data = data[: last + 38 + 20]
    elif damage == "promise":
        data = data.replace(chunk(b"acTL", struct.pack(">II", 3, 0)), chunk(b"acTL", struct.pack(">II", 4, 0)))
    elif damage == "checksum":
        data = data[: last + 20] + b"\1" + data[last + 21 :]
    else:
        changed = (9, 5, 5, 0, 0) if damage == "number" else (3, 5, 5, 1, 0)
        control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", *changed, 1, 20, 0, 0))
        data = data[:last] + control + data[last + len(control) :]
    with pytest.raises(InputError, match="truncated or damaged at frame|damaged PNG"):
        load_image(data)
    if damage in ("cut", "promise"):
        taken = load_image(data, allow_truncated=True).frames
        assert [frame.pixels_hwc[0, 0, 0] for frame in taken][:2] == [10, 90]


def test_delays_of_apng_are_rounded(tmp_path: Path) -> None:
    frames = [Drawn(pixels=np.full((2, 2, 3), level, np.uint8)) for level in (10, 90, 200, 7)]
    data = apng(2, 2, frames, colour=2, delays=[(1, 60), (1, 0), (7, 1), (65535, 1)])
    assert [frame.duration_ms for frame in load_image(data).frames] == [17, 10, 7000, 65_535_000]


# --- WebP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1)])
def test_narrow_animations_keep_their_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "a.webp"
    frames = [np.random.default_rng(seed).integers(0, 256, (*size, 4)).astype(np.uint8) for seed in (1, 2)]
    images = [Image.fromarray(each) for each in frames]
    images[0].save(path, save_all=True, append_images=images[1:], lossless=True, exact=True, duration=70)
    for ours, theirs in zip(load_image(path).frames, frames, strict=True):
        assert np.array_equal(ours.pixels_hwc, theirs)


# --- timing -----------------------------------------------------------------------------------------


def timed(suffix: str, delays_ms: list[int], loop: int | None) -> Picture:
    """An animation of three small frames."""
    colours = (20, 120, 220)
    frames = tuple(
        Frame(pixels_hwc=np.full((16, 16, 3), level, np.uint8), duration_ms=delay)
        for level, delay in zip(colours, delays_ms, strict=True)
    )
    return Picture(frames=frames, format=suffix, loop=loop)


@pytest.mark.parametrize(
    ("suffix", "delay", "written"),
    [
        ("gif", 655_350, 655_350),
        ("gif", 655_360, 655_350),
        ("gif", 16_777_215, 655_350),
        ("webp", 16_777_215, 16_777_215),
        ("webp", 65_535_000, 16_777_215),
        ("png", 65_535, 65_535),
        ("png", 65_536, 65_540),
        ("png", 16_777_215, 16_777_000),
        ("png", 655_350, 655_350),
        ("png", 70_000_000, 65_535_000),
        ("avif", 65_535_000, 65_535_000),
    ],
)
def test_long_delays_are_kept_or_cut_with_a_warning(tmp_path: Path, suffix: str, delay: int, written: int) -> None:
    path = tmp_path / f"a.{suffix}"
    adapted, notes = adapt(timed(suffix, [100, delay, 70], 0), FORMATS[suffix], SaveOptions(), name="photo")
    save_image(adapted, path, FORMATS[suffix])
    found = [100, written, 70]
    assert [frame.duration_ms for frame in load_image(path).frames] == found
    cut = delay > {"gif": 655_350, "webp": 16_777_215, "png": 65_535_000}.get(suffix, delay)
    assert ["shows a frame for at most" in note for note in notes] == [True] * cut
    with Image.open(path) as image:
        image.seek(1)
        image.load()
        assert round(image.info["duration"]) == written


def test_frames_that_last_too_long_together_are_refused() -> None:
    frames = tuple(Frame(pixels_hwc=np.zeros((2, 2, 3), np.uint8), duration_ms=2**24 - 1) for _ in range(129))
    picture = Picture(frames=frames, loop=0)
    with pytest.raises(OutputError, match="last 2164261 s together, and WEBP ends at 2147484 s; use --format png"):
        adapt(picture, FORMATS["webp"], SaveOptions(), name="photo")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
@pytest.mark.parametrize("plays", [None, 0, 1, 2, 65535, 65536, 65537, 2**31])
def test_plays_are_kept_or_cut_with_a_warning(tmp_path: Path, suffix: str, plays: int | None) -> None:
    path = tmp_path / f"a.{suffix}"
    most = {"gif": 65536, "webp": 65535}.get(suffix, 2**31 - 1)
    adapted, notes = adapt(timed(suffix, [100, 250, 70], plays), FORMATS[suffix], SaveOptions(), name="photo")
    save_image(adapted, path, FORMATS[suffix])
    found = load_image(path).loop
    assert (1 if found is None else found) == (1 if plays is None else min(plays, most))
    assert bool(notes) == (plays is not None and plays > most)


def test_avif_that_says_nothing_of_plays_plays_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    save_image(timed("avif", [100, 250, 70], 3), path, FORMATS["avif"])
    assert load_image(path).loop == 3
    path.write_bytes(path.read_bytes().replace(b"edts", b"free"))
    assert load_image(path).loop == 0


# --- frame by frame ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_large_animations_are_decoded_frame_by_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    rng = np.random.default_rng(6)
    frames = tuple(Frame(pixels_hwc=soft(rng, 9, 14, 4, np.uint8), duration_ms=50 + 10 * at) for at in range(5))
    save_image(Picture(frames=frames, loop=0), path, FORMATS[suffix], SaveOptions(quality=100))
    whole = load_image(path)
    monkeypatch.setattr("sr_upscale.images.decode.LAZY_PIXELS", 9 * 14 * 5 - 1)
    lazy = load_image(path)
    assert isinstance(lazy.frames, FrameSource)
    assert (lazy.durations_ms, len(lazy.frames), lazy.loop) == (whole.durations_ms, 5, 0)
    for taken in (lazy.frames, lazy.frames, lazy.frames[:], [lazy.frames[at] for at in range(-5, 0)]):
        for ours, theirs in zip(taken, whole.frames, strict=True):
            assert np.array_equal(ours.pixels_hwc, theirs.pixels_hwc)
            assert ours.duration_ms == theirs.duration_ms
    flipped = lazy.with_pixels(lambda pixels_hwc: pixels_hwc[::-1]).with_durations([7] * 5)
    assert np.array_equal(flipped.frames[4].pixels_hwc, np.asarray(whole.frames[4].pixels_hwc)[::-1])
    assert [frame.duration_ms for frame in flipped.frames] == [7] * 5


def test_memory_of_a_long_animation_is_that_of_some_frames() -> None:
    """60 frames of 1000x1000 pixels, 240 MB when they all stand in memory, are 20 canvases at most."""
    small = np.random.default_rng(8).integers(0, 4, (3, 3))
    data = gif(1000, 1000, [Drawn(pixels=small, left=at) for at in range(60)], COLOURS)
    tracemalloc.start()
    try:
        seen = sum(frame.pixels_hwc.shape[0] for frame in load_image(data).frames)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == 60_000
    assert peak < 80e6
