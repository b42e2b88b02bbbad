"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated

import typer

from sr_upscale.errors import UsageError

if TYPE_CHECKING:
    from sr_upscale.pipeline.batch import Jobs

_SIZE, _TILES, _FILES, _RUN = "Size", "Network and tiles", "Files", "Running"

Model = Annotated[
    str | None,
    typer.Option(
        "-n",
        "--model",
        "--model-name",
        "--model-path",
        help="Model: a family (photo, psnr), a name of `sr-upscale models`, or a .safetensors or .pth file.",
        rich_help_panel=_TILES,
    ),
]
Scale = Annotated[
    float | None,
    typer.Option("-s", "--scale", "--outscale", help="Factor, such as 2 or 3.5. Default: 4.", rich_help_panel=_SIZE),
]
Width = Annotated[
    int | None, typer.Option("-w", "--width", help="Output width in pixels instead of a factor.", rich_help_panel=_SIZE)
]
Height = Annotated[
    int | None, typer.Option("--height", help="Output height in pixels instead of a factor.", rich_help_panel=_SIZE)
]
Size = Annotated[
    str | None,
    typer.Option("--size", metavar="WxH", help="Exact output size, such as 1920x1080.", rich_help_panel=_SIZE),
]
Tile = Annotated[
    int,
    typer.Option(
        "-t",
        "--tile",
        help="Tile size in input pixels. Default: ours stream, others get what fits.",
        rich_help_panel=_TILES,
    ),
]
NoTile = Annotated[bool, typer.Option("--no-tile", help="The whole picture at once.", rich_help_panel=_TILES)]
Overlap = Annotated[
    int | None, typer.Option("--overlap", help="Input pixels that neighbouring tiles blend.", rich_help_panel=_TILES)
]
Halo = Annotated[
    int | None,
    typer.Option(
        "--halo",
        "--tile-pad",
        help="Input pixels of context around a tile; 51 makes tiles exact.",
        rich_help_panel=_TILES,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "-g",
        "--device",
        "--gpu-id",
        help="auto, cpu, cuda, cuda:1, mps; for a folder also several: 0,1.",
        rich_help_panel=_TILES,
    ),
]
Before = Annotated[
    list[str] | None,
    typer.Option(
        "--before",
        help="Model of factor 1 that cleans the picture first (1x-dejpg-realplksr-otf); may be repeated.",
        rich_help_panel=_TILES,
    ),
]
Fidelity = Annotated[
    float | None,
    typer.Option(
        "--fidelity",
        min=0.0,
        max=1.0,
        help="0 keeps a model's invented detail, 1 is its faithful twin, between them a blend.",
        rich_help_panel=_TILES,
    ),
]
Tta = Annotated[
    bool,
    typer.Option("-x", "--tta", help="Self-ensemble: mean over 8 turns, 8 times the work.", rich_help_panel=_TILES),
]
Backend = Annotated[
    str,
    typer.Option("--backend", help="torch, or on a CPU onnxruntime or openvino (extras).", rich_help_panel=_TILES),
]
Offline = Annotated[bool, typer.Option("--offline", help="Open no connection.", rich_help_panel=_RUN)]
Fp32 = Annotated[bool, typer.Option("--fp32", help="Compute in fp32.", rich_help_panel=_TILES)]
Bf16 = Annotated[bool, typer.Option("--bf16", help="Compute in bf16.", rich_help_panel=_TILES)]
Fp16 = Annotated[bool, typer.Option("--fp16", help="Compute in fp16 (GPU).", rich_help_panel=_TILES)]
FormatName = Annotated[
    str | None,
    typer.Option(
        "-f",
        "--format",
        "--ext",
        help="Output format: png, jpg, webp, tif, bmp, gif, avif. Default: by the output's name, else the input's.",
        rich_help_panel=_FILES,
    ),
]
Quality = Annotated[
    int | None,
    typer.Option(
        "-q", "--quality", help="1-100 for JPEG, WebP and AVIF; 100 is lossless WebP.", rich_help_panel=_FILES
    ),
]
Compression = Annotated[
    int | None,
    typer.Option(
        "-c", "--compression", help="0-9 for PNG and TIFF: quick and large to small and slow.", rich_help_panel=_FILES
    ),
]
StripMetadata = Annotated[
    bool,
    typer.Option(
        "--strip-metadata",
        help="Leave out EXIF with its place, XMP, IPTC and texts; profile and resolution stay.",
        rich_help_panel=_FILES,
    ),
]
Suffix = Annotated[
    str | None,
    typer.Option("--suffix", help="Put behind the stem of output names.", rich_help_panel=_FILES),
]
Background = Annotated[
    str | None,
    typer.Option(
        "--background",
        help="Colour behind transparency where the format has none: white, #rrggbb.",
        rich_help_panel=_FILES,
    ),
]
MaxPixels = Annotated[
    str | None,
    typer.Option(
        "--max-pixels", help="Refuse larger inputs; a number, or 400MP. Default: 178MP.", rich_help_panel=_FILES
    ),
]
FrameNumber = Annotated[
    int | None,
    typer.Option("--frame", help="Only this frame of an animation or page of a TIFF, from 0.", rich_help_panel=_FILES),
]
AllowTruncated = Annotated[
    bool, typer.Option("--allow-truncated", help="Take what is there of a damaged file.", rich_help_panel=_FILES)
]
JobsOption = Annotated[
    str | None,
    typer.Option(
        "-j",
        "--jobs",
        metavar="LOAD:PROC:SAVE",
        help="Threads that read, compute and write when there are several pictures. Default: by devices and cores.",
        rich_help_panel=_RUN,
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        help="What a picture may take, such as 2G or 800M. Default: what is free.",
        rich_help_panel=_TILES,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.", rich_help_panel=_FILES)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say sizes, tiles, memory and time; write nothing.", rich_help_panel=_RUN)
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.", rich_help_panel=_RUN)]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only warnings and errors.", rich_help_panel=_RUN)]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say device, type and tiles.", rich_help_panel=_RUN)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_RUN)]


def dtype_name(*, fp32: bool, bf16: bool, fp16: bool) -> str:
    """The one type that was asked for, or ``auto``."""
    chosen = [name for name, wanted in (("fp32", fp32), ("bf16", bf16), ("fp16", fp16)) if wanted]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} contradict each other; give one of them")
    return chosen[0] if chosen else "auto"


def parse_size(text: str) -> tuple[int, int]:
    """``1920x1080`` -> (1920, 1080)."""
    match = re.fullmatch(r"(\d+)[xX×](\d+)", text.strip())
    if match is None:
        raise UsageError(f"--size is {text!r}; expected WIDTHxHEIGHT such as 1920x1080")
    return int(match[1]), int(match[2])


def parse_pixels(text: str) -> int:
    """``400MP``, ``1.5GP`` or a plain number of pixels."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*(MP|GP)?", text.strip(), flags=re.IGNORECASE)
    if match is None:
        raise UsageError(f"--max-pixels is {text!r}; expected a number of pixels, or one such as 400MP")
    return int(float(match[1]) * {"": 1, "MP": 10**6, "GP": 10**9}[(match[2] or "").upper()])


def parse_bytes(text: str) -> int:
    """``2G``, ``1.5GiB``, ``800M`` or a plain number of bytes; K, M and G are powers of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?|B)?", text.strip(), flags=re.IGNORECASE)
    if match is None or not float(match[1]):
        raise UsageError(f"--max-memory is {text!r}; expected a size such as 2G or 800M")
    return int(float(match[1]) * 1024 ** " KMGT".index((match[2] or " ").upper()))


GPU_THREADS = 4
"""Threads that bring pictures to one GPU; chosen by reasoning, not yet measured."""


def parse_jobs(text: str | None, *, devices: int, gpus: bool = False) -> Jobs:
    """``1:2:2`` (load:proc:save), or by devices and cores.

    A GPU gets more threads than one, so that small pictures meet and run as a batch, and reading and writing keep up.
    """
    from sr_upscale.pipeline.batch import Jobs

    if text is None:
        proc = devices * (GPU_THREADS if gpus else 1)
        return Jobs(load=proc, proc=proc, save=max(proc, (os.cpu_count() or 1) // 4))
    match = re.fullmatch(r"(\d+):(\d+):(\d+)", text.strip())
    if match is None:
        raise UsageError(f"--jobs is {text!r}; expected LOAD:PROC:SAVE such as 1:1:2")
    return Jobs(load=int(match[1]), proc=max(int(match[2]), devices), save=int(match[3]))


def parse_colour(text: str) -> tuple[int, int, int]:
    """``white``, ``#fff``, ``#rrggbb``, ``rgb(1,2,3)`` -> (r, g, b) of 0-255."""
    from PIL import ImageColor

    try:
        red, green, blue, *_alpha = ImageColor.getrgb(text)
    except ValueError as error:
        raise UsageError(f"--background is {text!r}; expected a colour such as white or #rrggbb") from error
    return red, green, blue


def parse_duration(text: str) -> float:
    """``90``, ``45m``, ``1h30m``, ``20s`` -> seconds; a bare number is seconds."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not text.strip() or match is None:
        raise UsageError(f"--max-time is {text!r}; expected a duration such as 45m, 1h30m or 600")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds
