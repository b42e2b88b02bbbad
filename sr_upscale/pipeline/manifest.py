"""What was made from what: a line for every output, so that a second run does only what is missing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sr_upscale.errors import OutputError
from sr_upscale.formatting import shown
from sr_upscale.storage.atomic import open_own
from sr_upscale.storage.digest import hash_file

if TYPE_CHECKING:
    from sr_upscale.pipeline.batch_plan import BatchPlan, Item

MANIFEST = ".sr-upscale.jsonl"
"""Name of the manifest in the output folder. It holds one JSON object a line; the last one of an output and content
counts."""


class Manifest:
    """What was made from what, in the output folder. Lines are added whole; a torn last line is ignored.

    A line is written when a file is whole, before it takes its place. So whenever the process is killed, what stands
    there is known, be it the old file or the new one.

    Args:
        root: The output folder.
        settings: Everything besides the input that determines an output, ready for JSON.

    Raises:
        OutputError: A link or something else that is no regular file stands in its place.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self.path = root / MANIFEST
        self.root = root
        self.settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self.entries: dict[tuple[str, str], dict[str, Any]] = {}
        self._torn = False
        self._adding = threading.Lock()
        if os.path.lexists(self.path):
            with open_own(self.path, "rb") as file:
                text = file.read().decode(encoding="utf-8", errors="replace")
            self._torn = bool(text) and not text.endswith("\n")
            for line in text.splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                    entry = json.loads(line)
                    self.entries[entry["output"], entry["output_sha256"]] = entry

    def state(self, item: Item) -> Literal["absent", "current", "stale", "foreign"]:
        """Says what stands at the item's target.

        Returns:
            ``absent``: nothing. ``current``: what would come out. ``stale``: ours but out of date. ``foreign``: not
            ours, or changed.
        """
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
        """Notes that `output`, a whole file, is about to become the target of an item.

        Args:
            item: The item.
            output: File under its temporary name.
            input_sha256: Hash of the input that was read.
        """
        entry = {
            "output": self._key(item),
            "input": os.fsdecode(os.fspath(item.source)).encode("utf-8", "backslashreplace").decode(),
            "input_sha256": input_sha256,
            "output_sha256": hash_file(output),
            "settings": self.settings,
        }
        with self._adding, open_own(self.path, "ab") as file:  # one write of one line: runs cannot mix theirs
            file.write(b"\n" * self._torn + json.dumps(entry).encode() + b"\n")
            os.fsync(file.fileno())
            self._torn = False
            self.entries[entry["output"], entry["output_sha256"]] = entry

    def _key(self, item: Item) -> str:
        relative = os.path.relpath(item.target, self.root)
        return relative.encode("utf-8", "backslashreplace").decode()


def manifests_of(plan: BatchPlan, settings: Mapping[str, Any]) -> dict[Path, Manifest]:
    """Returns the manifest of each folder of outputs."""
    folders = {item.target.parent for item in plan.items}
    if plan.root is not None:
        return dict.fromkeys(folders, Manifest(plan.root, settings))
    return {folder: Manifest(folder, settings) for folder in folders}


def is_done(item: Item, manifests: Mapping[Path, Manifest], *, force: bool) -> bool:
    """Says whether there is nothing to do.

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
