"""Pictures that are read and written by rows: same pixels, metadata and errors as whole ones, in little memory."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from sr_upscale.errors import InputError, OutputError, ShapeError, UsageError
from sr_upscale.images import (
    FORMATS,
    Frame,
    Metadata,
    Picture,
    RowSource,
    SaveOptions,
    load_image,
    save_image,
    save_rows,
    strips_of,
)
from sr_upscale.images.adapt import adapt
from sr_upscale.images.metadata import resized_exif
from tests.helpers import p3_profile, pattern

STREAMED = ("png", "jpg", "tif")
SIZES = [(1, 1), (1, 13), (13, 1), (1, 3001), (3001, 1), (127, 131), (300, 257)]


def picture_of(channels: int, dtype: Any = np.uint8, metadata: Metadata | None = None) -> Picture:
    """What `save_rows` takes metadata from; its single pixel is not the output's."""
    frame = Frame(pixels_hwc=np.zeros((1, 1, channels), dtype))
    return Picture(frames=(frame,), metadata=metadata or Metadata())


def written(pixels: Any, name: str, rows: int, metadata: Metadata | None = None, **options: Any) -> bytes:
    out = io.BytesIO()
    picture = picture_of(pixels.shape[2], pixels.dtype, metadata)
    size = pixels.shape[1], pixels.shape[0]
    save_rows(strips_of(pixels, rows), picture, size, out, FORMATS[name], SaveOptions(**options))
    return out.getvalue()


def read_by_others(data: bytes, name: str, dtype: Any, channels: int) -> Any:
    """By tifffile, Pillow (8 bits) or OpenCV (16)."""
    if name == "tif":
        found = tifffile.imread(io.BytesIO(data))
    elif dtype is np.uint8:
        found = np.asarray(Image.open(io.BytesIO(data)))
    else:
        found = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
        if channels > 2:
            found = found[:, :, [2, 1, 0, 3][:channels]]
    return found


# --- writing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_others_read_what_was_written_by_rows(name: str, dtype: Any, channels: int, size: tuple[int, int]) -> None:
    pixels = pattern(*size, channels, dtype)
    for rows in (1, 50, 1000) if size[0] < 1000 else (50,):
        data = written(pixels, name, rows)
        if name == "png" and dtype is np.uint16 and channels == 2:  # OpenCV makes four channels of two
            found = load_image(data).frames[0].pixels_hwc
        else:
            found = read_by_others(data, name, dtype, channels)
        assert found.dtype == dtype
        assert np.array_equal(np.asarray(found).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", SIZES)
def test_jpeg_is_as_good_as_that_of_pillow(channels: int, dtype: Any, size: tuple[int, int]) -> None:
    pixels = pattern(*size, channels, dtype)
    eight = pixels if dtype is np.uint8 else np.rint(pixels / 257).astype(np.uint8)
    reference = io.BytesIO()
    Image.fromarray(eight.squeeze(2) if channels == 1 else eight).save(
        reference, "JPEG", quality=95, subsampling=0, optimize=True
    )
    data = written(pixels, "jpg", 40)
    with Image.open(io.BytesIO(data)) as ours, Image.open(reference) as theirs:
        assert ours.mode == theirs.mode
        assert ours.layer == theirs.layer  # type: ignore[attr-defined]
        assert ours.quantization == theirs.quantization  # type: ignore[attr-defined]
        assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max() <= 1
    assert len(data) <= len(reference.getvalue()) * 1.01 + 64


def test_large_jpegs_keep_the_usual_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = pattern(200, 300)
    optimized = written(pixels, "jpg", 64)
    monkeypatch.setattr("sr_upscale.images.codecs.jpeg.OPTIMIZE_PIXELS", 200 * 300 - 1)
    usual = written(pixels, "jpg", 64)
    assert len(optimized) < len(usual)
    assert np.array_equal(Image.open(io.BytesIO(optimized)), Image.open(io.BytesIO(usual)))


def test_bands_may_be_of_any_height_and_layout() -> None:
    pixels = np.asfortranarray(pattern(90, 31, 3, np.uint16))
    cuts = [0, 1, 1, 5, 77, 77, 90, 90]
    bands = (pixels[start:end] for start, end in zip(cuts, cuts[1:], strict=False))
    out = io.BytesIO()
    save_rows(bands, picture_of(3, np.uint16), (31, 90), out, FORMATS["tif"])
    assert np.array_equal(tifffile.imread(io.BytesIO(out.getvalue())), pixels)


@pytest.mark.parametrize("name", ["webp", "bmp", "gif", "avif", "png", "tif", "jpg"])
def test_rows_give_the_file_of_the_whole_picture(tmp_path: Path, name: str) -> None:
    pixels = pattern(60, 41)
    save_image(Picture(frames=(Frame(pixels_hwc=pixels),)), tmp_path / "whole", FORMATS[name])
    save_rows(strips_of(pixels, 7), picture_of(3), (41, 60), tmp_path / "rows", FORMATS[name])
    assert (tmp_path / "rows").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows", "whole"]


@pytest.mark.parametrize("name", ["png", "tif"])
def test_compression_trades_size_for_time(name: str) -> None:
    pixels = np.asarray(Image.fromarray(pattern(75, 100)).resize((400, 300), Image.Resampling.BICUBIC))
    sizes = [len(written(pixels, name, 64, compression=level)) for level in (0, 1, None)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > pixels.nbytes
    assert np.array_equal(load_image(written(pixels, name, 64, compression=0)).frames[0].pixels_hwc, pixels)
    with pytest.raises(UsageError, match="compression is 10; expected 0 to 9"):
        SaveOptions(compression=10)


# --- metadata ---------------------------------------------------------------------------------------


def camera_exif() -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = 1
    exif[0x8769] = {
        0x829A: 1 / 250,  # exposure time, a rational
        0x9003: "2024:05:06 07:08:09",
        0x9286: b"UNICODE\0h\0i\0",  # user comment
        0x927C: bytes(range(256)) * 8,  # maker note
        0xA002: 12,
        0xA003: 9,
        0xA434: "A lens of 50 mm",
    }
    exif[0x8825] = {1: "N", 2: (48.0, 46.0, 12.5)}
    return exif.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("name", [*STREAMED, "webp", "avif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_cameras_exif_a_long_profile_and_the_resolution_survive(name: str, dtype: Any) -> None:
    profile = p3_profile() + np.random.default_rng(0).bytes(150_000)  # three segments of a JPEG
    metadata = Metadata(icc=profile, exif=camera_exif(), dpi=(300.0, 150.0))
    data = written(pattern(18, 24, 3, dtype), name, 5, metadata)
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["icc_profile"] == profile
        if name in STREAMED:
            assert image.info["dpi"] == pytest.approx((300, 150), abs=0.02)
        exif = image.getexif()
        details = exif.get_ifd(0x8769)
        assert exif[0x010F] == "Maker"
        assert (details[0xA002], details[0xA003]) == (24, 18)
        assert float(details[0x829A]) == pytest.approx(1 / 250)
        assert details[0x9286] == b"UNICODE\0h\0i\0"
        assert details[0x927C] == bytes(range(256)) * 8
        assert details[0xA434] == "A lens of 50 mm"
        assert exif.get_ifd(0x8825) == {1: "N", 2: (48.0, 46.0, 12.5)}
        image.load()
    block = resized_exif(camera_exif(), 24, 18)
    assert block is not None
    assert name in ("tif", "avif") or block in data  # byte for byte
    assert load_image(data).metadata.icc == profile


@pytest.mark.parametrize("name", ["png", "jpg"])
def test_nothing_is_claimed_that_was_not_given(name: str) -> None:
    with Image.open(io.BytesIO(written(pattern(5, 6), name, 5))) as image:
        assert not {"dpi", "icc_profile", "exif"} & set(image.info)
        assert name == "png" or (image.info["jfif_unit"], image.info["jfif_density"]) == (0, (1, 1))


def test_exif_longer_than_a_segment_is_left_out_of_a_jpeg() -> None:
    exif = Image.Exif()
    exif[0x8769] = {0x927C: bytes(65_600)}
    metadata = Metadata(exif=exif.tobytes().removeprefix(b"Exif\0\0"))
    assert "exif" not in Image.open(io.BytesIO(written(pattern(5, 6), "jpg", 5, metadata))).info
    assert len(Image.open(io.BytesIO(written(pattern(5, 6), "png", 5, metadata))).getexif().get_ifd(0x8769)[0x927C])


# --- what goes wrong --------------------------------------------------------------------------------


def rows_until(stop: int, failure: BaseException | None, height: int = 2000, width: int = 300) -> Iterator[Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (50, width, 3), np.uint8)
    for top in range(0, height, 50):
        if top >= stop:
            if failure is not None:
                raise failure
            return
        yield pixels


@pytest.mark.parametrize("name", [*STREAMED, "webp", "gif"])
@pytest.mark.parametrize(
    "failure", [RuntimeError("network"), KeyboardInterrupt(), MemoryError(), OSError(28, "of the input"), SystemExit(3)]
)
def test_an_error_of_the_rows_comes_out_as_itself(tmp_path: Path, name: str, failure: BaseException) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    for stop in (0, 50, 1950):
        with pytest.raises(type(failure)) as caught:
            save_rows(rows_until(stop, failure), picture_of(3), (300, 2000), target, FORMATS[name])
        assert caught.value is failure
        assert target.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [target]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encoder")]


@pytest.mark.parametrize("name", [*STREAMED, "webp"])
def test_rows_must_be_those_of_the_picture(tmp_path: Path, name: str) -> None:
    def save(rows: Iterator[Any], channels: int = 3, dtype: Any = np.uint8) -> None:
        save_rows(rows, picture_of(channels, dtype), (300, 2000), tmp_path / "out", FORMATS[name])

    with pytest.raises(ShapeError, match="1950 rows came; expected 2000"):
        save(rows_until(1950, None))
    with pytest.raises(ShapeError, match="0 rows came"):
        save(iter(()))
    with pytest.raises(ShapeError, match="rows up to 2050 are"):
        save(rows_until(2050, None, height=2050))
    with pytest.raises(ShapeError, match=r"rows up to 50 are \(50, 301, 3\) uint8; expected .*\(2000, 300, 3\)"):
        save(rows_until(2000, None, width=301))
    with pytest.raises(ShapeError, match=r"expected .*\(2000, 300, 1\) uint8"):
        save(rows_until(2000, None), channels=1)
    with pytest.raises(ShapeError, match="uint16"):
        save(rows_until(2000, None), dtype=np.uint16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("room", [0, 100_000])
def test_a_full_disk_stops_the_rows_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, room: int
) -> None:
    class Disk(io.FileIO):
        def write(self, block: Any) -> int:
            if self.tell() + len(block) > room:
                raise OSError(28, "No space left on device")
            return super().write(block)

    target = tmp_path / "out.png"
    target.write_bytes(b"old")
    made = []
    rows = (made.append(0) or band for band in rows_until(10**6, None, height=10**6))  # type: ignore[func-returns-value]
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: Disk(path, "w+") if "w+b" in a else original(path, *a, **k))
    with pytest.raises(OutputError, match="the disk is full; free some space"):
        save_rows(rows, picture_of(3), (300, 65_000), target, FORMATS[name])
    monkeypatch.undo()
    assert len(made) < 500
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


# --- reading ----------------------------------------------------------------------------------------


@pytest.fixture
def few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sr_upscale.images.decode.LAZY_PIXELS", 99)


@pytest.mark.usefixtures("few_pixels")
@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_large_files_come_by_rows(monkeypatch: pytest.MonkeyPatch, name: str, dtype: Any, channels: int) -> None:
    pixels = pattern(151, 40, channels, dtype)
    data = written(pixels, name, 64)
    lazy = load_image(data)
    source = lazy.frames[0].pixels_hwc
    assert isinstance(source, RowSource)
    assert source.gray == (channels == 1)
    monkeypatch.setattr("sr_upscale.images.decode.LAZY_PIXELS", 10**6)
    whole = load_image(data).frames[0].pixels_hwc
    assert isinstance(whole, np.ndarray)
    assert name == "jpg" or np.array_equal(whole, pixels)
    assert (source.shape, source.dtype) == (whole.shape, whole.dtype)
    assert (lazy.width, lazy.height, lazy.channels) == (40, 151, channels)
    assert lazy.bits == (8 if name == "jpg" else np.dtype(dtype).itemsize * 8)
    assert np.array_equal(np.asarray(source), whole)
    assert np.asarray(source, dtype=np.float32).dtype == np.float32
    for rows in (1, 7, 64, 100, 151, 1000):
        strips = list(strips_of(source, rows))
        assert [len(strip) for strip in strips] == [len(strip) for strip in strips_of(whole, rows)]
        assert all(strip.flags.c_contiguous for strip in strips)
        assert np.array_equal(np.concatenate(strips), whole)


@pytest.mark.usefixtures("few_pixels")
def test_strips_can_be_left_early_and_taken_twice_at_once() -> None:
    pixels = pattern(151, 40)
    source = load_image(written(pixels, "png", 64)).frames[0].pixels_hwc
    for first, second in zip(strips_of(source, 10), strips_of(source, 10), strict=True):
        assert np.array_equal(first, second)
    assert np.array_equal(next(strips_of(source, 10)), pixels[:10])
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(source, copy=False)


@pytest.mark.usefixtures("few_pixels")
def test_gray_that_is_stored_as_colour_is_known() -> None:
    pixels = np.repeat(pattern(151, 40, 1), 3, axis=2)
    source = load_image(written(pixels, "png", 64)).frames[0].pixels_hwc
    assert isinstance(source, RowSource)
    assert source.gray
    pixels[150, 39, 1] ^= 1
    source = load_image(written(pixels, "png", 64)).frames[0].pixels_hwc
    assert isinstance(source, RowSource)
    assert not source.gray


@pytest.mark.usefixtures("few_pixels")
def test_what_must_be_changed_is_decoded_whole(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pattern(20, 16)).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(pattern(20, 16, 4), "CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(pattern(20, 16, 4)).save(tmp_path / "alpha.png")
    tifffile.imwrite(tmp_path / "float.tif", pattern(20, 16).astype(np.float32) / 255, photometric="rgb")
    Image.fromarray(pattern(20, 16)).save(tmp_path / "other.webp")
    for path in tmp_path.iterdir():
        assert isinstance(load_image(path).frames[0].pixels_hwc, np.ndarray), path.name


@pytest.mark.usefixtures("few_pixels")
def test_memory_that_ends_later_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyvips

    source = load_image(written(pattern(151, 40), "png", 64)).frames[0].pixels_hwc

    def fail(*_arguments: object) -> None:
        raise pyvips.Error("out of memory", "vips_tracked: out of memory")

    monkeypatch.setattr(pyvips.Region, "fetch", fail)
    with pytest.raises(InputError, match="standard input: cannot be decoded again"):
        next(strips_of(source, 10))


@pytest.mark.usefixtures("few_pixels")
@pytest.mark.parametrize("name", ["png", "webp", "tif", "gif"])
def test_rows_of_a_file_can_be_written_again(name: str) -> None:
    pixels = pattern(151, 40)
    lazy = load_image(written(pixels, "png", 64, Metadata(icc=p3_profile(), dpi=(300.0, 300.0))))
    assert isinstance(lazy.frames[0].pixels_hwc, RowSource)
    adapted, _notes = adapt(lazy, FORMATS[name], SaveOptions(), name="photo")
    out = io.BytesIO()
    save_image(adapted, out, FORMATS[name], SaveOptions(quality=100))
    if name != "gif":
        back = load_image(out.getvalue())
        assert np.array_equal(np.asarray(back.frames[0].pixels_hwc), pixels)
        assert back.metadata.icc == p3_profile()


@pytest.mark.parametrize("behind", [False, True])
def test_exif_is_found_before_and_behind_the_pixels_of_a_png(monkeypatch: pytest.MonkeyPatch, behind: bool) -> None:
    data = written(pattern(8, 9), "png", 8, Metadata(exif=camera_exif()))
    start = data.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", data[start : start + 4])[0]
    if behind:
        data = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    else:  # then Pillow need not decode anything
        monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    exif = Image.Exif()
    exif.load(load_image(data).metadata.exif or b"")
    assert exif[0x010F] == "Maker"


# --- memory -----------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from sr_upscale.images import FORMATS, Frame, Picture, RowSource, load_image, save_rows, strips_of

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10

def save(name, width, height):
    slope = np.arange(width)[:, None] // 16 + np.array([0, 40, 80])
    rows = ((slope + top % 256).astype(np.uint8)[None].repeat(100, axis=0) for top in range(0, height, 100))
    picture = Picture(frames=(Frame(pixels_hwc=np.zeros((1, 1, 3), np.uint8)),))
    save_rows(rows, picture, (width, height), Path(name), FORMATS[name])

def pass_through(name):
    source = load_image(Path(name)).frames[0].pixels_hwc
    return sum(len(strip) for strip in strips_of(source, 100))

name = sys.argv[1]
save(name, 100, 100)
pass_through(name)
before = peak()
save(name, 4000, 12000)
after = peak()
assert pass_through(name) == 12000
print(after - before, peak() - after)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("name", STREAMED)
def test_memory_does_not_grow_with_the_picture(tmp_path: Path, name: str) -> None:
    """144 MB of pixels go in and out in much less."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    writing, reading = map(int, done.stdout.split())
    assert writing < 60
    assert reading < 60
