"""Time and signals of a run: a budget that a stopped process does not spend, and an end at a step boundary."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from sr_upscale.interrupts import Insistence, ending_of, ending_signals


class Stopwatch:
    """A stopwatch of running time."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Returns the seconds since the last lap, and begins another."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        return seconds

    def restart(self) -> None:
        """Begins a lap now. What has passed of the last one does not count."""
        self._last = time.monotonic()


class Every:
    """A question that is answered with yes once per period of running time.

    Args:
        period_s: Seconds.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._last: float | None = None

    def due(self, elapsed_s: float) -> bool:
        """Says whether a period has passed since the last yes, or since the first call.

        Args:
            elapsed_s: Running time so far, in seconds.
        """
        if self._last is None:
            self._last = elapsed_s
        if elapsed_s - self._last < self.period_s:
            return False
        self._last = elapsed_s
        return True


class Interrupted(Exception):
    """The run was stopped by a signal, after its checkpoint was written.

    Attributes:
        signal: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class Signals:
    """Handlers of signals, in place while the context is open.

    The first SIGTERM or SIGINT (on Windows also SIGBREAK) asks for a stop. A second one acts at once, unless it is an
    echo of the first (`interrupts`). SIGCONT is reported. Outside the main thread signals cannot be handled and are
    left alone.

    Args:
        on_continue: Called at SIGCONT.

    Attributes:
        stop: Number of the signal that asked for a stop; 0 before.
    """

    def __init__(self, *, on_continue: Callable[[], None]) -> None:
        self.stop = 0
        self._stopping = Insistence()
        self._on_continue = on_continue
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            resumed = [signal.SIGCONT] if hasattr(signal, "SIGCONT") else []  # Windows has none
            for number in (*ending_signals(), *resumed):
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
            self.stop = ending_of(number)
        elif self._stopping.insists():
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
