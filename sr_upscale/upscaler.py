"""The product, as a function: ``Upscaler()(image, scale=2)``."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_upscale.device import choose, free_memory, is_out_of_memory
from sr_upscale.errors import ModelError, OutOfMemoryError, UsageError
from sr_upscale.formatting import mebibytes
from sr_upscale.functional.alpha import extend_colour
from sr_upscale.functional.pil_arrays import ImageKind, like, pixels_of
from sr_upscale.functional.resize import resize_rows
from sr_upscale.images.picture import AnyPixels, Frame, Picture, RowSource, strips_of
from sr_upscale.inference.backends import BACKENDS, BackendNetwork
from sr_upscale.inference.color_drift import Drift
from sr_upscale.inference.network import Network
from sr_upscale.inference.planning import (
    MEMORY_SHARE,
    PROGRAM_BYTES,
    Cutting,
    Pass,
    UpscalePlan,
    cut_bytes,
    plan_host_bytes,
    smaller_plan,
)
from sr_upscale.inference.sizing import Target, choose_factors
from sr_upscale.inference.strips import StreamNetwork, evenly, stream_rows
from sr_upscale.inference.tiles import run_tiles
from sr_upscale.inference.tiling import StripPlan
from sr_upscale.inference.transfer import to_device, to_host
from sr_upscale.metrics.reference import psnr
from sr_upscale.models.ensemble import self_ensemble
from sr_upscale.models.generator import Generator
from sr_upscale.pretrained.blend import blended
from sr_upscale.pretrained.load import module_of, traits_of
from sr_upscale.pretrained.registry import DEFAULT_MODEL, resolve_family, resolve_weights, twin_of

AGREEMENT_DB = 50.0
"""PSNR between half precision and fp32 output, below which fp32 is taken."""

Made = TypeVar("Made")
AnyNetwork = StreamNetwork | Network | BackendNetwork


class Upscaler:
    """Enlarges pictures. Weights are loaded when first needed and kept.

    Args:
        model: Name of a family (``psnr``: the trained factor is chosen by the scale), of one model
            (``psnr-x4``), or a path of weights.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto``, ``fp32``, ``bf16``, ``fp16``. Auto takes half precision where the hardware has it
            and the pixels agree, and always fp32 for 16-bit pictures.
        tile_size: Core of a tile in LR pixels. None and 0 let our networks stream, which equals the whole picture;
            for others None chooses by free memory, and 0 takes the whole picture.
        overlap: LR pixels that neighbouring tiles blend, even; asks for tiles.
        halo: LR pixels of context around a tile, and never more than the receptive field; asks for tiles.
        fidelity: Share of the model's faithful twin: 0 is the model itself, 1 the twin, between them their blend.
        before: Models of factor 1 that clean the picture first (names or paths), in order.
        backend: ``torch``, or on the CPU ``onnxruntime`` or ``openvino`` (extras).
        tta: Self-ensemble: the mean over the eight turns and mirrorings of each tile; eight times the work.
        max_memory: Bytes that a picture may take beyond the loaded program; None takes what is free.

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
        overlap: int | None = None,
        halo: int | None = None,
        fidelity: float | None = None,
        before: Sequence[str | Path] = (),
        tta: bool = False,
        backend: str = "torch",
        max_memory: int | None = None,
    ) -> None:
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
        self.max_memory = max_memory
        self.cutting = Cutting(
            device_type=self.choice.device.type,
            tile_size=tile_size,
            overlap=overlap,
            halo=halo,
            streams=backend == "torch" and not tta,
        )
        self._networks: dict[tuple[Path, torch.dtype], AnyNetwork] = {}
        self._loading = threading.Lock()

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
        return like(image, np.asarray(out))

    def upscale(
        self,
        picture: Picture,
        target: Target,
        *,
        on_step: Callable[[int, int], None] = lambda _done, _all: None,
        drift: Drift | None = None,
    ) -> Picture:
        """Enlarges every frame of a picture; metadata stays. The result stands in memory as a whole (else `rows`).

        Args:
            picture: Upright.
            target: Size.
            on_step: Called with (strips or tiles done, in all); the number in all may grow when memory runs out.
            drift: Watches the colours.
        """
        plan = self.plan(picture, target)
        self.check_memory(plan, picture)

        def make(plan: UpscalePlan) -> Picture:
            if drift is not None:
                drift.clear()
            return gathered(self.frame_rows(picture, plan, on_step=on_step, drift=drift), picture, plan)

        return self.attempt(plan, make)

    def attempt(self, plan: UpscalePlan, make: Callable[[UpscalePlan], Made]) -> Made:
        """What `make` makes of a plan; where memory runs out, of one that is cut smaller, from the beginning.

        Nothing of an attempt that failed is used.

        Raises:
            OutOfMemoryError: It cannot be cut any smaller.
        """
        while True:
            try:
                return make(plan)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                plan = smaller_plan(plan, self.choice.device)
            if self.choice.device.type == "cuda":
                torch.cuda.empty_cache()

    # --- planning ---------------------------------------------------------------------------------

    def plan(self, picture: Picture, target: Target, *, streamed: bool = False) -> UpscalePlan:
        """What `upscale` will do. Loads no weights and computes nothing.

        Args:
            picture: Upright.
            target: Size.
            streamed: The output leaves by rows, and never stands in memory as a whole.

        Raises:
            UsageError: An impossible size.
        """
        width, height = picture.width, picture.height
        out_width, out_height = target.output_size(width, height, default_scale=max(self.weights))
        factors = choose_factors(self.weights, max(out_width / width, out_height / height))
        paths = (*self.before, *(self.weights[factor] for factor in factors))
        sample_bytes = picture.bits // 8 * picture.channels
        frames = len(picture.frames)
        by_rows = isinstance(picture.frames[0].pixels_hwc, RowSource)
        input_bytes = 0 if by_rows else width * height * sample_bytes * frames
        output_bytes = 0 if streamed else out_width * out_height * sample_bytes * frames
        budget = int(free_memory(self.choice.device) * MEMORY_SHARE)
        if self.max_memory is not None:
            around = PROGRAM_BYTES + (input_bytes + output_bytes if self.choice.device.type != "cuda" else 0)
            budget = min(budget, max(0, self.max_memory - around) // len(paths))
        passes: list[Pass] = []
        device_bytes = 0
        at_width, at_height = width, height
        for path in paths:
            traits = self.traits[path]
            half = self._dtype_of(path, self.dtype_for(picture.bits)) != torch.float32
            cut = self.cutting.cut(at_height, at_width, traits, half=half, budget=budget)
            device_bytes += cut_bytes(cut, traits, half=half)
            passes.append(Pass(weights=path, scale=traits.scale, cut=cut, half=half))
            at_width, at_height = at_width * traits.scale, at_height * traits.scale
        resample = (at_width, at_height) != (out_width, out_height)
        return UpscalePlan(
            input_size=(width, height),
            output_size=(out_width, out_height),
            passes=tuple(passes),
            resample=resample,
            device_bytes=device_bytes,
            host_bytes=plan_host_bytes(
                input_bytes=input_bytes,
                output_bytes=output_bytes,
                row_bytes=(width * sample_bytes, out_width * sample_bytes),
                channels=picture.channels,
                passes=passes,
                resample=resample,
                filled_pixels=width * height if any(_needs_fill(frame) for frame in picture.frames) else 0,
                on_cpu=self.choice.device.type == "cpu",
            ),
        )

    def check_memory(self, plan: UpscalePlan, picture: Picture) -> None:
        """Refuses a plan that needs more memory than there is, or than is allowed.

        Raises:
            OutOfMemoryError: It says how much is needed.
        """
        free = free_memory(torch.device("cpu"))
        needed = plan.host_bytes + (plan.device_bytes if self.choice.device.type != "cuda" else 0)
        (width, height), (out_width, out_height) = plan.input_size, plan.output_size
        what = f"{width}x{height} to {out_width}x{out_height} ({picture.bits}-bit)"
        what = f"{what} needs about {mebibytes(needed)} of memory"
        if needed > free:
            raise OutOfMemoryError(f"{what}; {mebibytes(free)} is free; use a smaller scale")
        if self.max_memory is not None and needed > self.max_memory:
            raise OutOfMemoryError(f"{what}; {mebibytes(self.max_memory)} is allowed; raise --max-memory")

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

    # --- computing --------------------------------------------------------------------------------

    def network(self, weights: Path, dtype: torch.dtype) -> AnyNetwork:
        """The network of a weights file, ready to run; loaded once, whichever thread asks."""
        dtype = self._dtype_of(weights, dtype)
        key = (weights, dtype)
        with self._loading:
            if key not in self._networks:
                network = self._start(weights, dtype)
                if self.automatic_dtype and dtype != torch.float32:
                    exact = self._start(weights, torch.float32)
                    network = network if agreement_db(network, exact) >= AGREEMENT_DB else exact
                self._networks[key] = network
            return self._networks[key]

    def _start(self, weights: Path, dtype: torch.dtype) -> AnyNetwork:
        if self.backend == "torch":
            module = module_of(weights)
            if isinstance(module, Generator):
                return StreamNetwork(module.to(self.choice.device), dtype)
            return Network(module, self.choice.device, dtype)
        from sr_upscale.pretrained.onnx_export import cached_onnx

        return BackendNetwork(cached_onnx(weights), self.backend, dtype)

    def frame_rows(
        self,
        picture: Picture,
        plan: UpscalePlan,
        *,
        on_step: Callable[[int, int], None] = lambda _done, _all: None,
        drift: Drift | None = None,
    ) -> Iterator[NDArray[Any]]:
        """The `rows` of every frame, one frame after the other."""
        count = len(picture.frames)
        for number, frame in enumerate(picture.frames):
            yield from self.rows(
                frame.pixels_hwc, plan, on_step=on_step, done=number * plan.steps, frames=count, drift=drift
            )

    def rows(
        self,
        pixels_hwc: AnyPixels,
        plan: UpscalePlan,
        *,
        on_step: Callable[[int, int], None] = lambda _done, _all: None,
        done: int = 0,
        frames: int = 1,
        drift: Drift | None = None,
    ) -> Iterator[NDArray[Any]]:
        """Enlarges one frame, band by band: (m, W, C) of the same type, from the top, C-contiguous.

        Args:
            pixels_hwc: (H, W, C) of the plan's input size.
            plan: What to do.
            on_step: Called with (strips or tiles done, in all).
            done: Steps of earlier frames.
            frames: Frames in all.
            drift: Watches the colours, not alpha.
        """
        drift = drift or Drift()
        progress = _Progress(on_step, plan.steps * frames, done)
        if pixels_hwc.shape[2] not in (2, 4):
            yield from self._colour_rows(pixels_hwc, plan, progress, drift)
            return
        whole = np.asarray(pixels_hwc)
        colour, alpha = whole[:, :, :-1], whole[:, :, -1:]
        if (alpha == alpha[0, 0]).all():
            for band in self._colour_rows(colour, plan, progress, drift):
                yield np.concatenate((band, np.full_like(band[:, :, :1], alpha[0, 0, 0])), axis=2)
            return
        progress.total += plan.steps
        colour = extend_colour(colour, alpha[:, :, 0])
        bands = (self._colour_rows(part, plan, progress, each) for part, each in ((colour, drift), (alpha, Drift())))
        for both in zip(*bands, strict=True):
            yield np.concatenate(both, axis=2)

    def _colour_rows(
        self, pixels_hwc: AnyPixels, plan: UpscalePlan, progress: _Progress, drift: Drift
    ) -> Iterator[NDArray[Any]]:
        """(H, W, 1 or 3) -> enlarged. Gray stays exactly gray, also where it is stored as RGB."""
        channels, dtype = pixels_hwc.shape[2], pixels_hwc.dtype
        gray = channels == 1 or _is_gray(pixels_hwc)
        strips = strips_of(pixels_hwc, _rows_at_a_time(plan.passes[0]))
        bands = to_device((strip[:, :, :1] if gray else strip for strip in strips), self.choice.device)
        bands = _watched(bands, drift.before)
        for number, step in enumerate(plan.passes):
            bands = bands if number == 0 else (band.clamp(0, 1) for band in bands)
            bands = self._pass_rows(step, self.dtype_for(dtype.itemsize * 8), bands, progress)
        if plan.resample:
            height = plan.passes[-1].cut.height * plan.passes[-1].scale
            width, out_height = plan.output_size
            clamped = (band.clamp(0, 1) for band in bands)
            bands = resize_rows(clamped, height, (out_height, width), kernel="lanczos3")
        for pixels in to_host(_watched(bands, drift.after), dtype, self.choice.device):
            yield np.repeat(pixels, channels, axis=2) if gray and channels > 1 else pixels

    def _pass_rows(
        self, step: Pass, dtype: torch.dtype, bands: Iterator[Tensor], progress: _Progress
    ) -> Iterator[Tensor]:
        """Runs one network: (1, 1 or 3, n, W) in [0, 1] -> the same at its scale, not clamped."""
        network = self.network(step.weights, dtype)
        cut = step.cut
        if isinstance(cut, StripPlan):
            assert isinstance(network, StreamNetwork)
            strips = progress.counted(evenly(bands, cut.rows))
            first = next(strips)
            gray = first.shape[1] == 1
            rgb = (strip.expand(-1, 3, -1, -1) for strip in itertools.chain((first,), strips))
            for band in stream_rows(network, rgb, height=cut.height, rows=cut.rows, column=cut.column):
                yield band.mean(dim=1, keepdim=True) if gray else band
            return
        run: Callable[[Tensor], Tensor] = self_ensemble(network) if self.tta else network
        yield from run_tiles(cut, _gray_as_rgb(run), bands, scale=step.scale, on_tile=progress.step)


def gathered(rows: Iterable[NDArray[Any]], picture: Picture, plan: UpscalePlan) -> Picture:
    """The picture with the enlarged frames that `Upscaler.frame_rows` yields, in memory; metadata stays."""
    width, height = plan.output_size
    whole = np.empty((len(picture.frames) * height, width, picture.channels), picture.frames[0].pixels_hwc.dtype)
    top = 0
    for band in rows:
        whole[top : top + len(band)] = band
        top += len(band)
    parts = whole.reshape(len(picture.frames), height, width, picture.channels)
    frames = (
        Frame(pixels_hwc=part, duration_ms=frame.duration_ms) for part, frame in zip(parts, picture.frames, strict=True)
    )
    return dataclasses.replace(picture, frames=tuple(frames))


def _needs_fill(frame: Frame) -> bool:
    """Whether some but not all pixels are fully transparent."""
    pixels = frame.pixels_hwc
    if pixels.shape[2] not in (2, 4):
        return False
    lowest_and_highest = [(strip[:, :, -1].min(), strip[:, :, -1].max()) for strip in strips_of(pixels, 256)]
    lows, highs = zip(*lowest_and_highest, strict=True)
    return bool(min(lows) == 0 and max(highs) > 0)


def _watched(bands: Iterable[Tensor], watch: Callable[[Tensor], None]) -> Iterator[Tensor]:
    for band in bands:
        watch(band)
        yield band


def _rows_at_a_time(step: Pass) -> int:
    return step.cut.rows if isinstance(step.cut, StripPlan) else 64


def _is_gray(pixels_hwc: AnyPixels) -> bool:
    if isinstance(pixels_hwc, RowSource):
        return pixels_hwc.gray
    return all((strip[:, :, 1:] == strip[:, :, :1]).all() for strip in strips_of(pixels_hwc, 256))


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
    """Counts strips and tiles over all passes, planes and frames."""

    def __init__(self, report: Callable[[int, int], None], total: int, done: int) -> None:
        self.report, self.total, self.done = report, total, done

    def step(self) -> None:
        self.done += 1
        self.total = max(self.total, self.done)
        self.report(self.done, self.total)

    def counted(self, strips: Iterable[Tensor]) -> Iterator[Tensor]:
        for strip in strips:
            yield strip
            self.step()


def _gray_as_rgb(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(tile_nchw: Tensor) -> Tensor:
        if tile_nchw.shape[1] == 3:
            return network(tile_nchw)
        return network(tile_nchw.expand(-1, 3, -1, -1)).mean(dim=1, keepdim=True)

    return run
