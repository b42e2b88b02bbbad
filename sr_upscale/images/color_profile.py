"""An ICC profile that says what colour tags say, for formats that hold nothing else.

Source: ICC.1:2022 (profile version 4.4), sections 7.2, 9.2.17 (cicpTag), 10.6 and 10.18; ITU-T H.273, table 3; ITU-R
BT.2100; BT.2408 (white of a picture at 203 cd/m2); Bradford's cone responses.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from sr_upscale.images.color_tags import ColorTags

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
