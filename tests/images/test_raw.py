"""Camera raw files are refused by what is in them; every other TIFF is read as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from sr_upscale.errors import InputError
from sr_upscale.images import load_image
from tests.helpers import pattern

THUMBNAIL = pattern(12, 16)
MOSAIC = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60)


def dng(path: Path, **options: Any) -> None:
    """A thumbnail in the first directory, the sensor's samples in one below it, as cameras write it."""
    with tifffile.TiffWriter(path, **options) as file:
        version = [(50706, "B", 4, b"\x01\x04\0\0", True)]
        file.write(THUMBNAIL, photometric="rgb", subifds=1, subfiletype=1, extratags=version)
        file.write(MOSAIC, photometric="cfa")


def nef(path: Path, **options: Any) -> None:
    """The same without a version of DNG."""
    with tifffile.TiffWriter(path, **options) as file:
        file.write(THUMBNAIL, photometric="rgb", subifds=2, subfiletype=1)
        file.write(THUMBNAIL, photometric="rgb")
        file.write(MOSAIC, photometric="cfa")


@pytest.mark.parametrize("write", [dng, nef])
@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}], ids=["little", "big", "BigTIFF"])
def test_raw_files_are_refused(tmp_path: Path, write: Any, options: dict[str, Any]) -> None:
    write(tmp_path / "a.tif", **options)
    with pytest.raises(InputError, match="a camera raw file; develop it first"):
        load_image(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}], ids=["little", "big", "BigTIFF"])
def test_row_72_a_picture_below_its_thumbnail_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """A raw file whose directory below holds developed pixels gave its thumbnail."""
    with tifffile.TiffWriter(tmp_path / "a.tif", **options) as file:
        file.write(THUMBNAIL, photometric="rgb", subifds=1, subfiletype=1)
        file.write(pattern(120, 160), photometric="rgb")
    with pytest.raises(InputError, match=r"first picture, 16x12, is a thumbnail of one of 160x120 \(SubIFD\)"):
        load_image(tmp_path / "a.tif")


def test_smaller_pictures_and_masks_below_one_are_no_reason_to_refuse_it(tmp_path: Path) -> None:
    """A pyramid, as microscopes write it."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pattern(120, 160), photometric="rgb", subifds=3)
        file.write(pattern(60, 80), photometric="rgb", subfiletype=1)
        file.write(pattern(240, 320), photometric="rgb", subfiletype=1)
        file.write(pattern(240, 320, 1)[:, :, 0] > 99, photometric="minisblack", subfiletype=4)
    np.testing.assert_array_equal(load_image(tmp_path / "a.tif").frames[0].pixels_hwc, pattern(120, 160))


def test_canons_are_told_by_their_signature() -> None:
    """CR2: a TIFF header, "CR" and a version behind it, then a first directory that looks like any other."""
    header = b"II*\0" + (16).to_bytes(4, "little") + b"CR\x02\0" + bytes(4)
    with pytest.raises(InputError, match="a camera raw file"):
        load_image(header + bytes(600))


@pytest.mark.parametrize(("photometric", "words"), [(9, "ICCLab"), (99, "of kind 99"), (32845, "LogLuv")])
def test_samples_of_unknown_meaning_are_refused_by_name(tmp_path: Path, photometric: int, words: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", THUMBNAIL, photometric="rgb")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    at = data.index((262).to_bytes(2, "little") + (3).to_bytes(2, "little")) + 8
    data[at : at + 2] = photometric.to_bytes(2, "little")
    with pytest.raises(InputError, match=words):
        load_image(bytes(data))


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    """The next directory is the first again; the picture is read all the same, or the decoder refuses it."""
    tifffile.imwrite(tmp_path / "a.tif", THUMBNAIL, photometric="rgb")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    end = first + 2 + 12 * count
    data[end : end + 4] = first.to_bytes(4, "little")
    np.testing.assert_array_equal(load_image(bytes(data), frame=0).frames[0].pixels_hwc, THUMBNAIL)


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}], ids=["little", "big", "BigTIFF"])
def test_other_tiffs_are_read_as_before(tmp_path: Path, options: dict[str, Any]) -> None:
    for number, (pixels, kind) in enumerate(((THUMBNAIL, "rgb"), (MOSAIC, "minisblack"), (255 - MOSAIC, "miniswhite"))):
        tifffile.imwrite(tmp_path / f"{number}.tif", pixels, photometric=kind, **options)
        assert load_image(tmp_path / f"{number}.tif").width == pixels.shape[1]
