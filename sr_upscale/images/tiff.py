"""EXIF, XMP and IPTC for TIFF files: libvips writes 16-bit TIFF but no EXIF, Pillow does the reverse."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

from PIL import Image, TiffImagePlugin

from sr_upscale.images.metadata import DIRECTORIES, directory_of
from sr_upscale.images.picture import Metadata

_BYTE, _ASCII, _LONG, _UNDEFINED, _LONG8 = 1, 2, 4, 7, 16
_XMP, _IPTC = 700, 33723


def append_metadata(path: Path, metadata: Metadata) -> None:
    """Adds EXIF, XMP and IPTC to a little-endian TIFF or BigTIFF of one page.

    The first directory is copied to the end of the file, entry by entry and byte by byte. The text tags, the EXIF and
    GPS directories, XMP and IPTC are added to it. The header then points there. Pixels are not touched.

    Args:
        path: File that libvips wrote.
        metadata: Its `exif`, `xmp` and `iptc` are added.

    Raises:
        ValueError: The file is not little-endian.

    Source: TIFF 6.0, section 2; EXIF 2.32, section 4.6; XMP part 3 (2020), section 3.2.
    """
    exif = Image.Exif()
    if metadata.exif:
        exif.load(metadata.exif)
    with path.open("r+b") as file:
        magic, version = struct.unpack("<2sH", file.read(4))
        if magic != b"II":
            msg = f"{path} is not little-endian"
            raise ValueError(msg)
        big = version == 43
        word, entry_size, count_format = ("<Q", 20, "<Q") if big else ("<I", 12, "<H")
        file.seek(8 if big else 4)
        (start,) = struct.unpack(word, file.read(struct.calcsize(word)))
        file.seek(start)
        (count,) = struct.unpack(count_format, file.read(struct.calcsize(count_format)))
        entries = {}
        for _ in range(count):
            raw = file.read(entry_size)
            entries[struct.unpack_from("<H", raw)[0]] = raw

        for tag, value in exif.items():
            if isinstance(value, str) and tag not in entries:
                data = value.encode("utf-8", "replace") + b"\0"
                entries[tag] = _entry(tag, _ASCII, len(data), _place(file, data, big=big), big=big)
        for directory in DIRECTORIES:
            if directory in exif:
                header = b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4)
                content = TiffImagePlugin.ImageFileDirectory_v2(header, group=directory)
                for tag, value in directory_of(exif, directory).items():
                    content[tag] = value
                at = _end(file)
                file.write(content.tobytes(at))
                pointer = struct.pack(word, at)
                entries[directory] = _entry(directory, _LONG8 if big else _LONG, 1, pointer, big=big)
        for tag, kind, block in ((_XMP, _BYTE, metadata.xmp), (_IPTC, _UNDEFINED, metadata.iptc)):
            if block:
                entries[tag] = _entry(tag, kind, len(block), _place(file, block, big=big), big=big)

        at = _end(file)
        file.write(struct.pack(count_format, len(entries)))
        file.write(b"".join(raw for _tag, raw in sorted(entries.items())))
        file.write(struct.pack(word, 0))
        file.seek(8 if big else 4)
        file.write(struct.pack(word, at))


def _entry(tag: int, kind: int, count: int, value: bytes, *, big: bool) -> bytes:
    return struct.pack("<HHQ8s" if big else "<HHI4s", tag, kind, count, value)


def _place(file: BinaryIO, data: bytes, *, big: bool) -> bytes:
    """Makes the value field of an entry: the data itself where it fits, else the place where it is put."""
    width = 8 if big else 4
    if len(data) <= width:
        return data.ljust(width, b"\0")
    at = _end(file)
    file.write(data)
    return struct.pack("<Q" if big else "<I", at)


def _end(file: BinaryIO) -> int:
    """Goes to the end of the file, on an even offset as TIFF asks for."""
    at = file.seek(0, io.SEEK_END)
    if at % 2:
        at += file.write(b"\0")
    return at
