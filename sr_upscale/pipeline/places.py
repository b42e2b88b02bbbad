"""Where pictures come from and go to: files, or objects of a store; and what is done of a folder of objects.

Files of a spool stand for the objects, so that whatever does items knows nothing of stores. What is done stands in the
note of each output, which appears in one step with it. Nothing is claimed: each process goes through the pictures in an
order of its own and asks before it computes. Of two that make the same output the store lets one win, and the other
finds it done. So W processes make about (W - 1)(1 + ln(N/W)) of N outputs twice.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sr_upscale.errors import NetworkError, OutputError, UsageError
from sr_upscale.formatting import addressed, show_as, shown
from sr_upscale.images.formats import format_of_path
from sr_upscale.pipeline.batch_plan import BatchPlan, Item, plan_folder, plan_names, refuse_name
from sr_upscale.pipeline.ledger import in_the_way, made_otherwise
from sr_upscale.pipeline.manifest import Stamp, fingerprint_of
from sr_upscale.pipeline.parsing import Shard
from sr_upscale.pipeline.request import Request
from sr_upscale.pipeline.targets import default_name, folder_target, output_label, single_target
from sr_upscale.storage.atomic import hash_file, identity
from sr_upscale.storage.claims import Lost
from sr_upscale.storage.objects import (
    Note,
    Spool,
    check_address,
    get,
    list_names,
    name_of,
    names_below,
    put,
    read_note,
    refuse_missing_bucket,
)
from sr_upscale.storage.remote import is_address, without_query
from sr_upscale.storage.stores import CONNECTIONS


@contextlib.contextmanager
def planned(
    folder: str, output: str | None, request: Request, *, recursive: bool = True, shard: Shard | None = None
) -> Iterator[tuple[BatchPlan, Spool | None]]:
    """Plans a folder of pictures: see `plan_folder` and `folder_target`, and of objects `plan_objects`.

    Yields:
        The plan, and the spool of a plan with objects.
    """
    if is_address(folder) or is_address(output or ""):
        with Spool() as spool:
            yield plan_objects(folder, output, request, spool, recursive=recursive, shard=shard), spool
        return
    out = folder_target(folder, output, request)
    fmt, suffix = request.file.format, request.file.suffix or ""
    yield plan_folder(Path(folder), out, recursive=recursive, fmt=fmt, suffix=suffix, shard=shard), None


@contextlib.contextmanager
def picture_at(
    name: str, output: str | None, request: Request
) -> Iterator[tuple[Path | None, str, Callable[[Path], None]]]:
    """Checks where one picture goes, and reads it if it is an object.

    Args:
        name: The picture: an address, a path, or ``-``, standard input.
        output: What -o says: an address, one of a folder that ends in ``/``, or what `single_target` takes.
        request: Gives the name in a folder.

    Yields:
        The file to read, None for standard input; the file to write, or ``-``; and what puts an object in place, which
        is to be called with its whole file.

    Raises:
        UsageError: An address cannot be used so.
        InputError: There is no such object.
        OutputError: The output is there or cannot be.
        NetworkError: A store cannot be reached.
    """
    if not (is_address(name) or is_address(output or "")):
        source = None if name == "-" else Path(name)
        place = "-" if source is None and output is None else single_target(source, output, request)
        yield source, place, lambda _whole: None
        return
    with Spool() as spool:
        source, folder = _file_of(name, spool)
        output = folder if output is None else output
        commit: Callable[[Path], None] = lambda _whole: None  # noqa: E731
        if is_address(output):
            check_address(output, to_write=True)
            address = output + default_name(source or Path("stdin"), request) if output.endswith("/") else output
            if address == name:
                raise UsageError(f"{shown(address)} is an input and would be overwritten; choose another -o")
            place = str(spool.outputs / name_of(address))
            show_as(spool.outputs, address.rpartition("/")[0])
            _check_output(address, request)
            commit = functools.partial(_commit, address, request)
        else:
            place = single_target(source, output, request)
        if source is not None and is_address(name):
            get(name, source)
        yield source, place, commit


def _file_of(name: str, spool: Spool) -> tuple[Path | None, str]:
    """Returns the file that a picture is or will be, and the address of its folder if it has one."""
    if not is_address(name):
        return None if name == "-" else Path(name), ""
    check_address(name)
    folder = without_query(name).rpartition("/")[0]
    show_as(spool.inputs, folder)
    return spool.inputs / name_of(name), f"{folder}/"


def _check_output(address: str, request: Request) -> None:
    refuse_missing_bucket(address)
    if not (request.file.force or request.run.dry_run) and read_note(address) is not None:
        raise OutputError(f"{shown(address)}: exists; add --force to overwrite it, or choose another -o")


def _commit(address: str, request: Request, whole: Path) -> None:
    """Puts a whole file in the place of an object."""
    note = json.dumps({"by": f"{identity()}-{secrets.token_hex(4)}"})
    put(address, whole, note=note, overwrite=request.file.force)


LISTED = 10_000
"""Names that are listed for a plan besides four for each of its pictures. Of more, each output is asked for."""


def plan_objects(
    folder: str,
    output: str | None,
    request: Request,
    spool: Spool,
    *,
    recursive: bool = True,
    shard: Shard | None = None,
) -> BatchPlan:
    """Plans a folder whose pictures or outputs, or both, are objects.

    Args:
        folder: Where the pictures are: an address or a path.
        output: What -o says; None is ``FOLDER_x4`` beside an address.
        request: Gives the names of the outputs.
        spool: Its folders stand for the objects from now on.
        recursive: Look also below.
        shard: Only this part of the pictures.

    Raises:
        UsageError: The addresses cannot be folders, or two outputs or an input and an output are one.
        InputError: There is no such folder, or no picture in it.
        OutputError: The bucket of the outputs is not there.
        NetworkError: A store cannot be reached.
    """
    if output is None or is_address(output):
        out = _out(folder, output, request)
        check_address(out, to_write=True)
        refuse_missing_bucket(out)
        show_as(spool.outputs, out)
        place = spool.outputs
    else:
        out, place = output, folder_target(folder, output, request)
    names: dict[str, Any] = {"fmt": request.file.format, "suffix": request.file.suffix or "", "shard": shard}
    if is_address(folder):
        plan = _plan_listed(folder, out, place, spool, recursive=recursive, names=names)
    else:
        plan = plan_folder(Path(folder), place, recursive=recursive, **names)
    if place != spool.outputs or request.run.dry_run:
        return plan
    items = random.Random(identity()).sample(plan.items, len(plan.items))  # see above: an order of this process's own
    return replace(plan, items=tuple(items))


def _plan_listed(
    folder: str, out: str, place: Path, spool: Spool, *, recursive: bool, names: dict[str, Any]
) -> BatchPlan:
    """Plans the pictures that a store lists, without those in the folder of outputs."""
    check_address(folder)
    if folder.startswith("https:"):
        raise UsageError(f"{shown(folder)}: a web server lists no folders; give one picture's address to `sr-upscale`")
    root = folder.rstrip("/") + "/"
    if root == out:
        raise UsageError(f"{shown(out)} is the folder of the pictures; choose another -o")
    listed = list_names(folder, recursive=recursive)
    show_as(spool.inputs, folder)
    inside = out.removeprefix(root) if out.startswith(root) else None
    found = [name for name in listed if inside is None or not name.startswith(inside)]
    folds = os.path.exists(os.fspath(spool.outputs).swapcase())  # the disc of the spool
    plan = plan_names(found, spool.inputs, place, exact=place == spool.outputs and not folds, **names)
    for name, about in listed.items():
        spool.versions[spool.inputs / name] = about.version
        spool.sizes[spool.inputs / name] = about.size
    return plan


def _out(folder: str, output: str | None, request: Request) -> str:
    """Returns the address of the folder of outputs, which ends in ``/``."""
    if output is None:
        if "/" not in folder.partition("://")[2].rstrip("/"):
            raise UsageError(f"{shown(folder)} is a whole bucket; say with -o where the results go")
        return f"{folder.rstrip('/')}_{output_label(request).split('_')[0]}/"
    if not output.endswith("/") and format_of_path(Path(output)) is not None:
        raise UsageError(f"{shown(output)} is one picture; a folder of pictures needs a folder with -o")
    return output.rstrip("/") + "/"


class ObjectLedger:
    """The ledger (`batch_run.ItemLedger`) of outputs in a store.

    Args:
        spool: Its files stand for the objects.
        plan: Of `plan_objects`.
        settings: Everything besides the input that determines an output, ready for JSON.
        force: Take every item, and overwrite also objects that this program did not make.
    """

    def __init__(self, spool: Spool, plan: BatchPlan, settings: Mapping[str, Any], *, force: bool = False) -> None:
        self._spool, self._force = spool, force
        self._settings = fingerprint_of(settings)
        self._taken: dict[Path, str | None] = {}  # what stood there then: its version
        self._ahead = _NotesAhead(plan)

    def __enter__(self) -> ObjectLedger:
        return self

    def __exit__(self, *_error: object) -> None:
        self._ahead.close()

    def take(self, item: Item) -> Literal["done", "taken"]:
        """Asks whether an item is to be done: what was asked for ahead, and if that says so once more.

        Raises:
            OutputError: An object is in the way that only `force` may overwrite, or it may not be looked at.
            InputError: A local input cannot be read.
            NetworkError: The store cannot be reached.
        """
        if self.is_done(item):
            return "done"
        if not self._force:
            there = read_note(addressed(item.target))
            if self._is_done(item, there):
                return "done"
            self._taken[item.target] = there.version if there is not None else None
        return "taken"

    def is_done(self, item: Item) -> bool:
        """Says whether there is nothing to do, by what was asked for ahead; see `take`."""
        refuse_name(item.target)
        return not self._force and self._is_done(item, self._ahead.note_of(item))

    def _is_done(self, item: Item, there: Note | None) -> bool:
        if there is None:
            return False
        note = _parse(there.text)
        if note is None:
            raise in_the_way(item)
        if note["settings"] != self._settings:
            raise made_otherwise(item)
        return self._is_same(item.source, note)

    def _is_same(self, source: Path, note: Mapping[str, str]) -> bool:
        version = self._spool.versions.get(source)
        if version is None:
            return note["input_sha256"] == hash_file(source)
        return version != "" and note["input"] == version

    def note(self, item: Item, _stamp: Stamp | None, output: Path, input_sha256: str) -> None:
        """Puts a whole output in place, with its note.

        Raises:
            Lost: Another process has made it anew.
            AppearedError: Another process was first, or an object that is not ours has appeared.
            OutputError, NetworkError: See `objects.put`.
        """
        replaces = self._taken.get(item.target)
        if replaces is not None and self.has_lost(item):  # not every put has that condition
            raise Lost
        note = {
            "input": self._spool.versions.get(item.source, ""),
            "input_sha256": input_sha256,
            "settings": self._settings,
            "by": f"{identity()}-{secrets.token_hex(4)}",
        }
        overwrite = self._force or replaces is not None
        put(addressed(item.target), output, note=json.dumps(note), overwrite=overwrite, replaces=replaces)

    def has_lost(self, item: Item) -> bool:
        """Asks whether another process has made an item's output since `take`."""
        with contextlib.suppress(OutputError, NetworkError):
            if item.target in self._taken:
                there = read_note(addressed(item.target))
                return (there.version if there is not None else None) != self._taken[item.target]
        return False

    def release(self, item: Item) -> None:
        """Removes an item's files from the spool, done or not."""
        self._taken.pop(item.target, None)
        self._spool.drop(item.source)
        self._spool.drop(item.target)


class _NotesAhead:
    """The notes of a plan's outputs, each asked for once before it is needed, many at a time.

    Of outputs that a list does not name nothing is asked.

    Args:
        plan: Of `plan_objects`.
    """

    def __init__(self, plan: BatchPlan) -> None:
        assert plan.root is not None
        self._root, self._count = plan.root, len(plan.items)
        self._to_ask = iter(plan.items)
        self._asked: dict[Path, Future[Note | None]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(CONNECTIONS, "notes")
        self._listed: set[str] | None = None
        self._began = False

    def note_of(self, item: Item) -> Note | None:
        """Returns the note of an item's output; of what was returned before, as it is now.

        Raises:
            OutputError, NetworkError: See `read_note`.
        """
        with self._lock:
            if not self._began:
                self._listed = names_below(addressed(self._root), most=LISTED + 4 * self._count)
                self._began = True
            while len(self._asked) < 4 * CONNECTIONS and (ahead := next(self._to_ask, None)) is not None:
                self._asked[ahead.target] = self._ask(ahead.target)
            asked = self._asked.pop(item.target, None)
        return read_note(addressed(item.target)) if asked is None else asked.result()

    def _ask(self, target: Path) -> Future[Note | None]:
        if self._listed is None or target.relative_to(self._root).as_posix() in self._listed:
            return self._pool.submit(read_note, addressed(target))
        absent: Future[Note | None] = Future()
        absent.set_result(None)
        return absent

    def close(self) -> None:
        """Asks for nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _parse(text: str) -> dict[str, str] | None:
    """Returns a note of ours; None where it is none."""
    try:
        note = json.loads(text)
    except (ValueError, RecursionError):
        return None
    known = isinstance(note, dict) and all(
        isinstance(note.get(key), str) for key in ("input", "input_sha256", "settings")
    )
    return note if known else None
