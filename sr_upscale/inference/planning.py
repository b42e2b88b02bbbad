"""What will be done to a picture: which networks, cut how, in how much memory.

Nothing is computed or loaded here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sr_upscale import __version__
from sr_upscale.device import CPU, Choice, Device, free_memory
from sr_upscale.errors import OutOfMemoryError, UsageError
from sr_upscale.formatting import mebibytes, shown
from sr_upscale.images.picture import Frame, FrameSource, Picture, RowSource, strips_of
from sr_upscale.images.xmp import Change
from sr_upscale.inference.memory import (
    MAPS,
    MEMORY_SHARE,
    NCNN_MAPS,
    PROGRAM_BYTES,
    bytes_per_pixel,
    cut_bytes,
    plan_host_bytes,
)
from sr_upscale.inference.sizing import Target, choose_factors
from sr_upscale.inference.tiling import MIN_TILE, Pass, StripPlan, TilePlan, fit_rows, fit_tile_size, plan_tiles
from sr_upscale.models.descriptor import Traits
from sr_upscale.storage.atomic import hash_file

OVERLAP = 8
"""LR pixels in which neighbouring tiles are blended by default."""

HALO = 24
"""LR pixels of context of a tile by default.

Receptive fields are 51 and 66. What the trained networks take from beyond 24 changes 8-bit values by at most 1, and few
of them (docs/tiling.md). A halo of the receptive field is exact for any weights."""

FOREIGN_HALO = 32
"""LR pixels of context for networks whose receptive field is not known."""

CPU_TILE_PIXELS = 448 * 448
"""Largest tile on a CPU, in LR pixels read.

Larger working sets leave the CPU's cache and run slower. Smaller ones recompute more halo (docs/tiling.md)."""

EXACT_TILE_PIXELS = 1024 * 1024
"""Largest tile with the whole receptive field around it. Smaller ones recompute too much."""

MIN_COLUMN = 64
"""Narrowest column of a strip, in LR pixels, that memory forces."""


@dataclass(frozen=True, kw_only=True)
class UpscalePlan:
    """What will be done to one frame. A plan is integers and paths; nothing has been computed or loaded.

    Attributes:
        input_size, output_size: (width, height) in pixels.
        enlarged_size: (width, height) of the whole picture, of which the output is the middle; mostly the same.
        passes: Networks, in order.
        resample: Whether a Lanczos step follows, from the passes' size to the enlarged one.
        device_bytes: Estimate of what the networks take at most, in bytes.
        host_bytes: Estimate of what input, bands of rows and output take in host memory, in bytes.
    """

    input_size: tuple[int, int]
    enlarged_size: tuple[int, int]
    output_size: tuple[int, int]
    passes: tuple[Pass, ...]
    resample: bool
    device_bytes: int
    host_bytes: int

    @property
    def steps(self) -> int:
        """Returns the number of strips and tiles of all passes."""
        return sum(step.cut.steps for step in self.passes)


def change_by(plan: UpscalePlan) -> Change:
    """Says what a plan does, for the history of the output: the same text for the same pixels, so no time of day."""
    models = ", ".join(f"{shown(step.weights.stem)} (sha256 {_hash_of(step.weights)})" for step in plan.passes)
    sizes = " to ".join(f"{width}x{height}" for width, height in (plan.input_size, plan.output_size))
    return Change(
        software=f"sr-upscale {__version__}",
        parameters=f"{sizes} pixels by {models or 'Lanczos'}",
        before=plan.input_size,
    )


def _hash_of(weights: Path) -> str:
    return _hash_at(weights, weights.stat().st_mtime_ns)


@functools.cache
def _hash_at(weights: Path, _changed_ns: int) -> str:
    return hash_file(weights)  # once, and not for each picture of a batch


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How pictures are cut.

    Attributes:
        device_type: ``cpu``, ``cuda``, ``mps`` or ``vulkan``.
        tile_size: Core of a tile in LR pixels. None chooses by memory, 0 takes the whole picture.
        overlap: LR pixels in which neighbouring tiles are blended, even. None takes the default.
        halo: LR pixels of context around a tile. None takes the default.
        streams: Whether networks that can stream do, where nothing asks for tiles. A tile size above 0, an overlap or a
            halo asks for them.
        ncnn: Whether ncnn runs the networks. Its tiles read the whole receptive field, where it is known and nothing
            else is asked for, and do not blend: so they equal the whole picture.

    Raises:
        UsageError: A tile size, overlap or halo that cannot be.
    """

    device_type: str
    tile_size: int | None = None
    overlap: int | None = None
    halo: int | None = None
    streams: bool = True
    ncnn: bool = False

    def __post_init__(self) -> None:
        if self.tile_size is not None and self.tile_size != 0 and self.tile_size < MIN_TILE:
            raise UsageError(f"tile size is {self.tile_size}; expected at least {MIN_TILE}, or 0 for automatic")
        overlap, halo = self.overlap or 0, self.halo or 0
        if overlap < 0 or overlap % 2 or halo < 0:
            raise UsageError(f"overlap is {overlap} and halo {halo}; expected an even overlap and nothing negative")

    @property
    def maps(self) -> int:
        """Returns how many maps a tile takes (`memory.NCNN_MAPS`)."""
        return NCNN_MAPS if self.ncnn else MAPS

    def cut(self, height: int, width: int, traits: Traits, *, half: bool, budget: int) -> StripPlan | TilePlan:
        """Cuts a picture so that a network takes at most `budget` bytes, or into the smallest cut there is.

        Tiles of a size that was asked for keep it, whatever the budget.

        Args:
            height, width: The picture, in LR pixels.
            traits: The network.
            half: Whether it runs in half precision.
            budget: Bytes.
        """
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
        exact = self.ncnn and traits.halo is not None
        overlap = self.overlap if self.overlap is not None else 0 if exact else OVERLAP
        halo = self._halo(traits)
        tile_size = self.tile_size
        if tile_size is None:
            fits = min(budget // bytes_per_pixel(traits, half=half, maps=self.maps), traits.max_tile_pixels)
            if exact:
                fits = min(fits, EXACT_TILE_PIXELS)
            elif self.device_type == "cpu":
                fits = min(fits, CPU_TILE_PIXELS)
            tile_size = fit_tile_size(height, width, max_pixels=fits, overlap=overlap, halo=halo)
        return plan_tiles(height, width, tile_size=tile_size, overlap=overlap, halo=halo)

    def _halo(self, traits: Traits) -> int:
        """Returns the context of a tile: what was asked for, but no more than the network sees."""
        if traits.halo is None:
            return self.halo if self.halo is not None else FOREIGN_HALO
        if self.ncnn and self.halo is None:
            return traits.halo
        return min(self.halo if self.halo is not None else HALO, traits.halo)


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Plans for one set of networks on one device.

    Attributes:
        weights: Weights file of each factor.
        before: Weights files of the networks of factor 1 that run first, in order.
        traits: What is known of the network of each of these files.
        choice: Device and number type.
        automatic_dtype: Whether the type was chosen and not asked for.
        cutting: How pictures are cut.
        max_memory: Bytes that a picture may take beyond the loaded program; None takes what is free.
    """

    weights: Mapping[int, Path]
    before: Sequence[Path]
    traits: Mapping[Path, Traits]
    choice: Choice
    automatic_dtype: bool
    cutting: Cutting
    max_memory: int | None = None

    def plan(
        self,
        picture: Picture,
        target: Target,
        *,
        streamed: bool = False,
        writer_bytes: Callable[[int], int] = lambda _pixels: 0,
        queued: bool = False,
    ) -> UpscalePlan:
        """Plans what will be done to a picture. Loads no weights and computes nothing.

        Args:
            picture: An upright picture.
            target: The size that was asked for.
            streamed: Whether the output leaves by rows, and never stands in memory as a whole.
            writer_bytes: Says how many bytes are held while frames of so many pixels each are written, besides the
                frames (`formats.WriterMemory`). Counts where nothing is streamed.
            queued: Whether rows wait in a queue to be written.

        Raises:
            UsageError: The size is impossible.
        """
        width, height = picture.width, picture.height
        enlarged = target.enlarged_size(width, height, default_scale=max(self.weights))
        out_width, out_height = target.output_size(width, height, default_scale=max(self.weights))
        needed = math.sqrt(enlarged[0] / width * enlarged[1] / height)
        factors = choose_factors(self.weights, needed, one_pass=target.one_pass)
        paths = (*self.before, *(self.weights[factor] for factor in factors))
        sample_bytes = picture.bits // 8 * picture.channels
        frames = len(picture.frames)
        by_rows = isinstance(picture.frames[0].pixels_hwc, RowSource)
        by_frames = isinstance(picture.frames, FrameSource)
        input_bytes = 0 if by_rows else width * height * sample_bytes * (1 if by_frames else frames)
        output_bytes = 0
        if not streamed:
            output_bytes = out_width * out_height * sample_bytes + writer_bytes(out_width * out_height)
        budget = int(free_memory(self.choice.device) * MEMORY_SHARE)
        if self.max_memory is not None:
            around = PROGRAM_BYTES + (input_bytes + output_bytes if self.choice.device.type != "cuda" else 0)
            budget = min(budget, max(0, self.max_memory - around) // len(paths))
        passes: list[Pass] = []
        device_bytes = 0
        at_width, at_height = width, height
        for path in paths:
            traits = self.traits[path]
            half = self.dtype_of(path, self.dtype_for(picture.bits)) != "float32"
            cut = self.cutting.cut(at_height, at_width, traits, half=half, budget=budget)
            device_bytes += cut_bytes(cut, traits, half=half, maps=self.cutting.maps)
            passes.append(Pass(weights=path, scale=traits.scale, cut=cut, half=half))
            at_width, at_height = at_width * traits.scale, at_height * traits.scale
        resample = (at_width, at_height) != enlarged
        return UpscalePlan(
            input_size=(width, height),
            enlarged_size=enlarged,
            output_size=(out_width, out_height),
            passes=tuple(passes),
            resample=resample,
            device_bytes=device_bytes,
            host_bytes=plan_host_bytes(
                input_bytes=input_bytes,
                output_bytes=output_bytes,
                row_bytes=(width * sample_bytes, enlarged[0] * sample_bytes),
                channels=picture.channels,
                passes=passes,
                resample=resample,
                filled_pixels=width * height if picture.has_alpha and any(map(_needs_fill, picture.frames)) else 0,
                on_cpu=self.choice.device.type == "cpu",
                queued=queued,
            ),
        )

    def check_memory(self, plan: UpscalePlan, picture: Picture) -> None:
        """Refuses a plan that needs more memory than there is, or than is allowed.

        Raises:
            OutOfMemoryError: The plan needs too much; the message says how much.
        """
        free = free_memory(CPU)
        needed = plan.host_bytes + (plan.device_bytes if self.choice.device.type != "cuda" else 0)
        (width, height), (out_width, out_height) = plan.input_size, plan.output_size
        what = f"{width}x{height} to {out_width}x{out_height} ({picture.bits}-bit)"
        what = f"{what} needs about {mebibytes(needed)} of memory"
        if needed > free:
            raise OutOfMemoryError(f"{what}; {mebibytes(free)} is free; use a smaller scale")
        if self.max_memory is not None and needed > self.max_memory:
            raise OutOfMemoryError(f"{what}; {mebibytes(self.max_memory)} is allowed; raise --max-memory")

    def dtype_for(self, bits: int) -> str:
        """Chooses the number type for pictures of 8 or 16 bits.

        Half precision cannot hold 16 bits. It is taken for them only if it was asked for.
        """
        return "float32" if self.automatic_dtype and bits == 16 else self.choice.dtype

    def dtype_reason(self, bits: int) -> str:
        """Says why `dtype_for` chose its type."""
        return "16 bits need fp32" if self.automatic_dtype and bits == 16 else self.choice.dtype_reason

    def dtype_of(self, weights: Path, dtype: str) -> str:
        """Returns `dtype`, or float32 if the model is unstable in half precision."""
        bears = {"float16": "fp16", "bfloat16": "bf16"}.get(dtype)
        return dtype if bears is None or bears in self.traits[weights].half else "float32"


def _needs_fill(frame: Frame) -> bool:
    """Says whether some but not all pixels are fully transparent."""
    pixels = frame.pixels_hwc
    if pixels.shape[2] not in (2, 4):
        return False
    lowest_and_highest = [(strip[:, :, -1].min(), strip[:, :, -1].max()) for strip in strips_of(pixels, 256)]
    lows, highs = zip(*lowest_and_highest, strict=True)
    return bool(min(lows) == 0 and max(highs) > 0)


def smaller_cut(cut: StripPlan | TilePlan) -> StripPlan | TilePlan | None:
    """Makes a cut that takes half as much at a time; None where nothing can be cut any smaller.

    Tiles get half the side. Strips get half the rows, and when they are single rows, columns of half the width.
    """
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


def smaller_plan(plan: UpscalePlan, device: Device) -> UpscalePlan:
    """Makes the plan with everything cut smaller, after memory ran out.

    Args:
        plan: What did not fit.
        device: Where it did not fit, to be named in the error.

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
        other = "" if device.type == "cpu" else ", or use --device cpu"
        raise OutOfMemoryError(f"out of memory on {device} even with {what}; close other programs{other}")
    passes = [dataclasses.replace(step, cut=cut or step.cut) for step, cut in zip(plan.passes, cuts, strict=True)]
    return dataclasses.replace(plan, passes=tuple(passes))
