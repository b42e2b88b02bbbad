"""One file to one file: decode, adapt to the output format, upscale, encode."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sr_upscale.images import MAX_PIXELS, Format, Picture, SaveOptions, check_target, load_image, save_image
from sr_upscale.images.encode import adapt
from sr_upscale.sizing import Target
from sr_upscale.text import shown

if TYPE_CHECKING:
    from sr_upscale.upscaler import UpscalePlan, Upscaler


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """What to do with a file, besides the network. See `Target`, `SaveOptions` and `load_image`."""

    target: Target
    save: SaveOptions = field(default_factory=SaveOptions)
    max_pixels: int = MAX_PIXELS
    frame: int | None = None
    allow_truncated: bool = False

    def fingerprint(self) -> dict[str, Any]:
        """What of it determines the output."""
        return {key: value for key, value in asdict(self).items() if key != "max_pixels"}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A file that has been read, fits the output format and has a plan."""

    name: str
    picture: Picture
    plan: UpscalePlan
    warnings: tuple[str, ...]


def prepare(source: Path | bytes, fmt: Format, upscaler: Upscaler, settings: JobSettings) -> Prepared:
    """Reads a file and plans its output; computes nothing.

    Raises:
        InputError: The file cannot be used.
        OutputError, UsageError: The format cannot hold the output.
    """
    name = "standard input" if isinstance(source, bytes) else shown(source)
    picture = load_image(
        source, max_pixels=settings.max_pixels, frame=settings.frame, allow_truncated=settings.allow_truncated
    )
    picture, notes = adapt(picture, fmt, settings.save, name=name)
    plan = upscaler.plan(picture, settings.target)
    check_target(fmt, *plan.output_size, name=name)
    return Prepared(name=name, picture=picture, plan=plan, warnings=(*picture.warnings, *notes))


def run(
    source: Path | bytes,
    target: Path | BinaryIO,
    fmt: Format,
    upscaler: Upscaler,
    settings: JobSettings,
    *,
    on_tile: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, Any]:
    """Does one file. Returns what was done, ready for JSON; ``warnings`` is a list of sentences.

    Raises:
        SrUpscaleError: Any of its kinds; the target then is what it was before.
    """
    start = time.monotonic()
    prepared = prepare(source, fmt, upscaler, settings)
    out = upscaler.upscale(prepared.picture, settings.target, on_tile=on_tile)
    save_image(out, target, fmt, settings.save)
    return {
        **describe(prepared, upscaler),
        "format": fmt.name,
        "seconds": round(time.monotonic() - start, 3),
    }


def describe(prepared: Prepared, upscaler: Upscaler) -> dict[str, Any]:
    """A plan in words and numbers, ready for JSON."""
    plan, picture = prepared.plan, prepared.picture
    return {
        "input_sha256": picture.sha256,
        "input_size": list(plan.input_size),
        "output_size": list(plan.output_size),
        "frames": len(picture.frames),
        "channels": picture.channels,
        "bits": picture.bits,
        "models": [step.weights.stem for step in plan.passes],
        "tiles": sum(step.tiles.tiles for step in plan.passes),
        "tile_size": [step.tiles.tile_size for step in plan.passes],
        "resample": "lanczos3" if plan.resample else None,
        "device": str(upscaler.choice.device),
        "dtype": str(upscaler.dtype_for(picture.bits)).removeprefix("torch."),
        "memory_bytes": plan.device_bytes + plan.host_bytes,
        "warnings": list(prepared.warnings),
    }


def estimate_seconds(prepared: Prepared, upscaler: Upscaler) -> float:
    """Seconds that the networks will take, from a timed tile of 96x96 pixels; decoding and encoding come on top."""
    import torch

    dtype = upscaler.dtype_for(prepared.picture.bits)
    seconds = 0.0
    for step in prepared.plan.passes:
        network = upscaler.network(step.weights, dtype)
        probe = torch.rand(1, 3, 96, 96)
        network(probe)
        start = time.monotonic()
        network(probe).cpu()
        seconds += (time.monotonic() - start) / (96 * 96) * step.tiles.pixels_read
    varied_alpha = prepared.picture.has_alpha
    return seconds * len(prepared.picture.frames) * (2 if varied_alpha else 1)
