"""What a request is: every option of `upscale` and `batch`, stated once, handed down whole.

A field states its option (`flags`), and whether pixels depend on it. The command line builds its
options from these fields (`cli.options.command`). A batch builds its fingerprint from them, by which it knows what
would come out the same. So a new option cannot be forgotten in either. This module does not import torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sr_upscale.errors import UsageError
from sr_upscale.flags import FILES, NETWORK, RUNNING, SIZE, option, section_of
from sr_upscale.formatting import shortened
from sr_upscale.images.formats import WRITTEN, Format, SaveOptions
from sr_upscale.inference.backends import BACKENDS
from sr_upscale.inference.sizing import FITS, Target
from sr_upscale.pipeline.parsing import (
    Jobs,
    Shard,
    dtype_name,
    parse_bytes,
    parse_colour,
    parse_format,
    parse_jobs,
    parse_pixels,
    parse_print,
    parse_scale,
    parse_shard,
    parse_size,
    parse_suffix,
)
from sr_upscale.pretrained.registry import CATALOGUE, DEFAULT_MODEL, families, known_names
from sr_upscale.video.containers import CONTAINERS, Container, VideoOptions

_size = partial(option, panel=SIZE, pixels=True)
_network = partial(option, panel=NETWORK, pixels=True)
_file = partial(option, panel=FILES, pixels=True)


@dataclass(frozen=True, kw_only=True)
class SizeOptions:
    """How large the output becomes.

    Raises:
        UsageError: Two options contradict each other, or a size is impossible.
    """

    scale: float | None = _size(
        None,
        "-s",
        "--scale",
        "--outscale",
        help="Factor, such as 2 or 3.5. Default: the model's own; the larger one of a family.",
        metavar="FACTOR",
        parse=parse_scale,
    )
    width: int | None = _size(None, "-w", "--width", help="Output width in pixels instead of a factor.")
    height: int | None = _size(None, "--height", help="Output height in pixels instead of a factor.")
    size: tuple[int, int] | None = _size(
        None, "--size", help="Output size, such as 1920x1080; see --fit.", metavar="WxH", parse=parse_size
    )
    print: tuple[float, float] | None = _size(
        None,
        "--print",
        help="Output size on paper, such as 40x30cm, 8x10in or 100x150mm; see --dpi and --fit.",
        metavar="WxH",
        parse=parse_print,
    )
    dpi: float | None = _size(
        None,
        "--dpi",
        help="Pixels per inch that the output states, and of --print (default: 300).",
        lowest=1,
        highest=65535,
    )
    fit: str = _size(
        "inside",
        "--fit",
        help="When the aspect ratio differs: inside (fit), cover (crop) or stretch.",
        choices=lambda: FITS,
    )
    wrap: str | None = _size(
        None,
        "--wrap",
        help="Seamless textures: the left edge goes on at the right (x), the top at the bottom (y), or both.",
        choices=lambda: ("x", "y", "both"),
    )
    one_pass: bool = _size(False, "--one-pass", help="Run one network, and resize the rest of the way.")

    def __post_init__(self) -> None:
        if (self.size is not None) + (self.print is not None) + (self.width is not None or self.height is not None) > 1:
            raise UsageError("--size, --print and --width or --height contradict each other; give one of them")
        if self.wrap not in (None, "x", "y", "both"):
            raise UsageError(f"--wrap is {shortened(str(self.wrap))!r}; expected x, y or both")
        if self.wrap and ((self.scale or 1) % 1 or (self.target.width, self.target.height) != (None, None)):
            raise UsageError("--wrap takes whole factors, as seams would be cut elsewhere; use --scale 2, 3 or 4")
        self.target  # noqa: B018 (an impossible size is refused here)

    @property
    def target(self) -> Target:
        """Returns what sizing needs of the options."""
        width, height = self.size or (self.width, self.height)
        if self.print is not None and self.resolution is not None:
            width, height = (max(1, round(inches * self.resolution)) for inches in self.print)
        return Target(scale=self.scale, width=width, height=height, fit=self.fit, one_pass=self.one_pass)

    @property
    def resolution(self) -> float | None:
        """Returns the pixels per inch that the output states; None for those of the input."""
        return 300.0 if self.dpi is None and self.print is not None else self.dpi


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Which network computes, and how; see `upscaler.Upscaler`.

    Raises:
        UsageError: Two options contradict each other.
    """

    model: str = _network(
        DEFAULT_MODEL,
        "-n",
        "--model",
        "--model-name",
        "--model-path",
        help=f"Model: a family ({', '.join(families())}), a name of `sr-upscale models`, or a file of weights.",
        choices=known_names,
    )
    fidelity: float | None = _network(
        None, "--fidelity", help="Blend towards the PSNR-trained weights: 0 none, 1 fully.", lowest=0.0, highest=1.0
    )
    denoise: float | None = _network(
        None,
        "-dn",
        "--denoise",
        "--denoise-strength",
        help="How much noise to remove: 0 least, 1 all (photo-x4).",
        lowest=0.0,
        highest=1.0,
    )
    before: tuple[str, ...] = _network(
        (),
        "--before",
        help="Clean the picture first with this 1x model (1x-dejpg-realplksr-otf); may be repeated.",
        choices=lambda: [entry.name for entry in CATALOGUE if entry.scale == 1],
    )
    tta: bool = _network(
        False, "-x", "--tta", help="Self-ensemble: average over 8 flips and rotations, 8 times the work."
    )
    tile: int | None = _network(
        None,
        "-t",
        "--tile",
        help="Tile size in input pixels, 0 for automatic. "
        "Default: built-in models need no tiles; others use the largest that fits in memory.",
    )
    no_tile: bool = _network(False, "--no-tile", help="Process the whole picture at once.")
    overlap: int | None = _network(
        None, "--overlap", help="Input pixels by which neighbouring tiles overlap; they are blended."
    )
    halo: int | None = _network(
        None,
        "--halo",
        "--tile-pad",
        help="Context pixels around a tile. Default: 24; 66 makes tiles of every built-in model exact.",
    )
    max_memory: int | None = _network(
        None,
        "--max-memory",
        help="Memory limit for a picture, such as 2G or 800M. Default: free memory.",
        parse=parse_bytes,
        pixels=False,
    )
    device: str = _network(
        "auto",
        "-g",
        "--device",
        "--gpu-id",
        help="auto, cpu, cuda, cuda:1, mps, vulkan or vulkan:1; several for a folder: 0,1.",
        pixels=False,
    )
    backend: str = _network(
        "auto",
        "--backend",
        help="auto, torch, ncnn (CPU or Vulkan), or on a CPU onnxruntime or openvino; all but torch are extras.",
        choices=lambda: ("auto", *BACKENDS),
    )
    fp32: bool = _network(False, "--fp32", help="Compute in fp32.")
    bf16: bool = _network(False, "--bf16", help="Compute in bf16.")
    fp16: bool = _network(False, "--fp16", help="Compute in fp16 (GPU).")

    def __post_init__(self) -> None:
        self.dtype  # noqa: B018 (two types are refused here)
        if self.no_tile and self.tile:
            raise UsageError("--tile and --no-tile contradict each other; give one of them")

    @property
    def dtype(self) -> str:
        """Returns the one number type that was asked for, or ``auto``."""
        return dtype_name(fp32=self.fp32, bf16=self.bf16, fp16=self.fp16)

    @property
    def tile_size(self) -> int | None:
        """Returns the tile size in LR pixels as `Upscaler` takes it: None is automatic, 0 the whole picture."""
        return 0 if self.no_tile else self.tile or None


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """How pictures are read and written.

    Raises:
        UsageError: A value is impossible.
    """

    format: Format | Container | None = _file(
        None,
        "-f",
        "--format",
        "--ext",
        help="Output format: png, jpg, webp, tif, bmp, gif, avif, jxl (extra); of clips mkv, mp4, mov, webm. "
        "Default: by the output's name, else the input's; of clips mkv.",
        parse=parse_format,
        choices=lambda: (*WRITTEN, *(each.name for each in CONTAINERS.values() if each.muxer)),
    )
    quality: int | None = _file(
        None, "-q", "--quality", help="1-100 for JPEG, WebP, AVIF and JPEG XL; 100 is lossless in WebP and JPEG XL."
    )
    compression: int | None = _file(
        None, "-c", "--compression", help="0-9 for PNG and TIFF: 0 is fastest, 9 is smallest."
    )
    strip_metadata: bool = _file(
        False,
        "--strip-metadata",
        help="Remove EXIF (with the location), XMP, IPTC and texts; keep colour profile and resolution.",
    )
    suffix: str | None = _file(
        None, "--suffix", help="End of output names: big makes photo_big.jpg.", parse=parse_suffix, pixels=False
    )
    background: tuple[int, int, int] | None = _file(
        None,
        "--background",
        help="Background colour if the output format has no transparency: white, #rrggbb.",
        parse=parse_colour,
    )
    max_pixels: int | None = _file(
        None,
        "--max-pixels",
        help="Refuse inputs with more pixels, such as 400MP. Default: 178MP.",
        parse=parse_pixels,
        pixels=False,
    )
    frame: int | None = _file(
        None, "--frame", help="Only this frame of an animation or page of a TIFF, counted from 0."
    )
    allow_truncated: bool = _file(False, "--allow-truncated", help="Enlarge what can be read of a damaged file.")
    force: bool = _file(False, "--force", help="Overwrite existing files.", pixels=False)

    def __post_init__(self) -> None:
        self.save  # noqa: B018 (impossible values are refused here)

    @property
    def save(self) -> SaveOptions:
        """Returns what writing needs of the options."""
        return SaveOptions(
            quality=self.quality,
            background=self.background,
            compression=self.compression,
            strip_metadata=self.strip_metadata,
        )


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the work is shared out."""

    jobs: Jobs | None = option(
        None,
        "-j",
        "--jobs",
        help="Threads that read, compute and write several pictures. Default: from devices and CPU cores.",
        panel=RUNNING,
        metavar="LOAD:PROC:SAVE",
        parse=parse_jobs,
    )
    dry_run: bool = option(
        False, "--dry-run", help="Print sizes, tiles, memory and time; write nothing.", panel=RUNNING
    )


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Which pictures of a folder a process takes, how it tells what is done, and what computes; no part of a request.

    Raises:
        UsageError: Two options contradict each other, or a value is none.
    """

    recursive: bool = option(True, "--recursive/--no-recursive", "-r", help="Search subfolders.")
    shard: Shard | None = option(
        None,
        "--shard",
        metavar="I/N",
        help="Process part I of N (split by file name).",
        panel=RUNNING,
        parse=parse_shard,
    )
    verify: bool = option(
        False, "--verify", help="Detect finished pictures by hash instead of size and time.", panel=RUNNING
    )
    watch: bool = option(
        False, "--watch", help="Go on with whole files that arrive in the folder, until Ctrl-C.", panel=RUNNING
    )
    on: str | None = option(None, "--on", metavar="ray", help="Compute on a Ray cluster (extra).", panel=RUNNING)
    address: str | None = option(
        None, "--address", metavar="HOST:PORT", help="The cluster. Default: this machine's.", panel=RUNNING
    )

    def __post_init__(self) -> None:
        if self.on not in (None, "ray"):
            raise UsageError(f"--on is {shortened(str(self.on))!r}; expected ray")
        if self.address is not None and self.on is None:
            raise UsageError("--address is a cluster's; add --on ray")
        if self.watch and self.on is not None:
            raise UsageError("--watch takes this machine; leave out --on")
        if self.shard is not None and self.on is not None:
            raise UsageError("--on divides the work itself; leave out --shard")


@dataclass(frozen=True, kw_only=True)
class Request:
    """All options, by section."""

    size: SizeOptions = field(default_factory=SizeOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    file: FileOptions = field(default_factory=FileOptions)
    video: VideoOptions = field(default_factory=VideoOptions)
    run: RunOptions = field(default_factory=RunOptions)

    def pixel_options(self) -> dict[str, Any]:
        """Returns the values on which pixels depend, by section and name, ready for JSON, but for defaults.

        So an option that a later version adds makes nothing anew.
        """
        return {
            f"{section.name}.{each.name}": _plain(getattr(getattr(self, section.name), each.name))
            for section in dataclasses.fields(self)
            for each in dataclasses.fields(getattr(self, section.name))
            if each.metadata["pixels"] and getattr(getattr(self, section.name), each.name) != each.default
        }


SECTIONS: dict[str, type] = {
    "size": SizeOptions,
    "network": NetworkOptions,
    "file": FileOptions,
    "video": VideoOptions,
    "run": RunOptions,
}
"""Classes of a `Request`'s fields."""


def request_of(values: dict[str, Any]) -> Request:
    """Builds a request from the values of a command line.

    Args:
        values: By field name, as text or already parsed; None takes the default.

    Raises:
        UsageError: A value cannot be parsed, or two options contradict each other.
    """
    return Request(**{name: section_of(section, values) for name, section in SECTIONS.items()})


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, Format | Container) else value
