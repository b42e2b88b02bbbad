"""Rows of an enlarged picture, band by band: colour and alpha, every network of a plan, the last resize."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sr_upscale.functional.planes import TURNS, Planes, evenly, from_pixels, into_pixels, joined, self_ensemble
from sr_upscale.functional.resize import resize_rows
from sr_upscale.images.picture import AnyPixels, Frame, Picture, RowSource, strips_of
from sr_upscale.inference.color_drift import Drift
from sr_upscale.inference.loaded_networks import LoadedNetworks
from sr_upscale.inference.planning import UpscalePlan
from sr_upscale.inference.tiling import Pass, StripPlan, run_tiles
from sr_upscale.interrupts import STOP

if TYPE_CHECKING:
    from sr_upscale.inference.strips import StreamNetwork


class Rows:
    """Runs plans.

    Args:
        networks: The networks that run.
        tta: Whether tiles are enlarged by the self-ensemble.
    """

    def __init__(self, networks: LoadedNetworks, *, tta: bool) -> None:
        self.networks, self.planner, self.tta = networks, networks.planner, tta

    def of_picture(
        self,
        picture: Picture,
        plan: UpscalePlan,
        *,
        on_step: Callable[[int, int], None] = lambda _done, _all: None,
        drift: Drift | None = None,
    ) -> Iterator[NDArray[Any]]:
        """Enlarges every frame, band by band, one frame after the other.

        Args:
            picture: Of the plan's input size.
            plan: What to do.
            on_step: Called with (strips or tiles done, in all); every tile of the self-ensemble counts as eight.
            drift: Watches the colours, not alpha.

        Yields:
            Bands (m, W, C) of the type of the frames, from the top.

        Raises:
            SrUpscaleError: A network's output is not finite.
            ModelError: All rows are of one colour, and those of the picture are not.
        """
        drift = drift or Drift()
        progress = _Progress(on_step, self._steps(plan) * len(picture.frames))
        for frame in picture.frames:
            yield from _middle(self._frame_rows(frame.pixels_hwc, plan, progress, drift), plan)

    def _frame_rows(
        self, pixels_hwc: AnyPixels, plan: UpscalePlan, progress: _Progress, drift: Drift
    ) -> Iterator[NDArray[Any]]:
        """Enlarges one frame, band by band, with its alpha."""
        if pixels_hwc.shape[2] not in (2, 4):
            yield from self._colour_rows(pixels_hwc, plan, progress, drift)
            return
        whole = np.asarray(pixels_hwc)
        colour, alpha = whole[:, :, :-1], whole[:, :, -1:]
        if (alpha == alpha[0, 0]).all():
            for band in self._colour_rows(colour, plan, progress, drift):
                yield np.concatenate((band, np.full_like(band[:, :, :1], alpha[0, 0, 0])), axis=2)
            return
        progress.total += self._steps(plan)
        colour = extend_colour(colour, alpha[:, :, 0])
        bands = (self._colour_rows(part, plan, progress, each) for part, each in ((colour, drift), (alpha, Drift())))
        for both in zip(*bands, strict=True):
            yield np.concatenate(both, axis=2)

    def _colour_rows(
        self, pixels_hwc: AnyPixels, plan: UpscalePlan, progress: _Progress, drift: Drift
    ) -> Iterator[NDArray[Any]]:
        """Enlarges colour or alpha alone, (H, W, 1 or 3), into bands (m, W, same).

        Gray stays exactly gray, also where it is stored as RGB.
        """
        channels, dtype = pixels_hwc.shape[2], pixels_hwc.dtype
        gray = channels == 1 or _is_gray(pixels_hwc)
        strips = strips_of(pixels_hwc, _rows_at_a_time(plan.passes[0]))
        bands = self._to_planes(strip[:, :, :1] if gray else strip for strip in strips)
        bands = _watched(bands, drift.before)
        for number, step in enumerate(plan.passes):
            bands = bands if number == 0 else (band.clip(0, 1) for band in bands)
            bands = self._pass_rows(step, self.planner.dtype_for(dtype.itemsize * 8), bands, progress)
        if plan.resample:
            height = plan.passes[-1].cut.height * plan.passes[-1].scale
            width, out_height = plan.enlarged_size
            clamped = (band.clip(0, 1) for band in bands)
            bands = resize_rows(clamped, height, (out_height, width), kernel="lanczos3")
        for pixels in self._to_pixels(_watched(bands, drift.after), dtype):
            yield np.repeat(pixels, channels, axis=2) if gray and channels > 1 else pixels
        drift.check()

    def _to_planes(self, strips: Iterable[NDArray[Any]]) -> Iterator[Planes]:
        """Turns strips of pixels into planes; those for CUDA go to the device one strip ahead."""
        if self.planner.choice.device.type != "cuda":
            return (from_pixels(strip) for strip in strips)
        import torch

        from sr_upscale.inference.backends.torch import to_device

        return to_device(strips, torch.device(str(self.planner.choice.device)))

    def _to_pixels(self, bands: Iterable[Planes], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Turns bands of planes into pixels; those of CUDA come from the device one band behind."""
        if self.planner.choice.device.type != "cuda":
            return (into_pixels(band, dtype) for band in bands)
        import torch

        from sr_upscale.inference.backends.torch import to_host

        return to_host(bands, dtype, torch.device(str(self.planner.choice.device)))

    def _pass_rows(self, step: Pass, dtype: str, bands: Iterator[Planes], progress: _Progress) -> Iterator[Planes]:
        """Runs one network: (1, 1 or 3, n, W) in [0, 1] -> the same at its scale, not clamped."""
        network = self.networks.get(step.weights, dtype)
        cut = step.cut
        if isinstance(cut, StripPlan):
            from sr_upscale.inference import strips as streaming  # only torch's networks stream

            strips = progress.counted(evenly(bands, cut.rows))
            first = next(strips)
            gray = first.shape[1] == 1
            rgb = (_as_rgb(strip) for strip in itertools.chain((first,), strips))
            stream = cast("StreamNetwork", network)
            for band in streaming.stream_rows(stream, rgb, height=cut.height, rows=cut.rows, column=cut.column):
                yield band.mean(dim=1, keepdim=True) if gray else band
            return
        run, on_tile = (self_ensemble(network, progress.step), _ignore) if self.tta else (network, progress.step)
        yield from run_tiles(cut, _gray_as_rgb(run), bands, scale=step.scale, on_tile=on_tile)

    def _steps(self, plan: UpscalePlan) -> int:
        """Counts what progress counts: strips and tiles, and of the self-ensemble each turn of a tile."""
        return plan.steps * (TURNS if self.tta else 1)


def gathered(rows: Iterable[NDArray[Any]], picture: Picture, plan: UpscalePlan) -> Picture:
    """Gathers the bands that `Rows.of_picture` yields into a picture in memory; metadata stays.

    Args:
        rows: Bands (m, W, C) of all frames, from the top.
        picture: The picture before.
        plan: Of which the rows are.
    """
    width, height = plan.output_size
    whole = np.empty((len(picture.frames) * height, width, picture.channels), picture.frames[0].pixels_hwc.dtype)
    top = 0
    for band in rows:
        whole[top : top + len(band)] = band
        top += len(band)
    parts = whole.reshape(len(picture.frames), height, width, picture.channels)
    durations = picture.durations_ms
    frames = (Frame(pixels_hwc=part, duration_ms=each) for part, each in zip(parts, durations, strict=True))
    return dataclasses.replace(picture, frames=tuple(frames))


def _middle(bands: Iterator[NDArray[Any]], plan: UpscalePlan) -> Iterator[NDArray[Any]]:
    """Cuts the output out of the enlarged picture, where it is smaller."""
    (width, height), (whole_width, whole_height) = plan.output_size, plan.enlarged_size
    left, top = (whole_width - width) // 2, (whole_height - height) // 2
    at = 0
    for band in bands:
        part = band[max(0, top - at) : max(0, top + height - at), left : left + width]
        at += len(band)
        if len(part):
            yield part


def _watched(bands: Iterable[Planes], watch: Callable[[Planes], None]) -> Iterator[Planes]:
    for band in bands:
        watch(band)
        yield band


def _rows_at_a_time(step: Pass) -> int:
    return step.cut.rows if isinstance(step.cut, StripPlan) else 64


def _is_gray(pixels_hwc: AnyPixels) -> bool:
    if isinstance(pixels_hwc, RowSource):
        return pixels_hwc.gray
    return all((strip[:, :, 1:] == strip[:, :, :1]).all() for strip in strips_of(pixels_hwc, 256))


def _ignore() -> None:
    pass


class _Progress:
    """Counts strips and tiles over all passes, planes and frames."""

    def __init__(self, report: Callable[[int, int], None], total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def step(self) -> None:
        STOP.check()
        self.done += 1
        self.total = max(self.total, self.done)
        self.report(self.done, self.total)

    def counted(self, strips: Iterable[Planes]) -> Iterator[Planes]:
        for strip in strips:
            yield strip
            self.step()


def _as_rgb(planes: Planes) -> Planes:
    return planes if planes.shape[1] == 3 else joined([planes] * 3, 1)


def _gray_as_rgb(network: Callable[[Planes], Planes]) -> Callable[[Planes], Planes]:
    def run(tile_nchw: Planes) -> Planes:
        out = network(_as_rgb(tile_nchw))
        return out if tile_nchw.shape[1] == 3 else out.mean(axis=1, keepdims=True)

    return run


Floats = NDArray[np.float32]


def extend_colour(colour_hwc: NDArray[Any], alpha_hw: NDArray[Any]) -> NDArray[Any]:
    """Fills fully transparent pixels with the colours of the visible ones around them.

    Files often keep black there. A network (or any resampler) would pull it into the visible edge as a dark fringe.
    The fill comes from a pyramid of averages, weighted by alpha. A pixel takes it from the finest level that knows a
    colour there (push-pull).

    Args:
        colour_hwc: (H, W, C) uint8 or uint16, straight (not premultiplied).
        alpha_hw: (H, W), same type; 0 is transparent.

    Returns:
        (H, W, C), same type. Pixels with alpha above 0 are unchanged. The input itself comes back where all pixels or
        none are transparent.

    Source: Gortler et al. 1996, doi:10.1145/237170.237200.
    """
    hidden = alpha_hw == 0
    if not hidden.any() or hidden.all():
        return colour_hwc
    top = np.iinfo(colour_hwc.dtype).max
    weight = (alpha_hw.astype(np.float32) / np.float32(top))[:, :, None]
    filled = _fill(colour_hwc.astype(np.float32), weight)
    out = colour_hwc.copy()
    out[hidden] = np.rint(filled[hidden]).clip(0, top).astype(colour_hwc.dtype)
    return out


def _fill(colour: Floats, weight: Floats) -> Floats:
    """Takes colour where weight is above 0, else the coarser level's fill.

    Shapes: (H, W, C), (H, W, 1) -> (H, W, C).
    """
    if weight.min() > 0 or max(weight.shape) == 1:
        return colour
    coarse_weight = _halved(weight)
    weighted = np.divide(_halved(colour * weight), np.maximum(coarse_weight, 1e-12), dtype=np.float32)
    coarse = _fill(weighted, coarse_weight)
    for axis in (0, 1):
        coarse = _stretched(coarse, axis, weight.shape[axis])
    return np.where(weight > 0, colour, coarse)


def _halved(x: Floats) -> Floats:
    """Computes means of 2x2 pixels, and at an odd edge of what there is of them."""
    for axis in (0, 1):
        starts = np.arange(0, x.shape[axis], 2)
        counts = np.minimum(2, x.shape[axis] - starts).astype(np.float32)
        x = np.add.reduceat(x, starts, axis=axis) / np.expand_dims(counts, (1, 2) if axis == 0 else (0, 2))
    return x


def _stretched(x: Floats, axis: int, length: int) -> Floats:
    """Interpolates linearly along an axis, to at most twice the length."""
    at = np.maximum((np.arange(length) + 0.5) * (x.shape[axis] / length) - 0.5, 0)
    low = at.astype(np.intp)
    share = np.expand_dims((at - low).astype(np.float32), (1, 2) if axis == 0 else (0, 2))
    high = np.minimum(low + 1, x.shape[axis] - 1)
    out: Floats = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return out
