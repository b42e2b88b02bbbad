"""Who writes: a name for each process that no other one has, on any machine that shares a folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import secrets
from pathlib import Path

IDENTITY = re.compile(r"(?P<place>[A-Za-z0-9_]{0,20}\.[0-9a-f]{8})-(?P<pid>[0-9]{1,9})-[0-9a-f]{8}")
"""Form of an identity: host, process and a random number, since numbers of processes come again."""


@functools.cache
def place() -> str:
    """Names the place where the numbers of processes mean the same, such as ``node7.1a2b3c4d``.

    That is this machine since it was started, or one of the containers that it may be divided into.
    """
    where = platform.node()
    with contextlib.suppress(OSError):
        where += Path("/proc/sys/kernel/random/boot_id").read_text()
        where += f" {os.stat('/proc/self/ns/pid').st_ino}"
    return f"{re.sub('[^A-Za-z0-9]', '_', platform.node())[:20]}.{hashlib.sha256(where.encode()).hexdigest()[:8]}"


def identity() -> str:
    """Returns this process's name, such as ``node7.1a2b3c4d-4711-5e6f7a8b``."""
    return _identity_of(os.getpid())  # a fork is another process


@functools.cache
def _identity_of(pid: int) -> str:
    return f"{place()}-{pid}-{secrets.token_hex(4)}"


def has_ended(name: str) -> bool:
    """Says whether a process of this place is no more. Of other places, and of other names, it says no."""
    import psutil

    match = IDENTITY.fullmatch(name)
    if match is None or match["place"] != place():
        return False
    if int(match["pid"]) == os.getpid():
        return name != identity()
    try:
        return bool(psutil.Process(int(match["pid"])).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
