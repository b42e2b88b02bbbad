"""Where pictures come from and go to: files, or objects of a store, which files of a spool stand for."""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from sr_upscale.errors import OutputError, UsageError
from sr_upscale.formatting import addressed, show_as, shown
from sr_upscale.pipeline.batch_plan import BatchPlan, plan_folder
from sr_upscale.pipeline.parsing import Shard
from sr_upscale.pipeline.request import Request
from sr_upscale.pipeline.targets import default_name, folder_target, single_target
from sr_upscale.storage.atomic import identity
from sr_upscale.storage.objects import Spool, check_address, get, name_of, put, read_note, refuse_missing_bucket
from sr_upscale.storage.remote import is_address, without_query


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


@contextlib.contextmanager
def picture_at(
    name: str, output: str | None, request: Request
) -> Iterator[tuple[Path | None, str, Callable[[Path], None]]]:
    """Checks where one picture goes, and reads it if it is an object.

    Args:
        name: The picture: an address, a path, or ``-``, standard input.
        output: What -o says: an address, one of a folder that ends in ``/``, or what `single_target` takes.
        request: Gives the name in a folder.

    Yields:
        The file to read, None for standard input; the file to write, or ``-``; and what puts a written file in place,
        which is to be called with it.

    Raises:
        UsageError: An address cannot be used so.
        InputError: There is no such object.
        OutputError: The output is there or cannot be.
        NetworkError: A store cannot be reached.
    """
    if not (is_address(name) or is_address(output or "")):
        source = None if name == "-" else Path(name)
        place = "-" if source is None and output is None else single_target(source, output, request)
        yield source, place, lambda _written: None
        return
    with Spool() as spool:
        source, folder = _file_of(name, spool)
        output = folder if output is None else output
        if is_address(output):
            check_address(output, to_write=True)
            address = output + default_name(source or Path("stdin"), request) if output.endswith("/") else output
            if address == name:
                raise UsageError(f"{shown(address)} is an input and would be overwritten; choose another -o")
            place = str(spool.outputs / name_of(address))
            show_as(spool.outputs, address.rpartition("/")[0])
            _check_output(address, request)
        else:
            place = single_target(source, output, request)
        if source is not None and is_address(name):
            get(name, source)
        yield source, place, functools.partial(_commit, request, spool)


def _file_of(name: str, spool: Spool) -> tuple[Path | None, str]:
    """Returns the file that a picture is or will be, and the address of its folder if it has one."""
    if not is_address(name):
        return None if name == "-" else Path(name), ""
    check_address(name)
    folder = without_query(name).rpartition("/")[0]
    show_as(spool.inputs, folder)
    return spool.inputs / name_of(name), f"{folder}/"


def _check_output(address: str, request: Request) -> None:
    refuse_missing_bucket(address)
    if not (request.file.force or request.run.dry_run) and read_note(address) is not None:
        raise OutputError(f"{shown(address)}: exists; add --force to overwrite it, or choose another -o")


def _commit(request: Request, spool: Spool, place: Path) -> None:
    """Puts a written file in place, if it stands for an object."""
    if place.is_relative_to(spool.outputs):
        note = json.dumps({"by": f"{identity()}-{secrets.token_hex(4)}"})
        put(addressed(place), place, note=note, overwrite=request.file.force)
