"""Scores of the benchmark, one entry each: name, heading, format, what it needs, and how it is computed.

A new metric is one function and one entry of `METRICS`; tables, reports and ``--metric`` follow. Imports torch when
metrics are loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_upscale.errors import ShapeError, UsageError
from sr_upscale.formatting import needing, shown

if TYPE_CHECKING:
    from torch import Tensor

    from sr_upscale.functional.color import Pixels


@dataclass(frozen=True, kw_only=True)
class PictureScore:
    """One method on one picture.

    Attributes:
        dataset, picture, method: Names.
        scores: By name of `benchmark.metrics`, without those that the picture has none of. PSNR is infinite for an
            exact output.
        seconds: What the run took.
        output_pixels: Width times height of the output.
    """

    dataset: str
    picture: str
    method: str
    scores: Mapping[str, float]
    seconds: float
    output_pixels: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One method on one data set.

    Attributes:
        dataset, method: Names.
        pictures: How many were measured.
        scores: Means of the scores (`PictureScore`), by name.
        mpix_per_s, mpix_per_s_low, mpix_per_s_high: Median and quartiles of the speed, in output megapixels a second.
        host_bytes: What the largest picture takes at most beyond a loaded program (`memory.host_peak_bytes`).
        device_bytes: Most bytes on a CUDA device; None elsewhere.
        parameters, macs_720p, device, dtype: See `Method`.
    """

    dataset: str
    method: str
    pictures: int
    scores: Mapping[str, float]
    mpix_per_s: float
    mpix_per_s_low: float
    mpix_per_s_high: float
    host_bytes: int | None
    device_bytes: int | None
    parameters: int
    macs_720p: int
    device: str
    dtype: str


class Pair:
    """An output and its reference, as metrics take them.

    Args:
        sr, hr: (H, W, 1 or 3) uint8, of equal size.
        crop_border: HR pixels left out along each edge.
        y_channel: Whether PSNR and SSIM are computed on Y; gray pictures are measured as they are.

    Attributes:
        sr_pixels, hr_pixels: The arguments.
        sr, hr: The same as (1, 1 or 3, H, W) in [0, 1].
        border: ``crop_border``.
        settings: ``crop_border`` and ``y_channel``, as arguments of `metrics.reference`.
    """

    def __init__(self, sr: Pixels, hr: Pixels, *, crop_border: int, y_channel: bool) -> None:
        from sr_upscale.functional.color import to_tensor

        self.sr_pixels, self.hr_pixels = sr, hr
        self.sr, self.hr = to_tensor(sr), to_tensor(hr)
        self.border = crop_border
        self.settings: dict[str, Any] = {"crop_border": crop_border, "y_channel": y_channel and self.sr.shape[1] == 3}

    @property
    def rgb(self) -> tuple[Tensor, Tensor]:
        """Output and reference with three channels, (1, 3, H, W)."""
        return self.sr.expand(-1, 3, -1, -1), self.hr.expand(-1, 3, -1, -1)


Score = Callable[[Pair], float | None]
"""Computes a score; None where the picture has none, as where it is too small."""


def _psnr(_given: str) -> Score:
    from sr_upscale.metrics.reference import psnr

    return lambda pair: psnr(pair.sr, pair.hr, **pair.settings).item()


def _ssim(_given: str) -> Score:
    from sr_upscale.metrics.reference import ssim

    return lambda pair: ssim(pair.sr, pair.hr, **pair.settings).item()


def _ms_ssim(_given: str) -> Score:
    with needing("ms-ssim", "ms_ssim needs an extra"):
        from piq import multi_scale_ssim
    from sr_upscale.metrics.reference import prepared

    def score(pair: Pair) -> float | None:
        sr, hr = prepared(pair.sr, pair.hr, "MS-SSIM", data_range=1.0, **pair.settings)
        if min(sr.shape[-2:]) < 161:  # the window of 11 after four halvings
            return None
        return float(multi_scale_ssim(sr, hr, data_range=1.0))

    return score


def _niqe(_given: str) -> Score:
    from sr_upscale.metrics.niqe import niqe

    def score(pair: Pair) -> float | None:
        try:
            return niqe(pair.rgb[0], crop_border=pair.border)
        except ShapeError:  # smaller than two blocks
            return None

    return score


def _vgg19(file: str) -> Score:
    from sr_upscale.metrics.reference import vgg19_distance
    from sr_upscale.models.features import distance_features

    features = distance_features(Path(file))
    return lambda pair: vgg19_distance(*pair.rgb, features, crop_border=pair.border).item()


def _lpips(backbone: str) -> Score:
    from sr_upscale.metrics.reference import lpips_distance, lpips_model

    model = lpips_model(backbone)
    return lambda pair: lpips_distance(*pair.rgb, model, crop_border=pair.border).item()


def _cer(language: str) -> Score:
    import numpy as np

    from sr_upscale.metrics.reading import Reader, character_error_rate

    reader = Reader(language)

    @functools.lru_cache(maxsize=1)  # a reference is read once, not once for each method
    def text_of(shape: tuple[int, ...], pixels: bytes) -> str:
        return reader(np.frombuffer(pixels, np.uint8).reshape(shape))

    def score(pair: Pair) -> float | None:
        text = text_of(pair.hr_pixels.shape, pair.hr_pixels.tobytes())
        return character_error_rate(reader(pair.sr_pixels), text) if text else None

    return score


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score.

    Attributes:
        name: In ``--metric``, JSON and CSV.
        heading: Of its column; an arrow up stands where more is better, and one down where less is.
        format: Format specification of its values.
        load: Makes the function that computes it, from what it needs.
        protocol: How it is computed, for the protocol; ``{}`` is what it needs. Empty for what is always measured.
        needs: What follows ``--metric NAME=``; empty where it needs nothing.
    """

    name: str
    heading: str
    format: str
    load: Callable[[str], Score]
    protocol: str = ""
    needs: str = ""

    @property
    def usage(self) -> str:
        """How ``--metric`` takes it."""
        return f"{self.name}={self.needs}" if self.needs else self.name


METRICS = (
    Metric(name="psnr", heading="PSNR, dB ↑", format=".2f", load=_psnr),
    Metric(name="ssim", heading="SSIM ↑", format=".4f", load=_ssim),
    Metric(
        name="ms_ssim", heading="MS-SSIM ↑", format=".4f", load=_ms_ssim, protocol="MS-SSIM of five scales, as SSIM"
    ),
    Metric(name="niqe", heading="NIQE ↓", format=".2f", load=_niqe),
    Metric(
        name="vgg19",
        heading="VGG19 ↓",
        format=".3f",
        load=_vgg19,
        protocol="distance of VGG19 features with {}, RGB, the same border",
        needs="FILE",
    ),
    Metric(
        name="lpips",
        heading="LPIPS ↓",
        format=".4f",
        load=_lpips,
        protocol="LPIPS with {}, RGB, the same border",
        needs="alex|vgg",
    ),
    Metric(
        name="cer",
        heading="CER ↓",
        format=".3f",
        load=_cer,
        protocol="CER of tesseract in {} against its reading of HR",
        needs="LANGUAGE",
    ),
)
"""All scores, in the order of their columns."""

OPTIONAL = {metric.name: metric for metric in METRICS if metric.protocol}
"""Those that are measured only if ``--metric`` names them."""


def parse_metrics(names: Iterable[str]) -> dict[str, str]:
    """Parses values of ``--metric``: ``ms_ssim``, ``lpips=alex``, several separated by commas.

    Returns:
        What each metric needs, by its name.

    Raises:
        UsageError: There is no such metric, or its ``=...`` is missing or not expected.
    """
    found = {}
    for each in (part for name in names for part in name.split(",") if part):
        name, _equals, given = each.partition("=")
        metric = OPTIONAL.get(name)
        if metric is None or bool(given) != bool(metric.needs):
            usages = [metric.usage] if metric is not None else [every.usage for every in OPTIONAL.values()]
            raise UsageError(f"--metric is {shown(each)!r}; expected {', '.join(usages)}")
        found[name] = given
    return found


def load_metrics(optional: Mapping[str, str]) -> dict[str, Score]:
    """Loads the metrics that are always measured, and optional ones.

    Args:
        optional: Result of `parse_metrics`.

    Raises:
        UsageError: A metric needs a package or a command that is not installed, or does not take what it got.
        NetworkError, ModelError: Weights of a metric cannot be downloaded or used.
    """
    wanted = (metric for metric in METRICS if metric.name not in OPTIONAL or metric.name in optional)
    return {metric.name: metric.load(optional.get(metric.name, "")) for metric in wanted}


def scores_by_name(rows: Sequence[PictureScore | Summary]) -> dict[str, list[float]]:
    """Lists the scores of several rows by name, in the order of `METRICS`, without those that no row has."""
    values = {metric.name: [row.scores[metric.name] for row in rows if metric.name in row.scores] for metric in METRICS}
    return {name: each for name, each in values.items() if each}
