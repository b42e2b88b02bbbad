"""Camera raw files. Inside they are TIFF: the first picture is a thumbnail, the others are no picture yet."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sr_upscale.errors import InputError
from sr_upscale.images.tiff_reader import Tiff

_SUBFILE_TYPE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _SUB_IFDS, _DNG_VERSION = 254, 256, 257, 262, 330, 50706
_SMALL_OR_MASK = 1 | 4  # bits of the subfile type
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
    size, below = (0, 0), (0, 0)  # of the first picture, and of the largest one below it
    for tags, sub in _directories(tiff):
        photometric, found = tags.get(_PHOTOMETRIC), (tags.get(_WIDTH) or 0, tags.get(_HEIGHT) or 0)
        first = photometric if first is None else first
        size = found if size == (0, 0) else size
        if sub and not (tags.get(_SUBFILE_TYPE) or 0) & _SMALL_OR_MASK:
            below = max(below, found)
        raw = raw or _DNG_VERSION in tags or photometric in _RAW
    if raw:
        raise InputError(
            f"{name}: a camera raw file; develop it first, to TIFF or PNG, with a program for raw files "
            "(darktable, RawTherapee, the camera's own)"
        )
    if below > size and below[1] > size[1]:
        sizes = "{}x{}, is a thumbnail of one of {}x{}".format(*size, *below)
        raise InputError(
            f"{name}: its first picture, {sizes} (SubIFD), as in camera raw files; develop or convert it first, "
            "to TIFF or PNG"
        )
    if first is not None and first not in _KNOWN:
        what = _NAMES.get(first, f"of kind {first}")
        raise InputError(f"{name}: samples are {what} (photometric interpretation); expected gray, RGB, CMYK or Lab")


def _directories(tiff: bytes) -> Iterator[tuple[dict[int, int | None], bool]]:
    """Yields the tags of each directory with their first values, and whether it stands below another one.

    A damaged directory ends it.
    """
    try:
        file = Tiff(tiff)
        waiting = [(file.first, False)]
        for _ in range(_MOST_DIRECTORIES):
            if not waiting or (place := waiting.pop(0))[0] == 0:
                continue
            at, sub = place
            entries = file.entries(at)
            yield {tag: next(iter(file.values(entry, most=1)), None) for tag, entry in entries.items()}, sub
            waiting += [(each, True) for each in file.values(entries.get(_SUB_IFDS), most=_MOST_DIRECTORIES)]
            waiting.append((file.following(at), sub))
    except struct.error:
        return
