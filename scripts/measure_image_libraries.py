"""Times libraries that can hold 16-bit colour, for docs/images.md.

Needs, besides the package: pip install pypng tifffile opencv-python-headless
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
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
    """Prints rows of the table."""
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
