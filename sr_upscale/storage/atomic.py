"""Files that appear whole or not at all, and who writes them."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import platformdirs

from sr_upscale.errors import AppearedError, DiskFullError, InputError, OutputError
from sr_upscale.formatting import shown
from sr_upscale.interrupts import STOP

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


WINDOWS = os.name == "nt"
PATIENCE_S = 2.0
"""Seconds for which a file that another program has open is waited for, on Windows."""

_PREFIX, _SUFFIX = ".sr-", ".tmp"


@contextlib.contextmanager
def replace_file(
    path: Path, *, on_whole: Callable[[Path], None] = lambda _temporary: None, overwrite: bool = True
) -> Iterator[Path]:
    """Makes a temporary file, which takes the place of `path` on leaving, after it was flushed to disk.

    On any error the temporary file is removed and `path` stays as it was. The temporary name is short,
    whatever the length of the final one. What killed processes left is removed when a process first writes to a folder.

    Args:
        path: File that appears or changes.
        on_whole: Called with the temporary path when the file is whole and flushed, before it takes its place.
        overwrite: Whether it may take the place of a file that stands there.

    Yields:
        The temporary path, beside `path`, of an empty file.

    Raises:
        OutputError: The folder cannot be written, the name is too long, or a file has appeared that stays. Any other
            OSError, from here or from the body of the ``with``, becomes one too.
        DiskFullError: The disk is full, or the quota used up.
    """
    try:
        _remove_orphans_once(path.parent)
        temporary = _new_file(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    try:
        yield temporary
        try:
            publish_file(temporary, path, on_whole=on_whole, overwrite=overwrite)
        except OSError as error:
            raise output_error(path, error) from error
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # Windows keeps what another program has open; a later process removes it
            temporary.unlink(missing_ok=True)


def open_own(path: Path, mode: str) -> BinaryIO:
    """Opens a file of ours that stands beside other people's: a manifest, a download on its way.

    A folder that comes from elsewhere may hold a link or a pipe under such a name. A link is not followed, since it
    would lead what is written to any file of the user. A pipe is not waited for.

    Args:
        path: The file.
        mode: ``rb``, ``ab``, ``wb`` or ``r+b``. ``ab`` and ``wb`` make it where it is not there. ``ab`` is unbuffered:
            a call is one write.

    Raises:
        OutputError: It is a link, or no regular file.
        OSError: It cannot be opened.
    """
    flags = {
        "rb": os.O_RDONLY,
        "ab": os.O_WRONLY | os.O_APPEND | os.O_CREAT,
        "wb": os.O_WRONLY | os.O_CREAT,
        "r+b": os.O_RDWR,
    }[mode]
    if path.is_symlink():  # where the system has no O_NOFOLLOW
        raise _not_ours(path, "is a link")
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _not_ours(path, "is a link or a pipe") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _not_ours(path, "is not a regular file")
        if mode == "wb":
            os.ftruncate(descriptor, 0)
        return os.fdopen(descriptor, mode, buffering=0 if mode == "ab" else -1)  # type: ignore[return-value]
    except BaseException:
        os.close(descriptor)
        raise


def _not_ours(path: Path, what: str) -> OutputError:
    return OutputError(f"{shown(path)}: {what} and was not made by this program; remove it, or choose another folder")


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it, unless it is there.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def remove_orphans(folder: Path, *, is_gone: Callable[[str], bool] = has_ended) -> None:
    """Removes temporary files of `replace_file` that processes left in a folder.

    Args:
        folder: Where they lie.
        is_gone: Says of a process's identity whether it is no more. By default that is known of processes that ran on
            this machine, in this container.
    """
    for orphan in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        owner = orphan.name.removeprefix(_PREFIX).rpartition("-")[0]
        if IDENTITY.fullmatch(owner) and is_gone(owner):
            with contextlib.suppress(OSError):
                orphan.unlink()


@functools.cache
def _remove_orphans_once(folder: Path) -> None:
    """Looks for orphans when a folder is first written to, and no more: it may hold very many files."""
    remove_orphans(folder)


def _new_file(folder: Path) -> Path:
    """Makes an empty file whose name says who made it.

    It has the user's usual rights, which files of `tempfile` have not.
    """
    while True:
        path = folder / f"{_PREFIX}{identity()}-{secrets.token_hex(4)}{_SUFFIX}"
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
            return path


def _put_in_place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Gives a whole file its final name, unless a file has appeared there that must stay."""
    if overwrite:
        rename(temporary, path)
        return
    try:
        os.link(temporary, path)  # fails where there is a file, in one step; the temporary name goes later
        return
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links: the best is a look right before
        if not os.path.lexists(path):
            rename(temporary, path)
            return
    raise AppearedError(f"{shown(path)}: appeared while this was computed, and stays; add --force to overwrite it")


def rename(source: Path, target: Path) -> None:
    """Gives a file another name, in the place of a file that has it.

    Windows refuses that while another program has one of them open, such as a virus scanner that looks at what is new.
    There it is tried again for `PATIENCE_S`.

    Raises:
        OSError: It cannot be done.
    """
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if not WINDOWS or time.monotonic() > end:
                raise
            time.sleep(0.05)


def publish_file(temporary: Path, path: Path, *, on_whole: Callable[[Path], None], overwrite: bool) -> None:
    """Flushes a whole file to disk, and gives it its final name; see `replace_file`.

    Raises:
        AppearedError: A file has appeared there that stays.
        OSError: It cannot be done.
    """
    with temporary.open("r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())
    STOP.check()
    on_whole(temporary)
    _put_in_place(temporary, path, overwrite=overwrite)
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder; the file itself is safe
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def refuse_existing(
    path: Path, *, force: bool = False, how: str = "add --force to overwrite it, or choose another -o"
) -> None:
    """Finds before any work whether an output may be written.

    Raises:
        OutputError: It is there, and `force` is not given; `how` says what to do.
    """
    if not force and path.exists():
        raise OutputError(f"{shown(path)}: exists; {how}")


def cache_folder() -> Path:
    """Returns the folder in which downloads and decoded training pictures are kept.

    ``SR_UPSCALE_CACHE`` names it. Without that variable it is the system's place for caches.
    """
    return Path(os.environ.get("SR_UPSCALE_CACHE") or platformdirs.user_cache_dir("sr-upscale"))


def output_error(path: Path, error: OSError) -> OutputError:
    """Makes an `OutputError` that says what to do about an operating system's error.

    Args:
        path: File or folder that could not be written, for the message.
        error: What the operating system said.

    Returns:
        A `DiskFullError` where the disk is full or the quota used up, else an `OutputError`. It is not raised.
    """
    option = "SR_UPSCALE_CACHE" if path.is_relative_to(cache_folder()) else "-o"
    remedies = {
        errno.EACCES: f"choose another folder with {option}, or change its permissions",
        errno.EPERM: f"choose another folder with {option}, or change its permissions",
        errno.EROFS: f"this file system is read-only; choose another folder with {option}",
        errno.ENOSPC: f"the disk is full; free some space or choose another folder with {option}",
        errno.EDQUOT: f"your quota is used up; free some space or choose another folder with {option}",
        errno.ENAMETOOLONG: f"the name is too long for this file system; choose a shorter one with {option}",
        errno.ENOENT: f"the folder does not exist; create it or choose another with {option}",
        errno.ENOTDIR: f"its parent is not a folder; choose another with {option}",
        errno.EISDIR: f"a folder of that name exists; choose another name with {option}",
    }
    remedy = remedies.get(error.errno or 0, f"choose another place with {option}")
    kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else OutputError
    return kind(f"{path}: cannot write: {error.strerror or error}; {remedy}")


def hash_file(path: Path) -> str:
    """Computes the SHA-256 of a regular file's content, as 64 hexadecimal digits.

    Raises:
        InputError: It cannot be read, or is not a regular file.
    """
    try:
        if not path.is_file():
            what = "not a regular file" if os.path.lexists(path) else "no such file"
            raise InputError(f"{shown(path)}: {what}; expected a file")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot read: {error.strerror}; check its permissions") from error
