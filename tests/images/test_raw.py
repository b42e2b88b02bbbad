"""Camera raw files are found by what is in them, and developed; every other TIFF is read as before."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from sr_upscale.errors import InputError
from sr_upscale.images import load_image
from tests.helpers import Cli, pattern

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
def test_raw_files_need_an_extra_or_are_refused(
    tmp_path: Path, write: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.tif", **options)
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(InputError, match=r"a camera raw file, .* needs an extra; .*'\.\[raw\]'.*, or develop it first"):
        load_image(tmp_path / "a.tif")


def real_dng(path: Path, orientation: int) -> None:
    """A DNG that LibRaw develops: samples of red, green and blue in turn, a colour matrix and a white balance."""
    y, x = np.mgrid[:80, :120]
    channels = (2000 + 50 * x, 3000 + 60 * y, 9000 - 55 * x)
    mosaic = np.choose((y % 2) + (x % 2), channels).astype(np.uint16)
    matrix = [value for entry in (9, -3, -1, -4, 12, 2, -1, 2, 6) for value in (entry, 10)]
    tags = [
        (50706, "B", 4, b"\x01\x04\0\0", True), (50707, "B", 4, b"\x01\x01\0\0", True),
        (50708, "s", 0, "Testcam", True),
        (33421, "H", 2, (2, 2), True), (33422, "B", 4, b"\0\1\1\2", True), (50721, "2i", 9, matrix, True),
        (50728, "2I", 3, [5, 10, 10, 10, 6, 10], True), (50778, "H", 1, 21, True), (50717, "H", 1, 16383, True),
        (271, "s", 0, "Test", True), (274, "H", 1, orientation, True),
    ]  # fmt: skip
    tifffile.imwrite(path, mosaic, photometric="cfa", extratags=tags, metadata=None)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.skipif(shutil.which("dcraw_emu") is None, reason="needs LibRaw's own program (Debian: libraw-bin)")
def test_a_raw_file_is_developed_as_libraws_own_program_does(tmp_path: Path, orientation: int) -> None:
    pytest.importorskip("rawpy")
    real_dng(tmp_path / "a.dng", orientation)
    command = ["dcraw_emu", "-w", "-6", "-o", "1", "-g", "2.4", "12.92", "-T", str(tmp_path / "a.dng")]
    subprocess.run(command, check=True, capture_output=True)
    picture = load_image(tmp_path / "a.dng")
    expected = tifffile.imread(tmp_path / "a.dng.tiff").astype(int)
    assert np.abs(np.asarray(picture.frames[0].pixels_hwc) - expected).max() <= 16  # of 65 535: releases may round
    exif = Image.Exif()
    exif.load(picture.metadata.exif or b"")
    assert (exif[ExifTags.Base.Make], exif.get(ExifTags.Base.Orientation, 1)) == ("Test", 1)


def test_raw_files_of_a_folder_come_out_as_png(
    cli: Cli, tmp_path: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rawpy")
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.dng", "b.DNG"):
        real_dng(folder / name, 1)
    Image.fromarray(THUMBNAIL).save(folder / "a.png")
    assert cli("batch", folder, "-o", out, "-n", nearest).code == 0
    sizes = {path.name: (load_image(path).size, load_image(path).bits) for path in out.glob("*.png")}
    assert sizes == {"a.png": ((32, 24), 8), "a_dng.png": ((240, 160), 16), "b.png": ((240, 160), 16)}
    monkeypatch.setattr("sr_upscale.pipeline.batch_plan.has_raw", lambda: False)
    without = cli("batch", folder, "-o", tmp_path / "less", "-n", nearest)
    assert (without.code, "2 camera raw files are left out; run `" in without.err) == (0, True)
    assert [path.name for path in (tmp_path / "less").glob("*.png")] == ["a.png"]


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
    with pytest.raises(InputError, match="a camera raw file(, for which| that LibRaw does not read)"):
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
