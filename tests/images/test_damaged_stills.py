"""Stills that are damaged, that only seem so, and that nobody here can read."""

from __future__ import annotations

import io
import re
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from skimage.color import lab2rgb

from sr_upscale.errors import InputError
from sr_upscale.images import load_image
from sr_upscale.images.codecs.tiff_reader import Tiff
from tests.helpers import p3_profile, pattern

PIXELS = pattern(256, 320)
NOISE = np.random.default_rng(0).integers(0, 256, (256, 320, 3), np.uint8)


def tiff(pixels: Any = PIXELS, **options: Any) -> bytes:
    """A TIFF by tifffile, with its directory before the pixels."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **{"photometric": "rgb"} | options)
    return buffer.getvalue()


def jpeg(pixels: Any = PIXELS, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 90} | options)
    return buffer.getvalue()


def pixels_of(data: bytes, **options: Any) -> NDArray[Any]:
    return np.asarray(load_image(data, **options).frames[0].pixels_hwc)


def changed(data: bytes, tag: int, *, value: bytes | None = None, kind: int | None = None) -> bytes:
    """A little-endian TIFF with another value field, or type, of one tag of its first directory."""
    entry = Tiff(data).entries(Tiff(data).first)[tag]
    file = bytearray(data)
    if kind is not None:
        struct.pack_into("<H", file, entry.at + 2, kind)
    if value is not None:
        file[entry.at + 8 : entry.at + 8 + len(value)] = value
    return bytes(file)


@pytest.fixture(params=["whole", "by rows"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "by rows":
        monkeypatch.setattr("sr_upscale.images.decode.LAZY_PIXELS", 99)


# --- damage -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 16}], ids=["tiles", "strips"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_cut_tiff_is_refused_and_says_how_much_is_missing(
    compression: str | None, layout: dict[str, Any], share: float
) -> None:
    """The rows that are said to be whole are; tiles and strips behind them are not."""
    data = tiff(compression=compression, **layout)
    data = data[: int(len(data) * share)]
    with pytest.raises(InputError, match=r"truncated at row \d+ of 256, or damaged there"):
        load_image(data)
    picture = load_image(data, allow_truncated=True)
    said = re.search(r"(\d+) of 256 rows are missing or damaged, from row (\d+) on", picture.warnings[-1])
    assert said is not None
    missing, first = int(said[1]), int(said[2])
    assert missing == 256 - first
    pixels = np.asarray(picture.frames[0].pixels_hwc)
    assert np.array_equal(pixels[:first], PIXELS[:first])
    step = 64 if "tile" in layout else 16
    assert not np.array_equal(pixels[first : first + step], PIXELS[first : first + step])


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 16}], ids=["tiles", "strips"])
def test_corrupt_deflate_is_refused(layout: dict[str, Any]) -> None:
    data = bytearray(tiff(NOISE, compression="zlib", **layout))
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(byte ^ 0x5A for byte in data[middle : middle + 400])
    with pytest.raises(InputError, match=r"truncated at row \d+ of 256, or damaged there"):
        load_image(bytes(data))
    assert "of 256 rows are missing or damaged" in load_image(bytes(data), allow_truncated=True).warnings[-1]


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("progressive", [False, True])
def test_half_a_jpeg_closed_by_an_end_marker(progressive: bool) -> None:
    data = jpeg(progressive=progressive)
    half = data[: len(data) // 2] + b"\xff\xd9"
    with pytest.raises(InputError, match=r"truncated at row \d+ of 256, or damaged there"):
        load_image(half)
    picture = load_image(half, allow_truncated=True)
    said = re.search(r"(\d+) of 256 rows are missing or damaged, from row (\d+) on", picture.warnings[-1])
    assert said is not None
    first = int(said[2])
    assert (first == 0) == progressive  # a progressive one has half of every row
    sure = max(first - 16, 0)
    assert np.array_equal(np.asarray(picture.frames[0].pixels_hwc)[:sure], pixels_of(data)[:sure])


def test_a_jpeg_that_claims_more_rows_than_it_has() -> None:
    data = bytearray(jpeg())
    struct.pack_into(">H", data, data.index(b"\xff\xc0") + 5, 512)
    with pytest.raises(InputError, match=r"truncated at row 2\d\d of 512"):
        load_image(bytes(data))


@pytest.mark.usefixtures("_either_way")
def test_a_truncated_png_says_how_much_is_missing() -> None:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "PNG")
    picture = load_image(buffer.getvalue()[:100_000], allow_truncated=True)
    said = re.search(r"(\d+) of 256 rows are missing or damaged, from row (\d+) on", picture.warnings[-1])
    assert said is not None
    first = int(said[2])
    assert 60 < first < 256
    assert np.array_equal(np.asarray(picture.frames[0].pixels_hwc)[:first], NOISE[:first])


@pytest.mark.parametrize("name", ["tif", "jpg", "png"])
def test_nothing_is_said_of_a_whole_file(name: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, {"tif": "TIFF", "jpg": "JPEG", "png": "PNG"}[name])
    assert load_image(buffer.getvalue(), allow_truncated=True).warnings == ()


# --- whole, in spite of what libraries say ----------------------------------------------------------


def test_what_cameras_put_behind_and_between_is_no_damage() -> None:
    data = jpeg()
    expected = pixels_of(data)
    assert np.array_equal(pixels_of(data + b"\0" * 999 + b"film"), expected)
    album = io.BytesIO()
    image = Image.fromarray(PIXELS)
    image.save(album, "MPO", save_all=True, append_images=[Image.fromarray(PIXELS[:99])], quality=90)
    assert np.array_equal(pixels_of(album.getvalue()), expected)
    padded = load_image(data[:-2] + b"\x12\x34\x56" + data[-2:])  # libjpeg warns of bytes before the end marker
    assert np.array_equal(padded.frames[0].pixels_hwc, expected)
    odd = bytearray(data)
    odd[data.index(b"JFIF\0") + 5] = 2  # a revision that libjpeg does not know
    picture = load_image(bytes(odd))
    assert np.array_equal(picture.frames[0].pixels_hwc, expected)


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}], ids=["little", "big", "BigTIFF"])
def test_tags_that_are_not_about_pixels_are_no_reason_to_refuse(options: dict[str, Any]) -> None:
    for tags in (
        [(274, 3, 1, 0, True)],
        [(274, 3, 1, 9, True)],
        [(65000, 4, 1, 7, True), (33550, 12, 3, (1.0, 1.0, 0.0), True), (65100, 2, 5, "abcd", True)],
        [(296, 3, 1, 9, True)],
    ):
        assert np.array_equal(pixels_of(tiff(extratags=tags, rowsperstrip=16, **options)), PIXELS)


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_odd_directories_of_whole_files(tile: Any) -> None:
    data = tiff(software="me", description="a picture", resolution=(72, 72), tile=tile, metadata=None)
    start = Tiff(data).first + 2
    count = struct.unpack_from("<H", data, start - 2)[0]
    entries = [data[start + 12 * number : start + 12 * number + 12] for number in range(count)]
    end = start + 12 * count
    twice = [entry if entry[:2] != struct.pack("<H", 305) else entries[0] for entry in entries]
    for odd in (
        data[:start] + b"".join(entries[::-1]) + data[end:],
        data[:start] + b"".join(twice) + data[end:],
        data[:end] + struct.pack("<I", Tiff(data).first) + data[end + 4 :],
        data[:end] + b"\xf0\xff\xff\x7f" + data[end + 4 :],
        changed(data, 305, value=b"\xff\xff\xff\x7f"),
        changed(data, 270, kind=99),
    ):
        assert np.array_equal(pixels_of(odd), PIXELS)


@pytest.mark.parametrize("fraction", [(0, 0), (1, 0), (4294967295, 1)])
def test_resolutions_that_cannot_be(fraction: tuple[int, int], tmp_path: Path) -> None:
    data = tiff(resolution=(72, 72), resolutionunit=2)
    for tag in (282, 283):
        at = Tiff(data).entries(Tiff(data).first)[tag].value_at
        data = data[:at] + struct.pack("<II", *fraction) + data[at + 8 :]
    picture = load_image(data)
    assert np.array_equal(picture.frames[0].pixels_hwc, PIXELS)
    assert picture.metadata.dpi is None
    assert len(picture.warnings) == (fraction == (4294967295, 1))


@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_lab_of_eight_bits(tile: Any) -> None:
    """L is 0 to 255 in the file, a and b have signs. The truth is scikit-image's, for a white of D65 as in libvips."""
    lab = np.stack(np.broadcast_arrays(*np.mgrid[60:200:32j, -20:20:40j], 10), -1)
    stored = np.rint(lab).astype(np.int16).astype(np.uint8)
    picture = load_image(tiff(stored, photometric="cielab", tile=tile))
    assert picture.bits == 16
    assert "LAB converted to 16-bit RGB" in picture.warnings[0]
    expected = lab2rgb(np.rint(lab) * (100 / 255, 1, 1))
    assert np.abs(picture.frames[0].pixels_hwc / 65535 - expected).max() < 1 / 255


def test_one_page_of_very_many() -> None:
    """60 000 directories; 45 s before. The page in the middle has another picture."""
    body = tiff(PIXELS[:8, :8], metadata=None, software=False)
    file = Tiff(body)
    directory = body[file.first : file.first + 2 + 12 * len(file.entries(file.first))]
    count, data = 60_000, bytearray(body)
    data[4:8] = struct.pack("<I", len(body))
    for number in range(count):
        following = len(data) + len(directory) + 4 if number + 1 < count else 0
        data += directory + struct.pack("<I", following)
    begin = time.process_time()
    picture = load_image(bytes(data), frame=count // 2)
    assert time.process_time() - begin < 20
    assert np.array_equal(picture.frames[0].pixels_hwc, PIXELS[:8, :8])
    assert "has 60000 pages" in load_image(bytes(data)).warnings[0]


def test_damage_of_another_page_is_none_of_this_one() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(PIXELS, photometric="rgb", iccprofile=p3_profile())
        file.write(255 - PIXELS, photometric="rgb", extratags=[(274, 3, 1, 9, True)])
    assert np.array_equal(pixels_of(buffer.getvalue(), frame=1), 255 - PIXELS)
    cut = buffer.getvalue()[:-1000]
    assert np.array_equal(pixels_of(cut, frame=0), PIXELS)
    with pytest.raises(InputError, match="truncated at row"):
        load_image(cut, frame=1)


# --- refused by name --------------------------------------------------------------------------------


@pytest.mark.parametrize("allow_truncated", [False, True])
@pytest.mark.parametrize(
    ("code", "name"), [(50000, "Zstandard"), (34925, "LZMA"), (34887, "LERC"), (50002, "JPEG XL"), (34712, "JPEG 2000")]
)
def test_compressions_that_cannot_be_decoded(code: int, name: str, allow_truncated: bool) -> None:
    data = changed(tiff(NOISE, rowsperstrip=16), 259, value=struct.pack("<H", code))
    with pytest.raises(InputError, match=f"compression {name} cannot be decoded; save it again"):
        load_image(data, allow_truncated=allow_truncated)


def test_a_palette_that_is_not_there() -> None:
    """Taken for gray, the numbers of colours would be another picture."""
    buffer = io.BytesIO()
    palette = Image.fromarray(PIXELS).quantize(16)
    palette.save(buffer, "TIFF")
    np.testing.assert_array_equal(pixels_of(buffer.getvalue()), np.asarray(palette.convert("RGB")))
    file = bytearray(buffer.getvalue())
    struct.pack_into("<H", file, Tiff(bytes(file)).entries(Tiff(bytes(file)).first)[320].at, 50_000)
    with pytest.raises(InputError, match="without the palette"):
        load_image(bytes(file))


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("allow_truncated", [False, True])
def test_samples_of_other_widths(bits: int, allow_truncated: bool) -> None:
    data = changed(tiff(PIXELS[:, :, 0].copy(), photometric="minisblack"), 258, value=struct.pack("<H", bits))
    with pytest.raises(InputError, match=f"samples of {bits} bits; expected 8 or 16; convert"):
        load_image(data, allow_truncated=allow_truncated)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_planes_in_tiles(dtype: Any) -> None:
    planes = np.moveaxis(pattern(70, 90, 3, dtype), 2, 0)
    with pytest.raises(InputError, match="tiles of one channel each"):
        load_image(tiff(planes, planarconfig="separate", tile=(64, 64)))
    strips = pixels_of(tiff(planes, planarconfig="separate", rowsperstrip=16))
    assert np.array_equal(strips, pattern(70, 90, 3, dtype))


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("side", [0, 2], ids=["width", "height"])
def test_a_gif_without_a_pixel_is_refused(side: int, frames: int) -> None:
    """Its screen and its first frame are no pixel wide, or high; either alone says how large the picture is."""
    buffer = io.BytesIO()
    more = [Image.fromarray(PIXELS[1:5, 1:6])] if frames == 2 else []
    Image.fromarray(PIXELS[:4, :5]).save(buffer, "GIF", save_all=True, append_images=more)
    gif = bytearray(buffer.getvalue())
    frame = gif.index(b",") + 5
    gif[6 + side : 8 + side] = b"\0\0"
    assert pixels_of(bytes(gif)).shape[:2] == (4, 5)
    gif[frame + side : frame + side + 2] = b"\0\0"
    with pytest.raises(InputError, match="no pixel wide or high; it is damaged"):
        load_image(bytes(gif))
