"""`Picture` -> file, whole or not at all. What a format cannot hold is found before the computing starts."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from sr_upscale.errors import OutputError, UsageError
from sr_upscale.files import replace_file
from sr_upscale.images.formats import FORMATS, Format
from sr_upscale.images.metadata import resized_exif
from sr_upscale.images.picture import Frame, Metadata, Picture
from sr_upscale.images.tiff import append_exif
from sr_upscale.text import shown


@dataclass(frozen=True, kw_only=True)
class SaveOptions:
    """How to write.

    Attributes:
        quality: 1-100 for JPEG, WebP and AVIF; None takes the format's default. 100 is lossless in WebP.
        background: RGB colour (0-255) behind transparent pixels where the format has no alpha.
    """

    quality: int | None = None
    background: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"quality is {self.quality}; expected 1 to 100")


def check_target(fmt: Format, width: int, height: int, *, name: str) -> None:
    """Refuses an output that the format cannot hold.

    Raises:
        OutputError: A side is longer than the format allows; formats without that limit are suggested.
    """
    if max(width, height) > fmt.max_side:
        others = ", ".join(each.name for each in FORMATS.values() if each.max_side >= max(width, height))
        raise OutputError(
            f"{name}: the output of {width}x{height} is too large for {fmt.name.upper()}, which ends at "
            f"{fmt.max_side} pixels a side; use --format {others.replace(', ', ' or ', 1).split(',')[0]}"
        )


def adapt(picture: Picture, fmt: Format, options: SaveOptions, *, name: str) -> tuple[Picture, list[str]]:
    """The picture as the format can hold it, before it is upscaled, and what was given up, in words.

    An animation becomes its first frame, transparency is laid on the background, colours are converted
    to sRGB where no profile can be stored.

    Raises:
        UsageError: The format has no alpha and no background was given.
    """
    notes: list[str] = []
    upper = fmt.name.upper()
    if len(picture.frames) > 1 and not fmt.animation:
        notes.append(f"{name}: {upper} holds one picture; the first of {len(picture.frames)} frames is used (--frame)")
        picture = dataclasses.replace(picture, frames=picture.frames[:1], loop=None)
    if picture.has_alpha and not fmt.alpha:
        if options.background is None and not _is_opaque(picture):
            raise UsageError(
                f"{name}: {upper} has no transparency; give a --background colour such as white, or use --format png"
            )
        frames = tuple(_flatten(frame, options.background or (0, 0, 0)) for frame in picture.frames)
        picture = dataclasses.replace(picture, frames=frames)
    if picture.metadata.icc is not None and not fmt.icc:
        picture, converted = _to_srgb(picture)
        what = "colours are converted to sRGB" if converted else "its colour profile is left out"
        notes.append(f"{name}: {upper} holds no colour profile; {what}")
    if picture.bits > fmt.bits:
        notes.append(f"{name}: {upper} holds {fmt.bits} bits per channel; the output is reduced from {picture.bits}")
    return picture, notes


def save_image(picture: Picture, target: Path | BinaryIO, fmt: Format, options: SaveOptions | None = None) -> None:
    """Writes a picture.

    Args:
        picture: Already adapted to the format (`adapt`); 16 bits are rounded to 8 where it holds no more.
        target: A path, which gets the whole file or keeps what it had, or a binary stream.
        fmt: Format to write.
        options: Quality.

    Raises:
        OutputError: It cannot be written.
    """
    options = options or SaveOptions()
    check_target(fmt, picture.width, picture.height, name=shown(target) if isinstance(target, Path) else "output")
    if isinstance(target, Path):
        with replace_file(target) as temporary:
            _write(picture, temporary, fmt, options)
        return
    with tempfile.TemporaryDirectory(prefix="sr-") as folder:
        temporary = Path(folder) / "out"
        _write(picture, temporary, fmt, options)
        with temporary.open("rb") as file:
            while block := file.read(1 << 20):
                target.write(block)
        target.flush()


def _write(picture: Picture, path: Path, fmt: Format, options: SaveOptions) -> None:
    exif = resized_exif(picture.metadata.exif, picture.width, picture.height) if fmt.exif else None
    if fmt.name in ("tif", "gif") or (picture.bits == 16 and fmt.bits == 16):
        _write_vips(picture, path, fmt, exif)
    else:
        _write_pillow(picture, path, fmt, options, exif)


def _write_vips(picture: Picture, path: Path, fmt: Format, exif: bytes | None) -> None:
    import pyvips

    frames = [frame.pixels_hwc if fmt.bits == 16 else _to_8_bits(frame.pixels_hwc) for frame in picture.frames]
    pixels = np.ascontiguousarray(np.concatenate(frames))  # libvips keeps frames in one tall picture
    height, width, bands = pixels.shape
    wide = pixels.dtype == np.uint16
    image = pyvips.Image.new_from_memory(pixels.data, width, height, bands, "ushort" if wide else "uchar")
    interpretation = ("grey16" if wide else "b-w") if bands < 3 else ("rgb16" if wide else "srgb")
    image = image.copy(interpretation=interpretation)
    if picture.metadata.dpi:
        image = image.copy(xres=picture.metadata.dpi[0] / 25.4, yres=picture.metadata.dpi[1] / 25.4)
    if picture.metadata.icc:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", picture.metadata.icc)
    try:
        if fmt.name == "png":
            if exif:
                image.set_type(pyvips.GValue.blob_type, "exif-data", b"Exif\0\0" + exif)
            image.pngsave(str(path))
        elif fmt.name == "gif":
            image.set_type(pyvips.GValue.gint_type, "page-height", picture.height)
            delays = [frame.duration_ms for frame in picture.frames]
            image.set_type(pyvips.GValue.array_int_type, "delay", delays)
            image.set_type(pyvips.GValue.gint_type, "loop", 1 if picture.loop is None else picture.loop)
            image.gifsave(str(path))
        else:
            big = pixels.nbytes > 3 << 30
            image.tiffsave(str(path), compression="deflate", predictor="horizontal", resunit="inch", bigtiff=big)
            if exif:
                append_exif(path, exif)
    except pyvips.Error as error:
        reason = str(error).strip().splitlines()[-1]
        number = errno.ENOSPC if os.strerror(errno.ENOSPC) in reason else errno.EIO
        raise OSError(number, reason) from error  # `replace_file` knows the final name and says what to do


def _write_pillow(picture: Picture, path: Path, fmt: Format, options: SaveOptions, exif: bytes | None) -> None:
    images = [_pillow_image(_to_8_bits(frame.pixels_hwc)) for frame in picture.frames]
    settings: dict[str, Any] = {}
    meta = picture.metadata
    if meta.icc and fmt.icc:
        settings["icc_profile"] = meta.icc
    if exif and fmt.exif:
        settings["exif"] = Image.Exif()
        settings["exif"].load(exif)
    if meta.dpi and fmt.name in ("png", "jpg", "bmp"):
        settings["dpi"] = meta.dpi
    settings |= _format_settings(fmt, options.quality or fmt.quality)
    if fmt.name in ("webp", "avif") and images[0].mode in ("L", "LA"):  # they know colour only
        images = [image.convert("RGBA" if image.mode == "LA" else "RGB") for image in images]
    if len(images) > 1:
        settings |= {"save_all": True, "append_images": images[1:]}
        settings["duration"] = [frame.duration_ms for frame in picture.frames]
        settings["loop"] = 1 if picture.loop is None else picture.loop
    try:
        images[0].save(path, format=fmt.pillow, **settings)
    except ValueError as error:
        if "EXIF" not in str(error):
            raise
        settings.pop("exif")  # longer than a JPEG segment holds
        images[0].save(path, format=fmt.pillow, **settings)


def _format_settings(fmt: Format, quality: int | None) -> dict[str, Any]:
    if fmt.name == "jpg":
        return {"quality": quality, "subsampling": 0, "optimize": True}
    if fmt.name == "webp":
        return {"lossless": True, "exact": True} if quality == 100 else {"quality": quality, "method": 4}
    if fmt.name == "avif":
        return {"quality": quality, "subsampling": "4:4:4"}
    return {}


def _to_8_bits(pixels_hwc: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels_hwc.dtype == np.uint16:
        pixels_hwc = np.rint(pixels_hwc / 257).astype(np.uint8)
    return pixels_hwc


def _pillow_image(pixels_hwc: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels_hwc[:, :, 0] if pixels_hwc.shape[2] == 1 else pixels_hwc)


def _is_opaque(picture: Picture) -> bool:
    return all((frame.pixels_hwc[:, :, -1] == np.iinfo(frame.pixels_hwc.dtype).max).all() for frame in picture.frames)


def _flatten(frame: Frame, background: tuple[int, int, int]) -> Frame:
    pixels = frame.pixels_hwc
    top = np.iinfo(pixels.dtype).max
    gray = len(set(background)) == 1 and pixels.shape[2] == 2
    colour, alpha = pixels[:, :, :-1].astype(np.float32), pixels[:, :, -1:].astype(np.float32) / top
    behind = np.array(background[:1] if gray else background, dtype=np.float32) / 255 * top
    flat = np.rint(colour * alpha + behind * (1 - alpha)).astype(pixels.dtype)
    return Frame(pixels_hwc=flat, duration_ms=frame.duration_ms)


def _to_srgb(picture: Picture) -> tuple[Picture, bool]:
    """Pixels converted from their profile to sRGB, and whether that could be done; the profile goes either way."""
    metadata = Metadata(icc=None, exif=picture.metadata.exif, dpi=picture.metadata.dpi)
    plain = dataclasses.replace(picture, metadata=metadata)
    if picture.channels < 3:
        return plain, False
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(picture.metadata.icc or b""))
        change = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
        frames = []
        for frame in picture.frames:
            pixels = _to_8_bits(frame.pixels_hwc).copy()
            rgb = ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(pixels[:, :, :3])), change)
            pixels[:, :, :3] = np.asarray(rgb)
            frames.append(Frame(pixels_hwc=pixels, duration_ms=frame.duration_ms))
        return dataclasses.replace(plain, frames=tuple(frames)), True
    except (ImageCms.PyCMSError, OSError):
        return plain, False
