"""Colours of a picture -> what the output format can say of them."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from sr_upscale.functional.pil_arrays import to_8_bits
from sr_upscale.images.color_profile import HLG, PQ, profile_of
from sr_upscale.images.color_tags import ColorTags
from sr_upscale.images.formats import Format
from sr_upscale.images.picture import Picture


def fit_color(picture: Picture, fmt: Format, *, name: str) -> tuple[Picture, list[str]]:
    """Makes the colours of a picture what a format can say. Pixels change where it holds no profile, and only there.

    Args:
        picture: The input.
        fmt: Format of the output.
        name: Of the picture, for the notes.

    Returns:
        The picture, and sentences about what is converted or cannot be said.
    """
    picture, notes = _fit_tags(picture, fmt, name=name)
    if picture.metadata.icc is not None and not fmt.icc:
        picture, converted = _to_srgb(picture)
        what = "colours are converted to sRGB" if converted else "its colour profile is left out"
        notes.append(f"{name}: {fmt.name.upper()} holds no colour profile; {what}")
    return picture, notes


def _fit_tags(picture: Picture, fmt: Format, *, name: str) -> tuple[Picture, list[str]]:
    """Changes colour tags into what the format can say: they stay, become a profile, or go with a sentence about it."""
    tags, icc = picture.metadata.color, picture.metadata.icc
    if tags is None:
        return picture, []
    if fmt.gamma if tags.cicp is None else fmt.cicp and (tags.full_range or fmt.gamma):
        both = fmt.gamma or icc is None  # only PNG says which of the two counts
        return (picture if both else _tagged(picture, icc=None, color=tags)), []
    if icc is not None or tags.is_srgb:
        return _tagged(picture, icc=icc, color=None), []
    profile = profile_of(tags, gray=picture.channels < 3)
    picture = _tagged(picture, icc=profile, color=None)
    if profile is None:
        return picture, [f"{name}: colours of {tags} cannot be said in {fmt.name.upper()}; use --format png"]
    if tags.cicp is not None and tags.cicp[1] in (PQ, HLG):
        return picture, [
            f"{name}: colours of {tags} are HDR, for which {fmt.name.upper()} has but a profile; many programs show "
            "highlights as white; use --format png or avif"
        ]
    return picture, []


def _tagged(picture: Picture, *, icc: bytes | None, color: ColorTags | None) -> Picture:
    return dataclasses.replace(picture, metadata=dataclasses.replace(picture.metadata, icc=icc, color=color))


def _to_srgb(picture: Picture) -> tuple[Picture, bool]:
    """Converts pixels from their profile to sRGB, and says whether that could be done. The profile goes either way."""
    plain = dataclasses.replace(picture, metadata=dataclasses.replace(picture.metadata, icc=None))
    colours = 3 if picture.channels >= 3 else 1
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(picture.metadata.icc or b""))
        mode, flags = (
            ("RGB", ImageCms.Flags.NONE) if colours == 3 else ("L", ImageCms.Flags.NOOPTIMIZE)
        )  # its table for gray is coarse
        change = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)

        def converted(pixels_hwc: NDArray[Any]) -> NDArray[Any]:
            pixels_hwc = to_8_bits(pixels_hwc).copy()
            image = Image.fromarray(np.ascontiguousarray(pixels_hwc[:, :, :colours].squeeze(2 if colours == 1 else ())))
            pixels_hwc[:, :, :colours] = np.asarray(ImageCms.applyTransform(image, change))[:, :, :colours]
            return pixels_hwc

        return plain.with_pixels(converted), True
    except (ImageCms.PyCMSError, OSError):
        return plain, False
