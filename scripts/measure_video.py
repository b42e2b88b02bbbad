"""Measures what docs/video.md says: how far models flicker, and the time of a frame.

    python scripts/measure_video.py PHOTOGRAPH ...                    # both tables
    python scripts/measure_video.py PHOTOGRAPH ... --models photo-x2 --no-times

Flicker is the deviation over time of what should stand still, in levels of 255, mean over pixels. *Panned*: crops of a
photograph, each a pixel further, made smaller, enlarged again and shifted back. *Noise*: one such crop with noise of
1.5 levels, another in every frame. Times are seconds of one processor core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_upscale import Upscaler

FRAMES, SIDE, NOISE = 8, 128, 1.5
SIZES = {"480p": (854, 480), "720p": (1280, 720)}
Enlarge = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def enlarger(name: str, scale: int) -> Enlarge:
    """Returns what enlarges (H, W, 3) uint8 by a factor: a model, or bicubic resampling."""
    if name == "bicubic":

        def bicubic(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
            size = small.shape[1] * scale, small.shape[0] * scale
            return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))

        return bicubic
    upscaler = Upscaler(name)
    return lambda small: upscaler(small, scale=scale)


def smaller(large: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Returns a picture that many times smaller, by bicubic resampling."""
    size = large.shape[1] // scale, large.shape[0] // scale
    return np.asarray(Image.fromarray(large).resize(size, Image.Resampling.BICUBIC))


def panned(photograph: NDArray[np.uint8], enlarge: Enlarge, scale: int) -> float:
    """Returns the deviation of a panned photograph, shifted back, away from its borders."""
    top, left = (photograph.shape[0] - SIDE) // 2, (photograph.shape[1] - SIDE) // 2 - FRAMES // 2
    back = []
    for shift in range(FRAMES):
        crop = photograph[top : top + SIDE, left + shift : left + shift + SIDE]
        back.append(enlarge(smaller(crop, scale))[16:-16, 16 + FRAMES - shift : SIDE - 16 - shift].astype(np.float64))
    return float(np.stack(back).std(axis=0).mean())


def noisy(photograph: NDArray[np.uint8], enlarge: Enlarge, scale: int) -> float:
    """Returns the deviation of a crop that stands still, with noise."""
    top, left = (photograph.shape[0] - SIDE) // 2, (photograph.shape[1] - SIDE) // 2
    small = smaller(photograph[top : top + SIDE, left : left + SIDE], scale).astype(np.float64)
    random = np.random.default_rng(0)
    frames = (
        np.rint(small + random.normal(0, NOISE, small.shape)).clip(0, 255).astype(np.uint8) for _ in range(FRAMES)
    )
    return float(np.stack([enlarge(each).astype(np.float64) for each in frames]).std(axis=0).mean())


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+", type=Path)
    parser.add_argument("--models", nargs="+", default=["bicubic", "psnr", "photo", "photo-fast", "anime"])
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--no-times", action="store_true")
    options = parser.parse_args()
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in options.photographs]
    say(f"| model, x{options.scale} | panned | noise |\n|---|---|---|")
    for name in options.models:
        enlarge = enlarger(name, options.scale)
        values = [np.mean([measure(each, enlarge, options.scale) for each in pictures]) for measure in (panned, noisy)]
        say(f"| {name} | {values[0]:.2f} | {values[1]:.2f} |")
    if options.no_times:
        return
    say("\n| model | " + " | ".join(f"{name} x2" for name in SIZES) + " |\n|---|" + "---|" * len(SIZES))
    for name in options.models:
        seconds = []
        for width, height in SIZES.values():
            frame = np.asarray(Image.fromarray(pictures[0]).resize((width, height), Image.Resampling.BICUBIC))
            enlarge = enlarger(name, 2)
            enlarge(frame[:64, :64])  # loads the weights
            begin = time.process_time()
            enlarge(frame)
            seconds.append(time.process_time() - begin)
        say(f"| {name} | " + " | ".join(f"{each:.1f} s" for each in seconds) + " |")


if __name__ == "__main__":
    main()
