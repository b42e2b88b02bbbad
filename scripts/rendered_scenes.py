"""Draws pages, screens, drawings, charts, maps and flags, each a square of `SIDE` pixels, RGB.

A sheet is drawn larger than the picture and cut out of it, so that letters are cut at the border as they are in a
crop. Drawings are SVG files of several sets (`SETS`), each file held out or not by a hash of its name.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rendered_letters import Letters, faces_below, figure, held_out

SIDE = 384
MARGIN = 24
"""Pixels around a picture that are drawn and cut off."""
Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont
SETS = {
    "openmoji": "color/svg/*.svg",
    "twemoji-svg": "*.svg",
    "openclipart-svg": "**/*.svg",
    "breeze-icon-theme": "breeze/*/64/*.svg",
    "tango-icon-theme": "scalable/*/*.svg",
    "flag-icons": "4x3/*.svg",
}
"""Sets of drawings by their package, and where each has its files."""
ICONS, FLAGS = ("breeze-icon-theme", "tango-icon-theme"), ("flag-icons",)
LARGEST = 60_000
"""Bytes of the largest SVG that is drawn: clip art of megabytes takes seconds."""


@dataclass(frozen=True)
class Sources:
    """What pictures of one part are drawn of: fonts and phrases, drawings by set, outlines of countries."""

    letters: Letters
    drawings: Mapping[str, Sequence[Path]]
    rings: Sequence[np.ndarray] = ()

    @classmethod
    def below(cls, root: Path, *, held: bool) -> Sources:
        """Finds them in unpacked packages."""
        drawings = {
            name: [
                file
                for file in sorted((root / name).rglob(pattern))
                if held_out(file.stem) == held and file.stat().st_size < LARGEST and not file.is_symlink()
            ]
            for name, pattern in SETS.items()
        }
        rings = read_countries(next((root / "world-atlas").rglob("countries-50m.json")))
        return cls(Letters(faces_below(root), root, held=held), drawings, rings)


# --- a sheet ----------------------------------------------------------------------------------------


def any_color(rng: np.random.Generator, lowest: int = 0) -> Color:
    red, green, blue = (int(each) for each in rng.integers(lowest, 256, size=3))
    return red, green, blue


def pale(rng: np.random.Generator) -> Color:
    """A light paper: white, gray, cream or a hint of any colour."""
    base = int(rng.integers(225, 256))
    red, green, blue = (base - int(each) for each in rng.integers(0, 15, size=3) * int(rng.integers(2)))
    return red, green, blue


def dark(color: Color) -> bool:
    return float(np.dot(color, (0.299, 0.587, 0.114))) < 110


def papers(rng: np.random.Generator) -> tuple[Color, Color]:
    """Draws the colours of paper and ink: dark on light in seven of ten, light on dark, or coloured."""
    draw, level = rng.random(), int(rng.integers(0, 70))
    if draw < 0.3:
        return (255, 255, 255), (0, 0, 0)
    if draw < 0.7:
        return pale(rng), (level, level, level)
    if draw < 0.85:
        return (level, level, min(255, level + int(rng.integers(0, 40)))), pale(rng)
    paper, ink = any_color(rng), any_color(rng)
    if sum(abs(a - b) for a, b in zip(paper, ink, strict=True)) < 300:
        ink = (255, 255, 255) if dark(paper) else (0, 0, 0)
    return paper, ink


@dataclass
class Sheet:
    """What is being drawn: pixels, `zoom` times as many along each side as the picture has, and its colours.

    A zoom of 1 draws letters on the pixel grid, 2 reduces them afterwards.
    """

    rng: np.random.Generator
    sources: Sources

    def __post_init__(self) -> None:
        self.letters = self.sources.letters
        self.zoom = 2 if self.chance(0.6) else 1
        self.paper, self.ink = papers(self.rng)
        self.side = (SIDE + 2 * MARGIN) * self.zoom
        self.image = Image.new("RGB", (self.side, self.side), self.paper)
        self.pen = ImageDraw.Draw(self.image)

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def px(self, least: float, most: float | None = None) -> int:
        """Pixels drawn for pixels of the picture, or for a random number of them."""
        return round(self.zoom * (least if most is None else self.rng.uniform(least, most)))

    def em(self, least: float = 26, most: float = 64) -> int:
        """Draws a size of letters or drawings, small ones more often."""
        return round(self.zoom * math.exp(self.rng.uniform(math.log(least), math.log(most))))

    def write(self, x: float, y: float, text: str, font: Font, ink: Color | None = None) -> float:
        """Writes a line with its top at y and returns where it ends."""
        self.pen.text((x, y), text, font=font, fill=ink or self.ink)
        return x + font.getlength(text)

    def tone(self, share: float) -> Color:
        """A colour between paper (0) and ink (1)."""
        red, green, blue = (round(p + (i - p) * share) for p, i in zip(self.paper, self.ink, strict=True))
        return red, green, blue

    def slope(self) -> None:
        """Paints the ground with a slope between two colours."""
        y, x = np.mgrid[: self.side, : self.side] / self.side
        angle = self.rng.uniform(0, 2 * np.pi)
        share = ((np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5) + 0.7) / 1.4)[..., None].clip(0, 1)
        first, second = (np.array(any_color(self.rng), dtype=float) for _ in range(2))
        self.image.paste(Image.fromarray(np.rint(first + (second - first) * share).astype(np.uint8)))

    def paste(self, sets: Sequence[str], width: float, at: tuple[float, float], turn: float = 0.0) -> None:
        """Pastes a drawing of one of the sets, its top left corner at `at`; nothing where it cannot be rendered."""
        import resvg_py

        files = self.sources.drawings[str(self.rng.choice(sets))]
        file = files[int(self.rng.integers(len(files)))]
        try:
            png = resvg_py.svg_to_bytes(svg_path=str(file), width=max(8, round(width)), skip_system_fonts=True)
        except ValueError:
            return
        picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
        if picture.height <= 4 * picture.width:
            picture = picture.rotate(turn, Image.Resampling.BICUBIC, expand=True)
            self.image.paste(picture, (round(at[0]), round(at[1])), picture)

    def finished(self, *, turned: float = 0.0) -> Image.Image:
        """Cuts the picture out: turned by up to two degrees now and then, reduced, its margin off."""
        image = self.image
        if self.chance(turned):
            image = image.rotate(self.rng.uniform(-2, 2), Image.Resampling.BICUBIC, fillcolor=self.paper)
        return image.reduce(self.zoom).crop((MARGIN, MARGIN, MARGIN + SIDE, MARGIN + SIDE))


# --- pages ------------------------------------------------------------------------------------------

SCRIPTS = {"latin": 0.52, "accents": 0.2, "cyrillic": 0.16, "greek": 0.08, "kana": 0.04}


def any_script(sheet: Sheet) -> tuple[str, str]:
    """Draws an alphabet, English more than half of the time, and a language of it."""
    script = str(sheet.rng.choice(list(SCRIPTS), p=list(SCRIPTS.values())))
    return script, sheet.letters.language(sheet.rng, script)


def paragraph(sheet: Sheet) -> None:
    """Running text, justified or ragged, with headings."""
    rng, letters = sheet.rng, sheet.letters
    script, language = any_script(sheet)
    size = sheet.em(24)
    font, leading = letters.face(rng, script).at(size), size * rng.uniform(1.05, 1.6)
    left, width, justified = sheet.px(-60, 60), sheet.side * rng.uniform(0.6, 1.3), sheet.chance(0.5)
    y, line = -rng.uniform(0, 1) * size, list[str]()
    while y < sheet.side:
        if sheet.chance(0.1):
            head = letters.face(rng, script).at(round(size * rng.uniform(1.1, 1.7)))
            sheet.write(left, y, letters.name(rng, language), head)
            y += head.size * 1.3
        for word in [*" ".join(letters.sentence(rng, language) for _ in range(3)).split(), ""]:
            lengths = [font.getlength(each) for each in line]
            free = width - sum(lengths)
            if line and (not word or free < font.getlength(" ") * len(line) + font.getlength(word)):
                step = free / max(1, len(line) - 1) if justified and word else font.getlength(" ")
                x: float = left
                for each, length in zip(line, lengths, strict=True):
                    sheet.write(x, y, each, font)
                    x += length + min(step, size)
                y, line = y + leading, []
            line.append(word)


def table(sheet: Sheet) -> None:
    """Rows of words and figures, with rules, frames or stripes."""
    rng, letters = sheet.rng, sheet.letters
    script, language = any_script(sheet)
    font = letters.face(rng, script).at(sheet.em(24, 54))
    row, rule, style = round(font.size * rng.uniform(1.3, 2.0)), sheet.px(1, 4), int(rng.integers(4))
    columns = [(round(font.size * rng.uniform(2.5, 7)), sheet.chance(0.6)) for _ in range(8)]
    for number, y in enumerate(range(-int(rng.integers(row)), sheet.side, row)):
        if style == 2 and number % 2:
            sheet.pen.rectangle((0, y, sheet.side, y + row), fill=sheet.tone(0.1))
        x = -int(font.size * 1.5) if style % 2 else sheet.px(24)
        for width, figures in columns:
            text = figure(rng) if figures else letters.word(rng, language)
            while font.getlength(text) > width - font.size * 0.5:
                text = text[:-1]
            start = width - font.size * 0.3 - font.getlength(text) if figures else font.size * 0.2
            sheet.write(x + start, y + (row - font.size) / 2, text, font)
            if style in (0, 3):
                sheet.pen.line((x, y, x, y + row), fill=sheet.ink, width=rule)
            x += width
        if style != 2 and (style != 3 or number % 4 == 0):
            sheet.pen.line((0, y, sheet.side, y), fill=sheet.tone(0.5 if style == 1 else 1), width=rule)


CODE_INKS = ((86, 156, 214), (206, 145, 120), (106, 153, 85), (220, 220, 170), (181, 206, 168), (197, 134, 192))
CODE = (
    "{key} {a}({b}, {value}):",
    "{a} = '{b}';",
    "{key} {a} == {value}",
    "{a}.{b}[{a}] {{{value}}}",
    "{a}({value}, \"{b}\")",
    "# {a} {b} {key} {a}",
    "{key} {a} in {b}: // {a}",
    "",
)  # fmt: skip
KEYWORDS = "def return if else for while import class from in not None True void int const let function switch case"


def code(sheet: Sheet) -> None:
    """A program in a monospaced font, its words coloured or plain, with numbers of lines now and then."""
    rng, letters = sheet.rng, sheet.letters
    font = letters.face(rng, monospaced=True).at(sheet.em(24, 52))
    cell, leading = font.getlength("m"), font.size * rng.uniform(1.1, 1.45)
    inks = [each if dark(sheet.paper) else (each[0] // 2, each[1] // 2, each[2] // 2) for each in CODE_INKS]
    colored, numbered, left = sheet.chance(0.7), sheet.chance(0.4), -rng.uniform(0, 3) * cell
    for number, y in enumerate(np.arange(-rng.uniform(0, leading), sheet.side, leading)):
        words = [letters.word(rng, "american-english").lower() for _ in range(4)]
        a, b = ("_".join(words[:2]), words[2]) if sheet.chance(0.6) else (words[0] + words[1].capitalize(), words[3])
        value = str(rng.choice(["0", "255", "0x1F", "3.14", "-1", "1e-4", "None", "[]"]))
        line = str(rng.choice(CODE)).format(a=a, b=b, value=value, key=rng.choice(KEYWORDS.split()))
        x = sheet.write(left, y, f"{number + 7:>3}  ", font, sheet.tone(0.55)) if numbered else left
        x += int(rng.integers(4)) * 4 * cell
        for word in line.split(" "):
            x = sheet.write(
                x, y, word + " ", font, inks[int(rng.integers(6))] if colored and sheet.chance(0.6) else None
            )


def listing(sheet: Sheet) -> None:
    """Lines of a form, a bill, a table of contents or a list: a mark or a box, a name, leaders, a figure."""
    rng, letters = sheet.rng, sheet.letters
    script, language = any_script(sheet)
    font, style = letters.face(rng, script).at(sheet.em(24, 58)), int(rng.integers(4))
    size, leading, left = font.size, font.size * rng.uniform(1.3, 1.9), sheet.px(-10, 50)
    right, mark = sheet.side - sheet.px(10, 60), str(rng.choice(["•", "–", "*", "a)", "1."]))
    for y in np.arange(-rng.uniform(0, 30), sheet.side, leading):
        x = sheet.write(left, y, mark + " ", font) if style == 0 else float(left)
        if style == 1:
            sheet.pen.rectangle((x, y + size * 0.2, x + size * 0.8, y + size), outline=sheet.ink, width=sheet.px(2))
            if sheet.chance(0.4):
                sheet.pen.line((x, y + size * 0.2, x + size * 0.8, y + size), fill=sheet.ink, width=sheet.px(3))
            x += size * 1.2
        text = letters.name(rng, language) if sheet.chance(0.7) else letters.sentence(rng, language, (3, 7))
        amount = figure(rng)
        x, start = sheet.write(x, y, text, font), right - font.getlength(amount)
        while style == 2 and x + size < start:
            x = sheet.write(x, y, " .", font)
        if style == 3 and x + size < start:
            sheet.pen.line((x + size / 2, y + size, start, y + size), fill=sheet.ink, width=sheet.px(1.5))
        if x < start:
            sheet.write(start, y, amount, font)


def signs(sheet: Sheet) -> None:
    """Lines of many fonts and sizes on many colours, some outlined: labels, titles, posters, comics."""
    rng, letters = sheet.rng, sheet.letters
    y = -rng.uniform(0, 20)
    while y < sheet.side:
        script, language = any_script(sheet)
        size = sheet.em(28, 110)
        paper, ink = papers(rng) if sheet.chance(0.5) else (sheet.paper, sheet.ink)
        sheet.pen.rectangle((0, y, sheet.side, y + size * 1.5), fill=paper)
        text = letters.name(rng, language) if sheet.chance(0.6) else letters.sentence(rng, language, (2, 6))
        text, outline = (text.upper() if sheet.chance(0.25) else text), size // 20 if sheet.chance(0.15) else 0
        sheet.pen.text((sheet.px(-30, 60), y + size * 0.1), text, font=letters.face(rng, script).at(size), fill=ink,
                       stroke_width=outline, stroke_fill=any_color(rng))  # fmt: skip
        y += size * 1.5


PAGES: dict[Callable[[Sheet], None], float] = {paragraph: 0.4, table: 0.16, code: 0.14, listing: 0.17, signs: 0.13}
"""Kinds of pages, with their shares."""


def text(sheet: Sheet) -> Image.Image:
    """A piece of a page of one of the kinds."""
    list(PAGES)[int(sheet.rng.choice(len(PAGES), p=list(PAGES.values())))](sheet)
    return sheet.finished(turned=0.2)


# --- drawings, flags and screens --------------------------------------------------------------------


def drawings(sheet: Sheet) -> Image.Image:
    """Drawings of many sizes and turns, on all grounds."""
    rng = sheet.rng
    if sheet.chance(0.3):
        sheet.slope()
    for _ in range(int(rng.integers(6, 18))):
        size = sheet.em(60, 360)
        x, y = (rng.uniform(-size / 4, sheet.side - size / 2) for _ in range(2))
        sheet.paste(list(SETS), size, (x, y), rng.uniform(0, 360) if sheet.chance(0.4) else 0.0)
    return sheet.finished()


def flags(sheet: Sheet) -> Image.Image:
    """One large flag, or rows of flags with names."""
    rng, letters = sheet.rng, sheet.letters
    large = sheet.chance(0.3)
    width = sheet.px(400, 620) if large else sheet.px(70, 170)
    font = letters.face(rng).at(sheet.em(28, 56))
    for y in np.arange(-sheet.px(0, 60), sheet.side, width * 0.75 + sheet.px(10, 40)):
        x = sheet.px(-120, 20) if large else sheet.px(-30, 60)
        sheet.paste(FLAGS, width, (x, y))
        sheet.write(x + width + sheet.px(20), y + width * 0.2, letters.name(rng, "american-english"), font)
    return sheet.finished()


def screens(sheet: Sheet) -> Image.Image:
    """A window with a bar, a menu, icons, and rows of fields, buttons and lists, as a program shows them."""
    rng, letters, pen = sheet.rng, sheet.letters, sheet.pen
    if sheet.chance(0.3):
        sheet.slope()
    level = int(rng.integers(20, 60))
    sheet.paper, sheet.ink = (pale(rng), (level,) * 3) if sheet.chance(0.7) else ((level,) * 3, pale(rng))
    script = "latin" if sheet.chance(0.7) else "accents"
    font, language = letters.face(rng, script, monospaced=False).at(sheet.em(26, 58)), letters.language(rng, script)
    size, row, accent = font.size, round(font.size * rng.uniform(1.4, 2.0)), any_color(rng)
    on_accent = (255, 255, 255) if dark(accent) else (0, 0, 0)
    left, y = (sheet.px(20, 140), sheet.px(20, 140)) if sheet.chance(0.5) else (-sheet.px(0, 90), -sheet.px(0, 90))
    right, inset, line = left + sheet.px(330, 700), (row - size) / 2 - size * 0.1, sheet.px(1, 4)
    pen.rounded_rectangle((left, y, right, 2 * sheet.side), sheet.px(0, 12), fill=sheet.paper, outline=sheet.tone(0.4))
    pen.rectangle((left, y, right, y + row), fill=accent)
    sheet.write(left + size, y + inset, letters.name(rng, language), font, on_accent)
    pen.ellipse((right - row, y + row * 0.3, right - row * 0.6, y + row * 0.7), outline=on_accent, width=line)
    x: float = left + size * 0.6
    for _ in range(6):
        x = sheet.write(x, y + row + inset, letters.word(rng, language).capitalize(), font) + size
    y += 2 * row
    for number in range(8 if sheet.chance(0.6) else 0):
        sheet.paste(ICONS, row * 1.1, (left + row * (0.2 + 1.4 * number), y + row * 0.2))
    y += round(row * rng.choice([0.2, 1.6]))
    left += round(size * 0.7)
    while y < sheet.side:
        label, kind = letters.name(rng, language), int(rng.integers(6))
        edge, end, ink = sheet.tone(0.5), left + font.getlength(label) + 2 * size, None
        if kind == 0:  # a button
            ink, fill = (on_accent, accent) if sheet.chance(0.5) else (sheet.ink, sheet.tone(0.1))
            pen.rounded_rectangle((left, y, end, y + row), sheet.px(8), fill=fill, outline=edge, width=line)
        elif kind == 1:  # a field
            pen.rectangle((end, y, max(end + 2, right - size), y + row), fill=(255, 255, 255), outline=edge, width=line)
            sheet.write(end + size / 2, y + inset, figure(rng), font, (30, 30, 30))
        elif kind == 2:  # a box or a ring with its mark
            shape, top = (pen.rectangle if sheet.chance(0.5) else pen.ellipse), y + (row - size) / 2
            shape((end, top, end + size, top + size), outline=sheet.ink, width=line)
            shape((end + size * 0.25, top + size * 0.25, end + size * 0.75, top + size * 0.75), fill=accent)
        elif kind == 3:  # a bar of progress
            done = end + max(2.0, right - size - end) * rng.uniform(0.1, 0.9)
            pen.rectangle((end, y + row // 4, max(end + 2, right - size), y + row * 3 // 4), outline=edge, width=line)
            pen.rectangle((end, y + row // 4, done, y + row * 3 // 4), fill=accent)
        else:  # a row of a list, chosen or not
            if kind == 4:
                ink = on_accent
                pen.rectangle((left, y, right - size, y + row), fill=accent)
            sheet.paste(ICONS, row * 0.8, (end + row * 0.1, y + row * 0.1))
            sheet.write(max(end + 2 * size, right - 5 * size), y + inset, figure(rng), font, ink or sheet.tone(0.6))
        sheet.write(left + size, y + inset, label, font, ink)
        y += row if kind > 3 else round(row * 1.4)
    return sheet.finished()


# --- charts and maps --------------------------------------------------------------------------------


def charts(sheet: Sheet) -> Image.Image:
    """Axes, ticks and figures around lines, bars or dots, or a pie; a title and a legend."""
    rng, letters, pen = sheet.rng, sheet.letters, sheet.pen
    font, palette = letters.face(rng).at(sheet.em(24, 46)), [any_color(rng) for _ in range(4)]
    left, bottom, top, line = sheet.px(90, 150), sheet.side - sheet.px(80, 130), sheet.px(60, 110), sheet.px(1, 4)
    wide, high, kind = sheet.side - left, bottom - top, int(rng.integers(4))
    if kind == 3:
        ends = np.concatenate([[0], np.cumsum(rng.dirichlet(np.ones(4)))]) * 360
        x, y, r = *(sheet.side * rng.uniform(0.35, 0.6) for _ in range(2)), sheet.px(90, 170)
        for color, start, end in zip(palette, ends[:-1], ends[1:], strict=True):
            pen.pieslice((x - r, y - r, x + r, y + r), start, end, fill=color, outline=sheet.paper, width=line)
    else:
        step, unit, grid = sheet.px(60, 110), float(rng.choice([1, 5, 10, 0.25, 100])), sheet.chance(0.6)
        for number, y in enumerate(range(bottom, top, -step)):
            label = f"{number * unit:g}"
            pen.line((left, y, sheet.side if grid else left + step // 6, y), fill=sheet.tone(0.3), width=line)
            sheet.write(left - font.getlength(label) - font.size * 0.3, y - font.size * 0.6, label, font)
        for number, x in enumerate(range(left, sheet.side, round(step * 1.3))):
            pen.line((x, bottom, x, bottom + step // 8), fill=sheet.ink, width=line)
            sheet.write(x, bottom + step // 6, str(1990 + 5 * number if unit == 5 else number), font)
        pen.line((left, top, left, bottom, sheet.side, bottom), fill=sheet.ink, width=line)
        for color in palette[: 1 if kind == 1 else int(rng.integers(1, 4))]:
            count = int(rng.integers(4, 40))
            walk = np.cumsum(rng.normal(0, 1, count)) if kind == 0 else rng.beta(2, 2, count)
            heights = bottom - high * (0.05 + 0.9 * (walk - walk.min()) / np.ptp(walk))
            places = left + wide * (rng.uniform(0, 1, count) if kind == 2 else np.arange(count) / count)
            points = [*zip(places, heights, strict=True)]
            if kind == 0:
                pen.line(points, fill=color, width=2 * line, joint="curve")
            for x, y in points:
                if kind == 1:
                    pen.rectangle((x, y, x + wide * 0.7 / count, bottom), fill=color, outline=sheet.tone(0.8))
                else:
                    pen.ellipse((x - 2 * line, y - 2 * line, x + 2 * line, y + 2 * line), fill=color)
    sheet.write(sheet.px(30, 200), sheet.px(24), letters.name(rng, "american-english"), font)
    for number, color in enumerate(palette[:3] if sheet.chance(0.5) else []):
        x, y = sheet.side - sheet.px(210), top + number * font.size * 1.3
        pen.rectangle((x, y + font.size * 0.2, x + font.size * 0.8, y + font.size), fill=color)
        sheet.write(x + font.size * 1.1, y, letters.word(rng, "american-english"), font)
    return sheet.finished(turned=0.1)


def read_countries(file: Path) -> list[np.ndarray]:
    """Reads the outlines of a TopoJSON file (arcs of differences, github.com/topojson/topojson-specification).

    Returns:
        Rings of (n, 2) degrees: longitude, latitude.
    """
    topology = json.loads(file.read_text())
    factor, start = (np.array(topology["transform"][key]) for key in ("scale", "translate"))
    arcs = [np.cumsum(np.array(arc), axis=0) * factor + start for arc in topology["arcs"]]
    rings = []
    for geometry in topology["objects"]["countries"]["geometries"]:
        polygons = geometry["arcs"] if geometry["type"] == "MultiPolygon" else [geometry["arcs"]]
        for ring in (ring for polygon in polygons for ring in polygon):
            rings.append(np.concatenate([arcs[at] if at >= 0 else arcs[~at][::-1] for at in ring]))
    return rings


def maps(sheet: Sheet) -> Image.Image:
    """Countries in flat colours with borders, or streets between blocks; places with names on them."""
    rng, side, pen, rings = sheet.rng, sheet.side, sheet.pen, sheet.sources.rings
    if sheet.chance(0.6):
        middle, degrees = rings[int(rng.integers(len(rings)))].mean(axis=0), math.exp(rng.uniform(1.4, 3.9))
        pen.rectangle((0, 0, side, side), fill=(170, 205, 230) if sheet.chance(0.6) else pale(rng))
        width, border = sheet.px(1, 4), any_color(rng) if sheet.chance(0.4) else (90, 80, 80)
        for ring in rings:
            points = ((ring - middle) * (1, -1) / degrees + 0.5) * side
            if (points.max(axis=0) > 0).all() and (points.min(axis=0) < side).all():
                pen.polygon([*map(tuple, points)], fill=any_color(rng, 150))
                pen.line([*map(tuple, points)], fill=border, width=width, joint="curve")
    else:
        pen.rectangle((0, 0, side, side), fill=(240, 236, 228))
        for x, y in rng.uniform(0, side, size=(8, 2)):
            pen.rectangle((x, y, x + sheet.px(40, 160), y + sheet.px(40, 160)), fill=any_color(rng, 160))
        angle = rng.uniform(0, math.pi)
        for turn in (angle, angle + math.pi / 2):
            way, across = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
            for offset in np.arange(-side, side, sheet.px(50, 150)):
                start, end = (side / 2 + across * offset + way * reach for reach in (-side, side))
                wide = sheet.px(rng.choice([6, 10, 18]))
                pen.line((*start, *end), fill=(190, 180, 170), width=wide + sheet.px(3))
                pen.line((*start, *end), fill=(250, 210, 120) if wide > sheet.px(14) else (255, 255, 255), width=wide)
    for x, y in rng.uniform(0, side * 0.8, size=(int(rng.integers(2, 6)), 2)):
        script = str(rng.choice(["latin", "accents", "cyrillic"]))
        name = sheet.letters.name(rng, sheet.letters.language(rng, script))
        pen.ellipse((x - sheet.px(6), y, x + sheet.px(2), y + sheet.px(8)), fill=(200, 40, 40))
        pen.text((x, y), name, font=sheet.letters.face(rng, script).at(sheet.em(24, 52)), fill=(30, 30, 40),
                 stroke_width=sheet.px(3) if sheet.chance(0.4) else 0, stroke_fill=(255, 255, 255))  # fmt: skip
    return sheet.finished(turned=0.1)


def page(
    letters: Letters, rng: np.random.Generator, capitals: tuple[float, float], *, skipped: Sequence[str] = ()
) -> tuple[np.ndarray, str]:
    """Draws lines of English in small letters of one font, dark on light.

    Args:
        letters: Fonts and word lists.
        rng: Source of the draw.
        capitals: Lowest and greatest height of an H, in pixels.
        skipped: Parts of names of families that are not drawn.

    Returns:
        Pixels (320, 720, 3) uint8, and the text.
    """
    face = letters.face(rng)
    while any(name in face.family.lower() for name in skipped):
        face = letters.face(rng)
    height = rng.uniform(*capitals)
    probe = face.at(100).getbbox("H")
    font = face.at(round(100 * height / (probe[3] - probe[1])))
    paper, ink = int(rng.integers(235, 256)), int(rng.integers(0, 60))
    image = Image.new("RGB", (720, 320), (paper,) * 3)
    pen, leading, y, lines = ImageDraw.Draw(image), font.size * 1.35, 16.0, list[str]()
    while y + leading < image.height:
        line = letters.word(rng, "american-english").capitalize()
        while True:
            longer = f"{line} {letters.word(rng, 'american-english')}"
            if font.getlength(longer) > image.width - 60:
                break
            line = longer
        pen.text((28, y), line, font=font, fill=(ink,) * 3)
        lines.append(line)
        y += leading
    return np.asarray(image), " ".join(lines)


def pages(sheet: Sheet) -> Image.Image:
    """A page of small letters, light on dark now and then."""
    pixels, _text = page(sheet.letters, sheet.rng, (18, 34))
    return Image.fromarray(255 - pixels if sheet.chance(0.12) else pixels)


KINDS = {"text": text, "screens": screens, "drawings": drawings, "charts": charts, "maps": maps, "flags": flags} | {
    "pages": pages
}
"""What draws each kind of pictures, by the name of its folder."""
