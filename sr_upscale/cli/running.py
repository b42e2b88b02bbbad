"""What `upscale` and `batch` share: plans into words, items into results."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_upscale.cli.console import Console
from sr_upscale.cli.models import obtain
from sr_upscale.errors import BATCH_PARTLY_FAILED, SrUpscaleError, UsageError
from sr_upscale.formatting import duration, mebibytes, shown
from sr_upscale.images.formats import format_of_path
from sr_upscale.inference.sizing import Target, choose_factors
from sr_upscale.pipeline.batch_plan import BatchPlan, Item, counted, refuse_unwritable
from sr_upscale.pipeline.batch_run import Outcome, run_batch
from sr_upscale.pipeline.manifest import is_done, manifests_of
from sr_upscale.pipeline.request import NetworkOptions, Request
from sr_upscale.pretrained.registry import cached_path, catalogue_entry, resolve_family

if TYPE_CHECKING:
    from sr_upscale.pipeline.executor import LocalExecutor
    from sr_upscale.pipeline.job import Prepared
    from sr_upscale.upscaler import Upscaler


def obtain_models(network: NetworkOptions, console: Console, *, dry_run: bool) -> None:
    """Downloads the models that are named and not here.

    Raises:
        UsageError: A dry run needs a download; the message names it.
        NetworkError, IntegrityError, OutputError: A download failed.
    """
    for name in (network.model, *network.before):
        entry = catalogue_entry(name)
        if dry_run and entry is not None and not cached_path(entry).is_file():
            raise UsageError(f"a dry run downloads nothing; `sr-upscale models download {entry.name}` first")
        if entry is not None:
            obtain(name, console)


def output_label(target: Target, model: str) -> str:
    """Makes the part of a default output name that says what was done, such as ``x4_psnr-x4``."""
    weights = resolve_family(model)
    family = Path(model).stem
    if target.width and target.height:
        return f"{target.width}x{target.height}_{family}"
    if target.width or target.height:
        return f"w{target.width}_{family}" if target.width else f"h{target.height}_{family}"
    scale = target.scale or max(weights)
    return f"x{scale:g}_{weights[choose_factors(weights, scale)[0]].stem}"


def names_file(output: str) -> bool:
    """Says whether -o, where a folder is needed, means a file: one that is there, or by its ending."""
    path = Path(output)
    return not path.is_dir() and (path.exists() or format_of_path(path) is not None)


def folder_target(folder: str, output: str | None, target: Target, model: str) -> Path:
    """Says where a folder's outputs go: to -o, or to ``FOLDER_x4`` beside it.

    Raises:
        UsageError: -o means standard output, or a file.
    """
    if output == "-":
        raise UsageError("a folder cannot be written to standard output; give -o a folder")
    if output is not None:
        if names_file(output):
            raise UsageError(f"{shown(output)} is a file; a folder of pictures needs a folder with -o")
        return Path(output)
    path = Path(folder).resolve()
    return path.with_name(f"{path.name}_{output_label(target, model).split('_')[0]}")


def run_items(plan: BatchPlan, request: Request, console: Console, *, verbose: bool) -> int:
    """Does a batch; a dry run says what it would do.

    Args:
        plan: Pictures and their outputs.
        request: What to do with them.
        console: Where to say so.
        verbose: Whether to write a line for each picture that is done.

    Returns:
        The exit code: 0, or 3 if any item failed or would fail.

    Raises:
        OutputError: An output cannot be written.
        SrUpscaleError: Any of its kinds, where the batch cannot go on.
    """
    for warning in plan.warnings:
        console.warn(warning)
    if plan.left_out:
        console.note(f"left out, no pictures that can be read: {counted(plan.left_out)}")
    refuse_unwritable([item.target for item in plan.items])
    with console.progress(f"{len(plan.items)} pictures") as report:
        from sr_upscale.pipeline.executor import LocalExecutor  # takes more than a second; the bar stands before it

        if request.run.dry_run:
            return _dry_run(plan, LocalExecutor(request), console)
        finished = 0
        begin = time.monotonic()

        def on_step(item: Item, done: int, total: int) -> None:
            title = f"{finished + 1}/{len(plan.items)} {shown(item.source.name)[:40]}"
            report((finished + done / total) / len(plan.items), title)

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

        executor = LocalExecutor(request, on_step=on_step)
        try:
            outcomes = run_batch(plan, executor, jobs=executor.jobs, force=request.file.force, on_outcome=on_outcome)
        except BaseException:
            goes_on = "" if request.file.force else "; the same command goes on from there"
            console.note(f"stopped after {finished} of {len(plan.items)}{goes_on}")
            raise
        seconds = time.monotonic() - begin
    counts = {status: sum(each.status == status for each in outcomes) for status in ("done", "skipped", "failed")}
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    where = f"outputs in {shown(plan.root)}" if plan.root is not None else "outputs beside their pictures"
    console.note(f"{words} of {len(outcomes)}; {where}")
    busy = sum(each.details.get("busy_seconds", 0.0) for each in outcomes) / executor.jobs.proc / max(seconds, 1e-9)
    if counts["done"]:
        console.note(f"{duration(seconds)}; the network was busy {busy:.0%} of the time")
    summary = {
        "output": plan.root and str(plan.root),
        **counts,
        "left_out": dict(plan.left_out),
        "seconds": round(seconds, 3),
        "network_busy": round(busy, 4),
    }
    console.result({**summary, "items": [_row(each) for each in outcomes]})
    return BATCH_PARTLY_FAILED if counts["failed"] else 0


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
    """Puts what `pipeline.job.run` says into ``a.jpg -> b.png  400x300  photo-x4  bfloat16 on cpu  1.2 s``."""
    size = "x".join(map(str, done["output_size"]))
    made = f"{shown(source)} -> {shown(target)}  {size}  {', '.join(done['models'])}"
    return f"{made}  {done['dtype']} on {done['device']}  {duration(done['seconds'])}"


def _dry_run(plan: BatchPlan, executor: LocalExecutor, console: Console) -> int:
    manifests, force = manifests_of(plan, executor.fingerprint), executor.request.file.force
    failed = 0
    for item in plan.items:
        try:
            if is_done(item, manifests, force=force):
                console.note(f"{shown(item.target)}: is there and would come out the same; skipped")
                continue
            say_plan(executor.load(item), executor.upscalers[0], str(item.target), console)
        except SrUpscaleError as error:
            failed += 1
            console.warn(f"would fail: {error}")
    return BATCH_PARTLY_FAILED if failed else 0


def say_plan(prepared: Prepared, upscaler: Upscaler, target: str, console: Console) -> None:
    """Writes what a dry run found on stdout, as a line or as JSON, and warnings on stderr."""
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
