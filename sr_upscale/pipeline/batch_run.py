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
from sr_upscale.pipeline.ledger import Ledger
from sr_upscale.pipeline.manifest import Stamp, stamp_of
from sr_upscale.pipeline.parsing import Jobs
from sr_upscale.storage.atomic import output_error

if TYPE_CHECKING:
    from sr_upscale.storage.objects import Spool

Loaded = TypeVar("Loaded")

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

    def share(self, item: Item, work: Work) -> None:
        """Does a part of an item that another process holds, if it has parts. That process finishes it."""
        ...


class ItemLedger(Protocol):
    """What knows what is done and who does the rest: `ledger.Ledger`, or `places.ObjectLedger`."""

    def __enter__(self) -> ItemLedger: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def take(self, item: Item, /) -> Literal["done", "held", "taken"]:
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


def run_batch(
    plan: BatchPlan,
    executor: ItemExecutor[Loaded],
    *,
    jobs: Jobs | None = None,
    force: bool = False,
    verify: bool = False,
    ledger: ItemLedger | None = None,
    spool: Spool | None = None,
    on_outcome: Callable[[Outcome], None] = lambda _outcome: None,
    on_wait: Callable[[int], None] = lambda _count: None,
) -> list[Outcome]:
    """Does the items: while one is computed, the next are read and those before are written.

    An existing target is skipped where the manifest says that it was made from this input with these settings and has
    not been touched since. It is made anew where the manifest knows it untouched but the input has changed. What was
    made with other settings, and a file that the manifest does not know, is never overwritten without `force`.

    Other processes, also on other machines, may do items of the same plan. Each item is claimed first (`Ledger.take`);
    those that others hold come last, are skipped once they are done, and are taken over where their holder is gone.
    Parts of them are done meanwhile (`ItemExecutor.share`).

    An exception that is not an item's own (a signal, a full disk) ends the stages, and then passes on. What has been
    written by then, even by a process that was killed, is known to the next run.

    Args:
        plan: Items and the manifest's folder.
        executor: Does them.
        jobs: How many items each stage has at a time.
        force: Make every item anew, and overwrite also files that this program did not make.
        verify: Compare files by their hashes even where size and time are those of the manifest.
        ledger: Knows what is done; None is the one of the plan's folders, which takes `force` and `verify`.
        spool: Where items lie on their way, as many as fit there; one alone always does.
        on_outcome: Called after each item, in their order, but for those that other processes held.
        on_wait: Called with the number of items for which other processes are waited for, once.

    Returns:
        What became of each item, in their order.

    Raises:
        DiskFullError: The disk is full, or the quota used up.
    """
    jobs = jobs or Jobs()
    ledger = ledger or Ledger(plan, executor.fingerprint, force=force, verify=verify)
    stop = threading.Event()
    workers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(jobs.proc):
        workers.put(number)

    def fits(items: list[Item]) -> bool:
        return spool is None or spool.fits([each.source for each in items], [each.target for each in items])

    def read(item: Item) -> _Taken[Loaded] | Literal["done", "held"]:
        known = ledger.take(item)
        return known if known != "taken" else _Taken(stamp=stamp_of(item.source), loaded=executor.load(item))

    def compute(
        item: Item, reading: Future[_Taken[Loaded] | Literal["done", "held"]], idle: bool
    ) -> Future[dict[str, Any]] | Literal["done", "held"]:
        taken = reading.result()
        if taken == "done" or (taken == "held" and not idle):
            return taken
        if isinstance(taken, _Taken) and ledger.has_lost(item):  # while it waited
            return "held"
        item.target.parent.mkdir(parents=True, exist_ok=True)
        worker = workers.get()
        try:
            if not isinstance(taken, _Taken):
                executor.share(item, Work(saver=saver, worker=worker, stop=stop))
                return taken
            note = functools.partial(ledger.note, item, taken.stamp)
            return executor.start(item, taken.loaded, Work(saver=saver, worker=worker, stop=stop, on_whole=note))
        finally:
            workers.put(worker)

    def finish(item: Item, computing: Future[Future[dict[str, Any]] | Literal["done", "held"]]) -> Outcome | None:
        """Returns what became of an item, or None where another process has it."""
        try:
            written = computing.result()
            if not isinstance(written, Future):
                return Outcome(item=item, status="skipped") if written == "done" else None
            details = written.result()
            return Outcome(item=item, status="done", seconds=details["seconds"], details=details)
        except AppearedError:  # another process was first, or it is foreign
            return None
        except Exception as failure:  # one bad file never stops the rest, whatever it breaks
            if ledger.has_lost(item):  # the other one has also removed what was unfinished
                return None
            error = failure if isinstance(failure, SrUpscaleError) else _as_ours(failure, item)
            if isinstance(error, DiskFullError):
                raise error from failure.__cause__
            return Outcome(item=item, status="failed", error=error)
        finally:
            ledger.release(item)

    outcomes: dict[int, Outcome] = {}
    flying: deque[tuple[int, Item, Future[Future[dict[str, Any]] | Literal["done", "held"]]]] = deque()
    with (
        ledger,
        ThreadPoolExecutor(jobs.save, "save") as saver,
        ThreadPoolExecutor(jobs.proc, "proc") as computer,
        ThreadPoolExecutor(jobs.load, "load") as loader,
    ):
        try:
            waiting, held = deque(enumerate(plan.items)), deque[tuple[int, Item]]()
            waited = looked = False  # whether the held ones were looked at since an item was done here
            while waiting or flying or held:
                if not waiting and not flying:
                    if looked:
                        if not waited:
                            on_wait(len(held))
                            waited = True
                        time.sleep(POLL_S)
                    waiting, held, looked = held, deque(), True
                while len(flying) < jobs.load + jobs.proc + jobs.save and waiting:
                    number, item = waiting[0]
                    if flying and not fits([item, *(each for _, each, _ in flying)]):
                        break
                    waiting.popleft()
                    flying.append((number, item, computer.submit(compute, item, loader.submit(read, item), looked)))
                number, item, computing = flying.popleft()
                outcome = finish(item, computing)
                if outcome is None:
                    held.append((number, item))
                    continue
                outcomes[number] = outcome
                looked = looked and outcome.status == "skipped"
                on_outcome(outcome)
            return [outcomes[number] for number in sorted(outcomes)]
        except BaseException:
            with STOP.tidying():  # else a signal ends the wait for threads that claim, and their claims stay
                stop.set()
                for wait in (False, True):
                    for pool in (loader, computer, saver):
                        pool.shutdown(wait=wait, cancel_futures=True)
            raise


def _as_ours(failure: Exception, item: Item) -> SrUpscaleError:
    name = shown(item.source)
    if isinstance(failure, MemoryError):
        return OutOfMemoryError(f"{name}: out of memory; close other programs or use a smaller scale")
    if isinstance(failure, OSError):
        return output_error(item.target, failure)
    return SrUpscaleError(f"{name}: internal error: {type(failure).__name__}: {failure}; please report it")
