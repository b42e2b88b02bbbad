"""What `upscale` and `batch` share: running a plan, and reporting on every picture. Does not import torch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_upscale.cli.console import Console
from sr_upscale.errors import BATCH_PARTLY_FAILED
from sr_upscale.formatting import addressed, duration, mebibytes, shown
from sr_upscale.pipeline.batch_plan import BatchPlan, Item, counted, refuse_unwritable
from sr_upscale.pipeline.batch_run import ItemLedger, Outcome, run_batch
from sr_upscale.pipeline.ledger import Ledger
from sr_upscale.pipeline.request import Request

if TYPE_CHECKING:
    from sr_upscale.pipeline.executor import LocalExecutor
    from sr_upscale.storage.spool import Spool


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray cluster; without an address the one of this machine, or a new one on it."""

    address: str | None


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
    """Runs a batch; a dry run prints what it would do.

    Args:
        plan: Pictures and their outputs.
        request: What to do with them.
        console: Where to print.
        verbose: Whether to write a line for each picture that is done.
        verify: Whether finished items are detected by hashes.
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
        console.note(f"left out, not readable as pictures: {counted(plan.left_out)}")
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
                from sr_upscale.pipeline.object_batch import ledger_of

                return ledger_of(spool, plan, fingerprint, force=request.file.force, on_warning=console.warn)
            return Ledger(plan, fingerprint, force=request.file.force, verify=verify)

        if request.run.dry_run:
            executor = LocalExecutor(request, fetch=fetch, far=spool is not None)
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
            _report(outcome, console)
            if verbose and outcome.status == "done":
                console.note(format_result(outcome.item.source, outcome.item.target, outcome.details))

        def on_wait(count: int) -> None:
            console.note(f"waiting for {count} picture{'s' * (count != 1)} that other processes are working on")

        if cluster is None:
            executor = LocalExecutor(request, on_step=on_step, fetch=fetch, far=spool is not None)
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
            goes_on = "" if request.file.force else "; run the same command to continue"
            console.note(f"stopped after {finished} of {len(plan.items)}{goes_on}")
            raise
        seconds = time.monotonic() - begin
    counts = counts_of(outcomes)
    where = f"outputs in {shown(plan.root)}" if plan.root is not None else "outputs beside their pictures"
    console.note(f"{format_counts(counts)} of {len(outcomes)}; {where}")
    busy = sum(each.details.get("busy_seconds", 0.0) for each in outcomes) / executor.lanes / max(seconds, 1e-9)
    if counts["done"]:
        console.note(f"{duration(seconds)}{f'; compute busy {busy:.0%} of the time' if verbose else ''}")
    return _end(plan, counts, {"seconds": round(seconds, 3), "network_busy": round(busy, 4)}, console)


def _dry_run(plan: BatchPlan, executor: LocalExecutor, ledger: ItemLedger, console: Console) -> int:
    from sr_upscale.pipeline.dry_run import forecasts

    outcomes = []
    for outcome in forecasts(plan, executor, ledger):
        outcomes.append(outcome)
        _report(outcome, console, failed="would fail")
        item = outcome.item
        if outcome.status == "planned" and not console.as_json:
            console.line(format_plan(shown(item.source), item.target, outcome.details))
        if outcome.status == "skipped":
            console.note(f"{shown(item.target)}: up to date; skipped")
    counts, seconds = counts_of(outcomes, "planned"), sum(each.seconds for each in outcomes)
    console.note(f"{format_counts(counts)}; about {duration(seconds)}")
    return _end(plan, counts, {"dry_run": True, "estimated_seconds": round(seconds, 2)}, console)


def _report(outcome: Outcome, console: Console, failed: str = "failed") -> None:
    console.event("picture", row_of(outcome))
    if outcome.error is not None:
        console.warn(f"{failed}: {outcome.error}")
    for warning in outcome.details.get("warnings", ()):
        console.warn(warning)


def _end(plan: BatchPlan, counts: Mapping[str, int], more: Mapping[str, Any], console: Console) -> int:
    """Writes the result of a batch, and returns its exit code."""
    code = BATCH_PARTLY_FAILED if counts["failed"] or plan.unnameable else 0
    root = plan.root and addressed(plan.root)
    console.result({"output": root, **counts, "left_out": dict(plan.left_out), **more, "exit_code": code})
    return code


# --- rows for programs, lines for people ------------------------------------------------------------


def row_of(outcome: Outcome) -> dict[str, Any]:
    """Returns what became of an item, ready for JSON (docs/scripts.md)."""
    row = {"status": outcome.status, "input": addressed(outcome.item.source), "output": addressed(outcome.item.target)}
    failure = {} if outcome.error is None else {"error": str(outcome.error), "exit_code": outcome.error.exit_code}
    return row | failure | dict(outcome.details)


def counts_of(outcomes: Iterable[Outcome], done: str = "done") -> dict[str, int]:
    """Counts outcomes by their status: those of `done`, ``skipped`` and ``failed``."""
    statuses: list[str] = [outcome.status for outcome in outcomes]
    return {status: statuses.count(status) for status in (done, "skipped", "failed")}


def format_counts(counts: Mapping[str, int]) -> str:
    """Formats `counts_of` as ``12 done, 3 skipped, 0 failed``."""
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def format_result(source: Path | str, target: Path | str, done: Mapping[str, Any]) -> str:
    """Formats what `job.run` returns as ``a.jpg -> b.png  400x300  photo-x4  bfloat16 on cpu  1.2 s``."""
    made = f"{shown(source)} -> {shown(target)}  {_by(done['output_size'])}  {', '.join(done['models'])}"
    return f"{made}  {done['dtype']} on {done['device']}  {duration(done['seconds'])}"


def format_plan(name: str, target: Path | str, planned: Mapping[str, Any]) -> str:
    """Formats what `job.forecast` returns as a line.

    Args:
        name: What the picture is called.
        target: Where its output would go.
        planned: The forecast.
    """
    frames = f", {planned['frames']} frames" if planned["frames"] > 1 else ""
    return (
        f"{name} {_by(planned['input_size'])} -> {shown(target)} {_by(planned['output_size'])}{frames}: "
        f"{' then '.join(planned['models'])}, {format_cut(planned)}, {planned['dtype']} on {planned['device']}, "
        f"about {mebibytes(planned['memory_bytes'])} and {duration(planned['estimated_seconds'])}"
    )


def format_cut(described: Mapping[str, Any]) -> str:
    """Formats the cut of `job.describe` as ``12 strips of 16 rows``, ``4 tiles of 256``, or both."""
    parts = []
    if rows := described["strip_rows"]:
        parts.append(f"{described['strips']} strip{'s' * (described['strips'] != 1)} of {_listed(rows)} rows")
    if sizes := described["tile_size"]:
        of = f" of {_listed(sizes)}" if any(sizes) else ""
        parts.append(f"{described['tiles']} tile{'s' * (described['tiles'] != 1)}{of}")
    return " and ".join(parts)


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _listed(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))
