"""An animation as its file lays it out: a canvas, the places of its frames, and pixels for those who ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.images.compositor import Place, composed


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
