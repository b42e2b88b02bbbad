"""Rows -> libvips -> a file, without a picture in memory.

libvips takes pixels whole, or from a file that it reads as it goes. So it is given a file that does not exist. That
begins with the header of an uncompressed TIFF. The rows follow, as they come from whoever makes them.
"""

from __future__ import annotations

import errno
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from io import RawIOBase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.images.codecs.codec import Output
from sr_upscale.images.codecs.vips import first_line, pyvips
from sr_upscale.images.picture import Metadata

COMPRESSION = 3
"""Default level for PNG and TIFF, chosen by measurement (docs/images.md)."""

MakeHead = Callable[[bytes, Metadata], bytes | None]
"""Takes the first bytes of a file and gives what shall stand there instead. None says that they are too few to tell."""

_WAITING = 2  # bands between the one who makes them and the encoder
_STRIP_BYTES = 1 << 20
_STRIP_ROWS = 128

# TIFF 6.0, section 8, and BigTIFF
_SHORT, _LONG, _LONG8 = 3, 4, 16
_CODES = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}


def write_rows(
    output: Output,
    path: Path,
    saver: str,
    options: dict[str, Any],
    *,
    make_head: MakeHead | None = None,
    describe: Callable[[Any], Any] = lambda image: image,
) -> None:
    """Writes a picture, or an animation, as its rows come.

    Args:
        output: The picture.
        path: File to write.
        saver: Operation of libvips.
        options: Of that operation.
        make_head: Puts metadata in place of what libvips writes before the pixels.
        describe: Makes a pyvips image with the fields that libvips writes.

    Raises:
        OSError: The file cannot be written.
        Exception: Whatever `output.bands` raises.
    """
    height, width, channels = output.shape
    with path.open("w+b", buffering=0) as file:
        target = _Target(file, output.metadata, make_head)
        shape = height * len(output.delays_ms), width, channels
        feed_rows(output.bands, shape, output.dtype, lambda image: target.save(describe(image), saver, options))


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
        try:
            source = pyvips.SourceCustom()  # lives here: its callbacks end with it
            source.on_read(feed.read)
            source.on_seek(feed.seek)
            save(pyvips.Image.tiffload_source(source, access="sequential", fail_on="error"))
        finally:
            feed.stop_taking()

    with ThreadPoolExecutor(1, thread_name_prefix="encoder") as pool:
        try:
            encoder = pool.submit(encode)  # a signal may end this before the pool knows its thread
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

    def save(self, image: Any, saver: str, options: dict[str, Any]) -> None:
        """Encodes a pyvips image."""
        target = pyvips.TargetCustom()
        target.on_write(self._write)
        target.on_read(self._file.read)
        target.on_seek(self._seek)
        try:
            getattr(image, saver)(target, **options)
        except pyvips.Error as error:
            raise self._error or OSError(errno.EIO, first_line(error)) from error  # `replace_file` says what to do
        if self._error is not None:
            raise self._error

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
