"""A batch at work: while one picture is computed, the next are read and those before are written.

A bad picture fails alone. What is finished is in the manifest. So a second run skips exactly what would come out the
same, and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from sr_upscale.errors import DiskFullError, OutOfMemoryError, SrUpscaleError
from sr_upscale.formatting import shown
from sr_upscale.pipeline.batch_plan import BatchPlan, Item, refuse_name
from sr_upscale.pipeline.manifest import is_done, manifests_of
from sr_upscale.pipeline.words import Jobs
from sr_upscale.storage.atomic import output_error, remove_orphans

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What `run_batch` lends to the computing of an item.

    Attributes:
        saver: Threads that write.
        worker: Number of the computing thread, from 0.
        stop: Set when the computing shall end at once, with any exception.
        on_whole: To be called with the whole output and the sha256 of the input that was read, before the output takes
            its place (`replace_file`).
    """

    saver: Executor
    worker: int
    stop: threading.Event
    on_whole: Callable[[Path, str], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an item.

    Attributes:
        item: The item.
        status: ``done``, ``skipped`` or ``failed``.
        seconds: Time that a done item took.
        error: Why a failed item failed.
        details: What was done, as the executor says it.
    """

    item: Item
    status: Literal["done", "skipped", "failed"]
    seconds: float = 0.0
    error: SrUpscaleError | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class ItemExecutor(Protocol[Loaded]):
    """What does a batch's items: this process (`executor.LocalExecutor`), or others."""

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Returns everything besides the input that determines an output, ready for JSON."""
        ...

    def load(self, item: Item) -> Loaded:
        """Reads an item."""
        ...

    def start(self, item: Item, loaded: Loaded, work: Work) -> Future[dict[str, Any]]:
        """Computes what was read and has it written (`Work.saver`).

        The future's result becomes the outcome's details and holds ``seconds``.
        """
        ...


def run_batch(
    plan: BatchPlan,
    executor: ItemExecutor[Loaded],
    *,
    jobs: Jobs | None = None,
    force: bool = False,
    on_outcome: Callable[[Outcome], None] = lambda _outcome: None,
) -> list[Outcome]:
    """Does the items: while one is computed, the next are read and those before are written.

    An existing target is skipped where the manifest says that it was made from this input with these settings and has
    not been touched since. It is made anew where the manifest knows it untouched but input or settings are others. A
    file that the manifest does not know is never overwritten without `force`.

    An exception that is not an item's own (a signal, a full disk) ends the stages, and then passes on. What has been
    written by then, even by a process that was killed, is known to the next run.

    Args:
        plan: Items and the manifest's folder.
        executor: Does them.
        jobs: How many items each stage has at a time.
        force: Make every item anew, and overwrite also files that this program did not make.
        on_outcome: Called after each item, in their order.

    Returns:
        What became of each item, in their order.

    Raises:
        DiskFullError: The disk is full, or the quota used up.
    """
    jobs = jobs or Jobs()
    for folder in {item.target.parent for item in plan.items}:
        remove_orphans(folder)
    manifests = manifests_of(plan, executor.fingerprint)
    stop = threading.Event()
    workers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(jobs.proc):
        workers.put(number)

    def read(item: Item) -> Loaded | None:
        refuse_name(item.target)
        return None if is_done(item, manifests, force=force) else executor.load(item)

    def compute(item: Item, reading: Future[Loaded | None]) -> Future[dict[str, Any]] | None:
        loaded = reading.result()
        if loaded is None:
            return None
        item.target.parent.mkdir(parents=True, exist_ok=True)
        worker = workers.get()
        try:
            note = functools.partial(manifests[item.target.parent].add, item)
            return executor.start(item, loaded, Work(saver=saver, worker=worker, stop=stop, on_whole=note))
        finally:
            workers.put(worker)

    def finish(item: Item, computing: Future[Future[dict[str, Any]] | None]) -> Outcome:
        try:
            written = computing.result()
            if written is None:
                return Outcome(item=item, status="skipped")
            details = written.result()
            return Outcome(item=item, status="done", seconds=details["seconds"], details=details)
        except Exception as failure:  # one bad file never stops the rest, whatever it breaks
            error = failure if isinstance(failure, SrUpscaleError) else _as_ours(failure, item)
            if isinstance(error, DiskFullError):
                raise error from failure.__cause__
            return Outcome(item=item, status="failed", error=error)

    outcomes: list[Outcome] = []
    flying: deque[tuple[Item, Future[Future[dict[str, Any]] | None]]] = deque()
    with (
        ThreadPoolExecutor(jobs.save, "save") as saver,
        ThreadPoolExecutor(jobs.proc, "proc") as computer,
        ThreadPoolExecutor(jobs.load, "load") as loader,
    ):
        try:
            waiting = iter(plan.items)
            while True:
                while len(flying) < jobs.load + jobs.proc + jobs.save and (item := next(waiting, None)) is not None:
                    flying.append((item, computer.submit(compute, item, loader.submit(read, item))))
                if not flying:
                    return outcomes
                outcomes.append(finish(*flying.popleft()))
                on_outcome(outcomes[-1])
        except BaseException:
            stop.set()
            for pool in (loader, computer, saver):
                pool.shutdown(wait=False, cancel_futures=True)
            raise


def _as_ours(failure: Exception, item: Item) -> SrUpscaleError:
    name = shown(item.source)
    if isinstance(failure, MemoryError):
        return OutOfMemoryError(f"{name}: out of memory; close other programs or use a smaller scale")
    if isinstance(failure, OSError):
        return output_error(item.target, failure)
    return SrUpscaleError(f"{name}: internal error: {type(failure).__name__}: {failure}; please report it")
