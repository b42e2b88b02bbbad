"""``sr-upscale [upscale] PICTURE ... [-o OUT]``."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.cli.running import (
    folder_target,
    made_in_words,
    names_file,
    obtain_models,
    output_label,
    run_items,
    say_plan,
)
from sr_upscale.errors import OutputError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.images.formats import FORMATS, Format, format_of_path, own_format, sniff
from sr_upscale.pipeline.batch_plan import (
    BatchPlan,
    Item,
    output_name,
    plan_folder,
    plan_items,
    refuse_collisions,
    refuse_unwritable,
)
from sr_upscale.pipeline.request import Request
from sr_upscale.storage.atomic import output_error


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
        return run_items(_many(names, output, request), request, console, verbose=verbose)
    return _single(names[0], output, request, console, verbose=verbose)


def _single(name: str, output: str | None, request: Request, console: Console, *, verbose: bool) -> int:
    """Enlarges one picture: a file or standard input, to a file or standard output."""
    dry_run = request.run.dry_run
    source = None if name == "-" else Path(name)
    place = "-" if source is None and output is None else _single_target(source, output, request)
    if place == "-" and console.as_json and not dry_run:
        raise UsageError("--json and a picture cannot share standard output; give -o a file")
    if place != "-":
        _check_single(source, Path(place), force=request.file.force, dry_run=dry_run)
    from sr_upscale.images.decode import peek

    data: Path | bytes = sys.stdin.buffer.read() if source is None else source
    kind = peek(data) if isinstance(data, Path) else sniff(data[:256])  # no picture: refused before torch is loaded
    fmt = _format_for(request.file.format, place, kind)

    buffer = io.BytesIO()
    with console.progress(shown(name)) as report:
        from sr_upscale.pipeline import job  # takes more than a second; the bar stands before it
        from sr_upscale.pipeline.executor import upscaler_for

        upscaler = upscaler_for(request.network)
        if dry_run:
            say_plan(job.prepare(data, fmt, upscaler, request), upscaler, place, console)
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
    console.result({"input": name, "output": str(place), **done})
    if sys.stderr.isatty() or verbose:
        console.note(made_in_words(name, str(place), done))
    return 0


def _to_standard_output(buffer: io.BytesIO) -> None:
    try:
        sys.stdout.buffer.write(buffer.getbuffer())
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_error(Path("standard output"), error) from error


def _default_name(source: Path, request: Request) -> str:
    label = output_label(request.size.target, request.network.model)
    return output_name(source, label=label, suffix=request.file.suffix, fmt=request.file.format)


def _single_target(source: Path | None, output: str | None, request: Request) -> str:
    if output == "-":
        return "-"
    name = _default_name(source or Path("stdin"), request)
    if output is None:
        return str((source or Path()).with_name(name))
    if os.path.isdir(output) or output.endswith(("/", "\\")):
        return str(Path(output) / name)
    return output


def _check_single(source: Path | None, target: Path, *, force: bool, dry_run: bool) -> None:
    """Checks everything about the output that can be known before the input is opened."""
    if source is not None:
        refuse_collisions([Item(source=source, target=target)])
    refuse_unwritable([target])
    if not os.path.lexists(target.parent):
        raise OutputError(f"{shown(target)}: the folder {shown(target.parent)} does not exist; create it first")
    if target.is_dir():
        raise OutputError(f"{shown(target)}: is a folder; choose a file name with -o")
    if target.exists() and not target.is_file():
        raise OutputError(f"{shown(target)}: is not a regular file; choose another -o, or - for a pipe")
    if target.exists() and not force and not dry_run:
        raise OutputError(f"{shown(target)}: exists; add --force to overwrite it, or choose another -o")


def _format_for(fmt: Format | None, place: str, kind: str) -> Format:
    """Chooses the format that was asked for, else by the output's name, else (standard output) the input's own."""
    if fmt is not None:
        return fmt
    if place == "-":
        return own_format(FORMATS.get(kind, FORMATS["png"]))
    by_name = format_of_path(Path(place))
    if by_name is not None and by_name.written_as:
        raise UsageError(f"{shown(place)}: {by_name.name.upper()} is only read; end the name in .{by_name.written_as}")
    if by_name is None:
        raise UsageError(f"{shown(place)}: no known ending; give --format, or end the name in .png")
    return by_name


def _many(names: list[str], output: str | None, request: Request) -> BatchPlan:
    """Plans several files: every output goes into the folder of -o, or beside its input."""
    if "-" in names or output == "-":
        raise UsageError("standard input and output take one picture; give files and a folder with -o")
    if output is not None and names_file(output):
        raise UsageError(f"{shown(output)} is a file; several pictures need a folder with -o")
    items = []
    for name in names:
        path = Path(name)
        if os.path.isdir(name):
            raise UsageError(f"{shown(name)} is a folder; give folders one at a time, or files only")
        folder = Path(output) if output else path.parent
        items.append(Item(source=path, target=folder / _default_name(path, request)))
    return plan_items(items)
