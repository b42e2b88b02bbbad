"""Encoders of video: what each takes, and one that is set up for frames of a look."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import av
from av.codec.context import Flags
from numpy.typing import NDArray

from sr_upscale.errors import OutputError, UsageError
from sr_upscale.video.containers import Container, VideoOptions
from sr_upscale.video.frames import FULL, NARROW, Converter, Look

os.environ.setdefault("SVT_LOG", "1")  # or SVT-AV1 prints its settings for every segment


@dataclass(frozen=True, kw_only=True)
class Codec:
    """An encoder.

    Attributes:
        encoder: FFmpeg's name of it.
        formats: Its formats of samples by chroma and bits of `Look`; a missing chroma becomes the first one's.
        crf: Default quality; None where there is none to choose.
        preset: Default effort; None where there is none to choose.
        light: Its parameter for further ones, and how it takes the light of HDR; empty where it cannot be.
        alpha: Format of samples with alpha, by bits.
        least: Fewest pixels of a side.
        options: Further options.
        says_aspect: Whether its own stream says the shape of pixels, so that PyAV's Matroska does.
    """

    encoder: str
    formats: dict[tuple[str, int], str]
    crf: int | None = None
    preset: str | None = None
    parameters: str = ""
    light: Callable[[Look], list[str]] = lambda _look: []
    alpha: dict[int, str] | None = None
    least: int = 1
    options: tuple[tuple[str, str], ...] = ()
    says_aspect: bool = False

    def pixel_format(self, look: Look) -> str:
        """Returns the format of samples that is nearest to a look."""
        if look.alpha and self.alpha:
            return self.alpha[8 if look.bits == 8 else 16]
        chromas = {chroma for chroma, _bits in self.formats}
        chroma = look.chroma if look.chroma in chromas else next(iter(self.formats))[0]
        depths = sorted(bits for each, bits in self.formats if each == chroma)
        return self.formats[chroma, next((bits for bits in depths if bits >= look.bits), depths[-1])]


def _x265_light(look: Look) -> list[str]:
    return _light(look, "master-display", "max-cll", (50000, 10000), "{:.0f}")


def _x264_light(look: Look) -> list[str]:
    return _light(look, "mastering-display", "cll", (50000, 10000), "{:.0f}")


def _av1_light(look: Look) -> list[str]:
    return _light(look, "mastering-display", "content-light", (1, 1), "{:.4f}")


def _light(look: Look, mastering: str, light: str, units: tuple[int, int], form: str) -> list[str]:
    found = []
    if look.mastering is not None:
        red, green, blue, white = (look.mastering[at : at + 2] for at in (0, 2, 4, 6))
        points = {"G": green, "B": blue, "R": red, "WP": white}
        said = ""
        for name, point in points.items():
            said += f"{name}({','.join(form.format(float(each * units[0])) for each in point)})"
        low, high = (form.format(float(each * units[1])) for each in look.mastering[8:])
        found.append(f"{mastering}={said}L({high},{low})")
    if look.light is not None:
        found.append(f"{light}={look.light[0]},{look.light[1]}")
    return found


def _planar(chromas: Iterable[str], depths: Iterable[int]) -> dict[tuple[str, int], str]:
    return {(each, bits): f"yuv{each}p" + (f"{bits}le" if bits > 8 else "") for each in chromas for bits in depths}


CODECS = {
    "x264": Codec(
        encoder="libx264",
        formats=_planar(("420", "422", "444"), (8, 10)),
        crf=16,
        preset="medium",
        parameters="x264-params",
        light=_x264_light,
        says_aspect=True,
    ),
    "x265": Codec(
        encoder="libx265",
        formats=_planar(("420", "422", "444"), (8, 10)),
        crf=18,
        preset="medium",
        parameters="x265-params",
        light=_x265_light,
        says_aspect=True,
        least=8,
    ),
    "av1": Codec(
        encoder="libsvtav1",
        formats=_planar(("420",), (8, 10)),
        crf=24,
        preset="6",
        parameters="svtav1-params",
        light=_av1_light,
        least=64,
    ),
    "ffv1": Codec(
        encoder="ffv1",
        formats=_planar(("420", "422", "444"), (8, 10, 12, 16))
        | {("rgb", 8): "bgr0", ("rgb", 16): "gbrp16le", ("gray", 8): "gray", ("gray", 16): "gray16le"},
        alpha={8: "bgra", 16: "gbrap16le"},
        options=(("level", "3"), ("slicecrc", "1")),
    ),
    "prores": Codec(
        encoder="prores_ks",
        formats={("422", 10): "yuv422p10le", ("444", 10): "yuv444p10le"},
        alpha={8: "yuva444p10le", 16: "yuva444p10le"},
        options=(("profile", "standard"),),
    ),
}
"""By the names of `--codec`."""

RAW = Codec(encoder="rawvideo", formats=_planar(("420", "422", "444"), (8, 10)))
"""What goes through pipes."""


class Encoder:
    """An encoder set up for frames of a look: the same one, in the same bits, as often as it is opened.

    Args:
        look: Of the frames that come, at their size.
        options: What was asked for.
        container: Where they go.
        name: What the output is called in messages.

    Attributes:
        look: The look.
        codec: The codec.
        pixel_format: FFmpeg's name of the samples.

    Raises:
        UsageError: The container does not hold the codec, the codec has no such option or does not take such frames.
    """

    def __init__(self, look: Look, options: VideoOptions, container: Container, *, name: str) -> None:
        deep = "x265" if look.bits > 8 or look.is_hdr else "x264"
        self.name = options.codec or (deep if deep in container.codecs else container.codecs[0])
        if self.name not in container.codecs:
            raise UsageError(
                f"{name}: {container.name} does not hold {self.name}; use --codec {' or '.join(container.codecs)}"
            )
        self.look, self.codec = look, CODECS[self.name]
        self.pixel_format = self.codec.pixel_format(look)
        self.options = dict(self.codec.options)
        for option, given in (("crf", options.crf), ("preset", options.preset)):
            default = getattr(self.codec, option)
            if default is None and given is not None:
                raise UsageError(f"{self.name} has no --{option}; leave it out")
            if default is not None:
                self.options[option] = str(default if given is None else given)
        quiet = {"x265": ["log-level=none"]}.get(self.name, [])
        if parameters := [*quiet, *self.codec.light(look)]:
            self.options[self.codec.parameters] = ":".join(parameters)
        self._check(name)

    def _check(self, name: str) -> None:
        """Refuses frames that the encoder does not take, before any is computed."""
        look = self.look
        if look.alpha and not self.codec.alpha:
            raise UsageError(f"{name}: {self.name} holds no transparency; use --codec ffv1 or prores")
        form = av.VideoFormat(self.pixel_format)
        across, down = (2 // max(1, each // 32) for each in (form.chroma_width(64), form.chroma_height(64)))
        if look.width % across or look.height % down:
            even = f"{look.width + look.width % across}x{look.height + look.height % down}"
            raise UsageError(
                f"{name}: {look.width}x{look.height}, and {self.name} takes even sides alone for {self.pixel_format}; "
                f"use --size {even} --fit stretch, or --codec ffv1"
            )
        if min(look.width, look.height) < self.codec.least:
            raise UsageError(
                f"{name}: {look.width}x{look.height}, and {self.name} takes at least {self.codec.least} pixels a side; "
                "use --codec x264 or ffv1"
            )
        try:
            self.set_up(av.CodecContext.create(self.codec.encoder, "w")).open()
        except (av.error.FFmpegError, ValueError) as error:
            raise UsageError(
                f"{name}: {self.name} refuses {self.options} for {look.width}x{look.height} {self.pixel_format}; "
                "choose another --preset, --crf or --codec"
            ) from error

    def set_up(self, context: Any) -> Any:
        """Sets a codec context up, and returns it; also one of a stream that takes packets of others like it."""
        look = self.look
        context.width, context.height, context.pix_fmt = look.width, look.height, self.pixel_format
        context.time_base, context.framerate = look.time_base, look.rate
        context.sample_aspect_ratio = look.aspect
        if not av.VideoFormat(self.pixel_format).is_rgb:
            context.colorspace, context.color_range = look.matrix, FULL if look.full_range else NARROW
        context.color_primaries, context.color_trc = look.primaries, look.transfer
        context.flags |= Flags.global_header
        context.options = dict(self.options)
        return context

    def packets(self, frames: Iterable[tuple[int, NDArray[Any]]]) -> Iterator[Any]:
        """Encodes frames, one run of the encoder.

        Args:
            frames: Time stamp in units of the look's time base, and pixels (H, W, 3 or 4) uint8 or uint16. An array
                that is the one before is not converted again.

        Yields:
            Packets in the order of decoding.

        Raises:
            OutputError: The encoder fails.
        """
        context = self.set_up(av.CodecContext.create(self.codec.encoder, "w"))
        converter, before, frame = Converter(self.look), None, None
        try:
            for pts, pixels in frames:
                if pixels is not before:
                    frame, before = converter.to_frame(pixels, self.pixel_format), pixels
                assert frame is not None
                frame.pts, frame.time_base = pts, self.look.time_base
                yield from context.encode(frame)
            yield from context.encode(None)
        except av.error.FFmpegError as error:
            raise OutputError(f"{self.name} failed: {error}; choose another --codec") from error
