"""Bands of rows from the thread that computes them to the one that writes them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray

from sr_upscale.inference.memory import QUEUE_BYTES

Done = TypeVar("Done")
Band = NDArray[Any]


class Sized(Protocol):
    """What a queue counts."""

    @property
    def nbytes(self) -> int: ...


Item = TypeVar("Item", bound=Sized)


class Abandoned(Exception):
    """Nobody reads the rows any more."""


class Handover(Generic[Item]):
    """A queue of bands, bounded by bytes. One thread puts, another iterates.

    Args:
        max_bytes: `put` waits while more than this is in the queue.

    Attributes:
        waited_s: Seconds that `put` has waited.
    """

    def __init__(self, max_bytes: int = QUEUE_BYTES) -> None:
        self.max_bytes = max_bytes
        self.waited_s = 0.0
        self._bands: deque[Item] = deque()
        self._bytes = 0
        self._ended = self._abandoned = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, band: Item) -> None:
        """Hands a band over. It waits while more than `max_bytes` are in the queue.

        Raises:
            Abandoned: Nobody reads the rows any more.
        """
        start = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self._bytes <= self.max_bytes)
            self.waited_s += time.perf_counter() - start
            if self._abandoned:
                raise Abandoned
            self._bands.append(band)
            self._bytes += band.nbytes
            self._changed.notify_all()

    def end(self, failure: BaseException | None = None) -> None:
        """Says that no more rows come.

        Args:
            failure: Why they end early. Iterating raises it, and what still waits is dropped.
        """
        with self._changed:
            self._ended, self._failure = True, failure
            self._changed.notify_all()

    def abandon(self) -> None:
        """Says that no more rows are wanted."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or bool(self._bands))
                if self._failure is not None:
                    raise self._failure
                if not self._bands:
                    return
                band = self._bands.popleft()
                self._bytes -= band.nbytes
                self._changed.notify_all()
            yield band


class Writer(Protocol):
    """What brings rows to what writes them. The future ends when they are written, with what `write` returned."""

    def __call__(self, rows: Iterable[Item], write: Callable[[Iterable[Item]], Done]) -> Future[Done]: ...


def write_inline(rows: Iterable[Item], write: Callable[[Iterable[Item]], Done]) -> Future[Done]:
    """Writes in the thread that computes, for a single picture: writing asks for each band."""
    written: Future[Done] = Future()
    written.set_result(write(rows))
    return written


def write_behind(saver: Executor, max_bytes: int = QUEUE_BYTES) -> Writer:
    """Makes a writer that works in a thread of `saver`, and returns when the last row has been handed over.

    Where writing fails, computing ends early, and the future says why. Where computing fails, the exception passes on
    once writing has cleaned up.
    """

    def hand(rows: Iterable[Item], write: Callable[[Iterable[Item]], Done]) -> Future[Done]:
        handover: Handover[Item] = Handover(max_bytes)
        written = saver.submit(write, handover)
        written.add_done_callback(lambda _written: handover.abandon())
        try:
            for band in rows:
                handover.put(band)
        except Abandoned:
            return written  # it has failed, and says why
        except BaseException as error:
            handover.end(error)
            written.exception()  # waits until the target is what it was
            raise
        handover.end()
        return written

    return hand
