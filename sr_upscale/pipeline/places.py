"""Where pictures come from and go to: files, or objects of a store, which files of a spool stand for."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

from sr_upscale.errors import OutputError, UsageError
from sr_upscale.formatting import addressed, show_as, shown
from sr_upscale.pipeline.batch_plan import BatchPlan, plan_folder
from sr_upscale.pipeline.parsing import Shard
from sr_upscale.pipeline.request import Request
from sr_upscale.pipeline.targets import default_name, folder_target, single_target
from sr_upscale.storage.objects import check_address, get, name_of, put, read_note, refuse_missing_bucket
from sr_upscale.storage.process import identity
from sr_upscale.storage.remote import is_address, without_query
from sr_upscale.storage.spool import Spool


@contextlib.contextmanager
def planned(
    folder: str, output: str | None, request: Request, *, recursive: bool = True, shard: Shard | None = None
) -> Iterator[tuple[BatchPlan, Spool | None]]:
    """Plans a folder of pictures: see `plan_folder` and `folder_target`, and of objects `plan_objects`.

    Yields:
        The plan, and the spool of a plan with objects.
    """
    if is_address(folder) or is_address(output or ""):
        from sr_upscale.pipeline.object_batch import plan_objects

        with Spool() as spool:
            yield plan_objects(folder, output, request, spool, recursive=recursive, shard=shard), spool
        return
    out = folder_target(folder, output, request)
    fmt, suffix = request.file.format, request.file.suffix or ""
    yield plan_folder(Path(folder), out, recursive=recursive, fmt=fmt, suffix=suffix, shard=shard), None


def open_picture(name: str, output: str | None, request: Request, spool: Spool) -> tuple[Path | None, str]:
    """Checks where a picture goes, and reads it if it is an object.

    Args:
        name: The picture: an address, a path, or ``-``, standard input.
        output: What -o says: an address, one of a folder that ends in ``/``, or what `single_target` takes.
        request: Gives the name in a folder.
        spool: Its folders stand for the objects from now on.

    Returns:
        The file to read, None for standard input, and the file to write, or ``-``.

    Raises:
        UsageError: An address cannot be used so.
        InputError: There is no such object.
        OutputError: The output is there or cannot be.
        NetworkError: A store cannot be reached.
    """
    source = None if name == "-" else Path(name)
    if is_address(name):
        check_address(name)
        source = spool.inputs / name_of(name)
        folder = without_query(name).rpartition("/")[0]
        show_as(spool.inputs, folder)
        if output is None:
            output = f"{folder}/"
    if output is None or not is_address(output):
        place = "-" if source is None and output is None else single_target(source, output, request)
    else:
        check_address(output, to_write=True)
        address = output + default_name(source or Path("stdin"), request) if output.endswith("/") else output
        if address == name:
            raise UsageError(f"{shown(address)} is an input and would be overwritten; choose another -o")
        place = str(spool.outputs / name_of(address))
        show_as(spool.outputs, address.rpartition("/")[0])
        _check_output(address, request)
    if source is not None and is_address(name):
        get(name, source)
    return source, place


def _check_output(address: str, request: Request) -> None:
    refuse_missing_bucket(address)
    if not (request.file.force or request.run.dry_run) and read_note(address) is not None:
        raise OutputError(f"{shown(address)}: exists; add --force to overwrite it, or choose another -o")


def close_picture(place: Path, request: Request, spool: Spool) -> None:
    """Puts a written file in place, if it stands for an object.

    Raises:
        OutputError, NetworkError: See `objects.put`.
    """
    if place.is_relative_to(spool.outputs):
        note = json.dumps({"by": f"{identity()}-{secrets.token_hex(4)}"})
        put(addressed(place), place, note=note, overwrite=request.file.force)
