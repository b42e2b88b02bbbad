"""A file on the network, described, and whether it may be fetched. Light enough for every start of the program."""

from __future__ import annotations

import os
import re
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

from sr_upscale.errors import NetworkError


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


def require_online(url: str, remedy: str) -> None:
    """Refuses to go on where a file must be downloaded but connections are forbidden.

    It passes if connections may be opened, or if torch's own cache holds the file already.

    Args:
        url: Address of the file. Its last part is the name in the cache.
        remedy: What the user can do instead, for the message.

    Raises:
        NetworkError: The program is offline, and the cache does not hold the file.
    """
    if is_offline() and not in_torch_cache(url):
        raise NetworkError(f"{url}: offline (SR_UPSCALE_OFFLINE or --offline), and it is not in the cache; {remedy}")


def in_torch_cache(url: str) -> bool:
    """Says whether torch's own cache holds a file.

    Args:
        url: Address of the file. Its last part is the name in the cache.
    """
    import torch

    return (Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]).is_file()


def is_offline() -> bool:
    """Says whether ``SR_UPSCALE_OFFLINE`` forbids to open a connection."""
    return os.environ.get("SR_UPSCALE_OFFLINE", "0") not in ("", "0")


def note_of(part: Path) -> Path:
    """Returns where it is noted which file of which server `part`, a file on its way, belongs to."""
    return part.with_name(f"{part.name}.json")


def is_address(name: str) -> bool:
    """Says whether a name is an address, such as ``s3://bucket/photo.png``, and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def without_query(address: str) -> str:
    """Returns an address as it may be shown: what a signed one of https has behind ``?`` is a password."""
    return re.split("[?#]", address)[0] if address.startswith("https:") else address
