"""A batch at work: while one picture is computed, the next are read and those before are written.

A bad picture fails alone. What is finished is in the manifest. So a second run skips exactly what would come out the
same, and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from sr_upscale.errors import AppearedError, DiskFullError, OutOfMemoryError, SrUpscaleError
from sr_upscale.formatting import addressed, shown
from sr_upscale.interrupts import STOP
from sr_upscale.pipeline.batch_plan import BatchPlan, Item
from sr_upscale.pipeline.manifest import Stamp, stamp_of
from sr_upscale.pipeline.parsing import Jobs
from sr_upscale.storage.atomic import output_error

if TYPE_CHECKING:
    from sr_upscale.storage.objects import Spool

Loaded = TypeVar("Loaded")
Computing = Future[Future[dict[str, Any]] | Literal["done", "busy"]]
"""An item on its way: once it is computed, it is being written; or it is done, or another process's."""

POLL_S = 0.5
"""How often a batch that has nothing else to do asks for the items that other processes hold, in seconds."""


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
    on_whole: Callable[[Path, str], None] = lambda _temporary, _sha256: None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an item.

    Attributes:
        item: The item.
        status: ``done``, ``skipped`` or ``failed``; in a dry run ``planned`` in the place of ``done``.
        seconds: Time that a done item took, or a planned one would.
        error: Why a failed item failed.
        details: What was done, as the executor says it.
    """

    item: Item
    status: Literal["done", "planned", "skipped", "failed"]
    seconds: float = 0.0
    error: SrUpscaleError | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Returns what became of the item, ready for JSON (docs/scripts.md)."""
        row = {"status": self.status, "input": addressed(self.item.source), "output": addressed(self.item.target)}
        failure = {} if self.error is None else {"error": str(self.error), "exit_code": self.error.exit_code}
        return row | failure | dict(self.details)


@dataclass(frozen=True, kw_only=True)
class _Taken(Generic[Loaded]):
    """An item that is this process's, as read, and its file's stamp from before that."""

    loaded: Loaded
    stamp: Stamp | None


class ItemExecutor(Protocol[Loaded]):
    """What does a batch's items: this process (`executor.LocalExecutor`), or others."""

    def load(self, item: Item) -> Loaded:
        """Reads an item."""
        ...

    def start(self, item: Item, loaded: Loaded, work: Work) -> Future[dict[str, Any]]:
        """Computes what was read and has it written (`Work.saver`).

        The future's result becomes the outcome's details and holds ``seconds``.
        """
        ...

    def share(self, item: Item, work: Work) -> None:
        """Does a part of an item that another process holds, if it has parts. That process finishes it."""
        ...


class ItemLedger(Protocol):
    """What knows what is done and who does the rest: `ledger.Ledger`, or `places.ObjectLedger`."""

    def __enter__(self) -> ItemLedger: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def take(self, item: Item, /) -> Literal["done", "busy", "taken"]:
        """Claims an item."""
        ...

    def is_done(self, item: Item, /) -> bool:
        """Says whether there is nothing to do."""
        ...

    def note(self, item: Item, stamp: Stamp | None, output: Path, input_sha256: str, /) -> None:
        """Notes a whole output that is about to take its place."""
        ...

    def has_lost(self, item: Item, /) -> bool:
        """Says whether another process has taken over or done an item since it was taken here."""
        ...

    def release(self, item: Item, /) -> None:
        """Gives an item back, done or not."""
        ...


class _Stages(Generic[Loaded]):
    """Threads that read, compute and write the items of a batch, to be used in a ``with``.

    Args:
        executor, ledger, jobs: See `run_batch`.

    Attributes:
        room: How many items can be on their way.
    """

    def __init__(self, executor: ItemExecutor[Loaded], ledger: ItemLedger, jobs: Jobs) -> None:
        self.room = jobs.load + jobs.proc + jobs.save
        self._executor, self._ledger = executor, ledger
        self._loader = ThreadPoolExecutor(jobs.load, "load")
        self._computer = ThreadPoolExecutor(jobs.proc, "proc")
        self._saver = ThreadPoolExecutor(jobs.save, "save")
        self._stop = threading.Event()
        self._workers: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(jobs.proc):
            self._workers.put(number)

    def __enter__(self) -> _Stages[Loaded]:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        with STOP.tidying():  # else a signal ends the wait for threads that claim, and their claims stay
            if kind is not None:
                self._stop.set()
            for wait in (False, True):
                for pool in (self._loader, self._computer, self._saver):
                    pool.shutdown(wait=wait, cancel_futures=True)

    def begin(self, item: Item, *, idle: bool) -> Computing:
        """Has an item read and computed, or with `idle` a part of one that another process holds."""
        return self._computer.submit(self._compute, item, self._loader.submit(self._read, item), idle)

    def _read(self, item: Item) -> _Taken[Loaded] | Literal["done", "busy"]:
        known = self._ledger.take(item)
        return known if known != "taken" else _Taken(stamp=stamp_of(item.source), loaded=self._executor.load(item))

    def _compute(
        self, item: Item, reading: Future[_Taken[Loaded] | Literal["done", "busy"]], idle: bool
    ) -> Future[dict[str, Any]] | Literal["done", "busy"]:
        taken = reading.result()
        if taken == "done" or (taken == "busy" and not idle):
            return taken
        if isinstance(taken, _Taken) and self._ledger.has_lost(item):  # while it waited
            return "busy"
        item.target.parent.mkdir(parents=True, exist_ok=True)
        worker = self._workers.get()
        work = Work(saver=self._saver, worker=worker, stop=self._stop)
        try:
            if not isinstance(taken, _Taken):
                self._executor.share(item, work)
                return taken
            note = functools.partial(self._ledger.note, item, taken.stamp)
            return self._executor.start(item, taken.loaded, dataclasses.replace(work, on_whole=note))
        finally:
            self._workers.put(worker)

    def finish(self, item: Item, computing: Computing) -> Outcome | None:
        """Waits for an item. Returns what became of it, or None where another process has it."""
        try:
            written = computing.result()
            if not isinstance(written, Future):
                return Outcome(item=item, status="skipped") if written == "done" else None
            details = written.result()
            return Outcome(item=item, status="done", seconds=details["seconds"], details=details)
        except AppearedError:  # another process was first, or it is foreign
            return None
        except Exception as failure:  # one bad file never stops the rest, whatever it breaks
            if self._ledger.has_lost(item):  # the other one has also removed what was unfinished
                return None
            error = failure if isinstance(failure, SrUpscaleError) else _as_ours(failure, item)
            if isinstance(error, DiskFullError):
                raise error from failure.__cause__
            return Outcome(item=item, status="failed", error=error)
        finally:
            self._ledger.release(item)


def run_batch(
    plan: BatchPlan,
    executor: ItemExecutor[Loaded],
    ledger: ItemLedger,
    *,
    jobs: Jobs | None = None,
    spool: Spool | None = None,
    on_outcome: Callable[[Outcome], None] = lambda _outcome: None,
    on_wait: Callable[[int], None] = lambda _count: None,
) -> list[Outcome]:
    """Does the items: while one is computed, the next are read and those before are written.

    Other processes, also on other machines, may do items of the same plan. Each item is claimed first
    (`ItemLedger.take`); those that others are at work on come last, are skipped once they are done, and are taken over
    where their holder is gone. Parts of them are done meanwhile (`ItemExecutor.share`).

    An exception that is not an item's own (a signal, a full disk) ends the stages, and then passes on. What has been
    written by then, even by a process that was killed, is known to the next run.

    Args:
        plan: The items.
        executor: Does them.
        ledger: Knows what is done.
        jobs: How many items each stage has at a time.
        spool: Where items lie on their way, as many as fit there; one alone always does.
        on_outcome: Called after each item, in their order, but for those that other processes did.
        on_wait: Called with the number of items for which other processes are waited for, once.

    Returns:
        What became of each item, in their order.

    Raises:
        DiskFullError: The disk is full, or the quota used up.
    """
    waiting, busy = deque(enumerate(plan.items)), deque[tuple[int, Item]]()
    flying: deque[tuple[int, Item, Computing]] = deque()
    outcomes: dict[int, Outcome] = {}
    waited = looked = False  # whether the busy ones were looked at since an item was done here

    def fits(item: Item) -> bool:
        if spool is None or not flying:
            return True
        items = [item, *(each for _, each, _ in flying)]
        return spool.fits([each.source for each in items], [each.target for each in items])

    with ledger, _Stages(executor, ledger, jobs or Jobs()) as stages:
        while waiting or flying or busy:
            if not waiting and not flying:
                if looked:
                    if not waited:
                        on_wait(len(busy))
                    waited = True
                    time.sleep(POLL_S)
                waiting, busy, looked = busy, deque(), True
            while waiting and len(flying) < stages.room and fits(waiting[0][1]):
                number, item = waiting.popleft()
                flying.append((number, item, stages.begin(item, idle=looked)))
            number, item, computing = flying.popleft()
            outcome = stages.finish(item, computing)
            if outcome is None:
                busy.append((number, item))
                continue
            outcomes[number] = outcome
            looked = looked and outcome.status == "skipped"
            on_outcome(outcome)
    return [outcomes[number] for number in sorted(outcomes)]


def _as_ours(failure: Exception, item: Item) -> SrUpscaleError:
    name = shown(item.source)
    if isinstance(failure, MemoryError):
        return OutOfMemoryError(f"{name}: out of memory; close other programs or use a smaller scale")
    if isinstance(failure, OSError):
        return output_error(item.target, failure)
    return SrUpscaleError(f"{name}: internal error: {type(failure).__name__}: {failure}; please report it")
