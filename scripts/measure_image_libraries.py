"""Times libraries that can hold 16-bit colour, or ways to compress a picture, for docs/images.md.

    python scripts/measure_image_libraries.py            # libraries
    python scripts/measure_image_libraries.py PICTURE    # compression of PICTURE, enlarged to 4096x4096

Needs, besides the package: pip install pypng tifffile opencv-python-headless
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import png
import pyvips
import tifffile
from PIL import Image


def main() -> None:
    """Prints rows of a table."""
    if len(sys.argv) > 1:
        compression(Path(sys.argv[1]))
    else:
        libraries()


def compression(photo: Path) -> None:
    """CPU seconds and sizes of encoders, one thread."""
    with Image.open(photo) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").crop((left, top, left + side, top + side))
    large = square.resize((4096, 4096), Image.Resampling.BICUBIC)
    pixels = np.asarray(large)
    memory = pyvips.Image.new_from_memory(pixels.data, 4096, 4096, 3, "uchar").copy(interpretation="srgb")
    ways: dict[str, Callable[[str], Any]] = {
        "PNG, Pillow, default": lambda path: large.save(path, "PNG"),
        "PNG, Pillow, level 1": lambda path: large.save(path, "PNG", compress_level=1),
    }
    for name, level in [(name, level) for name in ("none", "up", "paeth", "all") for level in range(1, 7)]:
        ways[f"PNG, filter {name}, level {level}"] = partial(memory.pngsave, compression=level, filter=name)
    for level in range(1, 7):
        deflate = {"compression": "deflate", "predictor": "horizontal"}
        ways[f"TIFF, level {level}"] = partial(memory.tiffsave, **deflate, level=level)
    jpeg = {"quality": 95, "subsampling": 0}
    ways["JPEG 95, Pillow, optimized"] = lambda path: large.save(path, "JPEG", **jpeg, optimize=True)
    for optimize in (True, False):
        words = "optimized" if optimize else "usual tables"
        ways[f"JPEG 95, {words}"] = partial(memory.jpegsave, Q=95, subsample_mode="off", optimize_coding=optimize)
    with tempfile.TemporaryDirectory() as folder:
        for name, way in ways.items():
            path = os.path.join(folder, "out")
            start = time.process_time()
            way(path)
            seconds = time.process_time() - start
            megabytes = os.path.getsize(path) / 1e6
            sys.stdout.write(f"| {name} | {seconds / (pixels.size / 3e6):.3f} | {megabytes:.2f} |\n")
            sys.stdout.flush()


def libraries() -> None:
    """Seconds of libraries."""
    y, x = np.mgrid[0:3000, 0:4000]
    slopes = np.stack([x * 13 + y * 7, x * 5 + y * 11, (x + y) * 9], -1) % 65536
    noise = np.random.default_rng(0).integers(0, 64, slopes.shape)
    pixels = np.clip(slopes + noise, 0, 65535).astype(np.uint16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for library, (save, load) in CODECS.items():
            cells, kept = [], []
            for suffix in (".png", ".tif"):
                path = folder / f"{library}{suffix}"
                try:
                    saved, _none = timed(save, path, pixels)
                    loaded, back = timed(load, path)
                except (ValueError, TypeError, KeyError):
                    cells += ["-", "-"]
                    continue
                cells += [f"{saved:.2f}", f"{loaded:.2f}"]
                kept.append(np.array_equal(back, pixels))
            verdict = "yes" if kept and all(kept) else "no"
            sys.stdout.write(f"| {library} | {' | '.join(cells)} | {verdict} | {installed_mb(library):.0f} |\n")


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds, and what came out."""
    start = time.monotonic()
    result = work(*arguments)
    return time.monotonic() - start, result


def installed_mb(library: str) -> float:
    """Size of the library's files on disk, in MB."""
    files = [file for name in PACKAGES[library] for file in metadata.distribution(name).files or ()]
    paths = [Path(str(file.locate())) for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def vips_save(path: Path, pixels: Any) -> None:
    """With the settings of `sr_upscale.images.encode`."""
    image = pyvips.Image.new_from_memory(pixels.data, pixels.shape[1], pixels.shape[0], 3, "ushort")
    image = image.copy(interpretation="rgb16")
    options = {"compression": "deflate", "predictor": "horizontal"} if path.suffix == ".tif" else {}
    image.write_to_file(str(path), **options)


def tifffile_save(path: Path, pixels: Any) -> None:
    """TIFF only."""
    if path.suffix != ".tif":
        raise ValueError
    tifffile.imwrite(path, pixels, compression="zlib", predictor=True)


def pypng_save(path: Path, pixels: Any) -> None:
    """PNG only."""
    if path.suffix != ".png":
        raise ValueError
    with path.open("wb") as file:
        writer = png.Writer(pixels.shape[1], pixels.shape[0], bitdepth=16, greyscale=False)
        writer.write(file, pixels.reshape(pixels.shape[0], -1))


def pypng_load(path: Path) -> Any:
    """PNG only."""
    width, _height, rows, _info = png.Reader(str(path)).asDirect()
    return np.vstack([np.asarray(row, dtype=np.uint16) for row in rows]).reshape(-1, width, 3)


CODECS: dict[str, tuple[Callable[[Path, Any], Any], Callable[[Path], Any]]] = {
    "pyvips": (vips_save, lambda path: pyvips.Image.new_from_file(str(path)).numpy()),
    "OpenCV": (
        lambda path, pixels: cv2.imwrite(str(path), pixels[:, :, ::-1]),
        lambda path: cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:, :, ::-1],
    ),
    "tifffile": (tifffile_save, tifffile.imread),
    "pypng": (pypng_save, pypng_load),
    "Pillow": (lambda path, pixels: Image.fromarray(pixels).save(path), lambda path: np.asarray(Image.open(path))),
}

PACKAGES = {
    "pyvips": ["pyvips", "pyvips-binary"],
    "OpenCV": ["opencv-python-headless"],
    "tifffile": ["tifffile"],
    "pypng": ["pypng"],
    "Pillow": ["pillow"],
}

if __name__ == "__main__":
    main()
