"""Methods x pictures -> scores, speed and memory, each measured in the same way, in turn."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import torch

from sr_upscale import __version__
from sr_upscale.benchmark.methods import Method, host_peak_bytes
from sr_upscale.benchmark.metrics import Pair, PictureScore, Score, Summary, load_metrics, scores_by_name
from sr_upscale.benchmark.protocol import Protocol
from sr_upscale.benchmark.sets import PicturePair, load_pair
from sr_upscale.errors import InputError, SrUpscaleError
from sr_upscale.functional.color import Pixels
from sr_upscale.metrics.reference import SSIM_WINDOW


@dataclass(frozen=True, kw_only=True)
class Results:
    """All of a run.

    Attributes:
        protocol: How it was measured.
        environment: Where it was measured (`environment`).
        scores: One for each picture and method.
        summaries: One for each data set and method.
    """

    protocol: Protocol
    environment: Mapping[str, Any]
    scores: Sequence[PictureScore] = field(default_factory=list)
    summaries: Sequence[Summary] = field(default_factory=list)


def run_benchmark(
    sets: Mapping[str, Sequence[PicturePair]],
    methods: Sequence[Method],
    protocol: Protocol,
    *,
    metrics: Mapping[str, Score] | None = None,
    on_progress: Callable[[float, str], None] = lambda _share, _title: None,
    on_picture: Callable[[str, str, Mapping[str, Pixels]], None] = lambda _set, _picture, _images: None,
    on_warning: Callable[[str], None] = lambda _message: None,
) -> Results:
    """Measures every method on every picture.

    Args:
        sets: Pictures by name of their data set.
        methods: They run in turn. Each enlarges by the protocol's scale.
        protocol: How to measure.
        metrics: Metrics of the protocol, loaded (`load_metrics`); None loads them.
        on_progress: Called with the finished share (0 to 1) and a short title.
        on_picture: Called with set, picture and images by name (``HR``, and one of each method), for a report. Images
            are (H, W, 1 or 3) uint8.
        on_warning: Called with a sentence about what is left out: pictures that are too small, memory that cannot be
            measured.

    Raises:
        InputError: No picture of a set can be measured.
        SrUpscaleError: Any of its kinds, where a picture cannot be read or a method fails.
    """
    metrics = load_metrics(protocol.metrics) if metrics is None else metrics
    scores: list[PictureScore] = []
    summaries: list[Summary] = []
    total, done = sum(len(pairs) for pairs in sets.values()) * len(methods), 0
    for dataset, pairs in sets.items():
        rows: dict[str, list[PictureScore]] = {method.name: [] for method in methods}
        largest = (0, 0, 0)
        device_bytes: dict[str, int] = {}
        for pair in pairs:
            hr, lr = load_pair(pair, protocol.scale, gray_as_rgb=protocol.gray_as_rgb, own_lr=protocol.own_lr)
            if min(hr.shape[:2]) < SSIM_WINDOW + 2 * protocol.crop_border:
                on_warning(
                    f"left out: {dataset} {pair.name}: {hr.shape[1]}x{hr.shape[0]} without a border of "
                    f"{protocol.crop_border} is smaller than the {SSIM_WINDOW} pixels of SSIM"
                )
                done += len(methods)
                continue
            images = {"HR": hr}
            largest = max(largest, (*lr.shape[:2], lr.shape[2]), key=lambda shape: shape[0] * shape[1])
            for method in methods:
                on_progress(done / total, f"{dataset} {pair.name} {method.name}")
                if not rows[method.name]:
                    method.run(lr)  # warm-up: loading, first shapes
                sr, seconds, taken = _timed(method, lr)
                device_bytes[method.name] = max(device_bytes.get(method.name, 0), taken)
                images[method.name] = sr
                scored = PictureScore(
                    dataset=dataset,
                    picture=pair.name,
                    method=method.name,
                    scores=_scores(sr, hr, protocol, metrics),
                    seconds=seconds,
                    output_pixels=sr.shape[0] * sr.shape[1],
                )
                rows[method.name].append(scored)
                done += 1
            on_picture(dataset, pair.name, images)
        for method in methods:
            if not rows[method.name]:
                raise InputError(
                    f"{dataset}: no picture of it can be measured; give larger ones, or a smaller --border"
                )
            scores += rows[method.name]
            on_progress(done / total, f"{dataset} {method.name} memory")
            try:
                host = host_peak_bytes(method.model, protocol.scale, largest, method.options)
            except SrUpscaleError as error:
                host = None
                on_warning(str(error))
            device = device_bytes[method.name] if method.device_index is not None else None
            summaries.append(_summary(dataset, method, rows[method.name], host_bytes=host, device_bytes=device))
    return Results(protocol=protocol, environment=environment(), scores=scores, summaries=summaries)


def _scores(sr: Pixels, hr: Pixels, protocol: Protocol, metrics: Mapping[str, Score]) -> dict[str, float]:
    """Measures a picture by every metric that can be had of it."""
    outcome = Pair(sr, hr, crop_border=protocol.crop_border, y_channel=protocol.channel == "y")
    found = {name: score(outcome) for name, score in metrics.items()}
    return {name: value for name, value in found.items() if value is not None}


def _timed(method: Method, lr: Pixels) -> tuple[Pixels, float, int]:
    """Runs a method. Gives SR, seconds, and the most bytes on a CUDA device (0 elsewhere)."""
    if method.device_index is not None:
        torch.cuda.reset_peak_memory_stats(method.device_index)
    start = time.perf_counter()
    sr = method.run(lr)  # returns pixels on the host, so that nothing is left running on a device
    seconds = time.perf_counter() - start
    return sr, seconds, torch.cuda.max_memory_allocated(method.device_index) if method.device_index is not None else 0


def _summary(
    dataset: str, method: Method, rows: Sequence[PictureScore], *, host_bytes: int | None, device_bytes: int | None
) -> Summary:
    speeds = [row.output_pixels / 1e6 / row.seconds for row in rows]
    low, middle, high = map(float, np.quantile(speeds, (0.25, 0.5, 0.75)))
    return Summary(
        dataset=dataset,
        method=method.name,
        pictures=len(rows),
        scores={name: statistics.fmean(values) for name, values in scores_by_name(rows).items()},
        mpix_per_s=middle,
        mpix_per_s_low=low,
        mpix_per_s_high=high,
        host_bytes=host_bytes,
        device_bytes=device_bytes,
        parameters=method.parameters,
        macs_720p=method.macs_720p,
        device=method.device,
        dtype=method.dtype,
    )


# --- environment ------------------------------------------------------------------------------------


def environment() -> dict[str, Any]:
    """Describes what the figures depend on besides the protocol: versions, system, processor, memory in bytes."""
    return {
        "sr-upscale": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "memory_bytes": psutil.virtual_memory().total,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0]}, {len(names)} logical cores" if names else platform.processor() or platform.machine()
