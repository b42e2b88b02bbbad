"""File -> `Picture`. Every refusal is an `InputError` that names the file, the finding and the way on."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_upscale.errors import InputError, OutOfMemoryError, SrUpscaleError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.functional.pil_arrays import rgb8
from sr_upscale.images.formats import FORMATS, format_of_path, sniff
from sr_upscale.images.frames import decode_frames, read_animation
from sr_upscale.images.header_reader import Header, open_unlimited, opened, read_header, up_to_damage
from sr_upscale.images.heif import decode_deep_avif, decode_heic, require_libheif
from sr_upscale.images.jpeg import left_behind, refuse_jpeg
from sr_upscale.images.metadata import (
    ORIENTATION,
    exif_bytes,
    orientation_of,
    upright,
)
from sr_upscale.images.picture import Frame, Metadata, Picture, RowSource
from sr_upscale.images.raw import refuse_raw
from sr_upscale.images.tiff_reader import page_alone
from sr_upscale.images.vips import LAZY_PIXELS, decode_still
from sr_upscale.images.xmp import upright_xmp

SMALL_BYTES = 8 << 20
"""Files of at most so many bytes may be small pictures; larger ones are not looked at."""

MAX_PIXELS = 178_956_970
"""Default limit on the pixels of an input, all frames together. From there on Pillow speaks of a bomb."""
FRAME_PIXELS = 1 << 14
"""Pixels that the smallest frame of an animation counts for where frames are limited, by default to 10 922 of them."""


def load_image(
    source: str | Path | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    frame: int | None = None,
    allow_truncated: bool = False,
    name: str | None = None,
) -> Picture:
    """Reads a picture: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC (extra ``heic``), by its content, not its name.

    Args:
        source: A regular file, or the bytes of one.
        max_pixels: Refuse more pixels than this, all frames of an animation together. The header tells their number,
            before any is decoded.
        frame: Number of the one frame, TIFF page or HEIC picture that is wanted, from 0. None takes all frames of an
            animation, the first page of a TIFF, the main picture of a HEIC.
        allow_truncated: Accept a damaged file. What is missing is gray or black.
        name: What messages call it; None for its path, or standard input where the source is bytes.

    Returns:
        The picture, upright, as gray, gray + alpha, RGB or RGB + alpha of 8 or 16 bits. Pixels of an upright JPEG,
        PNG or TIFF of more than `vips.LAZY_PIXELS`, gray or RGB, are a `RowSource`. The file has then been read through
        once, so that damage is found here in any case.

    Raises:
        InputError: The source is not a regular file, empty, not a picture, damaged, or too large. Or it changed while
            it was read, or it is a HEIC and the extra is not installed.
        UsageError: There is no such frame.
        OutOfMemoryError: The picture does not fit in the memory that is free.
    """
    source = Path(source) if isinstance(source, str) else source
    name = name or ("standard input" if isinstance(source, bytes) else shown(source))
    data = source if isinstance(source, bytes) else _read_file(source)
    kind = _kind_of(data[:256], name)
    digest = hashlib.sha256(data).hexdigest()
    notes: list[str] = []
    decoded: Sequence[Frame]
    if isinstance(source, Path) and (by_name := format_of_path(source)) and by_name.name != kind:
        notes.append(f"{name} is a {kind.upper()} file in spite of its name; read as {kind.upper()}")
    try:
        pages = None
        if kind == "tif":
            refuse_raw(data, name)
            data, pages = page_alone(data, frame or 0)
        if kind == "jpg":
            refuse_jpeg(data, name)
            notes += left_behind(data, name)
        intact = up_to_damage(data) if kind == "png" else data
        if not allow_truncated:
            data = intact
        animation = read_animation(data, kind, name)
        if animation is not None:  # before any library looks at it
            _check_pixels(animation.pixels if animation.width and animation.height else 0, name, max_pixels)
        header = read_header(data, kind, name, frame, animation=animation, pages=pages)
        if animation is None:
            _check_pixels(header.width * header.height * (header.frames if header.animated else 1), name, max_pixels)
        if header.animated and frame is None:
            _check_frames(header.frames, name, max_pixels)
        frames = _select_frames(header, frame, name, notes)
        if FORMATS[kind].streams and not header.animated:
            still = decode_still(data, intact, kind, name, header, allow_truncated=allow_truncated, notes=notes)
            decoded = (Frame(pixels_hwc=still),)
        elif kind == "heic":
            pixels = decode_heic(data, frame)
            decoded = (Frame(pixels_hwc=pixels),)
        elif kind == "avif" and not header.animated and (deep := decode_deep_avif(data, name, notes)) is not None:
            decoded = (Frame(pixels_hwc=deep),)
            if header.exif is not None and ORIENTATION in header.exif:
                header.exif[ORIENTATION] = 1  # libvips has turned it
        elif header.animated or kind == "gif":
            decoded = decode_frames(data, header, frames, name, allow_truncated=allow_truncated, in_memory=LAZY_PIXELS)
        else:
            decoded = (Frame(pixels_hwc=_decode_pillow(data, name, header, allow_truncated)),)
    except SrUpscaleError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(
            f"{name}: too large to decode in the memory that is free; close other programs"
        ) from error
    except Exception as error:  # decoders fail in many ways on damaged files
        raise InputError(
            f"{name}: damaged {kind.upper()} ({type(error).__name__}: {error}); get the file again"
        ) from error
    turn = orientation_of(header.exif)
    metadata = _upright_metadata(header, turn, name, notes)
    picture = Picture(
        frames=decoded,
        format=kind,
        metadata=metadata,
        loop=header.loop if len(decoded) > 1 else None,
        warnings=tuple(header.notes + notes),
        sha256=digest,
    )
    by_rows = isinstance(decoded[0].pixels_hwc, RowSource)  # only those that lie upright
    return picture if by_rows else picture.with_pixels(lambda pixels_hwc: upright(pixels_hwc, turn))


def _upright_metadata(header: Header, turn: int, name: str, notes: list[str]) -> Metadata:
    """Makes what travels with the upright pixels. Damaged blocks go, with a note; `header.exif` is changed."""
    try:
        exif = exif_bytes(header.exif)
    except Exception:  # Pillow raises many kinds for a damaged block
        exif = None
        notes.append(f"{name}: damaged EXIF is left out")
    try:
        xmp = upright_xmp(header.xmp, turn) if header.xmp else None
    except ValueError as error:
        xmp = None
        notes.append(f"{name}: {error}; it is left out")
    except Exception:  # the XML parser raises others for odd encodings and endless nesting
        xmp = None
        notes.append(f"{name}: damaged XMP is left out")
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
    kind = _kind_of(source[:256], "standard input") if isinstance(source, bytes) else peek(source)
    frame = None if kind == "heic" else 0
    pixels = np.asarray(load_image(source, max_pixels=max_pixels, frame=frame).frames[0].pixels_hwc)
    return rgb8(pixels)[:, :, : 1 if pixels.shape[2] < 3 else 3]


def peek(path: Path) -> str:
    """Tells the kind of a picture file by its first 256 bytes. It reads no more than those.

    Returns:
        A key of `FORMATS`.

    Raises:
        InputError: The file is missing, not a regular file, unreadable, empty, or no picture. Or it is a HEIC and the
            extra is not installed.
    """
    with _opened_file(path) as file:
        return _kind_of(file.read(256), shown(path))


def pixels_of_small(source: Path | bytes, kind: str) -> int | None:
    """Counts the pixels of a still by its header alone; None for large files, animations and what cannot be read.

    Args:
        source: A regular file, or the bytes of one.
        kind: What `peek` says.
    """
    try:
        if (source.stat().st_size if isinstance(source, Path) else len(source)) > SMALL_BYTES:
            return None
        image = open_unlimited(source.read_bytes() if isinstance(source, Path) else source, kind)
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
        _kind_of(head, name)  # a film of many GB is not read
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


def _kind_of(head: bytes, name: str) -> str:
    if not head:
        raise InputError(f"{name}: empty file (0 bytes); expected a picture")
    kind = sniff(head)
    if kind not in FORMATS:
        raise InputError(f"{name}: looks like {kind}; expected one of {', '.join(FORMATS)}")
    if kind == "heic":
        require_libheif(name)
    return kind


def _check_pixels(pixels: int, name: str, max_pixels: int) -> None:
    if pixels < 1:
        raise InputError(f"{name}: its header says that it is no pixel wide or high; it is damaged, get it again")
    if pixels > max_pixels:
        raise InputError(
            f"{name}: {_megapixels(pixels)} MP exceeds {_megapixels(max_pixels)} MP; "
            "use --max-pixels to allow it if you trust the file"
        )


def _check_frames(count: int, name: str, max_pixels: int) -> None:
    """Refuses a file of a few MB that would keep a decoder busy for minutes: a frame costs time without pixels, too."""
    most = max(max_pixels, MAX_PIXELS) // FRAME_PIXELS
    if count > most:
        raise InputError(
            f"{name}: {count} frames are more than {most}; "
            f"use --max-pixels {-(-count * FRAME_PIXELS // 10**6)}MP to allow them if you trust the file"
        )


def _select_frames(header: Header, frame: int | None, name: str, notes: list[str]) -> Sequence[int]:
    if frame is not None:
        if not 0 <= frame < header.frames:
            raise UsageError(f"{name}: no frame {frame}; expected 0 to {header.frames - 1}")
        return [frame]
    if header.frames > 1 and not header.animated:
        which = "main one" if header.kind == "heic" else "first"
        notes.append(f"{name} has {header.frames} pages; only the {which} is used (choose with --frame)")
        return [0]
    return range(header.frames)


# --- pixels -----------------------------------------------------------------------------------------


def _decode_pillow(data: bytes, name: str, header: Header, allow_truncated: bool) -> NDArray[Any]:
    """Decodes a still picture."""
    try:
        with opened(data, header.kind, allow_truncated=allow_truncated) as image:
            image.load()
            mode = _plain_mode(image)
            mode = {"L": "RGB", "LA": "RGBA"}.get(mode, mode) if header.icc else mode  # a profile is for RGB here
            return np.asarray(image.convert(mode)).reshape(image.height, image.width, -1)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(
            f"{name}: truncated or damaged ({error}); get the file again, "
            "or use --allow-truncated to take what is there"
        ) from error


def _plain_mode(image: Image.Image) -> str:
    """Returns the mode among L, LA, RGB, RGBA that holds everything the image shows."""
    if image.mode in ("1", "L"):
        return "LA" if "transparency" in image.info else "L"
    if image.mode in ("LA", "La"):
        return "LA"
    if image.mode in ("RGBA", "RGBa", "PA") or "transparency" in image.info or image.has_transparency_data:
        return "RGBA"
    if image.mode == "P" and _is_gray_palette(image):
        return "L"
    return "RGB"


def _is_gray_palette(image: Image.Image) -> bool:
    palette = np.asarray(image.getpalette() or [], dtype=np.uint8).reshape(-1, 3)
    used = palette[np.unique(np.asarray(image))[: len(palette)]] if len(palette) else palette
    return bool(len(used)) and bool((used == used[:, :1]).all())


def _megapixels(pixels: int) -> str:
    return str(pixels // 10**6) if pixels >= 10**7 else f"{pixels / 1e6:g}"
