"""What can be asked for of clips alone. Light."""

from __future__ import annotations

from dataclasses import dataclass

from sr_upscale.errors import UsageError
from sr_upscale.flags import VIDEO, option
from sr_upscale.formatting import parse_duration

CODEC_NAMES = ("x264", "x265", "av1", "ffv1", "prores")


def _parse_start(text: str) -> float:
    return parse_duration(text, "--start")


def _parse_duration(text: str) -> float:
    return parse_duration(text, "--duration")


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Which part of a clip is enlarged, and how it is encoded.

    Raises:
        UsageError: A value is impossible.
    """

    start: float = option(
        0.0,
        "--start",
        help="Where in a clip to begin: 90, 1m30s.",
        panel=VIDEO,
        pixels=True,
        metavar="TIME",
        parse=_parse_start,
    )
    duration: float | None = option(
        None,
        "--duration",
        help="How much of a clip to enlarge. Default: to its end.",
        panel=VIDEO,
        pixels=True,
        metavar="TIME",
        parse=_parse_duration,
    )
    codec: str | None = option(
        None,
        "--codec",
        help="x264, x265, av1, ffv1 (lossless) or prores. Default: x264, for 10 bits and HDR x265; av1 in WebM.",
        panel=VIDEO,
        pixels=True,
        choices=lambda: CODEC_NAMES,
    )
    crf: int | None = option(
        None,
        "--crf",
        help="Quality of x264, x265 and av1: lower is better and larger. Default: 16, 18, 24.",
        panel=VIDEO,
        pixels=True,
        lowest=0,
        highest=63,
    )
    preset: str | None = option(
        None,
        "--preset",
        help="Effort of the encoder: ultrafast to veryslow, av1 0 to 13. Default: medium, av1 6.",
        panel=VIDEO,
        pixels=True,
    )
    deinterlace: bool = option(
        False, "--deinterlace", help="Make whole frames of an interlaced clip (bwdif).", panel=VIDEO, pixels=True
    )

    def __post_init__(self) -> None:
        if self.codec is not None and self.codec not in CODEC_NAMES:
            raise UsageError(f"--codec is {self.codec!r}; expected one of {', '.join(CODEC_NAMES)}")
        if self.duration is not None and self.duration <= 0:
            raise UsageError("--duration is 0; expected more")
