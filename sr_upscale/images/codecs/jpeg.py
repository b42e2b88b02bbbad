"""JPEG: kinds that no decoder reads, pictures behind the picture, and its head, byte for byte as given.

Pixels go by libvips. It could write most of the head as well, but rewrites EXIF (GPS and maker notes get lost) and
refuses profiles that it finds odd. So it writes the pixels alone, and what it puts before them is replaced.

Source: ITU-T T.81, annex B; JFIF 1.02; CIPA DC-007 (Multi-Picture Format); Ultra HDR Image Format 1.1; ISO/TS 21496-1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from sr_upscale.errors import InputError
from sr_upscale.images.codecs.codec import Codec, Header, InputFile, Output, aspect_of
from sr_upscale.images.codecs.row_writer import write_rows
from sr_upscale.images.codecs.tiff_reader import Tiff
from sr_upscale.images.codecs.vips import decode_still
from sr_upscale.images.formats import JPEG_ROOM as _ROOM
from sr_upscale.images.metadata import info_of
from sr_upscale.images.picture import Frame, Metadata

OPTIMIZE_PIXELS = 4_000_000
"""Files of at most this many pixels get Huffman tables of their own and are 2 % smaller. libjpeg then holds all
coefficients in memory, 11 bytes a pixel."""

_APP1, _APP2, _SCAN, _END = 0xE1, 0xE2, 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without content
_KINDS = {
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "a lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "a hierarchical JPEG"),
}
_GAIN_MAPS = (b"hdr-gain-map/1.0/", b"HDRGainMap", b"urn:iso:std:iso:ts:21496:-1")
_NUMBER_OF_PICTURES, _PICTURES, _PICTURE_BYTES = 0xB001, 0xB002, 16
_PREVIEWS = (0x010001, 0x010002)  # smaller versions of the same picture
_MOST_PICTURES = 1000
_SEGMENT_BYTES = 65533
_PROFILE = b"ICC_PROFILE\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP = b"Photoshop 3.0\x008BIM\x04\x04\0\0"  # with the resource that holds IPTC, without a name


class Jpeg(Codec):
    """JPEG of 8 bits, baseline and progressive."""

    counts_frames = False

    def read_header(self, file: InputFile) -> Header:
        """Refuses kinds that cannot be read, then reads the header. See `Codec.read_header`."""
        refuse_jpeg(file.data, file.name)
        file.notes += left_behind(file.data, file.name)
        return super().read_header(file)

    def header_of(self, file: InputFile, image: Image.Image) -> Header:
        """Adds the shape of pixels where JFIF states no unit of length. See `Codec.header_of`."""
        header = super().header_of(file, image)
        if image.info.get("jfif_unit") == 0:
            header.aspect = aspect_of(*(info_of(image, "jfif_density", tuple) or (1, 1)))
        return header

    def decode(self, file: InputFile, header: Header, _numbers: Sequence[int]) -> Sequence[Frame]:
        """Decodes the picture; "premature end" is what libjpeg calls missing pixels. See `Codec.decode`."""
        return (Frame(pixels_hwc=decode_still(file, header, missing="premature end")),)

    def write(self, output: Output, path: Path) -> None:
        """Writes rows as they come. See `Codec.write`."""
        optimize = output.size[0] * output.size[1] <= OPTIMIZE_PIXELS
        options = {"Q": output.quality, "subsample_mode": "off", "optimize_coding": optimize, "keep": "none"}
        write_rows(output, path, "jpegsave_target", options, make_head=jpeg_head)


def refuse_jpeg(data: bytes, name: str) -> None:
    """Refuses a JPEG of a kind that the decoder takes for damaged.

    Raises:
        InputError: It has other samples than those of 8 bits, is lossless, or hierarchical.
    """
    for marker, content in _segments(data):
        if marker in _FRAMES:
            bits = content[0] if content else 8
            what = _KINDS.get(marker) or (f"a JPEG of {bits} bits per sample" if bits != 8 else "")
            if what:
                raise InputError(f"{name}: {what}, which this program does not read; convert it first, to PNG or TIFF")
            return


def left_behind(data: bytes, name: str) -> list[str]:
    """Says in a sentence which pictures of the file are not used: a gain map, or others of an MPO."""
    pictures, gain_map = 1, False
    for marker, content in _segments(data):
        if marker == _APP2 and content.startswith(b"MPF\0"):
            pictures = _pictures(content[4:])
        if marker in (_APP1, _APP2):
            gain_map = gain_map or any(each in content for each in _GAIN_MAPS)
    if gain_map or (pictures > 1 and any(each in data for each in _GAIN_MAPS)):
        return [f"{name}: its gain map (HDR) is left out; the picture without it is used"]
    return [f"{name} holds {pictures} pictures (MPO); only the first is used"] if pictures > 1 else []


def _pictures(index: bytes) -> int:
    """Counts the pictures of an MPO without previews, by its index; 1 where that is damaged."""
    try:
        file = Tiff(index)
        entries = file.entries(file.first)
        count = next(iter(file.values(entries.get(_NUMBER_OF_PICTURES), most=1)), 1)
        at = entries[_PICTURES].value_at
        kinds = [
            struct.unpack_from(file.order + "I", index, at + _PICTURE_BYTES * number)[0] & 0xFFFFFF
            for number in range(min(count, _MOST_PICTURES))
        ]
    except (struct.error, KeyError):
        return 1
    return max(sum(kind not in _PREVIEWS for kind in kinds), 1)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields marker and content of the segments before the first scan, as far as they are whole."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        if marker in (_SCAN, _END):
            return
        if marker in (0, 0xFF) or marker in _ALONE:
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, data[at + 4 : end]
        at = max(end, at + 2)


def jpeg_head(start: bytes, metadata: Metadata) -> bytes | None:
    """Makes a JPEG's head, up to its tables, with JFIF, EXIF, XMP, IPTC and the profile of `metadata`.

    See `row_writer.MakeHead`. A block that is longer than `_ROOM` is left out, and so is a profile of more than 255
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
    iptc = metadata.iptc or b""
    photoshop = _PHOTOSHOP + struct.pack(">I", len(iptc))
    even = iptc + b"\0" * (len(iptc) % 2)
    blocks = ((0xE1, b"Exif\0\0", metadata.exif), (0xE1, _XMP, metadata.xmp), (0xED, photoshop, even))
    for marker_of, name, block in blocks:
        if block and len(block) <= _ROOM:
            head.append(_segment(marker_of, name + block))
    room, icc = _SEGMENT_BYTES - len(_PROFILE) - 2, metadata.icc or b""
    parts = [icc[first : first + room] for first in range(0, len(icc), room)]
    if len(parts) <= 255:
        numbered = enumerate(parts, start=1)
        head += [_segment(0xE2, _PROFILE + bytes((number, len(parts))) + part) for number, part in numbered]
    return b"".join(head) + start[at:]


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


CODEC = Jpeg("jpg")
