"""What will be done to a picture: which networks, cut how, in how much memory. Nothing is computed or loaded here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sr_upscale.errors import OutOfMemoryError, UsageError
from sr_upscale.inference.strips import fit_rows, stream_bytes
from sr_upscale.inference.tiling import MIN_TILE, StripPlan, TilePlan, fit_tile_size, plan_tiles
from sr_upscale.models.descriptor import Traits

OVERLAP = 8
"""LR pixels that neighbouring tiles blend by default."""

HALO = 16
"""LR pixels of context of a tile by default. The receptive field is 51, but what the trained networks take from
beyond 16 changes 8-bit values by at most 1, and few of them (docs/tiling.md); `halo=51` is exact for any weights."""

FOREIGN_HALO = 32
"""LR pixels of context for networks whose receptive field is not known."""

CPU_TILE_PIXELS = 448 * 448
"""Largest tile on a CPU, in LR pixels read: larger working sets leave its cache and run slower, smaller ones
recompute more halo (docs/tiling.md)."""

MIN_COLUMN = 64
"""Narrowest column of a strip, in LR pixels, that memory forces."""

MEMORY_SHARE = 0.5
"""Share of the free memory that a strip or tile may take."""

PROGRAM_BYTES = 16 << 20
"""What a run adds to the loaded program: threads, and scratch memory of the libraries. On a CPU, a small picture that
runs whole in half precision finds as much left free by the check of the loaded network."""

DECODER_ROWS, ENCODER_ROWS = 3000, 1250
"""Rows of pixels that libvips holds while it reads and writes by rows (docs/images.md)."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One run of a network over the whole picture, in strips (our generators) or in tiles."""

    weights: Path
    scale: int
    cut: StripPlan | TilePlan
    half: bool


@dataclass(frozen=True, kw_only=True)
class UpscalePlan:
    """What will be done to one frame. Integers and paths; nothing has been computed or loaded.

    Attributes:
        input_size, output_size: (width, height).
        passes: Networks, in order.
        resample: Whether a Lanczos step follows, from the passes' size to the output's.
        device_bytes: Estimate of what the networks take at most.
        host_bytes: Estimate of what input, bands of rows and output take in host memory.
    """

    input_size: tuple[int, int]
    output_size: tuple[int, int]
    passes: tuple[Pass, ...]
    resample: bool
    device_bytes: int
    host_bytes: int

    @property
    def steps(self) -> int:
        """Strips and tiles of all passes."""
        return sum(step.cut.steps for step in self.passes)


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How pictures are cut.

    Attributes:
        device_type: ``cpu``, ``cuda`` or ``mps``.
        tile_size: Core of a tile in LR pixels; None chooses by memory, 0 takes the whole picture.
        overlap, halo: LR pixels; None takes the default.
        streams: Whether networks that can stream do.
    """

    device_type: str
    tile_size: int | None = None
    overlap: int | None = None
    halo: int | None = None
    streams: bool = True

    def __post_init__(self) -> None:
        if self.tile_size is not None and self.tile_size != 0 and self.tile_size < MIN_TILE:
            raise UsageError(f"tile size is {self.tile_size}; expected at least {MIN_TILE}, or 0 for automatic")
        overlap, halo = self.overlap or 0, self.halo or 0
        if overlap < 0 or overlap % 2 or halo < 0:
            raise UsageError(f"overlap is {overlap} and halo {halo}; expected an even overlap and nothing negative")

    def cut(self, height: int, width: int, traits: Traits, *, half: bool, budget: int) -> StripPlan | TilePlan:
        """The cut of a picture that takes at most `budget` bytes, or the smallest there is."""
        asked_for_tiles = bool(self.tile_size) or self.overlap is not None or self.halo is not None
        if traits.config is not None and self.streams and not asked_for_tiles:
            plan = StripPlan(
                height=height,
                width=width,
                rows=fit_rows(height, width, self.device_type, half=half),
                column=0,
                halo=traits.config.halo,
            )
            while cut_bytes(plan, traits, half=half) > budget and (smaller := smaller_cut(plan)) is not None:
                plan = smaller  # type: ignore[assignment]
            return plan
        overlap = OVERLAP if self.overlap is None else self.overlap
        wanted = self.halo if self.halo is not None else HALO if traits.halo is not None else FOREIGN_HALO
        halo = wanted if traits.halo is None else min(wanted, traits.halo)
        tile_size = self.tile_size
        if tile_size is None:
            fits = min(budget // _per_pixel(traits, half=half), traits.max_tile_pixels)
            if self.device_type == "cpu":
                fits = min(fits, CPU_TILE_PIXELS)
            tile_size = fit_tile_size(height, width, max_pixels=fits, overlap=overlap, halo=halo)
        return plan_tiles(height, width, tile_size=tile_size, overlap=overlap, halo=halo)


def cut_bytes(cut: StripPlan | TilePlan, traits: Traits, *, half: bool) -> int:
    """Estimate of the memory that a network takes, in bytes."""
    if isinstance(cut, StripPlan):
        assert traits.config is not None
        if cut.whole:
            return cut.height * cut.width * _per_pixel(traits, half=half)
        return stream_bytes(traits.config, cut.width, cut.rows, column=cut.column, half=half)
    return cut.largest_tile_pixels * _per_pixel(traits, half=half)


def smaller_cut(cut: StripPlan | TilePlan) -> StripPlan | TilePlan | None:
    """Half as much at a time: tiles of half the side; strips of half the rows, then columns of half the width."""
    if isinstance(cut, TilePlan):
        now = min(cut.tile_size or 1 << 30, max(cut.height, cut.width))
        if now <= MIN_TILE:
            return None
        size = max(MIN_TILE, now // 2)
        return plan_tiles(cut.height, cut.width, tile_size=size, overlap=cut.overlap, halo=cut.halo)
    if cut.rows > 1:
        return dataclasses.replace(cut, rows=cut.rows // 2)
    column = (cut.column or cut.width) // 2
    return dataclasses.replace(cut, column=column) if column >= MIN_COLUMN else None


def smaller_plan(plan: UpscalePlan, device: torch.device) -> UpscalePlan:
    """The plan with everything cut smaller, after memory ran out.

    Raises:
        OutOfMemoryError: Nothing can be cut any smaller.
    """
    cuts = [smaller_cut(step.cut) for step in plan.passes]
    if all(cut is None for cut in cuts):
        smallest = plan.passes[-1].cut
        what = (
            f"tiles of {min(smallest.tile_size or 1 << 30, max(smallest.height, smallest.width))} pixels"
            if isinstance(smallest, TilePlan)
            else f"single rows of {smallest.column or smallest.width} pixels"
        )
        raise OutOfMemoryError(f"out of memory on {device} even with {what}; close other programs, or use --device cpu")
    passes = [dataclasses.replace(step, cut=cut or step.cut) for step, cut in zip(plan.passes, cuts, strict=True)]
    return dataclasses.replace(plan, passes=tuple(passes))


FILL_BYTES = 48
"""For each pixel, while `extend_colour` fills: colours, weights and the coarser level as float32, and the result."""


def plan_host_bytes(
    *,
    input_bytes: int,
    output_bytes: int,
    row_bytes: tuple[int, int],
    channels: int,
    passes: Sequence[Pass],
    resample: bool,
    filled_pixels: int,
    on_cpu: bool,
) -> int:
    """Estimate of the host memory around the networks, in bytes.

    Args:
        input_bytes: Of the decoded picture if it is held as a whole, else 0.
        output_bytes: Of the enlarged picture if it is held as a whole, else 0.
        row_bytes: Of a row of the input, and of the output.
        channels: 1 to 4.
        passes: Networks, in order.
        resample: Whether a Lanczos step follows.
        filled_pixels: Of the input, if colour must be filled in under transparent parts, else 0.
        on_cpu: Whether the networks run in the same memory.
    """
    bands = filled_pixels * FILL_BYTES
    # a network that takes the picture in one piece has freed more than its bands take by the time they are made
    beside = [step for step in passes if not (on_cpu and isinstance(step.cut, StripPlan) and step.cut.whole)]
    program = PROGRAM_BYTES if beside or not all(step.half for step in passes) else 0
    for step in beside:
        cut = step.cut
        rows = (
            cut.rows if isinstance(cut, StripPlan) else 2 * max(span.read_stop - span.read_start for span in cut.rows)
        )
        bands += cut.width * rows * 4 * max(channels, 3)  # what goes in, as float
        bands += cut.width * rows * step.scale**2 * 4 * max(channels, 3) * 2  # what comes out, and a copy of it
    last = passes[-1]
    if resample:
        bands += 12 * last.cut.width * last.scale * 16  # rows under the kernel
    held_in = input_bytes or DECODER_ROWS * row_bytes[0]
    held_out = output_bytes or min(ENCODER_ROWS, passes[-1].cut.height * passes[-1].scale) * row_bytes[1]
    return program + held_in + held_out + bands


def _per_pixel(traits: Traits, *, half: bool) -> int:
    return traits.half_bytes_per_pixel if half else traits.bytes_per_pixel
