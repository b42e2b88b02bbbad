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
    NetworkOptions,
    folder_target,
    job_settings,
    made_in_words,
    make_upscaler,
    names_file,
    obtain_models,
    output_label,
    run_items,
    say_plan,
    target_of,
)
from sr_upscale.errors import OutputError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.images.formats import FORMATS, Format, format_by_name, format_of_path, own_format, sniff
from sr_upscale.pipeline.batch import (
    BatchPlan,
    Item,
    output_name,
    plan_folder,
    plan_items,
    refuse_collisions,
    refuse_unwritable,
)
from sr_upscale.pretrained.registry import DEFAULT_MODEL
from sr_upscale.storage.atomic import output_error


def upscale(
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="PICTURE...", help="Files, a folder, or - for stdin.")
    ] = None,
    input_option: Annotated[list[str] | None, typer.Option("-i", "--input", help="Same as PICTURE.")] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="File, folder, or - for stdout.")] = None,
    model: opt.Model = None,
    fidelity: opt.Fidelity = None,
    before: opt.Before = None,
    tta: opt.Tta = False,
    scale: opt.Scale = None,
    width: opt.Width = None,
    height: opt.Height = None,
    size: opt.Size = None,
    tile: opt.Tile = 0,
    no_tile: opt.NoTile = False,
    overlap: opt.Overlap = None,
    halo: opt.Halo = None,
    max_memory: opt.MaxMemory = None,
    device: opt.Device = "auto",
    backend: opt.Backend = "torch",
    fp32: opt.Fp32 = False,
    bf16: opt.Bf16 = False,
    fp16: opt.Fp16 = False,
    format_name: opt.FormatName = None,
    quality: opt.Quality = None,
    compression: opt.Compression = None,
    strip_metadata: opt.StripMetadata = False,
    suffix: opt.Suffix = None,
    background: opt.Background = None,
    max_pixels: opt.MaxPixels = None,
    frame: opt.FrameNumber = None,
    allow_truncated: opt.AllowTruncated = False,
    jobs: opt.JobsOption = None,
    force: opt.Force = False,
    dry_run: opt.DryRun = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    offline: opt.Offline = False,
    verbose: opt.Verbose = False,
    debug: opt.Debug = False,
) -> int:
    """Enlarge pictures (the default command)."""
    del debug, offline  # read from the command line by `app.run`, before options are parsed
    names = [*(inputs or []), *(input_option or [])]
    if not names:
        raise UsageError("no picture given; write `sr-upscale photo.jpg -o out.png`")
    console = Console(quiet=quiet, as_json=as_json)
    target = target_of(scale=scale, width=width, height=height, size=size)
    settings = job_settings(
        target, quality, background, max_pixels, frame, allow_truncated, compression, strip_metadata
    )
    fmt = None if format_name in (None, "auto") else format_by_name(format_name or "")
    network = NetworkOptions(
        model=model or DEFAULT_MODEL,
        fidelity=fidelity,
        before=tuple(before or ()),
        tta=tta,
        device=device,
        backend=backend,
        dtype=opt.dtype_name(fp32=fp32, bf16=bf16, fp16=fp16),
        tile=tile,
        no_tile=no_tile,
        overlap=overlap,
        halo=halo,
        max_memory=opt.parse_bytes(max_memory) if max_memory else None,
    )
    obtain_models(network, console, dry_run=dry_run)
    label = output_label(target, network.model)
    if len(names) == 1 and names[0] != "-" and os.path.isdir(names[0]):
        plan = plan_folder(
            Path(names[0]), folder_target(names[0], output, target, network.model), fmt=fmt, suffix=suffix or ""
        )
        return run_items(
            plan, settings, fmt, network, console, jobs=jobs, force=force, dry_run=dry_run, verbose=verbose
        )
    if len(names) > 1:
        plan = _many(names, output, label, suffix, fmt)
        return run_items(
            plan, settings, fmt, network, console, jobs=jobs, force=force, dry_run=dry_run, verbose=verbose
        )
    source = None if names[0] == "-" else Path(names[0])
    place = "-" if source is None and output is None else _single_target(source, output, label, suffix, fmt)
    if place == "-" and as_json and not dry_run:
        raise UsageError("--json and a picture cannot share standard output; give -o a file")
    if place != "-":
        _check_single(source, Path(place), force=force, dry_run=dry_run)
    from sr_upscale.images.decode import peek

    data: Path | bytes = sys.stdin.buffer.read() if source is None else source
    kind = peek(data) if isinstance(data, Path) else sniff(data[:256])  # no picture: refused before torch is loaded
    chosen = _format_for(fmt, place, kind)
    opt.parse_jobs(jobs, devices=1)  # one picture has nothing to overlap; a wrong value is refused all the same

    from sr_upscale.pipeline import job

    upscaler = make_upscaler(network)
    if dry_run:
        say_plan(job.prepare(data, chosen, upscaler, settings), upscaler, place, console)
        return 0
    buffer = io.BytesIO()
    with console.progress(shown(names[0])) as report:
        done = job.run(
            data,
            buffer if place == "-" else Path(place),
            chosen,
            upscaler,
            settings,
            on_step=lambda steps, total: report(steps / total, ""),
        )
    if place == "-":
        try:
            sys.stdout.buffer.write(buffer.getbuffer())
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise output_error(Path("standard output"), error) from error
    for warning in done["warnings"]:
        console.warn(warning)
    if verbose:
        choice = upscaler.choice
        console.note(
            f"device {choice.device} ({choice.device_reason}), "
            f"{done['dtype']} ({upscaler.dtype_reason(done['bits'])}), {job.cut_in_words(done)}"
        )
    console.result({"input": names[0], "output": str(place), **done})
    if sys.stderr.isatty() or verbose:
        console.note(made_in_words(names[0], str(place), done))
    return 0


def _single_target(source: Path | None, output: str | None, label: str, suffix: str | None, fmt: Format | None) -> str:
    if output == "-":
        return "-"
    name = output_name(source or Path("stdin"), label=label, suffix=suffix, fmt=fmt)
    if output is None:
        return str((source or Path()).with_name(name))
    if os.path.isdir(output) or output.endswith(("/", "\\")):
        return str(Path(output) / name)
    return output


def _check_single(source: Path | None, target: Path, *, force: bool, dry_run: bool) -> None:
    """Everything about the output that can be known before the input is opened."""
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
    """Format asked for, else by the output's name, else the input's own."""
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


def _many(names: list[str], output: str | None, label: str, suffix: str | None, fmt: Format | None) -> BatchPlan:
    """Several files: every output into the folder of -o, or beside its input."""
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
        items.append(Item(source=path, target=folder / output_name(path, label=label, suffix=suffix, fmt=fmt)))
    return plan_items(items)
