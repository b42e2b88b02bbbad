"""Words of a command line into values."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sr_upscale.errors import UsageError
from sr_upscale.images.formats import Format, format_by_name


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Threads of the three stages, which overlap: reading, computing, writing."""

    load: int = 1
    proc: int = 1
    save: int = 1

    def __post_init__(self) -> None:
        if min(self.load, self.proc, self.save) < 1:
            raise UsageError(f"jobs are {self.load}:{self.proc}:{self.save}; expected at least 1 of each")


def parse_size(text: str) -> tuple[int, int]:
    """``1920x1080`` -> (1920, 1080)."""
    match = re.fullmatch(r"(\d+)[xX×](\d+)", text.strip())
    if match is None:
        raise UsageError(f"--size is {text!r}; expected WIDTHxHEIGHT such as 1920x1080")
    return int(match[1]), int(match[2])


def parse_pixels(text: str) -> int:
    """``400MP``, ``1.5GP`` or a plain number of pixels."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*(MP|GP)?", text.strip(), flags=re.IGNORECASE)
    if match is None:
        raise UsageError(f"--max-pixels is {text!r}; expected a number of pixels, or one such as 400MP")
    return int(float(match[1]) * {"": 1, "MP": 10**6, "GP": 10**9}[(match[2] or "").upper()])


def parse_bytes(text: str) -> int:
    """``2G``, ``1.5GiB``, ``800M`` or a plain number of bytes; K, M and G are powers of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?|B)?", text.strip(), flags=re.IGNORECASE)
    if match is None or not float(match[1]):
        raise UsageError(f"--max-memory is {text!r}; expected a size such as 2G or 800M")
    return int(float(match[1]) * 1024 ** " KMGT".index((match[2] or " ").upper()))


def parse_colour(text: str) -> tuple[int, int, int]:
    """``white``, ``#fff``, ``#rrggbb``, ``rgb(1,2,3)`` -> (r, g, b) of 0-255."""
    from PIL import ImageColor

    try:
        red, green, blue, *_alpha = ImageColor.getrgb(text)
    except ValueError as error:
        raise UsageError(f"--background is {text!r}; expected a colour such as white or #rrggbb") from error
    return red, green, blue


def parse_format(text: str) -> Format | None:
    """``png``; ``auto`` is none."""
    return None if text == "auto" else format_by_name(text)


def parse_jobs(text: str) -> Jobs:
    """``1:2:2``: threads that read, compute and write."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+)", text.strip())
    if match is None:
        raise UsageError(f"--jobs is {text!r}; expected LOAD:PROC:SAVE such as 1:1:2")
    return Jobs(load=int(match[1]), proc=int(match[2]), save=int(match[3]))


def dtype_name(*, fp32: bool, bf16: bool, fp16: bool) -> str:
    """The one type that was asked for, or ``auto``."""
    chosen = [name for name, wanted in (("fp32", fp32), ("bf16", bf16), ("fp16", fp16)) if wanted]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} contradict each other; give one of them")
    return chosen[0] if chosen else "auto"
