"""Stills that libvips decodes: JPEG, PNG, TIFF. What it complains about is refused, or said."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import InputError
from sr_upscale.images.header_reader import Header, first_line
from sr_upscale.images.metadata import orientation_of
from sr_upscale.images.picture import AnyPixels
from sr_upscale.images.row_reader import FileRows
from sr_upscale.images.tiff_samples import Samples, pixels_alone

LAZY_PIXELS = 16_000_000
"""Pictures of more pixels stay compressed in memory and are decoded by rows, where their format and kind allow it."""

_LARGE_TIFF = 16 << 20
"""Bytes of a file from which on libtiff may allocate more than 50 MB, as it must for one long compressed strip."""

_STRICT = {"jpg": "warning", "png": "truncated", "tif": "warning"}
"""What libvips fails on. Warnings of libpng are about profiles and texts; those of the others are about pixels."""

_MISSING = "premature end"
"""What libjpeg calls pixels that are not there. Its other warnings come with whole pictures, too."""

_NO_ALPHA = "channels that are neither colour nor transparency (infrared, masks, spot colours) are left out"

OpenImage = Callable[..., Any]


def decode_still(
    data: bytes, intact: bytes, kind: str, name: str, header: Header, *, allow_truncated: bool, notes: list[str]
) -> AnyPixels:
    """Decodes a still JPEG or PNG, or a TIFF of one page.

    Args:
        data: The file.
        intact: The file up to its first known damage; the file itself where none is known.
        kind: Key of `FORMATS`, one that streams.
        name: Of the file, for notes and errors.
        header: Its profile is taken away where the colours are converted.
        allow_truncated: Accept a damaged file.
        notes: Gets sentences about what was given up, and how much is missing.

    Returns:
        (H, W, C), not yet upright, as an array or by rows (`LAZY_PIXELS`).

    Raises:
        InputError: The file is damaged, or its samples cannot be used.
    """
    from sr_upscale.images.libvips import pyvips

    samples = None
    if kind == "tif":
        data, samples = pixels_alone(data, name)
        intact = data
    opened_as = functools.partial(_open, kind=kind, kept=samples.kept if samples else None)
    open_strictly = functools.partial(opened_as, intact, fail_on=_STRICT[kind])
    decode = functools.partial(_decode, name=name, header=header, samples=samples, notes=notes)
    try:
        return decode(open_strictly)
    except pyvips.Error as error:
        failure = error
    complaint = first_line(failure)
    if kind == "jpg" and _MISSING not in str(failure):
        with contextlib.suppress(pyvips.Error):
            pixels = decode(functools.partial(opened_as, intact, fail_on="truncated"))
            notes.append(f"{name}: may be damaged ({complaint}); look at the output")
            return pixels
    rows = _whole_rows(open_strictly)
    if rows == 0 and samples is not None and samples.unusual_compression:
        what = samples.unusual_compression
        raise InputError(f"{name}: compression {what} cannot be decoded; save it again with deflate, LZW or none")
    if rows is None:
        raise InputError(f"{name}: damaged {kind.upper()} ({complaint}); get the file again") from failure
    if samples is not None and samples.ycbcr is not None:
        rows = min(rows * samples.ycbcr.subsampling[1], header.height)
    where = f"row {rows} of {header.height}"
    if not allow_truncated:
        raise InputError(
            f"{name}: truncated at {where}, or damaged there; get the file again, "
            "or use --allow-truncated to take what is there"
        ) from failure
    try:
        pixels = decode(functools.partial(opened_as, data, fail_on="none"), by_rows=False)
    except pyvips.Error as error:
        raise InputError(f"{name}: damaged {kind.upper()} ({first_line(error)}); get the file again") from error
    notes.append(f"{name}: {header.height - rows} of {header.height} rows are missing or damaged, from row {rows} on")
    return pixels


def _open(data: bytes, *, kind: str, fail_on: str, kept: tuple[int, ...] | None) -> Any:
    """Opens a file as a pyvips image, with the samples of a pixel that are kept."""
    from sr_upscale.images.libvips import pyvips

    options: dict[str, Any] = {"access": "sequential", "fail_on": fail_on}
    if kind == "tif" and len(data) > _LARGE_TIFF and pyvips.at_least_libvips(8, 17):
        options["unlimited"] = True
    image = pyvips.Image.new_from_source(pyvips.Source.new_from_memory(data), "", **options)
    if kept is None or len(kept) == image.bands:
        return image
    return image[kept[0]].bandjoin([image[each] for each in kept[1:]]) if len(kept) > 1 else image[kept[0]]


def _decode(
    open_image: OpenImage, *, name: str, header: Header, samples: Samples | None, notes: list[str], by_rows: bool = True
) -> AnyPixels:
    """Decodes what `open_image` opens. Header and notes are changed when that has worked.

    Raises:
        InputError: The samples cannot be used.
        pyvips.Error: The file is damaged.
    """
    image = open_image()
    note, converted = "", True
    dropped = f"{name}: {_NO_ALPHA}" if samples is not None and samples.kept is not None else ""
    if samples is not None and samples.lab8:
        note, image = "LAB converted to 16-bit RGB", _from_lab8(image)
    elif by_rows and _goes_by_rows(image, header) and not (samples and samples.ycbcr):
        if dropped:
            notes.append(dropped)
        return FileRows(open_image, name)
    elif image.interpretation == "cmyk":
        profile = "its own" if header.icc else "a standard"
        note = f"CMYK converted to sRGB by {profile} profile"
        depth = 16 if image.format == "ushort" else 8
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    elif image.interpretation in ("lab", "labq", "labs", "lch", "xyz"):
        note = f"{str(image.interpretation).upper()} converted to 16-bit RGB"
        image = image.colourspace("rgb16")
    else:
        converted = False
    if image.format not in ("uchar", "ushort", "float", "double"):
        raise InputError(f"{name}: samples of type {image.format}; expected 8 or 16 bits, or floats from 0 to 1")
    if image.bands > 4:
        raise InputError(f"{name}: {image.bands} channels; expected gray or RGB, with or without alpha")
    pixels: NDArray[Any] = image.numpy().reshape(image.height, image.width, image.bands)
    if samples is not None and samples.ycbcr is not None:
        pixels = samples.ycbcr.rgb(pixels)
    if pixels.dtype.kind == "f":
        pixels = _float_to_16_bits(pixels, name, notes)
        if samples is not None and samples.white_is_zero:  # libvips turns whole numbers alone
            pixels[:, :, 0] = 65535 - pixels[:, :, 0]
    if dropped:
        notes.append(dropped)
    if converted:
        notes.append(f"{name}: {note}")
        header.icc = header.color = None
    return pixels


def _from_lab8(image: Any) -> Any:
    """Converts CIELab of 8 bits to RGB of 16. L is 0 to 255 for 0 to 100, a and b have signs (TIFF 6.0, section 23)."""
    lightness = image[0] * (100 / 255)
    rgb = lightness.bandjoin(image[1:3].copy(format="char")).copy(interpretation="lab").colourspace("rgb16")
    return rgb.bandjoin((image[3] * 257).cast("ushort")) if image.bands > 3 else rgb


def _goes_by_rows(image: Any, header: Header) -> bool:
    """Says whether a picture is large, and its rows need no change."""
    return (
        image.width * image.height > LAZY_PIXELS
        and image.format in ("uchar", "ushort")
        and image.interpretation in ("b-w", "srgb", "grey16", "rgb16")
        and image.bands in (1, 3)
        and orientation_of(header.exif) == 1
    )


def _whole_rows(open_image: OpenImage) -> int | None:
    """Counts the rows that decode. None where not even the header does, or where all do."""
    from sr_upscale.images.libvips import pyvips

    try:
        image = open_image()
    except pyvips.Error:
        return None
    region = pyvips.Region.new(image)
    for row in range(image.height):
        try:
            region.fetch(0, row, image.width, 1)
        except pyvips.Error:
            return row
    return None


def _float_to_16_bits(pixels: NDArray[Any], name: str, notes: list[str]) -> NDArray[np.uint16]:
    bad = int(pixels.size - np.isfinite(pixels).sum())
    if bad:
        raise InputError(f"{name}: {bad} samples are NaN or infinite; repair the file first")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise InputError(f"{name}: float samples from {low:g} to {high:g}; expected 0 to 1; rescale the file first")
    notes.append(f"{name}: float samples are stored as 16-bit integers")
    scaled: NDArray[np.uint16] = np.rint(pixels * 65535).astype(np.uint16)
    return scaled
