"""Pictures that an earlier run made, found among the inputs of the next."""

from __future__ import annotations

import contextlib
import functools
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from sr_upscale.errors import InputError, OutputError
from sr_upscale.pipeline.manifest import MANIFEST, Manifest
from sr_upscale.storage.digest import hash_file


def made_from_others(sources: Sequence[Path]) -> set[Path]:
    """Finds pictures that were made from others of the same batch, as a manifest beside or above them says.

    Both must still be what the manifest says: a picture that was edited since is one of its owner's.

    Args:
        sources: Pictures of a batch.
    """
    by_path = {os.path.abspath(source): source for source in sources}
    by_name: defaultdict[str, list[Path]] = defaultdict(list)
    for source in sources:
        by_name[source.name].append(source)
    hash_of = functools.cache(_hash_or_nothing)
    made = set()
    for folder in _folders(by_path):
        for (output, sha256), entry in _entries(folder):
            found = by_path.get(os.path.normpath(os.path.join(folder, output)))
            origins = [each for each in by_name[os.path.basename(str(entry.get("input")))] if each != found]
            if found is None or not origins or hash_of(found) != sha256:
                continue
            if any(hash_of(each) == entry.get("input_sha256") for each in origins):
                made.add(found)
    return made


def _folders(paths: dict[str, Path]) -> set[str]:
    """Finds the folders of pictures, and those above them as far as all of them have in common."""
    folders = {os.path.dirname(path) for path in paths}
    try:
        top = os.path.commonpath(folders)
    except ValueError:  # of none, or on several drives
        top = ""
    found = set()
    for folder in folders:
        while folder not in found:
            found.add(folder)
            folder = folder if folder == top else os.path.dirname(folder)
    return found


def _entries(folder: str) -> Iterator[tuple[tuple[str, str], dict[str, object]]]:
    if os.path.lexists(os.path.join(folder, MANIFEST)):
        with contextlib.suppress(OSError, OutputError):  # one that is not ours says nothing
            yield from Manifest(Path(folder), {}).entries.items()


def _hash_or_nothing(path: Path) -> str:
    try:
        return hash_file(path)
    except InputError:  # it fails as an item
        return ""
