"""Files from the network: resumed where they stopped, checked against a pinned hash before they get their name.

What is on the way lies beside the target as ``NAME.part``, with ``NAME.part.json`` that says which file of which
server it belongs to. Nothing is ever called NAME that is not the pinned file, whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests
from filelock import FileLock

from sr_upscale.errors import IntegrityError, NetworkError
from sr_upscale.text import mebibytes

ATTEMPTS = 5
BACKOFF_S = (1.0, 2.0, 4.0, 8.0)
TIMEOUT_S = (10.0, 60.0)
"""Seconds to connect, and between two pieces of the answer."""
PIECE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file that is known before it is fetched: address, size in bytes, SHA-256 in hexadecimal."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The last part of the address."""
        return urllib.parse.unquote(Path(urllib.parse.urlsplit(self.url).path).name)


def address(file: RemoteFile) -> str:
    """Where to fetch it: ``SR_UPSCALE_MIRROR`` takes the place of scheme and host, the path stays."""
    mirror = os.environ.get("SR_UPSCALE_MIRROR", "").rstrip("/")
    return mirror + urllib.parse.urlsplit(file.url).path if mirror else file.url


def fetch(
    file: RemoteFile, target: Path, *, on_progress: Callable[[float, str], None] = lambda _share, _words: None
) -> Path:
    """Downloads a file, or goes on with a download that was cut off; does nothing if `target` is there.

    Args:
        file: What it must be.
        target: Where it goes.
        on_progress: Called with the finished share (0 to 1) and a few words.

    Raises:
        NetworkError: The server cannot be reached, keeps failing, or does not have the file; the rest stays for later.
        IntegrityError: What came is not the pinned file; it is removed.
    """
    if target.exists():
        return target
    url = address(file)
    if os.environ.get("SR_UPSCALE_OFFLINE"):
        raise NetworkError(f"{url}: SR_UPSCALE_OFFLINE is set; unset it, or put the file at {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with FileLock(f"{part}.lock"):
        if target.exists():  # another process was faster
            return target
        _fetch_part(url, file, part, on_progress)
        found = _sha256(part)
        if found != file.sha256:
            part.unlink()
            raise IntegrityError(
                f"{url}: sha256 is {found}, expected {file.sha256}; it was removed: the server, or "
                "something on the way, changed the file; try again, or another SR_UPSCALE_MIRROR"
            )
        part.replace(target)
        _sidecar(part).unlink(missing_ok=True)
    return target


def _fetch_part(url: str, file: RemoteFile, part: Path, on_progress: Callable[[float, str], None]) -> None:
    """Fills `part` up to the file's size, over several attempts."""
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF_S[attempt - 1])
        if part.exists() and part.stat().st_size >= file.size:
            return
        try:
            _continue(url, file, part, on_progress)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            problem = type(error).__name__
            continue
        except _ServerError as error:
            problem = str(error)
            continue
        except requests.RequestException as error:
            raise NetworkError(f"{url}: {error}; check the address and SR_UPSCALE_MIRROR") from error
        if part.stat().st_size >= file.size:
            return
        problem = f"the answer ended after {part.stat().st_size} of {file.size} bytes"
    raise NetworkError(f"{url}: {problem}, {ATTEMPTS} times; what has come is kept, run the command again")


class _ServerError(Exception):
    """The server may answer better later."""


def _continue(url: str, file: RemoteFile, part: Path, on_progress: Callable[[float, str], None]) -> None:
    have, headers = _resumable(part, file)
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if answer.status_code == 429 or answer.status_code >= 500:
            raise _ServerError(f"the server answers {answer.status_code}")
        if answer.status_code >= 400:
            raise NetworkError(f"{url}: the server answers {answer.status_code} {answer.reason}; check the address")
        if answer.status_code != 206:  # the server does not resume, or has another file now
            have = 0
        if have == 0:
            _sidecar(part).write_text(json.dumps({"sha256": file.sha256, "etag": answer.headers.get("ETag", "")}))
        answer.raw.enforce_content_length = False  # or what came of a torn answer would be thrown away
        with part.open("r+b" if have else "wb") as out:
            out.truncate(have)
            out.seek(have)
            for piece in answer.iter_content(PIECE):
                have += len(piece)
                if have > file.size:
                    raise NetworkError(f"{url}: more than the {file.size} bytes that were expected; check the address")
                out.write(piece)
                on_progress(have / file.size, f"{file.name}, {mebibytes(file.size)}")


def _resumable(part: Path, file: RemoteFile) -> tuple[int, dict[str, str]]:
    """Bytes that can be kept, and the headers that ask for the rest of the same file."""
    plain = {"Accept-Encoding": "identity"}
    try:
        note = json.loads(_sidecar(part).read_text(encoding="utf-8"))
        have = part.stat().st_size
    except (OSError, ValueError):
        return 0, plain
    etag = note.get("etag", "")
    if note.get("sha256") != file.sha256 or not 0 < have < file.size or not etag or etag.startswith("W/"):
        return 0, plain
    return have, {**plain, "Range": f"bytes={have}-", "If-Range": etag}


def _sidecar(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
