"""A server of the tests' own process, and clients of it."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image

from sr_upscale.server.app import Settings
from sr_upscale.server.run import listen, server_of

TOKEN = "a-token-of-the-tests"


@dataclass
class Running:
    """A server of this process."""

    base: str
    port: int

    def post(self, data: Any, *, token: str | None = TOKEN, **query: object) -> requests.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return requests.post(f"{self.base}/upscale", data=data, params=query, headers=headers, timeout=60)  # type: ignore[arg-type]

    def get(self, path: str, *, token: str | None = TOKEN, **query: object) -> requests.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return requests.get(f"{self.base}{path}", params=query, headers=headers, timeout=60)  # type: ignore[arg-type]


@contextmanager
def serving(model: Path, **settings: Any) -> Iterator[Running]:
    options = {"model": str(model), "device": "cpu", **settings.pop("options", {})}
    server = server_of(Settings(token=TOKEN, hosts={"127.0.0.1", "localhost"}, options=options, **settings))
    with listen("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        port = bound.getsockname()[1]
        try:
            yield Running(base=f"http://127.0.0.1:{port}", port=port)
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join(30)
            assert not thread.is_alive()


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def refused(answer: requests.Response, status: int, code: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert set(said) == {"code", "kind", "message"}
    assert said["code"] == code
    assert re.search(words, said["message"]), said["message"]


def raw(port: int, text: str, *, more: bytes = b"") -> tuple[int, dict[str, Any]]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode() + more)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, json.loads(answer.read())


def head_of(length: str) -> str:
    return f"POST /upscale HTTP/1.1\nHost: localhost\nAuthorization: Bearer {TOKEN}\n{length}\n\n"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
