"""EXIF, orientation, IPTC and texts: read once, made true for the upright, enlarged picture."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

Value = TypeVar("Value")

ORIENTATION = ExifTags.Base.Orientation.value
EXIF_IFD = ExifTags.IFD.Exif.value
DIRECTORIES = (EXIF_IFD, ExifTags.IFD.GPSInfo.value)
_IPTC_TAG, _IPTC_RESOURCE = 33723, 0x0404  # in a TIFF; among Photoshop's resources in a JPEG

# Tags of a TIFF's own directory that describe the picture and not the layout of the file.
_DESCRIPTIVE = frozenset(
    tag.value
    for tag in (
        ExifTags.Base.ImageDescription,
        ExifTags.Base.Make,
        ExifTags.Base.Model,
        ExifTags.Base.Software,
        ExifTags.Base.DateTime,
        ExifTags.Base.Artist,
        ExifTags.Base.Copyright,
        ExifTags.IFD.Exif,
        ExifTags.IFD.GPSInfo,
        ExifTags.Base.Orientation,
    )
)


def info_of(image: Image.Image, key: str, kind: type[Value]) -> Value | None:
    """Returns what Pillow found under a name, or None.

    A value of another type than `kind` counts as none: a PNG may hold a text of the same name.
    """
    value = image.info.get(key)
    return value if isinstance(value, kind) else None


def read_exif(image: Image.Image, *, to_the_end: bool = True) -> Image.Exif | None:
    """Reads the EXIF of an opened picture, without the tags that only lay out a TIFF.

    Args:
        image: Opened, not loaded.
        to_the_end: Also look behind the pixels of a PNG, for which Pillow decodes them all.

    Returns:
        The EXIF, or None where there is none.

    Raises:
        Exception: Whatever a damaged block makes Pillow raise. The caller gives the block up with a warning.
    """
    source = image.getexif() if to_the_end else Image.Image.getexif(image)
    return kept_exif(source, tiff=image.format == "TIFF")


def kept_exif(source: Image.Exif, *, tiff: bool) -> Image.Exif | None:
    """Copies an EXIF with its directories; of a TIFF's own directory what describes the picture. None if empty."""
    if not source:
        return None
    exif = Image.Exif()
    for tag, value in source.items():
        if not tiff or tag in _DESCRIPTIVE:
            exif[tag] = value
    for directory in DIRECTORIES:
        if directory in source:  # asking for an absent one would create it
            exif[directory] = directory_of(source, directory)
    return exif if len(exif) else None


def directory_of(exif: Image.Exif, directory: int) -> dict[int, Any]:
    """Returns the tags of a directory, with the directory nested in it (Interop) as a value.

    The nested one replaces its pointer: pointers into the old file would lead nowhere in a new one.

    Args:
        exif: The block.
        directory: One of `DIRECTORIES`.
    """
    values = dict(exif.get_ifd(directory))
    if ExifTags.IFD.Interop in values:
        nested = dict(exif.get_ifd(ExifTags.IFD.Interop))
        values.pop(ExifTags.IFD.Interop)
        if nested:
            values[ExifTags.IFD.Interop.value] = nested
    return values


def read_iptc(image: Image.Image) -> bytes | None:
    """Reads the IPTC-IIM records of an opened JPEG or TIFF, as they stand there. None where there are none."""
    if image.format == "TIFF":  # raw, as programs disagree whether these are bytes or long integers
        value = image.tag_v2._tagdata.get(_IPTC_TAG)  # type: ignore[attr-defined]
    else:
        value = (info_of(image, "photoshop", dict) or {}).get(_IPTC_RESOURCE)
    return value or None


def orientation_of(exif: Image.Exif | None) -> int:
    """Returns the EXIF orientation, 1 to 8. Anything else counts as 1, and so does no EXIF."""
    value = exif.get(ORIENTATION, 1) if exif is not None else 1
    return int(value) if value in range(1, 9) else 1


def upright(pixels_hwc: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turns and mirrors pixels as an EXIF orientation asks for.

    Args:
        pixels_hwc: (H, W, C), any type.
        orientation: 1 to 8.

    Returns:
        (H, W, C), C-contiguous, same type; (W, H, C) for orientations 5 to 8.

    Source: EXIF 2.32, tag 0x0112.
    """
    if orientation in (2, 4, 5, 7):
        pixels_hwc = pixels_hwc[:, ::-1]
    turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(pixels_hwc, turns))


def exif_bytes(exif: Image.Exif | None) -> bytes | None:
    """Makes an EXIF block without the ``Exif\\0\\0`` prefix, with the orientation reset, also in `exif` itself."""
    if exif is None:
        return None
    if ORIENTATION in exif:
        exif[ORIENTATION] = 1
    return exif.tobytes().removeprefix(b"Exif\0\0")


def enlarged_exif(image: Image.Image, width: int, height: int) -> bytes | None:
    """Makes the EXIF of an upright, enlarged PIL image, as ``info["exif"]`` holds it; None where there is none.

    A damaged block counts as none.

    Args:
        image: The image before.
        width, height: Of the new one, in pixels.
    """
    try:
        block = resized_exif(exif_bytes(read_exif(image, to_the_end=False)), width, height)
    except Exception:  # Pillow raises many kinds for a damaged block
        return None
    return b"Exif\0\0" + block if block else None


def resized_exif(block: bytes | None, width: int, height: int, dpi: tuple[float, float] | None = None) -> bytes | None:
    """Sets pixel dimensions and resolution in an EXIF block to the new picture's, where the block states them.

    Args:
        block: EXIF without the ``Exif\\0\\0`` prefix; None gives None.
        width: Of the new picture, in pixels.
        height: Of the new picture, in pixels.
        dpi: Pixels per inch, across and down; None leaves the resolution as it is.
    """
    if block is None:
        return None
    exif = Image.Exif()
    exif.load(block)
    for directory in DIRECTORIES:
        if directory in exif:
            exif[directory] = directory_of(exif, directory)
    if EXIF_IFD in exif:
        for tag, value in ((ExifTags.Base.ExifImageWidth, width), (ExifTags.Base.ExifImageHeight, height)):
            if tag in exif[EXIF_IFD]:
                exif[EXIF_IFD][tag.value] = value
    for tag, value in ((ExifTags.Base.ImageWidth, width), (ExifTags.Base.ImageLength, height)):
        if tag in exif:
            exif[tag.value] = value
    if dpi is not None:
        stated = {ExifTags.Base.XResolution: dpi[0], ExifTags.Base.YResolution: dpi[1], ExifTags.Base.ResolutionUnit: 2}
        for tag in stated.keys() & exif.keys():
            exif[tag] = stated[tag]
    return exif.tobytes().removeprefix(b"Exif\0\0")
