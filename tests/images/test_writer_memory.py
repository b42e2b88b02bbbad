"""What is held while a picture is written whole: measured in a process of its own, against what plans count."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sr_upscale.images import FORMATS
from sr_upscale.inference.memory import PROGRAM_BYTES
from tests.helpers import ROOT

MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from sr_upscale.images import FORMATS, Frame, Picture, SaveOptions, save_image, save_rows

name, channels, frames, quality = sys.argv[1], *map(int, sys.argv[2:5])
options = SaveOptions(quality=quality or None)

def frame(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)

def write(height, width):
    if frames > 1:
        moving = tuple(Frame(pixels_hwc=frame(height, width, seed), duration_ms=50) for seed in range(frames))
        save_image(Picture(frames=moving, loop=0), Path(name), FORMATS[name], options)
    else:
        rows = (frame(50, width, seed) for seed in range(height // 50))
        still = Picture(frames=(Frame(pixels_hwc=np.zeros((1, 1, channels), np.uint8)),))
        save_rows(rows, still, (width, height), Path(name), FORMATS[name], options)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

write(50, 100)
before = peak()
for height in map(int, sys.argv[5:]):
    write(height, 1000)
    print(peak() - before)
"""


def peaks(folder: Path, name: str, channels: int, frames: int, quality: int, heights: Sequence[int]) -> list[int]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "2"}
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, name, *map(str, (channels, frames, quality, *heights))],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line) for line in ran.stdout.split()]


@pytest.mark.parametrize(
    ("name", "channels", "frames", "quality", "heights"),
    [
        ("bmp", 1, 1, 0, (1000, 4000)),
        ("bmp", 3, 1, 0, (1000, 4000)),
        ("webp", 3, 1, 0, (500, 1500)),
        ("webp", 4, 1, 0, (500, 1500)),
        ("webp", 3, 1, 100, (500, 1500)),
        ("webp", 4, 1, 100, (500, 1500)),
        ("gif", 3, 1, 0, (100, 200)),
        ("png", 4, 3, 0, (100, 300)),
        ("webp", 4, 3, 0, (100, 300)),
        ("webp", 4, 6, 100, (100, 300)),
        ("avif", 3, 1, 0, (100, 400)),
        pytest.param("avif", 3, 3, 0, (100, 200), marks=pytest.mark.slow),
        pytest.param("gif", 3, 4, 0, (50, 100), marks=pytest.mark.slow),
        pytest.param("avif", 4, 1, 100, (1000, 3000), marks=pytest.mark.slow),
        pytest.param("avif", 3, 6, 0, (300, 600), marks=pytest.mark.slow),
        pytest.param("gif", 4, 1, 0, (1000, 3000), marks=pytest.mark.slow),
    ],
)
def test_plans_count_what_writers_hold(
    tmp_path: Path, name: str, channels: int, frames: int, quality: int, heights: tuple[int, int]
) -> None:
    """Of noise, of which encoders hold the most, in two sizes: so neither a pixel nor a start is left out."""
    found = peaks(tmp_path, name, channels, frames, quality, heights)
    exact = channels == 4 or quality == 100
    for height, held in zip(heights, found, strict=True):
        planned = FORMATS[name].writer.held(height * 1000, frames=frames, exact=exact)
        assert held <= planned + height * 1000 * frames * channels + PROGRAM_BYTES
