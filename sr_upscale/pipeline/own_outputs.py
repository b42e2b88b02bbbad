"""Pictures that an earlier run made, found among the inputs of the next."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from sr_upscale.errors import InputError, OutputError
from sr_upscale.pipeline.manifest import Entry, Manifest, stamp_of
from sr_upscale.storage.atomic import hash_file

_LABEL = re.compile(r"_(?:x\d+(?:\.\d+)?|[wh]\d+|\d+x\d+)(?=_.)")
"""What `targets.output_label` puts between the stem of a picture and the name of a model."""

_HISTORY = b'softwareAgent="sr-upscale '
"""What an output's XMP says (`images.xmp`)."""

_CHUNK = 1 << 20


def made_beside_others(sources: Sequence[Path]) -> set[Path]:
    """Finds pictures that runs of one picture made from others of the same batch: such runs leave no manifest.

    They have the name that an output gets when nobody chooses one, such as ``photo_x4_photo-x4.jpg`` beside
    ``photo.jpg``, and a line of ours in their XMP. BMP and GIF have no XMP, and are not found.

    Args:
        sources: Pictures of a batch.
    """
    labelled = {source: [*_LABEL.finditer(source.stem)] for source in sources if _LABEL.search(source.name)}
    stems = {(source.parent, source.stem) for source in sources} if labelled else set()
    return {
        source
        for source, labels in labelled.items()
        if any((source.parent, source.stem[: label.start()]) in stems for label in labels) and _has_history(source)
    }


def _has_history(path: Path) -> bool:
    if not path.is_file():
        return False
    before = b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                if _HISTORY in before + chunk:
                    return True
                before = chunk[-len(_HISTORY) :]
    except OSError:  # it fails as an item
        pass
    return False


def made_from_others(sources: Sequence[Path]) -> set[Path]:
    """Finds pictures that were made from others of the same batch, as a manifest beside or above them says.

    Both must still be what the manifest says: a picture that was edited since is one of its owner's.

    Args:
        sources: Pictures of a batch.
    """
    by_path = {os.path.abspath(source): source for source in sources}
    hash_of, of_size = functools.cache(_hash_or_nothing), functools.cache(lambda: _by_size(sources))
    made = set()
    for folder in _folders(by_path):
        for output, of_output in _entries(folder):
            found = by_path.get(os.path.normpath(os.path.join(folder, output)))
            entry = of_output.get(hash_of(found)) if found else None
            if found is None or entry is None:
                continue
            origins = of_size()[entry.input_stamp[0]] if entry.input_stamp else sources
            if any(each != found and hash_of(each) == entry.input_sha256 for each in origins):
                made.add(found)
    return made


def _by_size(sources: Sequence[Path]) -> defaultdict[int, list[Path]]:
    found: defaultdict[int, list[Path]] = defaultdict(list)
    for source in sources:
        if (stamp := stamp_of(source)) is not None:
            found[stamp[0]].append(source)
    return found


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


def _entries(folder: str) -> Iterator[tuple[str, dict[str, Entry]]]:
    with contextlib.suppress(OSError, OutputError):  # one that is not ours says nothing
        yield from Manifest(Path(folder), {}).entries.items()


def _hash_or_nothing(path: Path) -> str:
    try:
        return hash_file(path)
    except InputError:  # it fails as an item
        return ""
