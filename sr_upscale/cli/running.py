"""What `upscale` and `batch` share: running a plan, and reporting on every picture. Does not import torch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_upscale.cli.console import Console, Report
from sr_upscale.errors import BATCH_PARTLY_FAILED
from sr_upscale.formatting import addressed, duration, mebibytes, shown
from sr_upscale.pipeline.batch_plan import BatchPlan, Item, counted, refuse_unwritable
from sr_upscale.pipeline.batch_run import ItemLedger, Outcome, run_batch
from sr_upscale.pipeline.request import Request
from sr_upscale.video.containers import parts_folders

if TYPE_CHECKING:
    from sr_upscale.pipeline.executor import LocalExecutor
    from sr_upscale.pipeline.ray_workers import RayWorkers
    from sr_upscale.storage.objects import Spool

EVENT_EVERY_S = 1.0
"""Seconds between two events of progress."""


def run_items(
    plan: BatchPlan,
    request: Request,
    console: Console,
    *,
    verbose: bool,
    verify: bool = False,
    workers: RayWorkers | None = None,
    spool: Spool | None = None,
) -> int:
    """Runs a batch; a dry run prints what it would do.

    Args:
        plan: Pictures and their outputs.
        request: What to do with them.
        console: Where to print.
        verbose: Whether to write a line for each picture that is done.
        verify: Whether finished items are detected by hashes.
        workers: What computes on a cluster; None is this process.
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
    begin = time.monotonic()
    rows: dict[str, Mapping[str, Any]] = {}
    refused = [Outcome(item=item, status="failed", error=error).row() for item, error in plan.refused]
    total = len(plan.items) + len(refused)
    with console.progress(f"{total} pictures") as report:
        from sr_upscale.pipeline.executor import set_up  # takes more than a second; the bar stands before it

        def on_step(item: Item, done: int, steps: int) -> None:
            title = f"{len(rows) + 1}/{total} {shown(item.source.name)[:40]}"
            report((len(rows) + done / steps) / total, title)

        def on_row(row: Mapping[str, Any]) -> None:
            rows[row["input"]] = row
            report(len(rows) / total, "")
            _report(row, console)
            if verbose and row["status"] == "done":
                console.note(format_result(row["input"], row["output"], row))

        def on_wait(count: int) -> None:
            console.note(f"waiting for {count} picture{'s' * (count != 1)} that other processes are working on")

        if workers is None:
            executor, ledger = set_up(plan, request, spool=spool, verify=verify, on_step=on_step)
            if request.run.dry_run:
                return _dry_run(plan, refused, executor, ledger, console)
        for row in refused:
            on_row(row)
        try:
            if workers is not None:
                workers.run(on_row)
                lanes = workers.most
            else:
                lanes = executor.jobs.proc
                run_batch(
                    plan,
                    executor,
                    ledger,
                    jobs=executor.jobs,
                    spool=spool,
                    on_outcome=lambda outcome: on_row(outcome.row()),
                    on_wait=on_wait,
                )
        except BaseException:
            goes_on = "" if request.file.force else "; run the same command to continue"
            console.note(f"stopped after {len(rows)} of {total}{goes_on}")
            console.event("stopped", {**counts_of(rows.values()), "of": total})
            raise
        seconds = time.monotonic() - begin
    counts = counts_of(rows.values())
    where = f"outputs in {shown(plan.root)}" if plan.root is not None else "outputs beside their pictures"
    console.note(f"{format_counts(counts)} of {len(rows)}; {where}")
    busy = sum(each.get("busy_seconds", 0.0) for each in rows.values()) / lanes / max(seconds, 1e-9)
    if counts["done"]:
        console.note(f"{duration(seconds)}{f'; compute busy {busy:.0%} of the time' if verbose else ''}")
    return _end(plan, counts, {"seconds": round(seconds, 3), "network_busy": round(busy, 4)}, console)


def _dry_run(
    plan: BatchPlan, refused: list[dict[str, Any]], executor: LocalExecutor, ledger: ItemLedger, console: Console
) -> int:
    from sr_upscale.pipeline.executor import forecasts

    rows, seconds = list(refused), 0.0
    for row in refused:
        _report(row, console, failed="would fail")
    for outcome in forecasts(plan, executor, ledger):
        rows.append(outcome.row())
        seconds += outcome.seconds
        _report(rows[-1], console, failed="would fail")
        item = outcome.item
        if outcome.status == "planned" and not console.as_json:
            console.line(format_plan(shown(item.source), item.target, outcome.details))
        if outcome.status == "skipped":
            console.note(f"{shown(item.target)}: up to date; skipped")
    counts = counts_of(rows, "planned")
    console.note(f"{format_counts(counts)}; about {duration(seconds)}")
    return _end(plan, counts, {"dry_run": True, "estimated_seconds": round(seconds, 2)}, console)


def _report(row: Mapping[str, Any], console: Console, failed: str = "failed") -> None:
    console.event("picture", row)
    if "error" in row:
        console.warn(f"{failed}: {row['error']}")
    for warning in row.get("warnings", ()):
        console.warn(warning)


def _end(plan: BatchPlan, counts: Mapping[str, int], more: Mapping[str, Any], console: Console) -> int:
    """Writes the result of a batch, and returns its exit code."""
    code = BATCH_PARTLY_FAILED if counts["failed"] or plan.unnameable else 0
    root = plan.root and addressed(plan.root)
    console.result({"output": root, **counts, "left_out": dict(plan.left_out), **more, "exit_code": code})
    return code


@contextlib.contextmanager
def going_on(target: Path, console: Console) -> Iterator[None]:
    """Says of a clip or comic that ends early how it goes on."""
    try:
        yield
    except BaseException:
        if folders := parts_folders(target):
            console.note(f"finished parts stay in {shown(folders[0])}; run the same command to continue")
        raise


def frame_steps(name: str, report: Report, console: Console) -> Callable[[int, int], None]:
    """Makes what reports on the frames of a clip: a title with their speed, and events with ``--json``.

    Args:
        name: What the clip is called.
        report: Moves the bar.
        console: Writes the events.
    """
    begin = last = time.monotonic()
    first: int | None = None

    def on_step(done: int, total: int) -> None:
        nonlocal first, last
        now = time.monotonic()
        if first is None:
            first = done
            if done:
                console.note(f"{done} of {total} frames are there from an earlier run")
        speed = (done - first) / max(now - begin, 1e-9)
        report(done / total if total else 0.0, f"{shown(Path(name).name)[:40]} {done}/{total or '?'} {speed:.2g} fps")
        if now - last >= EVENT_EVERY_S:
            last = now
            console.event("progress", {"input": name, "frames": done, "of": total, "fps": round(speed, 3)})

    return on_step


# --- rows for programs, lines for people ------------------------------------------------------------


def counts_of(rows: Iterable[Mapping[str, Any]], done: str = "done") -> dict[str, int]:
    """Counts rows by their status: those of `done`, ``skipped`` and ``failed``."""
    statuses = [row["status"] for row in rows]
    return {status: statuses.count(status) for status in (done, "skipped", "failed")}


def format_counts(counts: Mapping[str, int]) -> str:
    """Formats `counts_of` as ``12 done, 3 skipped, 0 failed``."""
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def format_result(source: Path | str, target: Path | str, done: Mapping[str, Any]) -> str:
    """Formats what `executor.run_file` returns as ``a.jpg -> b.png  400x300  photo-x4  bfloat16 on cpu  1.2 s``."""
    made = f"{shown(source)} -> {shown(target)}  {_by(done['output_size'])}  {', '.join(done['models'])}"
    return f"{made}  {done['dtype']} on {done['device']}  {duration(done['seconds'])}"


def format_plan(name: str, target: Path | str, planned: Mapping[str, Any]) -> str:
    """Formats what `job.forecast` returns as a line.

    Args:
        name: What the picture is called.
        target: Where its output would go.
        planned: The forecast.
    """
    parts = [f", {planned[each]} {each}" for each in ("frames", "pages") if planned.get(each, 1) > 1]
    disk = f", {mebibytes(planned['estimated_bytes'])} of disk" if "estimated_bytes" in planned else ""
    return (
        f"{name} {_by(planned['input_size'])} -> {shown(target)} {_by(planned['output_size'])}{''.join(parts)}: "
        f"{' then '.join(planned['models'])}, {format_cut(planned)}, {planned['dtype']} on {planned['device']}, "
        f"about {mebibytes(planned['memory_bytes'])} and {duration(planned['estimated_seconds'])}{disk}"
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
