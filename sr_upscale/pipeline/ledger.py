"""What is done and who does the rest: the manifest and the claims of each folder of outputs."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from sr_upscale.errors import OutputError
from sr_upscale.formatting import shown
from sr_upscale.interrupts import STOP
from sr_upscale.pipeline.batch_plan import BatchPlan, Item
from sr_upscale.pipeline.manifest import Manifest, Stamp
from sr_upscale.storage.atomic import remove_orphans
from sr_upscale.storage.claims import Claims, Lost

if TYPE_CHECKING:
    from sr_upscale.storage.objects import Spool

CLAIMS = ".sr-upscale.claims"
"""Name of the folder of claims in the output folder, while processes are at work."""
_MERGING = "0" * 32
"""Claim on the manifest's file."""
_POLL_S = 0.1


class Ledger:
    """The manifests and claims of a plan's folders, to be used in a ``with``.

    An existing target is done where the manifest says that it was made from this input with these settings and has not
    been touched since. It is made anew where the manifest knows it untouched but the input has changed. What was
    made with other settings, and a file that the manifest does not know, is never overwritten without `force`.

    Args:
        plan: Items and the manifest's folder.
        settings: Everything besides the input that determines an output, ready for JSON.
        force: Take every item, and overwrite also files that this program did not make.
        verify: Compare files by their hashes even where size and time are those of the manifest.
        spool: Holds the inputs that are objects; None where all are files.

    Raises:
        OutputError: A link or something else stands in the place of a manifest or of claims. Or outputs were made with
            other settings, and `force` is not given.
    """

    def __init__(
        self,
        plan: BatchPlan,
        settings: Mapping[str, Any],
        *,
        force: bool = False,
        verify: bool = False,
        spool: Spool | None = None,
    ) -> None:
        self.force, self._spool = force, spool
        self._folders = sorted({item.target.parent for item in plan.items})
        roots = self._folders if plan.root is None else [plan.root]
        self._claims = {root: Claims(root / CLAIMS) for root in roots}
        self._manifests = {
            root: Manifest(root, settings, verify=verify, at_work=claims.others, only_at_work=force, spool=spool)
            for root, claims in self._claims.items()
        }
        self._root = plan.root
        self._unknown_since: dict[Path, float] = {}
        others = [] if force else [item for item in plan.items if self._manifests[self._root_of(item)].is_other(item)]
        if others:
            raise made_otherwise(others[0], f"{len(others)} of {len(plan.items)} outputs would be replaced, such as ")

    def __enter__(self) -> Ledger:
        for folder in self._folders:
            remove_orphans(folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        with STOP.tidying(), contextlib.ExitStack() as closing:
            for root, claims in self._claims.items():
                closing.callback(claims.close)
                gone = claims.gone()
                if gone:
                    for folder in self._folders:
                        remove_orphans(folder, is_gone=gone.__contains__)
                    claims.clear(gone)
                with contextlib.suppress(OutputError, Lost):  # the parts stay, and are read like the file
                    self._merge(root)

    def take(self, item: Item) -> Literal["done", "busy", "taken"]:
        """Claims an item.

        Returns:
            ``done``: there is nothing to do. ``busy``: another process does it, or may have. ``taken``: it is this
            process's, until `release`.

        Raises:
            OutputError: Something is in the way that only `force` may overwrite.
            InputError: The input cannot be read.
        """
        claims = self._claims[self._root_of(item)]
        if (known := self._look(item)) is not None:
            return known
        if not claims.take(self._claim(item)):
            return "busy"
        try:  # it may have been done and given back before it was claimed
            known = self._look(item)
        except BaseException:
            self.release(item)
            raise
        if known is not None:
            self.release(item)
        return known or "taken"

    def note(self, item: Item, input_stamp: Stamp | None, output: Path, input_sha256: str) -> None:
        """Notes a whole output that is about to take its place; see `Manifest.add`.

        Raises:
            Lost: Another process has taken the item over.
        """
        root = self._root_of(item)
        if not self._claims[root].holds(self._claim(item)):
            raise Lost
        stamp = input_stamp if self._spool is None else self._spool.stamp(item.source)  # of what was fetched
        self._manifests[root].add(item, output, input_sha256, stamp)

    def has_lost(self, item: Item) -> bool:
        """Says whether another process has taken over an item that this one has claimed, with all that was begun."""
        return self._claims[self._root_of(item)].has_lost(self._claim(item))

    def release(self, item: Item) -> None:
        """Gives an item back, done or not, and removes its input from the spool."""
        self._claims[self._root_of(item)].release(self._claim(item))
        if self._spool is not None:
            self._spool.drop(item.source)

    def is_done(self, item: Item) -> bool:
        """Says whether there is nothing to do. It claims nothing and writes nothing.

        Raises:
            OutputError: Something is in the way that only `force` may overwrite.
        """
        state = self._manifests[self._root_of(item)].state(item)
        if state in ("other", "foreign") and not self.force:
            raise in_the_way(item) if state == "foreign" else made_otherwise(item)
        return state == "current"

    def _look(self, item: Item) -> Literal["done", "busy"] | None:
        root = self._root_of(item)
        state, newer = self._manifests[root].look(item)
        if state == "current":
            if newer is not None:
                self._manifests[root].write(item, newer)
            return "done"
        if state not in ("other", "foreign") or self.force:
            return None
        if state == "other":
            raise made_otherwise(item)
        claims, now = self._claims[root], time.monotonic()
        since = self._unknown_since.setdefault(item.target, now)
        if now - since < claims.lease_s and claims.others():
            return "busy"  # over a network their lines may come later than their files
        raise in_the_way(item)

    def _merge(self, root: Path) -> None:
        """Merges the manifest's parts, if nobody else is at work in the folder."""
        claims, manifest = self._claims[root], self._manifests[root]
        if not manifest.has_parts():
            return
        give_up = time.monotonic() + claims.lease_s
        while not claims.take(_MERGING):  # another one that ends now; it may have looked before this one's end
            if STOP.number or time.monotonic() > give_up:
                return
            time.sleep(_POLL_S)
        if claims.others():
            return

        def may_write() -> None:
            if not claims.holds(_MERGING):
                raise Lost

        manifest.merge(may_write)

    def _root_of(self, item: Item) -> Path:
        return item.target.parent if self._root is None else self._root

    def _claim(self, item: Item) -> str:
        return hashlib.sha256(self._manifests[self._root_of(item)].key(item).encode()).hexdigest()[:32]


def in_the_way(item: Item) -> OutputError:
    """Makes the error of an output that only ``--force`` may overwrite."""
    return OutputError(
        f"{shown(item.target)}: exists and was not made by this program, or was changed since; "
        "add --force to overwrite it, or choose another -o"
    )


def made_otherwise(item: Item, before: str = "") -> OutputError:
    """Makes the error of an output that other options or weights have made: another result, which stays."""
    return OutputError(
        f"{before}{shown(item.target)}: made with other options or weights; add --force to replace it, "
        "or choose another -o"
    )
