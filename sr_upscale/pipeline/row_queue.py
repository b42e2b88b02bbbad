"""Bands of rows from the thread that computes them to the one that writes them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

MAX_BYTES = 64 << 20
"""Bands that wait to be written; small pictures fit, so that the next can be computed while one is written."""


class Abandoned(Exception):
    """Nobody reads the rows any more."""


class Handover:
    """A queue of bands, bounded by bytes. One thread puts, another iterates.

    Args:
        max_bytes: `put` waits while more than this is in the queue.

    Attributes:
        waited_s: Seconds that `put` has waited.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.waited_s = 0.0
        self._bands: deque[NDArray[Any]] = deque()
        self._bytes = 0
        self._ended = self._abandoned = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, band: NDArray[Any]) -> None:
        """Hands a band over.

        Raises:
            Abandoned: See there.
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
        """No more rows come; with a failure, iterating raises it, and what still waits is dropped."""
        with self._changed:
            self._ended, self._failure = True, failure
            self._changed.notify_all()

    def abandon(self) -> None:
        """No more rows are wanted."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[NDArray[Any]]:
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
