"""What was made from what: a line for every output, so that a second run does only what is missing."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, cast

from sr_upscale.formatting import addressed
from sr_upscale.storage.atomic import IDENTITY, hash_file, identity, open_own, output_error, replace_file

if TYPE_CHECKING:
    from sr_upscale.storage.objects import Spool

MANIFEST = ".sr-upscale.jsonl"
"""Name of the manifest in the output folder. It holds one JSON object a line; the last one of an output and content
counts."""
_PART = re.compile(rf"\.sr-upscale\.({IDENTITY.pattern})\.jsonl")
"""Names of the manifest's parts: each process adds to one of its own, since appends over networks are not atomic."""

MAX_LINE = 1 << 20
"""Bytes of the longest line that is read: some names of 4096 bytes, escaped. A sparse file seems to have one of TB."""

Stamp = tuple[int, int]
"""Size in bytes and time of change in nanoseconds of a file: while they stay, its content is taken to."""
State = Literal["absent", "current", "stale", "other", "foreign"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture to do.

    Attributes:
        source: File to read.
        target: File to write.
    """

    source: Path
    target: Path


class Entry(NamedTuple):
    """A line of the manifest, without the names. A stamp is None where it is not known."""

    input_sha256: str
    input_stamp: Stamp | None
    output_sha256: str
    output_stamp: Stamp | None
    settings: str


def stamp_of(path: Path) -> Stamp | None:
    """Returns the stamp of a file, or None where there is none."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):  # ValueError: no name that a file can have
        return None
    return info.st_size, info.st_mtime_ns


def fingerprint_of(settings: Mapping[str, Any]) -> str:
    """Returns a hash of settings that are ready for JSON, whatever their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class Manifest:
    """What was made from what, in the output folder: its file, and a part for each process that has added to it.

    A line is written when a file is whole, before it takes its place. So whenever the process is killed, what stands
    there is known, be it the old file or the new one. Lines are added whole; a torn last line is ignored.

    Args:
        root: The output folder.
        settings: Everything besides the input that determines an output, ready for JSON.
        verify: Compare files by their hashes even where size and time are those of the manifest.
        at_work: Returns the identities of other processes at work in the folder.
        only_at_work: Know only what these add, and nothing from before.
        spool: Holds the inputs that are objects, of which another version is another input; None where all are files.

    Raises:
        OutputError: A link or something else that is no regular file stands in the place of one of its files.
    """

    def __init__(
        self,
        root: Path,
        settings: Mapping[str, Any],
        *,
        verify: bool = False,
        at_work: Callable[[], set[str]] = set,
        only_at_work: bool = False,
        spool: Spool | None = None,
    ) -> None:
        self.root = root
        self.settings = fingerprint_of(settings)
        self.verify = verify
        self.entries: dict[str, dict[str, Entry]] = {}  # by output and its content, the newest last
        self._at_work, self._only_at_work, self._spool = at_work, only_at_work, spool
        self._folder_in = functools.cache(lambda folder: _inside(folder, root))
        self._part = _part_of(root, identity())
        self._parts: set[Path] = set()
        self._read: dict[Path, tuple[int, int, int]] = {}  # number of the file, bytes and lines that were read
        self._listed: int | None = None
        self._torn = False
        self._lock = threading.RLock()
        self.refresh()

    def state(self, item: Item) -> State:
        """Says what stands at the item's target.

        Returns:
            ``absent``: nothing. ``current``: what would come out. ``stale``: of an input that has changed. ``other``:
            made with other settings. ``foreign``: not ours, or changed.
        """
        return self.look(item)[0]

    def look(self, item: Item) -> tuple[State, Entry | None]:
        """Says what stands at the item's target, and gives an entry by which that is known sooner the next time.

        Raises:
            OutputError: The target's name is too long, or its folder cannot be looked into.
        """
        try:
            info = os.lstat(item.target)
        except FileNotFoundError:
            return "absent", None
        except OSError as error:
            raise output_error(item.target, error) from error
        if stat.S_ISLNK(info.st_mode):
            with contextlib.suppress(OSError):  # one that leads nowhere is foreign, too
                info = os.stat(item.target)
        if not stat.S_ISREG(info.st_mode):
            return "foreign", None
        stamp = info.st_size, info.st_mtime_ns
        known = None if self.verify else self._known_by_stamp(item, stamp)
        entry = known or self._known_by_hash(item)
        if entry is None:
            return "foreign", None
        source = self._stamp_input(item.source)
        same = not self.verify and entry.input_stamp is not None and entry.input_stamp == source
        if entry.settings != self.settings:
            return "other", None
        if not (same or (self._spool is None and entry.input_sha256 == hash_file(item.source))):
            return "stale", None
        newer = entry._replace(input_stamp=source, output_stamp=stamp)
        return "current", None if newer == entry else newer

    def is_other(self, item: Item) -> bool:
        """Says whether the item's output was made with other settings. It asks the file system only if it may have."""
        entries = self.entries.get(self.key(item), {}).values()
        return any(each.settings != self.settings for each in entries) and self.state(item) == "other"

    def _stamp_input(self, source: Path) -> Stamp | None:
        return stamp_of(source) if self._spool is None else self._spool.stamp(source)

    def add(self, item: Item, output: Path, input_sha256: str, input_stamp: Stamp | None = None) -> None:
        """Notes that `output`, a whole file, is about to become the target of an item.

        Args:
            item: The item.
            output: File under its temporary name.
            input_sha256: Hash of the input that was read.
            input_stamp: Its stamp from before it was read.
        """
        self.write(item, Entry(input_sha256, input_stamp, hash_file(output), stamp_of(output), self.settings))

    def write(self, item: Item, entry: Entry) -> None:
        """Adds a line to this process's part."""
        line = {
            "output": self.key(item),
            "input": addressed(item.source).encode("utf-8", "backslashreplace").decode(),
            **entry._asdict(),
        }
        data = json.dumps(line).encode() + b"\n"
        with self._lock, open_own(self._part, "ab") as file:
            rest, self._torn = memoryview(b"\n" * self._torn + data), True
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
            self._torn = False
            self._keep(line["output"], entry)

    def key(self, item: Item) -> str:
        """Names an item in the manifest: its target within the folder."""
        folder, name = os.path.split(item.target)
        relative = os.path.join(self._folder_in(folder), name)
        return relative.encode("utf-8", "backslashreplace").decode()

    def refresh(self, *, at_work: bool = True, listing: bool = True) -> bool:
        """Reads what has been added since the last time.

        Args:
            at_work: Look also for parts of the processes at work.
            listing: Look also for parts that were not there then, unless nothing in the folder has changed.

        Returns:
            Whether there was anything to look at.
        """
        with self._lock:
            if listing and not self._list():
                return False
            while True:
                if not self._only_at_work:
                    self._read_on(self.root / MANIFEST)
                if not all(self._read_on(part) for part in sorted(self._parts)):
                    self._listed = None  # parts have been merged meanwhile
                    self._list()
                    continue
                if at_work:
                    expected = {_part_of(self.root, each) for each in self._at_work()} - self._parts
                    self._parts |= {path for path in expected if self._read_on(path)}
                return True

    def has_parts(self) -> bool:
        """Says whether there are parts besides the file."""
        return bool(_parts_in(self.root))

    def merge(self, may_write: Callable[[], None]) -> None:
        """Merges the parts into the file, which must be this process's alone.

        Their lines are put behind the file's. It is written anew where half of its lines would be out of date, where
        its end is torn, and where there is none. A process that is killed meanwhile leaves lines that stand in a part,
        too, or a torn one.

        Args:
            may_write: Called before the file changes; what it raises leaves all as it was.

        Raises:
            OutputError: The file cannot be written; the parts stay.
        """
        with self._lock:
            parts = sorted(_parts_in(self.root))
            self._read_on(self.root / MANIFEST)
            (self._append if self._may_grow(parts) else self._rewrite)(parts, may_write)
        for path in parts:
            with contextlib.suppress(OSError):
                path.unlink()

    def _may_grow(self, parts: Sequence[Path]) -> bool:
        number, offset, count = self._read.get(self.root / MANIFEST, (0, 0, 0))
        with contextlib.suppress(FileNotFoundError):
            info = os.stat(self.root / MANIFEST)
            added = sum(1 for path in parts for _known in _known_lines(path))
            return (info.st_ino, info.st_size) == (number, offset) and count + added < 2 * len(self.entries)
        return False

    def _append(self, parts: Sequence[Path], may_write: Callable[[], None]) -> None:
        may_write()
        path = self.root / MANIFEST
        try:
            with open_own(path, "ab") as file, io.BufferedWriter(cast("io.RawIOBase", file)) as behind:
                for part in parts:
                    behind.writelines(line for _output, _entry, line in _known_lines(part))
                behind.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise output_error(path, error) from error

    def _rewrite(self, parts: Sequence[Path], may_write: Callable[[], None]) -> None:
        lines: dict[str, dict[str, tuple[Entry, bytes]]] = {}
        for path in [self.root / MANIFEST, *parts]:
            for output, entry, line in _known_lines(path):
                of_output = lines.setdefault(output, {})
                of_output.pop(entry.output_sha256, None)
                of_output[entry.output_sha256] = entry, line
        with (
            replace_file(self.root / MANIFEST, on_whole=lambda _temporary: may_write()) as temporary,
            temporary.open("wb") as file,
        ):
            for output, of_output in lines.items():
                file.writelines(_still_there(self.root / output, list(of_output.values())))

    def _known_by_stamp(self, item: Item, stamp: Stamp | None) -> Entry | None:
        key = self.key(item)

        def known() -> Entry | None:
            of_output = self.entries.get(key, {}).values()
            return next((each for each in reversed(of_output) if each.output_stamp == stamp), None)

        entry = known()
        for at_work, listing in ((False, False), (True, False), (True, True)):  # a list of a large folder takes a while
            if entry is None and self.refresh(at_work=at_work, listing=listing):
                entry = known()
        return entry

    def _known_by_hash(self, item: Item) -> Entry | None:
        if self.verify:
            self.refresh()
        entries = self.entries.get(self.key(item))
        return entries.get(hash_file(item.target)) if entries else None

    def _list(self) -> bool:
        """Looks for parts. Returns whether it had to."""
        changed = _changed_ns(self.root)
        if changed is not None and changed == self._listed:
            return False
        parts = set(_parts_in(self.root))
        if self._only_at_work:
            at_work = self._at_work()
            parts = {path for path in parts if path in self._parts or _identity_of(path) in at_work}
        self._parts, self._listed = parts, changed
        return True

    def _read_on(self, path: Path) -> bool:
        """Reads on in a file, from the start if it is another one by now. Returns False if a part is not there."""
        try:
            file = open_own(path, "rb")
        except FileNotFoundError:
            return path.name == MANIFEST
        with file:
            number = os.fstat(file.fileno()).st_ino
            before, offset, count = self._read.get(path, (number, 0, 0))
            if before != number:
                offset = count = 0
            file.seek(offset)
            for line in _lines(file):
                if (known := _parse(line)) is not None:
                    self._keep(*known)
                offset, count = offset + len(line), count + 1
            self._read[path] = number, offset, count
        return True

    def _keep(self, output: str, entry: Entry) -> None:
        """Keeps an entry as the last one of its output; it takes the place of one of the same content."""
        of_output = self.entries.setdefault(output, {})
        of_output.pop(entry.output_sha256, None)
        of_output[entry.output_sha256] = entry


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yields the whole lines of a file up to one that is still being written, torn, or longer than any of ours."""
    while (line := file.readline(MAX_LINE)).endswith(b"\n"):
        yield line


def _known_lines(path: Path) -> Iterator[tuple[str, Entry, bytes]]:
    """Yields what the whole lines of a file say, with the lines themselves; nothing where there is no file."""
    with contextlib.suppress(FileNotFoundError), open_own(path, "rb") as file:
        for line in _lines(file):
            if (known := _parse(line)) is not None:
                yield *known, line


def _parse(line: bytes) -> tuple[str, Entry] | None:
    """Reads a line of the manifest; None if it is nonsense."""
    try:
        fields = json.loads(line)
        output, settings = fields["output"], sys.intern(fields["settings"])
        entry = Entry(
            fields["input_sha256"],
            _stamp(fields.get("input_stamp")),
            fields["output_sha256"],
            _stamp(fields.get("output_stamp")),
            settings,
        )
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
        return None
    known = all(isinstance(each, str) for each in (output, entry.input_sha256, entry.output_sha256))
    return (output, entry) if known else None


def _stamp(value: Any) -> Stamp | None:
    if value is None:
        return None
    size, changed_ns = value
    if not isinstance(size, int) or not isinstance(changed_ns, int):
        raise TypeError("no stamp")
    return size, changed_ns


def _still_there(target: Path, known: list[tuple[Entry, bytes]]) -> Iterable[bytes]:
    """Returns the lines of an output that are worth keeping: of several the one of the file that stands there."""
    stamp = stamp_of(target) if len(known) > 1 else None
    standing = [line for entry, line in known if stamp is not None and entry.output_stamp == stamp]
    return standing or [line for _entry, line in known]


def _inside(folder: str, root: Path) -> str:
    """Returns a folder's path from the root; nothing for the root itself."""
    relative = os.path.relpath(folder or os.curdir, root)
    return "" if relative == os.curdir else relative


def _parts_in(root: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return [root / name for name in os.listdir(root) if _PART.fullmatch(name)]
    return []


def _part_of(root: Path, name: str) -> Path:
    return root / f".sr-upscale.{name}.jsonl"


def _identity_of(part: Path) -> str:
    match = _PART.fullmatch(part.name)
    assert match is not None
    return match[1]


def _changed_ns(folder: Path) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None
