"""The table of containers, by the endings of names, and the options of clips. Light: every start reads it."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sr_upscale.errors import InputError, UsageError
from sr_upscale.flags import VIDEO, option
from sr_upscale.formatting import addressed, extra, parse_duration
from sr_upscale.storage.atomic import cache_folder
from sr_upscale.storage.remote import is_address


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container.

    Attributes:
        name: Key in `CONTAINERS`, also its usual ending without the dot.
        muxer: FFmpeg's name of what writes it; empty where it is only read.
        suffixes: Endings of names, lower case, with the dot.
        codecs: Names in `encoder.CODECS` that it holds, the default first.
        media_type: Its type on the web.
        attachments: Whether it holds files such as fonts.
        raw: Whether it is a pipe's: frames follow each other uncompressed, without sound.
    """

    name: str
    muxer: str = ""
    suffixes: tuple[str, ...]
    codecs: tuple[str, ...] = ()
    media_type: str = "application/octet-stream"
    attachments: bool = False
    raw: bool = False


CONTAINERS: dict[str, Container] = {
    each.name: each
    for each in (
        Container(
            name="mkv",
            muxer="matroska",
            suffixes=(".mkv",),
            codecs=("x264", "x265", "av1", "ffv1", "prores"),
            media_type="video/x-matroska",
            attachments=True,
        ),
        Container(
            name="mp4",
            muxer="mp4",
            suffixes=(".mp4", ".m4v"),
            codecs=("x264", "x265", "av1", "ffv1"),
            media_type="video/mp4",
        ),
        Container(
            name="mov",
            muxer="mov",
            suffixes=(".mov",),
            codecs=("x264", "x265", "prores"),
            media_type="video/quicktime",
        ),
        Container(name="webm", muxer="webm", suffixes=(".webm",), codecs=("av1",), media_type="video/webm"),
        Container(name="nut", muxer="nut", suffixes=(".nut",), raw=True),
        Container(name="y4m", muxer="yuv4mpegpipe", suffixes=(".y4m",), raw=True),
        Container(
            name="other",
            suffixes=(".avi", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".wmv", ".3gp"),
        ),
    )
}
"""Containers by name; ``other`` are those that are only read."""

DEFAULT = CONTAINERS["mkv"]
"""What a clip becomes where no name says it."""

SUFFIXES: dict[str, str] = {suffix: each.name for each in CONTAINERS.values() for suffix in each.suffixes}


def container_of_path(path: Path) -> Container | None:
    """Finds the container that a file name's ending stands for, or None."""
    name = SUFFIXES.get(path.suffix.lower())
    return CONTAINERS[name] if name else None


def parts_folder(target: Path, fingerprint: str) -> Path:
    """Returns the folder of an output's parts (segments, pages): beside it, or of an object in the cache.

    Args:
        target: The output.
        fingerprint: Says what determines the parts; ``*`` makes a pattern.
    """
    address = addressed(target)
    above, name = (cache_folder() / "parts", address) if is_address(address) else (target.parent, target.name)
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return above / f".sr-{digest}-{fingerprint}.clip"


def parts_folders(target: Path) -> list[Path]:
    """Finds the folders of an output's parts: what runs have begun, with these or other options."""
    pattern = parts_folder(target, "*")
    return [*pattern.parent.glob(pattern.name)]


def has_video() -> bool:
    """Says whether the extra is installed."""
    return importlib.util.find_spec("av") is not None


def check_video(name: str) -> None:
    """Refuses a clip where the extra is missing.

    Args:
        name: What the clip is called in the message.

    Raises:
        InputError: PyAV is not installed.
    """
    if not has_video():
        raise InputError(f"{name}: a video, for which this program needs an extra; {extra('video')}")


CODEC_NAMES = ("x264", "x265", "av1", "ffv1", "prores")


_video = partial(option, panel=VIDEO, pixels=True)


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Which part of a clip is enlarged, and how it is encoded.

    Raises:
        UsageError: A value is impossible.
    """

    start: float = _video(
        0.0,
        "--start",
        help="Where in a clip to begin: 90, 1m30s.",
        metavar="TIME",
        parse=partial(parse_duration, option="--start"),
    )
    duration: float | None = _video(
        None,
        "--duration",
        help="How much of a clip to enlarge. Default: to its end.",
        metavar="TIME",
        parse=partial(parse_duration, option="--duration"),
    )
    codec: str | None = _video(
        None,
        "--codec",
        help="x264, x265, av1, ffv1 (lossless) or prores. Default: x264, for 10 bits and HDR x265; av1 in WebM.",
        choices=lambda: CODEC_NAMES,
    )
    crf: int | None = _video(
        None,
        "--crf",
        help="Quality of x264, x265 and av1: lower is better and larger. Default: 16, 18, 24.",
        lowest=0,
        highest=63,
    )
    preset: str | None = _video(
        None, "--preset", help="Effort of the encoder: ultrafast to veryslow, av1 0 to 13. Default: medium, av1 6."
    )
    deinterlace: bool = _video(False, "--deinterlace", help="Make whole frames of an interlaced clip (bwdif).")

    def __post_init__(self) -> None:
        if self.codec is not None and self.codec not in CODEC_NAMES:
            raise UsageError(f"--codec is {self.codec!r}; expected one of {', '.join(CODEC_NAMES)}")
        if self.duration is not None and self.duration <= 0:
            raise UsageError("--duration is 0; expected more")
