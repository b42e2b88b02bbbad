"""The addresses of the server: its page, the viewer, what there is, progress, and ``POST /upscale``."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import re
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from sr_upscale.benchmark.report import page
from sr_upscale.errors import InputError, OutOfMemoryError, SrUpscaleError, UsageError
from sr_upscale.formatting import mebibytes, shortened, shown
from sr_upscale.images import MAX_PIXELS
from sr_upscale.images.formats import WRITTEN
from sr_upscale.pipeline import request as requests
from sr_upscale.pipeline.executor import Cancelled
from sr_upscale.pretrained.inventory import model_rows
from sr_upscale.pretrained.registry import TABLE, families
from sr_upscale.server.guard import Guard, policy_for, refusal
from sr_upscale.server.jobs import Jobs, TooManyError, enlarge
from sr_upscale.video.containers import CONTAINERS, has_video

BODY_S = 120.0
"""Seconds in which the bytes of a picture must have come."""

STATUS = {2: 400, 4: 422, 5: 409, 6: 502, 8: 503}
"""Status of HTTP by exit code; 500 where there is none."""

OPTIONS = (
    "scale",
    "width",
    "height",
    "size",
    "fit",
    "model",
    "tta",
    "format",
    "quality",
    "compression",
    "strip_metadata",
    "background",
    "frame",
    "allow_truncated",
    "start",
    "duration",
    "codec",
    "crf",
    "preset",
    "deinterlace",
)
"""Fields of a `Request` that a client may set.

The others are for whoever starts the server: device, memory, limits, and the dial, each place of which would leave a
file of weights in the cache.
"""

LONGEST = 100
"""Most characters of a value."""

LOG = logging.getLogger("uvicorn.error")

Endpoint = Callable[[Request], Awaitable[Response]]


class TooLargeError(InputError):
    """A picture has more bytes than the server takes."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server was started with.

    Attributes:
        token: What each request must bring.
        hosts: Names by which it may be called.
        options: Fields of a `pipeline.request.Request` that clients do not set, or their defaults, as text.
        folder: Where outputs may be saved; None where nothing is.
        max_bytes: Most bytes of a picture.
        max_jobs: Most pictures at a time.
        debug: Whether the traceback of an error goes to the log of the server.
    """

    token: str
    hosts: Collection[str]
    options: dict[str, Any]
    folder: Path | None = None
    max_bytes: int = 64 << 20
    max_jobs: int = 4
    debug: bool = False


def application(settings: Settings, jobs: Jobs) -> Starlette:
    """Makes the server's application (ASGI)."""
    html = (resources.files("sr_upscale.server") / "page.html").read_text("utf-8")
    policy = policy_for(html, framed="'none'")

    async def show_page(_request: Request) -> Response:
        return HTMLResponse(html, headers={"content-security-policy": policy})

    async def about(_request: Request) -> Response:
        own = settings.options["model"]
        answer = {
            "models": models(own),
            "choices": choices(own),
            "formats": list(WRITTEN),
            "containers": [name for name, each in CONTAINERS.items() if each.codecs and has_video()],
            "max_bytes": settings.max_bytes,
            "max_pixels": request_from({}, settings.options).file.max_pixels or MAX_PIXELS,
            "max_jobs": settings.max_jobs,
            "saves": settings.folder is not None,
        }
        return JSONResponse(answer)

    async def progress(request: Request) -> Response:
        job = jobs.running.get(request.query_params.get("job", ""))
        if job is None:
            return refusal(404, "no such job is running")
        return JSONResponse({"state": job.state, "share": job.share})

    async def upscale(request: Request) -> Response:
        query = _query(request)
        name = plain_name(query.pop("name", "picture"))
        save = flag("save", query.pop("save", "false"))
        if save and settings.folder is None:
            raise UsageError("this server does not save results; start it with -o FOLDER")
        with jobs.admitted(query.pop("job", None)) as job:
            wanted = request_from(query, settings.options)
            data = await _body(request, name, settings.max_bytes)
            folder = settings.folder if save else None
            work = functools.partial(enlarge, data, name, wanted, job, folder=folder)
            made = await jobs.run(job, work, _gone(request))
        headers = {
            "content-length": str(made.file.seek(0, 2)),
            "content-disposition": f"attachment; filename*=UTF-8''{quote(made.name)}",
            "x-result": json.dumps({"name": made.name, "saved": save, **made.done}),
        }

        return StreamingResponse(_sent(made.file), media_type=made.format.media_type, headers=headers)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        jobs.close()

    routes = {"/": show_page, "/about": about, "/progress": progress, "/viewer": _show_viewer}
    return Starlette(
        routes=[
            *(Route(path, _answering(endpoint, debug=settings.debug)) for path, endpoint in routes.items()),
            Route("/upscale", _answering(upscale, debug=settings.debug), methods=["POST"]),
        ],
        middleware=[Middleware(Guard, token=settings.token, hosts=settings.hosts)],
        exception_handlers={HTTPException: _no_such_address},
        lifespan=lifespan,
    )


async def _show_viewer(request: Request) -> Response:
    """Shows the viewer of `sr-upscale compare` with two pictures that the page holds.

    It is a page of its own, shown in a frame, with a policy of its own.
    """
    query = _query(request)
    size = {side: query.get(side, "") for side in ("width", "height")}
    images = _images(query.get("images", ""))
    if not all(re.fullmatch(r"[1-9]\d{0,5}", side) for side in size.values()):
        raise UsageError("width and height are not numbers of pixels; expected 1 to 999999")
    title = query.get("title", "")
    entries = [{"name": name, "url": url, "scores": ""} for name, url in images.items()]
    picture = {"title": title, **{side: int(word) for side, word in size.items()}, "images": entries}
    html = page(title, [picture]).replace("<html ", '<html class="embedded" ', 1)
    return HTMLResponse(html, headers={"content-security-policy": policy_for(html, framed="'self'")})


def _images(text: str) -> dict[str, str]:
    """Parses the pictures of a viewer, ``[{"name": ..., "url": "blob:..."}, ...]``, as addresses by name."""
    try:
        images = {str(each["name"]): str(each["url"]) for each in json.loads(text)}
    except (ValueError, TypeError, KeyError, RecursionError):
        images = {}
    if len(images) < 2 or not all(re.fullmatch(r"blob:[A-Za-z0-9:/._\[\]-]+", url) for url in images.values()):
        raise UsageError("images are no pictures of a page; expected a JSON list of names and blob: addresses")
    return images


def _answering(endpoint: Endpoint, *, debug: bool) -> Endpoint:
    """Makes an endpoint whose errors are JSON, with the exit code and message of the command line."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (Cancelled, ClientDisconnect):
            return refusal(503, "cancelled")
        except Exception as error:
            if debug:
                LOG.exception("%s", request.url.path)
            return _failure(error)

    return answer


def _failure(error: Exception) -> JSONResponse:
    message, code = str(error), SrUpscaleError.exit_code
    status = {TooLargeError: 413, TooManyError: 429, TimeoutError: 408}.get(type(error))
    if isinstance(error, SrUpscaleError):
        code = error.exit_code
    elif isinstance(error, TimeoutError):
        code, message = InputError.exit_code, f"the picture did not arrive within {BODY_S:.0f} s; send it again"
    elif isinstance(error, MemoryError):
        code, message = OutOfMemoryError.exit_code, "out of memory; close other programs, or use a smaller scale"
    else:
        message = f"internal error: {type(error).__name__}: {error}; `serve --debug` shows where: please report it"
    message = re.sub(r"--([a-z-]+)", _option_of_client, message)
    kind = next(each.__name__ for each in type(error).__mro__ if not each.__module__.startswith("sr_upscale.server"))
    return JSONResponse({"code": code, "kind": kind, "message": message}, status_code=status or STATUS.get(code, 500))


def _option_of_client(match: re.Match[str]) -> str:
    """Names an option of the command line as a client knows it."""
    name = match[1].replace("-", "_")
    return name if name in OPTIONS else f"{match[0]} of `sr-upscale serve`"


async def _no_such_address(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(error.status_code, "no such address or method; docs/serve.md lists them")


def _query(request: Request) -> dict[str, str]:
    """Returns the values of a query, without the token.

    Raises:
        UsageError: A name comes twice.
    """
    query: dict[str, str] = {}
    for name, word in request.query_params.multi_items():
        if name in query:
            raise UsageError(f"{shown(shortened(name))} is given twice; give it once")
        query[name] = word
    query.pop("token", None)
    return query


async def _body(request: Request, name: str, most: int) -> bytes:
    """Reads the bytes of a picture.

    Raises:
        TooLargeError: There are more than `most`. The rest is not read.
        TimeoutError: They do not come.
    """
    too_large = TooLargeError(f"{shown(name)}: more than {mebibytes(most)}; a larger one needs another --max-bytes")
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced[:20]) > most:
        raise too_large
    data = bytearray()
    async with asyncio.timeout(BODY_S):
        async for chunk in request.stream():
            data += chunk
            if len(data) > most:
                raise too_large
    return bytes(data)


async def _gone(request: Request) -> None:
    """Returns when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _sent(file: BinaryIO) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while chunk := file.read(1 << 20):
            yield chunk


# --- queries ----------------------------------------------------------------------------------------


def plain_name(name: str) -> str:
    """Returns the name of a picture, which leads into no folder.

    Raises:
        UsageError: It could be a path, is hidden, or cannot be shown.
    """
    if not name or name[0] == "." or any(char in "/\\:" or not char.isprintable() for char in name):
        raise UsageError(f"name is {shown(shortened(name))!r}; expected the name of a picture, without a folder")
    return name


def models(own: str) -> list[str]:
    """Lists the models that a client may choose: what the server was started with, and what needs no download."""
    installed = [row["name"] for row in model_rows() if row["installed"]]
    return list(dict.fromkeys([own, *families(), *installed]))


def choices(own: str) -> list[dict[str, str]]:
    """Lists the models that the page shows, with what each is for: families stand for their models."""
    rows = {row["name"]: row["purpose"] for row in model_rows() if row["installed"] and not row["built_in"]}
    built_in = {entry.family: entry.purpose for entry in TABLE}
    names = dict.fromkeys([own, *built_in, *rows])
    return [{"name": name, "purpose": (built_in | rows).get(name, "")} for name in names]


def request_from(query: dict[str, str], base: dict[str, Any]) -> requests.Request:
    """Builds a request from the values of a query.

    Args:
        query: Values by field name.
        base: What the server was started with, also by field name.

    Raises:
        UsageError: A name is unknown, a value cannot be parsed, a model is not offered, or two options
            contradict each other.
    """
    kinds = {
        name: kind for section in requests.SECTIONS.values() for name, kind in typing.get_type_hints(section).items()
    }
    for name in query:
        if name not in OPTIONS:
            raise UsageError(f"no option {shown(shortened(name))!r}; expected {', '.join(OPTIONS)}")
    words = {name: _value(name, word, typing.get_args(kinds[name]) or (kinds[name],)) for name, word in query.items()}
    if (model := words.get("model")) is not None and model not in (offered := models(base["model"])):  # and no path
        raise UsageError(f"model is {shown(model)!r}; expected one of {', '.join(offered)}")
    return requests.request_of(base | words)


def flag(name: str, word: str) -> bool:
    """Parses ``true`` or ``false``, also ``1`` or ``0``.

    Raises:
        UsageError: It is neither.
    """
    if word not in ("true", "1", "false", "0"):
        raise UsageError(f"{name} is {shown(shortened(word))!r}; expected true or false")
    return word in ("true", "1")


def _value(name: str, word: str, kinds: Iterable[Any]) -> Any:
    """Parses a value as the type of its field; a field with a parser of its own keeps the text."""
    if len(word) > LONGEST:
        raise UsageError(f"{name} is {shown(shortened(word))!r}; expected at most {LONGEST} characters")
    if bool in kinds:
        return flag(name, word)
    kind = next((each for each in (int, float) if each in kinds), None)
    try:
        return word if kind is None else kind(word)
    except ValueError as error:
        raise UsageError(f"{name} is {shown(shortened(word))!r}; expected a number") from error
