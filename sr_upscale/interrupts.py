"""Signals that ask for the end: the first one asks, a second one insists, an echo of the first is neither.

A handler may raise an exception, but in a callback of a library it is lost. So what was asked for is kept, and looked
at between strips and tiles, before a file takes its place, and at the end. Where libraries are at work, nothing is
raised (`Stop.held`).
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

ECHO_S = 1.0
"""A second signal this soon is the same one: `timeout` sends it to the process, and to its group."""


def ending_signals() -> tuple[int, ...]:
    """Lists the signals that ask for the end. SIGBREAK is Windows's: Ctrl-Break, or a console that is closed."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def ending_of(number: int) -> int:
    """Returns SIGINT or SIGTERM, by which the exit code goes, for one of `ending_signals`."""
    return signal.SIGINT if number == signal.SIGINT else signal.SIGTERM


class Stopped(BaseException):
    """A signal asked for the end.

    Attributes:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stop:
    """Whether a signal asked for the end. It ends the main thread, as signals do; the others follow.

    Attributes:
        number: Number of the signal; 0 before.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets what was asked for."""
        self.number, self._holding, self._tidying = 0, 0, False

    def ask(self, number: int) -> None:
        """Asks for the end, from the handler of a signal.

        Raises:
            Stopped: Nothing holds it back.
        """
        self.number = number
        if not self._holding and not self._tidying:
            raise Stopped(number)

    def check(self) -> None:
        """Ends the main thread if that was asked for.

        Raises:
            Stopped: It was.
        """
        if self.number and not self._tidying and threading.current_thread() is threading.main_thread():
            raise Stopped(self.number)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the end back while a library is at work, whose callbacks would swallow it.

        Raises:
            Stopped: On leaving, if the end was asked for meanwhile.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1
        if not self._holding:
            self.check()

    @contextlib.contextmanager
    def tidying(self) -> Iterator[None]:
        """Holds the end back while the main thread puts away what others would wait for; it may be on its way already.

        Raises:
            Stopped: On leaving, if the end was asked for.
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
