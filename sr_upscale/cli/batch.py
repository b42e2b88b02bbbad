"""``sr-upscale batch FOLDER [-o FOLDER]``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.errors import UsageError
from sr_upscale.formatting import shown
from sr_upscale.pipeline.request import BatchOptions, Request
from sr_upscale.storage.remote import is_address


@opt.command()
def batch(
    *,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of pictures, or its s3:// or gs:// address.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Folder of the results. Default: FOLDER_x4 beside it.")
    ] = None,
    sharing: BatchOptions,
    verbose: opt.Verbose = False,
    request: Request,
    console: Console,
) -> int:
    """Enlarge a folder of pictures, keeping its subfolders.

    A picture that fails does not stop the others; the exit code is then 3. A second run skips finished pictures.
    Several runs at once, also on other machines, share the work.
    """
    if os.path.isfile(folder):
        raise UsageError(f"{shown(folder)} is a file, and batch takes a folder; use `sr-upscale {shown(folder)}`")
    from sr_upscale.cli.obtain import obtain_models
    from sr_upscale.cli.running import run_items
    from sr_upscale.pipeline.places import planned

    obtain_models(request.network, console, dry_run=request.run.dry_run)
    far = is_address(folder) or is_address(output or "")
    if far and sharing.verify:
        raise UsageError("--verify takes folders, not addresses; leave it out")
    with planned(folder, output, request, recursive=sharing.recursive, shard=sharing.shard) as (plan, spool):
        workers = None
        if sharing.on is not None and not request.run.dry_run:
            from sr_upscale.pipeline.ray_workers import FolderWork, RayWorkers

            work = FolderWork(
                folder=folder, output=output, request=request, recursive=sharing.recursive, verify=sharing.verify
            )
            workers = RayWorkers(work=work, by_shards=is_address(output or folder), address=sharing.address)
        return run_items(plan, request, console, verbose=verbose, verify=sharing.verify, workers=workers, spool=spool)
