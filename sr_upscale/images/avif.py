"""How often an AVIF animation plays. Pillow neither reads nor writes it, so it is read and set in the file's boxes.

Source: ISO/IEC 14496-12, sections 8.2.2, 8.3.2 and 8.6.6; AV1 Image File Format 1.1, section on image sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_CONTAINERS = (b"moov", b"trak", b"edts", b"mdia")
_REPEATS = 1  # flag of an edit list


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
            yield from _boxes(data, at + head, stop)
        at = stop


def _duration(data: bytes | bytearray, kind: bytes, at: int) -> tuple[int, int]:
    """Returns where the duration stands in the content of a box, and its size in bytes."""
    long = data[at] == 1 if at < len(data) else False
    size = 8 if long else 4
    before = {b"mvhd": 2 * size + 4, b"tkhd": 2 * size + 8, b"elst": 4}[kind]
    return at + 4 + before, size


def _number(data: bytes | bytearray, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")
