"""``sr-upscale degrade``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import downscale_matlab
from tests.helpers import Cli, pattern


def test_writes_versions_and_a_sheet(cli: Cli, tmp_path: Path) -> None:
    Image.fromarray(pattern(70, 97)).save(tmp_path / "hr.png")
    ran = cli("degrade", tmp_path / "hr.png", "--count", "5", "--json", code=0)
    result = json.loads(ran.out)
    versions = [np.asarray(Image.open(file)) for file in result["files"]]
    assert {version.shape for version in versions} == {(17, 24, 3)}
    assert len({version.tobytes() for version in versions}) == 5
    sheet = np.asarray(Image.open(result["sheet"]))
    assert sheet.shape == (34, 96, 3)
    np.testing.assert_array_equal(sheet[:17, 24:48], versions[1])
    again = cli("degrade", tmp_path / "hr.png", "--count", "5", code=5)
    assert "exists; add --force" in again.err
    assert cli("degrade", tmp_path / "hr.png", "--count", "5", "-o", tmp_path / "other").code == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "other" / "hr_002.png")), versions[2])


def test_clean_recipes_make_matlabs_lr(cli: Cli, tmp_path: Path) -> None:
    pixels = pattern(64, 80)
    Image.fromarray(pixels).save(tmp_path / "hr.png")
    assert cli("degrade", tmp_path / "hr.png", "-c", "psnr-x4", "-o", tmp_path / "lr").code == 0
    expected = to_pixels(downscale_matlab(to_tensor(pixels), 4), np.dtype(np.uint8))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "lr" / "hr_000.png")), expected)


def test_gray_and_16_bits_are_taken(cli: Cli, tmp_path: Path) -> None:
    Image.fromarray(pattern(40, 40, 1, np.uint16)[..., 0]).save(tmp_path / "gray.png")
    assert cli("degrade", tmp_path / "gray.png", "--count", "1").code == 0


def test_small_pictures_are_refused(cli: Cli, photo: Path) -> None:
    ran = cli("degrade", photo, code=4)
    assert "21x13 is too small; expected 32 pixels or more" in ran.err
