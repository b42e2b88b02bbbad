"""A file on the network, described. The module is light enough for tables that every start of the program reads."""

from __future__ import annotations

import os
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file that is known before it is fetched.

    Attributes:
        url: Its address.
        size: Its size in bytes.
        sha256: Its SHA-256, hexadecimal.
        mirrors: Other addresses of the same file, tried in turn.
    """

    url: str
    size: int
    sha256: str
    mirrors: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """Returns the last part of the address, with %-escapes resolved."""
        return urllib.parse.unquote(Path(urllib.parse.urlsplit(self.url).path).name)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Returns the addresses to ask, in order, each once.

        ``SR_UPSCALE_MIRROR`` takes the place of scheme and host. The path stays.
        """
        urls = (self.url, *self.mirrors)
        mirror = os.environ.get("SR_UPSCALE_MIRROR", "").rstrip("/")
        if mirror:
            urls = tuple(mirror + urllib.parse.urlsplit(url).path for url in urls)
        return tuple(dict.fromkeys(urls))
