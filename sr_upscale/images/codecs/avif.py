"""AVIF, by Pillow, with what Pillow neither reads nor writes: colours, plays and more than 8 bits. They stand in boxes.

Source: ISO/IEC 14496-12, sections 8.2.2, 8.3.2, 8.5.2, 8.6.6, 8.11 and 12.1.5; ISO/IEC 23008-12, section 9.3; AV1 Image
File Format 1.1, section on image sequences.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_upscale.images.codecs.codec import Codec, Header, InputFile, Output, aspect_of
from sr_upscale.images.color_tags import ColorTags, tags_of_cicp
from sr_upscale.images.metadata import ORIENTATION
from sr_upscale.images.picture import Frame

_CONTAINERS = {
    **dict.fromkeys((b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"iprp", b"ipco"), 0),
    b"meta": 4,
    b"stsd": 8,
    b"av01": 78,
}
"""Boxes with others in them, and how many bytes stand before those."""

_CODEC_PRIMARIES = frozenset({1, *range(4, 13), 22})
_CODEC_TRANSFERS = frozenset({1, *range(4, 19)})
_REPEATS = 1  # flag of an edit list

_DEEP = re.compile(rb"av1C\x81.[\x40-\x7f\xc0-\xff]", flags=re.DOTALL)
"""AV1's configuration with the bit set that means more than 8 bits (AV1-ISOBMFF, section 2.3)."""


class Avif(Codec):
    """AVIF, still or animated; stills of more than 8 bits by libvips."""

    colour_only = True
    holds_xmp = True

    def header_of(self, file: InputFile, image: Image.Image) -> Header:
        """Adds colours, plays, and the shape of pixels. See `Codec.header_of`."""
        header = super().header_of(file, image)
        if header.frames > 1 and is_deep(file.data):
            file.note("an animation of more than 8 bits per channel is read as 8")
        header.color = None if header.icc else tags_of_avif(file.data)  # a profile counts before code points
        header.loop = plays_of(file.data)
        read_boxes(file, header)
        return header

    def decode(self, file: InputFile, header: Header, numbers: Sequence[int]) -> Sequence[Frame]:
        """Decodes a still with all its bits, or frames of an animation. See `Codec.decode`."""
        deep = None if header.animated else decode_deep(file)
        if deep is None:
            return super().decode(file, header, numbers)
        if header.exif is not None and ORIENTATION in header.exif:
            header.exif[ORIENTATION] = 1  # libvips has turned it
        return (Frame(pixels_hwc=deep),)

    def write(self, output: Output, path: Path) -> None:
        """Encodes without subsampling, then writes colours and plays into the file. See `Codec.write`."""
        super().write(output, path)
        set_color(path, output.metadata.color)
        if output.animated:
            set_plays(path, output.plays)

    def settings(self, output: Output) -> dict[str, Any]:
        """Returns quality and colours. See `Codec.settings`."""
        return {"quality": output.quality, "subsampling": "4:4:4"} | codec_settings(output.metadata.color)


def decode_deep(file: InputFile) -> NDArray[np.uint16] | None:
    """Decodes an AVIF of 10 or 12 bits, of which Pillow would make 8.

    Returns:
        (H, W, C) uint16 of the full range, already upright. None for an AVIF of 8 bits, or, with a note, where libvips
        fails.
    """
    from sr_upscale.images.codecs.vips import pyvips

    try:
        image = pyvips.Image.new_from_buffer(file.data, "")
        bits = image.get("bits-per-sample") if "bits-per-sample" in image.get_fields() else 8
        if bits <= 8 or image.format != "ushort":
            return None
        return full_range(image.numpy().reshape(image.height, image.width, image.bands) >> (16 - bits), bits)
    except pyvips.Error:
        if is_deep(file.data):
            file.note("more than 8 bits per channel are read as 8; reinstall pyvips[binary]")
        return None


def is_deep(avif: bytes) -> bool:
    """Says whether an AVIF holds more than 8 bits per channel."""
    return _DEEP.search(avif) is not None


def full_range(values: NDArray[np.uint16], bits: int) -> NDArray[np.uint16]:
    """Scales values of `bits` bits to 16, white to white."""
    top = 2**bits - 1
    scaled: NDArray[np.uint16] = ((values.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)
    return scaled


def read_boxes(file: InputFile, header: Header) -> None:
    """Reads the shape of pixels of an AVIF or HEIC, and notes a gain map."""
    header.aspect = aspect_of_boxes(file.data)
    if has_gain_map(file.data):
        file.note("its gain map (HDR) is left out; the picture without it is used")


def plays_of(data: bytes) -> int:
    """Reads how often an AVIF animation plays: 0 for ever, as where the file does not say."""
    track = None
    for kind, at, _end in _boxes(data, 0, len(data)):
        if kind == b"tkhd":
            track = _number(data, *_duration(data, kind, at))
        elif kind == b"elst" and track is not None:
            if not data[at + 3] & _REPEATS:
                return 1
            once = _number(data, *_duration(data, kind, at))
            endless = track in (2**32 - 1, 2**64 - 1) or once <= 0
            return 0 if endless else -(-track // once)
    return 0


def set_plays(path: Path, plays: int) -> None:
    """Makes an AVIF animation that plays for ever, as Pillow writes it, play so often. 0 leaves it as it is.

    Raises:
        OSError: The file cannot be written.
    """
    if not plays:
        return
    data = bytearray(path.read_bytes())
    longest, headers = 0, []
    for kind, at, _end in list(_boxes(data, 0, len(data))):
        if kind in (b"mvhd", b"tkhd"):
            headers.append((kind, *_duration(data, kind, at)))
        elif kind == b"elst":
            data[at + 3] = data[at + 3] & ~_REPEATS | (plays > 1)
            whole = _number(data, *_duration(data, kind, at)) * plays
            _kind, first, size = headers[-1]  # of the track that this list belongs to
            data[first : first + size] = whole.to_bytes(size, "big")
            longest = max(longest, whole)
    for kind, first, size in headers:
        if kind == b"mvhd":
            data[first : first + size] = longest.to_bytes(size, "big")
    path.write_bytes(data)


def tags_of_avif(data: bytes) -> ColorTags | None:
    """Reads the code points of the colours of the main picture, or of the film where that has none."""
    properties: list[tuple[bytes, int, int]] = []
    main, of_main, others = -1, frozenset[int](), []
    end_of_properties = 0
    for kind, at, end in _boxes(data, 0, len(data)):
        if kind == b"ipco" and not end_of_properties:
            end_of_properties = end
        elif at <= end_of_properties:
            properties.append((kind, at, end))
        elif kind == b"pitm" and main < 0:
            main = _number(data, at + 4, 2 + 2 * bool(data[at]))
        elif kind == b"ipma":
            of_main = of_main or _properties_of(data, at, end, main)
        elif kind == b"colr":
            others.append((kind, at, end))
    ours = [box for number, box in enumerate(properties, start=1) if number in of_main]
    for kind, at, _end in (*ours, *others):
        if kind == b"colr" and data.startswith(b"nclx", at):
            return tags_of_cicp(_number(data, at + 4, 2), _number(data, at + 6, 2))
    return None


def _properties_of(data: bytes, at: int, end: int, item: int) -> frozenset[int]:
    """Reads which properties an item has, by their numbers from 1, in the content of an ipma box."""
    version, long = data[at], data[at + 3] & 1
    size, found = 4 if version else 2, set[int]()
    place = at + 8
    while place + size < end:
        count, first = data[place + size], place + size + 1
        if _number(data, place, size) == item:
            step, mask = (2, 0x7FFF) if long else (1, 0x7F)
            found |= {_number(data, first + step * each, step) & mask for each in range(count)}
        place = first + count * (2 if long else 1)
    return frozenset(found)


def aspect_of_boxes(data: bytes) -> tuple[int, int] | None:
    """Reads how many pixels across and down are equally long, from the first pasp box of an AVIF or HEIC."""
    for kind, at, end in _boxes(data, 0, len(data)):
        if kind == b"pasp" and end - at >= 8:
            return aspect_of(_number(data, at + 4, 4), _number(data, at, 4))  # it holds width and height of one pixel
    return None


def has_gain_map(data: bytes) -> bool:
    """Says whether an AVIF or HEIC holds a gain map, by its brands or Apple's name of it."""
    return b"tmap" in data[8 : _number(data, 0, 4)] or b"aux:hdrgainmap" in data


def codec_settings(tags: ColorTags | None) -> dict[str, Any]:
    """Returns what Pillow tells libaom of the colours, for the stream itself: what it has names for."""
    if tags is None or tags.cicp is None:
        return {}
    primaries, transfer = tags.cicp
    if primaries not in _CODEC_PRIMARIES or transfer not in _CODEC_TRANSFERS:
        return {}
    return {"advanced": {"color-primaries": str(primaries), "transfer-characteristics": str(transfer)}}


def set_color(path: Path, tags: ColorTags | None) -> None:
    """Writes code points over those of an AVIF that Pillow wrote, sRGB's. None leaves the file as it is.

    Raises:
        OSError: The file cannot be written.
    """
    if tags is None or tags.cicp is None:
        return
    with path.open("r+b") as file:
        data = file.read()
        for kind, at, _end in _boxes(data, 0, len(data)):
            if kind == b"colr" and data[at : at + 4] == b"nclx":
                file.seek(at + 4)
                file.write(struct.pack(">HH", *tags.cicp))


def _boxes(data: bytes | bytearray, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields kind, and start and end of the content, of boxes and of those in them, in order."""
    while at + 8 <= end:
        size, kind, head = _number(data, at, 4), bytes(data[at + 4 : at + 8]), 8
        if size == 1:
            size, head = _number(data, at + 8, 8), 16
        stop = min(at + size, end) if size else end
        if stop < at + head:
            return
        yield kind, at + head, stop
        if kind in _CONTAINERS:
            yield from _boxes(data, at + head + _CONTAINERS[kind], stop)
        at = stop


def _duration(data: bytes | bytearray, kind: bytes, at: int) -> tuple[int, int]:
    """Returns where the duration stands in the content of a box, and its size in bytes."""
    long = data[at] == 1 if at < len(data) else False
    size = 8 if long else 4
    before = {b"mvhd": 2 * size + 4, b"tkhd": 2 * size + 8, b"elst": 4}[kind]
    return at + 4 + before, size


def _number(data: bytes | bytearray, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


CODEC = Avif("avif")
