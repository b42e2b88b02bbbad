"""``sr-upscale [upscale] PICTURE ... [-o OUT]``."""

from __future__ import annotations

from typing import Annotated

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.errors import UsageError
from sr_upscale.pipeline.request import Request


@opt.command()
def upscale(
    *,
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="PICTURE", help="Files, a folder, an address, or - for stdin.")
    ] = None,
    input_option: Annotated[list[str] | None, typer.Option("-i", "--input", help="Same as PICTURE.")] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="File, folder, address, or - for stdout.")
    ] = None,
    verbose: opt.Verbose = False,
    request: Request,
    console: Console,
) -> int:
    """Enlarge pictures (the default command)."""
    names = [*(inputs or []), *(input_option or [])]
    if not names:
        raise UsageError("no picture given; write `sr-upscale photo.jpg -o out.png`")
    from sr_upscale.cli.enlarge import enlarge  # a shell that completes a word needs none of it

    return enlarge(names, output, request, console, verbose=verbose)
