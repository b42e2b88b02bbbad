"""Objects of a store by their address, through fsspec (https://filesystem-spec.readthedocs.io; extra `cloud`).

An object is read whole and written whole. What shall overwrite nothing is written with a condition that the store
itself holds: ``If-None-Match: *`` of S3, ``ifGenerationMatch=0`` of Google. A note stands in the object's metadata, so
that both appear in one step. Endpoints, regions and credentials are those of the stores' own tools and variables.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from sr_upscale.errors import AppearedError, InputError, NetworkError, OutputError, SrUpscaleError, UsageError
from sr_upscale.formatting import extra, shortened, shown
from sr_upscale.interrupts import STOP
from sr_upscale.storage.atomic import output_error
from sr_upscale.storage.remote import is_offline, without_query

if TYPE_CHECKING:
    import ssl

NOTE = "sr-upscale"
"""Name of a note in an object's metadata."""
CONFLICT_WAITS_S = (0.5, 1.0, 2.0, 4.0)
"""Seconds before a put is tried again, where another one of the same object is on its way."""
TIMEOUT_S = 60.0
"""Seconds without a byte of a web server."""
PATIENCE_S = 120.0
"""For how long a store that has answered before is asked again, in seconds, besides what its library tries."""
PAUSE_S = 1.0
"""Seconds between those tries."""
_SCHEMES = ("s3", "gs", "https")
_LIBRARIES = ("aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs")
"""Their errors that are no OSError say what is wrong with the network or the store."""
_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)
"""Errors of a file, and not of the store that it is read from."""
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")


_Result = TypeVar("_Result")
_More = ParamSpec("_More")
_answered: set[str] = set()
"""Kinds of addresses whose store has answered."""


def _patient(
    ask: Callable[Concatenate[str, _More], _Result],
) -> Callable[Concatenate[str, _More], _Result]:
    """Asks a store again where the network is away, for `PATIENCE_S`, or until a signal asks for the end.

    One that has never answered is not waited for: its address may be wrong.
    """

    @functools.wraps(ask)
    def patiently(address: str, /, *args: _More.args, **more: _More.kwargs) -> _Result:
        scheme, since = address.partition(":")[0], time.monotonic()
        while True:
            try:
                result = ask(address, *args, **more)
            except NetworkError:
                if scheme not in _answered or STOP.number or time.monotonic() - since > PATIENCE_S:
                    raise
                time.sleep(PAUSE_S)
            else:
                _answered.add(scheme)
                return result

    return cast("Callable[Concatenate[str, _More], _Result]", patiently)


def check_address(address: str, *, to_write: bool = False) -> None:
    """Refuses an address that leads nowhere, before anything is opened.

    Raises:
        UsageError: Its scheme is unknown or can only be read, or it names no bucket.
    """
    scheme, _, place = address.partition("://")
    if scheme not in _SCHEMES:
        raise UsageError(f"{shown(address)}: unknown kind of address; expected s3://, gs:// or https://")
    if to_write and scheme == "https":
        raise UsageError(f"{shown(address)}: https is only read; give -o a file, or an address of s3:// or gs://")
    if not place.partition("/")[0]:
        raise UsageError(f"{shown(address)}: names no bucket or host; expected such as s3://bucket/photo.png")


def name_of(address: str) -> str:
    """Returns the last part of an address, as a file may be called.

    Raises:
        UsageError: There is none.
    """
    place = address.partition("://")[2]
    if address.startswith("https:"):
        place = urllib.parse.unquote(re.split("[?#]", place)[0]).replace("\0", "")
    name = place.rpartition("/")[2]
    if "/" not in place or name in ("", ".", "..") or Path(name).name != name:
        raise UsageError(f"{shown(without_query(address))}: names no picture; give the address of one")
    return name


@_patient
def refuse_missing_bucket(address: str) -> None:
    """Finds before any work whether the bucket of an output is there.

    Raises:
        OutputError: It is not.
        NetworkError: The store cannot be reached.
    """
    scheme, _, place = address.partition("://")
    with _told(address, OutputError), contextlib.suppress(PermissionError):  # who may write need not see the bucket
        _store(scheme).info(place.partition("/")[0])


@_patient
def note_of(address: str) -> str | None:
    """Returns the note of an object; empty where it has none, None where there is no such object.

    Raises:
        OutputError: It may not be looked at.
        NetworkError: The store cannot be reached.
    """
    with _told(address, OutputError):
        try:
            return str(_store(address).getxattr(address, NOTE) or "")
        except FileNotFoundError:
            return None
        except KeyError:  # of gcsfs
            return ""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What a list says of an object.

    Attributes:
        version: See `get`.
        size: In bytes.
    """

    version: str
    size: int


@_patient
def list_names(folder: str, *, recursive: bool = True) -> dict[str, Listed]:
    """Lists the objects below an address.

    Returns:
        What is said of them, by their names from there on.

    Raises:
        InputError: There is no such bucket, or it may not be listed.
        NetworkError: The store cannot be reached.
    """
    root = folder.partition("://")[2].rstrip("/")
    with _told(folder, InputError):
        _store(folder).info(root)  # a bucket that is not there would be empty
        found = _store(folder).find(root, maxdepth=None if recursive else 1, detail=True)
    return {
        name.removeprefix(f"{root}/"): Listed(version=_version(info), size=int(info["size"] or 0))
        for name, info in sorted(found.items())
        if info["type"] == "file" and not name.endswith("/")
    }


@_patient
def get(address: str, target: Path) -> str:
    """Writes an object to a new file.

    Returns:
        Its version: what changes with its content, as far as the store says; else empty.

    Raises:
        InputError: It is not there, may not be read, or changed meanwhile.
        OutputError: The file cannot be written.
        NetworkError: The store cannot be reached, or the connection broke.
    """
    store = _store(address)
    with _told(address, InputError, file=target):
        if address.startswith("https:"):
            store.get_file(address, os.fspath(target))
            return ""
        before = store.info(address)
        if before["type"] != "file":
            raise InputError(f"{shown(address)}: is a folder; end its address with / to do all of it")
        store.get_file(address, os.fspath(target))
        after = store.info(address)
    if _version(before) != _version(after) or target.stat().st_size != after["size"]:
        raise InputError(f"{shown(address)}: changed while it was read; run the command again")
    return _version(after)


@_patient
def put(address: str, source: Path, *, note: str, overwrite: bool) -> None:
    """Writes a whole file as an object, with a note.

    Args:
        address: Of the object.
        source: The file.
        note: ASCII text that no other put has, of one line and less than 2 KB.
        overwrite: Whether it may take the place of an object that stands there.

    Raises:
        AppearedError: An object stands there, and stays.
        OutputError: There is no such bucket, or it may not be written.
        NetworkError: The store cannot be reached, or the connection broke.
    """
    import mimetypes

    kind = mimetypes.guess_type(address)[0] or "application/octet-stream"
    more: dict[str, Any] = {
        "s3": {"Metadata": {NOTE: note}, "ContentType": kind},
        "gs": {"metadata": {NOTE: note}, "content_type": kind},
    }[address.partition(":")[0]]
    store = _store(address)
    with _told(address, OutputError):
        for wait_s in (*CONFLICT_WAITS_S, None):
            try:
                store.put_file(os.fspath(source), address, mode="overwrite" if overwrite else "create", **more)
                return
            except Exception as error:
                if overwrite:
                    raise
                there = note_of(address)
                if there == note:  # it is this one: only the answer was lost, and the second try met it
                    return
                if there is not None:
                    raise AppearedError(
                        f"{shown(address)}: appeared while this was computed, and stays; add --force to overwrite it"
                    ) from error
                if _code(error) != "ConditionalRequestConflict" or wait_s is None:
                    raise
                time.sleep(wait_s)


@dataclass(frozen=True, kw_only=True)
class Note:
    """A small object that is its text.

    Attributes:
        text: ASCII, of one line and less than 2 KB.
        version: Changes with every write of another text.
    """

    text: str
    version: str


@_patient
def read_note(address: str) -> Note | None:
    """Returns a small object; None where there is none.

    Raises:
        OutputError: It may not be looked at.
        NetworkError: The store cannot be reached.
    """
    store = _store(address)
    bucket, key, _ = store.split_path(address)
    with _told(address, OutputError):
        try:
            if address.startswith("gs:"):
                info = store.call("GET", "b/{}/o/{}", bucket, key, json_out=True)
                return Note(text=info.get("metadata", {}).get(NOTE, ""), version=str(info["generation"]))
            info = store.call_s3("head_object", Bucket=bucket, Key=key)
            return Note(text=info["Metadata"].get(NOTE, ""), version=info["ETag"])
        except FileNotFoundError:
            return None


@_patient
def write_note(address: str, text: str, *, replaces: str | None) -> Note | None:
    """Writes a small object in the place of one of its versions, or where none is.

    Args:
        address: Of the object.
        text: See `Note`. Another one at every call, since an answer may be lost.
        replaces: The version; None where there must be none.

    Returns:
        What stands there then: this text, or what was in the way; None where that has gone.

    Raises:
        OutputError: It may not be written, or the store knows no conditions.
        NetworkError: The store cannot be reached.
    """
    store = _store(address)
    bucket, key, _ = store.split_path(address)
    with _told(address, OutputError):
        try:
            if address.startswith("gs:"):
                info = store.call(
                    "POST",
                    f"{store._location}/upload/storage/v1/b/{bucket}/o",
                    uploadType="multipart",
                    ifGenerationMatch=replaces or "0",
                    headers={"Content-Type": 'multipart/related; boundary="==0=="'},
                    data=_GOOGLE_NOTE.format(json.dumps({"name": key, "metadata": {NOTE: text}}), text).encode(),
                    json_out=True,
                )
                return Note(text=text, version=str(info["generation"]))
            condition = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces}
            info = store.call_s3(
                "put_object", Bucket=bucket, Key=key, Body=text.encode(), Metadata={NOTE: text}, **condition
            )
            return Note(text=text, version=info["ETag"])
        except Exception as error:
            if not _is_refused(error) and not (replaces is not None and isinstance(error, FileNotFoundError)):
                raise
    return read_note(address)


@_patient
def remove_note(address: str, version: str | None) -> None:
    """Removes a small object, if it is still of this version; None is any.

    Raises:
        OutputError: It may not be removed.
        NetworkError: The store cannot be reached.
    """
    store = _store(address)
    bucket, key, _ = store.split_path(address)
    with _told(address, OutputError):
        try:
            if address.startswith("gs:"):
                condition = {} if version is None else {"ifGenerationMatch": version}
                store.call("DELETE", "b/{}/o/{}", bucket, key, **condition)
            else:
                condition = {} if version is None else {"IfMatch": version}
                store.call_s3("delete_object", Bucket=bucket, Key=key, **condition)
        except Exception as error:
            if not _is_refused(error) and not isinstance(error, FileNotFoundError):
                raise


_GOOGLE_NOTE = (
    "--==0==\nContent-Type: application/json; charset=UTF-8\n\n{}\n--==0==\nContent-Type: text/plain\n\n{}\n--==0==--"
)
"""Body of a put: what the object is, and its content."""


def _is_refused(error: Exception) -> bool:
    """Says whether a condition did not hold, or another write of the same object is on its way."""
    refusals = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
    return isinstance(error, FileExistsError) or _code(error) in refusals


# --- stores -----------------------------------------------------------------------------------------


def _store(address: str) -> Any:
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
        return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)
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


def _version(info: dict[str, Any]) -> str:
    return str(info.get("ETag") or info.get("md5Hash") or info.get("crc32c") or "").strip('"')


def _code(error: BaseException) -> str:
    """Returns the code that S3 gave an error, or nothing."""
    answer = getattr(error.__cause__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def _told(address: str, kind: type[InputError] | type[OutputError], *, file: Path | None = None) -> Iterator[None]:
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
    words = re.sub(r"(https://[^\s?#]*)[?#]\S*", r"\1", str(error))  # see `without_query`
    said = shortened(" ".join(words.split()) or type(error).__name__, 160)
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
