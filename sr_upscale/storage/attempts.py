"""The bytes of a pinned file, over as many requests as it takes, into its part.

Whatever a server does, there is an end: failures are counted, and so is everything that it sends.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import requests
import urllib3.exceptions

from sr_upscale.errors import IntegrityError, NetworkError, OutputError
from sr_upscale.formatting import mebibytes, shortened
from sr_upscale.storage.atomic import hash_file, open_own
from sr_upscale.storage.connections import Floor, TooSlowError, open_session
from sr_upscale.storage.remote import RemoteFile, note_of

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between attempts that made no progress. A server's Retry-After takes the place of a shorter wait."""
LONGEST_WAIT_S = 120.0
"""Seconds. A server that asks for a longer wait is given up."""
TIMEOUT_S = (10.0, 30.0)
"""Seconds to connect, and between two pieces of an answer."""
PROGRESS_BYTES = 1 << 20
"""Bytes more than ever before. They start the count of failures again."""
PATIENCE = 2
"""Times the size of a file. A server that has sent so much without the file being there is given up."""
NOTE_BYTES = 4096
MAX_REDIRECTS = 5
PIECE = 1 << 18

TOKENS: Mapping[str, str] = {"huggingface.co": "HF_TOKEN", "github.com": "GITHUB_TOKEN"}
"""Environment variables that hold a token, by host. A token is sent to its host alone."""

# --- attempts ---------------------------------------------------------------------------------------


class _Again(Exception):
    """An attempt failed, and may work in a moment.

    Attributes:
        wait_s: Seconds that the server asks to wait; 0 where it asks for none.
    """

    def __init__(self, problem: str, *, wait_s: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


def fetch_from_any(file: RemoteFile, part: Path, on_progress: Callable[[float, str], None]) -> None:
    """Fills `part` with the file, from the first address that has it.

    Args:
        file: Its addresses, its size and its hash.
        part: What is there of it already. `note_of` says of which file it is.
        on_progress: Called with the finished share (0 to 1) and a short title.

    Raises:
        NetworkError: No address could be reached, or all refused. What has come stays in `part`.
        IntegrityError: What came is not the pinned file. A file with another hash was removed.
        OSError, OutputError: `part` cannot be written.
    """
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
    with part.open("r+b") as content:  # Windows flushes only what may be written
        os.fsync(content.fileno())


def _fetch_from(url: str, file: RemoteFile, part: Path, on_progress: Callable[[float, str], None]) -> None:
    """Fills `part` up to the file's size, over several attempts at one address."""
    failures = received = 0
    most = _size_of(part)

    def on_piece(count: int, have: int) -> None:
        nonlocal received
        received += count
        if received > PATIENCE * file.size:
            raise NetworkError(
                f"{url}: sent {mebibytes(received)} of a file of {mebibytes(file.size)}, and never the whole of it; "
                "set another SR_UPSCALE_MIRROR"
            )
        on_progress(have / file.size, f"{file.name}, {mebibytes(file.size)}")

    while _size_of(part) != file.size:
        try:
            _continue(url, file, part, on_piece)
            continue
        except _Again as again:
            problem, wait_s = str(again), again.wait_s
        failures += 1
        if _size_of(part) - most >= PROGRESS_BYTES:
            failures, most = 1, _size_of(part)
        if failures > len(BACKOFF_S):
            raise NetworkError(f"{url}: {problem}, {failures} times; what has come is kept, run the command again")
        if wait_s > LONGEST_WAIT_S:
            raise NetworkError(f"{url}: {problem} and asks to come back in {wait_s:.0f} s; do that")
        time.sleep(max(wait_s, BACKOFF_S[failures - 1]))


def _size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _continue(url: str, file: RemoteFile, part: Path, on_piece: Callable[[int, int], None]) -> None:
    """Sends one request and writes what comes of it to `part`.

    Args:
        url: Address to ask.
        file: What is expected there.
        part: What is there of it already.
        on_piece: Called with the bytes of each piece that came, and of all that is there.

    Raises:
        _Again: The connection broke, or the server is busy.
        NetworkError: It will not work at this address.
        IntegrityError: The address holds a file of another size.
    """
    have, headers = _resumable(part, file)
    floor = Floor()
    with open_session(floor) as session, _open(session, url, headers) as answer:
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
        if length.isdecimal() and length.lstrip("0") != str(file.size - have):
            raise IntegrityError(
                f"{file.name}: expected {file.size - have} bytes, got {shortened(length)}, from {url}; this is another "
                "file (a log-in page?): open the address in a browser, or set another SR_UPSCALE_MIRROR"
            )
        if have == 0:
            note = {"sha256": file.sha256, "etag": answer.headers.get("ETag", "")}
            with open_own(note_of(part), "wb") as out:
                out.write(json.dumps(note).encode())
        with open_own(part, "r+b" if have else "wb") as out:
            out.truncate(have)
            out.seek(have)
            for piece in _pieces(answer, floor):
                have += len(piece)
                if have > file.size:
                    raise IntegrityError(f"{file.name}: more than the expected {file.size} bytes from {url}")
                out.write(piece)
                on_piece(len(piece), have)
    if have < file.size:
        raise _Again(f"the answer ended after {have} of {file.size} bytes")


def _resumable(part: Path, file: RemoteFile) -> tuple[int, dict[str, str]]:
    """Returns how many bytes can be kept, and the headers that ask for the rest of the same file."""
    plain = {"Accept-Encoding": "identity"}  # compressed on the way, bytes could not be counted
    have = _size_of(part)
    etag = _etag_of(part, file)
    if not 0 < have < file.size or not etag:
        return 0, plain
    return have, {**plain, "Range": f"bytes={have}-", "If-Range": etag}


def _etag_of(part: Path, file: RemoteFile) -> str | None:
    """Returns the strong ETag of which `part` is; None where the note beside it says none, or nothing of use."""
    try:
        with open_own(note_of(part), "rb") as content:
            note = json.loads(content.read(NOTE_BYTES))
        known = note["sha256"] == file.sha256 and re.fullmatch(r'"[\x21\x23-\x7e]*"', note["etag"])
    except (OSError, OutputError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return str(note["etag"]) if known else None


def _fits(content_range: str, start: int, size: int) -> bool:
    match = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", content_range.strip())
    return match is not None and int(match[1]) == start and match[3] in ("*", str(size))


def _pieces(answer: requests.Response, floor: Floor) -> Iterator[bytes]:
    """Yields the body as it arrives. A break keeps what came before it."""
    answer.raw.enforce_content_length = False  # the length is checked by the caller, who keeps what came
    while True:
        try:
            piece = answer.raw.read1(PIECE)
        except TooSlowError as error:
            raise _Again(str(error)) from error
        except (urllib3.exceptions.HTTPError, OSError, OverflowError) as error:  # Overflow: length of a chunk
            raise _Again(f"the connection broke ({type(error).__name__})") from error
        if not piece:
            return
        floor.add(len(piece))
        yield piece


# --- requests ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open(session: requests.Session, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    """Yields the answer after redirects. Its body is not yet read."""
    at = _joined(url, url)
    for _ in range(MAX_REDIRECTS + 1):
        answer = _get(session, at, {**headers, **_authorisation(at)})
        with answer:
            if not answer.is_redirect:
                yield answer
                return
            after = _joined(at, answer.headers["Location"])
        schemes = [urllib.parse.urlsplit(each).scheme for each in (at, after)]
        if schemes[1] not in ("http", "https") or schemes == ["https", "http"]:
            raise NetworkError(f"{url}: redirects from {schemes[0]} to {after}; refused, set another SR_UPSCALE_MIRROR")
        at = after
    raise NetworkError(f"{url}: more than {MAX_REDIRECTS} redirects; check the address")


def _joined(url: str, location: str) -> str:
    """Resolves an address against another, and refuses what is none."""
    try:
        after = urllib.parse.urljoin(url, location)
        urllib.parse.urlsplit(after)
    except ValueError as error:
        raise NetworkError(f"{url}: {shortened(location)} is no address; set another SR_UPSCALE_MIRROR") from error
    return after


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
    except TooSlowError as error:
        raise _Again(str(error)) from error
    except requests.exceptions.SSLError as error:
        raise NetworkError(
            f"{url}: its certificate is not trusted ({_reason(error)}); "
            "if your network has a certificate of its own, name its file in REQUESTS_CA_BUNDLE"
        ) from error
    except requests.exceptions.ProxyError as error:
        raise NetworkError(f"{url}: the proxy refuses ({_reason(error)}); check HTTPS_PROXY and its log-in") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        if "NameResolutionError" in str(error):
            host = urllib.parse.urlsplit(url).hostname
            raise NetworkError(f"{url}: {host} is not found; check the connection, and the name") from error
        raise _Again(f"no connection ({_reason(error)})") from error
    except (requests.RequestException, OSError, ValueError) as error:  # no CA bundle, a redirect to no address
        raise NetworkError(f"{url}: {error}; check the address, SR_UPSCALE_MIRROR and REQUESTS_CA_BUNDLE") from error


def _reason(error: Exception) -> str:
    """Gives the innermost cause in a few words."""
    found = re.findall(r"(\b407[^'\")]*|\[Errno -?\d+\] [^'\")]*|certificate[^'\")]*|timed out)", str(error))
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
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
