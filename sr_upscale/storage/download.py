"""Files from the network: resumed where they stopped, checked against a pinned hash before they get their name.

What is on the way lies beside the target as ``NAME.part``. ``NAME.part.json`` says which file of which server it
belongs to. Both are under a lock. Nothing is ever called NAME that is not the pinned file, whole. Where locks do not
work (some network file systems), everyone fetches under a name of their own: that costs bandwidth and nothing else.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from sr_upscale.errors import NetworkError
from sr_upscale.storage.atomic import output_error, rename
from sr_upscale.storage.remote import RemoteFile, is_offline, note_of

ORPHAN_AGE_S = 86_400.0

Report = Callable[[float, str], None]
"""Called with the finished share (0 to 1) and a short title."""


def fetch(file: RemoteFile, target: Path, *, on_progress: Report = lambda _share, _title: None) -> Path:
    """Downloads a file, or goes on with a download that was cut off. Does nothing if `target` is there.

    Args:
        file: Its addresses, its size and its hash.
        target: Where it goes. Its folder is made.
        on_progress: See `Report`.

    Returns:
        `target`.

    Raises:
        NetworkError: The program is offline, no address could be reached, or all refused. What has come stays for the
            next attempt.
        IntegrityError: What came is not the pinned file. A file with another hash was removed.
        OutputError: The folder cannot be written, or the disk is full.
    """
    if target.exists():
        return target
    if is_offline():
        raise NetworkError(
            f"{file.addresses[0]}: offline (SR_UPSCALE_OFFLINE or --offline), and {target} is not there; "
            f"go online once, or put the file there"
        )
    from sr_upscale.storage.attempts import fetch_from_any  # importing urllib3 opens a socket of its own

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(target)
        with _part_of(target) as part:
            if not target.exists():  # another process may have been faster
                fetch_from_any(file, part, on_progress)
                rename(part, target)
                note_of(part).unlink(missing_ok=True)
    except OSError as error:
        raise output_error(target, error) from error
    return target


# --- names on the way -------------------------------------------------------------------------------


@contextlib.contextmanager
def _part_of(target: Path) -> Iterator[Path]:
    """Yields ``NAME.part``, for one process at a time. Where there are no locks, the name is this process's own."""
    shared = target.with_name(f"{target.name}.part")
    lock = filelock.FileLock(f"{shared}.lock")
    try:
        lock.acquire()
    except (OSError, NotImplementedError):
        own = target.with_name(f"{target.name}.part.{uuid.uuid4().hex}")
        try:
            yield own
        finally:
            own.unlink(missing_ok=True)
            note_of(own).unlink(missing_ok=True)
        return
    try:
        yield shared
    finally:
        lock.release()


def _remove_orphans(target: Path) -> None:
    """Removes parts that nobody needs any more and that are older than `ORPHAN_AGE_S`.

    Those are own-name parts of processes that died, and parts of files that are there already.
    """
    for path in target.parent.glob("*.part.*"):
        stem = path.name.split(".part.")[0]
        done = (target.parent / stem).exists()
        unique = re.fullmatch(r"[0-9a-f]{32}(\.json)?", path.name[len(stem) + 6 :]) is not None
        with contextlib.suppress(OSError):
            if (unique or done) and time.time() - path.stat().st_mtime > ORPHAN_AGE_S:
                path.unlink()
