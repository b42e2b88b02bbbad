"""``sr-upscale degrade PICTURE``: what training makes of a picture, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.errors import InputError, OutputError
from sr_upscale.formatting import shown
from sr_upscale.training.recipes import shipped_recipes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def degrade(
    picture: Annotated[str, typer.Argument(help="HR picture.", show_default=False)],
    out: Annotated[str | None, typer.Option("-o", "--out", help="Folder. Default: STEM_degraded beside it.")] = None,
    config: Annotated[
        str,
        typer.Option(
            "-c", "--config", help="Recipe whose degradation is shown.", autocompletion=opt.completing(shipped_recipes)
        ),
    ] = "photo-x4",
    count: Annotated[int, typer.Option("--count", help="How many LR versions.", min=1, max=1000)] = 8,
    seed: Annotated[int, typer.Option("--seed", help="Start of all random numbers.", min=0)] = 0,
    force: opt.Force = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> int:
    """Write LR versions of a picture as a recipe would make them for training, and one sheet of all."""
    del debug  # they act when they are parsed
    import numpy as np

    from sr_upscale.data.bicubic import downscale_matlab
    from sr_upscale.data.degradations import degrade as make
    from sr_upscale.functional.color import to_pixels, to_tensor
    from sr_upscale.functional.pil_arrays import rgb8
    from sr_upscale.images import load_image
    from sr_upscale.training.recipe_file import load_recipe

    recipe = load_recipe(config)
    scale = recipe.model.scale
    path = Path(picture)
    pixels = np.asarray(load_image(path).frames[0].pixels_hwc)
    hr = rgb8(pixels)
    height, width = (side - side % scale for side in hr.shape[:2])
    if min(height, width) < 8 * scale:
        raise InputError(
            f"{shown(path)}: {hr.shape[1]}x{hr.shape[0]} is too small; expected {8 * scale} pixels or more"
        )
    hr = np.ascontiguousarray(hr[:height, :width])
    if recipe.data.degradation == "real":
        versions = [make(hr, scale, recipe.degradation, np.random.default_rng([seed, each])) for each in range(count)]
    else:
        versions = [to_pixels(downscale_matlab(to_tensor(hr), scale), np.dtype(np.uint8))]
    folder = Path(out) if out is not None else path.with_name(f"{path.stem}_degraded")
    files = [folder / f"{path.stem}_{number:03d}.png" for number in range(len(versions))]
    sheet = folder / f"{path.stem}_sheet.png"
    _write([*files, sheet], [*versions, _sheet(versions)], force=force)
    console = Console(quiet=quiet, as_json=as_json)
    console.result({"files": [str(file) for file in files], "sheet": str(sheet), "scale": scale})
    console.note(f"{len(files)} versions by {recipe.name} in {shown(folder)}; look at {shown(sheet)}")
    return 0


def _sheet(versions: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Puts all versions, (H, W, 3) of one size, side by side, up to four in a row."""
    import numpy as np

    columns = min(4, len(versions))
    blank = np.zeros_like(versions[0])
    padded = versions + [blank] * (-len(versions) % columns)
    rows = [np.concatenate(padded[at : at + columns], axis=1) for at in range(0, len(padded), columns)]
    return np.concatenate(rows, axis=0)


def _write(files: list[Path], pictures: list[NDArray[np.uint8]], *, force: bool) -> None:
    from PIL import Image

    from sr_upscale.storage.atomic import output_error, replace_file

    folder = files[0].parent
    if existing := [file for file in files if file.exists() and not force]:
        raise OutputError(f"{shown(existing[0])} exists; use --force, or another folder with -o")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    for file, picture in zip(files, pictures, strict=True):
        with replace_file(file) as temporary:
            Image.fromarray(picture).save(temporary, "PNG")
