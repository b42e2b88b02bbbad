"""The beginning of PNG and JPEG files: resolution, profile, EXIF, XMP, IPTC and texts, byte for byte as given.

libvips could write most of it, but rewrites EXIF (GPS and maker notes get lost) and refuses profiles that it finds odd.
So it writes the pixels alone, and what it puts before them is replaced here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from PIL.PngImagePlugin import MAX_TEXT_CHUNK, PngInfo

from sr_upscale.images.color_tags import chunks_of
from sr_upscale.images.formats import JPEG_ROOM
from sr_upscale.images.picture import Metadata

MakeHead = Callable[[bytes, Metadata], bytes | None]
"""Takes the first bytes of a file and gives what shall stand there instead. None says that they are too few to tell."""

_SIGNATURE = 8
_SEGMENT = 65533  # bytes that a JPEG segment holds
_LONG_TEXT = 1000  # bytes, from which on compressing pays
_PROFILE = b"ICC_PROFILE\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP = b"Photoshop 3.0\x008BIM\x04\x04\0\0"  # with the resource that holds IPTC, without a name


def png_head(start: bytes, metadata: Metadata) -> bytes | None:
    """Makes a PNG's head, up to its pixels, with iCCP, pHYs, eXIf, colours and texts of `metadata`. See `MakeHead`."""
    at = _SIGNATURE
    while (kind := start[at + 4 : at + 8]) != b"IDAT":
        if len(kind) < 4:
            return None
        at += 12 + int.from_bytes(start[at : at + 4], "big")
    head = [start[: _SIGNATURE + 25]]
    if metadata.icc:
        head.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        across, down = (min(round(value / 0.0254), 2**31 - 1) for value in metadata.dpi)
        head.append(_chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    elif metadata.aspect:
        head.append(_chunk(b"pHYs", struct.pack(">IIB", *metadata.aspect, 0)))
    if metadata.exif:
        head.append(_chunk(b"eXIf", metadata.exif))
    head += [_chunk(kind, data) for kind, data, *_after in png_info(metadata).chunks]
    return b"".join(head) + start[at:]


def jpeg_head(start: bytes, metadata: Metadata) -> bytes | None:
    """Makes a JPEG's head, up to its tables, with JFIF, EXIF, XMP, IPTC and the profile of `metadata`.

    See `MakeHead`. A block that is longer than `JPEG_ROOM` is left out, and so is a profile that is longer than 255
    segments.
    """
    at = 2
    while len(marker := start[at : at + 4]) == 4 and marker[:2] == b"\xff\xe0":
        at += 2 + int.from_bytes(marker[2:], "big")
    if len(marker) < 4:
        return None
    unit, across, down = (1, *metadata.dpi) if metadata.dpi else (0, *(metadata.aspect or (1, 1)))
    sides = (min(max(round(value), 1), 65535) for value in (across, down))
    head = [start[:2], _segment(0xE0, struct.pack(">5sHBHHBB", b"JFIF\0", 0x0101, unit, *sides, 0, 0))]
    if metadata.exif and len(metadata.exif) <= JPEG_ROOM:
        head.append(_segment(0xE1, b"Exif\0\0" + metadata.exif))
    if metadata.xmp and len(metadata.xmp) <= JPEG_ROOM:
        head.append(_segment(0xE1, _XMP + metadata.xmp))
    if metadata.iptc and len(metadata.iptc) <= JPEG_ROOM:
        size = struct.pack(">I", len(metadata.iptc))
        head.append(_segment(0xED, _PHOTOSHOP + size + metadata.iptc + b"\0" * (len(metadata.iptc) % 2)))
    if metadata.icc:
        room = _SEGMENT - len(_PROFILE) - 2
        parts = [metadata.icc[first : first + room] for first in range(0, len(metadata.icc), room)]
        if len(parts) <= 255:
            numbered = enumerate(parts, start=1)
            head += [_segment(0xE2, _PROFILE + bytes((number, len(parts))) + part) for number, part in numbered]
    return b"".join(head) + start[at:]


def png_info(metadata: Metadata) -> PngInfo:
    """Puts the colour tags, the texts and the XMP of `metadata` into chunks of a PNG."""
    info = PngInfo()
    for kind, content in chunks_of(metadata.color):
        info.add(kind, content)
    if metadata.xmp:
        info.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode())
    for keyword, text in metadata.text:
        size = len(text.encode())
        info.add_text(keyword, text, zip=_LONG_TEXT < size <= MAX_TEXT_CHUNK)  # Pillow reads no longer compressed ones
    return info


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
