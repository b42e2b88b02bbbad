"""``sr-upscale batch FOLDER [-o FOLDER]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.errors import UsageError
from sr_upscale.formatting import shortened
from sr_upscale.pipeline.request import RUNNING, Request
from sr_upscale.pipeline.words import parse_shard
from sr_upscale.storage.remote import is_address


@opt.takes_request
def batch(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of pictures, or its address.")],
    request: Request,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Folder of the results. Default: FOLDER_x4 beside it.")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive/--no-recursive", "-r", help="Look into subfolders.")] = True,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard", metavar="I/N", help="Only part I of N, told by names, for N processes.", rich_help_panel=RUNNING
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Compare files by hashes, not by size and time, to tell what is done.",
            rich_help_panel=RUNNING,
        ),
    ] = False,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="ray", help="Compute on a Ray cluster (extra).", rich_help_panel=RUNNING),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="HOST", help="The cluster, as Ray takes it.", rich_help_panel=RUNNING),
    ] = None,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Enlarge a folder of pictures into a mirrored tree.

    One bad file never stops the rest; the exit code is 3 if any failed. A second run skips what is done, and several at
    once, also on other machines, share the work.
    """
    if on not in (None, "ray"):
        raise UsageError(f"--on is {shortened(on)!r}; expected ray")
    if address is not None and on is None:
        raise UsageError("--address is a cluster's; add --on ray")
    from sr_upscale.cli.running import Cluster, obtain_models, run_items
    from sr_upscale.pipeline.batch_plan import plan_folder
    from sr_upscale.pipeline.targets import folder_target

    console = Console(quiet=quiet, as_json=as_json)
    obtain_models(request.network, console, dry_run=request.run.dry_run)
    part = parse_shard(shard) if shard is not None else None
    if any(is_address(each) for each in (folder, output or "")):
        if on is not None or verify:
            raise UsageError(f"{'--on' if on else '--verify'} takes folders, not addresses; leave it out")
        from sr_upscale.pipeline.object_batch import plan_objects
        from sr_upscale.storage.spool import Spool

        with Spool() as spool:
            plan = plan_objects(folder, output, request, spool, recursive=recursive, shard=part)
            return run_items(plan, request, console, verbose=verbose, spool=spool)
    plan = plan_folder(
        Path(folder),
        folder_target(folder, output, request.size.target, request.network.model),
        recursive=recursive,
        fmt=request.file.format,
        suffix=request.file.suffix or "",
        shard=part,
    )
    return run_items(
        plan, request, console, verbose=verbose, verify=verify, cluster=Cluster(address=address) if on else None
    )
