"""``sr-upscale`` and ``python -m sr_upscale``: the process is put in order before anything else is imported."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Runs the command line of this process, and ends it with the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # imports take a moment, and their traceback says nothing
    _open_closed_streams()
    from sr_upscale.cli.app import main as run

    run()


def _open_closed_streams() -> None:
    """Gives a process that was started without standard streams (``2>&-``) some that are empty.

    Otherwise the next file that is opened would be one of them, and what a library says would land in a picture.
    Standard output fails when it is written to: what was asked for there would be lost.
    """
    modes = {"stdin": os.O_RDONLY, "stdout": os.O_RDONLY, "stderr": os.O_WRONLY}
    for name, mode in modes.items():
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, mode)  # the lowest that is free: the one that is missing
            stream = os.fdopen(descriptor, "r" if name == "stdin" else "w", closefd=False)
            setattr(sys, name, stream)


if __name__ == "__main__":
    main()
