"""Access control: allowed hosts, the token, and security headers."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import secrets
from collections.abc import Collection, Iterable

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sr_upscale.errors import UsageError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine for itself."""

HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every answer that brings none of its own."""


def refusal(status: int, message: str) -> JSONResponse:
    """Makes the answer to a request that is not allowed or makes no sense."""
    return JSONResponse({"code": UsageError.exit_code, "kind": "UsageError", "message": message}, status_code=status)


class Guard:
    """Passes on requests with an allowed host and the right token, and refuses all others.

    A page of another site can have the browser send requests to loopback, and can give its own name the address of
    loopback. The first does not know the token, the second shows in the header ``Host``.

    Args:
        app: What is guarded.
        token: What a request brings, as ``Authorization: Bearer TOKEN`` or in the address as ``?token=TOKEN``.
        hosts: Names by which the server may be called, without a port, lower case.
    """

    def __init__(self, app: ASGIApp, *, token: str, hosts: Collection[str]) -> None:
        self.app = app
        self.token = token.encode()
        self.hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await (self._refusal(scope) or self.app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_of(hosts[0]) not in self.hosts:
            return refusal(421, "host name not allowed; add it with --allow-host NAME")
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = QueryParams(scope["query_string"]).get("token", "")
        if not secrets.compare_digest(given.encode("utf-8", "surrogatepass"), self.token):
            return refusal(401, "no token, or a wrong one; open the address that `sr-upscale serve` printed")
        return None


def is_loopback(host: str) -> bool:
    """Says whether an address is this machine's alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_of(host: str, others: Iterable[str]) -> set[str]:
    """Gives the names by which a server may be called: its address, those of loopback if it is one, and others."""
    return {host.lower(), *(LOOPBACK if is_loopback(host) else ()), *(name.lower() for name in others)}


def host_of(header: str) -> str:
    """Returns the name of a ``Host`` header, lower case, without port and brackets; empty where it is none."""
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d{1,5})?", header.lower())
    return match[1] or match[2] if match else ""


def policy_for(html: str, *, framed: str) -> str:
    """Makes the Content-Security-Policy of a page: only its own scripts and styles run, identified by their hashes.

    Args:
        html: The page.
        framed: Who may show it in a frame, such as ``'none'``.
    """
    scripts, styles = (" ".join(_hashes(html, tag)) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src blob:; media-src blob:; "
        f"connect-src 'self'; frame-src 'self'; frame-ancestors {framed}; base-uri 'none'; form-action 'none'"
    )


def _hashes(html: str, tag: str) -> list[str]:
    bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
    return [f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'" for body in bodies]
