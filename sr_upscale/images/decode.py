"""File -> `Picture`. Every refusal is an `InputError` that names the file, the finding and the way on."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import InputError, OutOfMemoryError, SrUpscaleError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.functional.pil_arrays import rgb8
from sr_upscale.images.codecs.codec import Codec, Header, InputFile, codec_of
from sr_upscale.images.codecs.pillow import open_unlimited
from sr_upscale.images.formats import FORMATS, VIDEO, Format, format_of_path, sniff
from sr_upscale.images.metadata import exif_bytes, orientation_of, upright
from sr_upscale.images.picture import Frame, Metadata, Picture, RowSource
from sr_upscale.images.xmp import upright_xmp

SMALL_BYTES = 8 << 20
"""Files of at most so many bytes may be small pictures; larger ones are not looked at."""

LAZY_PIXELS = 16_000_000
"""Pictures of more pixels stay compressed in memory and are decoded by rows, where their format and kind allow it, or
frame by frame."""
MAX_PIXELS = 178_956_970
"""Default limit on the pixels of an input, all frames together. From there on Pillow speaks of a bomb."""
FRAME_PIXELS = 1 << 14
"""Pixels that the smallest frame of an animation counts for where frames are limited, by default to 10 922 of them."""


def load_image(
    source: str | Path | bytes | BinaryIO,
    *,
    max_pixels: int = MAX_PIXELS,
    frame: int | None = None,
    allow_truncated: bool = False,
    name: str | None = None,
) -> Picture:
    """Reads a picture by its content, not its name: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC, JPEG XL.

    Args:
        source: A regular file, the bytes of one, or a file that is open for reading bytes.
        max_pixels: Refuse more pixels than this, all frames of an animation together. The header tells their number,
            before any is decoded.
        frame: Number of the one frame, TIFF page or HEIC picture that is wanted, from 0. None takes all frames of an
            animation, the first page of a TIFF, the main picture of a HEIC.
        allow_truncated: Accept a damaged file. What is missing is gray or black.
        name: What messages call it; None for its path, or standard input where the source is bytes.

    Returns:
        The picture, upright, as gray, gray + alpha, RGB or RGB + alpha of 8 or 16 bits. Pixels of an upright JPEG,
        PNG or TIFF of more than `LAZY_PIXELS`, gray or RGB, are a `RowSource`. The file has then been read through
        once, so that damage is found here in any case.

    Raises:
        InputError: The source is not a regular file, empty, not a picture, damaged, or too large. Or it changed while
            it was read, or it is a HEIC and the extra is not installed.
        UsageError: There is no such frame.
        OutOfMemoryError: The picture does not fit in the memory that is free.
    """
    source = Path(source) if isinstance(source, str) else source
    if not isinstance(source, Path | bytes):
        source, name = source.read(), name or shown(str(getattr(source, "name", "the file")))
        if not isinstance(source, bytes):
            raise UsageError(f"{name}: opened as text; open it for reading bytes, as open(path, 'rb') does")
    name = name or ("standard input" if isinstance(source, bytes) else shown(source))
    data = source if isinstance(source, bytes) else _read_file(source)
    fmt = _format_of(data[:256], name)
    file = InputFile(
        data=data,
        name=name,
        fmt=fmt,
        frame=frame,
        max_pixels=max_pixels,
        allow_truncated=allow_truncated,
        in_memory=LAZY_PIXELS,
    )
    del data  # a codec may keep less of it
    digest = hashlib.sha256(file.data).hexdigest()
    if isinstance(source, Path) and (by_name := format_of_path(source)) and by_name is not fmt:
        file.notes.append(f"{name} is a {file.kind} file in spite of its name; read as {file.kind}")
    header, decoded = _decoded(file)
    turn = orientation_of(header.exif)
    picture = Picture(
        frames=decoded,
        format=fmt.name,
        metadata=_upright_metadata(header, turn, file),
        loop=header.loop if len(decoded) > 1 else None,
        warnings=tuple(file.notes),
        sha256=digest,
    )
    by_rows = isinstance(decoded[0].pixels_hwc, RowSource)  # only those that lie upright
    return picture if by_rows else picture.with_pixels(lambda pixels_hwc: upright(pixels_hwc, turn))


def _decoded(file: InputFile) -> tuple[Header, Sequence[Frame]]:
    """Reads a file's header and decodes its frames. Whatever fails is an error of the file, or of memory."""
    codec = codec_of(file.fmt)
    try:
        header = codec.read_header(file)
        file.check_pixels(header.pixels)
        if header.animated and file.frame is None:
            _check_frames(header.frames, file.name, file.max_pixels)
        return header, codec.decode(file, header, _select_frames(codec, header, file))
    except SrUpscaleError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(
            f"{file.name}: too large to decode in the memory that is free; close other programs"
        ) from error
    except Exception as error:  # decoders fail in many ways on damaged files
        raise InputError(
            f"{file.name}: damaged {file.kind} ({type(error).__name__}: {error}); get the file again"
        ) from error


def _upright_metadata(header: Header, turn: int, file: InputFile) -> Metadata:
    """Makes what travels with the upright pixels. Damaged blocks go, with a note; `header.exif` is changed."""
    try:
        exif = exif_bytes(header.exif)
    except Exception:  # Pillow raises many kinds for a damaged block
        exif = None
        file.note("damaged EXIF is left out")
    try:
        xmp = upright_xmp(header.xmp, turn) if header.xmp else None
    except ValueError as error:
        xmp = None
        file.note(f"{error}; it is left out")
    except Exception:  # the XML parser raises others for odd encodings and endless nesting
        xmp = None
        file.note("damaged XMP is left out")
    dpi, aspect = header.dpi, header.aspect
    if turn >= 5:
        dpi, aspect = dpi and dpi[::-1], aspect and aspect[::-1]
    return Metadata(
        icc=header.icc,
        color=header.color,
        exif=exif,
        dpi=dpi,
        aspect=aspect,
        xmp=xmp,
        iptc=header.iptc,
        text=header.text,
    )


def load_plain8(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Reads a picture as training and benchmarks see it: upright, of 8 bits, without alpha.

    Of an animation it is the first frame, of a HEIC the main picture.

    Args:
        source: A regular file, or the bytes of one.
        max_pixels: See `load_image`.

    Returns:
        (H, W, 1) uint8 for a gray picture, else (H, W, 3) RGB uint8.

    Raises:
        InputError: The file cannot be used.
        OutOfMemoryError: The picture does not fit in the memory that is free.
    """
    kind = _format_of(source[:256], "standard input").name if isinstance(source, bytes) else peek(source)
    frame = 0 if FORMATS[kind].animation else None
    pixels = np.asarray(load_image(source, max_pixels=max_pixels, frame=frame).frames[0].pixels_hwc)
    return rgb8(pixels)[:, :, : 1 if pixels.shape[2] < 3 else 3]


def peek(path: Path, *, clips: bool = False) -> str:
    """Detects the format of a picture file by its first 256 bytes. It reads no more than those.

    Args:
        path: The file.
        clips: Whether it may be a video.

    Returns:
        A key of `FORMATS`, or `VIDEO`.

    Raises:
        InputError: The file is missing, not a regular file, unreadable, empty, or no picture. Or it is a HEIC and the
            extra is not installed.
    """
    with _opened_file(path) as file:
        head = file.read(256)
        return VIDEO if clips and sniff(head) == VIDEO else _format_of(head, shown(path)).name


def pixels_of_small(source: Path | bytes, kind: str) -> int | None:
    """Counts the pixels of a still by its header alone; None for large files, animations and what cannot be read.

    Args:
        source: A regular file, or the bytes of one.
        kind: What `peek` says.
    """
    try:
        if (source.stat().st_size if isinstance(source, Path) else len(source)) > SMALL_BYTES:
            return None
        image = open_unlimited(source.read_bytes() if isinstance(source, Path) else source, FORMATS[kind].pillow)
    except Exception:  # whoever reads the picture next says what is wrong with it
        return None
    return None if getattr(image, "is_animated", False) else image.width * image.height


def _read_file(path: Path) -> bytes:
    """Reads the bytes of a regular file that is a picture.

    Raises:
        InputError: As `peek`, or the file changed while it was read.
    """
    name = shown(path)
    with _opened_file(path) as file:
        before = os.fstat(file.fileno())
        head = file.read(256)
        _format_of(head, name)  # a film of many GB is not read
        file.seek(0)
        data = file.read()  # in one piece: adding the rest to the head would hold the file twice
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise InputError(f"{name}: changed while it was read; run again when nothing writes to it")
    return data


@contextlib.contextmanager
def _opened_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a regular file. It never waits for a pipe or a device."""
    name = shown(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "a folder (use `sr-upscale batch`)" if stat.S_ISDIR(mode) else "a pipe, socket or device"
            raise InputError(f"{name}: not a regular file but {what}; expected a picture")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file; check the path") from error
    except OSError as error:
        raise InputError(f"{name}: cannot read: {error.strerror or error}; check the path and its rights") from error


def _format_of(head: bytes, name: str) -> Format:
    if not head:
        raise InputError(f"{name}: empty file (0 bytes); expected a picture")
    kind = sniff(head)
    if kind not in FORMATS:
        raise InputError(f"{name}: looks like {kind}; expected one of {', '.join(FORMATS)}")
    codec_of(FORMATS[kind]).check_available(name)
    return FORMATS[kind]


def _check_frames(count: int, name: str, max_pixels: int) -> None:
    """Refuses a file of a few MB that would keep a decoder busy for minutes: a frame costs time without pixels, too."""
    most = max(max_pixels, MAX_PIXELS) // FRAME_PIXELS
    if count > most:
        raise InputError(
            f"{name}: {count} frames are more than {most}; "
            f"use --max-pixels {-(-count * FRAME_PIXELS // 10**6)}MP to allow them if you trust the file"
        )


def _select_frames(codec: Codec, header: Header, file: InputFile) -> Sequence[int]:
    if file.frame is not None:
        if not 0 <= file.frame < header.frames:
            there = f"expected 0 to {header.frames - 1}" if header.frames > 1 else "it has one; leave out --frame"
            raise UsageError(f"{file.name}: no frame {file.frame}; {there}")
        return [file.frame]
    if header.frames > 1 and not header.animated:
        which = f"only the {codec.main_picture} is used (choose with --frame)"
        file.notes.append(f"{file.name} has {header.frames} pages; {which}")
        return [0]
    return range(header.frames)
