"""Parsing of option values: sizes, colours, parts, threads."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

from sr_upscale.errors import UsageError
from sr_upscale.formatting import shortened
from sr_upscale.images.formats import Format, format_by_name
from sr_upscale.video.containers import CONTAINERS, Container


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Threads of the three stages, which overlap.

    Attributes:
        load: Threads that read.
        proc: Threads that compute.
        save: Threads that write.

    Raises:
        UsageError: One of them is less than 1.
    """

    load: int = 1
    proc: int = 1
    save: int = 1

    def __post_init__(self) -> None:
        if min(self.load, self.proc, self.save) < 1:
            raise UsageError(f"jobs are {self.load}:{self.proc}:{self.save}; expected at least 1 of each")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A part of a folder: number `index` (from 1) of `count`.

    Raises:
        UsageError: There is no such part.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(f"--shard is {self.index}/{self.count}; expected a part from 1 to {self.count}")

    def holds(self, name: str) -> bool:
        """Says whether a name is in this part: by its hash, so wherever it stands in a list, on every machine."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1


def _matched(option: str, text: str, expected: str, pattern: str) -> re.Match[str]:
    if (match := re.fullmatch(pattern, text.strip())) is None:
        raise UsageError(f"{option} is {shortened(text)!r}; expected {expected}")
    return match


def parse_shard(text: str) -> Shard:
    """Parses ``2/8``: the second of eight parts.

    Raises:
        UsageError: It is no such part.
    """
    match = _matched("--shard", text, "I/N such as 2/8, the second of eight parts", r"(\d{1,9})/(\d{1,9})")
    return Shard(index=int(match[1]), count=int(match[2]))


def parse_scale(text: str) -> float:
    """Parses ``4``, ``3.5``, ``4x`` or ``x4``.

    Raises:
        UsageError: It is no such factor.
    """
    number = r"(\d+(?:\.\d+)?|\.\d+)"
    match = _matched("--scale", text, "a factor such as 2, 3.5 or 4x", rf"[xX×]?{number}|{number}[xX×]")
    return float(match[1] or match[2])


def parse_size(text: str) -> tuple[int, int]:
    """Parses ``1920x1080`` as (1920, 1080), width and height in pixels.

    Raises:
        UsageError: It is no such size.
    """
    match = _matched("--size", text, "WIDTHxHEIGHT such as 1920x1080", r"(\d{1,9})[xX×](\d{1,9})")
    return int(match[1]), int(match[2])


def parse_print(text: str) -> tuple[float, float]:
    """Parses ``40x30cm``, ``8x10in`` or ``100x150mm`` as width and height in inches.

    Raises:
        UsageError: It is no such size.
    """
    side, expected = r"(\d{1,5}(?:\.\d+)?)", "a size on paper such as 40x30cm, 8x10in or 100x150mm"
    match = _matched("--print", text, expected, rf"{side}[xX×]{side} ?(cm|mm|in)")
    if not float(match[1]) * float(match[2]):
        raise UsageError(f"--print is {shortened(text)!r}; expected {expected}")
    inch = {"cm": 2.54, "mm": 25.4, "in": 1.0}[match[3]]
    return float(match[1]) / inch, float(match[2]) / inch


def parse_box(text: str) -> tuple[int, int, int, int]:
    """Parses ``100,80,256,256`` as left, top, width and height in pixels.

    Raises:
        UsageError: It is no such part.
    """
    match = _matched("--crop", text, "X,Y,W,H such as 100,80,256,256", ",".join([r"(\d{1,9})"] * 4))
    return int(match[1]), int(match[2]), int(match[3]), int(match[4])


def parse_pixels(text: str) -> int:
    """Parses ``400MP``, ``1.5GP`` or a plain number of pixels.

    Raises:
        UsageError: It is no such number.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*(MP|GP)?", text.strip(), flags=re.IGNORECASE)
    if match is None or not math.isfinite(float(match[1])):
        raise UsageError(f"--max-pixels is {shortened(text)!r}; expected a number of pixels, or one such as 400MP")
    return int(float(match[1]) * {"": 1, "MP": 10**6, "GP": 10**9}[(match[2] or "").upper()])


def parse_bytes(text: str, option: str = "--max-memory") -> int:
    """Parses ``2G``, ``1.5GiB``, ``800M`` or a plain number of bytes. K, M, G and T are powers of 1024.

    Raises:
        UsageError: It is no such size, or 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?|B)?", text.strip(), flags=re.IGNORECASE)
    if match is None or not 0 < float(match[1]) < math.inf:
        raise UsageError(f"{option} is {shortened(text)!r}; expected a size such as 2G or 800M")
    return int(float(match[1]) * 1024 ** " KMGT".index((match[2] or " ").upper()))


def parse_colour(text: str) -> tuple[int, int, int]:
    """Parses ``white``, ``#fff``, ``#rrggbb`` or ``rgb(1,2,3)`` as (r, g, b) of 0-255.

    Raises:
        UsageError: It is no such colour.
    """
    from PIL import ImageColor

    try:
        red, green, blue, *_alpha = ImageColor.getrgb(text)
    except ValueError as error:
        raise UsageError(f"--background is {shortened(text)!r}; expected a colour such as white or #rrggbb") from error
    return red, green, blue


def parse_suffix(text: str) -> str:
    """Parses the end of output names: ``out`` and ``_out`` are ``_out``, ``-big`` stays.

    Raises:
        UsageError: It leads into a folder.
    """
    if any(char in text for char in ("/", "\\", "\0")):
        raise UsageError(f"--suffix is {shortened(text)!r}; expected a part of a name, without a folder")
    return f"_{text}" if text[:1].isalnum() else text


def parse_format(text: str) -> Format | Container | None:
    """Parses the name of a format such as ``png`` or of a container such as ``mkv``. ``auto`` gives None.

    Raises:
        UsageError: It is no format that can be written.
    """
    container = CONTAINERS.get(text.lower().lstrip("."))
    return None if text == "auto" else container if container and container.muxer else format_by_name(text)


def parse_jobs(text: str) -> Jobs:
    """Parses ``1:2:2``: threads that read, compute and write.

    Raises:
        UsageError: It is not three numbers of at least 1.
    """
    match = _matched("--jobs", text, "LOAD:PROC:SAVE such as 1:1:2", ":".join([r"(\d{1,9})"] * 3))
    return Jobs(load=int(match[1]), proc=int(match[2]), save=int(match[3]))


def dtype_name(*, fp32: bool, bf16: bool, fp16: bool) -> str:
    """Returns the one number type that was asked for, or ``auto``.

    Raises:
        UsageError: Two were asked for.
    """
    chosen = [name for name, wanted in (("fp32", fp32), ("bf16", bf16), ("fp16", fp16)) if wanted]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} contradict each other; give one of them")
    return chosen[0] if chosen else "auto"
