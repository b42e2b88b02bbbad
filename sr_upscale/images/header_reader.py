"""What a file says about itself before its pixels: size, frames, orientation, and everything that travels with them."""

from __future__ import annotations

import contextlib
import io
import itertools
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from PIL import Image, UnidentifiedImageError

from sr_upscale.errors import InputError
from sr_upscale.images.animation import Animation
from sr_upscale.images.avif import aspect_of_boxes, has_gain_map, plays_of, tags_of_avif
from sr_upscale.images.bmp import colors_of_bmp, kind_of_bmp
from sr_upscale.images.color_tags import ColorTags, tags_of_nclx, tags_of_png
from sr_upscale.images.formats import FORMATS
from sr_upscale.images.heif import is_deep
from sr_upscale.images.metadata import info_of, read_exif, read_iptc, read_text
from sr_upscale.images.tiff_samples import pixels_alone

MOST_DPI = 1_000_000
"""Pixels per inch that are believed. TIFF can state infinity; BMP and libvips end at some ten millions."""

_PILLOW_LOCK = threading.Lock()
_FRAME_CHUNKS = (b"acTL", b"fcTL", b"fdAT")


@dataclass(kw_only=True)
class Header:
    """What `read_header` finds.

    Attributes:
        kind: Key of `FORMATS`.
        width, height: Pixels as stored, before any turn.
        frames: Number of frames of an animation, or of pages.
        animated: Whether the frames are timed.
        exif, icc, color, xmp, iptc, text: Metadata as the file holds them.
        dpi: Pixels per inch, across and down as stored.
        aspect: Pixels across and down that are equally long, as stored, where they are not square.
        loop: How often an animation plays, 0 for ever, None for once.
        notes: Sentences for the user about what was given up.
        animation: Layout of a GIF or of an animated PNG, else None.
    """

    kind: str
    width: int
    height: int
    frames: int
    animated: bool
    exif: Image.Exif | None
    icc: bytes | None
    dpi: tuple[float, float] | None
    loop: int | None
    notes: list[str]
    animation: Animation | None = None
    color: ColorTags | None = None
    aspect: tuple[int, int] | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()


def read_header(
    data: bytes,
    kind: str,
    name: str,
    frame: int | None,
    *,
    animation: Animation | None = None,
    pages: int | None = None,
) -> Header:
    """Reads the header of a picture.

    Pictures of a HEIC differ, so there it is the header of the wanted one. For anything else it is the header of the
    whole file.

    Args:
        data: The file, of a TIFF with the wanted page alone.
        kind: Key of `FORMATS`.
        name: Of the file, for notes and errors.
        frame: Number of the picture, from 0. None takes the one that Pillow opens first.
        animation: Its layout, where that has been read. Nothing else is read of a GIF.
        pages: How many pages the TIFF had; None for other formats.

    Raises:
        InputError: The header is damaged.
    """
    if kind == "gif" and animation is not None:
        return Header(
            kind=kind,
            width=animation.width,
            height=animation.height,
            frames=animation.frames,
            animated=animation.frames > 1,
            exif=None,
            icc=animation.icc,
            dpi=None,
            aspect=animation.aspect,
            loop=animation.loop,
            notes=[],
            animation=animation,
        )
    try:
        with opened(data, kind) as image:
            notes: list[str] = []
            if kind == "avif" and getattr(image, "n_frames", 1) > 1 and is_deep(data):
                notes.append(f"{name}: an animation of more than 8 bits per channel is read as 8")
            frames = pages or 1
            if kind not in ("jpg", "png", "tif"):
                frames = getattr(image, "n_frames", 1)
            if kind == "heic" and frame is not None and 0 <= frame < frames:
                image.seek(frame)
            try:
                exif = read_exif(image, to_the_end=kind != "png" or _text_follows(data))
            except Exception:  # a damaged block fails in many ways and is no reason to refuse the pixels
                exif = None
                notes.append(f"{name}: damaged EXIF is left out")
            dpi = info_of(image, "dpi", tuple)
            icc = info_of(image, "icc_profile", bytes) or None
            color = _color_of(data, kind, image, has_profile=icc is not None)
            if kind == "bmp":
                icc, color = colors_of_bmp(data, name, notes)
            if kind in ("avif", "heic") and has_gain_map(data):
                notes.append(f"{name}: its gain map (HDR) is left out; the picture without it is used")
            return Header(
                kind=kind,
                width=image.width,
                height=image.height,
                frames=frames if animation is None else animation.frames,
                animated=animation is not None or (frames > 1 and FORMATS[kind].animation),
                exif=exif,
                icc=icc,
                color=color,
                aspect=_aspect_of(data, kind, image),
                dpi=_resolution(dpi, name, notes),
                loop=animation.loop if animation else plays_of(data) if kind == "avif" else info_of(image, "loop", int),
                notes=notes,
                xmp=info_of(image, "xmp", bytes),
                iptc=read_iptc(image),
                text=read_text(image),
                animation=animation,
            )
    except UnidentifiedImageError as error:
        if kind == "tif":  # Pillow does not know every TIFF, float RGB for one; libvips does
            return _tiff_header(data, name, pages or 1)
        raise InputError(f"{name}: damaged {kind.upper()} header; get the file again") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        if kind == "bmp" and (what := kind_of_bmp(data)):
            raise InputError(f"{name}: {what}, which this program does not read; save it again as PNG") from error
        raise InputError(f"{name}: refused {kind.upper()} header: {error}; get the file again") from error


def _aspect_of(data: bytes, kind: str, image: Image.Image) -> tuple[int, int] | None:
    """Reads pixels across and down that are equally long, where a file says it without a unit of length."""
    found: Any = None
    if kind == "png":
        found = info_of(image, "aspect", tuple)
    elif kind == "jpg" and image.info.get("jfif_unit") == 0:
        found = info_of(image, "jfif_density", tuple)
    elif kind == "tif" and "dpi" not in image.info:
        found = info_of(image, "resolution", tuple)
    elif kind in ("avif", "heic"):
        found = aspect_of_boxes(data)
    try:
        ratio = Fraction(found[0]) / Fraction(found[1]) if found else Fraction(1)
    except (ZeroDivisionError, ValueError, TypeError, OverflowError):
        return None
    ratio = ratio.limit_denominator(1000)
    return None if ratio == 1 or not Fraction(1, 100) <= ratio <= 100 else (ratio.numerator, ratio.denominator)


def _color_of(data: bytes, kind: str, image: Image.Image, *, has_profile: bool) -> ColorTags | None:
    """Reads the colours that no profile describes. In AVIF and HEIC a profile counts before code points."""
    if kind == "png":
        before = itertools.takewhile(lambda chunk: chunk[0] != b"IDAT", png_chunks(data))
        return tags_of_png(((what, data[at + 8 : end - 4]) for what, at, end in before), has_profile=has_profile)
    if has_profile or kind not in ("avif", "heic"):
        return None
    return tags_of_avif(data) if kind == "avif" else tags_of_nclx(info_of(image, "nclx_profile", dict))


def _resolution(dpi: tuple[Any, ...] | None, name: str, notes: list[str]) -> tuple[float, float] | None:
    """Returns a resolution that every format can state, else None."""
    if dpi is None:
        return None
    try:
        across, down = (float(value) for value in dpi)
    except ZeroDivisionError:  # 0/0, of some releases of Pillow
        return None
    if min(across, down) > 0 and max(across, down) <= MOST_DPI:
        return across, down
    if max(across, down) > 0:  # 0 stands for none
        notes.append(f"{name}: a resolution of {across:g} x {down:g} pixels per inch is left out")
    return None


def _tiff_header(data: bytes, name: str, pages: int) -> Header:
    from sr_upscale.images.libvips import pyvips

    data, samples = pixels_alone(data, name)
    try:
        image = pyvips.Image.new_from_buffer(data, "", access="sequential")
        fields = image.get_fields()
        return Header(
            kind="tif",
            width=samples.size[0] if samples else image.width,
            height=samples.size[1] if samples else image.height,
            frames=pages,
            animated=False,
            exif=None,
            icc=image.get("icc-profile-data") if "icc-profile-data" in fields else None,
            dpi=None,
            loop=None,
            notes=[],
        )
    except pyvips.Error as error:
        raise InputError(f"{name}: damaged TIFF header ({first_line(error)}); get the file again") from error


def up_to_damage(png: bytes) -> bytes:
    """Cuts a PNG off at the first chunk of its pixels or frames with a wrong checksum. Decoders overlook some of them.

    Args:
        png: The bytes of the file.

    Returns:
        The file up to the damage, or the file itself where there is none.
    """
    view = memoryview(png)
    for kind, at, end in png_chunks(png):
        critical = kind[:1].isupper() or kind in _FRAME_CHUNKS
        if critical and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            return png[: max(at + 8, end - 12)]  # the decoder then stops in this chunk, and says at which row
    return png


def _text_follows(png: bytes) -> bool:
    """Says whether text or EXIF stands behind the pixels."""
    kinds = [kind for kind, _at, _end in png_chunks(png)]
    behind = kinds[kinds.index(b"IDAT") :] if b"IDAT" in kinds else []
    return not {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}.isdisjoint(behind)


def png_chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields (kind, start, end) of the chunks of a PNG. The last one may end beyond the file."""
    at = 8
    while at + 12 <= len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        yield png[at + 4 : at + 8], at, end
        at = end


@contextlib.contextmanager
def opened(data: bytes, kind: str, *, allow_truncated: bool = False) -> Iterator[Image.Image]:
    """Opens an image with Pillow, without Pillow's global pixel limit: ours is checked instead.

    The limit is a global of Pillow, so only one thread at a time gets through.

    Args:
        data: The file.
        kind: Key of `FORMATS`; no other format is tried.
        allow_truncated: Accept a file that ends early.

    Yields:
        Pillow's image, not yet loaded.
    """
    with _own_limits(allow_truncated=allow_truncated), _open(data, kind) as image:
        yield image


def open_unlimited(data: bytes, kind: str) -> Image.Image:
    """Opens an image as `opened` does, to be read later. Other threads do not wait until it is closed."""
    with _own_limits(allow_truncated=False):
        return _open(data, kind)


def _open(data: bytes, kind: str) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=[FORMATS[kind].pillow])


@contextlib.contextmanager
def _own_limits(*, allow_truncated: bool) -> Iterator[None]:
    from PIL import ImageFile

    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities that are no reason to refuse
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, allow_truncated
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def first_line(error: Exception) -> str:
    """Returns the last line of a library's message, which names the cause. Without a message, the kind of the error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
