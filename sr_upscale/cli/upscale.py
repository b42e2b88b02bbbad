"""``sr-upscale [upscale] PICTURE ... [-o OUT]``."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console, standard_output
from sr_upscale.cli.running import made_in_words, obtain_models, run_items, say_plan
from sr_upscale.errors import UsageError
from sr_upscale.formatting import shown
from sr_upscale.images.formats import sniff
from sr_upscale.pipeline.batch_plan import plan_folder
from sr_upscale.pipeline.request import Request
from sr_upscale.pipeline.targets import check_single, folder_target, format_for, plan_files, single_target


@opt.takes_request
def upscale(
    request: Request,
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="PICTURE...", help="Files, a folder, or - for stdin.")
    ] = None,
    input_option: Annotated[list[str] | None, typer.Option("-i", "--input", help="Same as PICTURE.")] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="File, folder, or - for stdout.")] = None,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Enlarge pictures (the default command)."""
    names = [*(inputs or []), *(input_option or [])]
    if not names:
        raise UsageError("no picture given; write `sr-upscale photo.jpg -o out.png`")
    console = Console(quiet=quiet, as_json=as_json)
    obtain_models(request.network, console, dry_run=request.run.dry_run)
    if len(names) == 1 and names[0] != "-" and os.path.isdir(names[0]):
        folder = folder_target(names[0], output, request.size.target, request.network.model)
        plan = plan_folder(Path(names[0]), folder, fmt=request.file.format, suffix=request.file.suffix or "")
        return run_items(plan, request, console, verbose=verbose)
    if len(names) > 1:
        return run_items(plan_files(names, output, request), request, console, verbose=verbose)
    return _single(names[0], output, request, console, verbose=verbose)


def _single(name: str, output: str | None, request: Request, console: Console, *, verbose: bool) -> int:
    """Enlarges one picture: a file or standard input, to a file or standard output."""
    dry_run = request.run.dry_run
    source = None if name == "-" else Path(name)
    place = "-" if source is None and output is None else single_target(source, output, request)
    if place == "-" and console.as_json and not dry_run:
        raise UsageError("--json and a picture cannot share standard output; give -o a file")
    if place != "-":
        check_single(source, Path(place), force=request.file.force, dry_run=dry_run)
    data: Path | bytes = sys.stdin.buffer.read() if source is None else source
    buffer = io.BytesIO()
    with console.progress(shown(name)) as report:  # it stands before the imports, which take more than a second
        from sr_upscale.images.decode import peek

        kind = peek(data) if isinstance(data, Path) else sniff(data[:256])  # no picture: refused before torch is loaded
        fmt = format_for(request.file.format, place, kind)

        from sr_upscale.pipeline import job
        from sr_upscale.pipeline.executor import upscaler_for

        upscaler = upscaler_for(request.network)
        if dry_run:
            say_plan(job.prepare(data, fmt, upscaler, request), upscaler, name, place, console)
            return 0
        done = job.run(
            data,
            buffer if place == "-" else Path(place),
            fmt,
            upscaler,
            request,
            on_step=lambda steps, total: report(steps / total, ""),
        )
    if place == "-":
        _to_standard_output(buffer)
    for warning in done["warnings"]:
        console.warn(warning)
    if verbose:
        choice = upscaler.choice
        console.note(
            f"device {choice.device} ({choice.device_reason}), "
            f"{done['dtype']} ({upscaler.planner.dtype_reason(done['bits'])}), {job.cut_in_words(done)}"
        )
    console.event("picture", {"status": "done", "input": name, "output": str(place), **done})
    if sys.stderr.isatty() or verbose:
        console.note(made_in_words(name, str(place), done))
    return 0


def _to_standard_output(buffer: io.BytesIO) -> None:
    with standard_output():
        sys.stdout.buffer.write(buffer.getbuffer())
        sys.stdout.buffer.flush()
