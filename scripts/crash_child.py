"""A process that is killed at a known place: before a call that changes a file, or in the middle of a write."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

PATIENCE_S = 120
"""Seconds after which a child that hangs is killed."""


@dataclass(frozen=True)
class Call:
    """A call that changes a file: its name with the file's, and from how many bytes on that file is written."""

    name: str
    path: str
    size: int


@dataclass
class Ended:
    """How a child ended."""

    status: int
    calls: list[Call] = field(default_factory=list)
    said: str = ""

    @property
    def killed(self) -> bool:
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) in (signal.SIGKILL, signal.SIGXFSZ)


def child(task: Callable[[Path], object], folder: Path, *, stop: int | None = None, more: int | None = None) -> Ended:
    """Runs a task in a fork of this process.

    Args:
        task: Called with `folder`.
        folder: Where its files are; other files are not watched.
        stop: Number of the call before which it is killed, from 0.
        more: Bytes by which the file of that call may grow, instead of a kill before it.
    """
    sys.stdout.flush()
    announcing, announce = os.pipe()
    with tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if pid == 0:
            os.close(announcing)
            for stream in (1, 2):
                os.dup2(errors.fileno(), stream)
            code = 70
            try:
                os.environ["SR_UPSCALE_CACHE"] = str(folder / "cache")
                torch.set_num_threads(1)  # makes the pool that a fork leaves anew; two threads at once find none
                _watch(folder, announce, stop, more)
                task(folder)
                code = 0
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else 70
                os.write(2, str(left.code).encode())
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(announce)
        timer = threading.Timer(PATIENCE_S, os.kill, (pid, signal.SIGKILL))
        timer.daemon = True
        calls: list[Call] = []
        with os.fdopen(announcing, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                calls.append(Call(*json.loads(line)))
                if more is None and len(calls) - 1 == stop:
                    os.kill(pid, signal.SIGKILL)
                    break
        status = os.waitpid(pid, 0)[1]
        errors.seek(0)
        return Ended(status, calls, errors.read().decode(errors="replace").strip())


def _watch(folder: Path, announce: int, stop: int | None, more: int | None) -> None:
    """Announces every call that changes a file in `folder`, and waits for ever before the one with number `stop`."""
    one_at_a_time, count = threading.Lock(), itertools.count()

    def say(name: str, path: str, to: str = "", *, emptied: bool = False) -> None:
        with one_at_a_time:
            size = os.stat(path).st_size if os.path.isfile(path) and not emptied else 0
            os.write(announce, json.dumps([f"{name} {os.path.basename(path)}{to}", path, size]).encode() + b"\n")
            if next(count) == stop:
                if more is None:
                    signal.pause()
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_FSIZE, (size + more, resource.RLIM_INFINITY))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _mode, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in ("os.rename", "os.link", "os.remove", "os.truncate", "os.mkdir"):
            path = arguments[0]
        else:
            return
        if isinstance(path, (str, bytes, os.PathLike)) and (name := os.fsdecode(path)).startswith(f"{folder}{os.sep}"):
            to = f" to {os.path.basename(os.fsdecode(arguments[1]))}" if event in ("os.rename", "os.link") else ""
            say(event.removeprefix("os."), name, to, emptied=event == "open" and bool(arguments[2] & os.O_TRUNC))

    fsync = os.fsync

    def announced_fsync(file: int) -> None:
        say("fsync", os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    os.fsync = announced_fsync
    sys.addaudithook(hook)


def announced(task: Callable[[Path], object], folder: Path) -> list[Call]:
    """Runs a task undisturbed, and returns its calls."""
    ended = child(task, folder)
    if ended.status:
        raise SystemExit(f"an undisturbed run failed: {ended.said}")
    return ended.calls
