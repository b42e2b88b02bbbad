"""Connections that are dropped when they bring too little of a file.

A read timeout would not do: a server that drips never meets one, be it in its headers, between chunks or in the file.
"""

from __future__ import annotations

import http.client
import io
import os
import time
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter

FLOOR_BYTES_PER_S, FLOOR_WINDOW_S = 1024, 30.0
"""Bytes of the file a second, and seconds. A connection that brings less over so long is dropped."""


class TooSlowError(Exception):
    """A connection brings too little."""


class Floor:
    """A floor of throughput. It counts bytes of the file, and looks whenever bytes of any kind arrive."""

    def __init__(self) -> None:
        self._begin: float | None = None
        self._received: int | None = None

    def add(self, count: int) -> None:
        """Counts bytes of the file. The first ones begin a new window: an answer may take its time to start."""
        if self._received is None:
            self._begin, self._received = time.monotonic(), 0
        self._received += count

    def check(self) -> None:
        """Notes that bytes have arrived.

        Raises:
            TooSlowError: A window has passed, and too little of it were bytes of the file.
        """
        now = time.monotonic()
        if self._begin is None:
            self._begin = now
        passed = now - self._begin
        if passed < FLOOR_WINDOW_S:
            return
        if (self._received or 0) < FLOOR_BYTES_PER_S * passed:
            raise TooSlowError(f"the server is slower than {FLOOR_BYTES_PER_S} bytes a second")
        self._begin, self._received = now, 0


def open_session(floor: Floor) -> requests.Session:
    """Opens a session that honours the environment's proxies and certificates, and a floor of throughput.

    The variables are HTTP_PROXY, HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and SSL_CERT_FILE.

    Args:
        floor: Is checked by every read from the network, which raises its `TooSlowError`.
    """
    session = requests.Session()
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle and not (os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")):
        session.verify = bundle
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(floor))
    return session


class _Adapter(HTTPAdapter):
    """Makes connections whose answers are read under a floor."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **more)
        return manager if known else self._watch(manager)

    def _watch(self, manager: Any) -> Any:
        pools = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {scheme: _watched(pool, self._floor.check) for scheme, pool in pools.items()}
        return manager


def _watched(pool: Any, check: Callable[[], None]) -> Any:
    """Returns a class of pools as `pool`, whose connections call `check` after each read from their socket."""

    def read_answer(*arguments: Any, **more: Any) -> http.client.HTTPResponse:
        answer = http.client.HTTPResponse(*arguments, **more)
        answer.fp = io.BufferedReader(_Watched(answer.fp.detach(), check))
        return answer

    connection = type("Connection", (pool.ConnectionCls,), {"response_class": staticmethod(read_answer)})
    return type("Pool", (pool,), {"ConnectionCls": connection})


class _Watched(io.RawIOBase):
    """What comes from a socket, with a call after each read."""

    def __init__(self, raw: io.RawIOBase, check: Callable[[], None]) -> None:
        self._raw, self._check = raw, check

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count: int | None = self._raw.readinto(buffer)
        self._check()
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
