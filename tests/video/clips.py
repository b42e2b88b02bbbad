"""Clips made by ffmpeg, and what ffprobe says of a file: the independent truth about what is kept."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.helpers import program

SUBTITLES = "1\n00:00:00,100 --> 00:00:00,600\nHello\n\n2\n00:00:00,700 --> 00:00:01,100\nGood night\n"
ASS = """[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Sans,20
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.10,0:00:00.60,Default,,0,0,0,,Hello {\\i1}there{\\i0}
"""
CHAPTERS = """;FFMETADATA1
title=Film
[CHAPTER]
TIMEBASE=1/1000
START=0
END=500
title=One
[CHAPTER]
TIMEBASE=1/1000
START=500
END=1200
title=Two
"""
PICTURE = "-f lavfi -i testsrc2=s={size}:r={rate}:d={seconds}"
SOUND = "-f lavfi -i sine=r=48000:d=1.3"
HD = "-color_primaries bt709 -color_trc bt709 -colorspace bt709 -color_range tv"
MASTER = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):max-cll=1000,400"
PQ = "-pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc -color_range tv"
HLG = PQ.replace("smpte2084", "arib-std-b67")
EXACT = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
ODD_TIMES = "select='not(eq(mod(n,5),3))',setsar=8/9"

CLIPS: dict[str, str] = {
    "vfr.mkv": f"{PICTURE} {SOUND} -i s.srt -i chapters.txt -map 0:v -map 1:a -map 1:a -map 2 -map_metadata 3 "
    f"-map_chapters 3 -vf {ODD_TIMES} -vsync vfr -c:v libx264 -bf 2 {HD} -c:a aac -c:s srt "
    "-metadata:s:a:0 language=ger -metadata:s:a:1 language=eng -metadata:s:a:1 title=Comment -disposition:a:1 comment "
    "-metadata:s:s:0 language=fre -disposition:s:0 forced -attach font.ttf -metadata:s:t mimetype=font/ttf",
    "vfr.mp4": f"{PICTURE} {SOUND} -i s.srt -i chapters.txt -map 0:v -map 1:a -map 1:a -map 2 -map_metadata 3 "
    f"-map_chapters 3 -vf {ODD_TIMES} -vsync vfr -c:v libx264 -bf 2 {HD} -c:a aac -c:s mov_text "
    "-metadata:s:a:0 language=ger -metadata:s:a:1 language=eng -metadata:s:s:0 language=fre",
    "styled.mkv": f"{PICTURE} -i s.ass -map 0 -map 1 -c:v libx264 -c:s copy -attach font.ttf "
    "-metadata:s:t mimetype=font/ttf",
    "hdr.mp4": f"{PICTURE} {SOUND} -c:v libx265 -x265-params log-level=none:hdr10=1:{MASTER} {PQ} -tag:v hvc1 -c:a aac",
    "hlg.mkv": f"{PICTURE} -c:v libx265 -x265-params log-level=none {HLG}",
    "late.mp4": f"{PICTURE} -itsoffset 0.4 {SOUND} -map 0 -map 1 -c:v libx264 {HD} -c:a aac",
    "silent.webm": f"{PICTURE} -c:v libvpx-vp9 {HD}",
    "fast.mkv": f"{PICTURE} {SOUND} -c:v libx264 -bf 3 -c:a libopus".replace("{rate}", "100"),
    "ntsc.mov": f"{PICTURE} {SOUND} -c:v prores_ks -pix_fmt yuv422p10le -c:a pcm_s16le".replace("{rate}", "24000/1001"),
    "full.mp4": f"{PICTURE} -c:v libx264 -pix_fmt yuvj420p -color_range pc -colorspace smpte170m",
    "old.avi": f"{PICTURE} {SOUND} -c:v mpeg4 -bf 2 -c:a libmp3lame",
    "broadcast.ts": f"{PICTURE} {SOUND} -c:v mpeg2video -bf 2 -c:a mp2",
    "rgb.mkv": f"{PICTURE} -c:v ffv1 -pix_fmt bgr0",
    "turned.mp4": "-i plain.mp4 -c copy -metadata:s:v rotate=90",
    "cover.mp4": f"{PICTURE} {SOUND} -f lavfi -i color=red:s=32x32:d=0.04:r=25 -map 0 -map 1 -map 2 "
    "-c:v:0 libx264 -c:v:1 png -disposition:v:1 attached_pic -c:a aac",
    "plain.mp4": f"{PICTURE} {SOUND} -c:v libx264 -pix_fmt yuv420p -bf 2 {HD} -c:a aac",
    "still.mkv": "-f lavfi -i color=gray:s=64x48:r=25:d=1.2 -c:v libx264 -crf 1",
    "fields.mkv": f"{PICTURE} -vf interlace -c:v libx264 -flags +ilme+ildct -top 1".replace("{rate}", "50"),
    "two.mkv": f"{PICTURE} {PICTURE} -map 0 -map 1 -c:v libx264 -pix_fmt yuv420p",
    "flash.mkv": f"{PICTURE} {SOUND} -c:v ffv1 -c:a pcm_s16le",
}
"""Arguments of ffmpeg by the name of the clip."""


def make_clip(folder: Path, name: str, *, size: str = "64x48", rate: str = "25", seconds: float = 1.2) -> Path:
    """Makes a clip of the table, once."""
    path = folder / name
    if not path.exists():
        for file, text in (
            ("s.srt", SUBTITLES),
            ("s.ass", ASS),
            ("chapters.txt", CHAPTERS),
            ("font.ttf", "glyphs" * 99),
        ):
            (folder / file).write_text(text)
        if name == "turned.mp4":
            make_clip(folder, "plain.mp4")
        arguments = CLIPS[name].format(size=size, rate=rate, seconds=seconds)
        ffmpeg(*arguments.split(), name, cwd=folder)
    return path


def ffmpeg(*arguments: str | Path, cwd: Path | None = None) -> bytes:
    """What ffmpeg writes to its standard output."""
    command = [program("ffmpeg"), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def probed(path: Path, *entries: str) -> Any:
    """What ffprobe says."""
    command = [program("ffprobe"), "-v", "error", *entries, "-of", "json", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def frames_of(path: Path, form: str = "rgb24", before: str = "") -> NDArray[Any]:
    """All frames as ffmpeg itself shows them, unturned, behind a filter: (N, H, W, 3) uint8 or uint16."""
    video = next(each for each in probed(path, "-show_streams")["streams"] if each["codec_type"] == "video")
    flags = f"{before}scale=flags={EXACT}{_left('in', video['pix_fmt'])}"
    data = ffmpeg(
        "-noautorotate",
        "-i",
        path,
        "-map",
        "0:v:0",
        "-vf",
        flags,
        "-fps_mode",
        "passthrough",
        "-pix_fmt",
        form,
        "-f",
        "rawvideo",
        "-",
    )
    kind = np.uint16 if "48" in form else np.uint8
    return np.frombuffer(data, kind).reshape(-1, video["height"], video["width"], 3)


def _left(side: str, samples: str) -> str:
    """Says that samples of chroma lie on those of the left, which newer releases of ffmpeg know."""
    down = f":{side}_v_chr_pos=128" if "420" in samples else ""
    return f":{side}_h_chr_pos=0{down}" if "420" in samples or "422" in samples else ""


def as_shown(pixels: NDArray[Any], form: str, samples: str, matrix: str, levels: str) -> NDArray[Any]:
    """What ffmpeg itself makes of pixels (N, H, W, 3) by way of these samples."""
    _count, height, width, _channels = pixels.shape
    matrix = {"bt2020nc": "bt2020", "gbr": "bt709"}.get(matrix, matrix)
    there = f"scale=flags={EXACT}:out_color_matrix={matrix}:out_range={levels}{_left('out', samples)},format={samples}"
    back = f"scale=flags={EXACT}:in_color_matrix={matrix}:in_range={levels}{_left('in', samples)},format={form}"
    raw = ["-f", "rawvideo", "-pix_fmt", form, "-s", f"{width}x{height}"]
    command = [program("ffmpeg"), "-v", "error", *raw, "-i", "-", "-vf", f"{there},{back}", "-f", "rawvideo", "-"]
    done = subprocess.run(command, input=pixels.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, pixels.dtype).reshape(pixels.shape)


def times_of(path: Path) -> list[Fraction]:
    """Time stamps of all frames, in seconds."""
    found = probed(path, "-select_streams", "v:0", "-show_entries", "stream=time_base:frame=pts,pkt_dts")
    unit = Fraction(found["streams"][0]["time_base"])
    first = int(found["frames"][0]["pkt_dts"])  # AVI has no others, and a frame in each unit
    return [int(each.get("pts", first + number)) * unit for number, each in enumerate(found["frames"])]


def hashes(path: Path) -> list[str]:
    """Hashes of all decoded frames."""
    listed = (
        ffmpeg("-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-").decode().splitlines()
    )
    return [line.rsplit(",", 1)[1].strip() for line in listed if not line.startswith("#")]


Cli = Callable[..., Any]
