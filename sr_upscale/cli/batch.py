"""``sr-upscale batch FOLDER [-o FOLDER]``."""

from __future__ import annotations

from typing import Annotated

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.errors import UsageError
from sr_upscale.formatting import shortened
from sr_upscale.pipeline.request import RUNNING, Request
from sr_upscale.pipeline.words import parse_shard
from sr_upscale.storage.remote import is_address

_running = opt.panel(RUNNING)


@opt.command()
def batch(
    request: Request,
    console: Console,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of pictures, or its address.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Folder of the results. Default: FOLDER_x4 beside it.")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive/--no-recursive", "-r", help="Look into subfolders.")] = True,
    shard: Annotated[
        str | None,
        _running("--shard", metavar="I/N", help="Only part I of N, told by names, for N processes."),
    ] = None,
    verify: Annotated[
        bool, _running("--verify", help="Compare files by hashes, not by size and time, to tell what is done.")
    ] = False,
    on: Annotated[str | None, _running("--on", metavar="ray", help="Compute on a Ray cluster (extra).")] = None,
    address: Annotated[str | None, _running("--address", metavar="HOST", help="The cluster, as Ray takes it.")] = None,
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
    from sr_upscale.cli.obtain import obtain_models
    from sr_upscale.cli.running import Cluster, run_items
    from sr_upscale.pipeline.targets import plan_tree

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
    plan = plan_tree(folder, output, request, recursive=recursive, shard=part)
    cluster = Cluster(address=address) if on else None
    return run_items(plan, request, console, verbose=verbose, verify=verify, cluster=cluster)
