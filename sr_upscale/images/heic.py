"""HEIC and HEIF, the format of phone cameras: read through libheif (extra ``heic``), never written."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import InputError

_SRGB = ((1, 2), (1, 2, 6, 13))
"""Primaries and transfer curves of ITU-T H.273 that are sRGB's, nearly sRGB's, or not stated."""


def require_libheif(name: str) -> None:
    """Lets Pillow read the header of HEIC.

    Raises:
        InputError: The extra is not installed.
    """
    try:
        import pi_heif
    except ImportError as error:
        raise InputError(
            f"{name}: a HEIC picture; `pip install 'sr-upscale[heic]'` lets this program read it"
        ) from error
    pi_heif.register_heif_opener()


def decode_heic(data: bytes, name: str, *, has_profile: bool, notes: list[str]) -> NDArray[Any]:
    """(H, W, C) of uint8, or of uint16 for 10 and 12 bits, already upright.

    Args:
        data: The file.
        name: For the notes.
        has_profile: Whether it has an ICC profile.
        notes: Gets a sentence about colours that no profile describes.

    Raises:
        OSError, ValueError, RuntimeError: It is damaged.
    """
    import pi_heif

    image = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    colour = image.info.get("nclx_profile") or {}
    kinds = colour.get("color_primaries", 2), colour.get("transfer_characteristics", 2)
    if not has_profile and any(kind not in known for kind, known in zip(kinds, _SRGB, strict=True)):
        notes.append(f"{name}: colours of kind {kinds[0]}/{kinds[1]} (H.273) without an ICC profile; taken as sRGB")
    pixels = np.array(image)  # a copy: what libheif gave is gone with `image`
    bits = image.info["bit_depth"]
    if pixels.dtype == np.uint16 and bits < 16:
        top = 2**bits - 1
        pixels = ((pixels.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)
    return pixels.reshape(image.size[1], image.size[0], -1)
