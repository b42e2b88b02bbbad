"""Arrays and PIL images, as callers of the library have them, <-> pixels."""

from __future__ import annotations

import contextlib
import io
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from sr_upscale.errors import ShapeError

ImageKind = TypeVar("ImageKind", Image.Image, NDArray[Any])

_INTEGERS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_OTHER_COLOURS = ("CMYK", "LAB")
"""Modes whose profile describes other colours than the RGB that comes back."""

_KEPT = ("icc_profile", "dpi", "gamma", "chromaticity", "srgb")
"""What a PIL image says in `info` that stays true of its enlarged pixels."""


def pixels_of(image: Image.Image | NDArray[Any]) -> NDArray[Any]:
    """Returns the pixels of an array or a PIL image. A PIL image is turned upright.

    Args:
        image: An array (H, W) or (H, W, C) with C of 1 to 4, of uint8, uint16 or floats in [0, 1], of any
            byte order. Or a PIL image.

    Returns:
        (H, W, C) with C of 1 to 4, uint8 or uint16. Floats become uint16.

    Raises:
        ShapeError: The image has another shape, another dtype, or values outside its range.
    """
    array = _array_of(image) if isinstance(image, Image.Image) else image
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise ShapeError(f"image has shape {array.shape}; expected (H, W) or (H, W, C) with C of 1 to 4")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ShapeError("image of floats has values outside [0, 1]; expected floats in [0, 1]")
        exact = array.astype(np.promote_types(array.dtype, np.float32))  # 65535 is beyond float16
        array = np.rint(exact * 65535).astype(np.uint16)
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise ShapeError(f"image is of {array.dtype}; expected uint8, uint16 or floats in [0, 1]")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _array_of(image: Image.Image) -> NDArray[Any]:
    """Returns the values of a PIL image, upright: gray, gray + alpha, RGB or RGBA; floats of mode F as they are."""
    with contextlib.suppress(Exception):  # damaged EXIF fails in many ways, and is no reason to refuse the pixels
        image = ImageOps.exif_transpose(image)
    if image.mode in _INTEGERS:
        array: NDArray[Any] = np.asarray(image)
        if array.min() < 0 or array.max() > 65535:
            raise ShapeError(f"image of mode {image.mode} has values beyond 16 bits; expected 0 to 65535")
        return array.astype(np.uint16)
    if image.mode in _OTHER_COLOURS:
        return np.asarray(_rgb_of(image))
    seen_through = image.has_transparency_data
    plain = {"1": "L", "L": "L", "La": "L", "LA": "L", "F": "F"}.get(image.mode, "RGB")
    plain = {"L": "LA", "RGB": "RGBA"}.get(plain, plain) if seen_through else plain
    return np.asarray(image if image.mode == plain else image.convert(plain))


def _rgb_of(image: Image.Image) -> Image.Image:
    """Converts CMYK by its profile, or as Pillow does without one, and CIELab by its definition, to sRGB."""
    srgb = ImageCms.createProfile("sRGB")
    if image.mode == "LAB":
        return _converted(image, ImageCms.createProfile("LAB"), srgb)
    if profile := image.info.get("icc_profile"):
        with contextlib.suppress(ImageCms.PyCMSError, OSError):  # one that cannot be used counts as none
            return _converted(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb)
    return image.convert("RGB")


def _converted(image: Image.Image, source: Any, target: Any) -> Image.Image:
    change = ImageCms.buildTransform(source, target, image.mode, "RGB")
    return ImageCms.applyTransform(image, change) or image


def to_8_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Rounds uint16 to uint8, white to white. uint8 comes back as it is."""
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)  # rounds; 257 has no half
    return pixels


def rgb8(pixels_hwc: NDArray[Any]) -> NDArray[np.uint8]:
    """Turns pixels into 8-bit RGB without alpha, which is what training reads.

    Args:
        pixels_hwc: (H, W, C) uint8 or uint16. C is 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha.

    Returns:
        (H, W, 3) uint8.
    """
    pixels_hwc = to_8_bits(pixels_hwc)
    colour = pixels_hwc[..., :3] if pixels_hwc.shape[2] >= 3 else pixels_hwc[..., :1]
    return np.broadcast_to(colour, (*colour.shape[:2], 3)).astype(np.uint8)


def like(image: ImageKind, out_hwc: NDArray[Any]) -> ImageKind:
    """Turns a result into the kind of the input. A PIL image keeps colour profile and resolution.

    Args:
        image: The input, as `pixels_of` takes it.
        out_hwc: (H, W, C) uint8 or uint16; uint16 where the input holds floats.

    Returns:
        A PIL image for a PIL image, else an array with as many dimensions as the input. Where the input holds floats,
        the result holds floats in [0, 1].
    """
    if isinstance(image, Image.Image):
        if image.mode == "F":
            return Image.fromarray((out_hwc[:, :, 0] / 65535).astype(np.float32))
        out = Image.fromarray(out_hwc[:, :, 0] if out_hwc.shape[2] == 1 else out_hwc)
        gone = ("icc_profile",) if image.mode in _OTHER_COLOURS else ()
        out.info |= {key: image.info[key] for key in _KEPT if key in image.info and key not in gone}
        return out
    out_hwc = (out_hwc / 65535 if image.dtype.kind == "f" else out_hwc).astype(image.dtype, copy=False)
    return out_hwc[:, :, 0] if image.ndim == 2 else out_hwc
