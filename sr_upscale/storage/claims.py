"""Who does what: claims on names, in a folder that processes and hosts share.

A claim is a file that one process alone can make. Its holder renews a lease, one for all its claims. A holder whose
lease stands still for `LEASE_S` by the clock of the one who looks is taken for gone, and its claims may be taken over.
So the clocks of hosts are never compared. A process that was only stopped finds on waking that a claim is no longer its
own (`Claims.holds`).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
import time
from pathlib import Path

from sr_upscale.errors import OutputError
from sr_upscale.formatting import shown
from sr_upscale.storage.atomic import IDENTITY, has_ended, identity, open_own, output_error

LEASE_S = 45.0
"""Seconds after which a lease that is not renewed is over. A network may be away for half of that."""
RENEWALS = 9
"""How often a lease is renewed in its time."""

_CLAIM = re.compile(r"([0-9a-f]{32})\.([0-9]{1,6})\.claim")
_LEASE = ".lease"


class Lost(Exception):
    """A claim went to another process, which took this one for gone."""


class Claims:
    """What this process has claimed in a folder. The folder is made with the first claim, and goes with the last one.

    A claim has a generation: whoever takes it over makes a file of the next one, which again only one can make, and
    the highest counts.

    Args:
        folder: Where the files of claims and leases lie.
        lease_s: How long a lease lasts, in seconds.

    Raises:
        OutputError: A link or something else that is no folder stands there.
    """

    def __init__(self, folder: Path, *, lease_s: float = LEASE_S) -> None:
        self.folder = folder
        self.lease_s = lease_s
        self.identity = identity()
        self._mine: dict[str, int] = {}
        self._watched: dict[str, tuple[int | None, float]] = {}
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._renewing: threading.Thread | None = None
        self._made: list[Path] = []
        self._check()

    def take(self, name: str) -> bool:
        """Claims a name, unless another process that is at work holds it.

        Args:
            name: 32 hexadecimal digits.

        Returns:
            Whether it is this process's now.

        Raises:
            OutputError: The folder cannot be written.
        """
        with self._lock:
            try:
                self._begin()
                if self._make(name, 0):
                    return True
                if not os.path.lexists(self._path(name, 1)) and not self.is_gone(self._holder(name, 0)):
                    return False
                held = self._highest(name)
                return held is not None and self.is_gone(self._holder(name, held)) and self._make(name, held + 1)
            except OSError as error:
                raise output_error(self.folder, error) from error

    def _make(self, name: str, generation: int) -> bool:
        """Makes a claim, unless it is there, and keeps it if it is the highest: the one list that a name takes."""
        try:
            self._create(self._path(name, generation), self.identity)
        except FileExistsError:
            return False
        self._mine[name] = generation
        if self._highest(name) == generation:
            return True
        self.release(name)
        return False

    def holds(self, name: str) -> bool:
        """Asks the folder whether a name is still this process's.

        Who takes it over makes the next generation, and gives back this one before that one. So they are asked for the
        other way round.
        """
        with self._lock:
            mine = self._mine.get(name)
            if mine is None or os.path.lexists(self._path(name, mine + 1)):
                return False
            return self._holder(name, mine) == self.identity

    def has_lost(self, name: str) -> bool:
        """Says whether a name that this process has claimed, and not given back, is another's by now."""
        with self._lock, contextlib.suppress(OSError):
            return name in self._mine and not self.holds(name)
        return False

    def release(self, name: str) -> None:
        """Gives a name back, if this process has it, with what those that it was taken over from have left."""
        with self._lock:
            mine = self._mine.get(name)
            if mine is not None and self._holder(name, mine) == self.identity:
                with contextlib.suppress(OSError):  # what stays is given back by the end of the lease
                    for generation in sorted(self._generations().get(name, [])) if mine else [0]:
                        if generation <= mine:  # upwards: the highest counts until it goes
                            self._remove(self._path(name, generation))
            self._mine.pop(name, None)  # last: where a signal ends this call, `close` repeats it

    def others(self) -> set[str]:
        """Returns the identities of other processes that are at work in the folder, as far as is known."""
        return {name for name in self._leases() if name != self.identity and not self.is_gone(name)}

    def gone(self) -> set[str]:
        """Returns the identities of processes that have left a lease and are no more."""
        return {name for name in self._leases() if name != self.identity and self.is_gone(name)}

    def is_gone(self, name: str) -> bool:
        """Says whether a process is no more: by its number if it ran here, else by its lease, once that was watched."""
        if name == self.identity:
            return False
        if has_ended(name):
            return True
        with self._lock:
            renewed, now = self._renewed(name), time.monotonic()
            if name not in self._watched or self._watched[name][0] != renewed:
                self._watched[name] = renewed, now
            return now - self._watched[name][1] >= self.lease_s

    def clear(self, gone: set[str]) -> None:
        """Removes claims and leases of processes that are no more."""
        with self._lock:
            for name, generations in self._generations().items():
                for generation in generations:
                    if self._holder(name, generation) in gone:
                        self._remove(self._path(name, generation))
            for each in gone:
                self._remove(self.folder / f"{each}{_LEASE}")

    def close(self) -> None:
        """Gives everything back, and removes the folders that were made and are empty."""
        self._closed.set()
        if self._renewing is None:
            return
        self._renewing.join()
        with self._lock:
            for name in list(self._mine):
                self.release(name)
            self._remove(self.folder / f"{self.identity}{_LEASE}")
            with contextlib.suppress(OSError):  # others are at work in it, or have removed it
                for folder in (self.folder, *self._made):
                    folder.rmdir()

    def _begin(self) -> None:
        if self._renewing is not None:
            return
        self._create(self.folder / f"{self.identity}{_LEASE}", "")
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewing.start()

    def _renew(self) -> None:
        lease = self.folder / f"{self.identity}{_LEASE}"
        while not self._closed.wait(self.lease_s / RENEWALS):
            with contextlib.suppress(OSError, OutputError):  # others may take over, and then `holds` says so
                try:
                    os.utime(lease)
                except FileNotFoundError:
                    self._create(lease, "")
                self.others()  # watches them

    def _create(self, path: Path, text: str) -> None:
        """Makes a file that must not be there, in a folder that others may remove while it is empty."""
        while True:
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileNotFoundError:
                self._make_folder()
                continue
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            return

    def _make_folder(self) -> None:
        above = [each for each in self.folder.parents if not each.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._made = above or self._made
        self._check()

    def _check(self) -> None:
        if os.path.lexists(self.folder) and not stat.S_ISDIR(self.folder.lstat().st_mode):
            raise OutputError(
                f"{shown(self.folder)}: is no folder of this program's; remove it, or choose another folder"
            )

    def _generations(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for entry in self._listed():
            if match := _CLAIM.fullmatch(entry):
                found.setdefault(match[1], []).append(int(match[2]))
        return found

    def _highest(self, name: str) -> int | None:
        return max(self._generations().get(name, []), default=None)

    def _leases(self) -> set[str]:
        names = {entry.removesuffix(_LEASE) for entry in self._listed() if entry.endswith(_LEASE)}
        return {name for name in names if IDENTITY.fullmatch(name)}

    def _listed(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(self.folder)
        return []

    def _path(self, name: str, generation: int) -> Path:
        return self.folder / f"{name}.{generation}.claim"

    def _holder(self, name: str, generation: int) -> str:
        """Returns the identity in a claim; where none is (yet), a name of nobody, which is watched all the same."""
        with contextlib.suppress(OSError, OutputError), open_own(self._path(name, generation), "rb") as file:
            text = file.read(200).decode("ascii", "replace")
            if IDENTITY.fullmatch(text):
                return text
        return f"{name}.{generation}"

    def _renewed(self, name: str) -> int | None:
        """Returns a number that changes whenever a lease is renewed; opened, since networks keep old answers."""
        with contextlib.suppress(OSError, OutputError), open_own(self.folder / f"{name}{_LEASE}", "rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
        return None

    @staticmethod
    def _remove(path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink()
