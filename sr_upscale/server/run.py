"""The server behind an address of this machine."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sr_upscale.errors import UsageError
from sr_upscale.formatting import shortened, shown
from sr_upscale.server.app import Settings, application
from sr_upscale.server.jobs import Jobs

CONNECTIONS = 64
"""Most connections at a time; beyond them the answer is 503."""
HEAD_S = 10.0
"""Seconds in which the head of a request must have come."""


class _Impatient(H11Protocol):
    """Closes idle connections: many of them would block everybody else.

    If there are too many already, the one that has been idle for longest is closed.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) >= CONNECTIONS:
            ours = [each for each in self.connections if isinstance(each, _Impatient)]
            if silent := {each._deadline.when(): each for each in ours if each._deadline is not None}:
                oldest = silent[min(silent)]
                self.connections.discard(oldest)  # at once: it is counted when the request has come
                oldest.transport.close()
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._cancel()

    def _wait(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self.transport.close)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Server(uvicorn.Server):
    """Cancels running pictures when a signal comes, rather than wait for them."""

    def __init__(self, config: uvicorn.Config, jobs: Jobs) -> None:
        super().__init__(config)
        self._jobs = jobs

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._jobs.stop()
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """Binds an address.

    Args:
        host: An address, or a name of one.
        port: 0 takes any that is free.

    Raises:
        UsageError: It cannot be bound.
    """
    try:
        family, _kind, _protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        why = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        place = f"{shown(shortened(host))}, port {port}"
        raise UsageError(f"cannot serve on {place}: {why}; choose another --host or --port") from error


def server_of(settings: Settings) -> uvicorn.Server:
    """Makes a server; its ``run(sockets=[...])`` serves until a signal comes, which is then raised again."""
    jobs = Jobs(settings.max_jobs)
    config = uvicorn.Config(
        application(settings, jobs),
        http=_Impatient,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=10,
    )
    return _Server(config, jobs)
