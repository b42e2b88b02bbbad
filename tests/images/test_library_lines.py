"""Libraries have lines of their own about damaged files. Users get ours, and no other."""

from __future__ import annotations

import contextlib
import io
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from sr_upscale.cli.app import run
from sr_upscale.errors import SrUpscaleError
from sr_upscale.images import load_image
from tests.helpers import ROOT, pattern

KINDS = ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "AVIF"]


def sound(kind: str) -> list[bytes]:
    """Stills, of which some have metadata, and an animation where the format has them."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image, files = Image.fromarray(pattern(40, 60)), []
    more: dict[str, object] = {} if kind in ("BMP", "GIF") else {"exif": exif, "icc_profile": profile}
    variants: list[dict[str, object]] = [{}, more]
    if kind == "TIFF":
        variants += [{"compression": name, **more} for name in ("jpeg", "tiff_lzw", "tiff_deflate", "packbits")]
    if kind in ("PNG", "GIF", "WEBP", "AVIF"):
        frames = [Image.fromarray(np.roll(pattern(40, 60), 5, 1))]
        variants.append({"save_all": True, "append_images": frames, "duration": 50})
    if kind == "JPEG":
        variants.append({"progressive": True})
    for options in variants:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def damaged(kind: str) -> Iterator[bytes]:
    """Files that are cut, and files with other bytes, most of them near the start, where everything but pixels is."""
    chance = random.Random(kind)
    for whole in sound(kind):
        yield from (whole[: len(whole) * tenths // 10] for tenths in (1, 5, 9))
        for _ in range(3):
            bad = bytearray(whole)
            for _ in range(3):
                bad[chance.randrange(12, chance.choice((100, 1000, len(bad))) % len(bad) + 13)] = chance.randrange(256)
            yield bytes(bad)


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_damaged_file_there_is_one_line(
    kind: str, nearest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    refused = 0
    for number, data in enumerate(damaged(kind)):
        path = tmp_path / f"{number}.{kind.lower()}"
        path.write_bytes(data)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("default")
            warnings.simplefilter("ignore", DeprecationWarning)
            code = run([str(path), "-n", str(nearest), "-o", str(tmp_path / "out.png"), "--force", "--quiet"])
        lines = capfd.readouterr().err.splitlines()
        assert code in (0, 4), lines
        assert not warned, [str(each.message) for each in warned]
        if code == 4:
            refused += 1
            assert len(lines) == 1
        assert all(line.startswith(("sr-upscale: ", "warning: ")) for line in lines), lines
    assert refused >= 3


def test_nothing_is_said_at_the_end_of_the_process(tmp_path: Path) -> None:
    """When libvips closes its pictures, after pyvips has stopped to listen to its warnings."""
    buffer = io.BytesIO()
    Image.fromarray(pattern(40, 60)).save(buffer, "JPEG")
    data, path = buffer.getvalue(), tmp_path / "odd.jpg"
    path.write_bytes(data[:2] + b"\xff\xee\x00\x0eAdobe\x00" + bytes(7) + data[2:])  # a byte more than it should be
    code = "import sys; from sr_upscale.images import load_image; read = load_image(sys.argv[1]); print(read.warnings)"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={key: value for key, value in os.environ.items() if key != "VIPS_WARNING"} | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "may be damaged" in ran.stdout
    assert ran.stderr == ""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_no_python_runs_where_libvips_logs(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Garbage that was collected there could warn, too, and GLib ended the process (`VIPS-WARNING (recursed)`)."""
    caplog.set_level("WARNING")
    for data in damaged(kind):
        with contextlib.suppress(SrUpscaleError):
            load_image(data, allow_truncated=True)
    assert [record for record in caplog.records if record.name.startswith("pyvips")] == []
