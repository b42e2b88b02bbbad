"""The models that are here or can be had, as rows ready for JSON, and what changes the cache. Does not import torch."""

from __future__ import annotations

import glob
import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_upscale.errors import ModelError, UsageError
from sr_upscale.formatting import mebibytes, shown
from sr_upscale.pretrained.registry import (
    CATALOGUE,
    DEFAULT_MODEL,
    TABLE,
    WEIGHTS_SUFFIXES,
    RemoteWeights,
    StoredWeights,
    added,
    added_folder,
    cached_path,
    catalogue_entry,
    known_names,
    resolve_weights,
    squashed,
    stored_entries,
)
from sr_upscale.pretrained.weights_file import read_info
from sr_upscale.storage.atomic import make_folder, output_error, replace_file

if TYPE_CHECKING:
    from sr_upscale.models.descriptor import Traits


def model_rows() -> list[dict[str, Any]]:
    """Lists ours, the catalogue, and what users added."""
    rows = [_ours(entry) for entry in TABLE] + [_remote(entry) for entry in CATALOGUE]
    return rows + [_added(name, path) for name, path in added().items()]


def format_rows(rows: Iterable[dict[str, Any]], *, tags: bool = False, width: int | None = None) -> list[str]:
    """Formats rows of models as lines.

    Args:
        rows: Of `model_rows` or `search`.
        tags: Whether to list the tags.
        width: Columns of the terminal; the purpose is wrapped onto lines of its own where they are too few.
    """
    lines = []
    for row in rows:
        size = mebibytes(row["bytes"]) if row["bytes"] else "missing"
        mark = "*" if row["default"] else "=" if row["built_in"] else "+" if row["installed"] else " "
        purpose = row["purpose"] + (f" [{', '.join(row['tags'])}]" if tags and row["tags"] else "")
        line = f"{mark} {row['name']:<33} x{row['scale'] or '?'}  {size:>8}  {row['license']:<12}"
        if width is None or len(line) + 1 + len(purpose) <= width:
            lines.append(f"{line} {purpose}")
        else:
            lines += [line.rstrip(), *textwrap.wrap(purpose, width, initial_indent="    ", subsequent_indent="    ")]
    marks = "* default family, = built in, + downloaded or added; others are downloaded when used"
    return [*lines, *(textwrap.wrap(marks, width) if width is not None else [marks])]


SCORES = {
    "psnr_y": ("PSNR", "on Y, in dB: higher is closer to the original"),
    "ssim_y": ("SSIM", "on Y, at most 1: higher is closer to the original"),
    "niqe": ("NIQE", "lower looks more natural"),
    "vgg19_distance": ("VGG19", "distance of features: lower looks more like the original"),
}
"""Scores of a card that `format_details` prints, with their headings and what they mean."""


def format_details(row: dict[str, Any], *, width: int | None = None) -> list[str]:
    """Formats a row of `model_row` as lines: its values, and a table of its scores beside bicubic's.

    Args:
        row: Of `model_row`.
        width: Columns of the terminal, into which long values are wrapped.
    """
    lines = []
    for key, value in row.items():
        if key in ("scores", "built_in") or value == []:
            continue
        text = _format_value(key, value)
        first, *more = textwrap.wrap(text, width - 14, break_long_words=False) if width and text else [text]
        lines += [f"{'size' if key == 'bytes' else key:<13} {first}", *(" " * 14 + line for line in more)]
    if scores := row.get("scores"):
        lines += ["", f"{'scores':<14}{'':<9}" + "".join(f"{heading:>9}" for heading, _meaning in SCORES.values())]
        for dataset, methods in scores.items():
            for label, name in (("bicubic", "bicubic"), ("model", row["name"])):
                if cells := "".join(f"{methods.get(name, {}).get(score, ''):>9}" for score in SCORES).rstrip():
                    lines.append(f"{dataset:<14}{label:<9}{cells}")
        lines += ["", *(f"{heading:<13} {meaning}" for heading, meaning in SCORES.values())]
    return lines


def _format_value(key: str, value: Any) -> str:
    if key == "bytes":
        return mebibytes(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return shown(", ".join(value) if isinstance(value, list) else str(value))


def search(terms: Iterable[str]) -> list[dict[str, Any]]:
    """Finds the models that match every term: in name, purpose, tags, architecture, licence or factor.

    Raises:
        ModelError: There is none.
    """
    wanted = [word.lower() for word in terms]
    found = [row for row in model_rows() if all(word in _searchable(row) for word in wanted)]
    if not found:
        tags = sorted({tag for entry in CATALOGUE for tag in entry.tags})
        raise ModelError(f"no model for {' '.join(wanted)!r}; there are {', '.join(tags)}")
    return found


def _searchable(row: dict[str, Any]) -> str:
    words = [
        row["name"],
        squashed(row["name"]),
        row["purpose"],
        *row["tags"],
        row.get("architecture", ""),
        row["license"],
    ]
    return " ".join([*words, f"x{row['scale']}", f"{row['scale']}x"]).lower()


def model_row(name: str) -> dict[str, Any]:
    """Returns all that is known of a model, without a download; of a family, its largest factor.

    Raises:
        ModelError: There is no such name and no such file, or the file cannot be used.
    """
    if (entry := catalogue_entry(name)) is not None:
        return _remote(entry)
    from sr_upscale.pretrained.load import traits_of

    path = resolve_weights(name)
    mine = stored_entries(name)
    row = _ours(mine[0]) if mine else _added(path.stem, path)
    traits = traits_of(path)
    row |= {"architecture": traits.architecture, "scale": traits.scale, "half": list(traits.half)}
    return row | ({"parameters": traits.parameters} if traits.parameters else {})


def _ours(entry: StoredWeights) -> dict[str, Any]:
    row = _row(entry.name, entry.scale, entry.purpose, entry.license, entry.path)
    row |= {"default": entry.family == DEFAULT_MODEL, "built_in": True, "bytes": 0}
    if row["installed"]:
        info = read_info(entry.path)
        row |= {"bytes": entry.path.stat().st_size, "data": info.data, "scores": info.scores}
    return row


def _remote(entry: RemoteWeights) -> dict[str, Any]:
    row = _row(entry.name, entry.scale, entry.purpose, entry.license, cached_path(entry))
    return row | {
        "bytes": entry.file.size,
        "tags": list(entry.tags),
        "architecture": entry.architecture,
        "url": entry.file.url,
        "sha256": entry.file.sha256,
    }


def _added(name: str, path: Path) -> dict[str, Any]:
    return _row(name, None, "added by you", "unknown", path) | {"bytes": path.stat().st_size}


def _row(name: str, scale: int | None, purpose: str, license_: str, path: Path) -> dict[str, Any]:
    return {
        "name": name,
        "scale": scale,
        "purpose": purpose,
        "license": license_,
        "installed": path.is_file(),
        "default": False,
        "built_in": False,
        "path": str(path),
        "tags": [],
    }


def verify() -> tuple[list[str], list[str]]:
    """Checks the bytes of all that is installed: downloads by their hash, the rest by loading it.

    Returns:
        Names of what is whole, and of what is damaged.
    """
    from sr_upscale.pretrained.load import module_of
    from sr_upscale.storage.atomic import hash_file

    good: list[str] = []
    bad: list[str] = []
    for entry in CATALOGUE:
        path = cached_path(entry)
        if path.is_file():
            (good if hash_file(path) == entry.file.sha256 else bad).append(entry.name)
    for name, path in {**{entry.name: entry.path for entry in TABLE}, **added()}.items():
        try:
            module_of(path)
        except ModelError:
            bad.append(name)
        else:
            good.append(name)
    return good, bad


def remove(name: str) -> None:
    """Deletes a model from the cache.

    Raises:
        UsageError: It is not there, or is one of ours.
        OutputError: It cannot be deleted.
    """
    entry = catalogue_entry(name)
    path = cached_path(entry) if entry is not None else added().get(name)
    if path is None or not path.is_file():
        known = "is built in" if stored_entries(name) else "is not in the cache"
        raise UsageError(f"{name} {known}; `sr-upscale models` marks with + what can be removed")
    try:
        path.unlink()
    except OSError as error:
        raise output_error(path, error) from error


def add(source: Path, label: str, *, force: bool) -> Traits:
    """Copies weights into the cache, after a look inside, so that `label` is their name.

    Args:
        source: A weights file.
        label: A plain name that no other model has.
        force: Take the place of other weights of that name.

    Returns:
        What is known of the network.

    Raises:
        UsageError: It is no weights file, or the name cannot be.
        ModelError: The file cannot be used.
        OutputError: The cache cannot be written.
    """
    from sr_upscale.pretrained.load import module_of, traits_of

    if source.suffix.lower() not in WEIGHTS_SUFFIXES or not source.is_file():
        raise UsageError(f"{shown(source)}: expected a file ending in {', '.join(WEIGHTS_SUFFIXES)}")
    taken = {squashed(name) for name in known_names() if name not in added()}
    if "/" in label or label.startswith(".") or squashed(label) in taken:
        raise UsageError(f"--name is {label!r}; expected a plain name that is not taken")
    if label in added() and not force:
        raise UsageError(f"{label} is there already; use --force, or another --name")
    traits = traits_of(source)
    module_of(source)
    target = added_folder() / f"{label}{source.suffix}"
    make_folder(target.parent)
    with replace_file(target) as temporary:
        shutil.copyfile(source, temporary)
    for old in target.parent.glob(f"{glob.escape(label)}.*"):
        if old != target and old.stem == label and old.suffix.lower() in WEIGHTS_SUFFIXES:
            old.unlink()  # -n would take it
    return traits
