"""JPEG XL: pixels, metadata and refusals, against the pixels that were written and files of cjxl and djxl."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_upscale.errors import InputError, UsageError
from sr_upscale.images import load_image
from sr_upscale.images.encode import save_image
from sr_upscale.images.formats import SaveOptions
from sr_upscale.images.picture import Frame, Metadata, Picture
from tests.helpers import Cli, p3_profile, pattern

pyjpegxl = pytest.importorskip("pyjpegxl")

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Label="Ann"/></rdf:RDF></x:xmpmeta>'
)
MOVING = base64.b64decode(
    "/wrBBQFYUFwSCAigAgAARABLGIsVgF3A/wISAIBzOWr4AwgIoEIAAGgASxiLFQDUijHGSEVeQAIAyJEIAMlh/Lbgxf4="
)
"""Two frames of 16x8, by cjxl 0.7 from a GIF."""


def written(path: Path, pixels: Any, quality: int | None = None, **metadata: Any) -> Path:
    picture = Picture(frames=(Frame(pixels_hwc=pixels),), format="png", metadata=Metadata(**metadata))
    save_image(picture, path, options=SaveOptions(quality=quality))
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_stay_bit_for_bit(tmp_path: Path, channels: int, dtype: type) -> None:
    pixels = pattern(40, 56, channels, dtype)
    path = written(tmp_path / "a.jxl", pixels)
    picture = load_image(path)
    assert (picture.format, picture.bits) == ("jxl", 8 * np.dtype(dtype).itemsize)
    assert np.array_equal(picture.frames[0].pixels_hwc, pixels)
    if shutil.which("djxl") and channels == 3:
        subprocess.run(["djxl", path, tmp_path / "a.png"], check=True, capture_output=True)
        assert np.array_equal(load_image(tmp_path / "a.png").frames[0].pixels_hwc, pixels)


def test_quality_follows_the_scale_of_jpeg(tmp_path: Path) -> None:
    """Less quality, smaller and further away; 90 is libjxl's distance of 1, its default."""
    pixels = pattern(96, 128)
    sizes, errors = [], []
    for quality in (100, 90, 60, 20):
        path = written(tmp_path / f"{quality}.jxl", pixels, quality)
        found = np.asarray(load_image(path).frames[0].pixels_hwc)
        sizes.append(path.stat().st_size)
        errors.append(np.abs(found.astype(float) - pixels).mean())
    assert errors[0] == 0
    assert errors == sorted(errors)
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    assert (tmp_path / "90.jxl").read_bytes() == pyjpegxl.encode_from_numpy(pixels, quality=1.0)


def test_metadata_is_kept_and_a_profile_becomes_srgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 1, "Maker"
    with pytest.warns(UserWarning, match="sRGB"):
        path = written(tmp_path / "a.jxl", pattern(24, 32), exif=exif.tobytes()[6:], xmp=XMP, icc=p3_profile())
    picture = load_image(path)
    found = Image.Exif()
    found.load(picture.metadata.exif or b"")
    assert found[0x010F] == "Maker"
    assert b"Ann" in (picture.metadata.xmp or b"")
    assert picture.metadata.icc is None
    assert np.abs(np.asarray(picture.frames[0].pixels_hwc).astype(int) - pattern(24, 32)).max() > 0


@pytest.mark.skipif(shutil.which("cjxl") is None, reason="needs libjxl's cjxl")
def test_a_profile_and_a_turn_are_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(pattern(24, 32))
    picture.save(tmp_path / "a.jpg", icc_profile=p3_profile(), exif=exif, quality=95, subsampling=0)
    subprocess.run(["cjxl", tmp_path / "a.jpg", tmp_path / "a.jxl"], check=True, capture_output=True)
    found = load_image(tmp_path / "a.jxl")
    assert found.metadata.icc == p3_profile()
    assert (found.width, found.height) == (24, 32)
    with Image.open(tmp_path / "a.jpg") as opened:
        turned = np.rot90(np.asarray(opened), -1)
    assert np.abs(np.asarray(found.frames[0].pixels_hwc).astype(int) - turned).max() <= 24  # decoders of JPEG differ


def test_an_animation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jxl").write_bytes(MOVING)
    with pytest.raises(InputError, match="animated"):
        load_image(tmp_path / "a.jxl")


@pytest.mark.parametrize("part", [0.5, 0.05])
def test_a_cut_file_is_refused(tmp_path: Path, part: float) -> None:
    data = written(tmp_path / "a.jxl", pattern(64, 64)).read_bytes()
    (tmp_path / "b.jxl").write_bytes(data[: int(part * len(data))])
    with pytest.raises(InputError, match="get the file again"):
        load_image(tmp_path / "b.jxl")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.jxl", pattern(24, 32))
    monkeypatch.setitem(sys.modules, "pyjpegxl", None)
    with pytest.raises(InputError, match="jxl"):
        load_image(path)
    with pytest.raises(UsageError, match="jxl"):
        written(tmp_path / "b.jxl", pattern(24, 32))


def test_by_command(cli: Cli, nearest: Path, tmp_path: Path) -> None:
    """16 bits go through the command unchanged."""
    pixels = pattern(12, 16, 3, np.uint16)
    source = written(tmp_path / "a.jxl", pixels)
    cli(source, "-n", nearest, "-o", tmp_path / "b.jxl", "--fp32", code=0)
    found = load_image(tmp_path / "b.jxl")
    assert (found.bits, found.height) == (16, 24)
    opaque = np.asarray(found.frames[0].pixels_hwc)[::2, ::2]
    assert np.array_equal(opaque[..., :3], pixels[..., :3])
