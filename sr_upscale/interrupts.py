"""Signals that stop the program: the first stops it tidily, a second one at once; an echo of the first is ignored.

A handler may raise an exception, but in a callback of a library it is lost. So the signal is stored, and checked
between strips, tiles and layers, before a file takes its place, and at the end. Where libraries are at work, nothing is
raised (`Stop.deferred`).
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

ECHO_S = 1.0
"""A second signal this soon is the same one: `timeout` sends it to the process, and to its group."""


def ending_signals() -> tuple[int, ...]:
    """Lists the signals that stop the program. SIGBREAK is Windows's: Ctrl-Break, or a console that is closed."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def ending_of(number: int) -> int:
    """Returns SIGINT or SIGTERM, by which the exit code goes, for one of `ending_signals`."""
    return signal.SIGINT if number == signal.SIGINT else signal.SIGTERM


class Stopped(BaseException):
    """A signal stopped the program.

    Attributes:
        number: Number of the signal.
        message: What to print.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(number)
        self.number = number
        word = "interrupted" if number == signal.SIGINT else "terminated"
        self.message = message or f"{word}; unfinished files were removed"


class Stop:
    """Whether a signal stopped the program. It ends the main thread, as signals do; the others follow.

    Attributes:
        number: Number of the signal; 0 before.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets the signal."""
        self.number, self._deferring, self._tidying = 0, 0, False

    def request(self, number: int) -> None:
        """Requests the end, from the handler of a signal.

        Raises:
            Stopped: It is not deferred.
        """
        self.number = number
        if not self._deferring and not self._tidying:
            raise Stopped(number)

    def check(self, *, any_thread: bool = False) -> None:
        """Ends the main thread if a signal came.

        Args:
            any_thread: End the calling thread, too, if it is another one.

        Raises:
            Stopped: A signal came.
        """
        main = threading.current_thread() is threading.main_thread()
        if self.number and (not self._tidying if main else any_thread):
            raise Stopped(self.number)

    def check_layers(self, module: Any) -> Any:
        """Lets a network of torch end between two of its layers, in any thread. It returns the network."""
        for layer in module.modules():
            layer.register_forward_pre_hook(lambda _layer, _inputs: self.check(any_thread=True))
        return module

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Defers the exception while a library runs, whose callbacks would swallow it.

        Raises:
            Stopped: On leaving, if a signal came meanwhile.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._deferring += 1
        try:
            yield
        finally:
            self._deferring -= 1
        if not self._deferring:
            self.check()

    @contextlib.contextmanager
    def tidying(self) -> Iterator[None]:
        """Defers the exception, which may be raised already, while the main thread releases what others wait for.

        Raises:
            Stopped: On leaving, if a signal came.
        """
        self._tidying = True
        try:
            yield
        finally:
            self._tidying = False
        self.check()


STOP = Stop()
"""The one of this process."""


class Insistence:
    """Tells a signal that insists from the first one and its echo."""

    def __init__(self) -> None:
        self._since: float | None = None

    def first(self) -> bool:
        """Says whether this is the first signal."""
        if self._since is not None:
            return False
        self._since = time.monotonic()
        return True

    def insists(self) -> bool:
        """Says whether the first signal is longer ago than an echo takes."""
        return self._since is not None and time.monotonic() - self._since > ECHO_S
