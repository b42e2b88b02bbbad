"""What goes to the terminal: results on stdout, everything else on stderr, progress only for people."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sr_upscale.formatting import duration, shown
from sr_upscale.storage.atomic import output_error

SCHEMA = 1
"""Version of the shape of what ``--json`` writes (docs/scripts.md); a key more is no new version."""

LINE_EVERY_S = 30.0
"""Seconds between two lines of progress where there is no terminal."""

Report = Callable[[float, str], None]
"""Called with the finished share (0 to 1) and a short title."""


class Session:
    """Options of a whole command line. `app.run` makes one, and typer passes it on as ``ctx.obj``."""

    debug = False
    as_json = False


class Console:
    """What a command writes; there is one for each.

    Args:
        quiet: Whether notes and progress are left out, so that only warnings, errors and results are written.
        as_json: Whether the result goes to stdout as JSON.

    Attributes:
        warnings: What it has warned of.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self.warnings: list[str] = []

    def note(self, message: str) -> None:
        """Writes a line for people on stderr, unless quiet."""
        if not self.quiet:
            print_error(message)

    def warn(self, message: str) -> None:
        """Writes a warning on stderr, also when quiet: something was given up."""
        self.warnings.append(message)
        print_error(f"warning: {message}")

    def result(self, data: Mapping[str, Any], lines: Iterable[str] = ()) -> None:
        """Writes the command's result on stdout, last of all: as JSON with ``--json``, else as lines."""
        self.event("result", data)
        if not self.as_json:
            for line in lines:
                self.line(line)

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        """Writes one JSON object as one line on stdout, with ``--json`` alone (docs/scripts.md)."""
        if self.as_json:
            self.line(json.dumps({"schema": SCHEMA, "event": kind, **data}))

    def line(self, text: str) -> None:
        """Writes a line of the result on stdout, at once."""
        with standard_output():
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Report]:
        """Shows a bar with the time left on a terminal, and elsewhere a line every half minute; nothing if quiet.

        Args:
            title: Text before the bar until a report brings another.

        Yields:
            A `Report` that moves the bar.
        """
        if self.quiet:
            yield lambda _share, _title: None
            return
        if not sys.stderr.isatty():
            yield _lines(title)
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
            yield lambda share, now: bar.update(task, completed=share, description=now or title)


def _lines(title: str) -> Report:
    """Makes a report that writes a line on stderr every `LINE_EVERY_S` seconds, the first one after as long.

    What is left is estimated from what was done since the first report: a run may go on from half of it.
    """
    start = last = time.monotonic()
    first: tuple[float, float] | None = None

    def report(share: float, now_at: str) -> None:
        nonlocal first, last
        now = time.monotonic()
        since, had = first = first or (now, share)
        if now - last >= LINE_EVERY_S:
            last = now
            left = f", about {duration((now - since) * (1 - share) / (share - had))} left" if share > had else ""
            print_error(f"{now_at or title}: {share:.0%} after {duration(now - start)}{left}")

    return report


@contextlib.contextmanager
def standard_output() -> Iterator[None]:
    """Translates errors of writing to standard output.

    Raises:
        OutputError: It cannot be written.
        BrokenPipeError: Nobody reads any more.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_output()
        raise output_error(Path("standard output"), error) from error


def discard_output() -> None:
    """Discards what is still to be written to standard output: the interpreter flushes once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def print_error(message: str) -> None:
    """Writes one line on stderr, whatever the message holds: what a server or a file says cannot steer a terminal."""
    sys.stderr.write(shown(" ".join(message.splitlines())) + "\n")
    sys.stderr.flush()
