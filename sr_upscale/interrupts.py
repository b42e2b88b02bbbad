"""Signals that ask for the end: the first one asks, a second one insists, an echo of the first is neither."""

from __future__ import annotations

import time

ECHO_S = 1.0
"""A second signal this soon is the same one: `timeout` sends it to the process, and to its group."""


class Insistence:
    """Tells a signal that insists from the first one and its echo."""

    def __init__(self) -> None:
        self._since: float | None = None

    def first(self) -> bool:
        """Whether this is the first signal."""
        if self._since is not None:
            return False
        self._since = time.monotonic()
        return True

    def insists(self) -> bool:
        """Whether the first signal is longer ago than an echo takes."""
        return self._since is not None and time.monotonic() - self._since > ECHO_S
