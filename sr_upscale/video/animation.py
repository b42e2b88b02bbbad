"""Animations as clips, and clips as animations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import InputError, UsageError
from sr_upscale.images.adapt import flatten, is_opaque
from sr_upscale.images.color_tags import ColorTags
from sr_upscale.images.picture import Frame, FrameSource, Metadata, Picture
from sr_upscale.video.frames import FrameStream, Look
from sr_upscale.video.source import Clip


class Moving(FrameStream):
    """An animated picture as frames with time stamps; the colours are taken for those of HD.

    Args:
        picture: As it was read.
        background: What stands behind transparent pixels; None keeps them.
        name: What messages call it.

    Raises:
        InputError: It does not move.
    """

    def __init__(self, picture: Picture, *, background: tuple[int, int, int] | None, name: str) -> None:
        self.name, self.warnings = name, picture.warnings
        if len(picture.frames) < 2:
            raise InputError(f"{name}: a picture that does not move; end the name of the output in .png")
        if picture.has_alpha and (background is not None or is_opaque(picture)):
            picture = picture.with_pixels(lambda pixels: flatten(pixels, background or (0, 0, 0)))
        self._picture = picture.with_pixels(_coloured)
        self._iterator: Iterator[tuple[int, NDArray[Any]]] = iter(())
        self._at = -1
        durations = [max(1, each) for each in picture.durations_ms]
        self.times = [0, *itertools.accumulate(durations)][:-1]
        self.last_duration = durations[-1]
        self.look = Look(
            width=picture.width,
            height=picture.height,
            bits=8 if picture.bits == 8 else 10,
            chroma="420",
            alpha=picture.has_alpha,
            primaries=1,
            transfer=1,
            rate=Fraction(1000 * len(durations), sum(durations)),
            time_base=Fraction(1, 1000),
        )

    def digest(self) -> str:
        """Returns the sha256 of the file."""
        return self._picture.sha256

    def read(self, first: int, last: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yields the time stamp and pixels of frames; see `FrameStream.read`."""
        if self._at != first:
            whole = zip(self.times, (np.asarray(each.pixels_hwc) for each in self._picture.frames), strict=True)
            self._iterator = itertools.islice(whole, first, None)
        self._at = last
        yield from itertools.islice(self._iterator, last - first)


def _coloured(pixels_hwc: NDArray[Any]) -> NDArray[Any]:
    channels = pixels_hwc.shape[2]
    gray = pixels_hwc[:, :, :1].repeat(3, axis=2)
    return {1: gray, 2: np.concatenate((gray, pixels_hwc[:, :, -1:]), axis=2)}.get(channels, pixels_hwc)


def picture_of_clip(clip: Clip, *, frame: int | None, max_pixels: int) -> Picture:
    """Makes a picture of a clip, upright: an animation, or one of its frames. Frames are decoded as they are asked for.

    Args:
        clip: The clip.
        frame: Number of the only frame that is wanted, from 0; None takes all.
        max_pixels: Refuse more pixels than this, all frames together.

    Raises:
        InputError: It has too many pixels.
        UsageError: There is no such frame.
    """
    look, count = clip.look, len(clip.times)
    if frame is not None and not 0 <= frame < count:
        raise UsageError(f"{clip.name}: no frame {frame}; expected 0 to {count - 1}")
    numbers = range(count) if frame is None else range(frame, frame + 1)
    pixels = look.width * look.height * len(numbers)
    if pixels > max_pixels:
        raise InputError(
            f"{clip.name}: {len(numbers)} frames of {look.width}x{look.height} are {pixels / 1e6:.0f} MP, more than "
            f"the {max_pixels / 1e6:.0f} MP of --max-pixels; take a part with --start and --duration"
        )
    quarters = 0 if look.turn is None else round(np.degrees(np.arctan2(look.turn[1], look.turn[0])) / 90)
    warnings = [*clip.warnings]
    if clip.has_more:
        warnings.append(f"{clip.name}: its sound, subtitles and chapters are left out, a picture holds none")

    def decode() -> Iterator[NDArray[Any]]:
        return (np.rot90(each, -quarters) for _pts, each in clip.read(numbers.start, numbers.stop))

    unit = look.time_base * 1000
    ends = [round((pts - clip.times[0]) * unit) for pts in (*clip.times, clip.times[-1] + clip.last_duration)]
    durations = [after - before for before, after in itertools.pairwise(ends)]
    source = FrameSource(decode, durations if frame is None else [0])
    sides = look.aspect if quarters % 2 == 0 else 1 / look.aspect
    return Picture(
        frames=(Frame(pixels_hwc=source[0].pixels_hwc),) if len(numbers) == 1 else source,
        metadata=Metadata(
            aspect=None if sides == 1 else (sides.numerator, sides.denominator),
            color=ColorTags(cicp=(look.primaries, look.transfer)) if look.is_hdr else None,
        ),
        loop=0 if len(numbers) > 1 else None,
        warnings=tuple(warnings),
        sha256=clip.digest(),
    )
