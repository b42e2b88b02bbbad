"""What can be asked for of clips alone. Light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sr_upscale.errors import UsageError
from sr_upscale.flags import VIDEO, option
from sr_upscale.formatting import parse_duration

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
