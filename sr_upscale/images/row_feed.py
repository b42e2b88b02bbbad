"""Rows -> libvips, without a picture in memory.

libvips takes pixels whole, or from a file that it reads as it goes. So it is given a file that does not exist. That
begins with the header of an uncompressed TIFF. The rows follow, as they come from whoever makes them.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WAITING = 2  # bands between the one who makes them and the encoder
_STRIP_BYTES = 1 << 20
_STRIP_ROWS = 128

# TIFF 6.0, section 8, and BigTIFF
_SHORT, _LONG, _LONG8 = 3, 4, 16
_CODES = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}


def feed_rows(
    bands: Iterable[NDArray[Any]],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    save: Callable[[Any], None],
) -> None:
    """Encodes rows in a second thread while this one makes more of them.

    Args:
        bands: (n, W, C) of `dtype`, consecutive from the top, H rows together. They are made in the calling thread.
        shape: (H, W, C) of all rows together.
        dtype: uint8 or uint16.
        save: Writes a pyvips image with sequential access. It is called in the second thread.

    Raises:
        Exception: Whatever `bands` or `save` raise, after both have ended.
    """
    feed = _Feed(shape, dtype)

    def encode() -> None:
        from sr_upscale.images.libvips import pyvips

        try:
            source = pyvips.SourceCustom()  # lives here: its callbacks end with it
            source.on_read(feed.read)
            source.on_seek(feed.seek)
            save(pyvips.Image.tiffload_source(source, access="sequential", fail_on="error"))
        finally:
            feed.stop_taking()

    with ThreadPoolExecutor(1, thread_name_prefix="encoder") as pool:
        encoder = pool.submit(encode)
        try:
            for band in bands:
                if not feed.put(np.ascontiguousarray(band, dtype=dtype.newbyteorder("<"))):
                    break
        finally:
            feed.stop_giving()
        encoder.result()


class _Feed:
    """The file that does not exist. One thread puts bands in; libvips' threads read them, one at a time."""

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self._header = _tiff_header(shape, dtype)
        self._size = len(self._header) + shape[0] * shape[1] * shape[2] * dtype.itemsize
        self._at = 0  # where libvips reads
        self._next = len(self._header)  # where the rows that were not read yet begin
        self._band = memoryview(b"")
        self._bands: deque[memoryview] = deque()
        self._giving = self._taking = True
        self._changed = threading.Condition()

    def put(self, band: NDArray[Any]) -> bool:
        """Waits until there is room for one band more, and puts it in. Returns False when nobody takes any."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._bands) < _WAITING or not self._taking)
            if self._taking:
                self._bands.append(band.reshape(-1).view(np.uint8).data)
                self._changed.notify_all()
            return self._taking

    def stop_giving(self) -> None:
        """Says that no band follows. The file ends behind the last one."""
        with self._changed:
            self._giving = False
            self._changed.notify_all()

    def stop_taking(self) -> None:
        """Says that nobody reads any more."""
        with self._changed:
            self._taking = False
            self._bands.clear()
            self._band = memoryview(b"")
            self._changed.notify_all()

    def read(self, count: int) -> memoryview | bytes:
        """Returns at most `count` bytes, and none at the end.

        libvips calls this and `seek` in its threads. They may not raise.
        """
        if self._at < len(self._header):
            data: memoryview | bytes = self._header[self._at : self._at + count]
        elif self._at == self._next:
            data = self._rows(count)
            self._next += len(data)
        else:
            data = b""  # rows come once; libvips does not go back in a sequential image
        self._at += len(data)
        return data

    def _rows(self, count: int) -> memoryview:
        while not self._band:
            with self._changed:
                self._changed.wait_for(lambda: self._bands or not self._giving or not self._taking)
                if not self._bands:
                    return self._band
                self._band = self._bands.popleft()
                self._changed.notify_all()
        data, self._band = self._band[:count], self._band[count:]
        return data

    def seek(self, offset: int, whence: int) -> int:
        """Goes to another place, as a file's `seek` does, and returns it."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at


def _tiff_header(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> bytes:
    """Makes a little-endian BigTIFF as far as its pixels. These are uncompressed and follow in one run."""
    height, width, channels = shape
    row = width * channels * dtype.itemsize
    rows = min(max(_STRIP_BYTES // row, 1), _STRIP_ROWS, height)
    tops = range(0, height, rows)
    tags: list[tuple[int, int, list[int]]] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [dtype.itemsize * 8] * channels),
        (259, _SHORT, [1]),  # not compressed
        (262, _SHORT, [2 if channels > 2 else 1]),  # RGB, or black is 0
        (273, _LONG8, [top * row for top in tops]),  # strip offsets, from the first pixel so far
        (277, _SHORT, [channels]),
        (278, _LONG, [rows]),
        (279, _LONG8, [min(rows, height - top) * row for top in tops]),  # bytes of the strips
        *([(338, _SHORT, [2])] if channels in (2, 4) else []),  # straight alpha
    ]
    directory = 16
    behind = directory + 8 + 20 * len(tags) + 8
    pixels = behind + sum(size for _tag, kind, values in tags if (size := _size_of(kind, values)) > 8)
    entries, long_values = b"", b""
    for tag, kind, values in tags:
        numbers = [pixels + value for value in values] if tag == 273 else values
        data = struct.pack(f"<{len(numbers)}{_CODES[kind]}", *numbers)
        if len(data) > 8:
            place = struct.pack("<Q", behind + len(long_values))
            long_values += data
        else:
            place = data.ljust(8, b"\0")
        entries += struct.pack("<HHQ", tag, kind, len(numbers)) + place
    start = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, directory, len(tags))
    return start + entries + bytes(8) + long_values


def _size_of(kind: int, values: list[int]) -> int:
    return struct.calcsize(_CODES[kind]) * len(values)
