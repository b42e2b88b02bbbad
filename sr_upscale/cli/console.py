"""What goes to the terminal: results on stdout, everything else on stderr, progress only for people."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Report = Callable[[float, str], None]
"""Called with the finished share (0 to 1) and a few words."""


class Console:
    """One per command.

    Args:
        quiet: Errors only.
        as_json: The result goes to stdout as JSON.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json

    def note(self, message: str) -> None:
        """A line for people on stderr, unless quiet."""
        if not self.quiet:
            print_error(message)

    def warn(self, message: str) -> None:
        """A warning on stderr, also when quiet: something was given up."""
        print_error(f"warning: {message}")

    def result(self, data: Mapping[str, Any]) -> None:
        """The command's result as one JSON object on stdout, if asked for."""
        if self.as_json:
            sys.stdout.write(json.dumps(data) + "\n")

    def line(self, text: str) -> None:
        """A line of the result on stdout."""
        sys.stdout.write(text + "\n")

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Report]:
        """A bar with the time left, on a terminal; nothing elsewhere."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda _share, _words: None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            Remaining(),
        )
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=1.0)
            yield lambda share, words: bar.update(task, completed=share, description=words or title)


def print_error(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    sys.stderr.write(" ".join(message.splitlines()) + "\n")
    sys.stderr.flush()
