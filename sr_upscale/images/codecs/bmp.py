"""BMP, by Pillow, with what Pillow does not read: its colours, and of which kind it is where it cannot be read.

Source: Microsoft, BITMAPINFOHEADER, BITMAPV4HEADER and BITMAPV5HEADER.
"""

from __future__ import annotations

import struct
from typing import Any

from PIL import Image

from sr_upscale.errors import InputError
from sr_upscale.images.codecs.codec import Codec, Header, InputFile, Output
from sr_upscale.images.color_tags import ColorTags, checked_tags

_HEADER = 14  # where the second header begins
_V4, _V5 = 108, 124  # bytes of the second header
_CALIBRATED, _EMBEDDED, _LINKED = 0, 0x4D424544, 0x4C494E4B
_MASKS = (3, 6)
_COMPRESSIONS = {4: "JPEG or RLE of 24 bits", 5: "PNG", 11: "CMYK", 12: "CMYK in RLE8", 13: "CMYK in RLE4"}
_BITS = (1, 4, 8, 16, 24, 32)
_D65 = (0.3127, 0.3290)


class Bmp(Codec):
    """BMP of what Pillow reads."""

    def read_header(self, file: InputFile) -> Header:
        """Reads the header, or says which kind of BMP it is. See `Codec.read_header`."""
        try:
            return super().read_header(file)
        except InputError as error:
            if what := kind_of_bmp(file.data):
                wish = "which this program does not read; save it again as PNG"
                raise InputError(f"{file.name}: {what}, {wish}") from error
            raise

    def header_of(self, file: InputFile, image: Image.Image) -> Header:
        """Adds the colours. See `Codec.header_of`."""
        header = super().header_of(file, image)
        header.icc, header.color = colors_of_bmp(file)
        return header

    def settings(self, output: Output) -> dict[str, Any]:
        """Returns the resolution. See `Codec.settings`."""
        return {"dpi": output.metadata.dpi} if output.metadata.dpi else {}


def kind_of_bmp(data: bytes) -> str:
    """Says what a BMP is that Pillow does not read; empty where its header is damaged."""
    try:
        (size,) = struct.unpack_from("<I", data, _HEADER)
        if size == 12:
            (bits,), compression = struct.unpack_from("<H", data, _HEADER + 10), 0
        else:
            bits, compression = struct.unpack_from("<HI", data, _HEADER + 14)
        if compression in _COMPRESSIONS:
            return f"a BMP that holds {_COMPRESSIONS[compression]}"
        if bits not in _BITS:
            return f"a BMP of {bits} bits per pixel" if bits in (2, 64) else ""
        if compression not in _MASKS:
            return ""
        if bits < 16:
            return f"a BMP of {bits} bits per pixel in compression {compression}"
        masks = struct.unpack_from("<3I", data, _HEADER + 40)
        alpha = struct.unpack_from("<I", data, _HEADER + 52) if size >= 56 or compression == _MASKS[1] else (0,)
    except struct.error:
        return ""
    channels = ", ".join(f"{mask.bit_count()} ({mask:#x})" for mask in (*masks, *alpha))
    return f"a BMP of {bits} bits per pixel whose red, green, blue and alpha have {channels} bits"


def colors_of_bmp(file: InputFile) -> tuple[bytes | None, ColorTags | None]:
    """Reads the ICC profile of a BMP of version 5, or gamma and primaries of one of version 4 or 5."""
    data = file.data
    try:
        (size,) = struct.unpack_from("<I", data, _HEADER)
        if size < _V4:
            return None, None
        (kind,) = struct.unpack_from("<I", data, _HEADER + 56)
        if kind == _CALIBRATED:
            points = struct.unpack_from("<9i", data, _HEADER + 60)
            gammas = [value / 65536 for value in struct.unpack_from("<3I", data, _HEADER + 96)]
            xy = [value / sum(three) for three in _threes(points) if sum(three) for value in three[:2]]
            return None, checked_tags(1 / gammas[1] if gammas[1] else 0.0, (*_D65, *xy) if len(xy) == 6 else ())
        if size < _V5 or kind not in (_EMBEDDED, _LINKED):
            return None, None
        start, length = struct.unpack_from("<II", data, _HEADER + 112)
    except struct.error:
        return None, None
    if kind == _LINKED:
        file.note("its colour profile stands in another file and is left out")
        return None, None
    profile = data[_HEADER + start : _HEADER + start + length]
    return (profile if profile[36:40] == b"acsp" else None), None


def _threes(values: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [values[first : first + 3] for first in range(0, len(values), 3)]


CODEC = Bmp("bmp")
