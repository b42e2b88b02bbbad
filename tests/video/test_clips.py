"""What belongs to a clip and comes out again, by ffprobe; and its pixels, by ffmpeg."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.video.clips import Cli, as_shown, frames_of, make_clip, probed, times_of

pytest.importorskip("av")

KEPT = {
    "vfr.mkv": ("mkv", "mp4"),
    "vfr.mp4": ("mkv", "mp4"),
    "styled.mkv": ("mkv",),
    "hdr.mp4": ("mkv", "mp4"),
    "hlg.mkv": ("mkv",),
    "late.mp4": ("mkv", "mp4"),
    "silent.webm": ("mkv",),
    "fast.mkv": ("mkv", "mp4"),
    "ntsc.mov": ("mkv", "mov"),
    "full.mp4": ("mkv", "mp4"),
    "old.avi": ("mkv", "mp4"),
    "broadcast.ts": ("mkv",),
    "turned.mp4": ("mkv", "mp4"),
    "cover.mp4": ("mkv", "mp4"),
    "two.mkv": ("mkv",),
}
CODECS = (
    [("vfr.mkv", "mkv", codec) for codec in ("x264", "x265", "av1", "ffv1", "prores")]
    + [("vfr.mp4", "mp4", codec) for codec in ("x265", "av1")]
    + [("hdr.mp4", "mkv", "av1")]
)
COLOURS = ("color_range", "color_space", "color_transfer", "color_primaries")


def stated(path: Path) -> dict[str, Any]:
    """Everything that is to be kept, in the same words for all containers."""
    found = probed(path, "-show_streams", "-show_chapters", "-show_format")
    streams = found["streams"]
    video = next(each for each in streams if each["codec_type"] == "video")
    frame = probed(path, "-select_streams", "v:0", "-show_frames", "-read_intervals", "%+#1")["frames"][0]
    light = [
        each
        for each in frame.get("side_data_list", [])
        if "etadata" in each["side_data_type"] and "SEI" not in each["side_data_type"]
    ]
    turns = [each["rotation"] for each in video.get("side_data_list", []) if "rotation" in each]
    # `und` is mp4's word for none, and ffmpeg makes the first stream of a kind mp4's default
    return {
        "colours": {key: video.get(key) for key in COLOURS},
        "aspect": video.get("sample_aspect_ratio", "1:1"),
        "turn": turns,
        "light": [{key: _number(each[key]) for key in each} for each in light],
        "chapters": [(each["start_time"], each["end_time"], each["tags"]["title"]) for each in found["chapters"]],
        "title": found["format"].get("tags", {}).get("title"),
        "languages": [
            each.get("tags", {}).get("language", "und")
            for each in streams
            if each["codec_type"] in ("audio", "subtitle")
        ],
        "comment": [each["disposition"]["comment"] for each in streams if each["codec_type"] == "audio"],
        "forced": [each["disposition"]["forced"] for each in streams if each["codec_type"] == "subtitle"],
        "files": [each["tags"]["filename"] for each in streams if each["codec_type"] == "attachment"],
        "covers": sum(each["disposition"]["attached_pic"] for each in streams),
    }


def _number(value: Any) -> Any:
    return float(Fraction(value)) if isinstance(value, str) and value.replace("/", "").isdigit() else value


def packets(path: Path) -> dict[str, list[tuple[float, str]]]:
    """Time and hash of the packets of sound, subtitles and further streams of video, by kind."""
    found = probed(path, "-show_streams", "-show_packets", "-show_data_hash", "md5")
    kinds = {each["index"]: each["codec_type"] for each in found["streams"] if not each["disposition"]["attached_pic"]}
    main = next(index for index, kind in kinds.items() if kind == "video")
    listed = defaultdict(list)
    for each in found["packets"]:
        number = each["stream_index"]
        if number in kinds and number != main and kinds[number] != "data":
            listed[f"{kinds[number]} {number}"].append((float(each["pts_time"]), each["data_hash"]))
    return {name: sorted(each) for name, each in listed.items()}


def check_kept(source: Path, out: Path, *, aspect: bool = True) -> None:
    """Compares all that is to be kept."""
    tick = Fraction(1, 1000) if out.suffix == ".mkv" else Fraction(1, 10**6)
    before, after = times_of(source), times_of(out)
    assert len(before) == len(after)
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= tick
    was, now = stated(source), stated(out)
    if source.suffix in (".avi", ".ts"):
        was["colours"] = now["colours"]  # untagged: the matrix that was guessed is said
    if was["colours"]["color_space"] is None:
        was["colours"] |= {key: now["colours"][key] for key in ("color_space", "color_range")}
    if out.suffix != ".mkv":
        was["files"], was["comment"], was["forced"] = [], now["comment"], now["forced"]
    if not aspect:
        was["aspect"] = now["aspect"]
    for before_light, after_light in zip(was.pop("light"), now["light"], strict=True):
        numbers = {key: value for key, value in before_light.items() if not isinstance(value, str)}
        assert {key: after_light[key] for key in numbers} == pytest.approx(
            numbers, rel=1e-3, abs=5e-5
        )  # AV1 has fewer bits
    assert now | {"light": None} == was | {"light": None}
    assert len(now["light"]) == 2 * (source.name == "hdr.mp4")
    old, new = packets(source), packets(out)
    assert old.keys() == new.keys()
    for kind, each in old.items():
        texts = kind.startswith("subtitle") and source.suffix != out.suffix
        if not texts:
            assert [digest for _time, digest in each] == [digest for _time, digest in new[kind]], kind
        times = [time for time, _digest in each]
        assert texts or max(abs(a - b) for a, (b, _) in zip(times, new[kind], strict=True)) < 0.0011, kind


@pytest.mark.parametrize(
    ("name", "ending", "codec"),
    [(name, ending, None) for name, endings in KEPT.items() for ending in endings] + CODECS,
)
def test_everything_of_a_clip_is_kept(
    name: str, ending: str, codec: str | None, clips: Path, tmp_path: Path, nearest: Path, cli: Cli
) -> None:
    source, out = make_clip(clips, name), tmp_path / f"out.{ending}"
    ran = cli(source, "-o", out, "-n", nearest, *(["--codec", codec] if codec else []), code=0)
    silent = codec in ("av1", "ffv1", "prores") and ending == "mkv" and name == "vfr.mkv"
    assert ("pixels are not square" in ran.err) == silent
    check_kept(source, out, aspect=not silent)
    assert [each.name for each in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("name", ["vfr.mkv", "full.mp4", "old.avi", "hlg.mkv", "silent.webm", "rgb.mkv", "ntsc.mov"])
def test_pixels_are_those_that_ffmpeg_shows(name: str, clips: Path, tmp_path: Path, nearest: Path, cli: Cli) -> None:
    source, out = make_clip(clips, name), tmp_path / "out.mkv"
    assert cli(source, "-o", out, "-n", nearest, "--codec", "ffv1").code == 0
    form, level = ("rgb48le", 257) if name in ("hlg.mkv", "ntsc.mov") else ("rgb24", 1)
    expected = frames_of(source, form).repeat(2, axis=1).repeat(2, axis=2)
    found = frames_of(out, form).astype(np.int64)
    if name == "rgb.mkv":
        assert (found == expected).all()
    video = probed(out, "-show_streams")["streams"][0]
    again = as_shown(expected, form, video["pix_fmt"], video.get("color_space", "gbr"), video.get("color_range", "pc"))
    assert (abs(found - again.astype(np.int64)) / level).mean() < 1.5


@pytest.mark.parametrize("strip", [False, True])
def test_what_a_file_says_of_itself_is_left_out_if_asked(
    strip: bool, clips: Path, tmp_path: Path, nearest: Path, cli: Cli
) -> None:
    out = tmp_path / "out.mkv"
    assert cli(make_clip(clips, "vfr.mkv"), "-o", out, "-n", nearest, *["--strip-metadata"] * strip).code == 0
    found = probed(out, "-show_format", "-show_streams")
    tags = {key.lower(): value for key, value in found["format"]["tags"].items()}
    assert ("title" in tags, "pixels by nearest-x2" in tags.get("history", "")) == (not strip, not strip)
    assert [each["tags"]["language"] for each in found["streams"] if each["codec_type"] == "audio"] == ["ger", "eng"]
