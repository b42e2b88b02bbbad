"""`Picture` or rows -> file, whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import OutputError, ShapeError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.functional.pil_arrays import to_8_bits
from sr_upscale.images.adapt import adapt, check_target
from sr_upscale.images.codecs.codec import Output, codec_of
from sr_upscale.images.formats import Format, SaveOptions, format_by_name
from sr_upscale.images.metadata import resized_exif
from sr_upscale.images.picture import Metadata, Picture, strips_of
from sr_upscale.images.xmp import renewed_xmp
from sr_upscale.storage.atomic import output_error, replace_file

_BAND_ROWS = 128


def save_image(
    picture: Picture,
    target: str | Path | BinaryIO,
    fmt: Format | str | None = None,
    options: SaveOptions | None = None,
    *,
    on_whole: Callable[[Path], None] = lambda _temporary: None,
    overwrite: bool = True,
) -> None:
    """Writes a picture.

    Args:
        picture: The picture. 16 bits are rounded to 8 where the format holds no more.
        target: A path, which gets the whole file or keeps what it had, or a binary stream.
        fmt: Format to write, to which the picture was adapted (`adapt`). A name of one, or None for that of the path's
            ending, adapts the picture, and warns of what had to be given up.
        options: Quality, compression and metadata; None takes the defaults.
        on_whole, overwrite: See `replace_file`; only for a path.

    Raises:
        OutputError: The file cannot be written, or a side is longer than the format allows.
        UsageError: The ending is of no format that can be written, or the format needs a background.
    """
    if not isinstance(picture, Picture):
        raise UsageError(f"picture is a {type(picture).__qualname__}; expected a Picture, as load_image gives")
    options = options or SaveOptions()
    target = Path(target) if isinstance(target, str) else target
    if not isinstance(fmt, Format):
        fmt = format_by_name(fmt or (target.suffix if isinstance(target, Path) else ""))
        picture, notes = adapt(picture, fmt, options, name=_name_of(target))
        for note in notes:
            warnings.warn(note, stacklevel=2)
    strips = (strip for frame in picture.frames for strip in strips_of(frame.pixels_hwc, _BAND_ROWS))
    size = picture.width, picture.height
    save_rows(strips, picture, size, target, fmt, options, on_whole=on_whole, overwrite=overwrite)


def save_rows(
    rows: Iterable[NDArray[Any]],
    picture: Picture,
    size: tuple[int, int],
    target: Path | BinaryIO,
    fmt: Format,
    options: SaveOptions | None = None,
    *,
    on_whole: Callable[[Path], None] = lambda _temporary: None,
    overwrite: bool = True,
) -> None:
    """Writes a picture whose rows come one band after the other, those of an animation frame by frame.

    PNG, TIFF, JPEG and GIF are encoded in a second thread as the rows come. So neither the rows nor the file stand in
    memory. For other formats, and for animations, one frame stands in memory, and what the encoder keeps of them.

    Args:
        rows: (n, W, C) uint8 or uint16 from the top, H rows of each frame, of the channels and bits of `picture`. They
            are made in the calling thread. 16 bits are rounded to 8 where the format holds no more.
        picture: Gives metadata, channels, bits and durations. It is already adapted to the format (`adapt`). Its
            pixels are not used.
        size: Width and height of a frame of the output, in pixels.
        target: A path, which gets the whole file or keeps what it had, or a binary stream.
        fmt: Format to write.
        options: Quality, compression and metadata; None takes the defaults.
        on_whole, overwrite: See `replace_file`; only for a path.

    Raises:
        OutputError: The file cannot be written, or a side is longer than the format allows.
        ShapeError: A band does not fit, or there are too few or too many rows.
        Exception: Whatever `rows` raises, as it is.
    """
    options = options or SaveOptions()
    width, height = size
    check_target(fmt, width, height, name=_name_of(target))
    frames = len(picture.frames)
    dtype = np.dtype(np.uint16 if picture.bits == 16 else np.uint8)
    bits = fmt.bits if frames == 1 else 8
    bands = _Bands(rows, (height * frames, width, picture.channels), dtype, bits=bits)
    try:
        output = Output(
            bands=bands,
            size=size,
            channels=picture.channels,
            dtype=bands.dtype,
            delays_ms=picture.durations_ms,
            loop=picture.loop,
            metadata=_metadata_for(picture, fmt, options, width, height),
            quality=options.quality or fmt.quality,
            compression=options.compression,
        )
        with _whole_file(target, on_whole, overwrite=overwrite) as temporary:
            codec_of(fmt).write(output, temporary)
            bands.check_end()
    except OutputError:
        if bands.failure is not None:  # an OSError of those who make the rows is none of the file that is written
            raise bands.failure from bands.failure.__cause__
        raise


class _Bands:
    """Bands as the format takes them: checked, and of 8 bits where it holds no more. They come once."""

    def __init__(self, rows: Iterable[NDArray[Any]], shape: tuple[int, int, int], dtype: np.dtype[Any], bits: int):
        self.dtype = dtype if bits == 16 else np.dtype(np.uint8)
        self.failure: OSError | None = None
        self._bands = self._checked(rows, shape, dtype)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return self._bands

    def check_end(self) -> None:
        """Reads on to the end, for those who stop behind the last row.

        Raises:
            ShapeError: There are more rows.
        """
        for _band in self._bands:
            pass

    def _checked(
        self, rows: Iterable[NDArray[Any]], shape: tuple[int, int, int], dtype: np.dtype[Any]
    ) -> Iterator[NDArray[Any]]:
        height, row = shape[0], shape[1:]
        done = 0
        try:
            for band in rows:
                done += len(band)
                if band.shape[1:] != row or band.dtype != dtype or done > height:
                    found = f"rows up to {done} are {band.shape} {band.dtype}"
                    raise ShapeError(f"{found}; expected (n, W, C) of {shape} {dtype}")
                yield band if self.dtype == dtype else to_8_bits(band)
        except OSError as error:
            self.failure = error
            raise
        if done != height:
            raise ShapeError(f"{done} rows came; expected {height}")


@contextlib.contextmanager
def _whole_file(target: Path | BinaryIO, on_whole: Callable[[Path], None], *, overwrite: bool) -> Iterator[Path]:
    """Yields a path to write to. On leaving without an error, what stands there is put in place of the target."""
    if isinstance(target, Path):
        with replace_file(target, on_whole=on_whole, overwrite=overwrite) as temporary:
            yield temporary
        return
    try:
        with tempfile.TemporaryDirectory(prefix="sr-") as folder:
            temporary = Path(folder) / "out"
            yield temporary
            with temporary.open("rb") as file:
                shutil.copyfileobj(file, target, 1 << 20)
            target.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_error(Path("output"), error) from error


def _name_of(target: Path | BinaryIO) -> str:
    return shown(target) if isinstance(target, Path) else "output"


def _metadata_for(picture: Picture, fmt: Format, options: SaveOptions, width: int, height: int) -> Metadata:
    """Selects the metadata that is wanted and that the format holds, with sizes and history of the output."""
    given = picture.metadata
    icc = given.icc if fmt.icc else None
    if options.strip_metadata:
        return Metadata(icc=icc, color=given.color, dpi=given.dpi, aspect=given.aspect)
    return Metadata(
        icc=icc,
        color=given.color,
        exif=resized_exif(given.exif, width, height, given.dpi) if fmt.exif else None,
        dpi=given.dpi,
        aspect=given.aspect,
        xmp=renewed_xmp(given.xmp, given.change, (width, height)) if fmt.xmp else None,
        iptc=given.iptc if fmt.iptc else None,
        text=given.text if fmt.text else (),
    )
