"""Time and signals of a run: a budget that a stopped process does not spend, and an end at a step boundary."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from sr_upscale.interrupts import Insistence


class Stopwatch:
    """Running time."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        return seconds

    def restart(self) -> None:
        """Begins a lap now; what has passed of the last one does not count."""
        self._last = time.monotonic()


class Every:
    """True once per period of running time."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._last: float | None = None

    def due(self, elapsed_s: float) -> bool:
        if self._last is None:
            self._last = elapsed_s
        if elapsed_s - self._last < self.period_s:
            return False
        self._last = elapsed_s
        return True


class Interrupted(Exception):
    """The run was stopped by a signal, after its checkpoint was written."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class Signals:
    """While open: the first SIGTERM or SIGINT asks for a stop, a second one acts at once; SIGCONT is reported.

    Outside the main thread signals cannot be handled and are left alone.
    """

    def __init__(self, *, on_continue: Callable[[], None]) -> None:
        self.stop = 0
        self._stopping = Insistence()
        self._on_continue = on_continue
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            names = ("SIGTERM", "SIGINT", "SIGCONT")  # Windows has no SIGCONT
            for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGCONT", None):
            self._on_continue()
            return
        if self._stopping.first():
            self.stop = number
        elif self._stopping.insists():
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
