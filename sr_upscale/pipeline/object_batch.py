"""A folder of objects, or into one: what to do, what is done, and the commit of each output.

Files of a spool stand for the objects, so that whatever does items knows nothing of stores. What is done stands in the
note of each output, which appears in one step with it. Items are claimed among the processes that share the outputs.
Where a store cannot do that, of two processes that make the same output one wins, and the other finds it done.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from sr_upscale.errors import UsageError
from sr_upscale.formatting import addressed, show_as, shown
from sr_upscale.images.formats import format_of_path
from sr_upscale.interrupts import STOP
from sr_upscale.pipeline.batch_plan import BatchPlan, Item, plan_folder, plan_names, refuse_name
from sr_upscale.pipeline.ledger import CLAIMS, in_the_way
from sr_upscale.pipeline.manifest import Stamp, fingerprint_of
from sr_upscale.pipeline.request import Request
from sr_upscale.pipeline.targets import output_label
from sr_upscale.pipeline.words import Shard
from sr_upscale.storage.claims import Lost
from sr_upscale.storage.digest import hash_file
from sr_upscale.storage.object_claims import ObjectClaims
from sr_upscale.storage.objects import check_address, list_names, note_of, put, refuse_missing_bucket
from sr_upscale.storage.process import identity
from sr_upscale.storage.remote import is_address
from sr_upscale.storage.spool import Spool


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
    out = _out(folder, output, request)
    check_address(out, to_write=True)
    refuse_missing_bucket(out)
    show_as(spool.outputs, out)
    names: dict[str, Any] = {"fmt": request.file.format, "suffix": request.file.suffix or "", "shard": shard}
    if not is_address(folder):
        return plan_folder(Path(folder), spool.outputs, recursive=recursive, **names)
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
    plan = plan_names(found, spool.inputs, spool.outputs, exact=not folds, **names)
    for name, about in listed.items():
        spool.versions[spool.inputs / name] = about.version
        spool.sizes[spool.inputs / name] = about.size
    return plan


def _out(folder: str, output: str | None, request: Request) -> str:
    """Returns the address of the folder of outputs, which ends in ``/``."""
    if output is None:
        if "/" not in folder.partition("://")[2].rstrip("/"):
            raise UsageError(f"{shown(folder)} is a whole bucket; say with -o where the results go")
        return f"{folder.rstrip('/')}_{output_label(request.size.target, request.network.model).split('_')[0]}/"
    if not is_address(output):
        raise UsageError(f"{shown(output)}: the results of objects go to objects; give -o an address, such as s3://...")
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
        on_warning: Called with one line where nothing can be claimed.
    """

    def __init__(
        self,
        spool: Spool,
        plan: BatchPlan,
        settings: Mapping[str, Any],
        *,
        force: bool = False,
        on_warning: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._spool, self._force, self._on_warning = spool, force, on_warning
        self._settings = fingerprint_of(settings)
        self._stale: set[Path] = set()
        self._claims: ObjectClaims | None = None

    def __enter__(self) -> ObjectLedger:
        claims = ObjectClaims(addressed(self._spool.outputs) + CLAIMS)
        reason = claims.begin()
        if reason is None:
            self._claims = claims
        else:
            self._on_warning(f"pictures are not claimed, give each process a --shard of its own: {reason}")
        return self

    def __exit__(self, *_error: object) -> None:
        if self._claims is not None:
            with STOP.tidying():
                self._claims.close()

    def take(self, item: Item) -> Literal["done", "held", "taken"]:
        """Claims an item; see `Ledger.take`.

        Raises:
            OutputError: An object is in the way that only `force` may overwrite, or it may not be looked at.
            InputError: A local input cannot be read.
            NetworkError: The store cannot be reached.
        """
        if self.is_done(item):
            return "done"
        if self._claims is None:
            return "taken"
        if not self._claims.take(self._claim(item)):
            return "held"
        try:  # it may have been done and given back before it was claimed
            done = self.is_done(item)
        except BaseException:
            self._claims.release(self._claim(item))
            raise
        if done:
            self._claims.release(self._claim(item))
        return "done" if done else "taken"

    def is_done(self, item: Item) -> bool:
        """Says whether there is nothing to do; see `take`."""
        refuse_name(item.target)
        if self._force:
            return False
        text = note_of(addressed(item.target))
        if text is None:
            self._stale.discard(item.target)
            return False
        note = _parse(text)
        if note is None:
            raise in_the_way(item)
        self._stale.add(item.target)
        return note["settings"] == self._settings and self._is_same(item.source, note)

    def _is_same(self, source: Path, note: Mapping[str, str]) -> bool:
        version = self._spool.versions.get(source)
        if version is None:
            return note["input_sha256"] == hash_file(source)
        return version != "" and note["input"] == version

    def note(self, item: Item, _stamp: Stamp | None, output: Path, input_sha256: str) -> None:
        """Puts a whole output in place, with its note.

        Raises:
            Lost: Another process makes it anew.
            AppearedError: Another process was first, or an object that is not ours has appeared.
            OutputError, NetworkError: See `objects.put`.
        """
        overwrite = self._force or item.target in self._stale
        if overwrite and self._claims is not None and not self._claims.holds(self._claim(item)):
            raise Lost
        note = {
            "input": self._spool.versions.get(item.source, ""),
            "input_sha256": input_sha256,
            "settings": self._settings,
            "by": f"{identity()}-{secrets.token_hex(4)}",
        }
        put(addressed(item.target), output, note=json.dumps(note), overwrite=overwrite)

    def has_lost(self, item: Item) -> bool:
        """Says whether another process has taken over an item that this one has claimed."""
        return self._claims is not None and self._claims.has_lost(self._claim(item))

    def release(self, item: Item) -> None:
        """Gives an item back, done or not, and removes its files from the spool."""
        if self._claims is not None:
            self._claims.release(self._claim(item))
        self._spool.drop(item.source)
        self._spool.drop(item.target)

    def _claim(self, item: Item) -> str:
        name = item.target.relative_to(self._spool.outputs).as_posix()
        return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]


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
