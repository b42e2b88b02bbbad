"""A page or a screen that is being drawn: its colours, its sizes, its letters, and what may lie on it.

It is drawn larger than the picture and cut out of it, so that letters are cut at the border as they are in a crop.
What belongs to a page and must be kept stands in it: paper's tint, light, stamps, pens, a slight turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont
from rendered_letters import Letters, figure

SIDE = 384
MARGIN = 24
"""Pixels around a picture that are drawn and cut off."""
Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont


def luminance(color: Sequence[float]) -> float:
    return float(np.dot(color, (0.299, 0.587, 0.114)))


def any_color(rng: np.random.Generator) -> Color:
    red, green, blue = (int(each) for each in rng.integers(256, size=3))
    return red, green, blue


def pale(rng: np.random.Generator) -> Color:
    """A light paper: white, gray, cream or a hint of any colour."""
    base = int(rng.integers(225, 256))
    tint = rng.integers(-14, 1, size=3) if rng.random() < 0.5 else np.zeros(3, dtype=int)
    red, green, blue = (int(each) for each in np.clip(base + tint, 0, 255))
    return red, green, blue


def papers(rng: np.random.Generator) -> tuple[Color, Color]:
    """Draws the colours of paper and ink: dark on light in seven of ten, light on dark, or coloured."""
    draw = rng.random()
    if draw < 0.3:
        return (255, 255, 255), (0, 0, 0)
    if draw < 0.7:
        paper, level = pale(rng), int(rng.integers(0, 90))
        ink = (level, level, level) if rng.random() < 0.6 else any_color(rng)
    elif draw < 0.85:
        level = int(rng.integers(0, 60))
        paper, ink = (level, level, min(255, level + int(rng.integers(0, 40)))), pale(rng)
    else:
        paper, ink = any_color(rng), any_color(rng)
    if abs(luminance(paper) - luminance(ink)) < 90:
        ink = (0, 0, 0) if luminance(paper) > 110 else (255, 255, 255)
    return paper, ink


@dataclass
class Sheet:
    """A page that is being drawn.

    Attributes:
        image: Pixels, `zoom` times as many along each side as the picture has, margins included.
        zoom: 1 draws letters on the pixel grid, 2 and more reduces them afterwards.
        paper, ink: Its colours.
    """

    image: Image.Image
    zoom: int
    paper: Color
    ink: Color
    rng: np.random.Generator
    letters: Letters

    def __post_init__(self) -> None:
        self.pen = ImageDraw.Draw(self.image)

    @property
    def side(self) -> int:
        return self.image.width

    def em(self, lowest: float = 26, highest: float = 72) -> int:
        """Draws a size of letters in pixels of the picture, small ones more often, and gives it in pixels drawn."""
        return round(self.zoom * math.exp(self.rng.uniform(math.log(lowest), math.log(highest))))

    def px(self, pixels: float) -> int:
        """Pixels drawn for pixels of the picture."""
        return round(self.zoom * pixels)

    def write(self, x: float, y: float, text: str, font: Font, ink: Color | None = None) -> float:
        """Writes a line with its top at y and returns where it ends."""
        self.pen.text((x, y), text, font=font, fill=ink or self.ink)
        return x + font.getlength(text)

    def tone(self, share: float) -> Color:
        """A colour between paper (0) and ink (1)."""
        mixed = [round(p + (i - p) * share) for p, i in zip(self.paper, self.ink, strict=True)]
        return mixed[0], mixed[1], mixed[2]


def blank(rng: np.random.Generator, letters: Letters, *, zoom: int | None = None) -> Sheet:
    """An empty page of drawn colours."""
    zoom = zoom or (2 if rng.random() < 0.6 else 1)
    paper, ink = papers(rng)
    side = (SIDE + 2 * MARGIN) * zoom
    return Sheet(Image.new("RGB", (side, side), paper), zoom, paper, ink, rng, letters)


def finished(sheet: Sheet, *, turned: float = 0.2) -> Image.Image:
    """Cuts a picture out of a page: turned by up to two degrees now and then, reduced, its margin off."""
    image = sheet.image
    if sheet.rng.random() < turned:
        image = image.rotate(sheet.rng.uniform(-2, 2), Image.Resampling.BICUBIC, fillcolor=sheet.paper)
    image = image.reduce(sheet.zoom) if sheet.zoom > 1 else image
    return image.crop((MARGIN, MARGIN, MARGIN + SIDE, MARGIN + SIDE))


# --- what lies on a page ----------------------------------------------------------------------------


def tinted(sheet: Sheet) -> None:
    """Light that falls off to one side, as on a photographed page; it belongs to the picture."""
    rng, side = sheet.rng, sheet.side
    y, x = np.mgrid[:side, :side] / side
    angle = rng.uniform(0, 2 * np.pi)
    slope = 1 - rng.uniform(0.05, 0.3) * np.clip(np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5) + 0.5, 0, 1)
    tint = rng.uniform(0.9, 1.0, size=3)
    lit = np.asarray(sheet.image) * slope[..., None] * tint
    sheet.image.paste(Image.fromarray(np.rint(lit).astype(np.uint8)))


def stamped(sheet: Sheet) -> None:
    """A stamp: a frame or a ring in one colour with letters, turned, its ink let through."""
    rng, letters = sheet.rng, sheet.letters
    size = sheet.px(rng.uniform(130, 260))
    ink = [(180, 30, 40), (30, 50, 150), (90, 40, 120), (20, 100, 60)][int(rng.integers(4))]
    stamp = Image.new("RGB", (size, size), (255, 255, 255))
    pen, width = ImageDraw.Draw(stamp), max(2, sheet.px(rng.uniform(3, 7)))
    font = letters.face(rng).at(round(size * rng.uniform(0.13, 0.22)))
    if rng.random() < 0.5:
        pen.ellipse((2, 2, size - 3, size - 3), outline=ink, width=width)
        pen.ellipse((size * 0.12, size * 0.12, size * 0.88, size * 0.88), outline=ink, width=max(1, width // 2))
    else:
        pen.rectangle((2, size * 0.25, size - 3, size * 0.75), outline=ink, width=width)
    for share, text in ((0.33, letters.name(rng, "american-english").upper()), (0.52, figure(rng))):
        pen.text(((size - font.getlength(text)) / 2, size * share), text, font=font, fill=ink)
    stamp = stamp.rotate(rng.uniform(-40, 40), Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))
    _multiply(sheet, stamp, tuple(int(each) for each in rng.integers(0, sheet.side - size // 2, size=2)))


def penned(sheet: Sheet) -> None:
    """Strokes of a pen: a scribble, a line below a word, a bright marker."""
    rng = sheet.rng
    layer = Image.new("RGB", sheet.image.size, (255, 255, 255))
    pen = ImageDraw.Draw(layer)
    if rng.random() < 0.4:
        ink = [(255, 245, 90), (150, 255, 150), (255, 180, 220), (255, 210, 120)][int(rng.integers(4))]
        x, y = (rng.uniform(0, sheet.side * 0.7) for _ in range(2))
        pen.rectangle((x, y, x + sheet.side * rng.uniform(0.2, 0.6), y + sheet.px(rng.uniform(30, 60))), fill=ink)
    else:
        ink = [(20, 40, 140), (20, 20, 30), (190, 20, 30)][int(rng.integers(3))]
        count = int(rng.integers(4, 14))
        corners = np.cumsum(rng.normal(0, sheet.px(45), size=(count, 2)), axis=0) + rng.uniform(0, sheet.side, size=2)
        at = np.linspace(0, count - 1, count * 12)
        smooth = [np.interp(at, np.arange(count), corners[:, axis]) for axis in range(2)]
        kernel = np.hanning(15) / np.hanning(15).sum()
        smooth = [np.convolve(each, kernel, mode="valid") for each in smooth]
        width = max(2, sheet.px(rng.uniform(2, 6)))
        pen.line([*zip(*smooth, strict=True)], fill=ink, width=width, joint="curve")
    _multiply(sheet, layer.filter(ImageFilter.GaussianBlur(sheet.zoom * 0.5)), (0, 0))


def _multiply(sheet: Sheet, layer: Image.Image, at: Sequence[int]) -> None:
    box = (at[0], at[1], at[0] + layer.width, at[1] + layer.height)
    sheet.image.paste(ImageChops.multiply(sheet.image.crop(box), layer), (at[0], at[1]))
