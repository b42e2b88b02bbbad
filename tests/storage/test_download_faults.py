"""Faults 31 to 45, by the number of their row in the fault table, against a server on loopback that misbehaves."""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from sr_upscale.errors import IntegrityError, NetworkError, OutputError
from sr_upscale.storage import attempts, connections, download
from sr_upscale.storage.download import fetch
from sr_upscale.storage.remote import RemoteFile
from tests.helpers import on_loopback

CONTENT = bytes((7 * index + index // 251) % 256 for index in range(300_000))


@dataclass
class Asked:
    """A request that arrived."""

    path: str
    headers: dict[str, str]


@dataclass
class FaultServer:
    """Answers by `script`, one entry a request, then as a good server does. An entry is called with the handler."""

    content: bytes = CONTENT
    etag: str = '"one"'
    script: list[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    def url(self, path: str = "/data/file.bin") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def file(self, path: str = "/data/file.bin", **changes: object) -> RemoteFile:
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        return RemoteFile(**{"url": self.url(path), "size": len(CONTENT), "sha256": sha256, **changes})  # type: ignore[arg-type]

    def good(self, handler: BaseHTTPRequestHandler) -> None:
        """The whole file, or the range that was asked for if it is still the same file."""
        start = 0
        wanted = handler.headers.get("Range")
        if wanted and handler.headers.get("If-Range") == self.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send(handler, self.content[start:], start=start)

    def send(
        self,
        handler: BaseHTTPRequestHandler,
        body: bytes,
        *,
        start: int = 0,
        length: int | None = None,
        content_range: str | None = None,
        code: int | None = None,
    ) -> None:
        handler.send_response(code or (206 if start or content_range else 200))
        handler.send_header("ETag", self.etag)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        if start or content_range:
            total = len(self.content)
            handler.send_header("Content-Range", content_range or f"bytes {start}-{total - 1}/{total}")
        handler.end_headers()
        handler.wfile.write(body)

    def cut(self, count: int) -> Callable[[BaseHTTPRequestHandler], None]:
        """An answer that promises everything and ends after `count` bytes."""
        return lambda handler: self.send(handler, self.content[:count], length=len(self.content))

    def reset(self, count: int) -> Callable[[BaseHTTPRequestHandler], None]:
        """`count` bytes and a TCP reset."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            self.cut(count)(handler)
            handler.wfile.flush()
            time.sleep(0.1)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            handler.connection.close()

        return answer

    def refuse(self, code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(code)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        return answer


@contextmanager
def serve(fault: FaultServer) -> Iterator[FaultServer]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        fault.asked.append(Asked(path=handler.path, headers=dict(handler.headers.items())))
        (fault.script.pop(0) if fault.script else fault.good)(handler)

    with on_loopback(answer) as fault.port:
        yield fault


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(attempts, "BACKOFF_S", (0.0,) * 5)
    with serve(FaultServer()) as fault:
        yield fault


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.bin"


def left(target: Path) -> list[str]:
    """Files in the cache, locks aside."""
    return sorted(path.name for path in target.parent.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("kind", ["short", "reset", "chunked"])
def test_row_31_broken_answers_are_continued(server: FaultServer, target: Path, kind: str) -> None:
    def torn_chunks(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("ETag", server.etag)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n" % 50_000 + CONTENT[:50_000] + b"\r\n" + b"%x\r\n" % 9000 + CONTENT[50_000:50_100])
        handler.close_connection = True

    server.script = [{"short": server.cut(70_000), "reset": server.reset(70_000), "chunked": torn_chunks}[kind]]
    assert fetch(server.file(), target).read_bytes() == CONTENT
    ranges = [asked.headers.get("Range") for asked in server.asked]
    assert ranges[0] is None
    assert ranges[-1] is not None
    assert int(ranges[-1].removeprefix("bytes=").rstrip("-")) >= 40_000
    assert server.asked[-1].headers["If-Range"] == server.etag
    assert left(target) == ["file.bin"]


def test_row_31_it_gives_up_in_the_end_and_keeps_what_came(server: FaultServer, target: Path) -> None:
    server.script = [server.cut(1000)] + [server.refuse(502)] * 20
    with pytest.raises(NetworkError, match="what has come is kept, run the command again"):
        fetch(server.file(), target)
    assert (target.parent / "file.bin.part").stat().st_size == 1000
    server.script = []
    assert fetch(server.file(), target).read_bytes() == CONTENT
    assert server.asked[-1].headers["Range"] == "bytes=1000-"


@pytest.mark.parametrize("kind", ["begins again", "loses its range", "ignores ranges"])
def test_row_31_servers_that_never_come_to_the_end_are_given_up(
    server: FaultServer, target: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What is thrown away again is no progress, and a server that sends more and more of it is given up, too."""
    monkeypatch.setattr(attempts, "PROGRESS_BYTES", 1000)
    asked = 0

    def answer(handler: BaseHTTPRequestHandler) -> None:
        nonlocal asked
        asked += 1
        if kind == "begins again":
            server.etag = f'"{asked}"'
            server.cut(50_000)(handler)
        elif kind == "loses its range" and handler.headers.get("Range"):
            server.refuse(416)(handler)
        elif kind == "loses its range":
            server.cut(50_000)(handler)
        else:
            server.cut(5000 * asked)(handler)

    server.script = [answer] * 500
    with pytest.raises(NetworkError, match="what has come is kept|and never the whole of it"):
        fetch(server.file(), target)
    assert asked == {"begins again": 6, "loses its range": 6, "ignores ranges": 16}[kind]


@pytest.mark.parametrize(("etag", "later"), [('"one"', '"one"'), ('"one"', '"two"'), ("", "")])
def test_row_32_range_ignored_starts_again(server: FaultServer, target: Path, etag: str, later: str) -> None:
    """A server without ranges, a file that changed meanwhile, a server without ETag: only what fits is joined."""

    def from_the_start(handler: BaseHTTPRequestHandler) -> None:
        server.etag = later
        server.send(handler, server.content)

    server.etag = etag
    server.script = [server.cut(70_000), from_the_start]
    assert fetch(server.file(), target).read_bytes() == CONTENT
    assert server.asked[1].headers.get("Range") == ("bytes=70000-" if etag else None)


@pytest.mark.parametrize("content_range", ["bytes 0-229999/300000", "bytes 70000-299999/300001", "nonsense", ""])
def test_row_33_wrong_content_range_is_discarded(server: FaultServer, target: Path, content_range: str) -> None:
    server.script = [
        server.cut(70_000),
        lambda handler: server.send(handler, b"\0" * 230_000, content_range=content_range or "bytes */*", code=206),
    ]
    assert fetch(server.file(), target).read_bytes() == CONTENT
    assert "Range" not in server.asked[-1].headers


def test_row_34_wrong_hash_is_deleted_and_the_next_mirror_asked(server: FaultServer, target: Path) -> None:
    wrong = b"\1" + CONTENT[1:]
    server.script = [lambda handler: server.send(handler, wrong)]
    file = server.file("/bad/file.bin", mirrors=(server.url("/good/file.bin"),))
    assert fetch(file, target).read_bytes() == CONTENT
    assert [asked.path for asked in server.asked] == ["/bad/file.bin", "/good/file.bin"]
    target.unlink()
    server.content = wrong
    with pytest.raises(IntegrityError) as caught:
        fetch(server.file(), target)
    message = str(caught.value)
    assert f"expected sha256 {file.sha256}, got {hashlib.sha256(wrong).hexdigest()}, from {server.url()}" in message
    assert caught.value.exit_code == 7
    assert left(target) in ([], ["file.bin.part.json"])


def test_row_35_redirects(server: FaultServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Followed a few times; never to plain HTTP from HTTPS, nor to other schemes; a token stays with its host."""
    monkeypatch.setattr(attempts, "TOKENS", {"127.0.0.1": "SOME_TOKEN"})
    monkeypatch.setenv("SOME_TOKEN", "secret")
    elsewhere = f"http://localhost:{server.port}/moved/file.bin"
    server.script = [server.refuse(302, Location="/next"), server.refuse(307, Location=elsewhere)]
    assert fetch(server.file(), target).read_bytes() == CONTENT
    sent = [asked.headers.get("Authorization") for asked in server.asked]
    assert sent == ["Bearer secret", "Bearer secret", None]
    target.unlink()
    server.script = [server.refuse(302, Location="/again")] * 20
    with pytest.raises(NetworkError, match="more than 5 redirects"):
        fetch(server.file(), target)
    for location in ("http://[::1", "http://127.0.0.1:99999999/x", "http://" + "a" * 70 + ".example", "http://.."):
        server.script = [server.refuse(302, Location=location)] * 20
        with pytest.raises(NetworkError):
            fetch(server.file(), target)
    for location in ("ftp://127.0.0.1/file.bin", "file:///etc/passwd"):
        server.script = [server.refuse(302, Location=location)]
        with pytest.raises(NetworkError, match=f"redirects from http to {location}; refused"):
            fetch(server.file(), target)


def test_row_35_never_from_https_to_http(
    server: FaultServer, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with redirecting((certificate, key), f"http://127.0.0.1:{server.port}/plain") as port:
        file = server.file(url=f"https://localhost:{port}/file.bin")
        with pytest.raises(NetworkError, match="redirects from https to http://127.0.0.1"):
            fetch(file, target)
    assert server.asked == []


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost."""
    certificate, key = folder / "ca.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the openssl command")
    return certificate, key


@contextmanager
def redirecting(certificate: tuple[Path, Path], location: str) -> Iterator[int]:
    """A TLS server on localhost that redirects everything to `location`; yields its port."""
    with on_loopback(FaultServer().refuse(302, Location=location), certificate=certificate) as port:
        yield port


def test_row_36_missing_files_are_not_asked_for_again(server: FaultServer, target: Path) -> None:
    server.script = [server.refuse(404)]
    file = server.file("/gone/file.bin", mirrors=(server.url("/there/file.bin"),))
    assert fetch(file, target).read_bytes() == CONTENT
    assert len(server.asked) == 2
    target.unlink()
    server.script, server.asked = [server.refuse(404)], []
    with pytest.raises(NetworkError, match="404 Not Found; the file is not there any more") as caught:
        fetch(server.file(), target)
    assert caught.value.exit_code == 6
    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [401, 403])
def test_row_37_refusals_name_the_token(
    server: FaultServer, target: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    server.script = [server.refuse(code)] * 2
    with pytest.raises(NetworkError, match=f"{code} .*not public"):
        fetch(server.file(), target)
    monkeypatch.setattr(attempts, "TOKENS", {"127.0.0.1": "HF_TOKEN"})
    with pytest.raises(NetworkError, match="set HF_TOKEN to a token of yours"):
        fetch(server.file(), target)
    assert len(server.asked) == 2


@pytest.mark.parametrize("code", [429, 500, 503])
def test_row_38_busy_servers_are_asked_again(
    server: FaultServer, target: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(attempts.time, "sleep", waits.append)
    monkeypatch.setattr(attempts, "BACKOFF_S", (1.0, 2.0, 4.0, 8.0, 16.0))
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    server.script = [
        server.refuse(code),
        server.refuse(code, Retry_After="7"),
        server.refuse(code, Retry_After=in_a_minute),
    ]
    server.script += [server.refuse(code, Retry_After="soon"), server.refuse(code)]
    assert fetch(server.file(), target).read_bytes() == CONTENT
    assert waits[:2] == [1.0, 7.0]
    assert 55 < waits[2] <= 60
    assert waits[3:] == [8.0, 16.0]
    target.unlink()
    server.script = [server.refuse(code)] * 20
    with pytest.raises(NetworkError, match=f"the server answers {code} .*, 6 times"):
        fetch(server.file(), target)
    server.script = [server.refuse(code, Retry_After="3600")]
    with pytest.raises(NetworkError, match="asks to come back in 3600 s; do that"):
        fetch(server.file(), target)


@pytest.mark.parametrize("where", ["headers", "file", "chunk lines", "between answers"])
def test_row_39_slow_drip_is_dropped(
    server: FaultServer, target: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Bytes keep coming, so that no read ever times out."""
    monkeypatch.setattr(connections, "FLOOR_WINDOW_S", 0.3)
    monkeypatch.setattr(attempts, "BACKOFF_S", (0.0,))
    start = b"HTTP/1.1 200 OK\r\n"
    quick, slow = {
        "headers": (start + b"X-Long: ", b"x"),
        "file": (start + b"Content-Length: %d\r\n\r\n" % len(CONTENT), CONTENT),
        "chunk lines": (start + b"Transfer-Encoding: chunked\r\n\r\n2;", b"x"),
        "between answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    }[where]

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(quick)
        for count in range(len(CONTENT)):  # an hour and a half
            handler.wfile.write(slow[count : count + 1] if where == "file" else slow)
            handler.wfile.flush()
            time.sleep(0.02)

    server.script = [drip] * 3
    with pytest.raises(NetworkError, match="slower than 1024 bytes a second, 2 times"):
        fetch(server.file(), target)


@pytest.mark.parametrize("header", ["Content-Length", "Content-Range", "Retry-After", "ETag", "chunk"])
def test_row_31_numbers_beyond_all_bounds(server: FaultServer, target: Path, header: str) -> None:
    huge = "9" * 5000
    head, body = {
        "Content-Length": (f"200 OK\r\nContent-Length: {huge}", b""),
        "Content-Range": (f"206 Partial\r\nContent-Range: bytes {huge}-{huge}/{huge}", b""),
        "Retry-After": (f"503 Busy\r\nRetry-After: Mon, 01 Jan {huge} 00:00:00 GMT", b""),
        "ETag": (f'200 OK\r\nETag: "{huge}"', b"x"),
        "chunk": ("200 OK\r\nTransfer-Encoding: chunked", b"f" * 5000 + b"\r\nxx"),
    }[header]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)
        handler.close_connection = True

    server.script = [answer] * 20
    with pytest.raises((NetworkError, IntegrityError)):
        fetch(server.file(), target)
    server.script = [answer]
    if header != "Content-Length":
        assert fetch(server.file(), target).read_bytes() == CONTENT


def test_row_40_no_network(
    cli: Callable[..., object], target: Path, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, and what is here goes on working."""
    monkeypatch.setattr(attempts, "BACKOFF_S", (0.0,))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    file = RemoteFile(url=f"http://127.0.0.1:{port}/x", size=1, sha256="0")
    with pytest.raises(NetworkError, match=r"no connection \(\[Errno 111\] Connection refused") as caught:
        fetch(file, target)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("SR_UPSCALE_MIRROR", f"http://127.0.0.1:{port}")
    assert cli(photo, "-o", tmp_path / "out.png").code == 0  # type: ignore[attr-defined]


def test_row_41_offline_opens_no_socket(server: FaultServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SR_UPSCALE_OFFLINE", "1")

    def no_socket(*_arguments: object, **_named: object) -> None:
        raise AssertionError("a socket was opened")

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect", no_socket)
        patched.setattr(socket, "getaddrinfo", no_socket)
        with pytest.raises(NetworkError, match=r"offline \(SR_UPSCALE_OFFLINE or --offline\)"):
            fetch(server.file(), target)
    assert server.asked == []
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert fetch(server.file(), target) == target


NO_SOCKET = """
import socket, sys
def no_socket(*_arguments, **_named):
    raise AssertionError("a socket was opened")
socket.socket.__init__ = no_socket
from sr_upscale.cli.app import run
codes = [run([*sys.argv[2:], "-n", weights]) for weights in (sys.argv[1], "realesrgan-x4plus")]
sys.exit(codes != [0, 6])
"""


def test_row_41_offline_makes_no_socket_at_all(nearest: Path, photo: Path) -> None:
    """Importing urllib3 binds one, to see whether there is IPv6."""
    words = [sys.executable, "-c", NO_SOCKET, nearest, photo, "--offline", "--force", "-o", photo.with_name("out.png")]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_row_42_proxies_and_certificates(
    server: FaultServer, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url(""))
    monkeypatch.setenv("http_proxy", server.url(""))
    file = server.file(url="http://models.example/data/file.bin")
    assert fetch(file, target).read_bytes() == CONTENT
    assert server.asked[0].path == "http://models.example/data/file.bin"
    target.unlink()
    server.script = [server.refuse(407)]
    with pytest.raises(NetworkError, match=r"asks for a log-in \(407\)"):
        fetch(file, target)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, server.url(""))
    server.script = [server.refuse(407)]
    with pytest.raises(NetworkError, match="the proxy refuses .*407"):
        fetch(server.file(url="https://models.example/data/file.bin"), target)


def test_row_42_certificates(
    server: FaultServer, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path)
    with redirecting((certificate, key), "file:///never") as port:
        file = server.file(url=f"https://localhost:{port}/file.bin")
        with pytest.raises(NetworkError, match="its certificate is not trusted .*REQUESTS_CA_BUNDLE"):
            fetch(file, target)
        for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            with monkeypatch.context() as patched:
                patched.setenv(variable, str(certificate))
                with pytest.raises(NetworkError, match="redirects from https to file"):  # past the certificate
                    fetch(file, target)


@pytest.mark.parametrize("with_length", [True, False])
def test_row_43_portal_page_with_200(server: FaultServer, target: Path, with_length: bool) -> None:
    page = b"<html>Please log in</html>"

    def portal(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        if with_length:
            handler.send_header("Content-Length", str(len(page)))
        handler.end_headers()
        handler.wfile.write(page)

    server.script = [portal] * 20
    with pytest.raises((IntegrityError, NetworkError)) as caught:
        fetch(server.file(), target)
    if with_length:
        assert caught.value.exit_code == 7
        assert "this is another file (a log-in page?)" in str(caught.value)
    assert not target.exists()


FETCH = """
import sys
from pathlib import Path
from sr_upscale.storage.download import fetch
from sr_upscale.storage.remote import RemoteFile
url, size, sha256, target = sys.argv[1:]
fetch(RemoteFile(url=url, size=int(size), sha256=sha256), Path(target))
"""


def child(server: FaultServer, target: Path, prelude: str = "") -> subprocess.Popen[bytes]:
    file = server.file()
    arguments = [file.url, str(file.size), file.sha256, str(target)]
    return subprocess.Popen([sys.executable, "-c", prelude + FETCH, *arguments], stderr=subprocess.PIPE)


@pytest.mark.parametrize("locks", ["working", "broken"])
def test_row_44_twenty_processes_end_in_one_file(server: FaultServer, target: Path, locks: str) -> None:
    prelude = ""
    if locks == "broken":
        prelude = "import filelock\ndef no(*a, **k): raise NotImplementedError\nfilelock.FileLock.acquire = no\n"
    children = [child(server, target, prelude) for _ in range(20)]
    for each in children:
        _out, err = each.communicate(timeout=120)
        assert each.returncode == 0, err.decode()
    assert target.read_bytes() == CONTENT
    assert left(target) == ["file.bin"]
    if locks == "working":
        assert len(server.asked) == 1


def test_row_45_a_killed_download_goes_on(server: FaultServer, target: Path) -> None:
    held = threading.Event()

    def half(handler: BaseHTTPRequestHandler) -> None:
        server.cut(150_000)(handler)
        handler.wfile.flush()
        held.wait(30)

    server.script = [half]
    process = child(server, target)
    part = target.parent / "file.bin.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    held.set()
    have = part.stat().st_size
    assert have > 0
    assert fetch(server.file(), target).read_bytes() == CONTENT
    assert server.asked[-1].headers["Range"] == f"bytes={have}-"
    assert left(target) == ["file.bin"]


def test_row_45_orphans_are_collected(server: FaultServer, target: Path) -> None:
    target.parent.mkdir()
    old, new = (target.parent / f"other.bin.part.{digit * 32}" for digit in "ab")
    resumable = target.parent / "third.bin.part"
    for path in (old, new, resumable):
        path.write_bytes(b"x")
    yesterday = time.time() - 2 * download.ORPHAN_AGE_S
    for path in (old, resumable):
        os.utime(path, (yesterday, yesterday))
    fetch(server.file(), target)
    assert left(target) == ["file.bin", new.name, "third.bin.part"]


def test_full_disk_is_an_output_error(server: FaultServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full; free some space"):
        fetch(server.file(), target)
    assert not target.exists()


OURS = hashlib.sha256(CONTENT).hexdigest()
DAMAGED = ["null", "[]", "7", '{"sha256": 1}', "[" * 4000, '{"etag": "' + "x" * 9000, "{", "\xff"]
OF_ANOTHER_FILE = json.dumps({"sha256": "other", "etag": '"one"'})
NOT_TO_BE_SENT = [7, ["x"], None, '"two\nlines"', 'W/"weak"', '"' + "ü" + '"', "bare"]


@pytest.mark.parametrize(
    "note", [*DAMAGED, OF_ANOTHER_FILE, *(json.dumps({"sha256": OURS, "etag": etag}) for etag in NOT_TO_BE_SENT)]
)
def test_a_part_whose_note_cannot_be_used_begins_again(server: FaultServer, target: Path, note: str) -> None:
    """Its note is damaged, is of another file under the same name, or has an ETag that cannot be sent."""
    target.parent.mkdir()
    (target.parent / "file.bin.part").write_bytes(CONTENT[:1000])
    (target.parent / "file.bin.part.json").write_text(note, encoding="latin-1")
    assert fetch(server.file(), target).read_bytes() == CONTENT
    assert "Range" not in server.asked[0].headers


@pytest.mark.parametrize("name", ["file.bin.part", "file.bin.part.json"])
def test_links_beside_a_target_are_not_followed(server: FaultServer, target: Path, name: str) -> None:
    """A cache that others write to cannot lead a download into another file."""
    target.parent.mkdir()
    precious = target.parent / "precious"
    precious.write_bytes(b"mine")
    (target.parent / name).symlink_to(precious)
    with pytest.raises(OutputError, match="is a link"):
        fetch(server.file(), target)
    assert precious.read_bytes() == b"mine"


def test_a_mirror_that_is_no_address(server: FaultServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SR_UPSCALE_MIRROR", "http://[::1")
    with pytest.raises(NetworkError, match="is no address; set another SR_UPSCALE_MIRROR"):
        fetch(server.file(), target)
