"""What stands in files beside the first picture's pixels: profiles, other pictures, gain maps, the shape of a pixel.

It is kept, or said once to be lost. Whole files of kinds that are not read say what they are.
"""

from __future__ import annotations

import io
import struct
import subprocess
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sr_upscale.errors import InputError
from sr_upscale.images import Frame, Metadata, Picture, load_image, save_image
from sr_upscale.images.codecs.avif import has_gain_map
from sr_upscale.images.color_tags import ColorTags
from tests.helpers import p3_profile, pattern, program

PIXELS = pattern(12, 16)


def encoded(kind: str, pixels: Any = PIXELS, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


# --- whole files that are not read ------------------------------------------------------------------


def bmp(bits: int, compression: int = 0, masks: tuple[int, ...] = (), *, size: int = 40, tail: bytes = b"") -> bytes:
    """A black BMP of 16x16, `tail` behind the first 40 bytes of its second header and the masks."""
    row = (16 * bits + 31) // 32 * 4
    head = struct.pack("<IiiHHIIiiII", size, 16, 16, 1, bits, compression, row * 16, 0, 0, 0, 0)
    head = head + struct.pack(f"<{len(masks)}I", *masks) + tail
    head = head.ljust(size, b"\0")
    palette = bytes(4 << bits) if bits <= 8 else b""
    start = 14 + len(head) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + row * 16, 0, 0, start) + head + palette + bytes(row * 16)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bmp(2), "a BMP of 2 bits per pixel"),
        (bmp(64), "a BMP of 64 bits per pixel"),
        (bmp(16, 3, (0xF00, 0xF0, 0xF)), r"alpha have 4 \(0xf00\), 4 \(0xf0\), 4 \(0xf\), 0 \(0x0\) bits"),
        (bmp(16, 3, (0xF00, 0xF0, 0xF, 0xF000), size=56), r"4 \(0xf\), 4 \(0xf000\) bits"),
        (bmp(32, 3, (0x3FF00000, 0xFFC00, 0x3FF)), r"32 bits per pixel whose red.* 10 \(0x3ff00000\), 10"),
        (bmp(24, 4), "a BMP that holds JPEG or RLE of 24 bits"),
        (bmp(24, 5), "a BMP that holds PNG"),
        (bmp(1, 3), "a BMP of 1 bits per pixel in compression 3"),
    ],
)
def test_row_72_kinds_of_bmp_that_are_not_read(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as refusal:
        load_image(data)
    assert "which this program does not read" in str(refusal.value)
    assert "damaged" not in str(refusal.value)


@pytest.mark.parametrize("masks", [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)])
def test_usual_masks_are_read(masks: tuple[int, ...]) -> None:
    assert np.asarray(load_image(bmp(16, 3, masks)).frames[0].pixels_hwc).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("marker", "bits", "words"),
    [
        (0xC1, 12, "a JPEG of 12 bits per sample"),
        (0xC2, 12, "a JPEG of 12 bits per sample"),
        (0xC3, 8, "a lossless JPEG"),
        (0xC3, 16, "a lossless JPEG"),
        (0xC5, 8, "a hierarchical JPEG"),
    ],
)
def test_row_72_kinds_of_jpeg_that_are_not_read(marker: int, bits: int, words: str) -> None:
    data = bytearray(encoded("JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 1], data[frame + 4] = marker, bits
    with pytest.raises(InputError, match=f"{words}, which this program does not read") as refusal:
        load_image(bytes(data))
    assert "damaged" not in str(refusal.value)


# --- profiles ---------------------------------------------------------------------------------------


def bmp5(kind: int, profile: bytes = b"", *, points: tuple[float, ...] = (), gamma: float = 0) -> bytes:
    """A gray palette of 8 bits, as BMP of version 5."""
    plain = encoded("BMP", PIXELS[:, :, 0].copy())
    head = plain[18 : 14 + 40] + bytes(16) + struct.pack("<I", kind)
    head += struct.pack("<9i", *(round(each * 2**30) for each in points or (0,) * 9))
    head += struct.pack("<3I", *[round(gamma * 65536)] * 3)
    body = plain[54:]
    head += struct.pack("<4I", 4, 124 + len(body), len(profile), 0)
    start = 14 + 124 + 1024
    assert len(head) == 120
    return struct.pack("<2sIHHI", b"BM", start, 0, 0, start) + struct.pack("<I", 124) + head + body + profile


def gif_with(block: bytes) -> bytes:
    """A gray GIF with a block before its picture."""
    data = encoded("GIF", PIXELS[:, :, 0].copy())
    at = 13 + 3 * (2 << (data[10] & 7))
    return data[:at] + block + data[at:]


def gif_profile(profile: bytes) -> bytes:
    parts = [profile[first : first + 255] for first in range(0, len(profile), 255)]
    return b"!\xff\x0bICCRGBG1012" + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


@pytest.mark.parametrize("kind", ["bmp", "gif"])
def test_row_73_a_profile_of_bmp_and_gif(tmp_path: Path, kind: str) -> None:
    """It is one of RGB, so that gray pixels stay RGB. Converted where it is written to its like again."""
    data = bmp5(0x4D424544, p3_profile()) if kind == "bmp" else gif_with(gif_profile(p3_profile()))
    picture = load_image(data)
    assert picture.metadata.icc == p3_profile()
    assert picture.warnings == ()
    assert np.array_equal(picture.frames[0].pixels_hwc, PIXELS[:, :, :1].repeat(3, axis=2))
    save_image(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["icc_profile"] == p3_profile()
    with pytest.warns(UserWarning, match="colours are converted to sRGB"):
        save_image(picture, tmp_path / f"b.{kind}")


def test_exiftool_finds_the_profile_of_the_gif(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(gif_with(gif_profile(p3_profile())))
    asked = [program("exiftool"), "-b", "-ICC_Profile", str(tmp_path / "a.gif")]
    assert subprocess.run(asked, capture_output=True, check=True).stdout == p3_profile()


WIDE = (0.708, 0.292, 0, 0.170, 0.797, 0.033, 0.131, 0.046, 0.823)


def test_row_73_gamma_and_primaries_of_a_bmp() -> None:
    found = load_image(bmp5(0, points=WIDE, gamma=1.0)).metadata.color
    assert found is not None
    assert found.gamma == 1
    assert found.chromaticities == pytest.approx((0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046), abs=1e-6)
    assert load_image(bmp5(0)).metadata.color is None
    assert load_image(bmp5(0x73524742)).metadata.color is None  # says that it is sRGB


@pytest.mark.parametrize("profile", [b"no profile", b""])
def test_what_is_no_profile_is_none(profile: bytes) -> None:
    assert load_image(bmp5(0x4D424544, profile)).metadata.icc is None
    assert load_image(gif_with(gif_profile(profile))).metadata.icc is None


def test_a_profile_in_another_file_is_said_to_be_lost() -> None:
    (warning,) = load_image(bmp5(0x4C494E4B, b"C:\\p3.icc")).warnings
    assert "its colour profile stands in another file and is left out" in warning


# --- other pictures, gain maps ----------------------------------------------------------------------


def mpo(*, kind: int | None = None, behind: bytes = b"") -> bytes:
    """Two pictures; `kind` is that of the second (CIPA DC-007, table 4)."""
    first = Image.fromarray(PIXELS)
    file = io.BytesIO()
    first.save(file, "MPO", save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    data = bytearray(file.getvalue() + behind)
    if kind is not None:
        index = data.index(b"MPF\0") + 4
        entries = index + int.from_bytes(data[data.index(b"\x02\xb0\x07\0", index) + 8 :][:4], "little")
        data[entries + 16 : entries + 20] = kind.to_bytes(4, "little")
    return bytes(data)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_with(block: bytes) -> bytes:
    data = encoded("JPEG")
    return data[:2] + block + data[2:]


XMP_OF_GAIN_MAP = (
    b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/></rdf:RDF></x:xmpmeta>'
)
OTHERS, GAIN_MAP = "holds 2 pictures (MPO); only the first is used", "its gain map (HDR) is left out"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (mpo(), OTHERS),
        (mpo(kind=0x020002), OTHERS),
        (mpo(kind=0x010001), ""),  # a preview, as many cameras write it
        (mpo(behind=b"http://ns.apple.com/HDRGainMap/1.0/"), GAIN_MAP),
        (jpeg_with(segment(0xE1, XMP_OF_GAIN_MAP)), GAIN_MAP),
        (jpeg_with(segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0")), GAIN_MAP),
        (jpeg_with(segment(0xE2, b"MPF\0damaged")), ""),
        (
            encoded("AVIF") + struct.pack(">I4s", 48, b"free") + b"urn:com:apple:photo:2020:aux:hdrgainmap".ljust(40),
            GAIN_MAP,
        ),
        (encoded("AVIF"), ""),
    ],
)
def test_row_74_other_pictures_of_a_file_are_said_to_be_left_out(data: bytes, words: str) -> None:
    picture = load_image(data)
    assert [words in each for each in picture.warnings] == [True] * bool(words), picture.warnings
    if data[:2] == b"\xff\xd8":
        assert np.array_equal(
            picture.frames[0].pixels_hwc, load_image(encoded("JPEG", quality=75)).frames[0].pixels_hwc
        )


def test_the_brand_of_a_gain_map() -> None:
    """Of ISO/IEC 23008-12; libavif refuses a file that has the brand alone."""
    assert has_gain_map(encoded("AVIF").replace(b"MA1B", b"tmap", 1))
    assert not has_gain_map(encoded("AVIF"))


# --- pixels that are not square ---------------------------------------------------------------------


def with_physical(x: int, y: int, *, exif: bytes | None = None) -> bytes:
    """A PNG whose pHYs says a ratio without a unit."""
    data = encoded("PNG", **({"exif": exif} if exif else {}))
    chunk = b"pHYs" + struct.pack(">IIB", x, y, 0)
    return data[:33] + struct.pack(">I", 9) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def with_density(x: int, y: int) -> bytes:
    data = bytearray(encoded("JPEG"))
    at = data.index(b"JFIF\0") + 7
    data[at : at + 5] = struct.pack(">BHH", 0, x, y)
    return bytes(data)


def gif_of_aspect(byte: int) -> bytes:
    data = bytearray(encoded("GIF"))
    data[12] = byte
    return bytes(data)


def tiff_of(x: int, y: int) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="rgb", resolution=(x, y), resolutionunit=1)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "aspect"),
    [
        (with_physical(2, 1), (2, 1)),
        (with_physical(3000, 2000), (3, 2)),
        (with_physical(5, 5), None),
        (with_physical(0, 5), None),
        (with_density(4, 3), (4, 3)),
        (with_density(1, 1), None),
        (gif_of_aspect(0), None),
        (gif_of_aspect(49), None),
        (gif_of_aspect(17), (2, 1)),  # a pixel (17 + 15) / 64 as wide as high
        (tiff_of(4, 3), (4, 3)),
        (tiff_of(1, 1), None),
    ],
)
def test_row_74_the_shape_of_a_pixel(tmp_path: Path, data: bytes, aspect: tuple[int, int] | None) -> None:
    picture = load_image(data)
    assert picture.metadata.aspect == aspect
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_image(picture, tmp_path / "a.png")
        save_image(picture, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.png") as image:
        assert image.info.get("aspect") == aspect
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.info["jfif_unit"], image.info["jfif_density"]) == (0, aspect or (1, 1))
    for name in ("a.webp", "a.tif", "a.bmp", "a.gif", "a.avif"):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            save_image(picture, tmp_path / name)
        assert ["its pixels are not square" in str(each.message) for each in said] == [True] * (aspect is not None)


def test_a_turn_turns_the_pixel() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(with_physical(2, 1, exif=exif.tobytes())).metadata.aspect == (1, 2)


def test_row_74_a_resolution_of_two_numbers_is_such_a_shape(tmp_path: Path) -> None:
    picture = Picture(frames=(Frame(pixels_hwc=PIXELS),), metadata=Metadata(dpi=(200.0, 100.0)))
    with pytest.warns(UserWarning, match="200 across are as long as 100 down, which WEBP does not say"):
        save_image(picture, tmp_path / "a.webp")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("a.png", "a.jpg", "a.tif", "a.bmp"):
            save_image(picture, tmp_path / name)
            with Image.open(tmp_path / name) as image:
                assert image.info["dpi"] == pytest.approx((200, 100), abs=0.02)


def test_avifenc_writes_the_shape_of_a_pixel(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    command = [program("avifenc"), "--pasp", "2,1", str(tmp_path / "a.png"), str(tmp_path / "a.avif")]
    subprocess.run(command, capture_output=True, check=True)
    assert load_image(tmp_path / "a.avif").metadata.aspect == (1, 2)


def test_calibrated_tags_are_those_of_png(tmp_path: Path) -> None:
    save_image(load_image(bmp5(0, points=WIDE, gamma=2.0)), tmp_path / "a.png")
    found = load_image(tmp_path / "a.png").metadata.color
    assert found == ColorTags(gamma=0.5, chromaticities=(0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046))
