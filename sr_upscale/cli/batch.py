"""``sr-upscale batch FOLDER [-o FOLDER]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.cli.running import NetworkOptions, folder_target, job_settings, obtain_models, run_items, target_of
from sr_upscale.images.formats import format_by_name
from sr_upscale.pipeline.batch import plan_folder
from sr_upscale.pretrained.registry import DEFAULT_MODEL


def batch(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of pictures.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Folder of the results. Default: FOLDER_x4 beside it.")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive/--no-recursive", "-r", help="Look into subfolders.")] = True,
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
    """Enlarge a folder of pictures into a mirrored tree.

    One bad file never stops the rest; the exit code is 3 if any failed. A second run skips what is done.
    """
    del debug, offline  # read from the command line by `app.run`, before options are parsed
    target = target_of(scale=scale, width=width, height=height, size=size)
    fmt = None if format_name in (None, "auto") else format_by_name(format_name or "")
    settings = job_settings(
        target, quality, background, max_pixels, frame, allow_truncated, compression, strip_metadata
    )
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
    console = Console(quiet=quiet, as_json=as_json)
    obtain_models(network, console, dry_run=dry_run)
    plan = plan_folder(
        Path(folder),
        folder_target(folder, output, target, network.model),
        recursive=recursive,
        fmt=fmt,
        suffix=suffix or "",
    )
    return run_items(plan, settings, fmt, network, console, jobs=jobs, force=force, dry_run=dry_run, verbose=verbose)
