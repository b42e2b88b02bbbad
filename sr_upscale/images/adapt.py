"""`Picture` -> a picture that the output format can hold, before anything is computed."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from sr_upscale.errors import InputError, OutputError, UsageError
from sr_upscale.functional.pil_arrays import to_8_bits
from sr_upscale.images.codecs.codec import codec_of
from sr_upscale.images.color_tags import HLG, PQ, ColorTags, profile_of
from sr_upscale.images.formats import FORMATS, Format, SaveOptions
from sr_upscale.images.picture import Picture
from sr_upscale.images.xmp import HISTORY_BYTES

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
        UsageError: The extra that writes the format is not installed.
    """
    try:
        codec_of(fmt).check_available(name)
    except InputError as error:
        raise UsageError(str(error)) from error
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
        picture, notes = _fit_timing(picture, fmt, name=name)
    if picture.has_alpha and not fmt.alpha:
        if options.background is None and not is_opaque(picture):
            raise UsageError(
                f"{name}: {upper} has no transparency; give a --background colour such as white, or use --format png"
            )
        background = options.background or (0, 0, 0)
        picture = picture.with_pixels(lambda pixels_hwc: flatten(pixels_hwc, background))
    picture, of_colours = _fit_color(picture, fmt, name=name)
    notes += of_colours + _lost(picture, fmt, options, name=name)
    if len(picture.frames) > 1 and picture.bits > 8:
        notes.append(f"{name}: an animation is written with 8 bits per channel; it is reduced from {picture.bits}")
    elif picture.bits > fmt.bits:
        notes.append(f"{name}: {upper} holds {fmt.bits} bits per channel; the output is reduced from {picture.bits}")
    return picture, notes


def _lost(picture: Picture, fmt: Format, options: SaveOptions, *, name: str) -> list[str]:
    """Names what the format cannot hold besides pixels: the shape of pixels, and long blocks of metadata."""
    notes = []
    if (aspect := _lost_aspect(picture, fmt)) is not None:
        notes.append(
            f"{name}: its pixels are not square, {aspect[0]:g} across are as long as {aspect[1]:g} down, which "
            f"{fmt.name.upper()} does not say; use --format png, or stretch it with --size and --fit stretch"
        )
    if fmt.block_room is None or options.strip_metadata:
        return notes
    given = picture.metadata
    xmp = len(given.xmp) + HISTORY_BYTES if given.xmp else 0
    for what, size in (("EXIF", len(given.exif or b"")), ("XMP", xmp), ("IPTC", len(given.iptc or b""))):
        if size > fmt.block_room:
            holds = f"more than {fmt.pillow} holds and are left out; use --format png"
            notes.append(f"{name}: {size} bytes of {what} are {holds}")
    return notes


def is_opaque(picture: Picture) -> bool:
    """Says whether no pixel of a picture with alpha is transparent."""
    top = 2**picture.bits - 1
    return all((np.asarray(frame.pixels_hwc)[:, :, -1] == top).all() for frame in picture.frames)


def flatten(pixels: NDArray[Any], background: tuple[int, int, int]) -> NDArray[Any]:
    """Lays pixels (H, W, 2 or 4) with straight alpha over a colour of 0-255; returns (H, W, 1 or 3) of their type."""
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
        return None if abs(dpi[0] / dpi[1] - 1) < 0.01 or fmt.dpi else dpi
    return None if fmt.aspect and still else picture.metadata.aspect


# --- timing -----------------------------------------------------------------------------------------


def _fit_timing(picture: Picture, fmt: Format, *, name: str) -> tuple[Picture, list[str]]:
    """Changes delays and plays that the format cannot hold into the nearest that it can.

    Args:
        picture: An animation.
        fmt: Of the output.
        name: Of the picture, for the notes.

    Returns:
        The animation, and sentences about delays and plays that are cut.

    Raises:
        OutputError: All frames together last longer than the format's encoder counts.
    """
    notes: list[str] = []
    upper = fmt.name.upper()
    if picture.loop is not None and picture.loop > fmt.max_plays:
        notes.append(f"{name}: {upper} plays at most {fmt.max_plays} times; the input plays {picture.loop} times")
        picture = dataclasses.replace(picture, loop=fmt.max_plays)
    longest = fmt.delay_steps_ms[-1] * fmt.max_delay_steps
    cut = sum(each > longest for each in picture.durations_ms)
    if cut:
        notes.append(f"{name}: {upper} shows a frame for at most {longest / 1000:g} s; {cut} frames are shown longer")
    delays = [_fit_delay(each, fmt) for each in picture.durations_ms]
    if fmt.max_total_ms is not None and sum(delays) > fmt.max_total_ms:
        lasts, ends = (f"{each / 1000:.0f} s" for each in (sum(delays), fmt.max_total_ms))
        raise OutputError(f"{name}: its frames last {lasts} together, and {upper} ends at {ends}; use --format png")
    return picture.with_durations(delays), notes


def _fit_delay(delay_ms: int, fmt: Format) -> int:
    for step in fmt.delay_steps_ms:
        if delay_ms <= fmt.max_delay_steps * step:
            finest = step == fmt.delay_steps_ms[0]  # to which the writer rounds by itself
            return delay_ms if finest else round(delay_ms / step) * step
    return fmt.max_delay_steps * fmt.delay_steps_ms[-1]


# --- colours ----------------------------------------------------------------------------------------


def _fit_color(picture: Picture, fmt: Format, *, name: str) -> tuple[Picture, list[str]]:
    """Makes the colours of a picture what a format can say. Pixels change where it holds no profile, and only there.

    Args:
        picture: The input.
        fmt: Format of the output.
        name: Of the picture, for the notes.

    Returns:
        The picture, and sentences about what is converted or cannot be said.
    """
    picture, notes = _fit_tags(picture, fmt, name=name)
    if picture.metadata.icc is not None and not fmt.icc:
        bits = picture.bits
        picture, converted = _to_srgb(picture)
        depth = " of 8 bits" if picture.bits < bits else ""
        what = f"colours are converted to sRGB{depth}" if converted else "its colour profile is left out"
        notes.append(f"{name}: {fmt.name.upper()} holds no colour profile; {what}")
    return picture, notes


def _fit_tags(picture: Picture, fmt: Format, *, name: str) -> tuple[Picture, list[str]]:
    """Changes colour tags into what the format can say: they stay, become a profile, or go with a sentence about it."""
    tags, icc = picture.metadata.color, picture.metadata.icc
    if tags is None:
        return picture, []
    if fmt.gamma if tags.cicp is None else fmt.cicp and (tags.full_range or fmt.gamma):
        both = fmt.gamma or icc is None  # only PNG says which of the two counts
        return (picture if both else _tagged(picture, icc=None, color=tags)), []
    if icc is not None or tags.is_srgb:
        return _tagged(picture, icc=icc, color=None), []
    profile = profile_of(tags, gray=picture.channels < 3)
    picture = _tagged(picture, icc=profile, color=None)
    if profile is None:
        return picture, [f"{name}: colours of {tags} cannot be said in {fmt.name.upper()}; use --format png"]
    if tags.cicp is not None and tags.cicp[1] in (PQ, HLG):
        return picture, [
            f"{name}: colours of {tags} are HDR, for which {fmt.name.upper()} has but a profile; many programs show "
            "highlights as white; use --format png or avif"
        ]
    return picture, []


def _tagged(picture: Picture, *, icc: bytes | None, color: ColorTags | None) -> Picture:
    return dataclasses.replace(picture, metadata=dataclasses.replace(picture.metadata, icc=icc, color=color))


def _to_srgb(picture: Picture) -> tuple[Picture, bool]:
    """Converts pixels from their profile to sRGB, and says whether that could be done. The profile goes either way."""
    plain = dataclasses.replace(picture, metadata=dataclasses.replace(picture.metadata, icc=None))
    colours = 3 if picture.channels >= 3 else 1
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(picture.metadata.icc or b""))
        mode, flags = (
            ("RGB", ImageCms.Flags.NONE) if colours == 3 else ("L", ImageCms.Flags.NOOPTIMIZE)
        )  # its table for gray is coarse
        change = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)

        def converted(pixels_hwc: NDArray[Any]) -> NDArray[Any]:
            pixels_hwc = to_8_bits(pixels_hwc).copy()
            image = Image.fromarray(np.ascontiguousarray(pixels_hwc[:, :, :colours].squeeze(2 if colours == 1 else ())))
            pixels_hwc[:, :, :colours] = np.asarray(ImageCms.applyTransform(image, change))[:, :, :colours]
            return pixels_hwc

        return plain.with_pixels(converted), True
    except (ImageCms.PyCMSError, OSError):
        return plain, False
