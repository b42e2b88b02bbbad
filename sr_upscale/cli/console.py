"""What goes to the terminal: results on stdout, everything else on stderr, progress only for people."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sr_upscale.formatting import shown

Report = Callable[[float, str], None]
"""Called with the finished share (0 to 1) and a few words."""


class Console:
    """What a command writes; there is one for each.

    Args:
        quiet: Whether notes and progress are left out, so that only warnings, errors and results are written.
        as_json: Whether the result goes to stdout as JSON.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json

    def note(self, message: str) -> None:
        """Writes a line for people on stderr, unless quiet."""
        if not self.quiet:
            print_error(message)

    def warn(self, message: str) -> None:
        """Writes a warning on stderr, also when quiet: something was given up."""
        print_error(f"warning: {message}")

    def result(self, data: Mapping[str, Any]) -> None:
        """Writes the command's result as one JSON object on stdout, if that was asked for."""
        if self.as_json:
            sys.stdout.write(json.dumps(data) + "\n")

    def line(self, text: str) -> None:
        """Writes a line of the result on stdout."""
        sys.stdout.write(text + "\n")

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Report]:
        """Shows a bar with the time left, on a terminal and unless quiet; nothing elsewhere.

        Args:
            title: Stands before the bar while no other words do.

        Yields:
            A `Report` that moves the bar.
        """
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
        aside = sys.stdout.isatty()  # what goes to a pipe is not the bar's
        console = RichConsole(stderr=True)
        with Progress(*columns, console=console, transient=True, redirect_stdout=aside) as bar:
            task = bar.add_task(title, total=1.0)
            yield lambda share, words: bar.update(task, completed=share, description=words or title)


def print_error(message: str) -> None:
    """Writes one line on stderr, whatever the message holds: what a server or a file says cannot steer a terminal."""
    sys.stderr.write(shown(" ".join(message.splitlines())) + "\n")
    sys.stderr.flush()
