"""What frames of a clip are like, and their samples as RGB and back: matrix, range, depth, light of HDR."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from sr_upscale.errors import InputError

_EXACT = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
"""How swscale converts: without its quick roundings, which are levels off."""

UNSPECIFIED, NARROW, FULL = 2, 1, 2  # the first of code points, the others of ranges
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020"}
"""Matrices of H.273 that swscale knows, by its names."""

_PIXELS = {(False, 8): "rgb24", (False, 16): "rgb48le", (True, 8): "rgba", (True, 16): "rgba64le"}


@dataclass(frozen=True, kw_only=True)
class Look:
    """What all frames of a clip are like.

    Attributes:
        width, height: In pixels.
        bits: Bits per sample, from 8 to 16.
        chroma: ``420``, ``422`` or ``444``; ``rgb``; ``gray``.
        alpha: Whether there is an alpha channel.
        matrix, primaries, transfer: Code points of H.273. An unspecified matrix is the one that players guess by size.
        full_range: Whether 0 is black and the largest value white.
        siting: Where samples of chroma lie: on the ``left`` ones of brightness, or in the ``center`` as in JPEG.
        aspect: Width by height of a pixel.
        turn: Nine numbers of the display matrix, with which players turn the frames; None shows them as they are.
        mastering: Ten numbers of the mastering display of HDR: x, y of red, green, blue, white, then luminance from and
            to in cd/m²; None where it is not said.
        light: Highest content and frame average light level in cd/m²; None where it is not said.
        rate: Average frames per second.
        time_base: Unit of time stamps in seconds.
    """

    width: int
    height: int
    bits: int
    chroma: str
    alpha: bool = False
    matrix: int = 1
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    full_range: bool = False
    siting: str = "left"
    aspect: Fraction = Fraction(1)
    turn: tuple[int, ...] | None = None
    mastering: tuple[Fraction, ...] | None = None
    light: tuple[int, int] | None = None
    rate: Fraction
    time_base: Fraction

    @property
    def is_hdr(self) -> bool:
        """Says whether the transfer is that of PQ or HLG."""
        return self.transfer in (16, 18)

    def resized(self, width: int, height: int) -> Look:
        """Returns the same look at another size."""
        turn = self.turn and (*self.turn[:6], *_shifted(self, width, height), self.turn[8])
        return dataclasses.replace(self, width=width, height=height, turn=turn)


class FrameStream:
    """Frames with time stamps, wherever they come from: `source.Clip`, `animation.Moving`, `pipe.Piped`.

    Attributes:
        name: What messages call it.
        look: What the frames are like.
        times: Time stamps of all frames in units of `Look.time_base`, ascending.
        last_duration: How long the last one is shown, in the same units.
        path: Container of all else that belongs to it; None where there is none.
        number: Number of the frames' stream in there.
        begin: What is taken from every time stamp of the output, in seconds: 0 unless a start was asked for.
        end: Where the part that is wanted ends, in seconds of the input; None at its end.
        damaged: How often something could not be decoded so far.
        warnings: Sentences for the user.
    """

    name: str
    look: Look
    times: Sequence[int]
    last_duration: int
    path: Path | None = None
    number = 0
    begin = Fraction(0)
    end: float | None = None
    damaged = 0
    warnings: Sequence[str] = ()

    def read(self, first: int, last: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yields the time stamp and the pixels, (H, W, 3 or 4) uint8 or uint16 of the full range, of some frames.

        Args:
            first, last: Numbers of the first frame and of that behind the last one. Quickest is to go on where the last
                call ended.
        """
        raise NotImplementedError

    def digest(self) -> str:
        """Returns the sha256 of the file."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes the file; `read` opens it again."""


def look_of(
    frame: av.VideoFrame, *, codec: str, rate: Fraction, time_base: Fraction, aspect: Fraction, name: str
) -> Look:
    """Finds out what the frames of a clip are like by the first one.

    Args:
        frame: As it was decoded.
        codec, rate, time_base, aspect: Of its stream.
        name: What the clip is called in messages.

    Raises:
        InputError: Its matrix is one that cannot be computed with.
    """
    form = frame.format
    colours = [each for each in form.components if not each.is_alpha]
    matrix = frame.colorspace
    if matrix == UNSPECIFIED or form.is_rgb:
        matrix = 1 if frame.width >= 1280 or frame.height > 576 else 6  # as players do
    if matrix not in _MATRICES:
        raise InputError(
            f"{name}: its colours have the matrix {matrix} of H.273, which cannot be converted; convert it with ffmpeg"
        )
    chroma = _chroma_of(form, colours=len(colours))
    side = _side_data(frame)
    turn = struct.unpack("9i", side["DISPLAYMATRIX"][:36]) if "DISPLAYMATRIX" in side else None
    return Look(
        width=frame.width,
        height=frame.height,
        bits=max(each.bits for each in colours),
        chroma=chroma,
        alpha=len(colours) < len(form.components) or form.name == "pal8",
        matrix=matrix,
        primaries=frame.color_primaries,
        transfer=frame.color_trc,
        full_range=frame.color_range == FULL or form.name.startswith("yuvj") or chroma == "rgb",
        siting="center" if codec == "mjpeg" else "left",
        aspect=aspect,
        turn=turn,
        mastering=_mastering(side.get("MASTERING_DISPLAY_METADATA")),
        light=_light(side.get("CONTENT_LIGHT_LEVEL")),
        rate=rate,
        time_base=time_base,
    )


def _chroma_of(form: av.VideoFormat, *, colours: int) -> str:
    if form.is_rgb or form.name == "pal8":
        return "rgb"
    if colours == 1:
        return "gray"
    halves = (form.chroma_width(64) == 64, form.chroma_height(64) == 64)
    return {(True, True): "444", (False, True): "422"}.get(halves, "420")


def lost_light(frame: av.VideoFrame) -> list[str]:
    """Names what a frame says of its brightness that no encoder here says again."""
    known = {"DOVI_METADATA": "Dolby Vision", "DOVI_RPU_BUFFER": "Dolby Vision", "DYNAMIC_HDR_PLUS": "HDR10+"}
    return list(dict.fromkeys(known[each] for each in _side_data(frame) if each in known))


def _side_data(frame: av.VideoFrame) -> dict[str, bytes]:
    every: Any = frame.side_data  # its types say that it yields names
    return {each.type.name: bytes(each) for each in every}


def pixel_name(pixels_hwc: NDArray[Any]) -> str:
    """Returns FFmpeg's name of pixels (H, W, 3 or 4) uint8 or uint16."""
    return _PIXELS[pixels_hwc.shape[2] == 4, pixels_hwc.dtype.itemsize * 8]


class Converter:
    """Converts frames of one look to pixels, or pixels to frames of one kind; one for each thread and direction.

    Filters do it: swscale alone does not know where samples of chroma lie.
    """

    def __init__(self, look: Look) -> None:
        self.look = look
        self._graph: Graph | None = None

    def to_pixels(self, frame: av.VideoFrame) -> NDArray[Any]:
        """Returns (H, W, 3 or 4) uint8 or uint16, of the full range."""
        look = self.look
        how = ""
        if look.chroma != "rgb":
            levels = "pc" if look.full_range else "tv"
            how = f":in_color_matrix={_MATRICES[look.matrix]}:in_range={levels}:in_chroma_loc={look.siting}"
        pts, wanted = frame.pts, _PIXELS[look.alpha, 8 if look.bits == 8 else 16]
        pixels = self._filtered(frame, how, wanted).to_ndarray()
        frame.pts = pts
        return pixels

    def to_frame(self, pixels_hwc: NDArray[Any], pixel_format: str) -> av.VideoFrame:
        """Returns a frame with the look's matrix, range and tags.

        Args:
            pixels_hwc: (H, W, 3 or 4) uint8 or uint16.
            pixel_format: FFmpeg's name of the samples wanted.
        """
        look, how = self.look, ""
        if not av.VideoFormat(pixel_format).is_rgb:
            levels = "pc" if look.full_range else "tv"
            how = f":out_color_matrix={_MATRICES[look.matrix]}:out_range={levels}:out_chroma_loc=left"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_hwc), format=pixel_name(pixels_hwc))
        frame.color_range = FULL
        made = self._filtered(frame, how, pixel_format)
        made.color_primaries, made.color_trc = look.primaries, look.transfer
        return made

    def _filtered(self, frame: av.VideoFrame, how: str, wanted: str) -> av.VideoFrame:
        frame.pts, frame.time_base = 0, self.look.time_base
        if self._graph is None:
            self._graph = Graph()
            self._graph.threads = 1
            shape = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={frame.time_base}"
            self._graph.link_nodes(
                self._graph.add("buffer", f"{shape}:colorspace={frame.colorspace}:range={frame.color_range}"),
                self._graph.add("scale", _EXACT + how),
                self._graph.add("format", wanted),
                self._graph.add("buffersink"),
            ).configure()
        self._graph.vpush(frame)
        return self._graph.vpull()


def _shifted(look: Look, width: int, height: int) -> tuple[int, int]:
    """Scales the shift of a display matrix with the frame that it moves."""
    assert look.turn is not None
    return round(look.turn[6] * width / look.width), round(look.turn[7] * height / look.height)


def _mastering(data: bytes | None) -> tuple[Fraction, ...] | None:
    """Reads an AVMasteringDisplayMetadata."""
    if data is None:
        return None
    *numbers, has_primaries, has_luminance = struct.unpack("22i", data[:88])
    if not (has_primaries and has_luminance):
        return None
    return tuple(Fraction(top, below or 1) for top, below in zip(numbers[::2], numbers[1::2], strict=True))


def _light(data: bytes | None) -> tuple[int, int] | None:
    """Reads an AVContentLightMetadata."""
    if data is None:
        return None
    highest, average = struct.unpack("2I", data[:8])
    return highest, average
