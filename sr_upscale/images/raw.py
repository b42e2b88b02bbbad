"""Camera raw files. Inside they are TIFF: the first picture is a thumbnail, the others are no picture yet."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sr_upscale.errors import InputError
from sr_upscale.images.tiff_reader import Tiff

_SUB_IFDS, _PHOTOMETRIC, _DNG_VERSION = 330, 262, 50706
_KNOWN = frozenset({0, 1, 2, 3, 5, 6, 8})
"""Photometric interpretations that are pictures: white or black is zero, RGB, palette, CMYK, YCbCr, CIELab."""
_NAMES = {
    4: "a transparency mask",
    9: "ICCLab",
    10: "ITULab",
    32803: "a colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_RAW = frozenset({32803, 34892})
_MOST_DIRECTORIES = 32
"""Directories that are looked at; a circle of them ends there."""


def refuse_raw(tiff: bytes, name: str) -> None:
    """Refuses a TIFF that holds no picture that can be enlarged. Damaged directories are left to the decoder.

    Args:
        tiff: The file.
        name: Of the file, for the error.

    Raises:
        InputError: It is a camera raw file (DNG, NEF, CR2, ARW, ...), or its samples mean something unknown.

    Source: TIFF 6.0, section 2; TIFF/EP (ISO 12234-2); DNG 1.7, chapter 4.
    """
    raw = tiff[8:10] == b"CR"  # CR2 says so behind the header
    first: int | None = None
    for tags in _directories(tiff):
        photometric = tags.get(_PHOTOMETRIC)
        first = photometric if first is None else first
        raw = raw or _DNG_VERSION in tags or photometric in _RAW
    if raw:
        raise InputError(
            f"{name}: a camera raw file; develop it first, to TIFF or PNG, with a program for raw files "
            "(darktable, RawTherapee, the camera's own)"
        )
    if first is not None and first not in _KNOWN:
        what = _NAMES.get(first, f"of kind {first}")
        raise InputError(f"{name}: samples are {what} (photometric interpretation); expected gray, RGB, CMYK or Lab")


def _directories(tiff: bytes) -> Iterator[dict[int, int | None]]:
    """Yields the tags of each directory and of those below it, with their first values, as far as they are whole."""
    try:
        file = Tiff(tiff)
        waiting = [file.first]
        for _ in range(_MOST_DIRECTORIES):
            if not waiting or (at := waiting.pop(0)) == 0:
                continue
            entries = file.entries(at)
            yield {tag: next(iter(file.values(entry, most=1)), None) for tag, entry in entries.items()}
            waiting += file.values(entries.get(_SUB_IFDS), most=_MOST_DIRECTORIES)
            waiting.append(file.following(at))
    except struct.error:
        return
