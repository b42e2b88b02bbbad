"""Colours as files tag them reach the output: its own chunks and boxes, a profile, converted pixels, or one warning.

Chunks are read by a reader of this file, pixels through profiles by littleCMS. Truth of colours are the formulas of the
standards, from chromaticities, here.
"""

from __future__ import annotations

import io
import struct
import subprocess
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from sr_upscale.images import Frame, Metadata, Picture, load_image, save_image
from sr_upscale.images.color_tags import PRIMARIES, SRGB, ColorTags, profile_of
from tests.helpers import Cli, animation, p3_profile, pattern, program

Chunks = list[tuple[bytes, bytes]]
SRGB_XY = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
WIDE_XY = (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)


def png(chunks: Chunks, pixels: Any = None) -> bytes:
    """A PNG with these chunks behind its header."""
    file = io.BytesIO()
    Image.fromarray(pattern(12, 16) if pixels is None else pixels).save(file, "PNG")
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return file.getvalue()[:33] + body + file.getvalue()[33:]


def chunks_in(data: bytes) -> dict[bytes, bytes]:
    """The chunks of a PNG before its pixels, their checksums checked."""
    found, at = {}, 8
    while (kind := data[at + 4 : at + 8]) != b"IDAT":
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        assert zlib.crc32(data[at + 4 : end]) == int.from_bytes(data[end : end + 4], "big")
        assert kind not in found
        found[kind], at = data[at + 8 : end], end + 4
    return found


def gama(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def chrm(points: tuple[float, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(each * 100_000) for each in points))


def cicp(primaries: int, transfer: int, *, matrix: int = 0, full: int = 1) -> tuple[bytes, bytes]:
    return b"cICP", bytes((primaries, transfer, matrix, full))


ICCP = (b"iCCP", b"P3\0\0" + zlib.compress(p3_profile()))
SRGB_CHUNK = (b"sRGB", b"\0")

# --- what counts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "tags", "profile"),
    [
        ([], None, False),
        ([SRGB_CHUNK], SRGB, False),
        ([gama(1)], ColorTags(gamma=1.0), False),
        ([chrm(WIDE_XY)], ColorTags(chromaticities=WIDE_XY), False),
        ([gama(0.5), chrm(WIDE_XY)], ColorTags(gamma=0.5, chromaticities=WIDE_XY), False),
        ([gama(1), chrm(WIDE_XY), SRGB_CHUNK], SRGB, False),
        ([gama(1), SRGB_CHUNK, ICCP], None, True),
        ([gama(1), cicp(12, 13)], ColorTags(cicp=(12, 13)), False),
        ([SRGB_CHUNK, cicp(9, 16)], ColorTags(cicp=(9, 16)), False),
        ([ICCP, cicp(9, 18), gama(1)], ColorTags(cicp=(9, 18)), True),
        ([cicp(9, 16, full=0)], ColorTags(cicp=(9, 16), full_range=False), False),
        ([cicp(12, 2)], ColorTags(cicp=(12, 13)), False),
        ([cicp(2, 2), gama(1)], ColorTags(gamma=1.0), False),
        ([cicp(9, 16, matrix=9), SRGB_CHUNK], SRGB, False),  # pixels of a PNG are RGB
        ([(b"cICP", b"\1"), gama(1)], ColorTags(gamma=1.0), False),
        ([gama(0)], None, False),
        ([chrm((0.3, 0.3, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3))], None, False),  # on one line
        ([(b"iCCP", b"P3\0\0damaged"), gama(1)], ColorTags(gamma=1.0), False),
    ],
)
def test_row_73_of_several_tags_of_a_png_the_first_counts(
    chunks: Chunks, tags: ColorTags | None, profile: bool
) -> None:
    """cICP, iCCP, sRGB, then gAMA and cHRM (PNG, third edition, section 4.3)."""
    metadata = load_image(png(chunks)).metadata
    assert metadata.color == tags
    assert metadata.icc == (p3_profile() if profile else None)


# --- written again ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks",
    [
        [SRGB_CHUNK],
        [gama(1)],
        [chrm(WIDE_XY)],
        [gama(0.5), chrm(WIDE_XY)],
        [cicp(9, 16)],
        [cicp(12, 13, full=0)],
        [cicp(200, 99)],
        [ICCP, cicp(9, 18)],
    ],
)
@pytest.mark.parametrize("kind", ["gray", "RGB", "16 bits", "animation"])
def test_row_73_a_png_says_again_what_it_said(
    cli: Cli, nearest: Path, tmp_path: Path, chunks: Chunks, kind: str
) -> None:
    if kind == "animation":
        save_image(animation(), tmp_path / "plain.png")
        data = (tmp_path / "plain.png").read_bytes()
        source = data[:33] + png(chunks)[33 : -len(png([])) + 33] + data[33:]
    else:
        deep: Any = pattern(12, 16, 1, np.uint16)[:, :, 0]
        source = png(chunks, {"gray": pattern(12, 16, 1)[:, :, 0], "16 bits": deep}.get(kind))
    (tmp_path / "a.png").write_bytes(source)
    ran = cli(tmp_path / "a.png", "-n", nearest, "-o", tmp_path / "b.png")
    assert (ran.code, "warning" in ran.err) == (0, False)
    found = chunks_in((tmp_path / "b.png").read_bytes())
    colours = {name: found[name] for name in (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"iCCP") if name in found}
    if b"iCCP" in colours:
        assert zlib.decompress(colours.pop(b"iCCP").split(b"\0\0", 1)[1]) == p3_profile()
        chunks = [each for each in chunks if each[0] != b"iCCP"]
    assert colours == dict(chunks)
    before, after = (np.asarray(load_image(tmp_path / name).frames[0].pixels_hwc) for name in ("a.png", "b.png"))
    assert np.array_equal(after, before.repeat(2, axis=0).repeat(2, axis=1))  # the network got what the file holds


def test_pngcheck_and_exiftool_read_the_chunks(tmp_path: Path) -> None:
    tags = ColorTags(gamma=0.5, chromaticities=WIDE_XY)
    picture = Picture(frames=(Frame(pixels_hwc=pattern(12, 16)),), metadata=Metadata(color=tags))
    save_image(picture, tmp_path / "a.png")
    done = subprocess.run(
        [program("pngcheck"), "-v", str(tmp_path / "a.png")], capture_output=True, text=True, check=True
    )
    assert "chunk gAMA at" in done.stdout
    assert "White x = 0.3127 y = 0.329,  Red x = 0.708 y = 0.292" in done.stdout
    assert "No errors detected" in done.stdout
    asked = [program("exiftool"), "-s3", "-Gamma", "-GreenX", str(tmp_path / "a.png")]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split() == ["2", "0.17"]


def avif(path: Path, primaries: int, transfer: int, *, frames: int = 1) -> bytes:
    """An AVIF of Pillow with other code points in its boxes; in its stream they stay sRGB's."""
    images = [Image.fromarray(pattern(48, 64)) for _ in range(frames)]
    images[0].save(path, "AVIF", save_all=True, append_images=images[1:], duration=100, quality=90)
    data = path.read_bytes()
    assert b"nclx\0\1\0\x0d" in data
    data = data.replace(b"nclx\0\1\0\x0d", b"nclx" + struct.pack(">HH", primaries, transfer))
    path.write_bytes(data)
    return data


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize(("primaries", "transfer"), [(12, 13), (9, 16), (9, 18), (1, 8), (1, 13)])
def test_row_73_code_points_of_an_avif(
    cli: Cli, nearest: Path, tmp_path: Path, primaries: int, transfer: int, frames: int
) -> None:
    source = tmp_path / "a.avif"
    avif(source, primaries, transfer, frames=frames)
    for name in ("b.avif", "b.png"):
        ran = cli(source, "-n", nearest, "-o", tmp_path / name)
        assert (ran.code, "warning" in ran.err) == (0, False)
    said = b"nclx" + struct.pack(">HH", primaries, transfer)
    data = (tmp_path / "b.avif").read_bytes()
    assert data.count(said) == data.count(b"nclx") > 0
    assert load_image(data).metadata.color == ColorTags(cicp=(primaries, transfer))
    found = chunks_in((tmp_path / "b.png").read_bytes())
    if (primaries, transfer) == SRGB.cicp:
        assert found[b"sRGB"] == b"\0"
    else:
        assert found[b"cICP"] == bytes((primaries, transfer, 0, 1))


def test_avifdec_and_ffprobe_read_the_code_points(tmp_path: Path) -> None:
    """The boxes, and the AV1 stream itself."""
    picture = Picture(frames=(Frame(pixels_hwc=pattern(48, 64)),), metadata=Metadata(color=ColorTags(cicp=(9, 16))))
    save_image(picture, tmp_path / "a.avif")
    asked = [program("avifdec"), "--info", str(tmp_path / "a.avif")]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert "Color Primaries: 9" in shown
    assert "Transfer Char. : 16" in shown
    asked = [program("ffprobe"), "-v", "error", "-show_frames", str(tmp_path / "a.avif")]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert "color_primaries=bt2020" in shown
    assert "color_transfer=smpte2084" in shown


def test_code_points_of_the_main_picture_as_avifenc_writes_them(tmp_path: Path) -> None:
    Image.fromarray(pattern(48, 64, 4)).save(tmp_path / "a.png")
    command = [program("avifenc"), "--cicp", "12/8/1", str(tmp_path / "a.png"), str(tmp_path / "a.avif")]
    subprocess.run(command, capture_output=True, check=True)
    assert load_image(tmp_path / "a.avif").metadata.color == ColorTags(cicp=(12, 8))


# --- profiles ---------------------------------------------------------------------------------------


def srgb_of(light: NDArray[np.float64]) -> NDArray[np.float64]:
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def light_of_srgb(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def to_xyz(points: tuple[float, ...]) -> NDArray[np.float64]:
    """The matrix from light of these primaries to XYZ."""
    white, *colours = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(points[::2], points[1::2], strict=True))
    columns = np.stack(colours, axis=1)
    return columns * np.linalg.solve(columns, white)


def in_srgb(light: NDArray[np.float64], points: tuple[float, ...]) -> NDArray[np.float64]:
    """Colours whose white is that of sRGB, in sRGB, clipped."""
    return srgb_of(light @ (np.linalg.inv(to_xyz(SRGB_XY)) @ to_xyz(points)).T)


SAMPLES = np.stack(np.meshgrid(*[np.linspace(0.3, 0.6, 4)] * 3), axis=-1).reshape(8, 8, 3)
"""Colours near gray, which no gamut clips."""
CURVES: list[tuple[ColorTags, Callable[[Any], Any]]] = [
    (ColorTags(gamma=1.0), lambda v: v),
    (ColorTags(gamma=0.5, chromaticities=WIDE_XY), lambda v: v**2),
    (ColorTags(chromaticities=WIDE_XY), light_of_srgb),
    (ColorTags(cicp=(12, 13)), light_of_srgb),
    (ColorTags(cicp=(1, 8)), lambda v: v),
    (ColorTags(cicp=(9, 14)), lambda v: ((v + 0.099) / 1.099) ** (1 / 0.45)),
    (ColorTags(cicp=(5, 5)), lambda v: v**2.8),
    (ColorTags(cicp=(6, 7)), lambda v: ((v + 0.1115) / 1.1115) ** (1 / 0.45)),
    (ColorTags(cicp=(22, 1)), lambda v: ((v + 0.099) / 1.099) ** (1 / 0.45)),
]


@pytest.mark.parametrize(
    ("tags", "curve"), CURVES, ids=lambda value: str(value) if isinstance(value, ColorTags) else ""
)
@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp"])
def test_row_73_a_profile_says_what_tags_say(tmp_path: Path, tags: ColorTags, curve: Any, suffix: str) -> None:
    pixels = np.rint(SAMPLES * 255).astype(np.uint8)
    picture = Picture(frames=(Frame(pixels_hwc=pixels),), metadata=Metadata(color=tags))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_image(picture, tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    change = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    found = np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), change)).astype(float)
    expected = in_srgb(curve(pixels / 255), tags.primaries or ()) * 255
    assert np.abs(found - expected).max() < 2
    untagged = np.abs(pixels - expected).max()
    assert untagged > 4  # what a viewer showed before


@pytest.mark.parametrize("suffix", [".gif", ".bmp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_row_73_pixels_are_converted_where_a_format_holds_no_profile(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    pixels = np.linspace(0, 255, 16).astype(np.uint8).reshape(4, 4, 1).repeat(channels, axis=2)
    picture = Picture(frames=(Frame(pixels_hwc=pixels),), metadata=Metadata(color=ColorTags(gamma=1.0)))
    with pytest.warns(UserWarning, match="holds no colour profile; colours are converted to sRGB"):
        save_image(picture, tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as image:
        found = np.asarray(image.convert("L")).astype(float)
    assert np.abs(found - srgb_of(pixels[:, :, 0] / 255) * 255).max() <= 1


def test_gray_gets_a_profile_for_gray(tmp_path: Path) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    save_image(
        Picture(frames=(Frame(pixels_hwc=pixels),), metadata=Metadata(color=ColorTags(gamma=1.0))), tmp_path / "a.tif"
    )
    with Image.open(tmp_path / "a.tif") as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        change = ImageCms.buildTransform(
            profile, ImageCms.createProfile("sRGB"), "L", "RGB", flags=ImageCms.Flags.NOOPTIMIZE
        )
        found = np.asarray(ImageCms.applyTransform(image, change))[:, :, 0].astype(float)
    assert np.abs(found - srgb_of(pixels[:, :, 0] / 255) * 255).max() <= 1


@pytest.mark.parametrize(
    "tags",
    [
        SRGB,
        ColorTags(gamma=0.45455, chromaticities=SRGB_XY),
        ColorTags(gamma=0.45455),
        ColorTags(chromaticities=SRGB_XY),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp", ".gif", ".bmp", ".avif"])
def test_what_an_untagged_file_means_needs_no_tag(tmp_path: Path, tags: ColorTags, suffix: str) -> None:
    """So does 1 / 2.2, by which programs write sRGB where they have but one number."""
    picture = Picture(frames=(Frame(pixels_hwc=pattern(16, 16)),), metadata=Metadata(color=tags))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_image(picture, tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert "icc_profile" not in image.info


@pytest.mark.parametrize("transfer", [16, 18])
def test_row_73_hdr_in_a_profile(tmp_path: Path, transfer: int) -> None:
    """Code points for those that read them. For others 203 cd/m2 are white: 0.58 of PQ, 0.75 of HLG (BT.2408)."""
    pixels = np.linspace(0, 255, 256).astype(np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    tags = ColorTags(cicp=(9, transfer))
    with pytest.warns(UserWarning, match=rf"kind 9/{transfer} \(H.273\) are HDR, for which JPG has but a profile"):
        save_image(Picture(frames=(Frame(pixels_hwc=pixels),), metadata=Metadata(color=tags)), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        icc = image.info["icc_profile"]
    assert b"cicp\0\0\0\0" + bytes((9, transfer, 0, 1)) in icc
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    change = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    found = np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), change))[:, :, 1].ravel()
    assert abs(int(np.argmax(found >= 254)) - (0.58 if transfer == 16 else 0.75) * 255) <= 2
    assert found[0] == 0
    assert (np.diff(found.astype(int)) >= 0).all()


@pytest.mark.parametrize(
    "tags", [ColorTags(cicp=(9, 9)), ColorTags(cicp=(77, 13)), ColorTags(cicp=(9, 16), full_range=False)]
)
@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_row_73_what_cannot_be_said_is_one_warning(tmp_path: Path, tags: ColorTags, suffix: str) -> None:
    picture = Picture(frames=(Frame(pixels_hwc=pattern(16, 16)),), metadata=Metadata(color=tags))
    with pytest.warns(UserWarning, match=r"\(H.273\).* cannot be said in") as said:
        save_image(picture, tmp_path / f"a{suffix}")
    assert len(said) == 1
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert "icc_profile" not in image.info


def test_exiftool_reads_the_profile(tmp_path: Path) -> None:
    (tmp_path / "a.icc").write_bytes(profile_of(ColorTags(cicp=(12, 13)), gray=False) or b"")
    asked = [program("exiftool"), "-s3", "-ProfileVersion", "-ColorSpaceData", "-RedMatrixColumn", "-validate"]
    shown = subprocess.run([*asked, str(tmp_path / "a.icc")], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[:2] == ["4.4.0", "RGB"]
    assert [float(each) for each in shown.splitlines()[2].split()] == pytest.approx([0.5151, 0.2412, -0.0011], abs=2e-4)


@pytest.mark.parametrize("number", sorted(PRIMARIES))
def test_primaries_are_those_of_the_table(number: int) -> None:
    """Their white is light of all three, by the matrix that a profile of them holds (in D50)."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_of(ColorTags(cicp=(number, 8)), gray=False) or b"")).profile
    columns = (profile.red_colorant, profile.green_colorant, profile.blue_colorant)
    assert np.sum([each[0] for each in columns if each], axis=0) == pytest.approx((0.9642, 1, 0.8249), abs=2e-4)


def test_a_notebook_shows_a_picture_in_its_colours() -> None:
    picture = Picture(frames=(Frame(pixels_hwc=pattern(9, 9)),), metadata=Metadata(color=ColorTags(cicp=(12, 13))))
    assert chunks_in(picture._repr_png_())[b"cICP"] == b"\x0c\x0d\0\1"
