"""What the head of a JPEG says that no decoder does: of which kind it is, and what hides behind the picture.

Source: ITU-T T.81, annex B; JFIF 1.02; CIPA DC-007 (Multi-Picture Format); Ultra HDR Image Format 1.1; ISO/TS 21496-1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sr_upscale.errors import InputError
from sr_upscale.images.tiff_reader import Tiff

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
