"""PNG, TIFF and JPEG, written by libvips from rows that come one band after the other."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from io import RawIOBase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.images.header_writer import MakeHead, jpeg_head, png_head
from sr_upscale.images.picture import Metadata
from sr_upscale.images.row_feed import feed_rows
from sr_upscale.images.tiff import append_metadata

COMPRESSION = 3
"""Default level for PNG and TIFF, chosen by measurement (docs/images.md)."""

OPTIMIZE_PIXELS = 4_000_000
"""JPEG files of at most this many pixels get Huffman tables of their own and are 2 % smaller. libjpeg then holds all
coefficients in memory, 11 bytes a pixel."""

_BIG_TIFF = 3 << 30
_SAVERS = {"png": "pngsave_target", "jpg": "jpegsave_target", "tif": "tiffsave_target"}


def write_streamed(
    bands: Iterable[NDArray[Any]],
    shape: tuple[int, int, int],
    path: Path,
    *,
    name: str,
    metadata: Metadata,
    quality: int | None,
    compression: int | None,
    dtype: np.dtype[Any],
) -> None:
    """Writes a PNG, TIFF or JPEG as its rows come.

    Args:
        bands: (n, W, C) of `dtype`, consecutive from the top, H rows together.
        shape: (H, W, C) of the picture.
        path: File to write.
        name: Name of the format, one that streams (`formats.Format.streams`).
        metadata: What stands in the file besides pixels. EXIF states the sizes of this picture already.
        quality: Quality of a JPEG, 1-100.
        compression: Level of a PNG or TIFF, 0-9; None takes `COMPRESSION`.
        dtype: uint8, or uint16 for PNG and TIFF.

    Raises:
        OSError: The file cannot be written.
        Exception: Whatever `bands` raises.
    """
    level = COMPRESSION if compression is None else compression
    height, width, channels = shape
    options: dict[str, Any]
    make_head: MakeHead | None = None
    if name == "png":
        make_head = png_head
        options = {"compression": level, "filter": "paeth" if level else "none", "keep": "none"}
    elif name == "jpg":
        make_head = jpeg_head
        optimize = height * width <= OPTIMIZE_PIXELS
        options = {"Q": quality, "subsample_mode": "off", "optimize_coding": optimize, "keep": "none"}
    else:
        big = height * width * channels * dtype.itemsize > _BIG_TIFF
        options = {"resunit": "inch", "bigtiff": big, "keep": "icc"}
        options |= {"compression": "deflate", "predictor": "horizontal", "level": level} if level else {}
    with path.open("w+b", buffering=0) as file:
        target = _Target(file, metadata, make_head)
        feed_rows(bands, shape, dtype, lambda image: target.save(image, name, options))
    if name == "tif" and (metadata.exif or metadata.xmp or metadata.iptc):
        append_metadata(path, metadata)


class _Target:
    """A file that libvips writes through callbacks, so that errors keep their number and the head can be replaced.

    libvips calls them in threads of its own, where nothing may raise. They return -1 where they failed.
    """

    def __init__(self, file: RawIOBase, metadata: Metadata, make_head: MakeHead | None) -> None:
        self._file = file
        self._metadata = metadata
        self._make_head = make_head
        self._start = b""
        self._error: Exception | None = None

    def save(self, image: Any, name: str, options: dict[str, Any]) -> None:
        """Encodes a pyvips image."""
        from sr_upscale.images.libvips import pyvips

        if name == "tif":
            image = self._described(image)
        target = pyvips.TargetCustom()
        target.on_write(self._write)
        target.on_read(self._file.read)
        target.on_seek(self._seek)
        try:
            getattr(image, _SAVERS[name])(target, **options)
        except pyvips.Error as error:
            reason = str(error).strip().splitlines()[-1]
            raise self._error or OSError(errno.EIO, reason) from error  # `replace_file` says what to do
        if self._error is not None:
            raise self._error

    def _described(self, image: Any) -> Any:
        """Adds profile and resolution to the image. libvips writes them into TIFF as they are."""
        from sr_upscale.images.libvips import pyvips

        image = image.copy()
        if self._metadata.dpi:
            image = image.copy(xres=self._metadata.dpi[0] / 25.4, yres=self._metadata.dpi[1] / 25.4)
        if self._metadata.icc:
            image.set_type(pyvips.GValue.blob_type, "icc-profile-data", self._metadata.icc)
        return image

    def _write(self, data: Any) -> int:
        block = bytes(data)
        try:
            if self._make_head is None:
                self._write_all(block)
                return len(block)
            self._start += block
            head = self._make_head(self._start, self._metadata)
            if head is not None:
                self._write_all(head)
                self._make_head = None
        except Exception as error:
            self._error = error
            return -1
        return len(block)

    def _write_all(self, block: bytes) -> None:
        rest = memoryview(block)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]

    def _seek(self, offset: int, whence: int) -> int:
        try:
            return self._file.seek(offset, whence)
        except Exception as error:
            self._error = error
            return -1
