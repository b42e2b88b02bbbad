"""Colours as a file without an ICC profile states them: code points of ITU-T H.273, or PNG's gamma and primaries.

They travel with the picture beside its profile. A format that can say them gets them again, others a profile made of
them (`profile_of`). Pixels are never converted for it, and the network gets what the file holds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


PQ, HLG = 16, 18
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_WHITE_NITS, _PQ_NITS, _HLG_NITS, _HLG_GAMMA = 203, 10_000, 1000, 1.2
_CURVE_POINTS = 4096

_POWER, _SRGB_LIKE = 0, 3  # types of parametric curves
_SRGB_CURVE = (_SRGB_LIKE, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
_BT709_CURVE = (_SRGB_LIKE, (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081))
_CURVES: dict[int, tuple[int, tuple[float, ...]]] = {
    1: _BT709_CURVE,
    4: (_POWER, (2.2,)),
    5: (_POWER, (2.8,)),
    6: _BT709_CURVE,
    7: (_SRGB_LIKE, (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913)),
    8: (_POWER, (1.0,)),
    13: _SRGB_CURVE,
    14: _BT709_CURVE,
    15: _BT709_CURVE,
}
"""Curves from samples to light, by code point of the transfer characteristics: type and parameters of ICC."""


def profile_of(tags: ColorTags, *, gray: bool) -> bytes | None:
    """Makes a profile of version 4.4, the same bytes for the same tags.

    PQ and HLG get their code points as a tag, and for programs that do not read it a curve that ends at a white of 203
    cd/m2.

    Args:
        tags: Of the full range.
        gray: Whether it is for gray pixels; then primaries play no part.

    Returns:
        None for tags that a profile of this kind cannot say.
    """
    curve, primaries = _curve(tags), tags.primaries
    if curve is None or primaries is None or not tags.full_range:
        return None
    title = f"CICP {tags.cicp[0]}/{tags.cicp[1]}" if tags.cicp else f"Gamma {1 / (tags.gamma or 1 / 2.2):.4g}"
    records = {b"desc": _text(title), b"cprt": _text("CC0"), b"wtpt": _xyz(_D50)}
    if gray:
        records[b"kTRC"] = curve
    else:
        columns, adapted = _to_d50(primaries)
        records |= {
            name: _xyz(tuple(column)) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True)
        }
        records |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
        records[b"chad"] = b"sf32" + bytes(4) + b"".join(_fixed(each) for each in adapted.ravel())
    if tags.cicp is not None and not gray:
        records[b"cicp"] = b"cicp" + bytes(4) + bytes((*tags.cicp, 0, 1))
    return _file(records, b"GRAY" if gray else b"RGB ")


def _curve(tags: ColorTags) -> bytes | None:
    """Makes the curve from samples to light; None where this program does not know it."""
    if tags.cicp is None:
        return _parametric(*((_POWER, (1 / tags.gamma,)) if tags.gamma is not None else _SRGB_CURVE))
    transfer = tags.cicp[1]
    if transfer in (PQ, HLG):
        light = (_pq_light if transfer == PQ else _hlg_light)(np.linspace(0, 1, _CURVE_POINTS))
        values = np.rint((light / _WHITE_NITS).clip(0, 1) * 65535).astype(">u2")
        return struct.pack(">4s4xI", b"curv", _CURVE_POINTS) + bytes(values.data)
    return _parametric(*_CURVES[transfer]) if transfer in _CURVES else None


def _pq_light(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns cd/m2 of samples in [0, 1] (BT.2100, table 4)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = samples ** (1 / m2)
    light: NDArray[np.float64] = _PQ_NITS * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return light


def _hlg_light(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns cd/m2 of gray samples in [0, 1] on a screen of 1000 cd/m2 (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(samples <= 0.5, samples**2 / 3, (np.exp((samples - c) / a) + b) / 12)
    light: NDArray[np.float64] = _HLG_NITS * scene**_HLG_GAMMA
    return light


def _to_d50(primaries: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns XYZ of red, green and blue as columns, adapted to D50, and the matrix that adapts."""
    white, *colours = (
        np.array([x / y, 1, (1 - x - y) / y]) if y > 0 else np.array([x, y, 1 - x - y])
        for x, y in zip(primaries[::2], primaries[1::2], strict=True)
    )
    columns = np.stack(colours, axis=1)
    columns = columns * np.linalg.solve(columns, white)
    scale = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD
    return adapted @ columns, adapted


def _parametric(kind: int, parameters: tuple[float, ...]) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + b"".join(_fixed(each) for each in parameters)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(_fixed(each) for each in values)


def _text(words: str) -> bytes:
    encoded = words.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _file(records: dict[bytes, bytes], space: bytes) -> bytes:
    """Puts tags behind a header and their table. Equal ones stand there once, each at a multiple of four bytes."""
    start = 128 + 4 + 12 * len(records)
    places: dict[bytes, int] = {}
    body = b""
    for data in records.values():
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
    table = b"".join(name + struct.pack(">II", places[data], len(data)) for name, data in records.items())
    header = struct.pack(
        ">I4sI4s4s4s6H4s24xI12s48x",
        start + len(body),
        bytes(4),
        0x04400000,
        b"mntr",
        space,
        b"XYZ ",
        *(2024, 1, 1, 0, 0, 0),  # no time of day, so that the same input gives the same file
        b"acsp",
        0,
        b"".join(_fixed(each) for each in _D50),
    )
    return header + struct.pack(">I", len(records)) + table + body
