"""GIF: where its frames lie, read from its descriptors. Pillow decodes the pixels of one frame, libvips writes.

Source: Graphics Interchange Format, version 89a. Where files and the specification disagree, this reads as browsers do:
what is not drawn is transparent and not of the background colour.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import InputError
from sr_upscale.images.codecs.animation import Animation, Blend, Disposal, Place
from sr_upscale.images.codecs.codec import Codec, Header, InputFile, Output
from sr_upscale.images.codecs.pillow import opened
from sr_upscale.images.picture import Frame

_BLOCK = re.compile(rb"[!,;]")
_EXTENSION, _IMAGE = b"!", b","
_CONTROL, _APPLICATION = 0xF9, 0xFF
_PROFILE = b"ICCRGBG1012"
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_DISPOSALS = {2: Disposal.CLEAR, 3: Disposal.RESTORE, 4: Disposal.RESTORE}  # 4 is an old slip for 3
_RAMP = np.arange(256, dtype=np.uint8).repeat(3).tobytes()


class GifCodec(Codec):
    """GIF, still or animated."""

    def read_header(self, file: InputFile) -> Header:
        """Reads where frames lie. No library looks at the file. See `Codec.read_header`."""
        try:
            layout = read_gif(file.data)
        except (EOFError, ValueError) as error:
            raise InputError(f"{file.name}: damaged GIF ({error}); get the file again") from error
        return Header(
            width=layout.width,
            height=layout.height,
            frames=layout.frames,
            animated=layout.frames > 1,
            icc=layout.icc,
            aspect=layout.aspect,
            loop=layout.loop,
            animation=layout,
        )

    def decode(self, file: InputFile, header: Header, numbers: Sequence[int]) -> Sequence[Frame]:
        """Decodes frames; a still whose colours are all gray becomes gray. See `Codec.decode`."""
        frames = self.decode_frames(file, header, numbers)
        if header.animated or header.icc:
            return frames
        return [replace(frame, pixels_hwc=_gray(np.asarray(frame.pixels_hwc))) for frame in frames]

    def write(self, output: Output, path: Path) -> None:
        """Writes with a palette of at most 256 colours a frame, chosen by libvips. See `Codec.write`."""
        from sr_upscale.images.codecs.row_writer import write_rows
        from sr_upscale.images.codecs.vips import pyvips

        def describe(image: Any) -> Any:
            image = image.copy()
            image.set_type(pyvips.GValue.gint_type, "page-height", output.size[1])
            image.set_type(pyvips.GValue.array_int_type, "delay", list(output.delays_ms))
            image.set_type(pyvips.GValue.gint_type, "loop", output.plays)
            return image

        write_rows(output, path, "gifsave_target", {}, describe=describe)


def _gray(pixels_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Makes gray of RGB whose channels are all equal, with its alpha."""
    gray = (pixels_hwc[:, :, :3] == pixels_hwc[:, :, :1]).all()
    return np.delete(pixels_hwc, (1, 2), axis=2) if gray else pixels_hwc


@dataclass(frozen=True, kw_only=True)
class _Image:
    """An image descriptor, and what belongs to it.

    Attributes:
        colours: (n, 3) RGB, n at most 256; None where the file has none.
        transparent: Index that stands for nothing, or None.
        interlaced: Whether the rows come in four turns.
        data: The code size and the compressed indices, to the end of the last block.
    """

    colours: NDArray[np.uint8] | None
    transparent: int | None
    interlaced: bool
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Gif(Animation):
    """A GIF, also one of a single frame. See `read_gif`."""

    images: tuple[_Image, ...]

    def decoded(self, number: int, *, allow_truncated: bool) -> NDArray[np.uint8]:
        """Decodes a frame: (h, w, 4) uint8. See `Animation.decoded`."""
        image, place = self.images[number], self.places[number]
        colours = np.zeros((256, 4), dtype=np.uint8)
        table = np.frombuffer(_RAMP, dtype=np.uint8).reshape(-1, 3) if image.colours is None else image.colours
        colours[: len(table), :3] = table
        colours[:, 3] = 255
        if image.transparent is not None:
            colours[image.transparent] = 0
        return colours[_indices(image, place.width, place.height, allow_truncated=allow_truncated)]


def _indices(image: _Image, width: int, height: int, *, allow_truncated: bool) -> NDArray[np.uint8]:
    """Decodes indices (h, w), as the levels of a gray GIF made of the one frame."""
    if not width * height:
        return np.zeros((height, width), dtype=np.uint8)
    size = struct.pack("<HH", width, height)
    head = b"GIF89a" + size + b"\xf7\0\0" + _RAMP + _IMAGE + bytes(4) + size + bytes([64 * image.interlaced])
    with opened(head + image.data, "GIF", allow_truncated=allow_truncated) as gray:
        return np.asarray(gray)


@dataclass(kw_only=True)
class _Extensions:
    """What stands before the images of a GIF.

    Attributes:
        control: Flags, delay in hundredths of a second and transparent index of the next image; None without any.
        loop: See `Animation`.
        icc: Its colour profile; empty without one.
    """

    control: tuple[int, int, int] | None = None
    loop: int | None = None
    icc: bytes = b""

    def add(self, label: int, parts: Sequence[bytes]) -> None:
        """Reads an extension block."""
        if label == _CONTROL:
            self.control = struct.unpack("<BHB", b"".join(parts)[:4].ljust(4, b"\0"))
        elif label == _APPLICATION and len(parts) > 1 and parts[0] == _PROFILE:
            self.icc = b"".join(parts[1:])
        elif label == _APPLICATION and len(parts) > 1 and parts[0] in _LOOPS and parts[1][:1] == b"\1":
            repeats = int.from_bytes(parts[1][1:3], "little")
            self.loop = repeats + 1 if repeats else 0


def read_gif(data: bytes) -> Gif:
    """Reads the layout of a GIF. It decodes nothing.

    A canvas that is smaller than its first frame grows to it, as browsers and Pillow have it.

    Raises:
        EOFError: It ends before its first frame.
    """
    try:
        width, height, flags = struct.unpack_from("<HHB", data, 6)
    except struct.error as error:
        raise EOFError("the file ends in its header") from error
    colours, at = _colour_table(data, 13, flags)
    places: list[Place] = []
    images: list[_Image] = []
    extensions = _Extensions()
    cut = False
    while (block := _BLOCK.search(data, at)) is not None and block.group() != b";":
        at = block.end()
        try:
            if block.group() == _EXTENSION:
                extensions.add(data[at], list(_parts(data, at + 1)))
                at = _end(data, at + 1)
                continue
            left, top, image_width, image_height, flags = struct.unpack_from("<HHHHB", data, at)
        except (struct.error, IndexError):
            cut = True
            break
        own, at = _colour_table(data, at + 9, flags)
        end = _end(data, at + 1)
        packed, delay, transparent = extensions.control or (0, 0, 0)
        places.append(
            Place(
                left=left,
                top=top,
                width=image_width,
                height=image_height,
                blend=Blend.OVER,
                disposal=_DISPOSALS.get(packed >> 2 & 7, Disposal.KEEP),
                duration_ms=delay * 10,
            )
        )
        images.append(
            _Image(
                colours=colours if own is None else own,
                transparent=transparent if packed & 1 else None,
                interlaced=bool(flags & 64),
                data=data[at:end],
            )
        )
        at, extensions.control = end, None
    if not places:
        raise EOFError("there is no image in it")
    first = places[0]
    return Gif(
        width=max(width, first.left + first.width),
        height=max(height, first.top + first.height),
        places=tuple(places),
        frames=len(places) + (cut or (block is None and extensions.control is not None)),
        loop=extensions.loop,
        channels=4,
        dtype=np.dtype(np.uint8),
        has_alpha=False,  # many GIFs name a transparent colour that they never use
        images=tuple(images),
        icc=extensions.icc if extensions.icc[36:40] == b"acsp" else None,
        aspect=_aspect(data[12]),
    )


def _aspect(stated: int) -> tuple[int, int] | None:
    """Returns pixels across and down that are equally long; None where nothing is stated, or they are square.

    A pixel is (stated + 15) / 64 times as wide as high.
    """
    common = math.gcd(64, stated + 15)
    return (64 // common, (stated + 15) // common) if stated not in (0, 49) else None


def _colour_table(data: bytes, at: int, flags: int) -> tuple[NDArray[np.uint8] | None, int]:
    """Returns the colours (n, 3) that follow a descriptor, or None, and where they end."""
    if not flags & 128:
        return None, at
    end = at + (3 << (flags & 7) + 1)
    table = data[at:end]
    return np.frombuffer(table[: len(table) // 3 * 3], dtype=np.uint8).reshape(-1, 3), end


def _parts(data: bytes, at: int) -> Iterator[bytes]:
    while at < len(data) and (size := data[at]):
        yield data[at + 1 : at + 1 + size]
        at += 1 + size


def _end(data: bytes, at: int) -> int:
    """Returns where a chain of blocks ends, that of the file at most."""
    while at < len(data) and (size := data[at]):
        at += 1 + size
    return min(at + 1, len(data))


CODEC = GifCodec("gif")
