"""Models that a command line names, downloaded before they are used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sr_upscale.cli.console import Console
from sr_upscale.errors import UsageError
from sr_upscale.formatting import mebibytes
from sr_upscale.pipeline.request import NetworkOptions
from sr_upscale.pretrained.registry import DEFAULT_MODEL, cached_path, catalogue_entry, resolve_weights
from sr_upscale.storage.remote import is_offline


def obtain(name: str, console: Console) -> Path:
    """Finds the file of a model. One of the catalogue is downloaded if it is missing, after its licence is printed.

    Raises:
        ModelError: There is no such name and no such file.
        NetworkError, IntegrityError, OutputError: The download failed.
    """
    entry = catalogue_entry(name)
    if entry is None or cached_path(entry).is_file() or is_offline():
        return resolve_weights(name)
    host = entry.file.addresses[0].split("/")[2]
    console.note(f"{entry.name}: licence {entry.license}; downloading {mebibytes(entry.file.size)} from {host}")
    with console.progress(entry.name) as report:
        return resolve_weights(name, on_progress=report)


def obtain_models(network: NetworkOptions, console: Console, *, dry_run: bool = False) -> None:
    """Downloads the models of a request that are missing.

    Raises:
        UsageError: A dry run needs a download; the message names it.
        NetworkError, IntegrityError, OutputError: A download failed.
    """
    for name in (network.model, *network.before):
        entry = catalogue_entry(name)
        if dry_run and entry is not None and not cached_path(entry).is_file():
            raise UsageError(f"a dry run downloads nothing; `sr-upscale models download {entry.name}` first")
        if entry is not None:
            obtain(name, console)


def split(values: Sequence[str]) -> list[str]:
    """Splits the values of an option that may be repeated or contain commas."""
    return [word for value in values for word in value.split(",") if word]


def obtain_named(values: Sequence[str] | None, console: Console) -> list[str]:
    """Names the models of an option that may be repeated or contain commas, and downloads those that are missing.

    Bicubic and our default are taken if none was named.

    Raises:
        NetworkError, IntegrityError, OutputError: A download failed.
    """
    names = split(values or ["bicubic", DEFAULT_MODEL])
    for name in names:
        if catalogue_entry(name) is not None:
            obtain(name, console)
    return names
