"""`Picture` or rows -> file, whole or not at all. What a format cannot hold is found before the computing starts."""

from __future__ import annotations

import contextlib
import dataclasses
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
from sr_upscale.images.color_fit import fit_color
from sr_upscale.images.formats import FORMATS, Format, format_by_name
from sr_upscale.images.metadata import resized_exif
from sr_upscale.images.picture import Metadata, Picture, strips_of
from sr_upscale.images.row_writer import write_streamed
from sr_upscale.images.save_options import SaveOptions
from sr_upscale.images.timing import fit_timing
from sr_upscale.images.whole_writer import write_whole
from sr_upscale.images.xmp import HISTORY_BYTES, renewed_xmp
from sr_upscale.storage.atomic import output_error, replace_file

GATHER_BYTES = 256 << 20
"""Rows for a format that is written whole are gathered in memory up to this many bytes, and in a file beyond."""

_BAND_ROWS = 128


def check_target(fmt: Format, width: int, height: int, *, name: str) -> None:
    """Refuses an output that the format cannot hold.

    Args:
        fmt: Format of the output.
        width: Of the output, in pixels.
        height: Of the output, in pixels.
        name: Of the output, for the message.

    Raises:
        OutputError: A side is longer than the format allows. Formats without that limit are suggested.
    """
    if max(width, height) > fmt.max_side:
        others = ", ".join(each.name for each in FORMATS.values() if each.max_side >= max(width, height))
        raise OutputError(
            f"{name}: the output of {width}x{height} is too large for {fmt.name.upper()}, which ends at "
            f"{fmt.max_side} pixels a side; use --format {others.replace(', ', ' or ', 1).split(',')[0]}"
        )


def adapt(picture: Picture, fmt: Format, options: SaveOptions, *, name: str) -> tuple[Picture, list[str]]:
    """Changes a picture, before it is upscaled, into what the format can hold.

    An animation becomes its first frame. Transparency is laid on the background. Colours are converted to sRGB where no
    profile can be stored.

    Args:
        picture: The input.
        fmt: Format of the output.
        options: Its `background` and `strip_metadata` count here.
        name: Of the picture, for the notes.

    Returns:
        The changed picture, and sentences about what is given up. It may have more bits than the format holds:
        `save_image` and `save_rows` reduce them.

    Raises:
        UsageError: The picture has transparent pixels, the format has no alpha, and no background was given.
    """
    notes: list[str] = []
    upper = fmt.name.upper()
    if len(picture.frames) > 1 and not fmt.animation:
        notes.append(f"{name}: {upper} holds one picture; the first of {len(picture.frames)} frames is used (--frame)")
        picture = dataclasses.replace(picture, frames=picture.frames[:1], loop=None)
    if len(picture.frames) > 1:
        picture, notes = fit_timing(picture, fmt, name=name)
    if picture.has_alpha and not fmt.alpha:
        if options.background is None and not _is_opaque(picture):
            raise UsageError(
                f"{name}: {upper} has no transparency; give a --background colour such as white, or use --format png"
            )
        background = options.background or (0, 0, 0)
        picture = picture.with_pixels(lambda pixels_hwc: _flatten(pixels_hwc, background))
    picture, said = fit_color(picture, fmt, name=name)
    notes += said
    if (aspect := _lost_aspect(picture, fmt)) is not None:
        notes.append(
            f"{name}: its pixels are not square, {aspect[0]:g} across are as long as {aspect[1]:g} down, which {upper} "
            "does not say; use --format png, or stretch it with --size and --fit stretch"
        )
    if fmt.block_room is not None and not options.strip_metadata:
        given = picture.metadata
        blocks = {"EXIF": given.exif or b"", "XMP": given.xmp or b"", "IPTC": given.iptc or b""}
        if blocks["XMP"]:
            blocks["XMP"] += bytes(HISTORY_BYTES)
        notes += [
            f"{name}: {len(block)} bytes of {what} are more than {fmt.pillow} holds and are left out; use --format png"
            for what, block in blocks.items()
            if len(block) > fmt.block_room
        ]
    if len(picture.frames) > 1 and picture.bits > 8:
        notes.append(f"{name}: an animation is written with 8 bits per channel; it is reduced from {picture.bits}")
    elif picture.bits > fmt.bits:
        notes.append(f"{name}: {upper} holds {fmt.bits} bits per channel; the output is reduced from {picture.bits}")
    return picture, notes


def save_image(
    picture: Picture,
    target: str | Path | BinaryIO,
    fmt: Format | None = None,
    options: SaveOptions | None = None,
    *,
    on_whole: Callable[[Path], None] = lambda _temporary: None,
    overwrite: bool = True,
) -> None:
    """Writes a picture.

    Args:
        picture: The picture. 16 bits are rounded to 8 where the format holds no more.
        target: A path, which gets the whole file or keeps what it had, or a binary stream.
        fmt: Format to write, to which the picture was adapted (`adapt`). None goes by the ending of the path, adapts
            the picture, and warns of what had to be given up.
        options: Quality, compression and metadata; None takes the defaults.
        on_whole, overwrite: See `replace_file`; only for a path.

    Raises:
        OutputError: The file cannot be written, or a side is longer than the format allows.
        UsageError: The ending is of no format that can be written, or the format needs a background.
    """
    options = options or SaveOptions()
    target = Path(target) if isinstance(target, str) else target
    if fmt is None:
        fmt = format_by_name(target.suffix if isinstance(target, Path) else "")
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

    PNG, TIFF and JPEG are encoded in a second thread as the rows come. So neither the rows nor the file stand in
    memory. For other formats, and for animations, the rows are gathered first.

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
    streams = fmt.streams and frames == 1
    shape = height * frames, width, picture.channels
    dtype = np.dtype(np.uint16 if picture.bits == 16 else np.uint8)
    bands = _Bands(rows, shape, dtype, bits=fmt.bits if streams else 8)
    try:
        metadata = _metadata_for(picture, fmt, options, width, height)
        quality = options.quality or fmt.quality
        with _whole_file(target, on_whole, overwrite=overwrite) as temporary:
            if streams:
                write_streamed(
                    bands,
                    shape,
                    temporary,
                    name=fmt.name,
                    metadata=metadata,
                    quality=quality,
                    compression=options.compression,
                    dtype=bands.dtype,
                )
            else:
                pixels = _gather(bands, shape, target.parent if isinstance(target, Path) else None)
                write_whole(
                    pixels,
                    temporary,
                    fmt,
                    delays_ms=picture.durations_ms,
                    loop=picture.loop,
                    metadata=metadata,
                    quality=quality,
                    compression=options.compression,
                )
    except OutputError:
        if bands.failure is not None:  # an OSError of those who make the rows is none of the file that is written
            raise bands.failure from bands.failure.__cause__
        raise


class _Bands:
    """Bands as the format takes them: checked, and of 8 bits where it holds no more."""

    def __init__(self, rows: Iterable[NDArray[Any]], shape: tuple[int, int, int], dtype: np.dtype[Any], bits: int):
        self._rows = rows
        self._shape = shape
        self._dtype = dtype
        self.dtype = dtype if bits == 16 else np.dtype(np.uint8)
        self.failure: OSError | None = None

    def __iter__(self) -> Iterator[NDArray[Any]]:
        height, row = self._shape[0], self._shape[1:]
        done = 0
        try:
            for band in self._rows:
                done += len(band)
                if band.shape[1:] != row or band.dtype != self._dtype or done > height:
                    found = f"rows up to {done} are {band.shape} {band.dtype}"
                    raise ShapeError(f"{found}; expected (n, W, C) of {self._shape} {self._dtype}")
                yield band if self.dtype == self._dtype else to_8_bits(band)
        except OSError as error:
            self.failure = error
            raise
        if done != height:
            raise ShapeError(f"{done} rows came; expected {height}")


def _gather(bands: _Bands, shape: tuple[int, int, int], folder: Path | None) -> NDArray[Any]:
    """Gathers all rows in memory or, where they are many, in a file without a name in `folder`."""
    size = shape[0] * shape[1] * shape[2] * bands.dtype.itemsize
    if size <= GATHER_BYTES:
        pixels, done = np.empty(shape, dtype=bands.dtype), 0
        for band in bands:
            pixels[done : done + len(band)] = band
            done += len(band)
        return pixels
    with tempfile.TemporaryFile(dir=folder, prefix=".sr-") as file:
        for band in bands:
            file.write(np.ascontiguousarray(band).data)
        file.flush()
        return np.memmap(file, dtype=bands.dtype, mode="r", shape=shape)  # keeps the file by itself


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
        exif=resized_exif(given.exif, width, height) if fmt.exif else None,
        dpi=given.dpi,
        aspect=given.aspect,
        xmp=renewed_xmp(given.xmp, given.change, (width, height)) if fmt.xmp else None,
        iptc=given.iptc if fmt.iptc else None,
        text=given.text if fmt.text else (),
    )


def _is_opaque(picture: Picture) -> bool:
    top = 2**picture.bits - 1
    return all((np.asarray(frame.pixels_hwc)[:, :, -1] == top).all() for frame in picture.frames)


def _flatten(pixels: NDArray[Any], background: tuple[int, int, int]) -> NDArray[Any]:
    top = np.iinfo(pixels.dtype).max
    gray = len(set(background)) == 1 and pixels.shape[2] == 2
    behind = np.array(background[:1] if gray else background, dtype=np.float32) / 255 * top
    flat: NDArray[Any] = np.empty((*pixels.shape[:2], len(behind)), dtype=pixels.dtype)
    for first in range(0, len(pixels), _BAND_ROWS):  # in bands, as floats take four times the memory
        band = pixels[first : first + _BAND_ROWS].astype(np.float32)
        colour, alpha = band[:, :, :-1], band[:, :, -1:] / top
        flat[first : first + _BAND_ROWS] = np.rint(colour * alpha + behind * (1 - alpha))
    return flat


def _lost_aspect(picture: Picture, fmt: Format) -> tuple[float, float] | None:
    """Returns how many pixels across and down are equally long, where the output will not say that they differ."""
    dpi, still = picture.metadata.dpi, len(picture.frames) == 1
    if dpi is not None:
        return None if abs(dpi[0] / dpi[1] - 1) < 0.01 or fmt.streams or fmt.pillow_dpi else dpi
    return None if fmt.aspect and still else picture.metadata.aspect
