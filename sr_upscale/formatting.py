"""Names of files, durations and sizes as they may be shown in one line of a terminal, and read from one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath

from sr_upscale.errors import SrUpscaleError, UsageError

_ADDRESSES: dict[str, str] = {}
"""Addresses that folders of this process stand for, by their paths; both end where a name begins."""


def shown(path: PurePath | str) -> str:
    """Returns a path, or its address, for people: control characters and undecodable bytes escaped, nothing else."""
    text = addressed(path)
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def extra(name: str) -> str:
    """Says how to install an extra, as this program was installed: by pipx, uv or pip, from its clone."""
    from importlib import metadata
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    clone = ""
    with contextlib.suppress(metadata.PackageNotFoundError, ValueError):
        noted = metadata.distribution("sr-upscale").read_text("direct_url.json") or '{"url": ""}'
        url = urlsplit(json.loads(noted)["url"])
        clone = url2pathname(url.path) if url.scheme == "file" else ""
    parts = Path(sys.prefix).parts
    tool = "pipx install --force" if "pipx" in parts else "uv tool install" if "uv" in parts else "pip install"
    where = shown(clone) if clone and os.path.isdir(clone) else "a clone of sr-upscale"
    return f"run `{tool} '.[{name}]'` in {where}"


@contextlib.contextmanager
def needing(name: str, what: str, kind: type[SrUpscaleError] = UsageError) -> Iterator[None]:
    """Refuses what needs an extra that is not installed.

    Args:
        name: The extra; what stands in the block imports it.
        what: Begin of the message, before how to install it.
        kind: The error.
    """
    try:
        yield
    except ImportError as error:
        raise kind(f"{what}; {extra(name)}") from error


def addressed(path: PurePath | str) -> str:
    """Returns the address that a file stands for (`show_as`), or its path."""
    text = os.fspath(path)
    for folder, address in _ADDRESSES.items():
        if f"{text}{os.sep}".startswith(folder):
            return address + text[len(folder) :].replace(os.sep, "/")
    return text


def show_as(folder: PurePath, address: str | None) -> None:
    """Has the files of a folder shown under an address, which they stand for; None ends it."""
    _ADDRESSES.pop(f"{folder}{os.sep}", None)
    if address is not None:
        _ADDRESSES[f"{folder}{os.sep}"] = f"{address.rstrip('/')}/"


def duration(seconds: float) -> str:
    """Formats seconds as ``0.4 s``, ``12 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def mebibytes(size: float) -> str:
    """Formats a number of bytes as ``12 MiB`` or ``1.5 GiB``."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def shortened(text: str, length: int = 60) -> str:
    """Cuts a long text, so that an error stays a line."""
    return text if len(text) <= length else f"{text[:length]}..."


def parse_duration(text: str, option: str = "--max-time") -> float:
    """Parses a duration: ``90``, ``45m``, ``1h30m``, ``20s``. A bare number is seconds.

    Args:
        text: The duration.
        option: Whose value it is, for the message.

    Returns:
        Seconds.

    Raises:
        UsageError: The text is no duration.
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not text.strip() or match is None:
        raise UsageError(f"{option} is {text!r}; expected a duration such as 45m, 1h30m or 600")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds
