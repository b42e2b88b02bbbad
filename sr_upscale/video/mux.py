"""Containers that are written: encoded segments joined by copy, and all else of the clip beside them."""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av

from sr_upscale.errors import UsageError
from sr_upscale.video.containers import Container
from sr_upscale.video.encoder import Encoder
from sr_upscale.video.frames import FrameStream
from sr_upscale.video.source import ATTACHED_PIC, BROKEN

_ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Bold, Italic, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,0,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
"""What encoders of subtitles want to know of their style: FFmpeg's default."""

_TEXTS = {"mov_text", "subrip", "srt", "text", "ass", "ssa", "webvtt"}
_TEXT_OF = {"mkv": "subrip", "mp4": "mov_text", "mov": "mov_text", "webm": "webvtt"}
"""What texts become in a container that does not hold their codec."""

_TIMES = {"avoid_negative_ts": "disabled"}
"""Sound that begins before 0, as AAC in mp4 does by the run-up of its decoder, does not put off all other streams."""

_OUTDATED = re.compile(
    r"encoder|major_brand|minor_version|compatible_brands|duration|bps(-.*)?|number_of_(bytes|frames)(-.*)?|_statistics_.*",
    re.IGNORECASE,
)
"""Metadata that is no longer true, or that the writer says itself."""


# --- segments ---------------------------------------------------------------------------------------


def write_segment(file: BinaryIO, packets: Iterable[Any]) -> None:
    """Writes packets, and behind them their list: time stamp, bytes and whether one can begin there."""
    rows = []
    for packet in packets:
        file.write(bytes(packet))
        rows.append((packet.pts, packet.size, bool(packet.is_keyframe)))
    listed = json.dumps(rows).encode()
    file.write(listed + struct.pack("<Q", len(listed)))


def segment_rows(path: Path) -> list[tuple[int, int, bool]]:
    """Returns the list of a segment."""
    with path.open("rb") as file:
        file.seek(-8, 2)
        (size,) = struct.unpack("<Q", file.read(8))
        file.seek(-8 - size, 2)
        return [(pts, size, key) for pts, size, key in json.loads(file.read(size))]


def decoding_times(shown: Sequence[int], step: int) -> list[int]:
    """Returns when each packet is to be decoded: ascending, and none later than it is shown.

    Args:
        shown: Time stamps in the order of decoding.
        step: Time from a frame to the next before the first one.
    """
    ranks = {pts: rank for rank, pts in enumerate(sorted(shown))}
    delay = max(number - ranks[pts] for number, pts in enumerate(shown))
    ordered = sorted(shown)
    before = [ordered[0] - number * step for number in range(delay, 0, -1)]
    return (before + ordered)[: len(shown)]


def _video_packets(segments: Sequence[Path], clip: FrameStream, shift: int) -> Iterator[Any]:
    rows = [segment_rows(path) for path in segments]
    shown = [pts for each in rows for pts, _size, _key in each]
    step = max(1, round(1 / clip.look.rate / clip.look.time_base))
    times = iter(decoding_times(shown, step))
    ordered = sorted(shown)
    following = dict(zip(ordered, ordered[1:], strict=False))
    for path, each in zip(segments, rows, strict=True):
        with path.open("rb") as file:
            for pts, size, key in each:
                packet = av.Packet(file.read(size))
                packet.time_base, packet.is_keyframe = clip.look.time_base, key
                packet.duration = following.get(pts, pts + clip.last_duration) - pts
                packet.pts, packet.dts = pts - shift, next(times) - shift
                yield packet


# --- everything -------------------------------------------------------------------------------------


def check_streams(clip: FrameStream, encoder: Encoder, container: Container) -> list[str]:
    """Finds before any work whether a container holds everything of a clip.

    Returns:
        Sentences about what it does not hold.

    Raises:
        UsageError: It does not hold a stream of sound or subtitles.
    """
    warnings: list[str] = []
    with _container_of(clip) as source:
        _Output(av.open("unwritten", "w", format=container.muxer), source, clip, encoder, container, warnings)
    return warnings


def join(
    temporary: Path,
    segments: Sequence[Path],
    clip: FrameStream,
    encoder: Encoder,
    container: Container,
    *,
    history: str,
) -> None:
    """Writes a container.

    Args:
        temporary: The file.
        segments: Of `write_segment`, in order.
        clip: Where all else comes from.
        encoder: That made the packets.
        container: Its kind.
        history: Is added to the metadata; where it is empty, all but languages and titles of streams is left out.
    """
    with (
        _container_of(clip) as source,
        av.open(str(temporary), "w", format=container.muxer, container_options=_TIMES) as out,
    ):
        output = _Output(out, source, clip, encoder, container, [])
        if history:
            out.metadata.setdefault("comment" if container.muxer in ("mp4", "mov") else "history", history)
        else:
            out.metadata.clear()
        output.write(_video_packets(segments, clip, round(clip.begin / clip.look.time_base)))


def _container_of(clip: FrameStream) -> contextlib.AbstractContextManager[Any]:
    """Opens what holds all else of a clip; None where nothing does."""
    return contextlib.nullcontext() if clip.path is None else av.open(str(clip.path), metadata_errors="replace")


class _Output:
    """A container with all streams of a clip, each of which is copied, converted or left out."""

    def __init__(
        self, out: Any, source: Any, clip: FrameStream, encoder: Encoder, container: Container, warnings: list[str]
    ) -> None:
        self.out, self.source, self.clip, self.container, self.name = out, source, clip, container, clip.name
        self.encoder, self.warnings = encoder, warnings
        self.streams: dict[int, Any] = {}
        self.texts: dict[int, tuple[str, str]] = {}
        self._supported = out.supported_codecs
        if source is None:
            self._add_video(None)
            return
        chapters = self._chapters()
        for stream in source.streams:
            if stream.index == clip.number:
                self._add_video(stream)
            elif stream.type == "attachment" or (stream.type == "video" and stream.disposition & ATTACHED_PIC):
                self._attach(stream)
            elif stream.type in ("audio", "subtitle", "video"):
                self._add(stream)
            elif not (stream.type == "data" and chapters):  # mp4 has its chapters as such a stream
                self._leave_out(stream, f"its stream {stream.index} of {stream.type}")
        for key, value in source.metadata.items():
            if not _OUTDATED.fullmatch(key):
                out.metadata[key] = value
        if chapters:
            out.set_chapters(chapters)

    def _leave_out(self, stream: Any, what: str) -> None:
        self.warnings.append(f"{self.name}: {what} is left out, {self.container.name} does not hold it")

    def _add_video(self, stream: Any) -> None:
        encoder = self.encoder
        made = self.out.add_stream(encoder.codec.encoder, rate=encoder.look.rate)
        encoder.set_up(made.codec_context)
        made.time_base = encoder.look.time_base
        if encoder.name == "x265" and self.container.muxer in ("mp4", "mov"):
            made.codec_context.codec_tag = "hvc1"
        if encoder.look.turn is not None:
            made.set_display_matrix(encoder.look.turn)
        if encoder.look.aspect != 1 and not encoder.codec.says_aspect and self.container.muxer in ("matroska", "webm"):
            self.warnings.append(
                f"{self.name}: its pixels are not square ({encoder.look.aspect}), which {encoder.name} in "
                f"{self.container.name} does not say; use --codec x264 or x265, or end the name in .mp4"
            )
        self._describe(made, stream)

    def _describe(self, made: Any, stream: Any) -> None:
        self.streams[self.clip.number if stream is None else stream.index] = made
        if stream is None:
            return
        known = {key: value for key, value in stream.metadata.items() if not _OUTDATED.fullmatch(key)}
        if "name" in known:  # as mp4 calls it
            known.setdefault("title", known.pop("name"))
        made.metadata.update(known)
        made.disposition = int(stream.disposition)

    def _add(self, stream: Any) -> None:
        codec = stream.codec_context.codec.name if stream.codec_context is not None else "unknown"
        raw_sound = codec.startswith("pcm_") and self.container.name == "mp4"  # allowed since 2020, and played by few
        if codec in self._supported and not raw_sound:
            self._describe(self.out.add_stream_from_template(stream, opaque=True), stream)
            return
        text = _TEXT_OF.get(self.container.name)
        if codec not in _TEXTS or text is None:
            better = "mkv" if self.container.name != "mkv" else "another container"
            raise UsageError(
                f"{self.name}: {self.container.name} does not hold {codec} ({stream.type}, stream {stream.index}); "
                f"end the name in .{better}"
            )
        made = self.out.add_stream(text)
        made.codec_context.subtitle_header = _ASS_HEADER
        made.time_base = made.codec_context.time_base = Fraction(1, 1000)
        self._describe(made, stream)
        self.texts[stream.index] = codec, text
        if codec in ("ass", "ssa"):
            self.warnings.append(f"{self.name}: the style of its subtitles is lost, {self.container.name} holds texts")

    def _attach(self, stream: Any) -> None:
        is_cover = stream.type == "video"
        if is_cover and self.container.muxer in ("mp4", "mov"):
            self._describe(self.out.add_stream_from_template(stream, opaque=True), stream)
            return
        if not self.container.attachments:
            self._leave_out(stream, f"its attachment {stream.metadata.get('filename', 'cover')}")
            return
        if is_cover:
            kind = {"mjpeg": "jpeg"}.get(stream.codec_context.name, stream.codec_context.name)
            name = stream.metadata.get("filename", f"cover.{kind.replace('jpeg', 'jpg')}")
            with av.open(str(self.clip.path), metadata_errors="replace") as again:
                data = bytes(next(again.demux(again.streams[stream.index])))
            made = self.out.add_attachment(name, stream.metadata.get("mimetype", f"image/{kind}"), data)
        else:
            made = self.out.add_stream_from_template(stream)
        made.metadata.update(stream.metadata)

    def _chapters(self) -> list[Any]:
        begin, end = self.clip.begin, self.clip.end
        found = []
        for each in self.source.chapters():
            unit = each["time_base"]
            low, high = each["start"] - round(begin / unit), each["end"] - round(begin / unit)
            most = high if end is None else round((end - begin) / unit)
            if high > 0 and low < most:
                found.append({**each, "start": max(0, low), "end": min(high, most)})
        return found

    def write(self, video: Iterator[Any]) -> None:
        """Writes packets of all streams in the order in which they are decoded."""
        made = self.streams[self.clip.number]
        following = next(video, None)
        for at, packet in self._others():
            while following is not None and following.dts * following.time_base <= at:
                following.stream = made
                self.out.mux(following)
                following = next(video, None)
            self.out.mux(packet)
        while following is not None:
            following.stream = made
            self.out.mux(following)
            following = next(video, None)

    def _others(self) -> Iterator[tuple[Fraction, Any]]:
        """Yields the packets of all other streams that are wanted, and when each is decoded, in seconds."""
        if self.source is None:
            return
        wanted = [each for each in self.source.streams if each.index in self.streams and each.index != self.clip.number]
        if not wanted:
            return
        packets = self.source.demux(*wanted)
        while True:
            try:
                packet = next(packets, None)
            except BROKEN:  # what was there has been written
                return
            if packet is None:
                return
            number = packet.stream_index
            if packet.size and (packet := self._placed(packet)) is not None:
                if number in self.texts:
                    packet = _text_packet(packet, *self.texts[number])
                    if packet is None:
                        continue
                packet.stream = self.streams[number]
                yield (packet.pts if packet.dts is None else packet.dts) * packet.time_base, packet

    def _placed(self, packet: Any) -> Any:
        """Returns a packet with its place in the part that is wanted; None where it is none of it."""
        moving = packet.stream.type == "video"
        if moving and packet.stream.disposition & ATTACHED_PIC:
            packet.pts = packet.dts = 0
            return packet
        if packet.pts is None:
            packet.pts = packet.dts
        if packet.dts is None and not moving:  # the muxer finds it for frames that are reordered
            packet.dts = packet.pts
        if packet.pts is None:
            return None
        at = packet.pts * packet.time_base
        if (self.clip.begin and at < self.clip.begin) or (self.clip.end is not None and at >= self.clip.end):
            return None
        shift = round(self.clip.begin / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, None if packet.dts is None else packet.dts - shift
        return packet


def _text_packet(packet: Any, codec: str, wanted: str) -> Any:
    """Returns a packet of subtitles in another codec; None for a pause."""
    data = bytes(packet)
    if codec == "mov_text":
        data = data[2 : 2 + int.from_bytes(data[:2], "big")]
    text = data.decode("utf-8", "replace").strip("\0\r\n ")
    if codec in ("ass", "ssa"):
        text = re.sub(r"\{[^}]*\}", "", text.split(",", 8)[-1]).replace("\\N", "\n").replace("\\n", "\n")
    if not text:
        return None
    if wanted == "mov_text":
        plain = re.sub(r"</?[a-zA-Z][^>]*>", "", text).encode()
        data = len(plain).to_bytes(2, "big") + plain
    else:
        data = text.encode()
    made = av.Packet(data)
    made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
    made.time_base, made.is_keyframe = packet.time_base, True
    return made
