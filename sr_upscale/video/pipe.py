"""Clips through pipes: frames are written as they come, uncompressed, as y4m or NUT. Nothing is kept to go on from."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import InputError, OutputError
from sr_upscale.images.picture import Frame, Picture
from sr_upscale.inference.sizing import Target
from sr_upscale.video.containers import Container, VideoOptions
from sr_upscale.video.encoder import RAW
from sr_upscale.video.frames import Converter, FrameStream, Look
from sr_upscale.video.run import Item, Network
from sr_upscale.video.source import BROKEN, PROBED, decoded, main_stream, pixels_of, probed_look, timed

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_upscale.inference.engine import Engine


class Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already.

    Args:
        head: These bytes.
        rest: The stream.
    """

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        """Says that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads the first bytes, then the stream."""
        data = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(data) :] if self._head else b""
        buffer[: len(data)] = data
        return len(data)


class Piped(FrameStream):
    """A clip that can be read once, from its beginning.

    Args:
        source: A path, or a binary stream.
        options: Which part, and whether frames are made of fields.
        name: What messages call it.

    Raises:
        InputError: It cannot be read, has no video, or is interlaced.
    """

    def __init__(self, source: Path | BinaryIO, options: VideoOptions, *, name: str) -> None:
        self.name = name
        try:
            file = str(source) if isinstance(source, Path) else source
            self._container = av.open(file, "r", metadata_errors="replace")
        except BROKEN as error:
            raise InputError(f"{name}: cannot be read as a video ({error}); get the file again") from error
        stream = main_stream(self._container, name)
        frames = decoded(self._container, stream, self._note)
        first = [*itertools.islice(frames, PROBED)]
        self.look, self.warnings = probed_look(first, stream, deinterlace=options.deinterlace, name=name)
        if len(self._container.streams) > 1:
            self.warnings.append(f"{name}: only its video goes through a pipe; sound and subtitles are left out")
        self._stream, self._frames, self._options = stream, itertools.chain(first, frames), options

    def everything(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yields time stamps, from 0 if a start was asked for, and pixels of the part that is wanted."""
        frames = timed(self._frames, self._stream, self.look, deinterlace=self._options.deinterlace)
        start, unit = self._options.start, self.look.time_base
        origin: int | None = None
        for pts, pixels in pixels_of(frames, self.look, self.name):
            origin = pts if origin is None else origin
            at = float((pts - origin) * unit)
            if self._options.duration is not None and at >= start + self._options.duration:
                return
            if at >= start:
                yield pts - (origin + round(start / unit) if start else 0), pixels

    def _note(self) -> None:
        self.damaged += 1


def enlarge_pipe(
    clip: Piped,
    target: BinaryIO,
    container: Container,
    engine: Engine,
    size: Target,
    *,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
) -> tuple[Picture, Any, dict[str, Any]]:
    """Enlarges a clip into a pipe.

    Args:
        clip: The clip.
        target: Takes the bytes as they come.
        container: y4m or NUT.
        engine: Computes.
        size: Of the output.
        on_step: Called with (frames done, 0).

    Returns:
        The first frame, the plan, and what was done as of `run.enlarge_clip`.
    """
    frames = clip.everything()
    begin, pixels = next(frames, (0, None))
    if pixels is None:
        raise InputError(f"{clip.name}: there is no frame between --start and --start plus --duration")
    picture = Picture(frames=(Frame(pixels_hwc=pixels),))
    plan = engine.planner.plan(picture, size)
    engine.planner.check_memory(plan, picture)
    network = Network(engine, plan, 0, on_step)
    look = clip.look.resized(*plan.output_size)
    write = _write_nut if container.name == "nut" else _write_y4m
    every = itertools.chain([(begin, pixels)], frames)
    network.run(
        (Item(segment=0, pts=pts, pixels=each) for pts, each in every),
        lambda items: write(((each.pts, each.pixels) for each in items if each.pixels is not None), look, target),
    )
    made = {"busy_seconds": network.busy, "reused_frames": network.reused, "frames": network.done}
    return picture, plan, made | {"damaged": clip.damaged, "warnings": [*clip.warnings, *network.warnings]}


def _write_y4m(frames: Iterable[tuple[int, NDArray[Any]]], look: Look, target: BinaryIO) -> None:
    """Writes YUV4MPEG2, which says a rate and no time stamps.

    Raises:
        OutputError: The time stamps are those of no rate.
    """
    form = RAW.pixel_format(look)
    chroma = form.removeprefix("yuv").removesuffix("le")  # 420p, 420p10
    chroma = {"420p": "420mpeg2"}.get(chroma, chroma if chroma[-1] != "p" else chroma[:-1])
    levels = "FULL" if look.full_range else "LIMITED"
    rate, aspect = look.rate, look.aspect
    target.write(
        f"YUV4MPEG2 W{look.width} H{look.height} F{rate.numerator}:{rate.denominator} Ip "
        f"A{aspect.numerator}:{aspect.denominator} C{chroma} XCOLORRANGE={levels}\n".encode()
    )
    converter = Converter(look)
    first: int | None = None
    for number, (pts, pixels) in enumerate(frames):
        first = pts if first is None else first
        if abs((pts - first) * look.time_base - number / rate) > max(1 / rate, Fraction(1, 100)):
            raise OutputError("y4m says a rate and no time stamps, and the frames come at others; use --format nut")
        target.write(b"FRAME\n")
        for plane in converter.to_frame(pixels, form).planes:
            width = plane.width * (2 if form.endswith("le") else 1)
            lines = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
            target.write(lines[:, :width].tobytes())
    target.flush()


def _write_nut(frames: Iterable[tuple[int, NDArray[Any]]], look: Look, target: BinaryIO) -> None:
    """Writes NUT with time stamps, as RGB, since it says no matrix."""
    try:
        with av.open(target, "w", format="nut") as out:
            stream: Any = out.add_stream("rawvideo", rate=look.rate)
            context = stream.codec_context
            context.width, context.height = look.width, look.height
            context.pix_fmt = form = "rgb24" if look.bits == 8 else "rgb48le"
            context.time_base = stream.time_base = look.time_base
            context.sample_aspect_ratio = look.aspect
            for pts, pixels in frames:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:, :, :3]), form)
                frame.pts, frame.time_base = pts, look.time_base
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    except av.error.FFmpegError as error:  # what the pipe says is behind it
        raise error.__cause__ or error from None
