"""An animation as its file lays it out, and its frames drawn on their canvas one after the other (GIF89a, APNG)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Blend(Enum):
    """How a frame meets what stands on the canvas."""

    SOURCE = 0
    """Replaces it, alpha included."""
    OVER = 1
    """Is laid over it."""


class Disposal(Enum):
    """What becomes of a frame's place before the next frame is drawn."""

    KEEP = 0
    """The frame stays."""
    CLEAR = 1
    """The place becomes transparent."""
    RESTORE = 2
    """What stood there before the frame comes back."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how a frame is drawn.

    Attributes:
        left, top: Of the frame on the canvas, in pixels. What reaches beyond the canvas is not drawn.
        width, height: Of the frame, in pixels; 0 draws nothing.
        blend, disposal: See there.
        duration_ms: How long the canvas is then shown.
    """

    left: int
    top: int
    width: int
    height: int
    blend: Blend
    disposal: Disposal
    duration_ms: int


def composed(frames: Iterable[tuple[NDArray[Any], Place]], canvas_hwc: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yields the canvas as it is shown with each frame.

    Args:
        frames: Pixels (h, w, C) and their place.
        canvas_hwc: (H, W, C) before the first frame, uint8 or uint16, the last channel straight alpha.

    Yields:
        (H, W, C), a new array each time.
    """
    for pixels_hwc, place in frames:
        shown = drawn(canvas_hwc, pixels_hwc, place)
        yield shown
        canvas_hwc = left_behind(canvas_hwc, shown, place)


def drawn(canvas_hwc: NDArray[Any], pixels_hwc: NDArray[Any], place: Place) -> NDArray[Any]:
    """Returns a copy of the canvas with a frame drawn on it.

    Args:
        canvas_hwc: (H, W, C) uint8 or uint16, the last channel straight alpha.
        pixels_hwc: (h, w, C) of the same type.
        place: Its `disposal` does not count.

    Source: PNG, third edition, sections 11.3.5.3 (`fcTL`) and 13.16 (alpha channel processing). GIF89a, section 23.
    """
    canvas_hwc = canvas_hwc.copy()
    region = _region(canvas_hwc, place)
    pixels_hwc = pixels_hwc[: region.shape[0], : region.shape[1]]
    region[...] = pixels_hwc if place.blend is Blend.SOURCE else _over(pixels_hwc, region)
    return canvas_hwc


def left_behind(before_hwc: NDArray[Any], shown_hwc: NDArray[Any], place: Place) -> NDArray[Any]:
    """Returns the canvas on which the next frame is drawn.

    Args:
        before_hwc: The canvas before the frame was drawn.
        shown_hwc: The canvas with the frame.
        place: Of the frame.
    """
    if place.disposal is Disposal.RESTORE:
        return before_hwc
    if place.disposal is Disposal.CLEAR:
        shown_hwc = shown_hwc.copy()
        _region(shown_hwc, place)[...] = 0
    return shown_hwc


def _region(canvas_hwc: NDArray[Any], place: Place) -> NDArray[Any]:
    return canvas_hwc[place.top : place.top + place.height, place.left : place.left + place.width]


def _over(front: NDArray[Any], back: NDArray[Any]) -> NDArray[Any]:
    """Lays straight pixels over others, rounded to the nearest. Where nothing is in front, the back stays as it is."""
    top = np.iinfo(front.dtype).max
    alpha = front[:, :, -1:]
    out = np.where(alpha == top, front, back)
    rows, columns = ((alpha[:, :, 0] > 0) & (alpha[:, :, 0] < top)).nonzero()
    over, under = front[rows, columns].astype(np.int64), back[rows, columns].astype(np.int64)
    seen_over = over[:, -1:] * top
    seen = seen_over + under[:, -1:] * (top - over[:, -1:])
    colour = over[:, :-1] * seen_over + under[:, :-1] * (seen - seen_over)
    out[rows, columns, :-1] = (2 * colour + seen) // (2 * seen)
    out[rows, columns, -1:] = (2 * seen + top) // (2 * top)
    return out


@dataclass(frozen=True, kw_only=True)
class Animation(ABC):
    """What stands in a file before any pixel is decoded.

    Attributes:
        width, height: Of the canvas, in pixels.
        places: Of the frames that are there.
        frames: Number of frames that the file promises. More than `places` where it ends early.
        loop: How often it plays, 0 for ever, None for once.
        channels: Of the decoded frames: 2 gray + alpha, 4 RGB + alpha.
        dtype: uint8 or uint16.
        has_alpha: Whether the file states alpha, so that it is kept even where everything is opaque.
    """

    width: int
    height: int
    places: tuple[Place, ...]
    frames: int
    loop: int | None
    channels: int
    dtype: np.dtype[Any]
    has_alpha: bool
    icc: bytes | None = None
    aspect: tuple[int, int] | None = None

    @property
    def pixels(self) -> int:
        """Counts the pixels that decoding makes: of each frame, or of the canvas where that is larger."""
        canvas = self.width * self.height
        return sum(max(place.width * place.height, canvas) for place in self.places)

    @abstractmethod
    def decoded(self, number: int, *, allow_truncated: bool) -> NDArray[Any]:
        """Decodes one frame by itself: (h, w, `channels`) of `dtype`, straight alpha.

        Raises:
            Exception: The frame is damaged; decoders raise many kinds.
        """

    def canvases(self, *, allow_truncated: bool) -> Iterator[NDArray[Any]]:
        """Yields the canvas as it is shown with each frame, from the first.

        Yields:
            (H, W, `channels`) of `dtype`, straight alpha.

        Raises:
            Exception: A frame is damaged.
        """
        patches = (
            (self.decoded(number, allow_truncated=allow_truncated), place) for number, place in enumerate(self.places)
        )
        yield from composed(patches, np.zeros((self.height, self.width, self.channels), dtype=self.dtype))

    def check_end(self) -> None:
        """Refuses a file without all the frames that it promises.

        Raises:
            EOFError: It ends early.
        """
        if len(self.places) < self.frames:
            raise EOFError("the file ends there")
