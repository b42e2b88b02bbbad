"""HEIC of phone cameras, through libheif (extra ``heic``), and AVIF of more than 8 bits, through libvips."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import InputError
from sr_upscale.formatting import extra

_DEEP = re.compile(rb"av1C\x81.[\x40-\x7f\xc0-\xff]", flags=re.DOTALL)
"""AV1's configuration with the bit set that means more than 8 bits (AV1-ISOBMFF, section 2.3)."""


def require_libheif(name: str) -> None:
    """Lets Pillow read the header of HEIC.

    Args:
        name: Of the file, for the message.

    Raises:
        InputError: The extra is not installed.
    """
    try:
        import pi_heif
    except ImportError as error:
        raise InputError(f"{name}: a HEIC picture, for which this program needs an extra; {extra('heic')}") from error
    pi_heif.register_heif_opener()


def decode_heic(data: bytes, number: int | None) -> NDArray[Any]:
    """Decodes a picture of a HEIC file.

    Args:
        data: The file.
        number: Number of the picture in the file, from 0; None takes the main one.

    Returns:
        (H, W, C), already upright. uint8, or uint16 of the full range for 10 and 12 bits. Alpha is straight.

    Raises:
        OSError, ValueError, RuntimeError: The file is damaged.
    """
    import pi_heif

    file = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    image = file[file.primary_index if number is None else number]
    pixels = np.array(image)  # a copy: what libheif gave is gone with `image`
    pixels = pixels.reshape(image.size[1], image.size[0], -1)
    if pixels.dtype == np.uint16:
        pixels = _full_range(pixels, image.info["bit_depth"])
    return _straight(pixels) if image.premultiplied_alpha else pixels


def decode_deep_avif(data: bytes, name: str, notes: list[str]) -> NDArray[np.uint16] | None:
    """Decodes an AVIF of 10 or 12 bits, of which Pillow would make 8.

    Args:
        data: The file.
        name: Of the file, for the notes.
        notes: Gets a sentence where this libvips cannot read an AVIF of more than 8 bits.

    Returns:
        (H, W, C) uint16 of the full range, already upright. None for an AVIF of 8 bits, or where libvips fails.
    """
    from sr_upscale.images.libvips import pyvips

    try:
        image = pyvips.Image.new_from_buffer(data, "")
        bits = image.get("bits-per-sample") if "bits-per-sample" in image.get_fields() else 8
        if bits <= 8 or image.format != "ushort":
            return None
        return _full_range(image.numpy().reshape(image.height, image.width, image.bands) >> (16 - bits), bits)
    except pyvips.Error:
        if is_deep(data):
            notes.append(f"{name}: more than 8 bits per channel are read as 8; reinstall pyvips[binary]")
        return None


def is_deep(avif: bytes) -> bool:
    """Says whether an AVIF holds more than 8 bits per channel."""
    return _DEEP.search(avif) is not None


def _straight(pixels: NDArray[Any]) -> NDArray[Any]:
    """Divides colours by the alpha that they were multiplied by."""
    top = np.iinfo(pixels.dtype).max
    alpha = np.maximum(pixels[:, :, -1:], 1).astype(np.float64)
    colour = np.rint(pixels[:, :, :-1] * (top / alpha)).clip(0, top).astype(pixels.dtype)
    return np.concatenate((colour, pixels[:, :, -1:]), axis=2)


def _full_range(values: NDArray[np.uint16], bits: int) -> NDArray[np.uint16]:
    """Scales values of `bits` bits to 16, white to white."""
    top = 2**bits - 1
    scaled: NDArray[np.uint16] = ((values.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)
    return scaled
