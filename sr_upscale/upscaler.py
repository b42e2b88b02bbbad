"""The product, as a function: ``Upscaler()(image, scale=2)``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_upscale.alpha import extend_colour
from sr_upscale.arrays import ImageKind, like, pixels_of
from sr_upscale.blend import blended
from sr_upscale.color import to_pixels, to_tensor
from sr_upscale.device import choose, free_memory, is_out_of_memory
from sr_upscale.engine.backends import BACKENDS, BackendNetwork
from sr_upscale.engine.ensemble import self_ensemble
from sr_upscale.engine.network import Network
from sr_upscale.engine.tiles import run_tiles
from sr_upscale.errors import ModelError, OutOfMemoryError, UsageError
from sr_upscale.images.picture import Frame, Picture
from sr_upscale.loading import module_of, traits_of
from sr_upscale.metrics import psnr
from sr_upscale.resize import resize
from sr_upscale.sizing import Target, choose_factors
from sr_upscale.store import DEFAULT_MODEL, resolve_family, resolve_weights, twin_of
from sr_upscale.text import mebibytes
from sr_upscale.tiling import MIN_TILE, TilePlan, fit_tile_size, plan_tiles

if TYPE_CHECKING:
    from sr_upscale.models.traits import Traits

OVERLAP = 8
"""LR pixels that neighbouring tiles blend by default."""

HALO = 16
"""LR pixels of context by default. The receptive field is 51, but what the trained networks take from beyond 16
changes 8-bit values by at most 1, and few of them (docs/tiling.md); `halo=51` is exact for any weights."""

FOREIGN_HALO = 32
"""LR pixels of context for networks whose receptive field is not known."""

CPU_TILE_PIXELS = 448 * 448
"""Largest tile on a CPU, in LR pixels read: larger working sets leave its cache and run slower, smaller ones
recompute more halo (docs/tiling.md)."""

MEMORY_SHARE = 0.5
"""Share of the free memory that a tile may take."""

AGREEMENT_DB = 50.0
"""PSNR between half precision and fp32 output, below which fp32 is taken."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One run of a network over the whole picture."""

    weights: Path
    scale: int
    tiles: TilePlan


@dataclass(frozen=True, kw_only=True)
class UpscalePlan:
    """What will be done to one frame. Integers and paths; nothing has been computed or loaded.

    Attributes:
        input_size, output_size: (width, height).
        passes: Networks, in order.
        resample: Whether a Lanczos step follows, from the passes' size to the output's.
        device_bytes: Estimate of what the largest tile takes.
        host_bytes: Estimate of what input, output and bands take in host memory.
    """

    input_size: tuple[int, int]
    output_size: tuple[int, int]
    passes: tuple[Pass, ...]
    resample: bool
    device_bytes: int
    host_bytes: int


class Upscaler:
    """Enlarges pictures. Weights are loaded when first needed and kept.

    Args:
        model: Name of a family (``psnr``: the trained factor is chosen by the scale), of one model
            (``psnr-x4``), or a path of weights.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto``, ``fp32``, ``bf16``, ``fp16``. Auto takes half precision where the hardware has it
            and the pixels agree, and always fp32 for 16-bit pictures.
        tile_size: Core of a tile in LR pixels; None chooses by free memory, 0 takes the whole picture.
        overlap: LR pixels that neighbouring tiles blend, even.
        halo: LR pixels of context around a tile; None takes the default, and never more than the receptive field.
        fidelity: Share of the model's faithful twin: 0 is the model itself, 1 the twin, between them their blend.
        before: Models of factor 1 that clean the picture first (names or paths), in order.
        backend: ``torch``, or on the CPU ``onnxruntime`` or ``openvino`` (extras).
        tta: Self-ensemble: the mean over the eight turns and mirrorings of each tile; eight times the work.

    Raises:
        ModelError: No such model, or one of `before` enlarges.
        UsageError: No such device or type here, or impossible tile sizes.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        *,
        device: str = "auto",
        dtype: str = "auto",
        tile_size: int | None = None,
        overlap: int = OVERLAP,
        halo: int | None = None,
        fidelity: float | None = None,
        before: Sequence[str | Path] = (),
        tta: bool = False,
        backend: str = "torch",
    ) -> None:
        if tile_size is not None and tile_size != 0 and tile_size < MIN_TILE:
            raise UsageError(f"tile size is {tile_size}; expected at least {MIN_TILE}, or 0 for automatic")
        if overlap < 0 or overlap % 2 or (halo is not None and halo < 0):
            raise UsageError(f"overlap is {overlap} and halo {halo}; expected an even overlap and nothing negative")
        self.weights = resolve_family(str(model))
        if fidelity is not None:
            self.weights = {scale: _towards_twin(path, fidelity) for scale, path in self.weights.items()}
        self.before = [resolve_weights(str(name)) for name in before]
        self.traits = {path: traits_of(path) for path in (*self.weights.values(), *self.before)}
        for path in self.before:
            if self.traits[path].scale != 1:
                raise ModelError(
                    f"{path}: enlarges x{self.traits[path].scale}; expected a model of factor 1 to run before the other"
                )
        self.tta = tta
        self.choice = choose(device, dtype)
        self.automatic_dtype = dtype == "auto"
        if backend not in BACKENDS:
            raise UsageError(f"no backend {backend!r}; expected one of {', '.join(BACKENDS)}")
        if backend != "torch" and self.choice.device.type != "cpu":
            raise UsageError(f"backend {backend} runs on the CPU, not on {self.choice.device}; use --device cpu")
        if backend == "onnxruntime" and self.choice.dtype != torch.float32:
            if not self.automatic_dtype:
                raise UsageError("ONNX Runtime computes in fp32 here; leave out --bf16, or use --backend openvino")
            reason = "ONNX Runtime computes in fp32 here"
            self.choice = dataclasses.replace(self.choice, dtype=torch.float32, dtype_reason=reason)
        self.backend = backend
        self.tile_size = tile_size
        self.overlap = overlap
        self.halo = halo
        self._networks: dict[tuple[Path, torch.dtype], Network | BackendNetwork] = {}

    # --- the product ------------------------------------------------------------------------------

    def __call__(
        self,
        image: ImageKind,
        *,
        scale: float | None = None,
        width: int | None = None,
        height: int | None = None,
    ) -> ImageKind:
        """Enlarges one image.

        Args:
            image: Array (H, W) or (H, W, C) of uint8, uint16, or floats in [0, 1], with C of 1 gray,
                2 gray + alpha, 3 RGB, 4 RGBA; or a PIL image.
            scale: Any factor from 1; by default the model's own.
            width, height: Target size in pixels instead of a scale; one alone keeps the proportions.

        Returns:
            The same kind and type, enlarged. PIL images of palette, 1-bit or CMYK come back as L, RGB or RGBA.

        Raises:
            ShapeError: Not such an image.
            UsageError: An impossible scale or size.
            OutOfMemoryError: Not even the smallest tile fits.
        """
        target = Target(scale=scale, width=width, height=height)
        pixels = pixels_of(image)
        out = self.upscale(Picture(frames=(Frame(pixels_hwc=pixels),)), target).frames[0].pixels_hwc
        return like(image, out)

    def upscale(
        self, picture: Picture, target: Target, *, on_tile: Callable[[int, int], None] = lambda _done, _all: None
    ) -> Picture:
        """Enlarges every frame of a picture; metadata stays.

        Args:
            picture: Upright.
            target: Size.
            on_tile: Called with (tiles done, tiles in all); the number in all may grow when tiles halve.
        """
        plan = self.plan(picture, target)
        self._preflight(plan, picture)
        progress = _Progress(on_tile, sum(step.tiles.tiles for step in plan.passes) * len(picture.frames))
        frames = [
            Frame(
                pixels_hwc=self._upscale_pixels(frame.pixels_hwc, plan, progress),
                duration_ms=frame.duration_ms,
            )
            for frame in picture.frames
        ]
        return dataclasses.replace(picture, frames=tuple(frames))

    # --- planning ---------------------------------------------------------------------------------

    def plan(self, picture: Picture, target: Target) -> UpscalePlan:
        """What `upscale` will do. Loads no weights and computes nothing.

        Raises:
            UsageError: An impossible size.
        """
        width, height = picture.width, picture.height
        out_width, out_height = target.output_size(width, height, default_scale=max(self.weights))
        factors = choose_factors(self.weights, max(out_width / width, out_height / height))
        dtype = self.dtype_for(picture.bits)
        passes: list[Pass] = []
        device_bytes = 0
        at_width, at_height = width, height
        for path in (*self.before, *(self.weights[factor] for factor in factors)):
            traits = self.traits[path]
            half = self._dtype_of(path, dtype) != torch.float32
            per_pixel = traits.half_bytes_per_pixel if half else traits.bytes_per_pixel
            tiles = self._plan_tiles(at_height, at_width, traits, per_pixel)
            device_bytes = max(device_bytes, tiles.largest_tile_pixels * per_pixel)
            passes.append(Pass(weights=path, scale=traits.scale, tiles=tiles))
            at_width, at_height = at_width * traits.scale, at_height * traits.scale
        resample = (at_width, at_height) != (out_width, out_height)
        sample_bytes = picture.bits // 8 * picture.channels
        frames = len(picture.frames)
        host_bytes = (
            width * height * (sample_bytes * frames + 12)  # decoded, and one frame as float
            + 2 * out_width * out_height * sample_bytes * frames  # enlarged, and the encoder's copy
            + (12 * at_width * at_height if resample or len(passes) > 1 else 0)  # before the Lanczos step, as float
            + 12 * at_width * min(at_height, 2 * passes[-1].tiles.rows[0].read_stop * passes[-1].scale)  # a band
        )
        return UpscalePlan(
            input_size=(width, height),
            output_size=(out_width, out_height),
            passes=tuple(passes),
            resample=resample,
            device_bytes=device_bytes,
            host_bytes=host_bytes,
        )

    def dtype_for(self, bits: int) -> torch.dtype:
        """Number type for pictures of 8 or 16 bits: half precision cannot hold 16 bits."""
        return torch.float32 if self.automatic_dtype and bits == 16 else self.choice.dtype

    def dtype_reason(self, bits: int) -> str:
        """Why `dtype_for` says so."""
        return "16 bits need fp32" if self.automatic_dtype and bits == 16 else self.choice.dtype_reason

    def _dtype_of(self, weights: Path, dtype: torch.dtype) -> torch.dtype:
        """`dtype`, unless these weights are known not to bear it."""
        bears = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(dtype)
        return dtype if bears is None or bears in self.traits[weights].half else torch.float32

    def _plan_tiles(self, height: int, width: int, traits: Traits, per_pixel: int) -> TilePlan:
        wanted = self.halo if self.halo is not None else HALO if traits.halo is not None else FOREIGN_HALO
        halo = wanted if traits.halo is None else min(wanted, traits.halo)
        tile_size = self.tile_size
        if tile_size is None:
            fits = min(int(free_memory(self.choice.device) * MEMORY_SHARE) // per_pixel, traits.max_tile_pixels)
            if self.choice.device.type == "cpu":
                fits = min(fits, CPU_TILE_PIXELS)
            tile_size = fit_tile_size(height, width, max_pixels=fits, overlap=self.overlap, halo=halo)
        return plan_tiles(height, width, tile_size=tile_size, overlap=self.overlap, halo=halo)

    def _preflight(self, plan: UpscalePlan, picture: Picture) -> None:
        free = free_memory(torch.device("cpu"))
        if plan.host_bytes > free:
            (width, height), (out_width, out_height) = plan.input_size, plan.output_size
            raise OutOfMemoryError(
                f"{width}x{height} to {out_width}x{out_height} ({picture.bits}-bit) needs about "
                f"{mebibytes(plan.host_bytes)} of memory; {mebibytes(free)} is free; use a smaller scale"
            )

    # --- computing --------------------------------------------------------------------------------

    def network(self, weights: Path, dtype: torch.dtype) -> Network | BackendNetwork:
        """The network of a weights file, ready to run; loaded once."""
        dtype = self._dtype_of(weights, dtype)
        key = (weights, dtype)
        if key not in self._networks:
            network = self._start(weights, dtype)
            if self.automatic_dtype and dtype != torch.float32:
                exact = self._start(weights, torch.float32)
                network = network if agreement_db(network, exact) >= AGREEMENT_DB else exact
            self._networks[key] = network
        return self._networks[key]

    def _start(self, weights: Path, dtype: torch.dtype) -> Network | BackendNetwork:
        if self.backend == "torch":
            return Network(module_of(weights), self.choice.device, dtype)
        from sr_upscale.export import cached_onnx

        return BackendNetwork(cached_onnx(weights), self.backend, dtype)

    def _upscale_pixels(self, pixels_hwc: NDArray[Any], plan: UpscalePlan, progress: _Progress) -> NDArray[Any]:
        has_alpha = pixels_hwc.shape[2] in (2, 4)
        if not has_alpha:
            return self._upscale_colour(pixels_hwc, plan, progress)
        colour, alpha = pixels_hwc[:, :, :-1], pixels_hwc[:, :, -1:]
        out_width, out_height = plan.output_size
        if (alpha == alpha[0, 0]).all():
            out_alpha = np.full((out_height, out_width, 1), alpha[0, 0, 0], dtype=alpha.dtype)
        else:
            progress.add(sum(step.tiles.tiles for step in plan.passes))
            colour = extend_colour(colour, alpha[:, :, 0])
            out_alpha = self._upscale_colour(alpha, plan, progress)
        return np.concatenate((self._upscale_colour(colour, plan, progress), out_alpha), axis=2)

    def _upscale_colour(self, pixels_hwc: NDArray[Any], plan: UpscalePlan, progress: _Progress) -> NDArray[Any]:
        """(H, W, 1 or 3) -> enlarged. Gray stays exactly gray, also where it is stored as RGB."""
        channels = pixels_hwc.shape[2]
        gray = channels == 1 or bool((pixels_hwc == pixels_hwc[:, :, :1]).all())
        planes = to_tensor(pixels_hwc[:, :, :1] if gray else pixels_hwc)
        dtype = self.dtype_for(pixels_hwc.dtype.itemsize * 8)
        out_width, out_height = plan.output_size
        for number, step in enumerate(plan.passes, start=1):
            network = self.network(step.weights, dtype)
            if number == len(plan.passes) and not plan.resample:
                out = np.empty((out_height, out_width, planes.shape[1]), dtype=pixels_hwc.dtype)
                self._run_pass(step, network, planes, _PixelSink(out), progress)
            else:
                sink = _PlaneSink(step.tiles.height * step.scale)
                self._run_pass(step, network, planes, sink, progress)
                planes = sink.planes
        if plan.resample:
            out = to_pixels(resize(planes.clamp(0, 1), (out_height, out_width), kernel="lanczos3"), pixels_hwc.dtype)
        return np.repeat(out, channels, axis=2) if gray and channels > 1 else out

    def _run_pass(
        self,
        step: Pass,
        network: Network | BackendNetwork,
        planes: Tensor,
        sink: _PixelSink | _PlaneSink,
        progress: _Progress,
    ) -> None:
        """Runs one network over the picture; on out-of-memory all of it again with tiles of half the size."""
        run: Callable[[Tensor], Tensor] = self_ensemble(network) if self.tta else network
        run = _gray_as_rgb(run) if planes.shape[1] == 1 else run
        tiles = step.tiles
        while True:
            try:
                sink.take(run_tiles(tiles, run, planes, scale=step.scale, on_tile=progress.tile))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                now = min(tiles.tile_size or 1 << 30, max(tiles.height, tiles.width))
                if now <= MIN_TILE:
                    raise OutOfMemoryError(
                        f"out of memory on {self.choice.device} even with tiles of {now} pixels; "
                        "close other programs, or use --device cpu"
                    ) from error
            else:
                return
            if self.choice.device.type == "cuda":
                torch.cuda.empty_cache()
            before = tiles.tiles
            tiles = plan_tiles(
                tiles.height, tiles.width, tile_size=max(MIN_TILE, now // 2), overlap=tiles.overlap, halo=tiles.halo
            )
            progress.add(tiles.tiles - before, restart=True)


def _towards_twin(path: Path, fidelity: float) -> Path:
    """Weights at a place of the dial between a model and its faithful twin."""
    if not 0 <= fidelity <= 1:
        raise UsageError(f"fidelity is {fidelity:g}; expected 0 to 1")
    twin = twin_of(path)
    if twin is None:
        raise UsageError(
            f"{path.stem} has no faithful twin, so that there is no dial; `sr-upscale models blend` takes any two "
            "files of one architecture"
        )
    return path if fidelity == 0 else twin if fidelity == 1 else blended(path, twin, fidelity)


def agreement_db(network: Callable[[Tensor], Tensor], exact: Callable[[Tensor], Tensor]) -> float:
    """PSNR in dB between the outputs of a network in half precision and in fp32 on a fixed synthetic patch."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    waves = [0.5 + 0.25 * torch.sin(x * a + y * b) + 0.2 * torch.sign(torch.sin(x * 0.3 - y * a)) for a, b in _WAVES]
    patch = torch.stack(waves)[None]
    return float(psnr(network(patch).clamp(0, 1), exact(patch).clamp(0, 1)))


_WAVES = ((0.9, 0.2), (0.4, 0.7), (0.15, 0.35))


class _Progress:
    """Counts tiles over all passes, planes and frames."""

    def __init__(self, report: Callable[[int, int], None], total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def add(self, tiles: int, *, restart: bool = False) -> None:
        self.total += tiles + (self.done if restart else 0)

    def tile(self) -> None:
        self.done += 1
        self.total = max(self.total, self.done)
        self.report(self.done, self.total)


class _PixelSink:
    """Quantises bands into a ready array of pixels."""

    def __init__(self, out_hwc: NDArray[Any]) -> None:
        self.out_hwc = out_hwc

    def take(self, bands: Iterable[Tensor]) -> None:
        row = 0
        for band in bands:
            pixels = to_pixels(band, self.out_hwc.dtype)
            self.out_hwc[row : row + pixels.shape[0]] = pixels
            row += pixels.shape[0]


class _PlaneSink:
    """Keeps bands as float planes (1, C, H, W) for the next step."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.planes = torch.empty(0)

    def take(self, bands: Iterable[Tensor]) -> None:
        row = 0
        for band in bands:
            if row == 0:
                self.planes = torch.empty(1, band.shape[0], self.height, band.shape[2])
            self.planes[0, :, row : row + band.shape[1]] = band.clamp(0, 1)
            row += band.shape[1]


def _gray_as_rgb(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(tile_nchw: Tensor) -> Tensor:
        return network(tile_nchw.expand(-1, 3, -1, -1)).mean(dim=1, keepdim=True)

    return run
