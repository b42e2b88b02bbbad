"""HEIC of phone cameras: pixels, depth, turn and metadata against libheif's own encoder; refusals without the extra."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from sr_upscale.errors import InputError, UsageError
from sr_upscale.formatting import extra
from sr_upscale.images import load_image, load_plain8
from sr_upscale.images.codecs.heic import _straight
from sr_upscale.images.color_tags import ColorTags
from sr_upscale.images.formats import format_by_name
from tests.helpers import Cli, p3_profile, pattern

pillow_heif = pytest.importorskip("pillow_heif")
pytest.importorskip("pi_heif")

LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}


def heic(path: Path, pixels: Any, **options: Any) -> Path:
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[pixels.shape[2]] + (";16" if pixels.dtype == np.uint16 else "")
    picture = pillow_heif.from_bytes(mode, (pixels.shape[1], pixels.shape[0]), pixels.tobytes())
    data = io.BytesIO()
    picture.save(data, **LOSSLESS, **options)
    path.write_bytes(data.getvalue())
    return path


@pytest.mark.parametrize("channels", [3, 4])
def test_pixels_of_eight_bits(tmp_path: Path, channels: int) -> None:
    pixels = pattern(48, 64, channels)
    picture = load_image(heic(tmp_path / "a.heic", pixels))
    assert np.array_equal(picture.frames[0].pixels_hwc, pixels)
    assert (picture.format, picture.warnings) == ("heic", ())


def test_pixels_of_ten_bits_reach_white_in_sixteen(tmp_path: Path) -> None:
    pixels = pattern(48, 64, 3, np.uint16)
    pixels[:4] = 65535
    found = np.asarray(load_image(heic(tmp_path / "a.heic", pixels)).frames[0].pixels_hwc)
    assert found.dtype == np.uint16
    assert np.array_equal(found, np.rint((pixels >> 6) / 1023 * 65535))  # the encoder keeps the upper ten bits
    assert found[:4].min() == 65535


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_once_and_not_twice(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    pixels = pattern(48, 64)
    source = heic(tmp_path / "a.heic", pixels, exif=exif.tobytes(), icc_profile=p3_profile(), xmp=XMP)
    picture = load_image(source)
    turned = np.asarray(pillow_heif.open_heif(source).to_pillow())
    assert np.array_equal(picture.frames[0].pixels_hwc, turned)
    assert turned.shape[:2] == ((64, 48) if orientation >= 5 else (48, 64))
    assert picture.metadata.icc == p3_profile()
    found = Image.Exif()
    found.load(picture.metadata.exif or b"")
    assert (found[0x0112], found[0x010F]) == (1, "Maker")
    assert b"Ann" in (picture.metadata.xmp or b"")


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Label="Ann"/></rdf:RDF></x:xmpmeta>'
)


def test_row_73_colours_that_no_profile_describes(cli: Cli, nearest: Path, tmp_path: Path) -> None:
    """Display P3 by code points alone: a JPEG says them by a profile, a PNG by cICP."""
    source = heic(tmp_path / "a.heic", pattern(48, 64), color_primaries=12)
    picture = load_image(source)
    assert picture.warnings == ()
    assert picture.metadata.color == ColorTags(cicp=(12, 13))
    for name in ("a.jpg", "a.png"):
        ran = cli(source, "-n", nearest, "-o", tmp_path / name)
        assert (ran.code, "warning" in ran.err) == (0, False)
    assert b"cICP\x0c\x0d\0\1" in (tmp_path / "a.png").read_bytes()
    with Image.open(tmp_path / "a.jpg") as image:
        ours = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"])).profile
    theirs = ImageCms.ImageCmsProfile(io.BytesIO(p3_profile())).profile
    for one, other in zip(
        (ours.red_colorant, ours.green_colorant, ours.blue_colorant),
        (theirs.red_colorant, theirs.green_colorant, theirs.blue_colorant),
        strict=True,
    ):
        assert one is not None
        assert other is not None
        assert one[0] == pytest.approx(other[0], abs=2e-4)


def test_out_comes_jpeg_unless_another_is_asked_for(cli: Cli, nearest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    source = heic(folder / "IMG_1.HEIC", pattern(48, 64))
    assert cli("batch", folder, "-n", nearest, "-o", tmp_path / "out", "-f", "png").code == 0
    assert cli(source, "-n", nearest, "--suffix", "").code == 0
    with Image.open(folder / "IMG_1.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (128, 96))
    with Image.open(tmp_path / "out" / "IMG_1.png") as image:
        assert np.array_equal(np.asarray(image), pattern(48, 64).repeat(2, axis=0).repeat(2, axis=1))
    ran = cli(source, "-n", nearest, "-o", tmp_path / "b.heic")
    assert (ran.code, "HEIC is only read; end the name in .jpg" in ran.err) == (2, True)
    with pytest.raises(UsageError, match="cannot write format 'heic'; expected one of png, jpg, webp, tif"):
        format_by_name("heic")


def test_the_picture_that_was_asked_for(tmp_path: Path) -> None:
    several = pillow_heif.HeifFile()
    for number in range(2):
        several.add_from_pillow(Image.fromarray(pattern(48, 64) // (number + 1)))
    several.save(tmp_path / "a.heic", **LOSSLESS)
    for number in range(2):
        found = load_image(tmp_path / "a.heic", frame=number).frames[0].pixels_hwc
        assert np.abs(found.astype(int) - pattern(48, 64) // (number + 1)).max() <= 3  # not quite lossless here


def test_avif_of_ten_bits_reaches_white_in_sixteen(tmp_path: Path) -> None:
    pyvips = pytest.importorskip("pyvips")
    values = (pattern(48, 64, 3, np.uint16) >> 6).astype(np.uint16)
    values[:4] = 1023
    image = pyvips.Image.new_from_memory((values << 6).tobytes(), 64, 48, 3, "ushort").copy(interpretation="rgb16")
    image.heifsave(str(tmp_path / "a.avif"), compression="av1", bitdepth=10, lossless=True, subsample_mode="off")
    picture = load_image(tmp_path / "a.avif")
    assert picture.warnings == ()
    assert np.array_equal(picture.frames[0].pixels_hwc, np.rint(values / 1023 * 65535))


def test_without_a_number_the_main_picture(tmp_path: Path) -> None:
    several = pillow_heif.HeifFile()
    several.add_from_pillow(Image.new("RGB", (64, 48), (200, 0, 0)))
    several.add_from_pillow(Image.new("RGB", (80, 32), (0, 0, 200)))
    several.save(tmp_path / "a.heic", primary_index=1, **LOSSLESS)
    picture = load_image(tmp_path / "a.heic")
    assert np.asarray(picture.frames[0].pixels_hwc)[9, 9].tolist() == pytest.approx([0, 0, 200], abs=3)
    assert (picture.width, picture.height) == (80, 32)
    assert "has 2 pages; only the main one is used" in picture.warnings[0]
    for source in (tmp_path / "a.heic", (tmp_path / "a.heic").read_bytes()):
        assert load_plain8(source).shape == (32, 80, 3)
    assert load_image(tmp_path / "a.heic", frame=0).width == 64
    with pytest.raises(InputError, match="exceeds"):
        load_image(tmp_path / "a.heic", frame=0, max_pixels=80 * 32)


def test_colours_that_were_multiplied_by_alpha() -> None:
    pixels = np.array([[[100, 50, 25, 128], [7, 7, 7, 0], [9, 8, 7, 255]]], np.uint8)
    assert _straight(pixels).tolist() == [[[199, 100, 50, 128], [255, 255, 255, 0], [9, 8, 7, 255]]]


def test_a_phone_that_keeps_both_kinds(cli: Cli, nearest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    heic(folder / "IMG_1.HEIC", pattern(48, 64))
    Image.fromarray(pattern(20, 30)).save(folder / "IMG_1.jpg")
    assert cli("batch", folder, "-n", nearest, "-o", tmp_path / "out").code == 0
    for name, size in (("IMG_1.jpg", (60, 40)), ("IMG_1_heic.jpg", (128, 96))):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.size == size


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = heic(tmp_path / "a.heic", pattern(48, 64)).read_bytes()
    for data in (whole[:100], whole[:-200]):
        with pytest.raises(InputError, match="HEIC"):
            load_image(data)


def test_without_the_extra_the_message_says_how_to_get_it(
    cli: Cli, nearest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = heic(tmp_path / "a.heic", pattern(48, 64))
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    ran = cli(source, "-n", nearest, code=4)
    assert ran.err == (
        f"sr-upscale: {source}: a HEIC picture, for which this program needs an extra; {extra('heic')}\n"
    )
