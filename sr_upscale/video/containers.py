"""The table of containers, by the endings of names. Light: every start of the program reads it."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from sr_upscale.errors import InputError
from sr_upscale.formatting import extra


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


def segments_name(target: Path, fingerprint: str = "*") -> str:
    """Names the folder of an output's parts by what determines them; without that the pattern of all its folders."""
    name = hashlib.sha256(target.name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f".sr-{name}-{fingerprint}.clip"


def is_begun(target: Path) -> bool:
    """Says whether there are parts of an output (segments, pages), or a process that makes them."""
    return any(target.parent.glob(segments_name(target)))


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
