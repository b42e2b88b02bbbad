"""The server behind an address of this machine."""

from __future__ import annotations

import socket
from types import FrameType

import uvicorn

from sr_upscale.errors import UsageError
from sr_upscale.formatting import shortened, shown
from sr_upscale.server.app import Settings, application
from sr_upscale.server.jobs import Jobs


class _Server(uvicorn.Server):
    """Ends the pictures at work when a signal comes, rather than wait for them."""

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
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot serve on {shown(shortened(host))}, port {port}: {why}; choose others") from error


def server_of(settings: Settings) -> uvicorn.Server:
    """Makes a server; its ``run(sockets=[...])`` serves until a signal comes, which is then raised again."""
    jobs = Jobs(settings.max_jobs)
    config = uvicorn.Config(
        application(settings, jobs),
        http="h11",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=64,
        timeout_graceful_shutdown=10,
    )
    return _Server(config, jobs)
