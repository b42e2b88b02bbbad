"""``sr-upscale serve``: a page on this machine, and an HTTP API."""

from __future__ import annotations

import os
import secrets
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.cli.obtain import obtain_models
from sr_upscale.formatting import needing
from sr_upscale.interrupts import Stopped
from sr_upscale.pipeline.batch_plan import refuse_unwritable
from sr_upscale.pipeline.parsing import parse_bytes
from sr_upscale.pipeline.request import request_of
from sr_upscale.storage.atomic import make_folder


@opt.command()
def serve(
    console: Console,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="Folder for saved results. Default: results are only downloaded."),
    ] = None,
    model: opt.Model = None,
    host: Annotated[str, typer.Option("--host", help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("-p", "--port", min=0, max=65535, help="Port; 0 chooses a free one.")] = 0,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Also accept this host name; may be repeated."),
    ] = None,
    max_bytes: Annotated[str, typer.Option("--max-bytes", help="Refuse files with more bytes, such as 200M.")] = "64M",
    max_jobs: Annotated[
        int, typer.Option("--max-jobs", min=1, help="Pictures accepted at a time; one is computed, others wait.")
    ] = 4,
    max_pixels: opt.MaxPixels = None,
    max_memory: opt.MaxMemory = None,
    device: opt.Device = "auto",
    backend: opt.Backend = "auto",
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the page in a browser.")] = False,
    debug: opt.Debug = False,
) -> int:
    """Serve a web page and an HTTP API on this machine."""
    words = {"model": model, "device": device, "backend": backend, "max_pixels": max_pixels, "max_memory": max_memory}
    options: dict[str, Any] = {name: word for name, word in words.items() if word is not None}
    request = request_of(options)
    most = parse_bytes(max_bytes, "--max-bytes")
    folder = None if output is None else Path(output)
    if folder is not None:
        make_folder(folder)
        refuse_unwritable([folder / "output"])
    obtain_models(request.network, console)
    with needing("serve", "serve needs Starlette and uvicorn"):
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    console.note("loading ...")
    from sr_upscale.pipeline.executor import engine_for
    from sr_upscale.server.app import Settings
    from sr_upscale.server.guard import is_loopback, names_of
    from sr_upscale.server.run import listen, server_of

    engine_for(request.network)  # what cannot work is refused now
    settings = Settings(
        token=secrets.token_urlsafe(24),
        hosts=names_of(host, allow_host or []),
        options=options | {"model": request.network.model},
        folder=folder,
        max_bytes=most,
        max_jobs=max_jobs,
        debug=debug,
    )
    with listen(host, port) as bound:
        base = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
        if not is_loopback(host):
            console.warn(f"{base} can be reached from other machines, and the connection is not encrypted")
        page = f"{base}/?token={settings.token}"
        console.result({"address": base, "token": settings.token}, [page])
        opened = not no_open and sys.stdout.isatty() and _has_desktop() and webbrowser.open(page)
        console.note(f"{'opened in your browser' if opened else 'open it in a browser'}; stop with Ctrl-C")
        try:
            server_of(settings).run(sockets=[bound])
        except Stopped as stopped:
            raise Stopped(stopped.number, "stopped") from None
    return 0


def _has_desktop() -> bool:
    """Says whether a browser would open in a window, and not in this terminal."""
    return sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
