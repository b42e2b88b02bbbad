"""How well letters can be read after enlarging: character error rates on pages in fonts that training never saw.

    python scripts/read_letters.py [--packages FOLDER] [--pages N] [--scale N] [--sheet FILE] MODEL [MODEL ...]

A page is a few lines of English in one held-out family (`rendered_letters.held_out`), drawn at four times the size,
reduced by MATLAB's bicubic until its capitals are 5 to 7 pixels high, damaged in one of four ways, enlarged by bicubic
and by each model (names or files), and read by the command tesseract. Pages that HR itself is not read from without
an error are left out. FOLDER holds the packages of `make_pictures.py`; without it they are fetched.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from looks import Way, ways
from make_pictures import fetched, unpacked
from PIL import Image
from rendered_letters import Letters, faces_below
from rendered_scenes import page
from scores import jpeg40

from sr_upscale.data.degradations import gaussian_blur
from sr_upscale.data.rendered import palette
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import resize_pixels
from sr_upscale.metrics.reading import Reader, character_error_rate

Pixels = np.ndarray
Page = tuple[Pixels, str]
"""HR and its text."""
Rates = Mapping[str, Mapping[str, float]]
"""Mean character error rate by way and damage."""
REDUCED = 4
"""HR pixels of an LR pixel; what enlarges by 2 is read at half of HR's size."""
CAPITALS = (20.0, 28.0)
"""Height of an H in HR, in pixels."""
SHOWN = (40, 90)
"""Rows and columns of an LR page that the sheet shows."""
UNREADABLE = ("lobster", "dkghandwriting", "rufscript")
"""Held-out families that imitate a hand; a reader of print is not made for them."""
UINT8 = np.dtype(np.uint8)


def soft(lr: Pixels, _number: int) -> Pixels:
    """Gaussian blur of half a pixel."""
    return to_pixels(gaussian_blur(to_tensor(lr), 0.5), UINT8)


def blur_and_noise(lr: Pixels, number: int) -> Pixels:
    """Gaussian blur of 0.7 pixels, then noise of 8 levels, the same at every call."""
    blurred = to_pixels(gaussian_blur(to_tensor(lr), 0.7), UINT8)
    noise = np.random.default_rng([2, number]).normal(0, 8, lr.shape)
    return np.rint(blurred + noise).clip(0, 255).astype(np.uint8)


def palette8(lr: Pixels, _number: int) -> Pixels:
    """Eight colours, dithered by Floyd and Steinberg."""
    return to_pixels(palette(to_tensor(lr), 8, "floyd-steinberg"), UINT8)


DAMAGES: Mapping[str, Callable[[Pixels, int], Pixels]] = {
    "JPEG 40": jpeg40,
    "blur, noise": blur_and_noise,
    "palette of 8": palette8,
    "soft": soft,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="names or files")
    parser.add_argument("--packages", type=Path, help="folder that holds the packages; default: fetch them")
    parser.add_argument("--pages", type=int, default=16)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--sheet", type=Path, help="write the first pages by every way into this picture")
    arguments = parser.parse_args()
    reader = Reader("eng")
    chosen = pages(arguments.packages, reader, arguments.pages)
    found = ways(arguments.models, [], arguments.scale)
    sys.stdout.write(table(error_rates(chosen, found, reader)) + "\n")
    if arguments.sheet:
        sheet(chosen[:4], found, arguments.scale).save(arguments.sheet)


def pages(packages: Path | None, reader: Reader, count: int) -> list[Page]:
    """Pages in held-out fonts that are read from HR without an error. Without `packages` these are fetched."""
    with tempfile.TemporaryDirectory() as scratch:
        roots = unpacked(packages or fetched(Path(scratch) / "packages"), Path(scratch) / "unpacked")
        return readable(Letters(faces_below(roots), roots, held=True), reader, count)


def readable(letters: Letters, reader: Reader, count: int) -> list[Page]:
    """Draws pages until `count` of them are read from HR without an error."""
    found: list[Page] = []
    for number in range(20 * count):
        if len(found) == count:
            return found
        hr, text = page(letters, np.random.default_rng([8, number]), CAPITALS, skipped=UNREADABLE)
        if character_error_rate(reader(hr), text) == 0:
            found.append((hr, text))
    sys.exit(f"{len(found)} of {count} pages are read from HR without an error; expected all: is it tesseract 5?")


def damaged(chosen: Sequence[Page]) -> Iterator[tuple[str, Pixels, str]]:
    """(damage, LR, text) of every page under every damage."""
    for number, (hr, text) in enumerate(chosen):
        lr = resize_pixels(hr, (hr.shape[0] // REDUCED, hr.shape[1] // REDUCED))
        for name, damage in DAMAGES.items():
            yield name, damage(lr, number), text


def error_rates(chosen: Sequence[Page], found: Mapping[str, Way], reader: Reader) -> Rates:
    """Reads every page under every damage by every way."""
    rates = {way: dict.fromkeys(DAMAGES, 0.0) for way in found}
    for name, lr, text in damaged(chosen):
        for way, enlarge in found.items():
            rates[way][name] += character_error_rate(reader(enlarge(lr)), text) / len(chosen)
    return rates


def table(rates: Rates) -> str:
    """Markdown: a row for each way, a column for each damage, and the mean."""
    lines = [f"| way | {' | '.join(DAMAGES)} | mean |", f"|---{'|---' * (len(DAMAGES) + 1)}|"]
    for way, by_damage in sorted(rates.items()):
        means = [by_damage[name] for name in DAMAGES]
        lines.append(f"| {way} | {' | '.join(f'{mean:.3f}' for mean in (*means, np.mean(means)))} |")
    return "\n".join(lines)


def sheet(chosen: Sequence[Page], found: Mapping[str, Way], scale: int) -> Image.Image:
    """The top left of each page under each damage, a row for both and a column for each way."""
    height, width = (side * scale for side in SHOWN)
    rows = [[enlarge(lr)[:height, :width] for enlarge in found.values()] for _name, lr, _text in damaged(chosen)]
    return Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows]))


if __name__ == "__main__":
    main()
