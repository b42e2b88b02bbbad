"""What a picture is between decoding and encoding."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from sr_upscale.functional.pil_arrays import to_8_bits
from sr_upscale.images.color_tags import ColorTags, chunks_of
from sr_upscale.images.xmp import Change
from sr_upscale.storage.atomic import refuse_existing

if TYPE_CHECKING:
    from PIL.Image import Image


class RowSource(ABC):
    """Pixels that come in strips, from the top, as often as they are wanted.

    `numpy.asarray` makes a whole array of them, for those who ask.

    Attributes:
        shape: (H, W, C).
        dtype: uint8 or uint16.
        gray: Whether all channels are equal, at every pixel.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    gray: bool

    @abstractmethod
    def strips(self, rows: int) -> Iterator[NDArray[Any]]:
        """Yields consecutive strips from the top. Every call begins anew.

        Args:
            rows: Of a strip, at least 1.

        Yields:
            (n, W, C) of `dtype`, C-contiguous. n is `rows`, at the end at most that.
        """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("rows of a file cannot become an array without a copy")
        whole = np.empty(self.shape, dtype=self.dtype if dtype is None else dtype)
        done = 0
        for strip in self.strips(64):
            whole[done : done + len(strip)] = strip
            done += len(strip)
        return whole


AnyPixels = NDArray[Any] | RowSource
"""(H, W, C) uint8 or uint16, in memory or to be read by rows."""


def strips_of(pixels_hwc: AnyPixels, rows: int) -> Iterator[NDArray[Any]]:
    """Yields strips, like `RowSource.strips`, of either kind of pixels.

    Args:
        pixels_hwc: (H, W, C) uint8 or uint16.
        rows: Of a strip, at least 1.

    Yields:
        (n, W, C) of the same type, C-contiguous. n is `rows`, at the end at most that. Strips of a C-contiguous array
        are views.
    """
    if isinstance(pixels_hwc, RowSource):
        yield from pixels_hwc.strips(rows)
        return
    for top in range(0, pixels_hwc.shape[0], rows):
        yield np.ascontiguousarray(pixels_hwc[top : top + rows])


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What travels with the pixels.

    Attributes:
        icc: ICC profile, passed on byte for byte.
        color: Colours as they are tagged without a profile. Beside one it counts first, where a format can say it.
        exif: EXIF block (TIFF structure without the ``Exif\\0\\0`` prefix), orientation already reset.
        dpi: Horizontal and vertical resolution in pixels per inch.
        aspect: Pixels across and down that are equally long, where they are not square and there is no `dpi`.
        xmp: XMP packet of the upright picture.
        iptc: IPTC-IIM records, passed on byte for byte.
        text: Keywords and texts of a PNG.
        change: What was done to the pixels. It becomes a line of the history in XMP.
    """

    icc: bytes | None = None
    color: ColorTags | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    aspect: tuple[int, int] | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    change: Change | None = None


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame of a picture.

    Attributes:
        pixels_hwc: (H, W, C) uint8 or uint16. C is 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha. Alpha is straight (not
            premultiplied). Large still pictures may be a `RowSource`; `numpy.asarray` makes an array of either.
        duration_ms: How long it is shown, in milliseconds; 0 for a still picture.
    """

    pixels_hwc: AnyPixels
    duration_ms: int = 0


class FrameSource(Sequence[Frame]):
    """Frames that are decoded one after the other, as often as they are wanted. One at a time stands in memory.

    The first one is kept.

    Attributes:
        durations_ms: How long each frame is shown, in milliseconds.
    """

    def __init__(self, decode: Callable[[], Iterator[NDArray[Any]]], durations_ms: Sequence[int]) -> None:
        """Decodes the first frame.

        Args:
            decode: Yields the pixels (H, W, C) of all frames, anew with every call.
            durations_ms: Of all frames, in milliseconds.
        """
        self._decode = decode
        self._first = next(decode())
        self.durations_ms = tuple(durations_ms)

    def __len__(self) -> int:
        return len(self.durations_ms)

    def __iter__(self) -> Iterator[Frame]:
        for pixels, duration_ms in zip(self._decode(), self.durations_ms, strict=True):
            yield Frame(pixels_hwc=pixels, duration_ms=duration_ms)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Frame, ...]: ...
    def __getitem__(self, index: int | slice) -> Frame | tuple[Frame, ...]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return tuple(self[number] for number in numbers)
        if numbers == 0:
            return Frame(pixels_hwc=self._first, duration_ms=self.durations_ms[0])
        return next(islice(self, numbers, None))

    def changed(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> FrameSource:
        """Returns these frames with their pixels changed, each when it is decoded."""
        return FrameSource(lambda: map(change, self._decode()), self.durations_ms)

    def timed(self, durations_ms: Sequence[int]) -> FrameSource:
        """Returns these frames, shown for so long."""
        return FrameSource(self._decode, durations_ms)


@dataclass(frozen=True, kw_only=True, repr=False)
class Picture:
    """A decoded picture, upright. All frames have one shape and type.

    >>> picture = load_image("photo.jpg")  # doctest: +SKIP
    >>> picture.size, np.asarray(picture).shape  # doctest: +SKIP
    ((640, 480), (480, 640, 3))
    >>> picture.save("copy.webp", quality=90)  # doctest: +SKIP

    Attributes:
        frames: One, or several for an animation. Those of a large animation are a `FrameSource`.
        format: Name of the format it came from, a key of `FORMATS`.
        metadata: What travels with the pixels.
        loop: How often an animation plays, 0 for ever, None for once.
        warnings: What had to be given up or guessed, for the user.
        sha256: Hash of the file it came from, hexadecimal; empty for pictures from memory.
    """

    frames: Sequence[Frame]
    format: str = "png"
    metadata: Metadata = field(default_factory=Metadata)
    loop: int | None = None
    warnings: tuple[str, ...] = ()
    sha256: str = ""

    def __repr__(self) -> str:
        frames = f", {len(self.frames)} frames" if len(self.frames) > 1 else ""
        return f"<Picture {self.width}x{self.height}, {self.channels} channels of {self.bits} bits{frames}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Returns the pixels for `numpy.asarray`: (H, W, C) uint8 or uint16, of an animation (frames, H, W, C)."""
        frames = [np.asarray(frame.pixels_hwc) for frame in self.frames]
        pixels = frames[0] if len(frames) == 1 else np.stack(frames)
        return pixels.astype(dtype or pixels.dtype, copy=bool(copy))

    def to_pil(self) -> Image:
        """Returns the first frame as a PIL image: L, LA, RGB or RGBA of 8 bits, for Pillow has no colour of 16.

        Colour profile, resolution and EXIF are in its ``info``.
        """
        from PIL import Image

        pixels = to_8_bits(np.asarray(self.frames[0].pixels_hwc))
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        found = {"icc_profile": self.metadata.icc, "dpi": self.metadata.dpi, "exif": self.metadata.exif}
        image.info |= {key: value for key, value in found.items() if value is not None}
        return image

    def _repr_png_(self) -> bytes:
        """Shows the first frame in a notebook: 8 bits, at most 1024 pixels a side, in the picture's own colours."""
        from PIL import PngImagePlugin

        image = self.to_pil()
        image.thumbnail((1024, 1024))
        file, info = io.BytesIO(), PngImagePlugin.PngInfo()
        for kind, content in chunks_of(self.metadata.color):
            info.add(kind, content)
        image.save(file, "PNG", icc_profile=self.metadata.icc, pnginfo=info)
        return file.getvalue()

    def save(
        self,
        target: str | Path | BinaryIO,
        *,
        format: str | None = None,
        quality: int | None = None,
        compression: int | None = None,
        background: tuple[int, int, int] | None = None,
        strip_metadata: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Writes the picture, with all that belongs to it. A path gets the whole file, or stays what it was.

        Args:
            target: A path, or a file that is open for writing bytes.
            format: A name such as ``png`` or ``jxl``; None goes by the path's ending.
            quality: 1-100 for JPEG, WebP and AVIF; WebP is lossless at 100.
            compression: 0-9 for PNG and TIFF, from large and quick to small and slow.
            background: RGB colour (0-255) behind transparent pixels where the format has no alpha.
            strip_metadata: Leave out EXIF, XMP, IPTC and texts.
            overwrite: Whether a file that stands there may be replaced.

        Raises:
            OutputError: The file exists or cannot be written, or a side is longer than the format allows.
            UsageError: No such format, it needs a background, or a number is outside its range.
        """
        # by the package: modules of their own would import each other
        from sr_upscale.images import SaveOptions, save_image

        options = SaveOptions(
            quality=quality, background=background, compression=compression, strip_metadata=strip_metadata
        )
        if isinstance(target, str | Path):
            refuse_existing(Path(target), force=overwrite, how="give overwrite=True, or another path")
        save_image(self, target, format, options, overwrite=overwrite)

    @property
    def durations_ms(self) -> tuple[int, ...]:
        """Returns how long each frame is shown, in milliseconds."""
        if isinstance(self.frames, FrameSource):
            return self.frames.durations_ms
        return tuple(frame.duration_ms for frame in self.frames)

    def with_pixels(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Picture:
        """Returns the picture with the pixels (H, W, C) of each frame changed, those of a `RowSource` read whole."""
        if isinstance(self.frames, FrameSource):
            return replace(self, frames=self.frames.changed(change))
        frames = (replace(frame, pixels_hwc=change(np.asarray(frame.pixels_hwc))) for frame in self.frames)
        return replace(self, frames=tuple(frames))

    def with_durations(self, durations_ms: Sequence[int]) -> Picture:
        """Returns the picture with its frames shown for so long, in milliseconds."""
        if isinstance(self.frames, FrameSource):
            return replace(self, frames=self.frames.timed(durations_ms))
        pairs = zip(self.frames, durations_ms, strict=True)
        return replace(self, frames=tuple(replace(frame, duration_ms=each) for frame, each in pairs))

    @property
    def size(self) -> tuple[int, int]:
        """Returns (width, height) in pixels."""
        return self.width, self.height

    @property
    def width(self) -> int:
        """Returns the width in pixels."""
        return int(self.frames[0].pixels_hwc.shape[1])

    @property
    def height(self) -> int:
        """Returns the height in pixels."""
        return int(self.frames[0].pixels_hwc.shape[0])

    @property
    def channels(self) -> int:
        """Returns the number of channels: 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha."""
        return int(self.frames[0].pixels_hwc.shape[2])

    @property
    def has_alpha(self) -> bool:
        """Says whether there is an alpha channel."""
        return self.channels in (2, 4)

    @property
    def bits(self) -> int:
        """Returns the bits per channel: 8 or 16."""
        return 16 if self.frames[0].pixels_hwc.dtype == np.uint16 else 8
