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
from sr_upscale.images.header_reader import Header, first_line, opened, read_header, up_to_damage
from sr_upscale.images.heif import decode_deep_avif, decode_heic, require_libheif
from sr_upscale.images.metadata import (
    ORIENTATION,
    exif_bytes,
    orientation_of,
    upright,
)
from sr_upscale.images.picture import AnyPixels, Frame, Metadata, Picture, RowSource
from sr_upscale.images.raw import refuse_raw
from sr_upscale.images.row_reader import FileRows
from sr_upscale.images.xmp import upright_xmp

MAX_PIXELS = 178_956_970
"""Default limit on the pixels of an input, all frames together. From there on Pillow speaks of a bomb."""

LAZY_PIXELS = 16_000_000
"""Pictures of more pixels stay compressed in memory and are decoded by rows, where their format and kind allow it, and
animations of more pixels by frames."""

_LARGE_TIFF = 16 << 20
"""Bytes of a file from which on libtiff may allocate more than 50 MB, as it must for one long compressed strip."""


def load_image(
    source: str | Path | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    frame: int | None = None,
    allow_truncated: bool = False,
) -> Picture:
    """Reads a picture: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC (extra ``heic``), by its content, not its name.

    Args:
        source: A regular file, or the bytes of one.
        max_pixels: Refuse more pixels than this, all frames of an animation together. The header tells their number,
            before any is decoded.
        frame: Number of the one frame, TIFF page or HEIC picture that is wanted, from 0. None takes all frames of an
            animation, the first page of a TIFF, the main picture of a HEIC.
        allow_truncated: Accept a damaged file. What is missing is gray or black.

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
    name = "standard input" if isinstance(source, bytes) else shown(source)
    data = source if isinstance(source, bytes) else _read_file(source)
    kind = _kind_of(data[:256], name)
    digest = hashlib.sha256(data).hexdigest()
    notes: list[str] = []
    decoded: Sequence[Frame]
    if isinstance(source, Path) and (by_name := format_of_path(source)) and by_name.name != kind:
        notes.append(f"{name} is a {kind.upper()} file in spite of its name; read as {kind.upper()}")
    try:
        if kind == "png" and not allow_truncated:
            data = up_to_damage(data)
        if kind == "tif":
            refuse_raw(data, name)
        animation = read_animation(data, kind, name)
        if animation is not None:  # before any library looks at it
            _check_pixels(animation.pixels, name, max_pixels)
        header = read_header(data, kind, name, frame, animation=animation)
        if animation is None:
            _check_pixels(header.width * header.height * (header.frames if header.animated else 1), name, max_pixels)
        frames = _select_frames(header, frame, name, notes)
        if FORMATS[kind].streams and not header.animated:
            decoded = (Frame(pixels_hwc=_decode_vips(data, kind, name, frames[0], header, allow_truncated, notes)),)
        elif kind == "heic":
            pixels = decode_heic(data, name, frame, has_profile=header.icc is not None, notes=notes)
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
    dpi = header.dpi[::-1] if header.dpi is not None and turn >= 5 else header.dpi
    picture = Picture(
        frames=decoded,
        format=kind,
        metadata=Metadata(icc=header.icc, exif=exif, dpi=dpi, xmp=xmp, iptc=header.iptc, text=header.text),
        loop=header.loop if len(decoded) > 1 else None,
        warnings=tuple(header.notes + notes),
        sha256=digest,
    )
    by_rows = isinstance(decoded[0].pixels_hwc, RowSource)  # only those that lie upright
    return picture if by_rows else picture.with_pixels(lambda pixels_hwc: upright(pixels_hwc, turn))


def load_plain8(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Reads the first frame as training and benchmarks see it: upright, of 8 bits, without alpha.

    Args:
        source: A regular file, or the bytes of one.
        max_pixels: See `load_image`.

    Returns:
        (H, W, 1) uint8 for a gray picture, else (H, W, 3) RGB uint8.

    Raises:
        InputError: The file cannot be used.
        OutOfMemoryError: The picture does not fit in the memory that is free.
    """
    pixels = np.asarray(load_image(source, max_pixels=max_pixels, frame=0).frames[0].pixels_hwc)
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
        data = head + file.read()
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
    if pixels > max_pixels:
        raise InputError(
            f"{name}: {_megapixels(pixels)} MP exceeds {_megapixels(max_pixels)} MP; "
            "use --max-pixels to allow it if you trust the file"
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


def _decode_vips(
    data: bytes, kind: str, name: str, page: int, header: Header, allow_truncated: bool, notes: list[str]
) -> AnyPixels:
    import pyvips

    damage = "error" if kind == "tif" else "truncated"  # libtiff calls missing strips errors

    def open_image(fail_on: str = "none" if allow_truncated else damage) -> Any:
        options: dict[str, Any] = {"access": "sequential", "fail_on": fail_on}
        if kind == "tif":
            options["page"] = page
            if len(data) > _LARGE_TIFF and pyvips.at_least_libvips(8, 17):
                options["unlimited"] = True
        return pyvips.Image.new_from_source(pyvips.Source.new_from_memory(data), "", **options)

    try:
        image = open_image()
        if _goes_by_rows(image, header):
            try:
                return FileRows(lambda: open_image(damage), name)
            except pyvips.Error:
                if not allow_truncated:
                    raise
        if image.interpretation == "cmyk":
            profile = "its own" if header.icc else "a standard"
            notes.append(f"{name}: CMYK converted to sRGB by {profile} profile")
            depth = 16 if image.format == "ushort" else 8
            image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
            header.icc = None
        elif image.interpretation in ("lab", "labq", "labs", "lch", "xyz"):
            notes.append(f"{name}: {str(image.interpretation).upper()} converted to 16-bit RGB")
            image, header.icc = image.colourspace("rgb16"), None
        if image.format not in ("uchar", "ushort", "float", "double"):
            raise InputError(f"{name}: samples of type {image.format}; expected 8 or 16 bits, or floats from 0 to 1")
        if image.bands > 4:
            raise InputError(f"{name}: {image.bands} channels; expected gray or RGB, with or without alpha")
        pixels: NDArray[Any] = image.numpy().reshape(image.height, image.width, image.bands)
    except pyvips.Error as error:
        if (done := _rows_before_failure(open_image)) is not None:
            raise InputError(
                f"{name}: truncated at row {done[0]} of {done[1]}, or damaged there; get the file again, "
                "or use --allow-truncated to take what is there"
            ) from error
        raise InputError(f"{name}: damaged {kind.upper()} ({first_line(error)}); get the file again") from error
    return _float_to_16_bits(pixels, name, notes) if pixels.dtype.kind == "f" else pixels


def _goes_by_rows(image: Any, header: Header) -> bool:
    """Says whether a picture is large, and its rows need no change."""
    return (
        image.width * image.height > LAZY_PIXELS
        and image.format in ("uchar", "ushort")
        and image.interpretation in ("b-w", "srgb", "grey16", "rgb16")
        and image.bands in (1, 3)
        and orientation_of(header.exif) == 1
    )


def _rows_before_failure(open_image: Any) -> tuple[int, int] | None:
    """Counts the rows that decode: (rows, height), or None where not even the header does or where all do."""
    import pyvips

    try:
        image = open_image()
    except pyvips.Error:
        return None
    region = pyvips.Region.new(image)
    for row in range(image.height):
        try:
            region.fetch(0, row, image.width, 1)
        except pyvips.Error:
            return row, image.height
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


def _decode_pillow(data: bytes, name: str, header: Header, allow_truncated: bool) -> NDArray[Any]:
    """Decodes a still picture."""
    try:
        with opened(data, header.kind, allow_truncated=allow_truncated) as image:
            image.load()
            return np.asarray(image.convert(_plain_mode(image))).reshape(image.height, image.width, -1)
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
