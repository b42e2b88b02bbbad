"""Pixels, numbers and bytes of files, against second decoders: tifffile, OpenCV, and Pillow where libvips wrote."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from sr_upscale.errors import InputError, UsageError
from sr_upscale.images import FORMATS, Frame, Metadata, Picture, SaveOptions, load_image, save_image
from sr_upscale.images.adapt import adapt
from sr_upscale.images.formats import format_by_name, sniff
from tests.helpers import animation, p3_profile, pattern

NAME = "photo"


def save(path: Path, pixels: Any, metadata: Metadata | None = None, **options: Any) -> Path:
    picture = Picture(frames=(Frame(pixels_hwc=pixels),), metadata=metadata or Metadata())
    save_image(picture, path, format_by_name(path.suffix), SaveOptions(**options))
    return path


# --- depth and channels -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "channels"),
    [(suffix, channels) for suffix in (".png", ".tif", ".webp") for channels in (1, 2, 3, 4)]
    + [(".bmp", 1), (".bmp", 3)],
)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (11, 6)])
def test_eight_bits_survive_lossless_formats(tmp_path: Path, suffix: str, channels: int, size: tuple[int, int]) -> None:
    pixels = pattern(*size, channels)
    found = load_image(save(tmp_path / f"a{suffix}", pixels, quality=100))
    back = found.frames[0].pixels_hwc
    if suffix == ".webp" and channels < 3:  # WebP stores colour only
        pixels = np.concatenate([np.repeat(pixels[:, :, :1], 3, axis=2), pixels[:, :, 1:]], axis=2)
        back = back if back.shape == pixels.shape else np.concatenate([back, pixels[:, :, 3:]], axis=2)
    assert np.array_equal(back, pixels)
    assert (found.width, found.height, found.bits) == (size[1], size[0], 8)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 7)])
def test_sixteen_bit_png_agrees_with_opencv(tmp_path: Path, channels: int, size: tuple[int, int]) -> None:
    pixels = pattern(*size, channels, np.uint16)
    path = save(tmp_path / "a.png", pixels)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    theirs = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert theirs is not None
    assert theirs.dtype == np.uint16
    assert np.array_equal(theirs.reshape(pixels.shape)[:, :, order], pixels)
    cv2.imwrite(str(tmp_path / "b.png"), pixels[:, :, order])
    assert np.array_equal(load_image(tmp_path / "b.png").frames[0].pixels_hwc, pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_lossy_formats_come_close(tmp_path: Path, suffix: str) -> None:
    y, x = np.mgrid[0:64, 0:80]
    pixels = np.stack([x * 3, y * 3, 120 + x], -1).astype(np.uint8)
    small = save(tmp_path / f"small{suffix}", pixels, quality=30)
    best = save(tmp_path / f"best{suffix}", pixels, quality=98)
    assert small.stat().st_size < best.stat().st_size
    back = load_image(best).frames[0].pixels_hwc
    assert np.abs(back.astype(int) - pixels).mean() < 1.5
    assert FORMATS[load_image(best).format].suffixes[0] == suffix


def test_sixteen_bits_are_rounded_where_a_format_has_eight(tmp_path: Path) -> None:
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    back = load_image(save(tmp_path / "a.bmp", pixels)).frames[0].pixels_hwc
    assert np.array_equal(back[:, :, 0], np.rint(pixels[:, :, 0] / 257))
    _picture, notes = adapt(Picture(frames=(Frame(pixels_hwc=pixels),)), FORMATS["jpg"], SaveOptions(), name=NAME)
    assert "8 bits per channel; the output is reduced from 16" in notes[0]


# --- orientation and metadata -----------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientations_agree_with_pillow(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pattern(10, 16))
    options: dict[str, Any] = (
        {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {"lossless": True} if suffix == ".webp" else {}
    )
    image.save(path, exif=exif, dpi=(300, 150), **options)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    picture = load_image(path)
    assert np.array_equal(picture.frames[0].pixels_hwc, expected)
    assert picture.metadata.exif is not None
    found = Image.Exif()
    found.load(picture.metadata.exif)
    assert found[0x0112] == 1
    if suffix != ".webp":
        assert picture.metadata.dpi == pytest.approx((150, 300) if orientation >= 5 else (300, 150), abs=0.02)


def test_exif_of_a_camera_survives_with_its_nested_directory(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "Camera"
    exif[0x8769] = {0x9003: "2024:05:06 07:08:09", 0xA002: 9, 0xA003: 8, 0xA005: {1: "R98"}, 0x927C: b"maker note"}
    source = tmp_path / "a.jpg"
    Image.fromarray(pattern(8, 9)).save(source, exif=exif)
    for name in ("jpg", "png", "webp", "tif"):
        out = tmp_path / f"out.{name}"
        save_image(load_image(source), out, FORMATS[name])
        again = tmp_path / f"again.{name}"
        save_image(load_image(out), again, FORMATS[name])
        with Image.open(again) as image:
            found = image.getexif()
            assert found.get_ifd(0x8769)[0x927C] == b"maker note"
            assert found.get_ifd(0xA005)[1] == "R98"


def test_exif_grows_no_directories_that_were_not_there(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    source = tmp_path / "a.jpg"
    Image.fromarray(pattern(8, 9)).save(source, exif=exif)
    picture = load_image(source)
    for name in ("jpg", "png", "tif"):
        out = tmp_path / f"out.{name}"
        save_image(picture, out, FORMATS[name])
        with Image.open(out) as image:
            assert image.getexif()[0x010F] == "Maker"
            assert 0x8769 not in image.getexif()
            assert 0x8825 not in image.getexif()


def test_colours_are_converted_where_no_profile_can_be_stored(tmp_path: Path) -> None:
    """P3's full red is outside sRGB, its gray is gray; a converted mid colour moves."""
    pixels = np.array([[[128, 128, 128], [180, 90, 60]]], np.uint8)
    picture = Picture(frames=(Frame(pixels_hwc=pixels),), metadata=Metadata(icc=p3_profile()))
    adapted, notes = adapt(picture, FORMATS["bmp"], SaveOptions(), name=NAME)
    assert "converted to sRGB" in notes[0]
    assert adapted.metadata.icc is None
    gray, colour = adapted.frames[0].pixels_hwc[0].astype(int)
    assert np.abs(gray - 128).max() <= 2
    assert colour[0] > 185  # the same red is a larger number in the smaller space
    kept, notes = adapt(picture, FORMATS["png"], SaveOptions(), name=NAME)
    assert (kept, notes) == (picture, [])


def test_flattening_on_a_background() -> None:
    pixels = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    picture = Picture(frames=(Frame(pixels_hwc=pixels),))
    flat, _notes = adapt(picture, FORMATS["jpg"], SaveOptions(background=(0, 200, 100)), name=NAME)
    assert flat.frames[0].pixels_hwc.tolist() == [[[200, 100, 0], [0, 200, 100], [40, 180, 80]]]
    with pytest.raises(UsageError, match="--background"):
        adapt(picture, FORMATS["jpg"], SaveOptions(), name=NAME)
    opaque = Picture(frames=(Frame(pixels_hwc=pixels[:, :1]),))  # nothing shows through: no colour is needed
    flat, _notes = adapt(opaque, FORMATS["jpg"], SaveOptions(), name=NAME)
    assert flat.frames[0].pixels_hwc.tolist() == [[[200, 100, 0]]]


# --- animation --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "channels"), [(".gif", 3), (".gif", 4), (".webp", 3), (".webp", 4), (".png", 3), (".png", 4)]
)
def test_animations_keep_frames_timing_and_loop(tmp_path: Path, suffix: str, channels: int) -> None:
    path = tmp_path / f"a{suffix}"
    save_image(animation(channels), path, format_by_name(suffix), SaveOptions(quality=100))
    back = load_image(path)
    assert [frame.duration_ms for frame in back.frames] == [100, 250, 70]
    assert back.loop == 0
    for ours, theirs in zip(back.frames, animation(channels).frames, strict=True):
        visible = theirs.pixels_hwc[..., 3:] > 0 if channels == 4 else True
        difference = np.abs(ours.pixels_hwc[..., :3].astype(int) - theirs.pixels_hwc[..., :3]) * visible
        assert difference.max() <= 3
        if channels == 4:
            assert np.array_equal(ours.pixels_hwc[..., 3], theirs.pixels_hwc[..., 3])


# --- kinds and refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"%PDF-1.7", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF", "a PostScript document"),
        (b"\n<svg xmlns=", "an SVG or XML document"),
        (b"hello there\n", "a text file"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "avif"),
        (b"\x00\x01\x02\x03", "data of an unknown kind"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "webp"),
    ],
)
def test_sniffing(head: bytes, expected: str) -> None:
    assert sniff(head) == expected


def test_palettes_become_what_they_show(tmp_path: Path) -> None:
    gray = Image.new("P", (3, 2))
    gray.putpalette([value for level in range(0, 256, 8) for value in (level,) * 3])
    gray.putdata([0, 1, 2, 3, 4, 5])
    gray.save(tmp_path / "gray.bmp")
    assert load_image(tmp_path / "gray.bmp").frames[0].pixels_hwc[:, :, 0].tolist() == [[0, 8, 16], [24, 32, 40]]
    colour = Image.fromarray(pattern(5, 6)).quantize(16)
    colour.save(tmp_path / "colour.png")
    assert np.array_equal(load_image(tmp_path / "colour.png").frames[0].pixels_hwc, np.asarray(colour.convert("RGB")))


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    pages = [pattern(4, 5), 255 - pattern(4, 5)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in pages:
            writer.write(page, photometric="rgb")
    first = load_image(tmp_path / "a.tif")
    assert np.array_equal(first.frames[0].pixels_hwc, pages[0])
    assert "2 pages; only the first" in first.warnings[0]
    assert np.array_equal(load_image(tmp_path / "a.tif", frame=1).frames[0].pixels_hwc, pages[1])
    with pytest.raises(UsageError, match="no frame 2; expected 0 to 1"):
        load_image(tmp_path / "a.tif", frame=2)


def test_float_tiff_in_range_becomes_sixteen_bits(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 60, dtype=np.float32).reshape(4, 5, 3)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    picture = load_image(tmp_path / "a.tif")
    assert np.array_equal(picture.frames[0].pixels_hwc, np.rint(values * 65535).astype(np.uint16))
    assert "16-bit integers" in picture.warnings[0]
    tifffile.imwrite(tmp_path / "b.tif", values * 255, photometric="rgb")
    with pytest.raises(InputError, match="float samples from 0 to 255; expected 0 to 1"):
        load_image(tmp_path / "b.tif")


def test_pillow_limits_of_the_caller_are_left_as_they_were(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    load_image(save(tmp_path / "a.png", pattern(4, 4)))
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_page_has_its_own_size_turn_and_profile(tmp_path: Path) -> None:
    """Page 0 is turned and small; page 1 is neither. The limit on pixels holds for the page that is read."""
    source = tmp_path / "a.tif"
    first, second = Image.fromarray(pattern(10, 20)), Image.fromarray(pattern(30, 60))
    turned = Image.Exif()
    turned[0x0112] = 6
    second.encoderinfo = {"icc_profile": p3_profile(), "exif": Image.Exif()}
    first.save(source, save_all=True, append_images=[second], exif=turned)
    page = load_image(source, frame=1)
    assert np.array_equal(page.frames[0].pixels_hwc, pattern(30, 60))
    assert page.metadata.icc == p3_profile()
    assert load_image(source, frame=0).frames[0].pixels_hwc.shape == (20, 10, 3)
    load_image(source, frame=0, max_pixels=200)
    with pytest.raises(InputError, match="0.0018 MP exceeds 0.0002 MP"):
        load_image(source, frame=1, max_pixels=200)


@pytest.mark.parametrize("big", [False, True])
def test_exif_of_a_large_tiff_is_read_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, big: bool) -> None:
    if big:
        monkeypatch.setattr("sr_upscale.images.codecs.tiff._BIG_TIFF", 0)
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x8769] = {0x9003: "2024:05:06 07:08:09", 0x829A: 0.5}
    exif[0x8825] = {1: "N", 2: (48.0, 46.0, 12.0)}
    metadata = Metadata(exif=exif.tobytes().removeprefix(b"Exif\0\0"), xmp=None, iptc=b"\x1c\x02\x05\0\x01a")
    path = save(tmp_path / "a.tif", pattern(18, 24), metadata)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff == big
        assert file.pages[0].tags["ExifTag"].value["DateTimeOriginal"] == "2024:05:06 07:08:09"
        assert file.pages[0].tags["GPSTag"].value["GPSLatitudeRef"] == "N"
    with Image.open(path) as image:
        assert image.getexif().get_ifd(0x8769)[0x829A] == 0.5
        assert image.getexif().get_ifd(0x8825)[2] == (48.0, 46.0, 12.0)


def test_picture_for_programs_that_know_no_animation_is_not_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    red, green, blue = (Image.fromarray(np.full((6, 8, 3), colour, np.uint8)) for colour in np.eye(3) * 255)
    red.save(path, save_all=True, append_images=[green, blue], default_image=True, duration=50, loop=2)
    picture = load_image(path)
    assert [frame.pixels_hwc[0, 0].tolist() for frame in picture.frames] == [[0, 255, 0], [0, 0, 255]]
    assert [frame.duration_ms for frame in picture.frames] == [50, 50]
    assert load_image(path, frame=1).frames[0].pixels_hwc[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("loop", [None, 0, 1, 3])
def test_an_animation_plays_as_often_as_before(tmp_path: Path, loop: int | None) -> None:
    """GIF counts repetitions, WebP and PNG count plays; there and back again nothing is lost."""
    first, second = (Image.fromarray(np.full((6, 8, 3), level, np.uint8)) for level in (20, 200))
    more = {} if loop is None else {"loop": loop}
    path = tmp_path / "a.gif"
    first.save(path, save_all=True, append_images=[second], duration=50, **more)
    for name in ("b.gif", "c.png", "d.webp", "e.gif"):
        save_image(load_image(path), tmp_path / name, format_by_name(Path(name).suffix), SaveOptions(quality=100))
        path = tmp_path / name
        with Image.open(path) as image:
            plays = image.info.get("loop", 1 if name.endswith("gif") else None)
            if name.endswith("gif") and "loop" in image.info and plays:
                plays += 1
        assert plays == (0 if loop == 0 else 1 if loop is None else loop + 1), name


def test_gif_whose_first_frame_is_gray(tmp_path: Path) -> None:
    """Pillow leaves the frames behind it without a palette."""
    path = tmp_path / "a.gif"
    later = Image.fromarray(np.full((8, 8, 3), (200, 10, 30), np.uint8))
    Image.new("L", (8, 8), 10).save(path, save_all=True, append_images=[later], optimize=False, duration=70)
    picture = load_image(path)
    assert [frame.pixels_hwc[0, 0].tolist() for frame in picture.frames] == [[10, 10, 10], [200, 10, 30]]
    assert [frame.duration_ms for frame in picture.frames] == [70, 70]


@pytest.mark.parametrize(
    ("channels", "background"), [(2, (255, 255, 255)), (2, (255, 0, 0)), (4, (9, 9, 9)), (4, (1, 2, 3))]
)
def test_flattening_by_bands_is_flattening(channels: int, background: tuple[int, int, int]) -> None:
    pixels = pattern(300, 20, channels)
    picture = Picture(frames=(Frame(pixels_hwc=pixels),))
    flat = adapt(picture, FORMATS["jpg"], SaveOptions(background=background), name=NAME)[0].frames[0].pixels_hwc
    mode = "LA" if channels == 2 else "RGBA"
    behind = Image.new("RGBA", (20, 300), (*background, 255))
    behind.alpha_composite(Image.fromarray(pixels, mode).convert("RGBA"))
    expected = np.asarray(behind)[:, :, :3].astype(int)
    assert np.abs(np.broadcast_to(flat, expected.shape) - expected).max() <= 1
