"""A clip that is read: an index of its time stamps, what its frames are like, and the frames."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from sr_upscale.errors import InputError
from sr_upscale.formatting import shown
from sr_upscale.storage.atomic import hash_file
from sr_upscale.video.frames import Converter, FrameStream, Look, look_of, lost_light

ATTACHED_PIC = 0x400
_LEAD = 8
"""Frames that are decoded before the one wanted where a filter looks back."""
PROBED = 12
"""Frames that are looked at for fields."""

BROKEN = (av.error.FFmpegError, EOFError)


class Clip(FrameStream):
    """The first video stream of a container, a `frames.FrameStream`.

    Args:
        path: The file.
        start, duration: Part of it in seconds; None is to its end.
        deinterlace: Make whole frames of fields.
        name: What messages call it; None for its path.

    Raises:
        InputError: It cannot be read, has no video, is interlaced, or has nothing in that part.
    """

    def __init__(
        self,
        path: Path,
        *,
        start: float = 0.0,
        duration: float | None = None,
        deinterlace: bool = False,
        name: str | None = None,
    ) -> None:
        self.path: Path = path
        self.name, self.deinterlace = name or shown(path), deinterlace
        self.damaged = 0
        with self._opened() as container:
            stream = main_stream(container, self.name)
            self.number = stream.index
            time_base = stream.time_base
            offset = (container.start_time or 0) / av.time_base
            self.begin = Fraction(start + offset if start else 0).limit_denominator(1000)
            self.end = None if duration is None else start + offset + duration
            frames = [*itertools.islice(decoded(container, stream, self._note), PROBED)]
            self.has_more = len(container.streams) > 1
            promised = (container.duration or 0) / av.time_base + offset
        self.look, self.warnings = probed_look(frames, stream, deinterlace=deinterlace, name=self.name)
        rate = self.look.rate
        self.damaged = 0
        self._seekable = True
        everything, last_duration = self._indexed()
        if not everything.size:
            raise InputError(f"{self.name}: no frame of its video can be decoded; get the file again")
        if promised - float(everything[-1] * time_base) > 1 + 2 / rate and self._is_short(promised):
            self.damaged += 1
        chosen = self._part_of(everything, time_base) if start or duration else everything
        if not chosen.size:
            raise InputError(f"{self.name}: there is no frame between --start and --start plus --duration")
        self.times: Sequence[int] = [int(each) for each in chosen]
        self.last_duration = last_duration if chosen[-1] == everything[-1] else round(1 / rate / time_base)
        self._everything = everything
        self._reader: Iterator[tuple[int, NDArray[Any]]] | None = None
        self._container: Any = None
        self._ahead: tuple[int, NDArray[Any]] | None = None
        self._at = -1

    # --- index ------------------------------------------------------------------------------------

    def _part_of(self, times: NDArray[np.int64], time_base: Fraction) -> NDArray[np.int64]:
        """Returns the time stamps between `begin` and `end`."""
        low: Any = self.begin / time_base
        high = np.inf if self.end is None else self.end / float(time_base)
        chosen: NDArray[np.int64] = times[(times >= low) & (times < high)]
        return chosen

    def _indexed(self) -> tuple[NDArray[np.int64], int]:
        """Returns the time stamps of all frames, by the packets alone where those have them."""
        with self._opened() as container:
            stream = container.streams[self.number]
            for each in container.streams:
                each.discard = 0 if each.index == self.number else 48
            times, duration = [], 0
            for packet in _packets(container, stream, self._note):
                if packet.pts is None:
                    self._seekable = False
                    break
                if not packet.is_discard:
                    times.append(packet.pts)
                    duration = packet.duration or duration if packet.pts == max(times[-1], packet.pts) else duration
        if not self._seekable:
            times = []
            with self._opened() as container:
                stream = container.streams[self.number]
                times = [pts for pts, _frame in self._frames(container, stream)]
            self.damaged = 0
        return np.unique(np.array(times, np.int64)), duration or round(1 / self.look.rate / self.look.time_base)

    def _is_short(self, promised: float) -> bool:
        """Says whether no stream at all reaches the end that the container promises."""
        with self._opened() as container:
            ends = [
                (packet.pts + (packet.duration or 0)) * packet.time_base
                for packet in _packets(container, None, self._note)
                if packet.pts is not None
            ]
        return promised - float(max(ends)) > 1

    # --- frames -----------------------------------------------------------------------------------

    def read(self, first: int, last: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yields the time stamp and pixels of frames; see `FrameStream.read`."""
        if self._at != first or self._reader is None:
            self._seek(first)
        begin, end = self.times[first], np.inf if last >= len(self.times) else self.times[last]
        if self.end is not None:
            end = min(end, self.end / float(self.look.time_base))
        assert self._reader is not None
        self._at = last
        while True:
            found, self._ahead = self._ahead or next(self._reader, None), None
            if found is None:
                return
            if found[0] >= end:
                self._ahead = found
                return
            if found[0] >= begin:
                yield found

    def digest(self) -> str:
        """Returns the sha256 of the file."""
        return hash_file(self.path)

    def close(self) -> None:
        """Closes the file; `read` opens it again."""
        if self._container is not None:
            self._container.close()
        self._container = self._reader = self._ahead = None

    def _seek(self, first: int) -> None:
        """Opens the clip so that the next frame is at or before a number."""
        self.close()
        whole = int(np.searchsorted(self._everything, self.times[first]))
        wanted = int(self._everything[max(0, whole - _LEAD)] if self.deinterlace else self.times[first])
        if whole > 0 and self._seekable:
            reader = self._begun(wanted)
            found = next(reader, None)
            if found is not None and found[0] <= wanted:
                self._reader, self._ahead = reader, found
                return
            self.close()
        self._reader = self._begun(None)

    def _begun(self, seek: int | None) -> Iterator[tuple[int, NDArray[Any]]]:
        self._container = container = self._open()
        stream = container.streams[self.number]
        stream.thread_type = "AUTO"
        if seek is not None:
            try:
                container.seek(seek, stream=stream)
            except BROKEN:
                return
        yield from pixels_of(self._frames(container, stream), self.look, self.name)

    def _frames(self, container: Any, stream: Any) -> Iterator[tuple[int, av.VideoFrame]]:
        return timed(decoded(container, stream, self._note), stream, self.look, deinterlace=self.deinterlace)

    def _note(self) -> None:
        self.damaged += 1

    def _open(self) -> Any:
        try:
            return av.open(str(self.path), metadata_errors="replace")
        except BROKEN as error:
            raise InputError(f"{self.name}: cannot be read as a video ({error}); get the file again") from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        with self._open() as container:
            yield container


def main_stream(container: Any, name: str) -> Any:
    """Returns the stream of video that is enlarged: the first one that is no cover."""
    for stream in container.streams.video:
        if not stream.disposition & ATTACHED_PIC:
            if stream.codec_context is None:
                raise InputError(f"{name}: there is no decoder for its video; convert it with ffmpeg")
            return stream
    raise InputError(f"{name}: has no video; expected a stream of frames")


def probed_look(
    frames: Sequence[av.VideoFrame], stream: Any, *, deinterlace: bool, name: str
) -> tuple[Look, list[str]]:
    """Finds out by its first frames what the frames of a stream are like.

    Returns:
        The look, and sentences about what is lost.

    Raises:
        InputError: There is none, they are interlaced, or have colours that cannot be computed with.
    """
    if not frames:
        raise InputError(f"{name}: no frame of its video can be decoded; get the file again")
    if any(frame.interlaced_frame for frame in frames) and not deinterlace:
        raise InputError(f"{name}: interlaced; add --deinterlace to make whole frames of its fields")
    look = look_of(
        frames[0],
        codec=stream.codec_context.name,
        rate=stream.average_rate or stream.guessed_rate or Fraction(25),
        time_base=stream.time_base,
        aspect=stream.sample_aspect_ratio or Fraction(1),
        name=name,
    )
    return look, [f"{name}: its {each} is lost; the picture beneath it is kept" for each in lost_light(frames[0])]


def timed(
    frames: Iterator[av.VideoFrame], stream: Any, look: Look, *, deinterlace: bool
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields decoded frames, whole ones of fields if asked for, with ascending time stamps."""
    if deinterlace:
        frames = _whole_frames(frames, stream)
    last: int | None = None
    step = max(1, round(1 / look.rate / look.time_base))
    for frame in frames:
        pts = frame.pts if frame.pts is not None else 0 if last is None else last + step
        last = pts if last is None else max(pts, last + 1)
        yield last, frame


def pixels_of(frames: Iterator[tuple[int, av.VideoFrame]], look: Look, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yields frames as pixels.

    Raises:
        InputError: Their size changes.
    """
    converter = Converter(look)
    for pts, frame in frames:
        if (frame.width, frame.height) != (look.width, look.height):
            at = float(pts * look.time_base)
            raise InputError(
                f"{name}: its frames change from {look.width}x{look.height} to {frame.width}x{frame.height} at "
                f"{at:.2f} s; enlarge both parts alone with --start and --duration"
            )
        yield pts, converter.to_pixels(frame)


def _packets(container: Any, stream: Any, note: Any) -> Iterator[Any]:
    """Yields packets up to the end, or to where the file cannot be read any more."""
    packets = container.demux(stream) if stream is not None else container.demux()
    while True:
        try:
            packet = next(packets, None)
        except BROKEN:
            note()
            return
        if packet is None:
            return
        if packet.size:
            yield packet


def decoded(container: Any, stream: Any, note: Any) -> Iterator[av.VideoFrame]:
    """Yields frames in the order in which they are shown; what cannot be decoded is noted."""
    for packet in _packets(container, stream, note):
        if packet.is_corrupt:
            note()
        try:
            yield from stream.decode(packet)
        except BROKEN:
            note()
    with contextlib.suppress(*BROKEN):
        yield from stream.decode(None)


def _whole_frames(frames: Iterator[av.VideoFrame], stream: Any) -> Iterator[av.VideoFrame]:
    """Yields a whole frame for each frame of two fields, by FFmpeg's bwdif."""
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(template=stream),
        graph.add("bwdif", "mode=send_frame:deint=all"),
        graph.add("buffersink"),
    ).configure()
    for frame in itertools.chain(frames, [None]):
        graph.vpush(frame)
        while True:
            try:
                out = graph.vpull()
            except (BlockingIOError, EOFError, av.error.FFmpegError):
                break
            out.pts = round((out.pts or 0) * Fraction(out.time_base or 1) / stream.time_base)
            out.time_base = stream.time_base
            yield out
