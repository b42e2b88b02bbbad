"""An S3 store on loopback: moto's server in a process of its own, behind a server that can break what passes."""

from __future__ import annotations

import http.client
import io
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler

import numpy as np
from PIL import Image

from tests import helpers
from tests.helpers import on_loopback, pattern

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}

Fault = Callable[[BaseHTTPRequestHandler], bool]
"""Called with a request that has arrived; says whether it has answered it."""


@contextmanager
def moto_server() -> Iterator[int]:
    """Yields the port of a store; it ends with this process, however that ends."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=-1, stdout=-1, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


@dataclass
class Store:
    """A bucket ``pics``, reached through `url`, and what was asked for.

    Attributes:
        port: Of the store itself.
        url: Of the server before it.
        bucket: Its name.
        asked: Method, path and ``If-None-Match`` of each request.
        fault: Sees each request first.
    """

    port: int
    bucket: str
    url: str = ""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    fault: Fault = lambda _handler: False

    def ask(self, method: str, path: str, data: bytes = b"", **more: str) -> tuple[bytes, Message]:
        """Asks the store itself, without our code or its libraries."""
        url = f"http://127.0.0.1:{self.port}/{self.bucket}{path}"
        request = urllib.request.Request(url, data, {**SIGNED, "Content-Type": "image/png", **more}, method=method)
        with urllib.request.urlopen(request) as answer:
            return answer.read(), answer.headers

    def put(self, key: str, data: bytes) -> None:
        self.ask("PUT", f"/{key}", data)

    def get(self, key: str) -> bytes:
        return self.ask("GET", f"/{key}")[0]

    def writes(self) -> dict[str, int]:
        """How often each object was written."""
        keys = re.findall(r"<Version>.*?<Key>(.*?)</Key>", self.ask("GET", "/?versions")[0].decode(), re.DOTALL)
        return {key: keys.count(key) for key in sorted(set(keys))}

    def present(self) -> list[str]:
        return re.findall(r"<Key>(.*?)</Key>", self.ask("GET", "/?list-type=2")[0].decode())


@contextmanager
def before(store: Store) -> Iterator[Store]:
    """Runs the server before a store."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        store.asked.append((handler.command, handler.path, handler.headers["If-None-Match"]))
        if not store.fault(handler):
            forward(handler, store.port)

    with on_loopback(answer, protocol="HTTP/1.1") as port:
        store.url = f"http://127.0.0.1:{port}"
        yield store


def forward(handler: BaseHTTPRequestHandler, port: int, *, answer_it: bool = True) -> None:
    """Passes a request on, and its answer back."""
    body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(handler.command, handler.path, body, dict(handler.headers))
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer_it:
        send(handler, answer.status, content, dict(answer.getheaders()))


def send(handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: Mapping[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
            handler.send_header(name, value)
    length = headers.get("Content-Length", "0") if handler.command == "HEAD" else str(len(content))
    handler.send_header("Content-Length", length)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)


def refuse(status: int, code: str) -> Fault:
    """Answers everything with an error of S3."""

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        content = f"<Error><Code>{code}</Code><Message>said by the test</Message></Error>".encode()
        send(handler, status, content, {"Content-Type": "application/xml"})
        return True

    return fault


def png(height: int = 13, width: int = 21) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pattern(height, width)).save(buffer, "png")
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def doubled(data: bytes) -> np.ndarray:
    """What the weights `nearest` make of a picture."""
    return helpers.doubled(pixels(data))
