"""What codecs share of libvips: stills of JPEG, PNG and TIFF, large ones by rows. What it fails on is refused, or said.

pyvips brings every warning of libvips into Python's logging. Python may collect garbage there, a source that is freed
may warn as well, and GLib aborts the process where a handler of its log is called within itself. So no Python code
handles that log: `from sr_upscale.images.codecs.vips import pyvips`. Errors reach us as exceptions.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyvips
from numpy.typing import NDArray

from sr_upscale.errors import InputError
from sr_upscale.images.codecs.codec import Header, InputFile
from sr_upscale.images.codecs.tiff_samples import Samples
from sr_upscale.images.metadata import orientation_of
from sr_upscale.images.picture import AnyPixels, RowSource

pyvips._remove_log_handler()  # libvips' own then says nothing (VIPS_WARNING in `sr_upscale.images`)

_LARGE_TIFF = 16 << 20
"""Bytes of a file from which on libtiff may allocate more than 50 MB, as it must for one long compressed strip."""

_NO_ALPHA = "channels that are neither colour nor transparency (infrared, masks, spot colours) are left out"

OpenImage = Callable[..., Any]
_FETCH_ROWS = 64  # at a time from libvips; more is slower, and stands in memory twice


def decode_still(
    file: InputFile,
    header: Header,
    *,
    fail_on: str = "warning",
    missing: str | None = None,
    samples: Samples | None = None,
) -> AnyPixels:
    """Decodes a still.

    Args:
        file: The file; of a TIFF one page, stripped of everything but pixels.
        header: Its profile is taken away where the colours are converted.
        fail_on: What libvips fails on, its own word for it.
        missing: What the library under it calls pixels that are not there, where its other warnings come with whole
            pictures, too.
        samples: Of a TIFF, what its samples mean.

    Returns:
        (H, W, C), not yet upright, as an array or, where there are more than `file.in_memory` pixels, by rows.

    Raises:
        InputError: The file is damaged, or its samples cannot be used.
    """
    kept = samples.kept if samples else None
    opened_as = functools.partial(_open, kept=kept, unlimited=samples is not None and len(file.data) > _LARGE_TIFF)
    open_strictly = functools.partial(opened_as, file.intact, fail_on=fail_on)
    try:
        return _decode(open_strictly, file, header, samples)
    except pyvips.Error as error:
        failure = error
    complaint = first_line(failure)
    if missing is not None and missing not in str(failure):
        with contextlib.suppress(pyvips.Error):
            pixels = _decode(functools.partial(opened_as, file.intact, fail_on="truncated"), file, header, samples)
            file.note(f"may be damaged ({complaint}); look at the output")
            return pixels
    rows = _whole_rows(open_strictly)
    if rows == 0 and samples is not None and samples.unusual_compression:
        what = samples.unusual_compression
        raise InputError(f"{file.name}: compression {what} cannot be decoded; save it again with deflate, LZW or none")
    if rows is None:
        raise InputError(f"{file.name}: damaged {file.kind} ({complaint}); get the file again") from failure
    if samples is not None and samples.ycbcr is not None:
        rows = min(rows * samples.ycbcr.subsampling[1], header.height)
    where = f"row {rows} of {header.height}"
    if not file.allow_truncated:
        raise InputError(
            f"{file.name}: truncated at {where}, or damaged there; get the file again, "
            "or use --allow-truncated to take what is there"
        ) from failure
    try:
        opened = functools.partial(opened_as, file.data, fail_on="none")
        pixels = _decode(opened, file, header, samples, by_rows=False)
    except pyvips.Error as error:
        raise InputError(f"{file.name}: damaged {file.kind} ({first_line(error)}); get the file again") from error
    file.note(f"{header.height - rows} of {header.height} rows are missing or damaged, from row {rows} on")
    return pixels


def first_line(error: Exception) -> str:
    """Returns the last line of a library's message, which names the cause. Without a message, the kind of the error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _open(data: bytes, *, fail_on: str, kept: tuple[int, ...] | None, unlimited: bool) -> Any:
    """Opens a file as a pyvips image, with the samples of a pixel that are kept."""
    options: dict[str, Any] = {"access": "sequential", "fail_on": fail_on}
    if unlimited and pyvips.at_least_libvips(8, 17):
        options["unlimited"] = True
    image = pyvips.Image.new_from_source(pyvips.Source.new_from_memory(data), "", **options)
    if kept is None or len(kept) == image.bands:
        return image
    return image[kept[0]].bandjoin([image[each] for each in kept[1:]]) if len(kept) > 1 else image[kept[0]]


def _decode(
    open_image: OpenImage, file: InputFile, header: Header, samples: Samples | None, *, by_rows: bool = True
) -> AnyPixels:
    """Decodes what `open_image` opens. Header and notes are changed when that has worked.

    Raises:
        InputError: The samples cannot be used.
        pyvips.Error: The file is damaged.
    """
    image = open_image()
    ycbcr = samples.ycbcr if samples is not None else None
    dropped = [_NO_ALPHA] if samples is not None and samples.kept is not None else []
    if by_rows and ycbcr is None and _goes_by_rows(image, file, header, samples):
        rows = FileRows(open_image, file.name)
        for each in dropped:
            file.note(each)
        return rows
    image, converted = _as_rgb(image, header, samples)
    _check_image(image, file.name)
    pixels: NDArray[Any] = image.numpy().reshape(image.height, image.width, image.bands)
    if ycbcr is not None:
        pixels = ycbcr.rgb(pixels)
    if pixels.dtype.kind == "f":
        pixels = _float_to_16_bits(pixels, file)
        if samples is not None and samples.white_is_zero:  # libvips turns whole numbers alone
            pixels[:, :, 0] = 65535 - pixels[:, :, 0]
    for each in (*dropped, *converted):
        file.note(each)
    if converted:
        header.icc = header.color = None
    return pixels


def _check_image(image: Any, name: str) -> None:
    if image.format not in ("uchar", "ushort", "float", "double"):
        raise InputError(f"{name}: samples of type {image.format}; expected 8 or 16 bits, or floats from 0 to 1")
    if image.bands > 4:
        raise InputError(f"{name}: {image.bands} channels; expected gray or RGB, with or without alpha")


def _as_rgb(image: Any, header: Header, samples: Samples | None) -> tuple[Any, list[str]]:
    """Converts other colours to RGB, and says so; gray and RGB stay as they are."""
    space = str(image.interpretation)
    if samples is not None and samples.lab8:
        return _from_lab8(image), ["LAB converted to 16-bit RGB"]
    if space == "cmyk":
        profile = "its own" if header.icc else "a standard"
        depth = 16 if image.format == "ushort" else 8
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
        return image, [f"CMYK converted to sRGB by {profile} profile"]
    if space in ("lab", "labq", "labs", "lch", "xyz"):
        return image.colourspace("rgb16"), [f"{space.upper()} converted to 16-bit RGB"]
    return image, []


def _from_lab8(image: Any) -> Any:
    """Converts CIELab of 8 bits to RGB of 16. L is 0 to 255 for 0 to 100, a and b have signs (TIFF 6.0, section 23)."""
    lightness = image[0] * (100 / 255)
    rgb = lightness.bandjoin(image[1:3].copy(format="char")).copy(interpretation="lab").colourspace("rgb16")
    return rgb.bandjoin((image[3] * 257).cast("ushort")) if image.bands > 3 else rgb


def _goes_by_rows(image: Any, file: InputFile, header: Header, samples: Samples | None) -> bool:
    """Says whether a picture is large, and its rows need no change."""
    return (
        image.width * image.height > file.in_memory
        and not (samples is not None and samples.lab8)
        and image.format in ("uchar", "ushort")
        and image.interpretation in ("b-w", "srgb", "grey16", "rgb16")
        and image.bands in (1, 3)
        and orientation_of(header.exif) == 1
    )


def _whole_rows(open_image: OpenImage) -> int | None:
    """Counts the rows that decode. None where not even the header does, or where all do."""
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


def _float_to_16_bits(pixels: NDArray[Any], file: InputFile) -> NDArray[np.uint16]:
    bad = int(pixels.size - np.isfinite(pixels).sum())
    if bad:
        raise InputError(f"{file.name}: {bad} samples are NaN or infinite; repair the file first")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        found = f"float samples from {low:g} to {high:g}"
        raise InputError(f"{file.name}: {found}; expected 0 to 1; rescale the file first")
    file.note("float samples are stored as 16-bit integers")
    scaled: NDArray[np.uint16] = np.rint(pixels * 65535).astype(np.uint16)
    return scaled


class FileRows(RowSource):
    """Rows of a large file of 8 or 16 bits per sample. What stands in memory is the compressed file."""

    def __init__(self, open_image: Callable[[], Any], name: str) -> None:
        """Reads through the file once, so that all damage is found before anything is computed.

        Args:
            open_image: Opens the file, from its beginning, as a pyvips image with sequential access.
            name: Of the file, for errors.

        Raises:
            pyvips.Error: The file is damaged.
        """
        self._open_image = open_image
        self._name = name
        image = open_image()
        self.shape = (image.height, image.width, image.bands)
        self.dtype = np.dtype({"uchar": np.uint8, "ushort": np.uint16}[image.format])
        self.gray = True
        for strip in self._read(_FETCH_ROWS):
            self.gray = self.gray and bool((strip[:, :, 1:] == strip[:, :, :1]).all())

    def strips(self, rows: int) -> Iterator[NDArray[Any]]:
        """Yields strips as `RowSource.strips` does.

        Args:
            rows: Of a strip, at least 1.

        Yields:
            (n, W, C) of `dtype`, C-contiguous. n is `rows`, at the end at most that.

        Raises:
            InputError: What could be decoded before cannot be decoded any more.
        """
        try:
            yield from self._read(rows)
        except pyvips.Error as error:
            raise InputError(
                f"{self._name}: cannot be decoded again ({first_line(error)}); close other programs"
            ) from error

    def _read(self, rows: int) -> Iterator[NDArray[Any]]:
        height, width, channels = self.shape
        region = pyvips.Region.new(self._open_image())
        for top in range(0, height, rows):
            strip = np.empty((min(rows, height - top), width, channels), dtype=self.dtype)
            for start in range(0, len(strip), _FETCH_ROWS):
                part = strip[start : start + _FETCH_ROWS]
                fetched = region.fetch(0, top + start, width, len(part))
                part[...] = np.frombuffer(fetched, dtype=self.dtype).reshape(part.shape)
            yield strip
