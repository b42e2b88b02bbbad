"""Fonts and phrases of rendered pictures: which fonts training may see, and what is written with them.

Fonts are parted by family: sisters (DejaVu Sans, DejaVu Serif) have one first word and fall on one side, so that no
held-out letter has a relative that was trained on. Phrases are made of the word lists of Debian's spelling packages.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from PIL import ImageFont

HELD_OUT_OF = 6
"""One family in as many, and one drawing in as many, is held out."""
ALPHABETS = {
    "latin": "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:;!?()-'",
    "accents": "äöüßéèêçñáíóúàâîôãõåæøąćęłńśźżčďěňřšťůžőűğışÄÖÜÉŠŽ",
    "cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюяіїєґАБВГДЖЗИКЛМНОПРСТФХЦЧШЩЭЮЯ",
    "greek": "αβγδεζηθικλμνξοπρστυφχψωάέήίόύώςΑΒΓΔΕΖΗΘΛΞΠΣΦΨΩ",
    "kana": "あいうえおかきくけこさしすせそたちつてとなにぬねのまみむめもやゆよらりるれろわをん日本語東京写真画像拡大",
}
LISTS = {
    "latin": ("american-english",),
    "accents": ("ngerman", "french", "spanish", "polish", "italian", "portuguese", "swedish", "catalan", "dutch")
    + ("cs_CZ.dic", "hu_HU.dic", "tr_TR.dic"),
    "cyrillic": ("bulgarian", "ukrainian", "ru_RU.dic"),
    "greek": ("el_GR.dic",),
    "kana": ("kana",),
}
"""Word lists by script: files of Debian's spelling packages, and signs put together at random where words need none."""
SMALL_WORDS = {
    "american-english": "the of and to in is that it was for on are with as at by this be from or have not but an they",
    "ngerman": "der die und das in zu den von mit ist des im für auf ein eine dem nicht als auch es an werden aus",
    "french": "le la les de des et à un une du en que qui pour dans est au sur par ne pas plus se ce il",
    "ru_RU.dic": "и в не на что с по как это но из у за от для о же так бы то",
    "el_GR.dic": "και το να του της με για από που στο η ο είναι δεν σε τα θα",
}
MONOSPACED = re.compile("mono|code|courier|typewriter|console|hack|agave|hermit|3270|cousine|inconsolata|ocr", re.I)
UNFIT = re.compile(
    "initials|math|symbol|keyboard|keyfont|ornament|titling|integrals|size.*sym|variants|nonunicode|dingbat|chancery"
    "|standard|d050000l|z003|display.*symbols|hairline|thin|quotation|monoisome|alta|infofont z|smallcaps| caps| sc$"
    "|fill|joscelyn|delphine|stixgeneral",
    re.I,
)


@dataclass(frozen=True)
class Face:
    """A font file and what can be written with it."""

    path: Path
    family: str
    scripts: frozenset[str]

    @property
    def monospaced(self) -> bool:
        return bool(MONOSPACED.search(self.family))

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        """Returns the font with an em of `size` pixels."""
        return _sized(self.path, size)


@lru_cache(maxsize=512)
def _sized(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def held_out(name: str) -> bool:
    """Says whether a family or a drawing is kept from training, by a hash of its name."""
    return hashlib.sha256(name.encode()).digest()[0] % HELD_OUT_OF == 0


def relatives(family: str) -> str:
    """Returns the name that a family shares with its sisters: its first word."""
    return family.split()[0].split("-")[0].lower()


def faces_below(root: Path) -> list[Face]:
    """Returns every font file below `root` that has the letters and digits of English, by path."""
    found = []
    for path in sorted([*root.rglob("*.ttf"), *root.rglob("*.otf")]):
        try:
            font = ImageFont.truetype(str(path), 24, layout_engine=ImageFont.Layout.BASIC)
        except OSError:  # bitmap fonts, and tables that FreeType does not read
            continue
        family = font.getname()[0] or path.stem
        if UNFIT.search(f"{family} {font.getname()[1]}"):
            continue
        missing = _ink(font, "\uffff")
        scripts = frozenset(
            name
            for name, letters in ALPHABETS.items()
            if all(_ink(font, letter) not in (missing, (None, b"")) for letter in letters)
        )
        if "latin" in scripts and _ink(font, "a") != _ink(font, "A"):
            found.append(Face(path, family, scripts))
    return found


def _ink(font: ImageFont.FreeTypeFont, letter: str) -> tuple[object, bytes]:
    mask = font.getmask(letter, mode="L")
    return mask.getbbox(), bytes(mask)


class Letters:
    """Fonts of one part, drawn family by family, and phrases to set in them."""

    def __init__(self, faces: Sequence[Face], lists: Path, *, held: bool) -> None:
        self.faces = [face for face in faces if held_out(relatives(face.family)) == held]
        self._lists = lists

    def face(self, rng: np.random.Generator, script: str = "latin", *, monospaced: bool | None = None) -> Face:
        """Draws a family, then one of its files; each family is as likely as another."""
        families: dict[str, list[Face]] = {}
        for face in self.faces:
            if script in face.scripts and monospaced in (None, face.monospaced):
                families.setdefault(relatives(face.family), []).append(face)
        chosen = families[sorted(families)[int(rng.integers(len(families)))]]
        return chosen[int(rng.integers(len(chosen)))]

    @cached_property
    def words(self) -> dict[str, list[str]]:
        """Every list by its file name."""
        files = {name: next(self._lists.rglob(name), None) for names in LISTS.values() for name in names}
        signs = np.random.default_rng(0).choice(list(ALPHABETS["kana"]), size=(400, 5))
        found = {name: _words(file) for name, file in files.items() if file is not None}
        return {**found, "kana": ["".join(row[: 2 + number % 4]) for number, row in enumerate(signs)]}

    def language(self, rng: np.random.Generator, script: str) -> str:
        """Draws a word list of a script."""
        names = LISTS[script]
        return names[int(rng.integers(len(names)))]

    def word(self, rng: np.random.Generator, language: str) -> str:
        """Draws a word: a frequent short one in four of ten, or any of the list."""
        small = SMALL_WORDS.get(language, "").split()
        words = small if small and rng.random() < 0.4 else self.words[language]
        return words[int(rng.integers(len(words)))]

    def sentence(self, rng: np.random.Generator, language: str, length: tuple[int, int] = (4, 14)) -> str:
        """Returns words with a capital, commas, figures, signs and an end."""
        parts = [self.word(rng, language) for _ in range(int(rng.integers(*length)))]
        parts[0] = parts[0][:1].upper() + parts[0][1:]
        for at in range(1, len(parts)):
            if rng.random() < 0.3:
                form = str(rng.choice(["{figure}", "({})", "“{}”", '"{}"', "{}-{}", "{},", "{};", "{}:", "{},", "{},"]))
                parts[at] = form.format(parts[at], self.word(rng, language), figure=figure(rng))
        return " ".join(parts) + "...?!"[int(rng.integers(5))]

    def name(self, rng: np.random.Generator, language: str) -> str:
        """Returns one or two words with capitals, as on a button or a map."""
        return " ".join(self.word(rng, language).capitalize() for _ in range(int(rng.integers(1, 3))))


def figure(rng: np.random.Generator) -> str:
    """Returns a number as it stands in print: a year, a price, a date, a time, a share."""
    forms = "{a} 1{a:03d} {a}.{b:02d} {a},{c:03d} {b}/{d}/{e:02d} {d}:{b:02d} {b}% ${a}.{b:02d} {b},{e:02d}€ §{b} [{e}]"
    form = str(rng.choice([*forms.split(), "No. {a}", "{a:03d}-{c:03d}", "{d}°", "{b}x{e}"]))
    a, c, b, e, d = (int(rng.integers(most)) for most in (1000, 1000, 60, 60, 24))
    return form.format(a=a, b=b, c=c, d=d, e=e)


def _words(file: Path) -> list[str]:
    """Reads a word list, or a dictionary of hunspell with its flags cut off."""
    encoding = "utf-8"
    if file.suffix == ".dic":
        setting = re.search(rb"^SET\s+(\S+)", file.with_suffix(".aff").read_bytes(), re.M)
        encoding = setting[1].decode() if setting else encoding
    lines = file.read_text(encoding, errors="replace").splitlines()
    words = (re.split(r"[/\s]", line)[0] for line in lines)
    return [word for word in words if 1 < len(word) < 15 and word.replace("'", "").isalpha()]
