"""What a codec is: it reads the header of a file, decodes its frames, and writes them.

A format does by Pillow what its own file in this folder does not do otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sr_upscale.errors import InputError
from sr_upscale.images.codecs.animation import Animation
from sr_upscale.images.codecs.pillow import open_unlimited, opened, save_frames, still_pixels
from sr_upscale.images.color_tags import ColorTags
from sr_upscale.images.formats import FORMATS, Format
from sr_upscale.images.metadata import info_of, read_exif, read_iptc
from sr_upscale.images.picture import Frame, FrameSource, Metadata

MOST_DPI = 1_000_000
"""Pixels per inch that are believed. TIFF can state infinity; BMP and libvips end at some ten millions."""


@dataclass(kw_only=True)
class InputFile:
    """A file that is read, and what is wanted of it.

    Attributes:
        data: Its bytes; of a TIFF those of the wanted page.
        name: What messages call it.
        fmt: Its format.
        frame: Number of the wanted frame, page or picture, from 0. None takes all frames, or the main picture.
        max_pixels: Refuse more pixels than this, all frames of an animation together.
        allow_truncated: Accept a damaged file.
        in_memory: Pictures of more pixels than this, all frames together, are decoded again when they are wanted.
        notes: Gets sentences for the user about what was given up or guessed.
        intact: The bytes up to the first known damage; all where none is known.
    """

    data: bytes
    name: str
    fmt: Format
    frame: int | None
    max_pixels: int
    allow_truncated: bool
    in_memory: int
    notes: list[str] = field(default_factory=list)
    intact: bytes = b""

    def __post_init__(self) -> None:
        self.intact = self.data

    @property
    def kind(self) -> str:
        """Returns the name of the format, for messages."""
        return self.fmt.name.upper()

    def note(self, sentence: str) -> None:
        """Adds a sentence for the user, after the name of the file."""
        self.notes.append(f"{self.name}: {sentence}")

    def check_pixels(self, pixels: int) -> None:
        """Refuses a picture of too many pixels, or of none.

        Raises:
            InputError: It has.
        """
        if pixels < 1:
            raise InputError(
                f"{self.name}: its header says that it is no pixel wide or high; it is damaged, get it again"
            )
        if pixels > self.max_pixels:
            raise InputError(
                f"{self.name}: {_megapixels(pixels)} MP exceeds {_megapixels(self.max_pixels)} MP; "
                "use --max-pixels to allow it if you trust the file"
            )


@dataclass(kw_only=True)
class Header:
    """What a file states before its pixels.

    Attributes:
        width, height: Pixels as stored, before any turn.
        frames: Number of frames of an animation, or of pages.
        animated: Whether the frames are timed.
        exif, icc, color, xmp, iptc, text: Metadata as the file holds them.
        dpi: Pixels per inch, across and down as stored.
        aspect: Pixels across and down that are equally long, as stored, where they are not square.
        loop: How often an animation plays, 0 for ever, None for once.
        animation: Layout of a GIF or of an animated PNG, else None.
    """

    width: int
    height: int
    frames: int = 1
    animated: bool = False
    exif: Image.Exif | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    loop: int | None = None
    animation: Animation | None = None
    color: ColorTags | None = None
    aspect: tuple[int, int] | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()

    @property
    def pixels(self) -> int:
        """Counts the pixels that decoding makes, all frames of an animation together."""
        canvas = self.width * self.height
        return self.animation.pixels if self.animation and canvas else canvas * (self.frames if self.animated else 1)


@dataclass(frozen=True, kw_only=True)
class Output:
    """A picture or an animation to be written.

    Attributes:
        bands: (n, W, C) of `dtype` from the top, H rows of each frame. They come once, in the calling thread.
        size: Width and height of a frame, in pixels.
        channels: C, as in `picture.Frame`.
        dtype: uint8, or uint16 where the format streams.
        delays_ms: How long each frame is shown, in milliseconds.
        loop: How often an animation plays, 0 for ever, None for once.
        metadata: What stands in the file besides pixels. EXIF states the sizes of this picture already.
        quality: 1-100 for JPEG, WebP and AVIF; 100 is lossless in WebP.
        compression: 0-9 for PNG and TIFF; None takes the default.
    """

    bands: Iterable[NDArray[Any]]
    size: tuple[int, int]
    channels: int
    dtype: np.dtype[Any]
    delays_ms: Sequence[int]
    loop: int | None
    metadata: Metadata
    quality: int | None
    compression: int | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns (H, W, C) of a frame."""
        return self.size[1], self.size[0], self.channels

    @property
    def animated(self) -> bool:
        """Says whether there are several frames."""
        return len(self.delays_ms) > 1

    @property
    def plays(self) -> int:
        """Returns how often an animation plays, 0 for ever."""
        return 1 if self.loop is None else self.loop

    def frames(self) -> Iterator[NDArray[Any]]:
        """Yields (H, W, C) of `dtype`, one frame after the other. Each is a new array."""
        frame, done = np.empty(self.shape, dtype=self.dtype), 0
        for band in self.bands:
            while len(band):
                part, band = band[: len(frame) - done], band[len(frame) - done :]  # noqa: PLW2901
                frame[done : done + len(part)] = part
                done += len(part)
                if done == len(frame):
                    yield frame
                    frame, done = np.empty(self.shape, dtype=self.dtype), 0


class Codec:
    """Reads and writes a format.

    Attributes:
        fmt: What the format can hold.
        main_picture: Which of several pages is taken where none is asked for.
        counts_frames: Whether Pillow is asked how many frames or pages there are.
        colour_only: Whether the format has no gray of its own.
        holds_xmp: Whether Pillow writes XMP into it.
    """

    main_picture = "first"
    counts_frames = True
    colour_only = False
    holds_xmp = False

    def __init__(self, name: str) -> None:
        self.fmt = FORMATS[name]

    def check_available(self, name: str) -> None:
        """Refuses a file for which a library is missing. `name` is what the message calls it.

        Raises:
            InputError: An extra is not installed.
        """

    def read_header(self, file: InputFile) -> Header:
        """Reads the header of a file. It decodes nothing.

        Raises:
            InputError: The header is damaged, or the file is of a kind that is not read.
        """
        try:
            with opened(file.data, self.fmt.pillow) as image:
                return self.header_of(file, image)
        except UnidentifiedImageError as error:
            raise InputError(f"{file.name}: damaged {file.kind} header; get the file again") from error
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise InputError(f"{file.name}: refused {file.kind} header: {error}; get the file again") from error

    def header_of(self, file: InputFile, image: Image.Image) -> Header:
        """Makes the header of what Pillow opened."""
        frames = int(getattr(image, "n_frames", 1)) if self.counts_frames else 1
        try:
            exif = self.read_exif(file, image)
        except Exception:  # a damaged block fails in many ways and is no reason to refuse the pixels
            exif = None
            file.note("damaged EXIF is left out")
        return Header(
            width=image.width,
            height=image.height,
            frames=frames,
            animated=frames > 1 and self.fmt.animation,
            exif=exif,
            icc=info_of(image, "icc_profile", bytes) or None,
            dpi=_resolution(info_of(image, "dpi", tuple), file),
            loop=info_of(image, "loop", int),
            xmp=info_of(image, "xmp", bytes),
            iptc=read_iptc(image),
        )

    def read_exif(self, _file: InputFile, image: Image.Image) -> Image.Exif | None:
        """Reads the EXIF of what Pillow opened. It may raise anything where that is damaged."""
        return read_exif(image)

    def decode(self, file: InputFile, header: Header, numbers: Sequence[int]) -> Sequence[Frame]:
        """Decodes pictures, as stored, not yet upright.

        Args:
            file: The file.
            header: Of the file. What no longer counts for the decoded pixels is taken out of it.
            numbers: Which frames of an animation, from 0: one, or all.

        Returns:
            The frames, all of one shape and type. All have been decoded once, so that damage is found here.

        Raises:
            InputError: The file is damaged.
            Exception: It is damaged; decoders raise many kinds.
        """
        if header.animated:
            return self.decode_frames(file, header, numbers)
        try:
            with opened(file.data, self.fmt.pillow, allow_truncated=file.allow_truncated) as image:
                return (Frame(pixels_hwc=still_pixels(image, rgb=header.icc is not None)),)
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise InputError(
                f"{file.name}: truncated or damaged ({error}); get the file again, "
                "or use --allow-truncated to take what is there"
            ) from error

    def decode_frames(self, file: InputFile, header: Header, numbers: Sequence[int]) -> Sequence[Frame]:
        """Decodes frames of an animation, or the one of a still GIF, one after the other. See `decode`.

        Of a damaged file those before the damage are taken, where that is allowed and there are any.
        """
        lazy = len(numbers) > 1 and header.width * header.height * len(numbers) > file.in_memory
        kept, durations, opaque = self._decoded_once(file, header, numbers, keep=not lazy)
        drop = header.animation is not None and not header.animation.has_alpha and opaque

        def decode() -> Iterator[NDArray[Any]]:
            try:
                for pixels, _duration in itertools.islice(self.shown(file, header), len(durations)):
                    yield pixels[:, :, :-1] if drop else pixels
            except MemoryError:
                raise
            except Exception as error:  # what could be decoded before cannot be any more
                raise InputError(f"{file.name}: cannot be decoded again ({error}); close other programs") from error

        if lazy:
            return FrameSource(decode, durations)
        kept = [pixels[:, :, :-1] if drop else pixels for pixels in kept]
        return tuple(Frame(pixels_hwc=each, duration_ms=time) for each, time in zip(kept, durations, strict=True))

    def _decoded_once(
        self, file: InputFile, header: Header, numbers: Sequence[int], *, keep: bool
    ) -> tuple[list[NDArray[Any]], list[int], bool]:
        """Decodes wanted frames up to the last, or to damage: pixels if they are kept, times, and if all is opaque."""
        kept: list[NDArray[Any]] = []
        durations: list[int] = []
        opaque = True
        try:
            for number, (pixels, duration_ms) in enumerate(self.shown(file, header)):
                if number in numbers:
                    durations.append(duration_ms if len(numbers) > 1 else 0)
                    opaque = opaque and bool((pixels[:, :, -1] == np.iinfo(pixels.dtype).max).all())
                    kept += [pixels] if keep else []
                if len(durations) == len(numbers):
                    break
        except MemoryError:
            raise
        except Exception as error:  # decoders fail in many ways on damaged files
            where = f" at frame {len(durations)} of {header.frames}" if header.frames > 1 else ""
            if not (file.allow_truncated and durations):
                raise InputError(
                    f"{file.name}: truncated or damaged{where} ({error}); get the file again, "
                    "or use --allow-truncated to take what is there"
                ) from error
        return kept, durations, opaque

    def shown(self, file: InputFile, header: Header) -> Iterator[tuple[NDArray[Any], int]]:
        """Yields what is shown with each frame, (H, W, C), and for how many milliseconds."""
        if header.animation is not None:
            canvases = header.animation.canvases(allow_truncated=file.allow_truncated)
            yield from zip(canvases, (place.duration_ms for place in header.animation.places), strict=False)
            header.animation.check_end()
            return
        with open_unlimited(file.data, self.fmt.pillow) as image:
            for number in range(header.frames):
                image.seek(number)
                image.load()
                pixels = np.asarray(image).reshape(image.height, image.width, -1)
                yield pixels, round(image.info.get("duration", 0))

    def write(self, output: Output, path: Path) -> None:
        """Writes a file.

        Raises:
            OSError: It cannot be written.
            Exception: Whatever `output.bands` raises.
        """
        metadata = output.metadata
        settings = self.settings(output)
        if metadata.icc:
            settings["icc_profile"] = metadata.icc
        if metadata.exif:
            settings["exif"] = Image.Exif()
            settings["exif"].load(metadata.exif)
        if metadata.xmp and self.holds_xmp:
            settings["xmp"] = metadata.xmp
        if output.animated:
            settings |= {"save_all": True, "duration": list(output.delays_ms), "loop": output.plays}
        count = len(output.delays_ms)
        save_frames(output.frames(), count, path, self.fmt.pillow, colour=self.colour_only, **settings)

    def settings(self, _output: Output) -> dict[str, Any]:
        """Returns settings of Pillow's encoder."""
        return {}


def codec_of(fmt: Format) -> Codec:
    """Imports the codec of a format."""
    codec: Codec = import_module(f"sr_upscale.images.codecs.{fmt.codec}").CODEC
    return codec


def aspect_of(across: Any, down: Any) -> tuple[int, int] | None:
    """Returns pixels across and down that are equally long; None where they are square, or that cannot be."""
    try:
        ratio = (Fraction(across) / Fraction(down)).limit_denominator(1000)
    except (ZeroDivisionError, ValueError, TypeError, OverflowError):
        return None
    return None if ratio == 1 or not Fraction(1, 100) <= ratio <= 100 else (ratio.numerator, ratio.denominator)


def _resolution(dpi: tuple[Any, ...] | None, file: InputFile) -> tuple[float, float] | None:
    """Returns a resolution that every format can state, else None."""
    if dpi is None:
        return None
    try:
        across, down = (float(value) for value in dpi)
    except ZeroDivisionError:  # 0/0, of some releases of Pillow
        return None
    if min(across, down) > 0 and max(across, down) <= MOST_DPI:
        return across, down
    if max(across, down) > 0:  # 0 stands for none
        file.note(f"a resolution of {across:g} x {down:g} pixels per inch is left out")
    return None


def _megapixels(pixels: int) -> str:
    return str(pixels // 10**6) if pixels >= 10**7 else f"{pixels / 1e6:g}"
