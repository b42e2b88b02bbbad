"""Arrays and PIL images, as callers of the library have them, <-> pixels."""

from __future__ import annotations

import contextlib
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sr_upscale.errors import ShapeError

ImageKind = TypeVar("ImageKind", Image.Image, NDArray[Any])


def pixels_of(image: Image.Image | NDArray[Any]) -> NDArray[Any]:
    """Returns the pixels of an array or a PIL image. A PIL image is turned upright.

    Args:
        image: An array (H, W) or (H, W, C) with C of 1 to 4, of uint8, uint16 or floats in [0, 1]. Or a PIL image.

    Returns:
        (H, W, C) with C of 1 to 4, uint8 or uint16. Floats become uint16.

    Raises:
        ShapeError: The image has another shape, another dtype, or values outside its range.
    """
    if isinstance(image, Image.Image):
        with contextlib.suppress(Exception):  # damaged EXIF fails in many ways, and is no reason to refuse the pixels
            image = ImageOps.exif_transpose(image)
        if image.mode in ("I;16", "I;16B", "I;16L", "I"):
            array: NDArray[Any] = np.asarray(image)
            if array.min() < 0 or array.max() > 65535:
                raise ShapeError(f"image of mode {image.mode} has values beyond 16 bits; expected 0 to 65535")
            array = array.astype(np.uint16)
        elif image.mode in ("L", "LA", "RGB", "RGBA", "F"):
            array = np.asarray(image)
        else:
            modes = {"1": "L", "La": "LA"}
            plain = modes.get(image.mode, "RGBA" if image.has_transparency_data else "RGB")
            array = np.asarray(image.convert(plain))
    else:
        array = image
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise ShapeError(f"image has shape {array.shape}; expected (H, W) or (H, W, C) with C of 1 to 4")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ShapeError("image of floats has values outside [0, 1]; expected floats in [0, 1]")
        array = np.rint(array * 65535).astype(np.uint16)
    if array.dtype not in (np.uint8, np.uint16):
        raise ShapeError(f"image is of {array.dtype}; expected uint8, uint16 or floats in [0, 1]")
    return array


def rgb8(pixels_hwc: NDArray[Any]) -> NDArray[np.uint8]:
    """Turns pixels into 8-bit RGB without alpha, which is what training reads.

    Args:
        pixels_hwc: (H, W, C) uint8 or uint16. C is 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha.

    Returns:
        (H, W, 3) uint8.
    """
    if pixels_hwc.dtype == np.uint16:
        pixels_hwc = np.rint(pixels_hwc / np.float64(257)).astype(np.uint8)
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
        out.info |= {key: image.info[key] for key in ("icc_profile", "dpi") if key in image.info}
        return out
    if image.dtype.kind == "f":
        out_hwc = (out_hwc / 65535).astype(image.dtype)
    return out_hwc[:, :, 0] if image.ndim == 2 else out_hwc
