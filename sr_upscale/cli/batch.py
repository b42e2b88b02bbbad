"""``sr-upscale batch FOLDER [-o FOLDER]``."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.errors import InputError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.interrupts import STOP
from sr_upscale.pipeline.batch_plan import BatchPlan
from sr_upscale.pipeline.manifest import Stamp, stamp_of
from sr_upscale.pipeline.request import BatchOptions, Request
from sr_upscale.storage.remote import is_address

SETTLED_S = 2.0
"""Seconds in which a file that arrives must not change before it counts as whole."""


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
    if sharing.watch:
        if far or request.run.dry_run:
            raise UsageError("--watch takes folders of this machine, and no dry run; leave it out")
        _watch(folder, output, sharing, request, console, verbose=verbose)
    with planned(folder, output, request, recursive=sharing.recursive, shard=sharing.shard) as (plan, spool):
        workers = None
        if sharing.on is not None and not request.run.dry_run:
            from sr_upscale.pipeline.ray_workers import FolderWork, RayWorkers

            work = FolderWork(
                folder=folder, output=output, request=request, recursive=sharing.recursive, verify=sharing.verify
            )
            workers = RayWorkers(work=work, by_shards=is_address(output or folder), address=sharing.address)
        return run_items(plan, request, console, verbose=verbose, verify=sharing.verify, workers=workers, spool=spool)


def _watch(
    folder: str, output: str | None, sharing: BatchOptions, request: Request, console: Console, *, verbose: bool
) -> NoReturn:
    """Enlarges the pictures of a folder as they arrive, until a signal ends it.

    A file counts as whole when its size and time have stayed the same for `SETTLED_S` seconds. One that failed is tried
    again when it changes.
    """
    from sr_upscale.cli.running import run_items
    from sr_upscale.pipeline.places import planned

    console.note(f"watching {shown(folder)}; stop with Ctrl-C")
    seen: dict[Path, Stamp] = {}
    tried: dict[Path, Stamp] = {}
    while True:
        stamps: dict[Path, Stamp] = {}
        try:
            with planned(folder, output, request, recursive=sharing.recursive, shard=sharing.shard) as (plan, _spool):
                sources = [item.source for item in (*plan.items, *(item for item, _error in plan.refused))]
                stamps = {source: stamp for source in sources if (stamp := stamp_of(source)) is not None}
                ready = {path for path, stamp in stamps.items() if seen.get(path) == stamp != tried.get(path)}
                if ready:
                    run_items(_only(plan, ready), request, console, verbose=verbose, verify=sharing.verify)
        except InputError:
            if not os.path.isdir(folder):
                raise
        tried |= {path: stamps[path] for path in stamps.keys() & seen.keys() if seen[path] == stamps[path]}
        seen = stamps
        until = time.monotonic() + SETTLED_S
        while time.monotonic() < until:
            STOP.check()
            time.sleep(0.1)


def _only(plan: BatchPlan, sources: set[Path]) -> BatchPlan:
    """Returns a plan without other pictures, and without what was noticed while looking for them."""
    return dataclasses.replace(
        plan,
        items=tuple(item for item in plan.items if item.source in sources),
        refused=tuple(each for each in plan.refused if each[0].source in sources),
        left_out={},
        warnings=(),
    )
