"""Animated PNG: where its frames lie, read from its chunks, and the pixels of one frame, decoded by libvips.

Source: Portable Network Graphics, third edition, sections 4.9 and 11.3.5.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.images.animation import Animation
from sr_upscale.images.compositor import Blend, Disposal, Place
from sr_upscale.images.header_reader import png_chunks

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ALPHA, _COLOUR = 4, 2  # bits of the colour type
_TABLES = (b"PLTE", b"tRNS")  # what else decoding needs
_DISPOSALS = {1: Disposal.CLEAR, 2: Disposal.RESTORE}


@dataclass(frozen=True, kw_only=True)
class Apng(Animation):
    """An animated PNG. See `read_apng`.

    Attributes:
        form: The end of its IHDR, which all frames share: depth, colour type and so on.
        tables: Chunks that stand before the pixels of each frame.
        packed: Compressed pixels of each frame.
    """

    form: bytes
    tables: bytes
    packed: tuple[bytes, ...]

    def decoded(self, number: int, *, allow_truncated: bool) -> NDArray[Any]:
        """Decodes a frame: (h, w, 2 or 4) uint8 or uint16. See `Animation.decoded`."""
        from sr_upscale.images.libvips import pyvips

        place = self.places[number]
        header = _chunk(b"IHDR", struct.pack(">II", place.width, place.height) + self.form)
        data = _SIGNATURE + header + self.tables + _chunk(b"IDAT", self.packed[number]) + _chunk(b"IEND", b"")
        image = pyvips.Image.new_from_buffer(data, "", fail_on="none" if allow_truncated else "truncated")
        pixels: NDArray[Any] = image.numpy().reshape(image.height, image.width, image.bands)
        if image.bands == self.channels:
            return pixels
        opaque = np.full_like(pixels[:, :, :1], np.iinfo(self.dtype).max)
        return np.concatenate((pixels, opaque), axis=2)


def read_apng(data: bytes) -> Apng | None:
    """Reads the layout of a PNG's animation. It decodes nothing.

    Args:
        data: A PNG, at most as far as it is whole (`up_to_damage`).

    Returns:
        None for a still picture, to which belongs an animation of one frame that is the picture itself.

    Raises:
        ValueError: Its chunks contradict the specification.
    """
    if len(data) < 33 or b"acTL" not in data:
        return None
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    tables, has_table = b"", False
    promised, loop, sequence = 0, 0, 0
    hidden = False  # whether the picture for programs that know no animation is none of its frames
    places: list[Place] = []
    packed: list[bytearray] = []
    for kind, at, end in png_chunks(data):
        body = data[at + 8 : end - 4]
        if kind in (b"fcTL", b"fdAT"):
            if len(body) < (26 if kind == b"fcTL" else 4):
                break
            number = int.from_bytes(body[:4], "big")
            if number != sequence:
                raise ValueError(f"a chunk of a frame has number {number} and not {sequence}")
            sequence += 1
        if kind == b"acTL" and len(body) == 8:
            promised, loop = struct.unpack(">II", body)
        elif kind in _TABLES:
            tables += data[at:end]
            has_table = has_table or kind == b"tRNS"
        elif kind == b"fcTL":
            places.append(_place(body, width, height))
            packed.append(bytearray())
        elif kind == b"IDAT" and not places:
            hidden = True
            if not promised:
                return None
        elif kind == b"IDAT":
            packed[-1] += body
        elif kind == b"fdAT" and places:
            packed[-1] += body[4:]
    if not promised or (promised == 1 and not hidden):
        return None
    whole = min(promised, len(places) - bool(places and not packed[-1]))  # the last may be cut before its pixels
    return Apng(
        width=width,
        height=height,
        places=tuple(places[:whole]),
        frames=promised,
        loop=loop,
        channels=4 if colour & _COLOUR else 2,
        dtype=np.dtype(np.uint16 if depth == 16 else np.uint8),
        has_alpha=has_table or bool(colour & _ALPHA),
        form=data[24:29],
        tables=tables,
        packed=tuple(bytes(each) for each in packed[:whole]),
    )


def _place(body: bytes, width: int, height: int) -> Place:
    """Reads an fcTL chunk.

    Raises:
        ValueError: The frame is empty, or reaches beyond the canvas.
    """
    _sequence, w, h, left, top, delay, parts, disposal, blend = struct.unpack(">IIIIIHHBB", body[:26])
    if not w * h or left + w > width or top + h > height:
        raise ValueError(f"a frame of {w}x{h} pixels at ({left}, {top}) does not fit on {width}x{height}")
    return Place(
        left=left,
        top=top,
        width=w,
        height=h,
        blend=Blend.OVER if blend == 1 else Blend.SOURCE,
        disposal=_DISPOSALS.get(disposal, Disposal.KEEP),
        duration_ms=round(1000 * delay / (parts or 100)),
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
