"""Colours as a file without an ICC profile states them: code points of ITU-T H.273, or PNG's gamma and primaries.

They travel with the picture beside its profile. A format that can say them gets them again, others a profile made of
them (`color_profile.py`). Pixels are never converted for it, and the network gets what the file holds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_UNSPECIFIED = 2
_SRGB_XY = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_NEAR_XY, _NEAR_GAMMA = 0.002, 0.003
_USUAL_GAMMA = 1 / 2.2  # what programs say of sRGB where they have but one number

PRIMARIES = {
    1: _SRGB_XY,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (0.3127, 0.3290, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""Chromaticities x, y of white, red, green and blue (H.273, table 2), by code point."""


@dataclass(frozen=True, kw_only=True)
class ColorTags:
    """Either code points, or gamma and chromaticities, of which one may be missing.

    Attributes:
        cicp: Colour primaries and transfer characteristics of H.273.
        full_range: Whether 0 is black and the largest value white; else narrow ("video") range.
        gamma: Exponent that encoded the samples, 1 / 2.2 for most screens; None takes sRGB's curve.
        chromaticities: x, y of white, red, green, blue; None takes sRGB's.
    """

    cicp: tuple[int, int] | None = None
    full_range: bool = True
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None

    @property
    def primaries(self) -> tuple[float, ...] | None:
        """Returns x, y of white, red, green and blue; None for code points that this program does not know."""
        if self.cicp is not None:
            return PRIMARIES.get(self.cicp[0])
        return self.chromaticities or _SRGB_XY

    @property
    def is_srgb(self) -> bool:
        """Says whether this is what an untagged file means: sRGB, also by the gamma that programs state for it."""
        if self.cicp is not None:
            return self.cicp == SRGB.cicp and self.full_range
        near = self.gamma is None or abs(self.gamma - _USUAL_GAMMA) < _NEAR_GAMMA
        found = self.chromaticities or _SRGB_XY
        return near and max(abs(a - b) for a, b in zip(found, _SRGB_XY, strict=True)) < _NEAR_XY

    def __str__(self) -> str:
        if self.cicp is not None:
            return f"kind {self.cicp[0]}/{self.cicp[1]} (H.273){'' if self.full_range else ', narrow range'}"
        return "a gamma or primaries of their own"


SRGB = ColorTags(cicp=(1, 13))


def tags_of_cicp(primaries: int, transfer: int, *, full_range: bool = True) -> ColorTags | None:
    """Makes tags of code points. One that is not specified is sRGB's; None where neither is."""
    if (primaries, transfer) == (_UNSPECIFIED, _UNSPECIFIED):
        return None
    cicp = (
        1 if primaries == _UNSPECIFIED else primaries,
        13 if transfer == _UNSPECIFIED else transfer,
    )
    return ColorTags(cicp=cicp, full_range=full_range)


def tags_of_nclx(nclx: dict[str, Any] | None) -> ColorTags | None:
    """Makes tags of what libheif says of a picture's nclx box, None of none. Its pixels have the full range by then."""
    if not nclx:
        return None
    return tags_of_cicp(int(nclx.get("color_primaries", 2)), int(nclx.get("transfer_characteristics", 2)))


# --- PNG --------------------------------------------------------------------------------------------


def tags_of_png(chunks: Iterable[tuple[bytes, bytes]], *, has_profile: bool) -> ColorTags | None:
    """Reads the tags of a PNG: those that count, of cICP, iCCP, sRGB, and gAMA with cHRM, in this order.

    Args:
        chunks: Kind and content of the chunks before the pixels.
        has_profile: Whether there is an iCCP that can be read. It then stands beside a cICP, and before the others.

    Returns:
        None where a profile counts, or nothing does. Chunks that cannot be are none.

    Source: Portable Network Graphics, third edition, sections 4.3, 11.3.2.1, 11.3.2.2, 11.3.2.5 and 11.3.2.6.
    """
    found: dict[bytes, bytes] = {}
    for kind, content in chunks:
        found.setdefault(kind, content)
    cicp = found.get(b"cICP", b"")
    if len(cicp) == 4 and cicp[2] == 0 and (tags := tags_of_cicp(cicp[0], cicp[1], full_range=cicp[3] != 0)):
        return tags
    if has_profile:
        return None
    if b"sRGB" in found:
        return SRGB
    gama, chrm = found.get(b"gAMA", b""), found.get(b"cHRM", b"")
    gamma = int.from_bytes(gama, "big") / 100_000 if len(gama) == 4 else 0.0
    points = tuple(value / 100_000 for value in struct.unpack(">8I", chrm)) if len(chrm) == 32 else ()
    return checked_tags(gamma, points)


def checked_tags(gamma: float, points: tuple[float, ...]) -> ColorTags | None:
    """Makes tags of a gamma and of chromaticities (none are an empty tuple). What cannot be is none."""
    chromaticities = points if points and _spans(points) else None
    possible = gamma if 0.01 <= gamma <= 100 else None
    if possible is None and chromaticities is None:
        return None
    return ColorTags(gamma=possible, chromaticities=chromaticities)


def chunks_of(tags: ColorTags | None) -> list[tuple[bytes, bytes]]:
    """Returns kinds and contents of the PNG chunks that say these tags."""
    if tags is None:
        return []
    if tags == SRGB:
        return [(b"sRGB", b"\0")]
    if tags.cicp is not None:
        return [(b"cICP", bytes((*tags.cicp, 0, tags.full_range)))]
    gama = [(b"gAMA", struct.pack(">I", round(tags.gamma * 100_000)))] if tags.gamma is not None else []
    points = tags.chromaticities
    return gama + ([(b"cHRM", struct.pack(">8I", *(round(each * 100_000) for each in points)))] if points else [])


def _spans(points: tuple[float, ...]) -> bool:
    """Says whether primaries are the corners of a triangle, with white inside the plane that can be seen."""
    (_wx, wy), (rx, ry), (gx, gy), (bx, by) = zip(points[::2], points[1::2], strict=True)
    area = (gx - rx) * (by - ry) - (bx - rx) * (gy - ry)
    return wy > 0.01 and abs(area) > 0.001 and max(points) <= 2
