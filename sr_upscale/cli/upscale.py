"""``sr-upscale [upscale] PICTURE ... [-o OUT]``."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console, standard_output
from sr_upscale.cli.obtain import obtain_models
from sr_upscale.errors import InputError, UsageError
from sr_upscale.formatting import addressed, shown
from sr_upscale.images.formats import COMICS, VIDEO, Format, format_of_path, sniff
from sr_upscale.inference.sizing import choose_factors
from sr_upscale.pipeline.request import Request, SizeOptions
from sr_upscale.pretrained.registry import form_path
from sr_upscale.storage.remote import is_address, without_query
from sr_upscale.video.containers import Container

if TYPE_CHECKING:
    from sr_upscale.inference.engine import Engine


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
    given = (*(inputs or []), *(input_option or []))
    names = list(dict.fromkeys(path for name in given for path in _expanded(name)))
    if not names:
        raise UsageError("no picture given; write `sr-upscale photo.jpg -o out.png`")
    return _enlarge(names, output, request, console, verbose=verbose)


def _expanded(name: str) -> list[str]:
    """Lists the files of a pattern such as ``*.jpg``, which Windows' shells leave to programs."""
    return (not os.path.lexists(name) and not is_address(name) and sorted(glob.glob(name))) or [name]


def _enlarge(names: list[str], output: str | None, request: Request, console: Console, *, verbose: bool) -> int:
    """Enlarges what `names` are into what `output` is.

    Args:
        names: Files, a folder, an address, or ``-`` for standard input.
        output: File, folder, address, or ``-`` for standard output; None is beside the picture.
        request: How.
        console: Where to print.
        verbose: Whether to print device, number type and tiles.

    Returns:
        The exit code.

    Raises:
        SrUpscaleError: Any of its kinds.
    """
    from sr_upscale.cli.running import run_items  # a shell that completes a word needs none of it
    from sr_upscale.pipeline.places import picture_at, planned
    from sr_upscale.pipeline.targets import plan_files

    obtain_models(request.network, console, dry_run=request.run.dry_run)
    name = names[0]
    if len(names) > 1:
        _refuse_two(names, output)
        return run_items(plan_files(names, output, request), request, console, verbose=verbose)
    if name.endswith("/") if is_address(name) else name != "-" and os.path.isdir(name):
        with planned(name, output, request) as (plan, spool):
            return run_items(plan, request, console, verbose=verbose, spool=spool)
    if name == "-" and output is None and sys.stdout.isatty() and not request.run.dry_run:
        raise UsageError(
            "the picture would be printed on the terminal; write it with -o out.png, or force it with -o -"
        )
    new_folder = output is not None and output.endswith(("/", os.sep)) and not is_address(output)
    with picture_at(name, output, request) as (source, place, commit):
        name = without_query(name)
        return _single(name, source, place, commit, request, console, verbose=verbose, new_folder=new_folder)


def _refuse_two(names: list[str], output: str | None) -> None:
    if any(is_address(each) for each in (*names, output or "")):
        raise UsageError("one address at a time; `sr-upscale batch s3://bucket/folder` does all pictures of a folder")
    if output is None and len(names) == 2 and format_of_path(Path(names[1])) and not os.path.lexists(names[1]):
        raise UsageError(f"{shown(names[1])}: no such file; if it is the output, write -o {shown(names[1])}")


def _single(
    name: str,
    source: Path | None,
    place: str,
    commit: Callable[[Path], None],
    request: Request,
    console: Console,
    *,
    verbose: bool,
    new_folder: bool,
) -> int:
    """Enlarges one picture: a file or standard input (None), to a file or standard output (``-``).

    With `new_folder`, the folder of the output is made where it is missing.
    """
    from sr_upscale.cli.running import format_plan, frame_steps
    from sr_upscale.pipeline.targets import check_single

    dry_run = request.run.dry_run
    if place != "-":
        check_single(source, Path(place), force=request.file.force, dry_run=dry_run, new_folder=new_folder)
    elif console.as_json and not dry_run:
        raise UsageError("--json and a picture cannot share standard output; give -o a file")
    buffer = io.BytesIO()
    with console.progress(shown(Path(name).name)[:40]) as report, contextlib.ExitStack() as opened:
        from sr_upscale.images.decode import pixels_of_small  # the bar stands before torch is imported

        # no picture: refused before torch is loaded
        head = b"" if source is not None else sys.stdin.buffer.read(256)
        kind, fmt = _kind_and_format(source, head, place, request)

        from sr_upscale.pipeline.executor import engine_for, job_for, run_file

        job, moving = job_for(fmt), isinstance(fmt, Container)
        data: Any = source or _standard_input(head, opened, kind, place, piped=moving and place == "-")
        engine = engine_for(request.network, pixels=None if moving else pixels_of_small(data, kind))
        if dry_run:
            prepared = job.prepare(data, fmt, engine, request)
            planned = job.forecast(prepared, engine)
            _report("planned", name, place, planned, console)
            if not console.as_json:
                console.line(format_plan(prepared.name, place, planned))
            return 0
        _say_what_takes_long(engine, request.size, console)
        on_step = frame_steps(name, report, console) if moving else lambda done, total: report(done / total, "")
        target, around = _way_out(place, fmt, buffer, console)
        with around:
            done = run_file(data, target, fmt, engine, request, on_step=on_step, on_whole=commit)
    if place == "-":
        _print(buffer.getbuffer())
    _report_done(name, place, done, engine, console, verbose=verbose)
    return InputError.exit_code if done.get("damaged") and not request.file.allow_truncated else 0


def _kind_and_format(source: Path | None, head: bytes, place: str, request: Request) -> tuple[str, Format | Container]:
    """Detects what an input is, by its first bytes or as a comic by its name, and chooses the output's format."""
    from sr_upscale.images.decode import peek
    from sr_upscale.pipeline.targets import format_for

    if source is not None and source.suffix.lower() in COMICS:
        from sr_upscale.pipeline.comic import format_of_comic

        return "a comic", format_of_comic(source, Path(place))
    kind = peek(source, clips=True) if source is not None else sniff(head)
    return kind, format_for(request.file.format, place, kind)


def _standard_input(head: bytes, opened: contextlib.ExitStack, kind: str, place: str, *, piped: bool) -> Any:
    """Returns what comes by standard input: bytes, or of a clip a stream to be piped on, or a file.

    Args:
        head: What was read of it.
        opened: Removes the file at its end.
        kind: Its format.
        place: The output, beside which a clip is stored first: its sound is wanted when its frames are done.
        piped: Whether frames go on as they come.
    """
    if kind != VIDEO and not piped:
        return head + sys.stdin.buffer.read()
    from sr_upscale.pipeline.batch_plan import folder_there
    from sr_upscale.video.pipe import Rejoined

    joined = Rejoined(head, sys.stdin.buffer)
    if piped:
        return joined
    folder = folder_there(Path(place).parent)
    file = opened.enter_context(tempfile.NamedTemporaryFile(dir=folder, prefix=".sr-"))  # noqa: SIM115
    shutil.copyfileobj(joined, file)
    file.flush()
    return Path(file.name)


def _way_out(
    place: str, fmt: Format | Container, buffer: BinaryIO, console: Console
) -> tuple[Path | BinaryIO, contextlib.AbstractContextManager[None]]:
    """Returns where an output is written to, and what surrounds that. Pictures for standard output are buffered."""
    from sr_upscale.cli.running import going_on

    if place != "-":
        return Path(place), going_on(Path(place), console)
    if isinstance(fmt, Container):
        return sys.stdout.buffer, standard_output()
    return buffer, contextlib.nullcontext()


def _print(left: memoryview) -> None:
    with standard_output():
        while left:  # with PYTHONUNBUFFERED a write may take a part
            left = left[sys.stdout.buffer.write(left) :]
        sys.stdout.buffer.flush()


def _report_done(
    name: str, place: str, done: Mapping[str, Any], engine: Engine, console: Console, *, verbose: bool
) -> None:
    from sr_upscale.cli.running import format_cut, format_result

    if verbose:
        choice = engine.choice
        console.note(
            f"{engine.backend} ({engine.backend_reason}), device {choice.device} ({choice.device_reason}), "
            f"{done['dtype']} ({engine.planner.dtype_reason(done['bits'])}), {format_cut(done)}"
        )
        if "busy_seconds" in done and done["frames"] > 1:
            console.note(f"compute busy {done['busy_seconds'] / max(done['seconds'], 1e-9):.0%} of the time")
    _report("done", name, place, done, console)
    if sys.stderr.isatty() or verbose:
        console.note(format_result(name, place, done))


def _say_what_takes_long(engine: Engine, size: SizeOptions, console: Console) -> None:
    """Says that a model is exported first, or that a factor takes two networks, the second over a large picture."""
    exports = engine.backend in ("onnxruntime", "openvino")
    if exports and not all(form_path(weights, ".onnx").is_file() for weights in engine.planner.weights.values()):
        console.note("exporting to ONNX, once for each model ...")
    passes = choose_factors(engine.planner.weights, size.scale or 1, one_pass=size.one_pass)
    if len(passes) > 1:
        console.note(
            f"x{size.scale:g} runs x{' and x'.join(map(str, passes))} one after the other; "
            f"--one-pass runs x{passes[0]} alone and resizes, which takes a fraction of the time"
        )


def _report(status: str, name: str, place: str, details: Mapping[str, Any], console: Console) -> None:
    for warning in details["warnings"]:
        console.warn(warning)
    console.event("picture", {"status": status, "input": name, "output": addressed(place), **details})
