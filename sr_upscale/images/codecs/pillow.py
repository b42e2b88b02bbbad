"""What codecs share of Pillow: opening without its global limits, pixels of a still, and saving frames that come."""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

_PILLOW_LOCK = threading.Lock()


@contextlib.contextmanager
def opened(data: bytes, kind: str, *, allow_truncated: bool = False) -> Iterator[Image.Image]:
    """Opens an image with Pillow, without Pillow's global pixel limit: ours is checked instead.

    The limit is a global of Pillow, so only one thread at a time gets through.

    Args:
        data: The file.
        kind: Pillow's name of its format; no other is tried.
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
    return Image.open(io.BytesIO(data), formats=[kind])


@contextlib.contextmanager
def _own_limits(*, allow_truncated: bool) -> Iterator[None]:
    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities that are no reason to refuse
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, allow_truncated
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def still_pixels(image: Image.Image, *, rgb: bool) -> NDArray[Any]:
    """Decodes a still picture: (H, W, C) uint8, C as in `picture.Frame`.

    Args:
        image: Opened, not yet loaded.
        rgb: Whether gray pixels become RGB, for a profile that is for RGB.
    """
    image.load()
    mode = _plain_mode(image)
    mode = {"L": "RGB", "LA": "RGBA"}.get(mode, mode) if rgb else mode
    return np.asarray(image.convert(mode)).reshape(image.height, image.width, -1)


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


def image_of(pixels_hwc: NDArray[np.uint8]) -> Image.Image:
    """Makes an image of mode L, LA, RGB or RGBA of (H, W, 1 to 4)."""
    return Image.fromarray(pixels_hwc[:, :, 0] if pixels_hwc.shape[2] == 1 else np.ascontiguousarray(pixels_hwc))


def save_frames(
    frames: Iterator[NDArray[np.uint8]], count: int, path: Path, kind: str, *, colour: bool, **settings: Any
) -> None:
    """Encodes frames as they come. One at a time stands in memory, and what Pillow's encoder keeps of them.

    Args:
        frames: (H, W, C) uint8.
        count: How many there are.
        path: File to write.
        kind: Pillow's name of the format.
        colour: Whether gray frames are written as RGB.
        settings: Of Pillow's encoder.

    Raises:
        OSError: The file cannot be written.
        Exception: Whatever `frames` raises.
    """
    images = _Frames(frames, count, colour=colour)
    with path.open("wb") as file:
        images.save(_Plain(file), format=kind, **settings)  # type: ignore[arg-type]


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
    """Frames that come one after the other, as one of Pillow's images that has several."""

    def __init__(self, frames: Iterator[NDArray[np.uint8]], count: int, *, colour: bool) -> None:
        super().__init__()
        self._frames = frames
        self._colour = colour
        self._number = -1
        self.n_frames = count
        self.is_animated = count > 1
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Goes on to the next frame. A way back changes nothing: encoders go back when they have all frames."""
        if frame <= self._number:
            return
        if frame >= self.n_frames:
            raise EOFError(f"no frame {frame}")
        image = image_of(next(self._frames))
        if self._colour and image.mode in ("L", "LA"):
            image = image.convert("RGBA" if image.mode == "LA" else "RGB")
        self.im, self._mode, self._size, self._number = image.im, image.mode, image.size, frame

    def tell(self) -> int:
        return self._number
