"""What is held while a picture is written whole: measured in a process of its own, against what plans count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sr_upscale.images import FORMATS
from tests.helpers import ROOT

MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from sr_upscale.images import FORMATS, Frame, Picture, SaveOptions, save_image, save_rows

name, channels, frames, quality = sys.argv[1], *map(int, sys.argv[2:5])
options = SaveOptions(quality=quality or None)

def frame(height, width):
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 12, (height, width, channels), np.uint8)
    return ((x + y) // 7 % 200)[..., None].astype(np.uint8) + noise

def write(height, width):
    if frames > 1:
        moving = tuple(Frame(pixels_hwc=np.roll(frame(height, width), 9 * n, 1), duration_ms=50) for n in range(frames))
        save_image(Picture(frames=moving, loop=0), Path(name), FORMATS[name], options)
    else:
        rows = (frame(50, width) for _ in range(height // 50))
        still = Picture(frames=(Frame(pixels_hwc=np.zeros((1, 1, channels), np.uint8)),))
        save_rows(rows, still, (width, height), Path(name), FORMATS[name], options)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

write(50, 100)
before = peak()
write(HEIGHT, 1000)
print((peak() - before) / (HEIGHT * 1000 * frames))
"""


def bytes_per_pixel(folder: Path, name: str, channels: int, frames: int, quality: int, height: int) -> float:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "2"}
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE.replace("HEIGHT", str(height)), name, *map(str, (channels, frames, quality))],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(ran.stdout)


@pytest.mark.parametrize(
    ("name", "channels", "frames", "quality", "height"),
    [
        ("bmp", 1, 1, 0, 4000),
        ("bmp", 3, 1, 0, 4000),
        ("webp", 3, 1, 0, 1000),
        ("gif", 3, 1, 0, 1000),
        ("png", 3, 3, 0, 300),
        ("webp", 3, 3, 0, 300),
        pytest.param("avif", 3, 1, 0, 6000, marks=pytest.mark.slow),
    ],
)
def test_plans_count_what_writers_hold(
    tmp_path: Path, name: str, channels: int, frames: int, quality: int, height: int
) -> None:
    found = bytes_per_pixel(tmp_path, name, channels, frames, quality, height)
    assert found <= channels + FORMATS[name].writer_bytes
