"""Stores of objects, through fsspec (filesystem-spec.readthedocs.io; extra `cloud`): opened once, asked patiently.

Endpoints, regions and credentials are those of the stores' own tools and variables. What their libraries raise becomes
an error of ours.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from sr_upscale.errors import InputError, NetworkError, OutputError, SrUpscaleError, UsageError
from sr_upscale.formatting import extra, shortened, shown
from sr_upscale.interrupts import STOP
from sr_upscale.storage.atomic import output_error
from sr_upscale.storage.remote import is_offline, without_query

if TYPE_CHECKING:
    import ssl

TIMEOUT_S = 60.0
"""Seconds without a byte of a web server."""
CONNECTIONS = 64
"""How many requests a store of S3 gets at a time; its library has 10."""
PATIENCE_S = 120.0
"""For how long a store that has answered before is asked again, in seconds, besides what its library tries."""
PAUSE_S = 1.0
"""Seconds between those tries."""
_LIBRARIES = ("aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs")
"""Their errors that are no OSError say what is wrong with the network or the store."""
_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)
"""Errors of a file, and not of the store that it is read from."""
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")

_Result = TypeVar("_Result")
_More = ParamSpec("_More")
_answered: set[str] = set()
"""Kinds of addresses whose store has answered."""


def patient(
    ask: Callable[Concatenate[str, _More], _Result],
) -> Callable[Concatenate[str, _More], _Result]:
    """Asks a store again where the network is away, for `PATIENCE_S`, or until a signal asks for the end.

    One that has never answered is not waited for: its address may be wrong.
    """

    @functools.wraps(ask)
    def patiently(address: str, /, *args: _More.args, **more: _More.kwargs) -> _Result:
        service, since = _service(address), time.monotonic()
        while True:
            try:
                result = ask(address, *args, **more)
            except NetworkError:
                if service not in _answered or STOP.number or time.monotonic() - since > PATIENCE_S:
                    raise
                time.sleep(PAUSE_S)
            else:
                _answered.add(service)
                return result

    return cast("Callable[Concatenate[str, _More], _Result]", patiently)


def _service(address: str) -> str:
    """Returns what answers for an address: a web server its own, a store of objects for all buckets of its scheme."""
    parts = urllib.parse.urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme == "https" else parts.scheme


def store_of(address: str) -> Any:
    """Returns the file system of an address.

    Raises:
        NetworkError: The program is offline.
        UsageError: The extra is not installed.
    """
    if is_offline():
        raise NetworkError(f"{shown(without_query(address))}: offline (SR_UPSCALE_OFFLINE or --offline); go online")
    return _file_system(address.partition(":")[0])


@functools.cache
def _file_system(scheme: str) -> Any:
    try:
        import fsspec

        if scheme == "https":
            return fsspec.filesystem("https", get_client=_web_client, skip_instance_cache=True)
        more = {}
        if scheme == "s3":
            set_by_user = fsspec.config.conf.get(scheme, {}).get("config_kwargs", {})
            more["config_kwargs"] = {"max_pool_connections": CONNECTIONS, **set_by_user}
        return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **more)
    except ImportError as error:
        raise UsageError(f"{scheme}:// needs fsspec's {scheme}; {extra('cloud')}") from error


async def _web_client(**options: Any) -> Any:
    """Opens a session that honours the environment's proxies and certificates and never goes from https to http."""
    import aiohttp

    async def refuse_plain(_session: Any, _context: Any, redirect: Any) -> None:
        after = urllib.parse.urljoin(str(redirect.response.url), redirect.response.headers.get("Location", ""))
        if not after.startswith("https://"):
            raise NetworkError(
                f"{without_query(str(redirect.url))}: redirects from https to {shortened(after)}; refused"
            )

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse_plain)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
    connector = aiohttp.TCPConnector(ssl=_trusted())
    return aiohttp.ClientSession(trace_configs=[trace], trust_env=True, timeout=timeout, connector=connector, **options)


def _trusted() -> ssl.SSLContext:
    """Returns what certificates are trusted, by the variables that downloads honour, too."""
    import ssl  # the program starts without it

    bundles = (os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"))
    bundle = next(filter(None, bundles), None)
    try:
        if bundle is not None and os.path.isdir(bundle):
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise NetworkError(
            f"{bundle}: no certificates ({error}); check REQUESTS_CA_BUNDLE and SSL_CERT_FILE"
        ) from error


def code_of(error: BaseException) -> str:
    """Returns the code that S3 gave an error, or nothing."""
    answer = getattr(error.__cause__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def translated(address: str, kind: type[InputError] | type[OutputError], *, file: Path | None = None) -> Iterator[None]:
    """Makes what the libraries raise an error of ours, of `kind` where the object or its rights are to blame."""
    try:
        yield
    except SrUpscaleError:
        raise
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if not isinstance(error, OSError | ValueError) and library not in _LIBRARIES:
            raise
        if isinstance(error, OSError) and file is not None and error.errno in _LOCAL:
            raise output_error(file, error) from error
        raise _as_ours(error, shown(without_query(address)), kind) from error


def _as_ours(error: Exception, name: str, kind: type[InputError] | type[OutputError]) -> SrUpscaleError:
    text = re.sub(r"(https://[^\s?#]*)[?#]\S*", r"\1", str(error))  # see `without_query`
    said = shortened(" ".join(text.split()) or type(error).__name__, 160)
    answer = getattr(error.__cause__, "response", None) or {}
    status = getattr(error, "status", None) or getattr(error, "code", None)  # of https, of gs
    status = status or answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if isinstance(error, FileNotFoundError):
        return kind(f"{name}: no such object or bucket; check the address")
    if type(error).__name__ in _NO_CREDENTIALS:
        return kind(f"{name}: no credentials ({said}); log in with the store's own tool, or set its variables")
    if isinstance(error, PermissionError) or status in (401, 403) or said.startswith("Forbidden"):
        return kind(f"{name}: no rights ({said}); use other credentials, or ask its owner")
    if isinstance(error, ValueError) and not isinstance(error, OSError):  # a certificate is both
        return kind(f"{name}: is no address of an object ({said}); check it")
    if status in (400, 405, 411, 412, 413, 416, 501):
        return kind(f"{name}: the store refuses ({said}); it may not know what was asked for")
    return NetworkError(f"{name}: the store does not answer ({said}); check network and endpoint, then try again")
