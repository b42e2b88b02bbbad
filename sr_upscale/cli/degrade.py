"""``sr-upscale degrade PICTURE``: what training makes of a picture, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.formatting import shown
from sr_upscale.training.options import shipped_recipes


@opt.command(offline=False)
def degrade(
    console: Console,
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="HR picture.", show_default=False)],
    out: Annotated[str | None, typer.Option("-o", "--out", help="Folder. Default: STEM_degraded beside it.")] = None,
    config: Annotated[
        str,
        typer.Option(
            "-c", "--config", help="Recipe whose degradation is shown.", autocompletion=opt.completing(shipped_recipes)
        ),
    ] = "photo-x4",
    count: Annotated[int, typer.Option("--count", help="How many LR versions.", min=1, max=1000)] = 8,
    seed: Annotated[int, typer.Option("--seed", help="Random seed.", min=0)] = 0,
    force: opt.Force = False,
) -> int:
    """Show how a training recipe degrades a picture.

    Writes several LR versions, and one sheet with all of them."""
    with console.progress(config):  # it stands before torch is imported
        from sr_upscale.training.preview import degraded_versions, write_versions
        from sr_upscale.training.recipe_file import load_recipe

        recipe = load_recipe(config)
        path = Path(picture)
        folder = Path(out) if out is not None else path.with_name(f"{path.stem}_degraded")
        versions = degraded_versions(path, recipe, count=count, seed=seed)
        files, sheet = write_versions(versions, folder, path.stem, force=force)
    console.result({"files": [str(file) for file in files], "sheet": str(sheet), "scale": recipe.model.scale})
    console.note(
        f"{len(files)} version{'s' * (len(files) != 1)} by {recipe.name} in {shown(folder)}; look at {shown(sheet)}"
    )
    return 0
