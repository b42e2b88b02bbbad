"""Draws pieces of printed and typed pages: paragraphs, tables, code, formulas, forms, lists, receipts, signs."""

from __future__ import annotations

import numpy as np
from PIL import Image
from rendered_letters import Face, Letters, figure
from rendered_sheet import Font, Sheet, any_color, blank, finished, luminance, papers, penned, stamped, tinted

KEYWORDS = "def return if else for while import class from in not None True void int const let function switch case"


def script_of(rng: np.random.Generator) -> str:
    """Draws an alphabet, English more than half of the time."""
    return str(rng.choice(["latin", "accents", "cyrillic", "greek", "kana"], p=[0.52, 0.2, 0.16, 0.08, 0.04]))


# --- kinds of pages ---------------------------------------------------------------------------------


def paragraph(sheet: Sheet) -> None:
    """Running text in one or two columns, with headings, justified or ragged."""
    rng, letters = sheet.rng, sheet.letters
    script = script_of(rng)
    face, language = letters.face(rng, script), letters.language(rng, script)
    size = sheet.em(24, 64)
    font, leading = face.at(size), size * rng.uniform(1.05, 1.6)
    columns = 2 if size < sheet.px(36) and rng.random() < 0.3 else 1
    gap, left = size * 1.2, -rng.uniform(0, 2) * size if rng.random() < 0.5 else sheet.px(rng.uniform(26, 60))
    width = (sheet.side - left) / columns if columns == 2 else sheet.side * rng.uniform(0.8, 1.4)
    for column in range(columns):
        y = -rng.uniform(0, 1) * size
        while y < sheet.side:
            x = left + column * width
            if rng.random() < 0.08:
                head = letters.face(rng, script).at(round(size * rng.uniform(1.1, 1.7)))
                sheet.write(x, y, letters.name(rng, language), head)
                y += head.size * 1.3
            y = _set_paragraph(sheet, (x, y, width - gap), font, leading, language)
            y += leading * float(rng.choice([0, 0.5, 1]))


def _set_paragraph(sheet: Sheet, box: tuple[float, float, float], font: Font, leading: float, language: str) -> float:
    """Breaks a few sentences into lines of a width, and returns the next line's top."""
    rng, (left, y, width) = sheet.rng, box
    words = " ".join(sheet.letters.sentence(rng, language) for _ in range(int(rng.integers(1, 5)))).split()
    justified, space = rng.random() < 0.5, font.getlength(" ")
    line: list[str] = []
    for word in [*words, ""]:
        lengths = [font.getlength(each) for each in line]
        if line and (not word or sum(lengths) + space * len(line) + font.getlength(word) > width):
            free = width - sum(lengths)
            step = free / (len(line) - 1) if justified and word and len(line) > 1 else space
            x = left
            for each, length in zip(line, lengths, strict=True):
                sheet.write(x, y, each, font)
                x += length + min(step, 3 * space)
            y += leading
            line = []
        line.append(word)
        if y > sheet.side:
            break
    return y


def table(sheet: Sheet) -> None:
    """Rows of words and figures, with rules, frames or stripes."""
    rng, letters = sheet.rng, sheet.letters
    script = script_of(rng)
    face, language = letters.face(rng, script), letters.language(rng, script)
    size = sheet.em(24, 54)
    font, row = face.at(size), round(size * rng.uniform(1.3, 2.0))
    rule, style = max(1, sheet.px(rng.choice([1, 1, 2, 3, 4]))), int(rng.integers(4))
    widths = [round(size * rng.uniform(2.5, 7)) for _ in range(8)]
    numeric = [rng.random() < 0.6 for _ in widths]
    y = -int(rng.integers(row))
    for number in range(sheet.side // row + 2):
        x = -int(size * 1.5) if style % 2 else sheet.px(24)
        if style == 2 and number % 2:
            sheet.pen.rectangle((0, y, sheet.side, y + row), fill=sheet.tone(0.1))
        for width, figures in zip(widths, numeric, strict=True):
            text = figure(rng) if figures else letters.word(rng, language)
            inner = width - size * 0.5
            while text and font.getlength(text) > inner:
                text = text[:-1]
            start = x + (inner - font.getlength(text) if figures else 0) + size * 0.25
            sheet.write(start, y + (row - size) / 2 - size * 0.1, text, font)
            if style in (0, 3):
                sheet.pen.line((x, y, x, y + row), fill=sheet.ink, width=rule)
            x += width
        if style != 2 and (style != 3 or number % 4 == 0):
            sheet.pen.line((0, y, sheet.side, y), fill=sheet.tone(0.5 if style == 1 else 1), width=rule)
        y += row


CODE_INKS = ((86, 156, 214), (206, 145, 120), (106, 153, 85), (220, 220, 170), (181, 206, 168), (197, 134, 192))


def code(sheet: Sheet) -> None:
    """A program in a monospaced font, coloured or plain, with numbers of lines now and then."""
    rng, letters = sheet.rng, sheet.letters
    size = sheet.em(24, 52)
    font = letters.face(rng, monospaced=True).at(size)
    cell, leading = font.getlength("m"), size * rng.uniform(1.1, 1.45)
    dark = luminance(sheet.paper) < 110
    inks = [sheet.ink] * 6
    if rng.random() < 0.7:
        inks = [each if dark else (each[0] // 2, each[1] // 2, each[2] // 2) for each in CODE_INKS]
    numbered, start = rng.random() < 0.4, int(rng.integers(1, 900))
    left = -rng.uniform(0, 3) * cell
    y, indent = -rng.uniform(0, leading), 0
    for number in range(int(sheet.side / leading) + 2):
        x = left
        if numbered:
            sheet.write(x, y, f"{start + number:>4}", font, sheet.tone(0.55))
            x += 6 * cell
        if rng.random() > 0.12:
            x += indent * 4 * cell
            for token, kind in _tokens(rng, letters):
                x = sheet.write(x, y, token, font, inks[kind] if kind >= 0 else None)
        indent = min(3, max(0, indent + int(rng.integers(-1, 2))))
        y += leading


def _tokens(rng: np.random.Generator, letters: Letters) -> list[tuple[str, int]]:
    """A line of a program in pieces, each with the number of its colour or -1."""

    def name() -> str:
        words = [letters.word(rng, "american-english").lower().replace("'", "") for _ in range(int(rng.integers(1, 3)))]
        return "_".join(words) if rng.random() < 0.6 else words[0] + "".join(word.capitalize() for word in words[1:])

    draw = int(rng.integers(6))
    value = str(rng.choice(["0", "1", "255", "0x1F", "3.14", "-1", "1e-4", "None", "[]"]))
    keyword = str(rng.choice(KEYWORDS.split()))
    if draw == 0:
        return [("# " if rng.random() < 0.5 else "// ", 2), (letters.sentence(rng, "american-english", (2, 6)), 2)]
    if draw == 1:
        return [(keyword + " ", 0), (name(), 3), ("(", -1), (name(), -1), (", ", -1), (value, 4), ("):", -1)]
    if draw == 2:
        return [(name(), -1), (" = ", -1), (f'"{name()}"', 1), (";" if rng.random() < 0.5 else "", -1)]
    if draw == 3:
        return [
            (keyword + " ", 5),
            (name(), -1),
            (str(rng.choice([" == ", " != ", " <= ", " += ", " -> "])), -1),
            (value, 4),
        ]
    if draw == 4:
        return [
            (name(), -1),
            (".", -1),
            (name(), 3),
            ("[", -1),
            (name(), -1),
            ("] ", -1),
            ("{", -1),
            (value, 4),
            ("}", -1),
        ]
    return [(name(), 3), ("(", -1), (value, 4), (", ", -1), (f"'{name()}'", 1), (")", -1)]


def formulas(sheet: Sheet) -> None:
    """Lines of mathematics: powers, indices, fractions, roots, sums, integrals, between lines of text."""
    rng, letters = sheet.rng, sheet.letters
    face = letters.face(rng, "formulas")
    y = -rng.uniform(0, 30)
    while y < sheet.side:
        size = sheet.em(28, 60)
        x: float = sheet.px(rng.uniform(-20, 40))
        while x < sheet.side:
            x = _term(sheet, face, x, y + size * 0.9, size)
            x = sheet.write(
                x,
                y + size * 0.9,
                str(rng.choice([" + ", " − ", " = ", " · ", " ≤ ", " ≈ ", " → ", ", "])),
                face.at(size),
            )
        y += size * rng.uniform(3.0, 3.4)
        if rng.random() < 0.5:
            sheet.write(sheet.px(rng.uniform(-30, 40)), y, letters.sentence(rng, "american-english"), face.at(size))
            y += size * 1.3


def _term(sheet: Sheet, face: Face, x: float, y: float, size: int) -> float:
    """Writes one term with its line at y and returns where it ends."""
    rng = sheet.rng
    font, small = face.at(size), face.at(max(8, round(size * 0.65)))
    symbols = "abcdefghijkmnpqrstuvwxyzABCDEFGHKLMNPQRTVXYZαβγδθλπσφΔΣΩ∂∞"

    def symbol() -> str:
        return symbols[int(rng.integers(len(symbols)))] if rng.random() < 0.8 else str(int(rng.integers(0, 100)))

    draw = int(rng.integers(6))
    if draw <= 1:  # a symbol with an index and a power
        x = sheet.write(x, y, symbol(), font)
        ends = [x]
        if rng.random() < 0.7:
            ends.append(sheet.write(x, y - size * 0.2, symbol(), small))
        if rng.random() < 0.5:
            ends.append(sheet.write(x, y + size * 0.6, symbol(), small))
        return max(ends)
    if draw == 2:  # a fraction
        above, below = (f"{symbol()}{rng.choice([' + ', ' − ', ''])}{symbol()}" for _ in range(2))
        width = max(font.getlength(above), font.getlength(below))
        sheet.write(x + (width - font.getlength(above)) / 2, y - size * 0.65, above, font)
        sheet.write(x + (width - font.getlength(below)) / 2, y + size * 0.65, below, font)
        rule = y + size * 0.65
        sheet.pen.line((x, rule, x + width, rule), fill=sheet.ink, width=max(1, size // 18))
        return x + width
    if draw == 3:  # a sum or an integral with its limits
        large = face.at(round(size * 1.5))
        end = sheet.write(x, y - size * 0.35, str(rng.choice(["∑", "∫"])), large)
        sheet.write(x, y + size * 1.25, f"{symbol()} = {rng.integers(3)}", small)
        sheet.write(x, y - size * 0.75, symbol(), small)
        return sheet.write(end + size * 0.3, y, f"{symbol()}({symbol()})", font)
    if draw == 4:  # a root
        end = sheet.write(x, y, "√", font)
        start, end = end, sheet.write(end, y, symbol() + symbol(), font)
        sheet.pen.line((start, y + size * 0.1, end, y + size * 0.1), fill=sheet.ink, width=max(1, size // 18))
        return end
    return sheet.write(x, y, f"{rng.choice(['f', 'sin', 'log', 'exp', 'P'])}({symbol()})", font)


def listing(sheet: Sheet) -> None:
    """Lines of a form, a bill, a table of contents or a list: a name, leaders or a box, a figure."""
    rng, letters = sheet.rng, sheet.letters
    script = script_of(rng)
    typed = rng.random() < 0.4
    face = letters.face(rng, "latin" if typed else script, monospaced=True if typed else None)
    script = script if script in face.scripts else "latin"
    language = letters.language(rng, script)
    size = sheet.em(24, 58)
    font, style, leading = face.at(size), int(rng.integers(4)), size * rng.uniform(1.3, 1.9)
    left, right, y = sheet.px(rng.uniform(-10, 50)), sheet.side - sheet.px(rng.uniform(10, 60)), -rng.uniform(0, 30)
    mark = str(rng.choice(["•", "–", "*", "a)", "1."]))
    while y < sheet.side:
        x: float = left
        if style == 0:
            x = sheet.write(x, y, mark + " ", font)
        elif style == 1:
            sheet.pen.rectangle((x, y + size * 0.2, x + size * 0.8, y + size), outline=sheet.ink, width=sheet.px(2))
            if rng.random() < 0.4:
                sheet.pen.line((x, y + size * 0.2, x + size * 0.8, y + size), fill=sheet.ink, width=sheet.px(3))
            x += size * 1.2
        text = letters.name(rng, language) if rng.random() < 0.7 else letters.sentence(rng, language, (3, 7))
        x = sheet.write(x, y, text, font)
        amount = figure(rng)
        start = right - font.getlength(amount)
        if style == 2:
            while x + size < start:
                x = sheet.write(x, y, " .", font)
        elif style == 3:
            sheet.pen.line((x + size / 2, y + size, start, y + size), fill=sheet.ink, width=max(1, sheet.px(1.5)))
        if x < start:
            sheet.write(start, y, amount, font)
        y += leading


def signs(sheet: Sheet) -> None:
    """Lines of many fonts and sizes on many colours, each straight or turned: labels, titles, posters, comics."""
    rng, letters = sheet.rng, sheet.letters
    y = -rng.uniform(0, 20)
    while y < sheet.side:
        script = script_of(rng)
        face, language = letters.face(rng, script), letters.language(rng, script)
        size = sheet.em(28, 110)
        paper, ink = papers(rng) if rng.random() < 0.5 else (sheet.paper, sheet.ink)
        sheet.pen.rectangle((0, y, sheet.side, y + size * 1.5), fill=paper)
        text = letters.name(rng, language) if rng.random() < 0.6 else letters.sentence(rng, language, (2, 6))
        text = text.upper() if rng.random() < 0.25 else text
        if rng.random() < 0.15:
            outline = max(1, size // 20)
            sheet.pen.text((sheet.px(20), y + size * 0.1), text, font=face.at(size), fill=ink, stroke_width=outline,
                           stroke_fill=any_color(rng))  # fmt: skip
        else:
            sheet.write(sheet.px(rng.uniform(-30, 60)), y + size * 0.1, text, face.at(size), ink)
        y += size * 1.5


PAGES = {paragraph: 0.36, table: 0.14, code: 0.13, formulas: 0.09, listing: 0.16, signs: 0.12}
"""Kinds of pages, with their shares."""


def page(rng: np.random.Generator, letters: Letters, photograph: Image.Image | None = None) -> Image.Image:
    """Draws a piece of a page.

    Args:
        rng: Source of every draw.
        letters: Fonts and phrases.
        photograph: Picture that may be printed on it.

    Returns:
        RGB, `SIDE` pixels square.
    """
    sheet = blank(rng, letters)
    kinds = list(PAGES)
    kinds[int(rng.choice(len(kinds), p=list(PAGES.values())))](sheet)
    if photograph is not None:
        width = sheet.px(rng.uniform(120, 300))
        small = photograph.resize(
            (width, round(width * photograph.height / photograph.width)), Image.Resampling.LANCZOS
        )
        sheet.image.paste(small, tuple(int(each) for each in rng.integers(0, sheet.side - width // 2, size=2)))
    for layer in (stamped, penned, tinted):
        if rng.random() < 0.08 and luminance(sheet.paper) > 150:
            layer(sheet)
    return finished(sheet)
