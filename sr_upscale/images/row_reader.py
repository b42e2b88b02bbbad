"""Pixels of a large file, decoded by libvips strip by strip. What stands in memory is the compressed file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import InputError
from sr_upscale.images.picture import RowSource

_FETCH_ROWS = 64  # at a time from libvips; more is slower, and stands in memory twice


class FileRows(RowSource):
    """Rows of a file of 8 or 16 bits per sample."""

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
        from sr_upscale.images.libvips import pyvips

        try:
            yield from self._read(rows)
        except pyvips.Error as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{self._name}: cannot be decoded again ({reason}); close other programs") from error

    def _read(self, rows: int) -> Iterator[NDArray[Any]]:
        from sr_upscale.images.libvips import pyvips

        height, width, channels = self.shape
        region = pyvips.Region.new(self._open_image())
        for top in range(0, height, rows):
            strip = np.empty((min(rows, height - top), width, channels), dtype=self.dtype)
            for start in range(0, len(strip), _FETCH_ROWS):
                part = strip[start : start + _FETCH_ROWS]
                fetched = region.fetch(0, top + start, width, len(part))
                part[...] = np.frombuffer(fetched, dtype=self.dtype).reshape(part.shape)
            yield strip
