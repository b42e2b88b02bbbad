"""Animations written byte by byte, and what they show, pixel by pixel: nothing here is shared with the program."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixel = tuple[int, ...]
KEEP, CLEAR, RESTORE = "keep", "clear", "restore"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A frame: (h, w, C) pixels with alpha, or for a GIF (h, w) indices."""

    pixels: NDArray[Any]
    left: int = 0
    top: int = 0
    disposal: str = KEEP
    over: bool = False


def expected(width: int, height: int, frames: list[Drawn], top: int) -> list[NDArray[np.int64]]:
    """What is shown with each frame, (H, W, C), by the rules of Porter and Duff in fractions, pixel by pixel.

    Args:
        width, height: Of the canvas.
        frames: With pixels (h, w, C), the last channel alpha.
        top: Value of full alpha, 255 or 65535.
    """
    nothing = (0,) * frames[0].pixels.shape[2]
    canvas: dict[tuple[int, int], Pixel] = {(x, y): nothing for y in range(height) for x in range(width)}
    shown = []
    for frame in frames:
        saved = dict(canvas)
        places = []
        for y, row in enumerate(frame.pixels.tolist()):
            for x, pixel in enumerate(row):
                place = frame.left + x, frame.top + y
                if place in canvas:
                    places.append(place)
                    canvas[place] = over(tuple(pixel), canvas[place], top) if frame.over else tuple(pixel)
        shown.append(np.array([[canvas[x, y] for x in range(width)] for y in range(height)]))
        for place in places:
            if frame.disposal == CLEAR:
                canvas[place] = nothing
            elif frame.disposal == RESTORE:
                canvas[place] = saved[place]
    return shown


def over(front: Pixel, back: Pixel, top: int) -> Pixel:
    a, b = Fraction(front[-1], top), Fraction(back[-1], top)
    if a == 0:
        return back
    alpha = a + b * (1 - a)
    colours = [(f * a + k * b * (1 - a)) / alpha for f, k in zip(front[:-1], back[:-1], strict=True)]
    return tuple(int(value + Fraction(1, 2)) for value in (*colours, alpha * top))


def gif(
    width: int,
    height: int,
    frames: list[Drawn],
    colours: list[Pixel],
    *,
    transparent: list[int | None] | None = None,
    disposals: list[int] | None = None,
    delays: list[int] | None = None,
    interlaced: bool = False,
    loop: int | None = None,
) -> bytes:
    """A GIF whose frames hold indices below 4. Disposals are written as 0 to 7 where they are given."""
    table = b"".join(bytes(colour) for colour in colours).ljust(12, b"\0")
    out = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x81, 0, 0) + table
    if loop is not None:
        out += b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", loop) + b"\0"
    for number, frame in enumerate(frames):
        clear = transparent[number] if transparent else None
        disposal = disposals[number] if disposals else {KEEP: 1, CLEAR: 2, RESTORE: 3}[frame.disposal]
        delay = delays[number] if delays else 5
        flags = disposal << 2 | (clear is not None)
        out += b"!\xf9\x04" + struct.pack("<BHBB", flags, delay, clear or 0, 0)
        h, w = frame.pixels.shape
        out += b"," + struct.pack("<HHHHB", frame.left, frame.top, w, h, 64 * interlaced)
        rows = frame.pixels.tolist()
        if interlaced:
            rows = [row for first, step in ((0, 8), (4, 8), (2, 4), (1, 2)) for row in rows[first::step]]
        out += b"\x02" + blocks(packed([value for row in rows for value in row]))
    return out + b";"


def packed(indices: list[int]) -> bytes:
    """Indices below 4 as LZW codes of 3 bits: the table is cleared before codes grow longer."""
    codes = [4]
    for at, index in enumerate(indices):
        if at and at % 2 == 0:
            codes.append(4)
        codes.append(index)
    number = sum(code << 3 * at for at, code in enumerate([*codes, 5]))
    return number.to_bytes((len(codes) + 1) * 3 // 8 + 1, "little")


def blocks(data: bytes) -> bytes:
    parts = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def apng(
    width: int,
    height: int,
    frames: list[Drawn],
    *,
    colour: int,
    depth: int = 8,
    tables: list[tuple[bytes, bytes]] | None = None,
    delays: list[tuple[int, int]] | None = None,
    plays: int = 0,
    hidden: NDArray[Any] | None = None,
) -> bytes:
    """An animated PNG of frames (h, w, C) as they are stored. `hidden` is the picture that is no frame."""
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    out += b"".join(chunk(*table) for table in tables or [])
    out += chunk(b"acTL", struct.pack(">II", len(frames), plays))
    if hidden is not None:
        out += chunk(b"IDAT", deflated(hidden))
    sequence = 0
    for number, frame in enumerate(frames):
        h, w = frame.pixels.shape[:2]
        delay = delays[number] if delays else (1, 20)
        disposal = {KEEP: 0, CLEAR: 1, RESTORE: 2}[frame.disposal]
        control = (sequence, w, h, frame.left, frame.top, *delay, disposal, frame.over)
        out += chunk(b"fcTL", struct.pack(">IIIIIHHBB", *control))
        sequence += 1
        if number == 0 and hidden is None:
            out += chunk(b"IDAT", deflated(frame.pixels))
        else:
            out += chunk(b"fdAT", struct.pack(">I", sequence) + deflated(frame.pixels))
            sequence += 1
    return out + chunk(b"IEND", b"")


def deflated(pixels: NDArray[Any]) -> bytes:
    rows = pixels.astype(pixels.dtype.newbyteorder(">"))
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
