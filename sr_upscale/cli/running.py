"""What `upscale` and `batch` share: options into settings, plans into words, items into results."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.cli.models import obtain
from sr_upscale.errors import SrUpscaleError, UsageError
from sr_upscale.formatting import duration, mebibytes, shown
from sr_upscale.images.formats import FORMATS, Format, format_of_path
from sr_upscale.inference.sizing import Target, choose_factors
from sr_upscale.pipeline.batch import (
    BatchPlan,
    Item,
    Manifest,
    Outcome,
    Work,
    hash_file,
    is_done,
    manifests_of,
    refuse_unwritable,
    run_batch,
)
from sr_upscale.pretrained.registry import cached_path, catalogue_entry, resolve_family

if TYPE_CHECKING:
    from concurrent.futures import Future

    from sr_upscale.pipeline.job import JobSettings, Prepared
    from sr_upscale.upscaler import Upscaler


def target_of(*, scale: float | None, width: int | None, height: int | None, size: str | None) -> Target:
    """The size that the options ask for."""
    if size is not None:
        if width is not None or height is not None:
            raise UsageError("--size and --width or --height contradict each other; give one of them")
        width, height = opt.parse_size(size)
    return Target(scale=scale, width=width, height=height)


def job_settings(
    target: Target,
    quality: int | None,
    background: str | None,
    max_pixels: str | None,
    frame: int | None,
    allow_truncated: bool,
    compression: int | None,
    strip_metadata: bool,
) -> JobSettings:
    """Everything about files that the options ask for."""
    from sr_upscale.images import MAX_PIXELS, SaveOptions
    from sr_upscale.pipeline.job import JobSettings

    return JobSettings(
        target=target,
        save=SaveOptions(
            quality=quality,
            background=opt.parse_colour(background) if background else None,
            compression=compression,
            strip_metadata=strip_metadata,
        ),
        max_pixels=opt.parse_pixels(max_pixels) if max_pixels else MAX_PIXELS,
        frame=frame,
        allow_truncated=allow_truncated,
    )


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The network side of the options."""

    model: str
    fidelity: float | None
    before: tuple[str, ...]
    tta: bool
    device: str
    backend: str
    dtype: str
    tile: int
    no_tile: bool
    overlap: int | None
    halo: int | None
    max_memory: int | None


PIXEL_OPTIONS = ("tta", "backend", "dtype", "tile", "no_tile", "overlap", "halo")
"""Options of the network, besides weights, on which pixels depend."""


def obtain_models(options: NetworkOptions, console: Console, *, dry_run: bool) -> None:
    """Downloads what is named and not here; a dry run names it instead."""
    for name in (options.model, *options.before):
        entry = catalogue_entry(name)
        if dry_run and entry is not None and not cached_path(entry).is_file():
            raise UsageError(f"a dry run downloads nothing; `sr-upscale models download {entry.name}` first")
        if entry is not None:
            obtain(name, console)


def make_upscaler(options: NetworkOptions, device: str | None = None) -> Upscaler:
    """The product, set up, on the one device of the options or on the given one. Imports torch."""
    device = device or options.device
    if "," in device:
        raise UsageError(f"--device is {device!r}; one picture takes one device, several are for folders")
    if options.no_tile and options.tile:
        raise UsageError("--tile and --no-tile contradict each other; give one of them")
    from sr_upscale.upscaler import Upscaler

    return Upscaler(
        options.model,
        fidelity=options.fidelity,
        before=options.before,
        tta=options.tta,
        device=device,
        backend=options.backend,
        dtype=options.dtype,
        tile_size=0 if options.no_tile else options.tile or None,
        overlap=options.overlap,
        halo=options.halo,
        max_memory=options.max_memory,
    )


def output_label(target: Target, model: str) -> str:
    """``x4_psnr-x4``, the part of a default output name that says what was done."""
    weights = resolve_family(model)
    family = Path(model).stem
    if target.width and target.height:
        return f"{target.width}x{target.height}_{family}"
    if target.width or target.height:
        return f"w{target.width}_{family}" if target.width else f"h{target.height}_{family}"
    scale = target.scale or max(weights)
    return f"x{scale:g}_{weights[choose_factors(weights, scale)[0]].stem}"


def names_file(output: str) -> bool:
    """Whether -o, where a folder is needed, means a file: one that is there, or by its ending."""
    path = Path(output)
    return not path.is_dir() and (path.exists() or format_of_path(path) is not None)


def folder_target(folder: str, output: str | None, target: Target, model: str) -> Path:
    """Where a folder's outputs go: -o, or ``FOLDER_x4`` beside it."""
    if output == "-":
        raise UsageError("a folder cannot be written to standard output; give -o a folder")
    if output is not None:
        if names_file(output):
            raise UsageError(f"{shown(output)} is a file; a folder of pictures needs a folder with -o")
        return Path(output)
    path = Path(folder).resolve()
    return path.with_name(f"{path.name}_{output_label(target, model).split('_')[0]}")


def run_items(
    plan: BatchPlan,
    settings: JobSettings,
    fmt: Format | None,
    network: NetworkOptions,
    console: Console,
    *,
    jobs: str | None,
    force: bool,
    dry_run: bool,
    verbose: bool,
) -> int:
    """Does a batch, or says what it would do. Returns the exit code: 0, or 3 if any item failed."""
    for warning in plan.warnings:
        console.warn(warning)
    refuse_unwritable([item.target for item in plan.items])
    from sr_upscale.pipeline import job

    upscalers = [make_upscaler(network, device) for device in network.device.split(",")]
    upscaler = upscalers[0]
    threads = opt.parse_jobs(jobs, devices=len(upscalers), gpus=upscaler.choice.device.type != "cpu")

    def format_for(item: Item) -> Format:
        return fmt or format_of_path(item.target) or FORMATS["png"]

    fingerprint: dict[str, Any] = {
        "job": settings.fingerprint(),
        "weights": {str(scale): hash_file(path) for scale, path in upscaler.weights.items()},
        "before": [hash_file(path) for path in upscaler.before],
        "format": fmt.name if fmt else None,
        "network": {key: getattr(network, key) for key in PIXEL_OPTIONS},
    }
    if dry_run:
        return _dry_run(plan, settings, upscaler, console, format_for, manifests_of(plan, fingerprint), force=force)
    with console.progress("") as report:
        finished = 0
        begin = time.monotonic()

        def load(item: Item) -> Prepared:
            return job.prepare(item.source, format_for(item), upscaler, settings)

        def start(item: Item, prepared: Prepared, work: Work) -> Future[dict[str, Any]]:
            title = f"{finished + 1}/{len(plan.items)} {shown(item.source.name)[:40]}"

            def on_step(done: int, total: int) -> None:
                if work.stop.is_set():
                    raise Stopped
                report((finished + done / total) / len(plan.items), title)

            mine = upscalers[work.worker % len(upscalers)]
            fmt = format_for(item)
            return job.start(
                prepared, item.target, fmt, mine, settings, saver=work.saver, on_step=on_step, on_whole=work.on_whole
            )

        def on_outcome(outcome: Outcome) -> None:
            nonlocal finished
            finished += 1
            report(finished / len(plan.items), "")
            if outcome.error is not None:
                console.warn(f"failed: {outcome.error}")
            if verbose and outcome.status == "done":
                console.note(made_in_words(outcome.item.source, outcome.item.target, outcome.details))
            for warning in outcome.details.get("warnings", ()):
                console.warn(warning)

        try:
            outcomes = run_batch(
                plan, load, start, settings=fingerprint, jobs=threads, force=force, on_outcome=on_outcome
            )
        except BaseException:
            goes_on = "" if force else "; the same command goes on from there"
            console.note(f"stopped after {finished} of {len(plan.items)}{goes_on}")
            raise
        seconds = time.monotonic() - begin
    counts = {status: sum(each.status == status for each in outcomes) for status in ("done", "skipped", "failed")}
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    where = f"outputs in {shown(plan.root)}" if plan.root is not None else "outputs beside their pictures"
    console.note(f"{words} of {len(outcomes)}; {where}")
    busy = sum(each.details.get("busy_seconds", 0.0) for each in outcomes) / threads.proc / max(seconds, 1e-9)
    if counts["done"]:
        console.note(f"{duration(seconds)}; the network was busy {busy:.0%} of the time")
    summary = {
        "output": plan.root and str(plan.root),
        **counts,
        "seconds": round(seconds, 3),
        "network_busy": round(busy, 4),
    }
    console.result({**summary, "items": [_row(each) for each in outcomes]})
    return 3 if counts["failed"] else 0


class Stopped(Exception):
    """Computing shall end at once."""


def _row(outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {
        "input": str(outcome.item.source),
        "output": str(outcome.item.target),
        "status": outcome.status,
    }
    if outcome.error is not None:
        row |= {"error": str(outcome.error), "exit_code": outcome.error.exit_code}
    return row | dict(outcome.details)


def made_in_words(source: Path | str, target: Path | str, done: Mapping[str, Any]) -> str:
    """``a.jpg -> b.png  400x300  photo-x4  bfloat16 on cpu  1.2 s`` of what `pipeline.job.run` says."""
    size = "x".join(map(str, done["output_size"]))
    made = f"{shown(source)} -> {shown(target)}  {size}  {', '.join(done['models'])}"
    return f"{made}  {done['dtype']} on {done['device']}  {duration(done['seconds'])}"


def _dry_run(
    plan: BatchPlan,
    settings: JobSettings,
    upscaler: Upscaler,
    console: Console,
    format_for: Callable[[Item], Format],
    manifests: Mapping[Path, Manifest],
    *,
    force: bool,
) -> int:
    from sr_upscale.pipeline import job

    failed = 0
    for item in plan.items:
        try:
            if is_done(item, manifests, force=force):
                console.note(f"{shown(item.target)}: is there and would come out the same; skipped")
                continue
            say_plan(
                job.prepare(item.source, format_for(item), upscaler, settings), upscaler, str(item.target), console
            )
        except SrUpscaleError as error:
            failed += 1
            console.warn(f"would fail: {error}")
    return 3 if failed else 0


def say_plan(prepared: Prepared, upscaler: Upscaler, target: str, console: Console) -> None:
    """What a dry run found, as a line or as JSON, on stdout."""
    from sr_upscale.pipeline import job

    data = job.describe(prepared, upscaler)
    data["estimated_seconds"] = round(job.estimate_seconds(prepared, upscaler), 2)
    for warning in prepared.warnings:
        console.warn(warning)
    console.result({"input": prepared.name, "output": target, "dry_run": True, **data})
    if not console.as_json:
        before, after = ("x".join(map(str, data[key])) for key in ("input_size", "output_size"))
        frames = f", {data['frames']} frames" if data["frames"] > 1 else ""
        console.line(
            f"{prepared.name} {before} -> {shown(target)} {after}{frames}: {' then '.join(data['models'])}, "
            f"{job.cut_in_words(data)}, {data['dtype']} on {data['device']}, about {mebibytes(data['memory_bytes'])} "
            f"and {duration(data['estimated_seconds'])}"
        )
        sys.stdout.flush()
