"""Sizes on paper, read back by Pillow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from sr_upscale.errors import UsageError
from sr_upscale.pipeline.request import SizeOptions
from tests.helpers import Cli, pattern


@pytest.mark.parametrize(
    ("words", "size", "dpi"),
    [
        (("--print", "40x30mm"), (472, 354), 300),
        (("--print", "4x3cm", "--dpi", "200"), (315, 236), 200),
        (("--print", "1.5x1in", "--dpi", "100", "--fit", "cover"), (150, 100), 100),
        (("--print", "1.5x1in", "--dpi", "100"), (133, 100), 100),
        (("--dpi", "240"), (128, 96), 240),
    ],
)
@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.tif"])
def test_the_size_on_paper_is_in_the_file(
    cli: Cli, tmp_path: Path, nearest: Path, words: tuple[str, ...], size: tuple[int, int], dpi: float, name: str
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = 72.0
    Image.fromarray(pattern(48, 64)).save(tmp_path / "in.jpg", exif=exif, dpi=(72, 72))
    run = (tmp_path / "in.jpg", "-n", nearest, "-o", tmp_path / name, *words)
    assert json.loads(cli(*run, "--dry-run", "--json").out)["output_size"] == list(size)
    assert cli(*run).code == 0
    with Image.open(tmp_path / name) as image:
        assert image.size == size
        assert image.info["dpi"] == pytest.approx((dpi, dpi), abs=0.01)
        assert image.getexif().get(ExifTags.Base.XResolution, dpi) == pytest.approx(dpi)


def test_a_format_without_a_resolution_says_so(cli: Cli, tmp_path: Path, nearest: Path) -> None:
    Image.fromarray(pattern(5, 5)).save(tmp_path / "in.png")
    ran = cli(tmp_path / "in.png", "-n", nearest, "-o", tmp_path / "out.webp", "--dpi", "300")
    assert (ran.code, ran.err) == (0, "warning: webp states no resolution; png, jpg and tif do\n")


@pytest.mark.parametrize("others", [{"size": (3, 3)}, {"width": 3}, {"height": 3}, {"scale": 2.0}])
def test_sizes_that_contradict_each_other(others: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="contradict each other"):
        SizeOptions(print=(4.0, 3.0), **others)
