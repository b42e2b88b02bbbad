"""How well letters can be read after enlarging: character error rates on pages in fonts that training never saw.

    python scripts/read_letters.py [--packages FOLDER] [--pages N] [--sheet FILE] MODEL [MODEL ...]

A page is a few lines of English in one held-out family (`rendered_letters.held_out`), drawn at four times the size,
reduced by MATLAB's bicubic until its capitals are 5 to 7 pixels high, damaged in one of four ways, enlarged by bicubic
and by each model (names or files), and read by the command tesseract. Pages that HR itself is not read from without
an error are left out. FOLDER holds the packages of `make_pictures.py`; without it they are fetched.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from looks import Way, ways
from make_pictures import fetched, unpacked
from PIL import Image, ImageDraw
from rendered_letters import Letters, faces_below
from scores import jpeg40

from sr_upscale.data.degradations import gaussian_blur
from sr_upscale.data.rendered import palette
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import resize_pixels
from sr_upscale.metrics.reading import Reader, character_error_rate

Pixels = np.ndarray
SCALE, HEIGHT, WIDTH = 4, 320, 720
CAPITALS = (5.0, 7.0)
"""Height of an H in LR, in pixels."""
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
    parser.add_argument("--sheet", type=Path, help="write the first pages by every way into this picture")
    arguments = parser.parse_args()
    reader = Reader("eng")
    with tempfile.TemporaryDirectory() as scratch:
        packages = arguments.packages or fetched(Path(scratch) / "packages")
        roots = unpacked(packages, Path(scratch) / "unpacked")
        letters = Letters(faces_below(roots), roots, held=True)
        chosen = pages(letters, reader, arguments.pages)
    found = ways(arguments.models, [], SCALE)
    sys.stdout.write(table(error_rates(chosen, found, reader)) + "\n")
    if arguments.sheet:
        sheet(chosen[:4], found).save(arguments.sheet)


def pages(letters: Letters, reader: Reader, count: int) -> list[tuple[Pixels, str]]:
    """(HR, text) of pages that are read from HR without an error, one family after the other."""
    found: list[tuple[Pixels, str]] = []
    for number in range(20 * count):
        if len(found) == count:
            return found
        hr, text = page(letters, np.random.default_rng([8, number]))
        if character_error_rate(reader(hr), text) == 0:
            found.append((hr, text))
    sys.exit(f"{len(found)} of {count} pages are read from HR without an error; expected all: is it tesseract 5?")


def page(letters: Letters, rng: np.random.Generator) -> tuple[Pixels, str]:
    """Draws lines of English, dark on light, and gives HR and the text."""
    face = letters.face(rng)
    while any(name in face.family.lower() for name in UNREADABLE):
        face = letters.face(rng)
    height = rng.uniform(*CAPITALS) * SCALE
    probe = face.at(100).getbbox("H")
    font = face.at(round(100 * height / (probe[3] - probe[1])))
    paper, ink = int(rng.integers(235, 256)), int(rng.integers(0, 60))
    image = Image.new("RGB", (WIDTH, HEIGHT), (paper,) * 3)
    pen, leading, y, lines = ImageDraw.Draw(image), font.size * 1.35, 16.0, list[str]()
    while y + leading < HEIGHT:
        line = letters.word(rng, "american-english").capitalize()
        while True:
            longer = f"{line} {letters.word(rng, 'american-english')}"
            if font.getlength(longer) > WIDTH - 60:
                break
            line = longer
        pen.text((28, y), line, font=font, fill=(ink,) * 3)
        lines.append(line)
        y += leading
    return np.asarray(image), " ".join(lines)


def damaged(chosen: list[tuple[Pixels, str]]) -> Iterator[tuple[str, Pixels, str]]:
    """(damage, LR, text) of every page under every damage."""
    for number, (hr, text) in enumerate(chosen):
        lr = resize_pixels(hr, (HEIGHT // SCALE, WIDTH // SCALE))
        for name, damage in DAMAGES.items():
            yield name, damage(lr, number), text


def error_rates(
    chosen: list[tuple[Pixels, str]], found: Mapping[str, Way], reader: Reader
) -> dict[str, dict[str, list[float]]]:
    """Character error rates by way and damage, one for each page."""
    rates = {way: {name: list[float]() for name in DAMAGES} for way in found}
    for name, lr, text in damaged(chosen):
        for way, enlarge in found.items():
            rates[way][name].append(character_error_rate(reader(enlarge(lr)), text))
    return rates


def table(rates: Mapping[str, Mapping[str, list[float]]]) -> str:
    """Markdown: a row for each way, a column for each damage, and the mean."""
    count = len(next(iter(rates["bicubic"].values())))
    lines = [f"| CER, {count} pages | {' | '.join(DAMAGES)} | mean |", f"|---{'|---' * (len(DAMAGES) + 1)}|"]
    for way, by_damage in rates.items():
        means = [float(np.mean(each)) for each in by_damage.values()]
        lines.append(f"| {way} | {' | '.join(f'{mean:.3f}' for mean in (*means, np.mean(means)))} |")
    return "\n".join(lines)


def sheet(chosen: list[tuple[Pixels, str]], found: Mapping[str, Way]) -> Image.Image:
    """The left half of each page under each damage, a row for both and a column for each way."""
    rows = [[enlarge(lr)[:, : WIDTH // 2] for enlarge in found.values()] for _name, lr, _text in damaged(chosen)]
    return Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows]))


if __name__ == "__main__":
    main()
