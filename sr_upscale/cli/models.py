"""``sr-upscale models``: the list, and what can be done with its entries."""

from __future__ import annotations

import glob
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.cli.help import PanelCommand
from sr_upscale.errors import IntegrityError, ModelError, OutputError, UsageError
from sr_upscale.formatting import mebibytes, shown
from sr_upscale.pretrained.catalogue import CATALOGUE, RemoteWeights
from sr_upscale.pretrained.registry import (
    DEFAULT_MODEL,
    TABLE,
    WEIGHTS_SUFFIXES,
    StoredWeights,
    added,
    added_folder,
    cached_path,
    catalogue_entry,
    known_names,
    models_folder,
    resolve_weights,
)
from sr_upscale.pretrained.weights_file import read_info
from sr_upscale.storage.atomic import make_folder, output_error, replace_file

app = typer.Typer(
    help="List models, and download, check, add, blend or remove them.",
    invoke_without_command=True,
    no_args_is_help=False,
    rich_markup_mode=None,
)

Names = Annotated[
    list[str],
    typer.Argument(
        help="Names of `sr-upscale models`.", show_default=False, autocompletion=opt.completing(known_names)
    ),
]


@app.callback()
def models(context: typer.Context, as_json: opt.Json = False, debug: opt.Debug = False) -> int:
    """List the models: installed, factor, size, licence, what for."""
    del debug  # they act when they are parsed
    if context.invoked_subcommand is not None:
        return 0
    console = Console(as_json=as_json)
    rows = [_ours(entry) for entry in TABLE] + [_remote(entry) for entry in CATALOGUE]
    rows += [_added(name, path) for name, path in added().items()]
    console.result({"models": rows})
    if not as_json:
        for row in rows:
            size = mebibytes(row["bytes"]) if row["bytes"] else "missing"
            mark = "*" if row["default"] else "+" if row["installed"] else " "
            console.line(
                f"{mark} {row['name']:<33} x{row['scale'] or '?'}  {size:>8}  {row['license']:<12} {row['purpose']}"
            )
        console.line("* default family, the factor goes by the scale; + installed; the rest is downloaded when used")
    return 0


def _ours(entry: StoredWeights) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": entry.name,
        "scale": entry.scale,
        "purpose": entry.purpose,
        "license": entry.license,
        "installed": entry.path.is_file(),
        "default": entry.name.startswith(f"{DEFAULT_MODEL}-"),
        "path": str(entry.path),
        "bytes": 0,
    }
    if row["installed"]:
        info = read_info(entry.path)
        row |= {"bytes": entry.path.stat().st_size, "data": info.data, "scores": info.scores}
    return row


def _remote(entry: RemoteWeights) -> dict[str, Any]:
    return {
        "name": entry.name,
        "scale": entry.scale,
        "purpose": entry.purpose,
        "license": entry.license,
        "installed": cached_path(entry).is_file(),
        "default": False,
        "path": str(cached_path(entry)),
        "bytes": entry.file.size,
        "architecture": entry.architecture,
        "url": entry.file.url,
        "sha256": entry.file.sha256,
    }


def _added(name: str, path: Path) -> dict[str, Any]:
    return {
        "name": name,
        "scale": None,
        "purpose": "added by you",
        "license": "unknown",
        "installed": True,
        "default": False,
        "path": str(path),
        "bytes": path.stat().st_size,
    }


@app.command("info", cls=PanelCommand)
def info(
    name: Annotated[str, typer.Argument(help="Name or file.", autocompletion=opt.completing(known_names))],
    as_json: opt.Json = False,
) -> int:
    """Say all that is known of a model. Downloads nothing."""
    console = Console(as_json=as_json)
    entry = catalogue_entry(name)
    if entry is not None and not Path(name).is_file():
        row = _remote(entry)
    else:
        from sr_upscale.pretrained.load import traits_of

        path = resolve_weights(name)
        stored = next((each for each in TABLE if each.path == path), None)
        row = _ours(stored) if stored else _added(path.stem, path)
        traits = traits_of(path)
        row |= {"architecture": traits.architecture, "scale": traits.scale, "half": list(traits.half)}
        row |= {"parameters": traits.parameters} if traits.parameters else {}
    console.result(row)
    if not as_json:
        for key, value in row.items():
            console.line(f"{key:<13} {value}")
    return 0


@app.command("download", cls=PanelCommand)
def download(names: Names, quiet: opt.Quiet = False, as_json: opt.Json = False) -> int:
    """Fetch models into the cache, to use them offline later."""
    console = Console(quiet=quiet, as_json=as_json)
    paths = {name: str(obtain(name, console)) for name in names}
    console.result({"paths": paths})
    if not as_json:
        for path in paths.values():
            console.line(path)
    return 0


def obtain(name: str, console: Console) -> Path:
    """Finds the file of a model. One of the catalogue is downloaded if need be, with its licence said first.

    Raises:
        ModelError: There is no such name and no such file.
        NetworkError, IntegrityError, OutputError: The download failed.
    """
    entry = catalogue_entry(name)
    if entry is None or cached_path(entry).is_file() or Path(name).is_file():
        return resolve_weights(name)
    host = entry.file.addresses[0].split("/")[2]
    console.note(f"{entry.name}: licence {entry.license}; downloading {mebibytes(entry.file.size)} from {host}")
    with console.progress(entry.name) as report:
        return resolve_weights(name, on_progress=report)


def obtain_named(values: list[str] | None, console: Console) -> list[str]:
    """Names the models of options that may be repeated or hold commas, and gets them ready to run.

    Bicubic and our default are taken if none was named.

    Raises:
        NetworkError, IntegrityError, OutputError: A download failed.
    """
    names = [part for value in values or ["bicubic", DEFAULT_MODEL] for part in value.split(",") if part]
    for name in names:
        if catalogue_entry(name) is not None:
            obtain(name, console)
    return names


@app.command("verify", cls=PanelCommand)
def verify(as_json: opt.Json = False) -> int:
    """Check the bytes of everything that is installed; a damaged download is named and can be removed."""
    from sr_upscale.pretrained.load import module_of
    from sr_upscale.storage.digest import hash_file

    console = Console(as_json=as_json)
    bad: list[str] = []
    good: list[str] = []
    for entry in CATALOGUE:
        path = cached_path(entry)
        if path.is_file():
            (good if hash_file(path) == entry.file.sha256 else bad).append(entry.name)
    for name, path in {**{entry.name: entry.path for entry in TABLE}, **added()}.items():
        try:
            module_of(path)
        except ModelError:
            bad.append(name)
        else:
            good.append(name)
    console.result({"good": good, "bad": bad})
    if not as_json:
        for name in good:
            console.line(f"ok  {name}")
    if bad:
        raise IntegrityError(f"damaged: {', '.join(bad)}; `sr-upscale models remove NAME` and download or add it again")
    return 0


@app.command("remove", cls=PanelCommand)
def remove(names: Names) -> int:
    """Delete models from the cache. Ours are part of the program and stay."""
    for name in names:
        entry = catalogue_entry(name)
        path = cached_path(entry) if entry is not None else added().get(name)
        if path is None or not path.is_file():
            known = "is part of the program" if name in {each.name for each in TABLE} else "is not in the cache"
            raise UsageError(f"{name} {known}; `sr-upscale models` marks with + what can be removed")
        try:
            path.unlink()
        except OSError as error:
            raise output_error(path, error) from error
    return 0


@app.command("path", cls=PanelCommand)
def path(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name; without it the folder of downloaded models.", autocompletion=opt.completing(known_names)
        ),
    ] = None,
) -> int:
    """Say where a model's file is, or would be."""
    console = Console()
    if name is None:
        console.line(str(models_folder()))
        return 0
    entry = catalogue_entry(name)
    console.line(str(cached_path(entry) if entry is not None else resolve_weights(name)))
    return 0


@app.command("add", cls=PanelCommand)
def add(
    file: Annotated[str, typer.Argument(help="Weights: .safetensors or .pth.", show_default=False)],
    name: Annotated[str | None, typer.Option("--name", help="What to call it. Default: the file's stem.")] = None,
    force: opt.Force = False,
) -> int:
    """Copy weights into the cache, after a look inside, so that -n takes their name."""
    from sr_upscale.pretrained.load import module_of, traits_of

    source = Path(file)
    label = name or source.stem
    if source.suffix.lower() not in WEIGHTS_SUFFIXES or not source.is_file():
        raise UsageError(f"{shown(source)}: expected a file ending in {', '.join(WEIGHTS_SUFFIXES)}")
    taken = label in known_names() and label not in added()
    if "/" in label or label.startswith(".") or taken or catalogue_entry(label) is not None:
        raise UsageError(f"--name is {label!r}; expected a plain name that is not taken")
    target = added_folder() / f"{label}{source.suffix}"
    if label in added() and not force:
        raise UsageError(f"{label} is there already; use --force, or another --name")
    traits = traits_of(source)
    module_of(source)
    _copy(source, target)
    for old in target.parent.glob(f"{glob.escape(label)}.*"):
        if old != target and old.stem == label and old.suffix.lower() in WEIGHTS_SUFFIXES:
            old.unlink()  # -n would take it
    Console().note(f"{label}: {traits.architecture} x{traits.scale}; use it with -n {label}")
    return 0


def _copy(source: Path, target: Path) -> None:
    make_folder(target.parent)
    with replace_file(target) as temporary:
        shutil.copyfile(source, temporary)


@app.command("blend", cls=PanelCommand)
def blend(
    first: Annotated[str, typer.Argument(metavar="A", help="Name or file.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Name or file of the same architecture.")],
    out: Annotated[str, typer.Option("-o", "--out", help="File to write, .safetensors.")],
    alpha: Annotated[float, typer.Option("--alpha", help="Share of B: 0 is A, 1 is B.")] = 0.5,
    force: opt.Force = False,
) -> int:
    """Write weights between two others of one architecture (network interpolation)."""
    from sr_upscale.pretrained.blend import blend_files

    target = Path(out)
    if target.suffix != ".safetensors":
        raise UsageError(f"--out is {shown(target)}; expected a name ending in .safetensors")
    if target.exists() and not force:
        raise OutputError(f"{shown(target)} exists; use --force, or another --out")
    blend_files(resolve_weights(first), resolve_weights(second), alpha, target)
    Console().note(f"{shown(target)}: {1 - alpha:g} of {first} and {alpha:g} of {second}")
    return 0
