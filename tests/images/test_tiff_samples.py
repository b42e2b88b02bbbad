"""What samples of a TIFF mean: YCbCr, white that is 0, channels that are no alpha, numbers that are no pixels."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from sr_upscale.errors import InputError
from sr_upscale.images import load_image
from sr_upscale.images.codecs.tiff_reader import Tiff
from tests.helpers import imagemagick, pattern
from tests.images.tiff_files import LONG, RATIONAL, SHORT, packed, tiff_file, units_of

PIXELS = pattern(48, 64)


def pixels_of(data: bytes, **options: Any) -> NDArray[Any]:
    return np.asarray(load_image(data, **options).frames[0].pixels_hwc)


def tiff(pixels: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


# --- YCbCr ------------------------------------------------------------------------------------------


def ycbcr(
    planes: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    across: int = 1,
    down: int = 1,
    *,
    compression: int = 1,
    rows: int | None = None,
    tile: int | None = None,
    tags: dict[int, tuple[int, Any]] | None = None,
    order: str = "<",
) -> bytes:
    """A YCbCr TIFF of Y (H, W), and Cb and Cr (H / down, W / across), in strips of so many rows, or in tiles."""
    luma, cb, cr = (each.astype(each.dtype.newbyteorder(order)) for each in planes)
    height, width = luma.shape
    layout: dict[int, tuple[int, Any]] = {278: (LONG, [rows or height])}
    blocks = []
    if tile is None:
        for top in range(0, height, rows or height):
            part = slice(top // down, -(-min(top + (rows or height), height) // down))
            blocks.append(units_of(luma[top : top + (rows or height)], cb[part], cr[part], across, down))
    else:
        layout = {322: (LONG, [tile]), 323: (LONG, [tile])}
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                inner = [
                    np.pad(each, ((0, tile), (0, tile)), mode="edge")[
                        top // y : top // y + tile // y, left // x : left // x + tile // x
                    ]
                    for each, x, y in ((luma, 1, 1), (cb, across, down), (cr, across, down))
                ]
                blocks.append(units_of(inner[0], inner[1], inner[2], across, down))
    known: dict[int, tuple[int, Any]] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8 * luma.dtype.itemsize] * 3),
        259: (SHORT, [compression]),
        262: (SHORT, [6]),
        277: (SHORT, [3]),
        530: (SHORT, [across, down]),
    }
    return tiff_file(known | layout | (tags or {}), [packed(each, compression) for each in blocks], order=order)


def smooth(height: int, width: int, across: int, down: int, shift: float, top: int = 255) -> Any:
    """Planes whose colours are linear in x and y: Y, Cb and Cr as stored, and Cb and Cr at each pixel.

    `shift` says where in its pixels a colour lies: (step - 1) / 2 in the middle, 0 at the first.
    """

    def plane(x: Any, y: Any, slope: float) -> Any:
        return (0.3 + slope * x / 400 + 0.2 * y / 100) * top

    y, x = np.mgrid[0:height, 0:width].astype(float)
    below, right = np.mgrid[0 : -(-height // down), 0 : -(-width // across)].astype(float)
    middle_x = right * across + (shift if across > 1 else 0) * (across - 1)
    middle_y = below * down + (shift if down > 1 else 0) * (down - 1)
    dtype = np.uint8 if top == 255 else np.uint16
    luma = np.rint(pattern(height, width, 1)[:, :, 0] / 255 * top).astype(dtype)
    stored = [np.rint(plane(middle_x, middle_y, slope)).astype(dtype) for slope in (1, -1)]
    return (luma, *stored), [plane(x, y, slope) for slope in (1, -1)]


def rgb_of(luma: Any, colours: Any, coefficients: Any, top: int = 255) -> NDArray[np.float64]:
    """TIFF 6.0, section 21, for the full range."""
    (cb, cr), (red, green, blue) = colours, coefficients
    middle = (top + 1) / 2
    r = luma + (cr - middle) * (2 - 2 * red)
    b = luma + (cb - middle) * (2 - 2 * blue)
    return np.stack([r, (luma - blue * b - red * r) / green, b], axis=2).clip(0, top)


BT601, BT709 = (0.299, 0.587, 0.114), (0.2126, 0.7152, 0.0722)
SUBSAMPLINGS = [(1, 1), (2, 1), (2, 2), (1, 2), (4, 1), (4, 2), (4, 4)]
FULL = {532: (RATIONAL, [0, 255, 128, 255, 128, 255])}


@pytest.mark.parametrize("compression", [1, 5, 8], ids=["none", "LZW", "deflate"])
@pytest.mark.parametrize(("across", "down"), SUBSAMPLINGS)
@pytest.mark.parametrize("cosited", [False, True], ids=["centred", "cosited"])
@pytest.mark.parametrize("coefficients", [BT601, BT709], ids=["BT.601", "BT.709"])
def test_row_71_ycbcr_by_the_formula(
    compression: int, across: int, down: int, cosited: bool, coefficients: tuple[float, ...]
) -> None:
    """Truth: the formula of the specification at colours that are linear, so that interpolation is exact inside."""
    planes, between = smooth(45, 61, across, down, 0 if cosited else 0.5)
    tags = {529: (RATIONAL, coefficients), 531: (SHORT, [2 if cosited else 1])} | FULL
    found = pixels_of(ycbcr(planes, across, down, compression=compression, rows=8, tags=tags))
    expected = rgb_of(planes[0].astype(float), between, coefficients)
    inner = np.s_[4:-4, 4:-4]
    assert found.shape == (45, 61, 3)
    assert np.abs(found[inner] - expected[inner]).max() < 2.5  # colours are stored rounded


@pytest.mark.parametrize(("across", "down"), SUBSAMPLINGS)
@pytest.mark.parametrize("layout", [{}, {"rows": 16}, {"tile": 64}], ids=["one strip", "strips", "tiles"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_ycbcr_against_libtiff(across: int, down: int, layout: dict[str, int], order: str) -> None:
    """Truth: libtiff in Pillow, by the file's coefficients and ranges. One Cb and Cr, as it does not interpolate."""
    luma = pattern(45, 61, 1)[:, :, 0]
    colours = np.zeros((-(-45 // down), -(-61 // across)), np.uint8)
    studio = {529: (RATIONAL, BT709), 532: (RATIONAL, [16, 235, 128, 240, 128, 240])}
    data = ycbcr((luma, colours + 90, colours + 170), across, down, compression=8, tags=studio, order=order, **layout)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pixels_of(data) - expected).max() <= 2


def test_ycbcr_against_imagemagick(tmp_path: Path) -> None:
    """Of colours that are not subsampled: others it takes apart wrongly, where libtiff does not convert them."""
    planes, _between = smooth(48, 64, 1, 1, 0)
    (tmp_path / "a.tif").write_bytes(ycbcr(planes, tags=FULL))
    expected = imagemagick(tmp_path / "a.tif", "-depth", "8", "rgb:-")
    theirs = np.frombuffer(expected, np.uint8).reshape(48, 64, 3).astype(int)
    assert np.abs(pixels_of((tmp_path / "a.tif").read_bytes()) - theirs).max() <= 1


@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 2)])
def test_ycbcr_of_sixteen_bits(across: int, down: int) -> None:
    planes, between = smooth(45, 61, across, down, 0.5, 65535)
    found = pixels_of(ycbcr(planes, across, down, compression=8, rows=8))
    assert found.dtype == np.uint16
    inner = np.s_[4:-4, 4:-4]
    assert np.abs(found[inner] - rgb_of(planes[0].astype(float), between, BT601, 65535)[inner]).max() < 4


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_ycbcr_as_pillow_writes_it(compression: str) -> None:
    buffer = io.BytesIO()
    options = {} if compression == "raw" else {"compression": compression}
    image = Image.fromarray(PIXELS).convert("YCbCr")
    image.save(buffer, "TIFF", **options)
    assert np.abs(pixels_of(buffer.getvalue()).astype(int) - np.asarray(image.convert("RGB"))).max() <= 1


def test_numbers_that_divide_by_zero_count_as_none() -> None:
    planes, _between = smooth(16, 16, 1, 1, 0)
    expected = pixels_of(ycbcr(planes))
    odd = {529: (RATIONAL, (0.5, 0, 0.5)), 532: (RATIONAL, [0, 0, 128, 128, 128, 255])}
    assert np.array_equal(pixels_of(ycbcr(planes, tags=odd)), expected)


@pytest.mark.parametrize(
    ("subsampling", "options", "words"),
    [
        ((3, 1), {}, "3x1 pixels to a colour, 8 bits"),
        ((2, 2), {"rows": 9}, "strips of 9 rows that cut its colours of 2"),
        ((2, 2), {"tags": {317: (SHORT, [2])}}, "with a predictor"),
        ((2, 2), {"tile": 16}, "in tiles of 16 rows"),
        ((2, 2), {"tags": {284: (SHORT, [2])}}, "in planes"),
    ],
)
def test_ycbcr_that_is_refused_by_name(subsampling: tuple[int, int], options: dict[str, Any], words: str) -> None:
    across, down = subsampling
    planes, _between = smooth(36, 36, across, down, 0.5)
    with pytest.raises(InputError, match=f"YCbCr stored as .*{words}.*convert the file first, to RGB"):
        load_image(ycbcr(planes, across, down, **options))


def test_a_cut_ycbcr_file_says_which_rows_are_missing() -> None:
    """Those that are said to be whole are: rows of the picture, and not of its units."""
    planes, _between = smooth(256, 64, 2, 2, 0.5)
    whole = ycbcr(planes, 2, 2, rows=32)
    cut = bytearray(whole)
    strips = Tiff(whole).entries(Tiff(whole).first)[273].value_at
    struct.pack_into("<I", cut, strips + 4 * 6, len(whole))  # the seventh begins behind the file
    with pytest.raises(InputError, match=r"truncated at row \d+ of 256"):
        load_image(bytes(cut))
    found = load_image(bytes(cut), allow_truncated=True)
    said = re.search(r"(\d+) of 256 rows are missing or damaged, from row (\d+) on", found.warnings[-1])
    assert said is not None
    missing, first = int(said[1]), int(said[2])
    assert missing == 256 - first
    assert 128 <= first <= 192
    assert np.array_equal(np.asarray(found.frames[0].pixels_hwc)[: first - 1], pixels_of(whole)[: first - 1])


# --- white, alpha, and what is neither --------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
@pytest.mark.parametrize("channels", [1, 2])
def test_row_71_white_that_is_zero(dtype: Any, channels: int) -> None:
    values = pattern(20, 30, channels) / 255 if np.dtype(dtype).kind == "f" else pattern(20, 30, channels)
    values = values.astype(dtype)
    extra = {"extrasamples": ["unassalpha"]} if channels == 2 else {}
    options = {"photometric": "miniswhite", "planarconfig": "contig"} | extra
    found = pixels_of(tiff(values if channels == 2 else values[:, :, 0], **options))
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    expected = values.astype(np.float64)
    expected[:, :, 0] = top - expected[:, :, 0]
    scale = 65535 if top == 1 else 1
    assert np.abs(found - expected * scale).max() <= (top == 1)


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize(
    ("kind", "extra", "kept"),
    [
        ("rgb", ["unspecified"], [0, 1, 2]),
        ("rgb", ["unspecified", "unassalpha"], [0, 1, 2, 4]),
        ("rgb", ["unassalpha", "unspecified"], [0, 1, 2, 3]),
        ("rgb", ["unspecified", "unspecified"], [0, 1, 2]),
        ("rgb", ["unassalpha"], [0, 1, 2, 3]),
        ("minisblack", ["unspecified"], [0]),
        ("minisblack", ["unspecified", "unspecified"], [0]),
        ("minisblack", ["unspecified", "unassalpha"], [0, 2]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_row_71_channels_that_are_no_alpha_are_left_out(
    kind: str, extra: list[str], kept: list[int], dtype: Any, by_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An infrared channel of a scanner made the picture transparent."""
    if by_rows:
        monkeypatch.setattr("sr_upscale.images.decode.LAZY_PIXELS", 99)
    values = pattern(20, 30, (3 if kind == "rgb" else 1) + len(extra), dtype)
    picture = load_image(tiff(values, photometric=kind, extrasamples=extra, planarconfig="contig"))
    assert np.array_equal(np.asarray(picture.frames[0].pixels_hwc), values[:, :, kept])
    assert [("neither colour nor transparency" in each) for each in picture.warnings] == [True] * (
        len(kept) < values.shape[2]
    )


@pytest.mark.parametrize("extra", [["assocalpha"], ["assocalpha", "unspecified"], ["unspecified", "assocalpha"]])
def test_colours_that_were_multiplied_by_alpha(extra: list[str]) -> None:
    alpha = 3 + extra.index("assocalpha")
    values = pattern(20, 30, 3 + len(extra))
    values[:, :, :3] = np.minimum(values[:, :, :3], values[:, :, alpha : alpha + 1])
    found = pixels_of(tiff(values, photometric="rgb", extrasamples=extra))
    shares = values[:, :, alpha : alpha + 1].astype(float)
    expected = values[:, :, :3] * 255.0 / np.maximum(shares, 1)
    assert np.array_equal(found[:, :, 3], values[:, :, alpha])
    assert np.abs(found[:, :, :3] - expected).max() <= 1


# --- numbers that are no pixels, pictures below thumbnails ------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("f8", "floats of 64 bits"),
        ("i1", "signed whole numbers of 8 bits"),
        ("i2", "signed whole numbers of 16 bits"),
        ("i4", "signed whole numbers of 32 bits"),
        ("i8", "signed whole numbers of 64 bits"),
        ("u4", "whole numbers of 32 bits"),
        ("u8", "whole numbers of 64 bits"),
        ("c8", "complex floats of 64 bits"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_row_72_whole_files_of_other_numbers_say_what_they_are(dtype: str, words: str, channels: int) -> None:
    values = (PIXELS if channels == 3 else PIXELS[:, :, 0]).astype(dtype)
    with pytest.raises(InputError, match=f"samples are {words}; expected whole numbers of 8 or 16 bits") as refusal:
        load_image(tiff(values, photometric="rgb" if channels == 3 else "minisblack"))
    assert "damaged" not in str(refusal.value)
