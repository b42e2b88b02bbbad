"""What `upscale` and `batch` share: plans into words, items into results."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_upscale.cli.console import Console
from sr_upscale.cli.models import obtain
from sr_upscale.errors import BATCH_PARTLY_FAILED, SrUpscaleError, UsageError
from sr_upscale.formatting import addressed, duration, mebibytes, shown
from sr_upscale.pipeline.batch_plan import BatchPlan, Item, counted, refuse_name, refuse_unwritable
from sr_upscale.pipeline.batch_run import ItemLedger, Outcome, run_batch
from sr_upscale.pipeline.ledger import Ledger
from sr_upscale.pipeline.request import NetworkOptions, Request
from sr_upscale.pretrained.registry import cached_path, catalogue_entry

if TYPE_CHECKING:
    from sr_upscale.pipeline.executor import LocalExecutor
    from sr_upscale.pipeline.job import Prepared
    from sr_upscale.storage.spool import Spool
    from sr_upscale.upscaler import Upscaler


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray cluster; without an address the one of this machine, or a new one on it."""

    address: str | None


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


def run_items(
    plan: BatchPlan,
    request: Request,
    console: Console,
    *,
    verbose: bool,
    verify: bool = False,
    cluster: Cluster | None = None,
    spool: Spool | None = None,
) -> int:
    """Does a batch; a dry run says what it would do.

    Args:
        plan: Pictures and their outputs.
        request: What to do with them.
        console: Where to say so.
        verbose: Whether to write a line for each picture that is done.
        verify: Whether to tell by hashes what is done.
        cluster: What computes; None is this process.
        spool: Its files stand for the objects of a plan of `plan_objects`.

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
    with contextlib.ExitStack() as stack:
        report = stack.enter_context(console.progress(f"{len(plan.items)} pictures"))
        from sr_upscale.pipeline.executor import LocalExecutor  # takes more than a second; the bar stands before it

        executor: Any  # an `ItemExecutor` with `jobs` and `lanes`; what is loaded is its own affair
        fetch = spool.fetch if spool is not None else lambda _source: None

        def fits(items: list[Item]) -> bool:
            return spool is None or spool.fits([each.source for each in items], [each.target for each in items])

        def ledger_for(fingerprint: Mapping[str, Any]) -> ItemLedger:
            if spool is not None:
                from sr_upscale.pipeline.object_batch import ObjectLedger

                return ObjectLedger(spool, plan, fingerprint, force=request.file.force, on_warning=console.warn)
            return Ledger(plan, fingerprint, force=request.file.force, verify=verify)

        if request.run.dry_run:
            executor = LocalExecutor(request, fetch=fetch)
            return _dry_run(plan, executor, ledger_for(executor.fingerprint), console)
        finished = 0
        begin = time.monotonic()

        def on_step(item: Item, done: int, total: int) -> None:
            title = f"{finished + 1}/{len(plan.items)} {shown(item.source.name)[:40]}"
            report((finished + done / total) / len(plan.items), title)

        def on_outcome(outcome: Outcome) -> None:
            nonlocal finished
            finished += 1
            report(finished / len(plan.items), "")
            console.event("picture", _row(outcome))
            if outcome.error is not None:
                console.warn(f"failed: {outcome.error}")
            if verbose and outcome.status == "done":
                console.note(made_in_words(outcome.item.source, outcome.item.target, outcome.details))
            for warning in outcome.details.get("warnings", ()):
                console.warn(warning)

        def on_wait(count: int) -> None:
            console.note(f"waiting for {count} picture{'s' * (count != 1)} that other processes have begun")

        if cluster is None:
            executor = LocalExecutor(request, on_step=on_step, fetch=fetch)
        else:
            from sr_upscale.pipeline.ray_executor import RayExecutor

            executor = stack.enter_context(RayExecutor(request, address=cluster.address))
        try:
            outcomes = run_batch(
                plan,
                executor,
                jobs=executor.jobs,
                ledger=ledger_for(executor.fingerprint),
                fits=fits,
                on_outcome=on_outcome,
                on_wait=on_wait,
            )
        except BaseException:
            goes_on = "" if request.file.force else "; the same command goes on from there"
            console.note(f"stopped after {finished} of {len(plan.items)}{goes_on}")
            raise
        seconds = time.monotonic() - begin
    counts = {status: sum(each.status == status for each in outcomes) for status in ("done", "skipped", "failed")}
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    where = f"outputs in {shown(plan.root)}" if plan.root is not None else "outputs beside their pictures"
    console.note(f"{words} of {len(outcomes)}; {where}")
    busy = sum(each.details.get("busy_seconds", 0.0) for each in outcomes) / executor.lanes / max(seconds, 1e-9)
    if counts["done"]:
        console.note(f"{duration(seconds)}; the network was busy {busy:.0%} of the time")
    code = BATCH_PARTLY_FAILED if counts["failed"] else 0
    console.result(
        {
            "output": plan.root and addressed(plan.root),
            **counts,
            "left_out": dict(plan.left_out),
            "seconds": round(seconds, 3),
            "network_busy": round(busy, 4),
            "exit_code": code,
        }
    )
    return code


def _row(outcome: Outcome) -> dict[str, Any]:
    row = {"status": outcome.status, **_files(outcome.item)}
    return row | _failure(outcome.error) | dict(outcome.details)


def _files(item: Item) -> dict[str, str]:
    return {"input": addressed(item.source), "output": addressed(item.target)}


def _failure(error: SrUpscaleError | None) -> dict[str, Any]:
    return {} if error is None else {"error": str(error), "exit_code": error.exit_code}


def made_in_words(source: Path | str, target: Path | str, done: Mapping[str, Any]) -> str:
    """Puts what `pipeline.job.run` says into ``a.jpg -> b.png  400x300  photo-x4  bfloat16 on cpu  1.2 s``."""
    size = "x".join(map(str, done["output_size"]))
    made = f"{shown(source)} -> {shown(target)}  {size}  {', '.join(done['models'])}"
    return f"{made}  {done['dtype']} on {done['device']}  {duration(done['seconds'])}"


def _dry_run(plan: BatchPlan, executor: LocalExecutor, ledger: ItemLedger, console: Console) -> int:
    counts, seconds = {"planned": 0, "skipped": 0, "failed": 0}, 0.0
    for item in plan.items:
        try:
            refuse_name(item.target)
            if ledger.is_done(item):
                counts["skipped"] += 1
                console.event("picture", {"status": "skipped", **_files(item)})
                console.note(f"{shown(item.target)}: is there and would come out the same; skipped")
                continue
            seconds += say_plan(
                executor.load(item), executor.upscalers[0], addressed(item.source), addressed(item.target), console
            )
            counts["planned"] += 1
        except SrUpscaleError as error:
            counts["failed"] += 1
            console.event("picture", {"status": "failed", **_files(item), **_failure(error)})
            console.warn(f"would fail: {error}")
        finally:
            ledger.release(item)
    code = BATCH_PARTLY_FAILED if counts["failed"] else 0
    console.note(f"{', '.join(f'{count} {status}' for status, count in counts.items())}; about {duration(seconds)}")
    summary = {"output": plan.root and addressed(plan.root), "dry_run": True, **counts, "left_out": dict(plan.left_out)}
    console.result({**summary, "estimated_seconds": round(seconds, 2), "exit_code": code})
    return code


def say_plan(prepared: Prepared, upscaler: Upscaler, source: Path | str, target: str, console: Console) -> float:
    """Writes what a dry run found on stdout, as a line or as JSON, and warnings on stderr.

    Returns:
        Seconds that the picture will take, as estimated.
    """
    from sr_upscale.pipeline import job

    data = job.describe(prepared, upscaler)
    data["estimated_seconds"] = round(job.estimate_seconds(prepared, upscaler), 2)
    for warning in prepared.warnings:
        console.warn(warning)
    console.event("picture", {"status": "planned", "input": str(source), "output": target, "dry_run": True, **data})
    if not console.as_json:
        before, after = ("x".join(map(str, data[key])) for key in ("input_size", "output_size"))
        frames = f", {data['frames']} frames" if data["frames"] > 1 else ""
        console.line(
            f"{prepared.name} {before} -> {shown(target)} {after}{frames}: {' then '.join(data['models'])}, "
            f"{job.cut_in_words(data)}, {data['dtype']} on {data['device']}, about {mebibytes(data['memory_bytes'])} "
            f"and {duration(data['estimated_seconds'])}"
        )
        sys.stdout.flush()
    return float(data["estimated_seconds"])
