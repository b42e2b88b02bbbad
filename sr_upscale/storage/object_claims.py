"""Who does what: claims on names, among processes that share a folder of an object store.

A claim is a small object that one process alone can write, since the store holds to conditions. Its holder writes it
anew now and then. One that has stood still for `LEASE_S` by the clock of the one who looks is written over, on the
condition that it is still the one that was seen. So a holder that was only stopped, or had no network, is refused when
it writes again, and knows.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from dataclasses import dataclass, field

from sr_upscale.errors import InputError, NetworkError, OutputError
from sr_upscale.storage.claims import LEASE_S, RENEWALS
from sr_upscale.storage.object_notes import remove_note, write_note
from sr_upscale.storage.objects import Note, list_names, read_note
from sr_upscale.storage.process import has_ended, identity

_CLAIM = ".claim"


@dataclass(eq=False, kw_only=True)
class _Mine:
    """A claim of this process's.

    Attributes:
        owner: What its text begins with, and no other claim's.
        version: Of the object, as this process wrote it.
        lost: Whether it is another's by now, or nobody's.
        lock: Held while the object is asked for.
    """

    owner: str
    version: str
    lost: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class ObjectClaims:
    """What this process has claimed in a folder of a store.

    Args:
        folder: Address of the claims.
        lease_s: How long a claim lasts that is not written anew, in seconds.
    """

    def __init__(self, folder: str, *, lease_s: float = LEASE_S) -> None:
        self.folder = folder.rstrip("/")
        self.lease_s = lease_s
        self._mine: dict[str, _Mine] = {}
        self._watched: dict[str, tuple[str, float]] = {}
        self._closed = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="claims", daemon=True)

    def begin(self) -> str | None:
        """Tries whether the store holds to conditions, and begins to renew claims.

        Returns:
            None, or why nothing can be claimed.

        Raises:
            NetworkError: The store cannot be reached.
        """
        address, owner = self._address(secrets.token_hex(16)), f"{identity()} probe"
        versions: list[str] = []
        try:
            for replaces_first in (False, True, True, False):  # two are written, two refused
                there = _write(address, owner, replaces=versions[0] if replaces_first else None)
                versions.append(there.version if there is not None else "")
            remove_note(address, versions[-1])
            if versions[0] == versions[1] or len(set(versions[1:])) > 1:
                return "the store does not hold to the conditions If-None-Match and If-Match"
            if read_note(address) is not None:
                return "the store does not let claims be removed"
        except OutputError as error:
            with contextlib.suppress(OutputError):
                remove_note(address, None)
            return str(error)
        self._look_at_others()
        self._renewing.start()
        return None

    def take(self, name: str) -> bool:
        """Claims a name, unless another process that is at work holds it.

        Args:
            name: Letters and digits.

        Returns:
            Whether it is this process's now.

        Raises:
            OutputError, NetworkError: See `write_note`.
        """
        address, owner = self._address(name), f"{identity()} {secrets.token_hex(4)}"
        there = read_note(address) if name in self._watched else _write(address, owner, replaces=None)
        if there is None:  # it was given back meanwhile
            there = _write(address, owner, replaces=None)
        elif not _is_of(there, owner) and self._is_over(name, there):
            there = _write(address, owner, replaces=there.version)
        if there is None or not _is_of(there, owner):
            return False
        self._watched.pop(name, None)
        self._mine[name] = _Mine(owner=owner, version=there.version)
        return True

    def holds(self, name: str) -> bool:
        """Asks the store whether a name is still this process's.

        Raises:
            OutputError, NetworkError: See `read_note`.
        """
        mine = self._mine.get(name)
        if mine is None:
            return False
        with mine.lock:
            if not mine.lost:
                self._learn(mine, read_note(self._address(name)))
            return not mine.lost

    def has_lost(self, name: str) -> bool:
        """Says whether a name that this process has claimed, and not given back, is another's by now."""
        with contextlib.suppress(OutputError, NetworkError):
            return name in self._mine and not self.holds(name)
        return False

    def release(self, name: str) -> None:
        """Gives a name back, if this process has it. A claim that cannot be removed ends with its lease."""
        mine = self._mine.pop(name, None)
        if mine is not None:
            with mine.lock, contextlib.suppress(OutputError, NetworkError):
                if not mine.lost:
                    remove_note(self._address(name), mine.version)

    def close(self) -> None:
        """Gives everything back, and removes what processes that are no more have left."""
        self._closed.set()
        if self._renewing.ident is None:
            return
        self._renewing.join()
        with contextlib.suppress(OutputError, NetworkError):  # what stays ends with its lease
            for name, mine in self._mine.items():
                if not mine.lost:
                    remove_note(self._address(name), mine.version)
            for name, there in self._look_at_others():
                remove_note(self._address(name), there.version)

    def _renew(self) -> None:
        while not self._closed.wait(self.lease_s / RENEWALS):
            for name, mine in list(self._mine.items()):
                with mine.lock, contextlib.suppress(OutputError, NetworkError):  # `holds` says what became of it
                    if self._mine.get(name) is mine and not mine.lost:
                        self._learn(mine, _write(self._address(name), mine.owner, replaces=mine.version))

    def _learn(self, mine: _Mine, there: Note | None) -> None:
        if there is not None and _is_of(there, mine.owner):
            mine.version = there.version  # also of a write whose answer was lost
        else:
            mine.lost = True

    def _look_at_others(self) -> list[tuple[str, Note]]:
        """Looks at all claims of others; returns those that are over."""
        over = []
        with contextlib.suppress(InputError):  # there is none
            for each in list_names(self.folder, recursive=False):
                name = each.removesuffix(_CLAIM)
                there = read_note(self._address(name)) if each.endswith(_CLAIM) and name not in self._mine else None
                if there is not None and self._is_over(name, there):
                    over.append((name, there))
        return over

    def _is_over(self, name: str, there: Note) -> bool:
        """Says whether a claim's holder is no more: by its number if it ran here, else by the claim, once watched."""
        if has_ended(there.text.partition(" ")[0]):
            return True
        version, since = self._watched.get(name, ("", 0.0))
        if version != there.version:
            since = time.monotonic()
            self._watched[name] = there.version, since
        return time.monotonic() - since >= self.lease_s

    def _address(self, name: str) -> str:
        return f"{self.folder}/{name}{_CLAIM}"


def _write(address: str, owner: str, *, replaces: str | None) -> Note | None:
    """Writes a claim, each time with another text."""
    return write_note(address, f"{owner} {secrets.token_hex(4)}", replaces=replaces)


def _is_of(there: Note, owner: str) -> bool:
    return there.text.rpartition(" ")[0] == owner
