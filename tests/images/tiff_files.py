"""TIFF files as no library here writes them: any tags, strips or tiles of any bytes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHORT, LONG, RATIONAL = 3, 4, 5


def tiff_file(tags: dict[int, tuple[int, Sequence[float]]], blocks: Sequence[bytes], *, order: str = "<") -> bytes:
    """A TIFF of one directory; its blocks are tiles where there is a tile width, else strips."""
    offsets_tag, counts_tag = (324, 325) if 322 in tags else (273, 279)
    offsets = [8 + sum(map(len, blocks[:number])) for number in range(len(blocks))]
    tags = tags | {offsets_tag: (LONG, offsets), counts_tag: (LONG, [len(block) for block in blocks])}
    start = 8 + sum(map(len, blocks))
    behind = start + 2 + 12 * len(tags) + 4
    entries, long_values = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        if kind == RATIONAL:
            data = b"".join(struct.pack(order + "II", round(value * 10000), 10000) for value in values)
        else:
            data = struct.pack(f"{order}{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        if len(data) > 4:
            place = struct.pack(order + "I", behind + len(long_values))
            long_values += data
        else:
            place = data.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + place
    head = struct.pack(order + "2sHI", b"MM" if order == ">" else b"II", 42, start)
    count, end = struct.pack(order + "H", len(tags)), struct.pack(order + "I", 0)
    return head + b"".join(blocks) + count + entries + end + long_values


def packed(block: NDArray[Any], compression: int) -> bytes:
    """A block of bytes, compressed: 1 not at all, 5 LZW (by Pillow), 8 deflate."""
    if compression == 5:
        file = io.BytesIO()
        Image.frombytes("L", (block.size, 1), block.tobytes()).save(file, "TIFF", compression="tiff_lzw")
        with Image.open(file) as image:
            tags = image.tag_v2  # type: ignore[attr-defined]
            (at,), (count,) = tags[273], tags[279]
        return file.getvalue()[at : at + count]
    return zlib.compress(block.tobytes()) if compression == 8 else block.tobytes()


def units_of(luma: NDArray[Any], cb: NDArray[Any], cr: NDArray[Any], across: int, down: int) -> NDArray[Any]:
    """Rows of units of TIFF 6.0, section 21: Y of across x down pixels, a Cb, a Cr. The last ones are padded."""
    rows, columns = cb.shape
    size = luma.shape
    padded = np.pad(luma, ((0, rows * down - size[0]), (0, columns * across - size[1])), mode="edge")
    blocks = padded.reshape(rows, down, columns, across).swapaxes(1, 2).reshape(rows, columns, down * across)
    return np.concatenate([blocks, cb[:, :, None], cr[:, :, None]], axis=2).reshape(rows, -1)
