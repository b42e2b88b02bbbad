"""Draws what programs draw: windows, charts, maps, flags, and sheets of drawings and icons.

Drawings are SVG files of several sets (`SETS`), each file held out or not by a hash of its name.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rendered_letters import Letters, figure, held_out
from rendered_sheet import Color, Font, Sheet, any_color, blank, finished, luminance, pale

SETS = {
    "openmoji": "color/svg/*.svg",
    "twemoji-svg": "*.svg",
    "openclipart-svg": "**/*.svg",
    "breeze-icon-theme": "breeze/*/64/*.svg",
    "tango-icon-theme": "scalable/*/*.svg",
}
"""Sets of drawings by their package, and where each has its files."""
ICONS = ("breeze-icon-theme", "tango-icon-theme")
LARGEST = 60_000
"""Bytes of the largest SVG that is drawn: clip art of megabytes takes seconds."""


class Drawings:
    """Drawings of one part, set by set."""

    def __init__(self, root: Path, *, held: bool) -> None:
        self.sets = {
            name: [
                file
                for file in sorted((root / name).rglob(pattern))
                if held_out(file.stem) == held and file.stat().st_size < LARGEST and not file.is_symlink()
            ]
            for name, pattern in SETS.items()
        }
        flags = (root / "flag-icons").rglob("4x3/*.svg")
        self.flags = [file for file in sorted(flags) if held_out(file.stem) == held]

    def any(self, rng: np.random.Generator, names: Sequence[str] = ()) -> Path:
        """Draws a set, then one of its files."""
        files = self.sets[str(rng.choice(list(names or self.sets)))]
        return files[int(rng.integers(len(files)))]

    def flag(self, rng: np.random.Generator) -> Path:
        return self.flags[int(rng.integers(len(self.flags)))]


def rendered(file: Path, width: int) -> Image.Image | None:
    """Renders an SVG at a width of pixels, RGBA; None where the file is not one that the renderer reads."""
    import resvg_py

    try:
        data = bytes(resvg_py.svg_to_bytes(svg_path=str(file), width=width, skip_system_fonts=True))
    except ValueError:
        return None
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    return image if image.height <= 4 * width else None


def paste(sheet: Sheet, file: Path, width: float, at: tuple[float, float], turn: float = 0.0) -> None:
    """Pastes a drawing, with its top left corner at `at`."""
    picture = rendered(file, max(8, round(width)))
    if picture is not None:
        if turn:
            picture = picture.rotate(turn, Image.Resampling.BICUBIC, expand=True)
        sheet.image.paste(picture, (round(at[0]), round(at[1])), picture)


def slope(sheet: Sheet) -> None:
    """Paints the ground with a slope between two colours."""
    y, x = np.mgrid[: sheet.side, : sheet.side] / sheet.side
    angle = sheet.rng.uniform(0, 2 * np.pi)
    share = ((np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5) + 0.7) / 1.4)[..., None].clip(0, 1)
    first, second = (np.array(any_color(sheet.rng), dtype=float) for _ in range(2))
    sheet.image.paste(Image.fromarray(np.rint(first + (second - first) * share).astype(np.uint8)))


# --- drawings and flags -----------------------------------------------------------------------------


def drawings(rng: np.random.Generator, letters: Letters, files: Drawings) -> Image.Image:
    """Drawings of many sizes and turns, on all grounds, or a sheet of icons with their names."""
    sheet = blank(rng, letters, zoom=1)
    if rng.random() < 0.3:
        slope(sheet)
    if rng.random() < 0.2:
        return _icon_sheet(sheet, files)
    for _ in range(int(rng.integers(6, 18))):
        size = math.exp(rng.uniform(math.log(60), math.log(360)))
        turn = rng.uniform(0, 360) if rng.random() < 0.4 else 0.0
        x, y = (rng.uniform(-size / 4, sheet.side - size / 2) for _ in range(2))
        paste(sheet, files.any(rng), size, (x, y), turn)
    return finished(sheet, turned=0)


def _icon_sheet(sheet: Sheet, files: Drawings) -> Image.Image:
    rng = sheet.rng
    cell, icon = rng.uniform(90, 190), rng.uniform(0.45, 0.8)
    font = sheet.letters.face(rng).at(round(cell * 0.16))
    for y in np.arange(-rng.uniform(0, cell), sheet.side, cell):
        for x in np.arange(-rng.uniform(0, cell), sheet.side, cell):
            paste(sheet, files.any(rng, ICONS), cell * icon, (x + cell * (1 - icon) / 2, y + cell * 0.05))
            text = sheet.letters.word(rng, "american-english")
            sheet.write(x + (cell - font.getlength(text)) / 2, y + cell * 0.8, text, font)
    return finished(sheet, turned=0)


def flags(rng: np.random.Generator, letters: Letters, files: Drawings) -> Image.Image:
    """One large flag, or rows of flags with names."""
    sheet = blank(rng, letters, zoom=1)
    if rng.random() < 0.3:
        paste(sheet, files.flag(rng), rng.uniform(400, 620), (rng.uniform(-120, 20), rng.uniform(-40, 20)))
        return finished(sheet)
    width = rng.uniform(70, 170)
    font = letters.face(rng).at(round(rng.uniform(28, 56)))
    frame = rng.random() < 0.5
    for y in np.arange(-rng.uniform(0, 60), sheet.side, width * 0.75 + rng.uniform(10, 40)):
        x = rng.uniform(-30, 60)
        paste(sheet, files.flag(rng), width, (x, y))
        if frame:
            box = (round(x), round(y), round(x) + round(width), round(y) + round(width * 0.75))
            sheet.pen.rectangle(box, outline=(90, 90, 90), width=2)
        sheet.write(x + width + 20, y + width * 0.2, letters.name(rng, "american-english"), font)
    return finished(sheet, turned=0)


# --- screens ----------------------------------------------------------------------------------------


def screens(rng: np.random.Generator, letters: Letters, files: Drawings) -> Image.Image:
    """Windows with bars, menus, icons, lists, fields and buttons, as a program shows them."""
    sheet = blank(rng, letters)
    if rng.random() < 0.3:
        slope(sheet)
    sheet.paper, sheet.ink = _theme(rng)
    size = sheet.em(26, 58)
    top = left = -rng.uniform(0, 3) * size
    if rng.random() < 0.5:
        top, left = (sheet.px(rng.uniform(20, 140)) for _ in range(2))
    _window(sheet, files, (round(left), round(top)), size)
    return finished(sheet, turned=0)


def _theme(rng: np.random.Generator) -> tuple[Color, Color]:
    if rng.random() < 0.7:
        return pale(rng), (int(rng.integers(0, 70)),) * 3
    level = int(rng.integers(20, 60))
    return (level, level, level + int(rng.integers(0, 12))), pale(rng)


def _window(sheet: Sheet, files: Drawings, corner: tuple[int, int], size: int) -> None:
    """Draws a window whose letters have `size` pixels."""
    rng, letters, pen = sheet.rng, sheet.letters, sheet.pen
    script = "latin" if rng.random() < 0.7 else "accents"
    face, language = letters.face(rng, script, monospaced=False), letters.language(rng, script)
    font, row, accent = face.at(size), round(size * rng.uniform(1.4, 2.0)), any_color(rng)
    on_accent = (255, 255, 255) if luminance(accent) < 140 else (0, 0, 0)
    left, y = corner
    right = left + sheet.px(rng.uniform(330, 700))
    radius, line = int(rng.choice([0, 0, sheet.px(6), sheet.px(12)])), max(1, sheet.px(rng.choice([1, 2, 4])))
    pen.rounded_rectangle(
        (left, y, right, sheet.side + 60), radius, fill=sheet.paper, outline=sheet.tone(0.4), width=line
    )
    bar = accent if rng.random() < 0.5 else sheet.tone(0.12)
    pen.rounded_rectangle((left, y, right, y + row), radius, fill=bar)
    inset = (row - size) / 2 - size * 0.1
    sheet.write(left + size, y + inset, letters.name(rng, language), font, on_accent if bar == accent else sheet.ink)
    for number in range(3):
        x = right - size * (1 + 1.5 * number)
        pen.ellipse((x, y + row * 0.3, x + row * 0.4, y + row * 0.7), outline=sheet.tone(0.7), width=line)
    y += row
    x: float = left + size * 0.6
    for _ in range(6):
        x = sheet.write(x, y + inset, letters.word(rng, language).capitalize(), font) + size
    y += row
    for number in range(8 if rng.random() < 0.6 else 0):
        paste(sheet, files.any(rng, ICONS), row * 1.1, (left + row * (0.2 + 1.4 * number), y + row * 0.2))
    y += round(row * rng.choice([0.2, 1.6]))
    pen.line((left, y, right, y), fill=sheet.tone(0.35), width=line)
    while y < sheet.side:
        y += _widget(sheet, files, (left + round(size * 0.7), y, right, row), font, language, (accent, on_accent))


def _widget(
    sheet: Sheet,
    files: Drawings,
    box: tuple[int, int, int, int],
    font: Font,
    language: str,
    colors: tuple[Color, Color],
) -> int:
    """Draws one row of a window and returns its height."""
    rng, letters, pen = sheet.rng, sheet.letters, sheet.pen
    left, y, right, row = box
    accent, on_accent = colors
    size, line, gap = font.size, max(1, sheet.px(2)), row // 5
    inset, text = (row - size) / 2 - size * 0.1, letters.name(rng, language)
    kind = int(rng.integers(6))
    if kind == 0:  # buttons
        x: float = left
        for primary in (True, False):
            label = letters.word(rng, language).capitalize()
            end = x + font.getlength(label) + 2 * size
            fill = accent if primary else sheet.tone(0.1)
            pen.rounded_rectangle(
                (x, y + gap, end, y + gap + row), sheet.px(8), fill=fill, outline=sheet.tone(0.4), width=line
            )
            sheet.write(x + size, y + gap + inset, label, font, on_accent if primary else None)
            x = end + size
    elif kind == 1:  # a field
        end = sheet.write(left, y + gap + inset, text + ":", font) + size
        pen.rectangle(
            (end, y + gap, max(end + 2, right - size), y + gap + row),
            fill=(255, 255, 255),
            outline=sheet.tone(0.5),
            width=line,
        )
        sheet.write(end + size / 2, y + gap + inset, figure(rng), font, (30, 30, 30))
    elif kind == 2:  # a box or a ring with its mark
        shape = pen.rectangle if rng.random() < 0.5 else pen.ellipse
        box_top = y + gap + (row - size) / 2
        shape((left, box_top, left + size, box_top + size), outline=sheet.ink, width=line)
        if rng.random() < 0.5:
            shape((left + size * 0.25, box_top + size * 0.25, left + size * 0.75, box_top + size * 0.75), fill=accent)
        sheet.write(left + size * 1.5, y + gap + inset, text, font)
    elif kind == 3:  # a chosen row of a list
        pen.rectangle((left, y, right - size, y + row), fill=accent)
        paste(sheet, files.any(rng, ICONS), row * 0.8, (left + row * 0.1, y + row * 0.1))
        sheet.write(left + row * 1.1, y + inset, text, font, on_accent)
        return row
    elif kind == 4:  # a bar of progress
        share = rng.uniform(0.1, 0.9)
        pen.rectangle((left, y + gap, right - size, y + gap + row // 2), outline=sheet.tone(0.5), width=line)
        pen.rectangle((left, y + gap, left + (right - size - left) * share, y + gap + row // 2), fill=accent)
        return row
    else:  # rows of a list
        paste(sheet, files.any(rng, ICONS), row * 0.8, (left + row * 0.1, y + row * 0.1))
        end = sheet.write(left + row * 1.1, y + inset, text, font)
        sheet.write(max(end + size, right - 5 * size), y + inset, figure(rng), font, sheet.tone(0.6))
        return row
    return row + 2 * gap


# --- charts and maps --------------------------------------------------------------------------------


def charts(rng: np.random.Generator, letters: Letters) -> Image.Image:
    """Axes, ticks and figures around lines, bars, dots or a pie, with a legend."""
    sheet = blank(rng, letters)
    font = letters.face(rng).at(sheet.em(24, 46))
    palette = [any_color(rng) for _ in range(4)]
    left, bottom = sheet.px(rng.uniform(90, 150)), sheet.side - sheet.px(rng.uniform(80, 130))
    right, top = sheet.side - sheet.px(rng.uniform(0, 60)), sheet.px(rng.uniform(20, 90))
    line = max(1, sheet.px(rng.choice([1, 2, 3, 4])))
    kind = int(rng.integers(4))
    if kind == 3:
        _pie(sheet, palette, line)
    else:
        _axes(sheet, font, (left, top, right, bottom), line)
        plot = (_lines, _bars, _dots)[kind]
        for color in palette[: int(rng.integers(1, 4))] if kind != 1 else palette[:1]:
            plot(sheet, (left, top, right, bottom), color, line)
    sheet.write(sheet.px(rng.uniform(30, 200)), sheet.px(24), letters.name(rng, "american-english"), font)
    if rng.random() < 0.5:
        x, y = right - sheet.px(210), top + sheet.px(10)
        for color in palette[:3]:
            sheet.pen.rectangle((x, y + font.size * 0.2, x + font.size * 0.8, y + font.size), fill=color)
            sheet.write(x + font.size * 1.1, y, letters.word(rng, "american-english"), font)
            y += round(font.size * 1.3)
    return finished(sheet, turned=0.1)


Box = tuple[int, int, int, int]


def _axes(sheet: Sheet, font: Font, box: Box, line: int) -> None:
    rng, (left, top, right, bottom) = sheet.rng, box
    step = sheet.px(rng.uniform(60, 110))
    grid, unit = rng.random() < 0.6, float(rng.choice([1, 5, 10, 0.25, 100]))
    for number, y in enumerate(range(bottom, top, -step)):
        sheet.pen.line(
            (left, y, right if grid else left + step // 6, y),
            fill=sheet.tone(0.3),
            width=max(1, line // 2),
        )
        text = f"{number * unit:g}"
        sheet.write(left - font.getlength(text) - font.size * 0.3, y - font.size * 0.6, text, font)
    for number, x in enumerate(range(left, right, round(step * 1.3))):
        sheet.pen.line((x, bottom, x, bottom + step // 8), fill=sheet.ink, width=line)
        sheet.write(x - font.size * 0.4, bottom + step // 6, str(1990 + 5 * number if unit == 5 else number), font)
    sheet.pen.line((left, top, left, bottom), fill=sheet.ink, width=line)
    sheet.pen.line((left, bottom, right, bottom), fill=sheet.ink, width=line)


def _lines(sheet: Sheet, box: Box, color: Color, line: int) -> None:
    left, top, right, bottom = box
    count = int(sheet.rng.integers(4, 40))
    walk = np.cumsum(sheet.rng.normal(0, 1, count))
    spread = (walk - walk.min()) / max(1e-6, float(np.ptp(walk)))
    points = [*zip(np.linspace(left, right, count), bottom - spread * (bottom - top) * 0.9, strict=True)]
    sheet.pen.line(points, fill=color, width=line + sheet.px(1.5), joint="curve")
    if count < 15:
        for x, y in points:
            sheet.pen.ellipse((x - 3 * line, y - 3 * line, x + 3 * line, y + 3 * line), fill=color)


def _bars(sheet: Sheet, box: Box, color: Color, line: int) -> None:
    left, top, right, bottom = box
    step = sheet.px(sheet.rng.uniform(14, 60))
    for x in range(left + step // 3, right, step):
        y = bottom - sheet.rng.uniform(0.05, 0.9) * (bottom - top)
        sheet.pen.rectangle((x, y, x + step * 0.7, bottom), fill=color, outline=sheet.ink, width=line // 2)


def _dots(sheet: Sheet, box: Box, color: Color, line: int) -> None:
    left, top, right, bottom = box
    for share in sheet.rng.beta(2, 2, size=(int(sheet.rng.integers(10, 60)), 2)):
        x, y, r = left + share[0] * (right - left), top + share[1] * (bottom - top), line + sheet.px(2)
        sheet.pen.ellipse((x - r, y - r, x + r, y + r), fill=color, outline=sheet.tone(0.8))


def _pie(sheet: Sheet, palette: Sequence[Color], line: int) -> None:
    rng = sheet.rng
    radius, (x, y) = sheet.px(rng.uniform(90, 170)), (sheet.side * rng.uniform(0.35, 0.6) for _ in range(2))
    ends = np.concatenate([[0], np.cumsum(rng.dirichlet(np.ones(len(palette))))]) * 360
    for color, start, end in zip(palette, ends[:-1], ends[1:], strict=True):
        sheet.pen.pieslice(
            (x - radius, y - radius, x + radius, y + radius), start, end, fill=color, outline=sheet.paper, width=line
        )


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


def maps(rng: np.random.Generator, letters: Letters, rings: Sequence[np.ndarray]) -> Image.Image:
    """Countries in flat colours with borders and names, or streets between blocks."""
    sheet = blank(rng, letters)
    if rng.random() < 0.6:
        _countries(sheet, rings)
    else:
        _streets(sheet)
    for _ in range(int(rng.integers(2, 6))):
        script = str(rng.choice(["latin", "accents", "cyrillic"], p=[0.5, 0.35, 0.15]))
        font = letters.face(rng, script).at(sheet.em(24, 52))
        x, y = rng.uniform(0, sheet.side * 0.8, size=2)
        sheet.pen.ellipse((x - sheet.px(6), y, x + sheet.px(2), y + sheet.px(8)), fill=(200, 40, 40))
        halo = sheet.px(3) if rng.random() < 0.4 else 0
        sheet.pen.text((x, y), letters.name(rng, letters.language(rng, script)), font=font, fill=(30, 30, 40),
                       stroke_width=halo, stroke_fill=(255, 255, 255))  # fmt: skip
    return finished(sheet, turned=0.1)


def _countries(sheet: Sheet, rings: Sequence[np.ndarray]) -> None:
    rng = sheet.rng
    middle = rings[int(rng.integers(len(rings)))].mean(axis=0)
    degrees = math.exp(rng.uniform(math.log(4), math.log(50)))
    sheet.image.paste((170, 205, 230) if rng.random() < 0.6 else pale(rng), (0, 0, sheet.side, sheet.side))
    width, border = max(1, sheet.px(rng.uniform(1, 4))), (any_color(rng) if rng.random() < 0.4 else (90, 80, 80))
    for ring in rings:
        points = ((ring - middle) * (1, -1) / degrees + 0.5) * sheet.side
        if (points.max(axis=0) < 0).any() or (points.min(axis=0) > sheet.side).any():
            continue
        fill = tuple(int(each) for each in rng.integers(150, 256, size=3))
        corners = [*map(tuple, points)]
        sheet.pen.polygon(corners, fill=fill)
        sheet.pen.line([*corners, corners[0]], fill=border, width=width, joint="curve")


def _streets(sheet: Sheet) -> None:
    rng, side = sheet.rng, sheet.side
    sheet.image.paste((240, 236, 228), (0, 0, side, side))
    for _ in range(8):
        x, y = rng.uniform(0, side, size=2)
        box = (x, y, x + sheet.px(rng.uniform(40, 160)), y + sheet.px(rng.uniform(40, 160)))
        sheet.pen.rectangle(box, fill=[(200, 225, 180), (217, 208, 201), (170, 205, 230)][int(rng.integers(3))])
    angle = rng.uniform(0, math.pi)
    for turn, step in ((angle, rng.uniform(50, 120)), (angle + math.pi / 2, rng.uniform(50, 160))):
        way, across = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
        for offset in np.arange(-side, side, sheet.px(step)):
            start, end = (side / 2 + across * offset + way * reach for reach in (-side, side))
            wide = sheet.px(rng.choice([6, 10, 10, 18]))
            color = (250, 210, 120) if wide > sheet.px(14) else (255, 255, 255)
            sheet.pen.line((*start, *end), fill=(190, 180, 170), width=wide + sheet.px(3))
            sheet.pen.line((*start, *end), fill=color, width=wide)
