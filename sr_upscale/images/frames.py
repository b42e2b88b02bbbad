"""Frames of an animation, decoded one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import InputError
from sr_upscale.images.animation import Animation
from sr_upscale.images.apng import read_apng
from sr_upscale.images.gif import read_gif
from sr_upscale.images.header_reader import Header, opened
from sr_upscale.images.picture import Frame


def read_animation(data: bytes, kind: str, name: str) -> Animation | None:
    """Reads how a GIF or an animated PNG is laid out, before anything of it is decoded.

    Args:
        data: The file.
        kind: Key of `FORMATS`.
        name: Of the file, for errors.

    Returns:
        None for other files.

    Raises:
        InputError: The layout is damaged.
    """
    try:
        return read_gif(data) if kind == "gif" else read_apng(data) if kind == "png" else None
    except (EOFError, ValueError) as error:
        raise InputError(f"{name}: damaged {kind.upper()} ({error}); get the file again") from error


def decode_frames(
    data: bytes, header: Header, numbers: Iterable[int], name: str, *, allow_truncated: bool
) -> list[Frame]:
    """Decodes frames of an animation, or the one of a still GIF.

    Args:
        data: The file.
        header: Of the file.
        numbers: Which frames, from 0, rising.
        name: Of the file, for errors.
        allow_truncated: Take the frames before a damage, if there are any.

    Returns:
        The frames, all of one shape and type.

    Raises:
        InputError: The file is damaged.
    """
    wanted = frozenset(numbers)
    frames: list[Frame] = []
    number = 0
    try:
        for pixels, duration_ms in _shown(data, header, allow_truncated=allow_truncated):
            if number in wanted:
                frames.append(Frame(pixels_hwc=pixels, duration_ms=duration_ms if len(wanted) > 1 else 0))
            number += 1
            if len(frames) == len(wanted):
                break
    except MemoryError:
        raise
    except Exception as error:  # decoders fail in many ways on damaged files
        where = f" at frame {number} of {header.frames}" if header.frames > 1 else ""
        if not (allow_truncated and frames):
            raise InputError(
                f"{name}: truncated or damaged{where} ({error}); get the file again, "
                "or use --allow-truncated to take what is there"
            ) from error
    if header.animation is not None and not header.animation.has_alpha and all(map(_is_opaque, frames)):
        frames = [dataclasses.replace(each, pixels_hwc=np.asarray(each.pixels_hwc)[:, :, :-1]) for each in frames]
    return [_gray(frame) for frame in frames] if not header.animated else frames


def _shown(data: bytes, header: Header, *, allow_truncated: bool) -> Iterator[tuple[NDArray[Any], int]]:
    """Yields what is shown with each frame, and for how many milliseconds."""
    if header.animation is not None:
        canvases = header.animation.canvases(allow_truncated=allow_truncated)
        yield from zip(canvases, (place.duration_ms for place in header.animation.places), strict=False)
        return
    with opened(data, header.kind, allow_truncated=allow_truncated) as image:
        for number in range(header.frames):
            image.seek(number)
            image.load()
            pixels = np.asarray(image).reshape(image.height, image.width, -1)
            yield pixels, round(image.info.get("duration", 0))


def _is_opaque(frame: Frame) -> bool:
    pixels = np.asarray(frame.pixels_hwc)
    return bool((pixels[:, :, -1] == np.iinfo(pixels.dtype).max).all())


def _gray(frame: Frame) -> Frame:
    """Makes gray of RGB whose channels are all equal, with its alpha."""
    pixels = np.asarray(frame.pixels_hwc)
    if (pixels[:, :, :3] == pixels[:, :, :1]).all():
        pixels = np.delete(pixels, (1, 2), axis=2)
    return dataclasses.replace(frame, pixels_hwc=pixels)
