"""Frames of an animation, decoded one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import InputError
from sr_upscale.images.animation import Animation
from sr_upscale.images.apng import read_apng
from sr_upscale.images.gif import read_gif
from sr_upscale.images.header_reader import Header, open_unlimited
from sr_upscale.images.picture import Frame, FrameSource


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
    data: bytes, header: Header, numbers: Sequence[int], name: str, *, allow_truncated: bool, in_memory: int
) -> Sequence[Frame]:
    """Decodes frames of an animation, or the one of a still GIF.

    Args:
        data: The file.
        header: Of the file.
        numbers: Which frames, from 0: one, or all.
        name: Of the file, for errors.
        allow_truncated: Take the frames before a damage, if there are any.
        in_memory: Frames of more pixels than this, all together, are decoded again when they are wanted.

    Returns:
        The frames, all of one shape and type. All have then been decoded once, so that damage is found here.

    Raises:
        InputError: The file is damaged.
    """
    lazy = len(numbers) > 1 and header.width * header.height * len(numbers) > in_memory
    kept: list[NDArray[Any]] = []
    durations: list[int] = []
    opaque = True
    try:
        for number, (pixels, duration_ms) in enumerate(_shown(data, header, allow_truncated=allow_truncated)):
            if number in numbers:
                durations.append(duration_ms if len(numbers) > 1 else 0)
                opaque = opaque and _is_opaque(pixels)
                if not lazy:
                    kept.append(pixels)
            if len(durations) == len(numbers):
                break
    except MemoryError:
        raise
    except Exception as error:  # decoders fail in many ways on damaged files
        where = f" at frame {len(durations)} of {header.frames}" if header.frames > 1 else ""
        if not (allow_truncated and durations):
            raise InputError(
                f"{name}: truncated or damaged{where} ({error}); get the file again, "
                "or use --allow-truncated to take what is there"
            ) from error
    drop = header.animation is not None and not header.animation.has_alpha and opaque

    def decode() -> Iterator[NDArray[Any]]:
        shown = _shown(data, header, allow_truncated=allow_truncated)
        try:
            for pixels, _duration in itertools.islice(shown, len(durations)):
                yield pixels[:, :, :-1] if drop else pixels
        except MemoryError:
            raise
        except Exception as error:  # what could be decoded before cannot be any more
            raise InputError(f"{name}: cannot be decoded again ({error}); close other programs") from error

    if lazy:
        return FrameSource(decode, durations)
    kept = [pixels[:, :, :-1] if drop else pixels for pixels in kept]
    kept = kept if header.animated or header.icc else [_gray(pixels) for pixels in kept]
    return tuple(Frame(pixels_hwc=each, duration_ms=time) for each, time in zip(kept, durations, strict=True))


def _shown(data: bytes, header: Header, *, allow_truncated: bool) -> Iterator[tuple[NDArray[Any], int]]:
    """Yields what is shown with each frame, and for how many milliseconds."""
    if header.animation is not None:
        canvases = header.animation.canvases(allow_truncated=allow_truncated)
        yield from zip(canvases, (place.duration_ms for place in header.animation.places), strict=False)
        header.animation.check_end()
        return
    with open_unlimited(data, header.kind) as image:
        for number in range(header.frames):
            image.seek(number)
            image.load()
            pixels = np.asarray(image).reshape(image.height, image.width, -1)
            yield pixels, round(image.info.get("duration", 0))


def _is_opaque(pixels_hwc: NDArray[Any]) -> bool:
    return bool((pixels_hwc[:, :, -1] == np.iinfo(pixels_hwc.dtype).max).all())


def _gray(pixels_hwc: NDArray[Any]) -> NDArray[Any]:
    """Makes gray of RGB whose channels are all equal, with its alpha."""
    gray = (pixels_hwc[:, :, :3] == pixels_hwc[:, :, :1]).all()
    return np.delete(pixels_hwc, (1, 2), axis=2) if gray else pixels_hwc
