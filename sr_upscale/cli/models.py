"""``sr-upscale models``: the list, and what can be done with its entries."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.commands import PanelCommand, PlainGroup
from sr_upscale.cli.console import Console
from sr_upscale.cli.obtain import obtain
from sr_upscale.errors import IntegrityError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.pretrained import inventory
from sr_upscale.pretrained.registry import cached_path, catalogue_entry, known_names, models_folder, resolve_weights
from sr_upscale.storage.atomic import refuse_existing

app = typer.Typer(
    name="models",
    cls=PlainGroup,
    help="List, download, check, add, blend or remove models.",
    invoke_without_command=True,
    no_args_is_help=False,
    rich_markup_mode=None,
    add_completion=False,
)

Names = Annotated[
    list[str],
    typer.Argument(
        help="Names of `sr-upscale models`.", show_default=False, autocompletion=opt.completing(known_names)
    ),
]


@app.callback()
def models(context: typer.Context, as_json: opt.Json = False, debug: opt.Debug = False) -> int:
    """List the models: installed, factor, size, licence, purpose."""
    del debug  # they act when they are parsed
    return 0 if context.invoked_subcommand is not None else list_models(as_json)


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@app.command("list", cls=PanelCommand)
def list_models(as_json: opt.Json = False) -> int:
    """List the models; `sr-upscale models` alone does the same."""
    rows = inventory.model_rows()
    Console(as_json=as_json).result({"models": rows}, inventory.format_rows(rows, width=_width()))
    return 0


@app.command("search", cls=PanelCommand)
def search(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORD", help="Search terms such as anime, x2, jpeg, MIT; all must match.", show_default=False
        ),
    ],
    as_json: opt.Json = False,
) -> int:
    """Search models by name, purpose, tag, licence or factor."""
    rows = inventory.search(words)
    Console(as_json=as_json).result({"models": rows}, inventory.format_rows(rows, tags=True, width=_width()))
    return 0


@app.command("info", cls=PanelCommand)
def info(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name or file.", autocompletion=opt.completing(known_names))
    ],
    as_json: opt.Json = False,
) -> int:
    """Show details of a model. Downloads nothing."""
    row = inventory.model_row(name)
    Console(as_json=as_json).result(row, inventory.format_details(row, width=_width()))
    return 0


@app.command("download", cls=PanelCommand)
def download(names: Names, quiet: opt.Quiet = False, as_json: opt.Json = False) -> int:
    """Download models, to use them offline later."""
    console = Console(quiet=quiet, as_json=as_json)
    paths = {name: str(obtain(name, console)) for name in names}
    console.result({"paths": paths}, paths.values())
    return 0


@app.command("verify", cls=PanelCommand)
def verify(as_json: opt.Json = False) -> int:
    """Check installed files for damage."""
    good, bad = inventory.verify()
    Console(as_json=as_json).result({"good": good, "bad": bad}, (f"ok  {name}" for name in good))
    if bad:
        raise IntegrityError(f"damaged: {', '.join(bad)}; `sr-upscale models remove NAME` and download or add it again")
    return 0


@app.command("remove", cls=PanelCommand)
def remove(names: Names) -> int:
    """Delete downloaded models. Built-in models stay."""
    for name in names:
        inventory.remove(name)
    return 0


@app.command("path", cls=PanelCommand)
def path(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of a model. Default: print the folder of downloaded models.",
            autocompletion=opt.completing(known_names),
        ),
    ] = None,
) -> int:
    """Print the path of a model's file."""
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
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model. Default: the file's name without its extension.")
    ] = None,
    force: opt.Force = False,
) -> int:
    """Add a weights file under a name for -n."""
    source = Path(file)
    label = name or source.stem
    traits = inventory.add(source, label, force=force)
    Console().note(f"{label}: {traits.architecture} x{traits.scale}; use it with -n {label}")
    return 0


@app.command("blend", cls=PanelCommand)
def blend(
    first: Annotated[str, typer.Argument(metavar="A", help="Name or file.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Name or file of the same factor.")],
    out: Annotated[str, typer.Option("-o", "--out", help="File to write, .safetensors.")],
    alpha: Annotated[float, typer.Option("--alpha", help="Share of B: 0 is A, 1 is B.")] = 0.5,
    force: opt.Force = False,
) -> int:
    """Blend two models of one factor."""
    from sr_upscale.pretrained.blend import blend_files

    target = Path(out)
    if target.suffix != ".safetensors":
        raise UsageError(f"--out is {shown(target)}; expected a name ending in .safetensors")
    refuse_existing(target, force=force)
    blend_files(resolve_weights(first), resolve_weights(second), alpha, target)
    Console().note(f"{shown(target)}: {1 - alpha:g} of {first} and {alpha:g} of {second}")
    return 0
