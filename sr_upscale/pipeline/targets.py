"""Where outputs go, by what -o says and by what was asked for. Does not import torch."""

from __future__ import annotations

import os
from pathlib import Path

from sr_upscale.errors import InputError, OutputError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.images.formats import FORMATS, VIDEO, Format, format_of_path, own_format
from sr_upscale.inference.sizing import choose_factors
from sr_upscale.pipeline.batch_plan import (
    BatchPlan,
    output_name,
    plan_items,
    refuse_collisions,
    refuse_name,
    refuse_unwritable,
)
from sr_upscale.pipeline.manifest import Item
from sr_upscale.pipeline.request import Request
from sr_upscale.pretrained.registry import resolve_family
from sr_upscale.storage.atomic import make_folder, refuse_existing
from sr_upscale.video.containers import CONTAINERS, Container, container_of_path


def output_label(request: Request) -> str:
    """Makes the part of a default output name that says what was done, such as ``x4_psnr-x4``.

    A dial that blends two models is part of it: ``x4_gan-x4_fidelity-0.5``.
    """
    target, network = request.size.target, request.network
    dials = [(name, share) for name in ("denoise", "fidelity") if (share := getattr(network, name)) is not None]
    blend = "".join(f"_{name}-{share:g}" for name, share in dials)
    weights = resolve_family(network.model)
    family = Path(network.model).stem
    if target.width and target.height:
        return f"{target.width}x{target.height}_{family}{blend}"
    if target.width or target.height:
        return f"w{target.width}_{family}{blend}" if target.width else f"h{target.height}_{family}{blend}"
    scale = target.scale or max(weights)
    return f"x{scale:g}_{weights[choose_factors(weights, scale)[0]].stem}{blend}"


def names_file(output: str) -> bool:
    """Says whether -o, where a folder is needed, means a file: one that is there, or by its ending."""
    path = Path(output)
    return not path.is_dir() and (path.exists() or bool(format_of_path(path) or container_of_path(path)))


def folder_target(folder: str, output: str | None, request: Request) -> Path:
    """Says where a folder's outputs go: to -o, or to ``FOLDER_x4`` beside it.

    Raises:
        UsageError: -o means standard output, or a file.
    """
    if output == "-":
        raise UsageError("a folder cannot be written to standard output; give -o a folder")
    if output is not None:
        if names_file(output):
            raise UsageError(f"{shown(output)} is a file; a folder of pictures needs a folder with -o")
        return Path(output)
    path = Path(folder).resolve()
    return path.with_name(f"{path.name}_{output_label(request).split('_')[0]}")


def default_name(source: Path, request: Request) -> str:
    """Names the output of a picture for which -o names no file."""
    return output_name(source, label=output_label(request), suffix=request.file.suffix, fmt=request.file.format)


def single_target(source: Path | None, output: str | None, request: Request) -> str:
    """Says where one picture goes: to a file, or to ``-``, standard output.

    Args:
        source: The picture; None for standard input.
        output: What -o says: a file, a folder, ``-``, or None for a file beside the picture.
        request: Gives the name of a file in a folder.
    """
    if output == "-":
        return "-"
    name = default_name(source or Path("stdin"), request)
    if output is None:
        return str((source or Path()).with_name(name))
    if os.path.isdir(output) or output.endswith(("/", "\\")):
        return str(Path(output) / name)
    return output


def check_single(
    source: Path | None, target: Path, *, force: bool, dry_run: bool = False, new_folder: bool = False
) -> None:
    """Checks everything about the output that can be known before the input is opened.

    With `new_folder`, its folder is made where it is missing, but for a dry run.
    """
    if source is not None:
        if not os.path.lexists(source):
            raise InputError(f"{shown(source)}: no such file; check the path")
        refuse_collisions([Item(source=source, target=target)])
    refuse_name(target)
    refuse_unwritable([target])
    if new_folder and not dry_run:
        make_folder(target.parent)
    if not (new_folder or os.path.lexists(target.parent)):
        raise OutputError(f"{shown(target)}: the folder {shown(target.parent)} does not exist; create it first")
    if target.is_dir():
        raise OutputError(f"{shown(target)}: is a folder; choose a file name with -o")
    if target.exists() and not target.is_file():
        raise OutputError(f"{shown(target)}: is not a regular file; choose another -o, or - for a pipe")
    refuse_existing(target, force=force or dry_run)


def format_for(fmt: Format | Container | None, place: str, kind: str) -> Format | Container:
    """Chooses the format that was asked for, else by the output's name, else (standard output) the input's own."""
    if fmt is not None:
        return fmt
    if place == "-":
        return CONTAINERS["y4m"] if kind == VIDEO else own_format(FORMATS.get(kind, FORMATS["png"]))
    if (container := container_of_path(Path(place))) is not None:
        if not container.muxer:
            raise UsageError(f"{shown(place)}: {Path(place).suffix} is only read; end the name in .mkv")
        return container
    by_name = format_of_path(Path(place))
    if by_name is not None and by_name.written_as:
        raise UsageError(f"{shown(place)}: {by_name.name.upper()} is only read; end the name in .{by_name.written_as}")
    if by_name is None:
        raise UsageError(f"{shown(place)}: no known ending; give --format, or end the name in .png")
    return by_name


def plan_files(names: list[str], output: str | None, request: Request) -> BatchPlan:
    """Plans several files: every output goes into the folder of -o, or beside its input."""
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
        items.append(Item(source=path, target=folder / default_name(path, request)))
    return plan_items(items)
