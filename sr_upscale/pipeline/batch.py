"""A folder, or a list of pictures: plan every output first, then do them, reading ahead and writing behind.

A bad picture fails alone. What is finished is written into a manifest beside the outputs, so that a second
run skips exactly what would come out the same, and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import queue
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from sr_upscale.errors import DiskFullError, InputError, OutOfMemoryError, OutputError, SrUpscaleError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.images.formats import FORMATS, SUFFIXES, Format, format_of_path, own_format
from sr_upscale.storage.atomic import output_error, remove_orphans

Loaded = TypeVar("Loaded")

MANIFEST = ".sr-upscale.jsonl"
"""Name of the manifest in the output folder: one JSON object a line; the last one of an output and content counts."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture to do."""

    source: Path
    target: Path


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """What to do, and what was noticed while looking for pictures.

    Attributes:
        items: Pictures and their outputs.
        root: Folder of the manifest, above all outputs; None where each folder of outputs has its own.
        warnings: For the user.
    """

    items: tuple[Item, ...]
    root: Path | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Work:
    """What `run_batch` lends to the computing of an item.

    Attributes:
        saver: Threads that write.
        worker: Number of the computing thread, from 0.
        stop: Set when the computing shall end at once, with any exception.
        on_whole: To be called with the whole output, before it takes its place (`replace_file`), and the sha256 of the
            input that was read.
    """

    saver: Executor
    worker: int
    stop: threading.Event
    on_whole: Callable[[Path, str], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an item."""

    item: Item
    status: Literal["done", "skipped", "failed"]
    seconds: float = 0.0
    error: SrUpscaleError | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def output_name(source: Path, *, label: str, suffix: str | None, fmt: Format | None) -> str:
    """``photo.jpg`` -> ``photo_x4_psnr-x4.jpg``; a `suffix` takes the place of ``_<label>``, a format of the ending."""
    own = format_of_path(source)
    if fmt is None:
        fmt = own_format(own) if own else FORMATS["png"]
    ending = source.suffix if fmt == own else f".{fmt.name}"
    return f"{source.stem}{f'_{label}' if suffix is None else suffix}{ending}"


def plan_folder(
    folder: Path, out: Path, *, recursive: bool = True, fmt: Format | None = None, suffix: str = ""
) -> BatchPlan:
    """Finds the pictures of a folder, told by their names, and mirrors its tree into `out`.

    Args:
        folder: Where to look. Links to folders are followed, each real folder once.
        out: Root of the outputs; it is left out of the search if it lies inside `folder`.
        recursive: Look into subfolders.
        fmt: Format of all outputs; None keeps each picture's own.
        suffix: Put behind the stem of every output's name.

    Raises:
        InputError: There is no such folder, or no picture in it.
        UsageError: Two pictures would become one file.
    """
    if not folder.is_dir():
        raise InputError(f"{shown(folder)}: no such folder; check the path")
    warnings: list[str] = []
    items = [
        Item(
            source=path,
            target=out / path.relative_to(folder).parent / output_name(path, label="", suffix=suffix, fmt=fmt),
        )
        for path in _walk(folder, out, recursive, warnings)
    ]
    if not items:
        kinds = ", ".join(sorted(SUFFIXES))
        raise InputError(f"{shown(folder)}: no images found; expected files ending in {kinds}")
    items = _apart(items)
    refuse_collisions(items)
    return BatchPlan(items=tuple(items), root=out, warnings=tuple(warnings))


def plan_items(items: Sequence[Item]) -> BatchPlan:
    """A plan of given items; each folder of outputs gets a manifest.

    Raises:
        UsageError: Two of them collide.
    """
    items = _apart(items)
    refuse_collisions(items)
    folders = {os.path.abspath(item.target.parent) for item in items}
    return BatchPlan(items=tuple(items), root=Path(folders.pop()) if len(folders) == 1 else None)


def _apart(items: Sequence[Item]) -> list[Item]:
    """The items, with another name for what a phone's HEIC becomes beside a JPEG of the same name."""
    targets = Counter(os.path.normcase(item.target) for item in items)

    def renamed(item: Item) -> Item:
        own = format_of_path(item.source)
        if own is None or not own.written_as or targets[os.path.normcase(item.target)] == 1:
            return item
        target = item.target.with_name(f"{item.target.stem}_{own.name}{item.target.suffix}")
        return Item(source=item.source, target=target)

    return [renamed(item) for item in items]


def refuse_collisions(items: Sequence[Item]) -> None:
    """Refuses a plan in which two inputs become one output, or an output is any input.

    Raises:
        UsageError: The pair is named.
    """
    by_target: dict[str, Item] = {}
    sources = {os.path.normcase(os.path.realpath(item.source)) for item in items}
    for item in items:
        key = os.path.normcase(os.path.realpath(item.target))
        if (other := by_target.get(key)) is not None:
            raise UsageError(
                f"{shown(other.source)} and {shown(item.source)} would both become {shown(item.target)}; "
                "leave out --format, or rename one of them"
            )
        by_target[key] = item
        if key in sources or _same_file(item.source, item.target):
            raise UsageError(f"{shown(item.target)} is an input and would be overwritten; choose another -o")


def refuse_unwritable(targets: Sequence[Path]) -> None:
    """Finds before any work whether the outputs can be written; leaves nothing behind.

    Raises:
        OutputError: A name is too long, or the nearest existing folder above it cannot be written.
    """
    tried: set[Path] = set()
    for target in targets:
        try:
            os.path.lexists(target) or target.lstat()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise output_error(target, error) from error
        there = target.parent
        while not there.exists() and there != there.parent:
            there = there.parent
        if there in tried:
            continue
        tried.add(there)
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise output_error(target, error) from error


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Threads of the three stages, which overlap: reading, computing, writing."""

    load: int = 1
    proc: int = 1
    save: int = 1

    def __post_init__(self) -> None:
        if min(self.load, self.proc, self.save) < 1:
            raise UsageError(f"jobs are {self.load}:{self.proc}:{self.save}; expected at least 1 of each")


def run_batch(
    plan: BatchPlan,
    load: Callable[[Item], Loaded],
    start: Callable[[Item, Loaded, Work], Future[dict[str, Any]]],
    *,
    settings: Mapping[str, Any],
    jobs: Jobs | None = None,
    force: bool = False,
    on_outcome: Callable[[Outcome], None] = lambda _outcome: None,
) -> list[Outcome]:
    """Does the items: while one is computed, the next are read and those before are written. Outcomes keep the order.

    Args:
        plan: Items and the manifest's folder.
        load: Reads an item.
        start: Computes what was read and has it written (`Work.saver`), item by item; the future's result becomes the
            outcome's details and holds ``seconds``.
        settings: Everything besides the input that determines an output (weights, scale, format ...).
        jobs: How many items each stage has at a time.
        force: Also overwrite files that this program did not make.
        on_outcome: Called after each item, in their order.

    An existing target is skipped where the manifest says that it was made from this input with these
    settings and has not been touched since. It is made anew where the manifest knows it untouched but
    input or settings are others. A file that the manifest does not know is never overwritten without `force`.

    An exception that is not an item's own (a signal, a full disk) ends the stages, and then passes on. What has been
    written by then, even by a process that was killed, is known to the next run.
    """
    jobs = jobs or Jobs()
    for folder in {item.target.parent for item in plan.items}:
        remove_orphans(folder)
    manifests = manifests_of(plan, settings)
    stop = threading.Event()
    workers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(jobs.proc):
        workers.put(number)

    def read(item: Item) -> Loaded | None:
        return None if is_done(item, manifests, force=force) else load(item)

    def compute(item: Item, reading: Future[Loaded | None]) -> Future[dict[str, Any]] | None:
        loaded = reading.result()
        if loaded is None:
            return None
        item.target.parent.mkdir(parents=True, exist_ok=True)
        worker = workers.get()
        try:
            note = functools.partial(manifests[item.target.parent].add, item)
            return start(item, loaded, Work(saver=saver, worker=worker, stop=stop, on_whole=note))
        finally:
            workers.put(worker)

    def finish(item: Item, computing: Future[Future[dict[str, Any]] | None]) -> Outcome:
        try:
            written = computing.result()
            if written is None:
                return Outcome(item=item, status="skipped")
            details = written.result()
            return Outcome(item=item, status="done", seconds=details["seconds"], details=details)
        except Exception as failure:  # one bad file never stops the rest, whatever it breaks
            error = failure if isinstance(failure, SrUpscaleError) else _as_ours(failure, item)
            if isinstance(error, DiskFullError):
                raise error from failure.__cause__
            return Outcome(item=item, status="failed", error=error)

    outcomes: list[Outcome] = []
    flying: deque[tuple[Item, Future[Future[dict[str, Any]] | None]]] = deque()
    with (
        ThreadPoolExecutor(jobs.save, "save") as saver,
        ThreadPoolExecutor(jobs.proc, "proc") as computer,
        ThreadPoolExecutor(jobs.load, "load") as loader,
    ):
        try:
            waiting = iter(plan.items)
            while True:
                while len(flying) < jobs.load + jobs.proc + jobs.save and (item := next(waiting, None)) is not None:
                    flying.append((item, computer.submit(compute, item, loader.submit(read, item))))
                if not flying:
                    return outcomes
                outcomes.append(finish(*flying.popleft()))
                on_outcome(outcomes[-1])
        except BaseException:
            stop.set()
            for executor in (loader, computer, saver):
                executor.shutdown(wait=False, cancel_futures=True)
            raise


def _as_ours(failure: Exception, item: Item) -> SrUpscaleError:
    name = shown(item.source)
    if isinstance(failure, MemoryError):
        return OutOfMemoryError(f"{name}: out of memory; close other programs or use a smaller scale")
    if isinstance(failure, OSError):
        return output_error(item.target, failure)
    return SrUpscaleError(f"{name}: internal error: {type(failure).__name__}: {failure}; please report it")


def manifests_of(plan: BatchPlan, settings: Mapping[str, Any]) -> dict[Path, Manifest]:
    """The manifest of each folder of outputs."""
    folders = {item.target.parent for item in plan.items}
    if plan.root is not None:
        return dict.fromkeys(folders, Manifest(plan.root, settings))
    return {folder: Manifest(folder, settings) for folder in folders}


def is_done(item: Item, manifests: Mapping[Path, Manifest], *, force: bool) -> bool:
    """Whether there is nothing to do.

    Raises:
        OutputError: Something is in the way that only `force` may overwrite.
    """
    state = "absent" if force else manifests[item.target.parent].state(item)
    if state == "foreign":
        raise OutputError(
            f"{shown(item.target)}: exists and was not made by this program, or was changed since; "
            "add --force to overwrite it, or choose another -o"
        )
    return state == "current"


class Manifest:
    """What was made from what, in the output folder. Lines are added whole; a torn last line is ignored.

    A line is written when a file is whole, before it takes its place: whenever the process is killed, what stands there
    is known, be it the old file or the new one.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self.path = root / MANIFEST
        self.root = root
        self.settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self.entries: dict[tuple[str, str], dict[str, Any]] = {}
        self._torn = False
        self._adding = threading.Lock()
        if self.path.is_file():
            text = self.path.read_text(encoding="utf-8", errors="replace")
            self._torn = not text.endswith("\n")
            for line in text.splitlines():
                try:
                    entry = json.loads(line)
                    self.entries[entry["output"], entry["output_sha256"]] = entry
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue

    def state(self, item: Item) -> Literal["absent", "current", "stale", "foreign"]:
        """Of the item's target: not there; what would come out; ours but out of date; not ours or changed."""
        if not os.path.lexists(item.target):
            return "absent"
        if not item.target.is_file():
            return "foreign"
        entry = self.entries.get((self._key(item), hash_file(item.target)))
        if entry is None:
            return "foreign"
        same = entry.get("settings") == self.settings and entry.get("input_sha256") == hash_file(item.source)
        return "current" if same else "stale"

    def add(self, item: Item, output: Path, input_sha256: str) -> None:
        """Notes that `output`, a whole file, is about to become the target of an item."""
        entry = {
            "output": self._key(item),
            "input": os.fsdecode(os.fspath(item.source)).encode("utf-8", "backslashreplace").decode(),
            "input_sha256": input_sha256,
            "output_sha256": hash_file(output),
            "settings": self.settings,
        }
        with self._adding, self.path.open("ab", buffering=0) as file:  # one write of one line: runs cannot mix theirs
            file.write(b"\n" * self._torn + json.dumps(entry).encode() + b"\n")
            os.fsync(file.fileno())
            self._torn = False
            self.entries[entry["output"], entry["output_sha256"]] = entry

    def _key(self, item: Item) -> str:
        relative = os.path.relpath(item.target, self.root)
        return relative.encode("utf-8", "backslashreplace").decode()


def hash_file(path: Path) -> str:
    """sha256 of a regular file's content, hexadecimal.

    Raises:
        InputError: It cannot be read, or is not a regular file.
    """
    try:
        if not path.is_file():
            what = "not a regular file" if os.path.lexists(path) else "no such file"
            raise InputError(f"{shown(path)}: {what}; expected a picture")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot read: {error.strerror}; check its permissions") from error


def _walk(folder: Path, out: Path, recursive: bool, warnings: list[str]) -> Iterator[Path]:
    visited: set[tuple[int, int]] = set()
    skip = os.path.realpath(out)

    def unreadable(error: OSError) -> None:
        warnings.append(f"{shown(error.filename)}: cannot be read ({error.strerror}); left out")

    for place, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        info = os.stat(place)
        if (info.st_dev, info.st_ino) in visited:
            warnings.append(f"{shown(place)} was already visited through another path; left out")
            folders.clear()
            continue
        visited.add((info.st_dev, info.st_ino))
        folders[:] = sorted(name for name in folders if os.path.realpath(os.path.join(place, name)) != skip)
        if not recursive:
            folders.clear()
        for name in sorted(files):
            path = Path(place) / name
            if path.suffix.lower() in SUFFIXES and not name.startswith(".sr-"):
                yield path


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False
