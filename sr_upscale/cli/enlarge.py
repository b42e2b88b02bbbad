"""What `upscale` does with its words: one picture, several, a folder, or objects of a store."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sr_upscale.cli.console import Console, standard_output
from sr_upscale.cli.running import made_in_words, obtain_models, run_items, say_plan
from sr_upscale.errors import UsageError
from sr_upscale.formatting import addressed, shown
from sr_upscale.images.formats import sniff
from sr_upscale.pipeline.batch_plan import plan_folder
from sr_upscale.pipeline.request import Request
from sr_upscale.pipeline.targets import check_single, folder_target, format_for, plan_files, single_target
from sr_upscale.storage.remote import is_address, without_query

if TYPE_CHECKING:
    from sr_upscale.storage.spool import Spool


def enlarge(names: list[str], output: str | None, request: Request, console: Console, *, verbose: bool) -> int:
    """Enlarges what `names` are into what `output` is.

    Args:
        names: Files, a folder, an address, or ``-`` for standard input.
        output: File, folder, address, or ``-`` for standard output; None is beside the picture.
        request: How.
        console: Where to say so.
        verbose: Whether to say device, type and tiles.

    Returns:
        The exit code.

    Raises:
        SrUpscaleError: Any of its kinds.
    """
    obtain_models(request.network, console, dry_run=request.run.dry_run)
    if any(is_address(each) for each in (*names, output or "")):
        from sr_upscale.storage.spool import Spool

        with Spool() as spool:
            return _objects(names, output, request, console, spool, verbose=verbose)
    if len(names) == 1 and names[0] != "-" and os.path.isdir(names[0]):
        folder = folder_target(names[0], output, request.size.target, request.network.model)
        plan = plan_folder(Path(names[0]), folder, fmt=request.file.format, suffix=request.file.suffix or "")
        return run_items(plan, request, console, verbose=verbose)
    if len(names) > 1:
        return run_items(plan_files(names, output, request), request, console, verbose=verbose)
    source = None if names[0] == "-" else Path(names[0])
    place = "-" if source is None and output is None else single_target(source, output, request)
    return _single(names[0], source, place, request, console, verbose=verbose)


def _objects(
    names: list[str], output: str | None, request: Request, console: Console, spool: Spool, *, verbose: bool
) -> int:
    """Enlarges what is or becomes objects: one picture, or a folder."""
    from sr_upscale.pipeline.object_batch import plan_objects
    from sr_upscale.pipeline.object_picture import close_picture, open_picture

    if len(names) > 1:
        raise UsageError("one address at a time; `sr-upscale batch s3://bucket/folder` does all pictures of a folder")
    name = names[0]
    if (is_address(name) and name.endswith("/")) or (name != "-" and os.path.isdir(name)):
        plan = plan_objects(name, output, request, spool)
        return run_items(plan, request, console, verbose=verbose, spool=spool)
    source, place = open_picture(name, output, request, spool)
    return _single(
        without_query(name),
        source,
        place,
        request,
        console,
        verbose=verbose,
        on_written=lambda path: close_picture(path, request, spool),
    )


def _single(
    name: str,
    source: Path | None,
    place: str,
    request: Request,
    console: Console,
    *,
    verbose: bool,
    on_written: Callable[[Path], None] = lambda _path: None,
) -> int:
    """Enlarges one picture: a file or standard input (None), to a file or standard output (``-``)."""
    dry_run = request.run.dry_run
    if place == "-" and console.as_json and not dry_run:
        raise UsageError("--json and a picture cannot share standard output; give -o a file")
    if place != "-":
        check_single(source, Path(place), force=request.file.force, dry_run=dry_run)
    data: Path | bytes = sys.stdin.buffer.read() if source is None else source
    buffer = io.BytesIO()
    with console.progress(shown(Path(name).name)[:40]) as report:  # it stands before torch is imported
        from sr_upscale.images.decode import peek

        kind = peek(data) if isinstance(data, Path) else sniff(data[:256])  # no picture: refused before torch is loaded
        fmt = format_for(request.file.format, place, kind)

        from sr_upscale.pipeline import job
        from sr_upscale.pipeline.executor import upscaler_for

        upscaler = upscaler_for(request.network)
        if dry_run:
            say_plan(job.prepare(data, fmt, upscaler, request), upscaler, name, addressed(place), console)
            return 0
        done = job.run(
            data,
            buffer if place == "-" else Path(place),
            fmt,
            upscaler,
            request,
            on_step=lambda steps, total: report(steps / total, ""),
        )
        if place != "-":
            on_written(Path(place))
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
    console.event("picture", {"status": "done", "input": name, "output": addressed(place), **done})
    if sys.stderr.isatty() or verbose:
        console.note(made_in_words(name, place, done))
    return 0


def _to_standard_output(buffer: io.BytesIO) -> None:
    with standard_output():
        sys.stdout.buffer.write(buffer.getbuffer())
        sys.stdout.buffer.flush()
