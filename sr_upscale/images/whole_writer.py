"""WebP, BMP, GIF, AVIF and animations: written by encoders that are given all pixels."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_upscale.images.avif import codec_settings, set_color, set_plays
from sr_upscale.images.formats import Format
from sr_upscale.images.header_writer import png_info
from sr_upscale.images.picture import Metadata
from sr_upscale.interrupts import STOP


def write_whole(
    pixels_hwc: NDArray[np.uint8],
    path: Path,
    fmt: Format,
    *,
    delays_ms: Sequence[int],
    loop: int | None,
    metadata: Metadata,
    quality: int | None,
    compression: int | None,
) -> None:
    """Writes a picture or an animation.

    Args:
        pixels_hwc: (n * H, W, C), n frames one below the other. They may lie in a file (`numpy.memmap`).
        path: File to write.
        fmt: Its format.
        delays_ms: How long each of the n frames is shown, in milliseconds.
        loop: How often an animation plays, 0 for ever, None for once.
        metadata: What stands in the file besides pixels.
        quality: 1-100 for WebP and AVIF; 100 is lossless in WebP.
        compression: 0-9 for PNG; None takes Pillow's default.

    Raises:
        OSError: The file cannot be written.
    """
    plays = 1 if loop is None else loop
    if fmt.name == "gif":
        _write_gif(pixels_hwc, path, delays_ms, plays)
        return
    settings = _metadata_settings(metadata, fmt) | _format_settings(fmt, metadata, quality, compression)
    frames = _Frames(pixels_hwc, len(delays_ms), colour=fmt.color_only)
    if len(delays_ms) > 1:
        settings |= {"save_all": True, "duration": list(delays_ms), "loop": plays}
    with path.open("wb") as file:
        frames.save(_Plain(file), format=fmt.pillow, **settings)  # type: ignore[arg-type]
    if fmt.name == "avif":
        set_color(path, metadata.color)
        if len(delays_ms) > 1:
            set_plays(path, plays)


def _write_gif(pixels_hwc: NDArray[np.uint8], path: Path, delays_ms: Sequence[int], plays: int) -> None:
    from sr_upscale.images.libvips import pyvips

    height, width, bands = pixels_hwc.shape
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(pixels_hwc).data, width, height, bands, "uchar")
    image = image.copy(interpretation="b-w" if bands < 3 else "srgb")
    image.set_type(pyvips.GValue.gint_type, "page-height", height // len(delays_ms))
    image.set_type(pyvips.GValue.array_int_type, "delay", list(delays_ms))
    image.set_type(pyvips.GValue.gint_type, "loop", plays)
    try:
        with STOP.deferred():
            image.gifsave(str(path))
    except pyvips.Error as error:
        reason = str(error).strip().splitlines()[-1]
        number = errno.ENOSPC if os.strerror(errno.ENOSPC) in reason else errno.EIO
        raise OSError(number, reason) from error  # `replace_file` knows the final name and says what to do


class _Plain:
    """A file without its descriptor: to that Pillow writes by itself, and takes a short write for a whole one."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.write, self.seek, self.tell, self.flush = (
            file.read,
            file.write,
            file.seek,
            file.tell,
            file.flush,
        )


class _Frames(Image.Image):
    """Frames one below the other, as one of Pillow's images that has several. One at a time is copied for Pillow."""

    def __init__(self, pixels_hwc: NDArray[np.uint8], count: int, *, colour: bool) -> None:
        super().__init__()
        self._frames = pixels_hwc.reshape(count, -1, *pixels_hwc.shape[1:])
        self._colour = colour
        self._number = -1
        self.n_frames = count
        self.is_animated = count > 1
        self.seek(0)

    def seek(self, frame: int) -> None:
        if frame == self._number:
            return
        if not 0 <= frame < self.n_frames:
            raise EOFError(f"no frame {frame}")
        pixels = self._frames[frame]
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
        if self._colour and image.mode in ("L", "LA"):
            image = image.convert("RGBA" if image.mode == "LA" else "RGB")
        self.im, self._mode, self._size, self._number = image.im, image.mode, image.size, frame

    def tell(self) -> int:
        return self._number


def _metadata_settings(metadata: Metadata, fmt: Format) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if metadata.icc:
        settings["icc_profile"] = metadata.icc
    if metadata.exif:
        settings["exif"] = Image.Exif()
        settings["exif"].load(metadata.exif)
    if metadata.xmp and fmt.pillow_xmp:
        settings["xmp"] = metadata.xmp
    if fmt.text:
        settings["pnginfo"] = png_info(metadata)
    if metadata.dpi and fmt.pillow_dpi:
        settings["dpi"] = metadata.dpi
    return settings


def _format_settings(fmt: Format, metadata: Metadata, quality: int | None, compression: int | None) -> dict[str, Any]:
    if fmt.name == "webp":
        return {"lossless": True, "exact": True} if quality == 100 else {"quality": quality, "method": 4}
    if fmt.name == "avif":
        return {"quality": quality, "subsampling": "4:4:4"} | codec_settings(metadata.color)
    return {"compress_level": compression} if fmt.name == "png" and compression is not None else {}
