"""Files from the network: resumed where they stopped, checked against a pinned hash before they get their name.

What is on the way lies beside the target as ``NAME.part``. ``NAME.part.json`` says which file of which server it
belongs to. Both are under a lock. Nothing is ever called NAME that is not the pinned file, whole. Where locks do not
work (some network file systems), everyone fetches under a name of their own: that costs bandwidth and nothing else.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import re
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import filelock
import requests
import urllib3.exceptions

from sr_upscale.errors import IntegrityError, NetworkError
from sr_upscale.formatting import mebibytes
from sr_upscale.storage.atomic import open_own, output_error
from sr_upscale.storage.digest import hash_file
from sr_upscale.storage.remote import RemoteFile, is_offline

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between attempts that made no progress. A server's Retry-After takes the place of a shorter wait."""
LONGEST_WAIT_S = 120.0
"""Seconds. A server that asks for a longer wait is given up."""
TIMEOUT_S = (10.0, 30.0)
"""Seconds to connect, and between two pieces of an answer."""
FLOOR_BYTES_PER_S, FLOOR_WINDOW_S = 1024, 30.0
"""Bytes a second, and seconds. A connection that brings less over so long is dropped.

A read timeout would not do: a server that drips never meets one.
"""
PROGRESS_BYTES = 1 << 20
"""Bytes. An attempt that brought so many starts the count of attempts again."""
MAX_REDIRECTS = 5
PIECE = 1 << 18
ORPHAN_AGE_S = 86_400.0

TOKENS: Mapping[str, str] = {"huggingface.co": "HF_TOKEN", "github.com": "GITHUB_TOKEN"}
"""Environment variables that hold a token, by host. A token is sent to its host alone."""

Report = Callable[[float, str], None]
"""Called with the finished share (0 to 1) and a few words."""


def fetch(file: RemoteFile, target: Path, *, on_progress: Report = lambda _share, _words: None) -> Path:
    """Downloads a file, or goes on with a download that was cut off. Does nothing if `target` is there.

    Args:
        file: Its addresses, its size and its hash.
        target: Where it goes. Its folder is made.
        on_progress: See `Report`.

    Returns:
        `target`.

    Raises:
        NetworkError: The program is offline, no address could be reached, or all refused. What has come stays for the
            next attempt.
        IntegrityError: What came is not the pinned file. A file with another hash was removed.
        OutputError: The folder cannot be written, or the disk is full.
    """
    if target.exists():
        return target
    if is_offline():
        raise NetworkError(
            f"{file.addresses[0]}: offline (SR_UPSCALE_OFFLINE or --offline), and {target} is not there; "
            f"go online once, or put the file there"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(target)
        with _part_of(target) as part:
            if not target.exists():  # another process may have been faster
                _fetch_from_any(file, part, on_progress)
                part.replace(target)
                _note_of(part).unlink(missing_ok=True)
    except OSError as error:
        raise output_error(target, error) from error
    return target


# --- names on the way -------------------------------------------------------------------------------


@contextlib.contextmanager
def _part_of(target: Path) -> Iterator[Path]:
    """Yields ``NAME.part``, for one process at a time. Where there are no locks, the name is this process's own."""
    shared = target.with_name(f"{target.name}.part")
    lock = filelock.FileLock(f"{shared}.lock")
    try:
        lock.acquire()
    except (OSError, NotImplementedError):
        own = target.with_name(f"{target.name}.part.{uuid.uuid4().hex}")
        try:
            yield own
        finally:
            own.unlink(missing_ok=True)
            _note_of(own).unlink(missing_ok=True)
        return
    try:
        yield shared
    finally:
        lock.release()


def _note_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _remove_orphans(target: Path) -> None:
    """Removes parts that nobody needs any more and that are older than `ORPHAN_AGE_S`.

    Those are own-name parts of processes that died, and parts of files that are there already.
    """
    for path in target.parent.glob("*.part.*"):
        stem = path.name.split(".part.")[0]
        done = (target.parent / stem).exists()
        unique = re.fullmatch(r"[0-9a-f]{32}(\.json)?", path.name[len(stem) + 6 :]) is not None
        with contextlib.suppress(OSError):
            if (unique or done) and time.time() - path.stat().st_mtime > ORPHAN_AGE_S:
                path.unlink()


# --- attempts ---------------------------------------------------------------------------------------


class _Again(Exception):
    """An attempt failed, and may work in a moment.

    Attributes:
        wait_s: Seconds that the server asks to wait; 0 where it asks for none.
    """

    def __init__(self, problem: str, *, wait_s: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


def _fetch_from_any(file: RemoteFile, part: Path, on_progress: Report) -> None:
    """Fills `part` with the file, from the first address that has it."""
    problems: list[NetworkError | IntegrityError] = []
    for url in file.addresses:
        try:
            _fetch_from(url, file, part, on_progress)
            _check(url, file, part)
            return
        except (NetworkError, IntegrityError) as error:
            problems.append(error)
    kind = IntegrityError if any(isinstance(each, IntegrityError) for each in problems) else NetworkError
    raise kind("; ".join(map(str, problems))) from problems[-1]


def _check(url: str, file: RemoteFile, part: Path) -> None:
    found = hash_file(part)
    if found != file.sha256:
        part.unlink()
        raise IntegrityError(
            f"{file.name}: expected sha256 {file.sha256}, got {found}, from {url}; it was removed: something on "
            "the way changed it, try again or another SR_UPSCALE_MIRROR"
        )
    with part.open("rb") as content:
        os.fsync(content.fileno())


def _fetch_from(url: str, file: RemoteFile, part: Path, on_progress: Report) -> None:
    """Fills `part` up to the file's size, over several attempts at one address."""
    failures = 0
    while not (part.exists() and part.stat().st_size == file.size):
        before = part.stat().st_size if part.exists() else 0
        try:
            _continue(url, file, part, on_progress)
            continue
        except _Again as again:
            problem, wait_s = str(again), again.wait_s
        after = part.stat().st_size if part.exists() else 0
        failures = 1 if after - before >= PROGRESS_BYTES else failures + 1
        if failures > len(BACKOFF_S):
            raise NetworkError(f"{url}: {problem}, {failures} times; what has come is kept, run the command again")
        if wait_s > LONGEST_WAIT_S:
            raise NetworkError(f"{url}: {problem} and asks to come back in {wait_s:.0f} s; do that")
        time.sleep(max(wait_s, BACKOFF_S[failures - 1]))


def _continue(url: str, file: RemoteFile, part: Path, on_progress: Report) -> None:
    """Sends one request and writes what comes of it to `part`.

    Raises:
        _Again: The connection broke, or the server is busy.
        NetworkError: It will not work at this address.
        IntegrityError: The address holds a file of another size.
    """
    have, headers = _resumable(part, file)
    with _session() as session, _open(session, url, headers) as answer:
        if answer.status_code == 416:  # the range lies outside: whatever we have is not of this file
            part.unlink(missing_ok=True)
            raise _Again("the server does not have the range")
        _refuse_status(url, answer)
        if answer.status_code != 206:
            have = 0  # the server ignores ranges, or the file changed: from the start
        elif not _fits(answer.headers.get("Content-Range", ""), have, file.size):
            part.unlink(missing_ok=True)
            raise _Again(f"the server sends another range ({answer.headers.get('Content-Range')})")
        length = answer.headers.get("Content-Length", "")
        if length.isdecimal() and have + int(length) != file.size:
            raise IntegrityError(
                f"{file.name}: expected {file.size} bytes, got {have + int(length)}, from {url}; this is another file "
                "(a log-in page?): open the address in a browser, or set another SR_UPSCALE_MIRROR"
            )
        if have == 0:
            note = {"sha256": file.sha256, "etag": answer.headers.get("ETag", "")}
            _note_of(part).write_text(json.dumps(note), encoding="utf-8")
        with open_own(part, "r+b" if have else "wb") as out:
            out.truncate(have)
            out.seek(have)
            for piece in _pieces(answer):
                have += len(piece)
                if have > file.size:
                    raise IntegrityError(f"{file.name}: more than the expected {file.size} bytes from {url}")
                out.write(piece)
                on_progress(have / file.size, f"{file.name}, {mebibytes(file.size)}")
    if have < file.size:
        raise _Again(f"the answer ended after {have} of {file.size} bytes")


def _resumable(part: Path, file: RemoteFile) -> tuple[int, dict[str, str]]:
    """Returns how many bytes can be kept, and the headers that ask for the rest of the same file."""
    plain = {"Accept-Encoding": "identity"}  # compressed on the way, bytes could not be counted
    try:
        note = json.loads(_note_of(part).read_text(encoding="utf-8"))
        have = part.stat().st_size
    except (OSError, ValueError):
        return 0, plain
    etag = note.get("etag", "")
    if note.get("sha256") != file.sha256 or not 0 < have < file.size or not etag or etag.startswith("W/"):
        return 0, plain
    return have, {**plain, "Range": f"bytes={have}-", "If-Range": etag}


def _fits(content_range: str, start: int, size: int) -> bool:
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range.strip())
    return match is not None and int(match[1]) == start and match[3] in ("*", str(size))


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    """Yields the body as it arrives. A break keeps what came before it."""
    answer.raw.enforce_content_length = False  # the length is checked by the caller, who keeps what came
    begin, received = time.monotonic(), 0
    while True:
        try:
            piece = answer.raw.read1(PIECE)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Again(f"the connection broke ({type(error).__name__})") from error
        if not piece:
            return
        yield piece
        received += len(piece)
        passed = time.monotonic() - begin
        if passed >= FLOOR_WINDOW_S:
            if received < FLOOR_BYTES_PER_S * passed:
                raise _Again(f"the server is slower than {FLOOR_BYTES_PER_S} bytes a second")
            begin, received = time.monotonic(), 0


# --- requests ---------------------------------------------------------------------------------------


def _session() -> requests.Session:
    """Opens a session that honours the environment's proxies and certificates.

    The variables are HTTP_PROXY, HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and SSL_CERT_FILE.
    """
    session = requests.Session()
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle and not (os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")):
        session.verify = bundle
    return session


@contextlib.contextmanager
def _open(session: requests.Session, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    """Yields the answer after redirects. Its body is not yet read."""
    at = url
    for _ in range(MAX_REDIRECTS + 1):
        answer = _get(session, at, {**headers, **_authorisation(at)})
        with answer:
            if not answer.is_redirect:
                yield answer
                return
            after = urllib.parse.urljoin(at, answer.headers["Location"])
        schemes = [urllib.parse.urlsplit(each).scheme for each in (at, after)]
        if schemes[1] not in ("http", "https") or schemes == ["https", "http"]:
            raise NetworkError(f"{url}: redirects from {schemes[0]} to {after}; refused, set another SR_UPSCALE_MIRROR")
        at = after
    raise NetworkError(f"{url}: more than {MAX_REDIRECTS} redirects; check the address")


def _authorisation(url: str) -> dict[str, str]:
    """Returns the header with the token for the host of this very request, or none.

    After a redirect to another host the token is not sent.
    """
    host = urllib.parse.urlsplit(url).hostname or ""
    token = os.environ.get(TOKENS.get(host, ""), "") if host in TOKENS else ""
    return {"Authorization": f"Bearer {token}"} if token else {}


def _get(session: requests.Session, url: str, headers: Mapping[str, str]) -> requests.Response:
    try:
        return session.get(url, headers=dict(headers), stream=True, timeout=TIMEOUT_S, allow_redirects=False)
    except requests.exceptions.SSLError as error:
        raise NetworkError(
            f"{url}: its certificate is not trusted ({_reason(error)}); "
            "if your network has a certificate of its own, name its file in REQUESTS_CA_BUNDLE"
        ) from error
    except requests.exceptions.ProxyError as error:
        raise NetworkError(f"{url}: the proxy refuses ({_reason(error)}); check HTTPS_PROXY and its log-in") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _Again(f"no connection ({_reason(error)})") from error
    except (requests.RequestException, OSError) as error:  # OSError: a CA bundle that is not there
        raise NetworkError(f"{url}: {error}; check the address, SR_UPSCALE_MIRROR and REQUESTS_CA_BUNDLE") from error


def _reason(error: Exception) -> str:
    """Gives the innermost cause in a few words."""
    words = str(error)
    found = re.findall(r"(\b407[^'\")]*|\[Errno -?\d+\] [^'\")]*|certificate[^'\")]*|timed out)", words)
    return found[-1].strip() if found else type(error).__name__


def _refuse_status(url: str, answer: requests.Response) -> None:
    code = answer.status_code
    if code == 429 or code >= 500:
        raise _Again(f"the server answers {code} {answer.reason}", wait_s=_retry_after(answer))
    if code in (401, 403):
        variable = TOKENS.get(urllib.parse.urlsplit(answer.url).hostname or "", "")
        advice = f"set {variable} to a token of yours" if variable else "the file is not public: set another mirror"
        raise NetworkError(f"{url}: the server answers {code} {answer.reason}; {advice}")
    if code == 407:
        raise NetworkError(f"{url}: the proxy asks for a log-in (407); put user:password@ into HTTP_PROXY")
    if code not in (200, 206):
        raise NetworkError(f"{url}: the server answers {code} {answer.reason}; the file is not there any more")


def _retry_after(answer: requests.Response) -> float:
    """Returns the seconds that the server asks to wait, 0 where it asks for none. The header holds them, or a date."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
