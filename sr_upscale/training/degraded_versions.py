"""What training makes of a picture, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_upscale.data.bicubic import downscale_matlab
from sr_upscale.data.degradations import degrade
from sr_upscale.errors import InputError
from sr_upscale.formatting import shown
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.pil_arrays import rgb8
from sr_upscale.images import load_image
from sr_upscale.storage.atomic import make_folder, refuse_existing, replace_file
from sr_upscale.training.config import Recipe


def degraded_versions(picture: Path, recipe: Recipe, *, count: int, seed: int) -> list[NDArray[np.uint8]]:
    """Makes LR versions of a picture as a recipe would make them for training.

    Args:
        picture: A file.
        recipe: Says how.
        count: How many; a recipe without random degradations makes one.
        seed: Random seed.

    Returns:
        (H, W, 3) uint8 each.

    Raises:
        InputError: The file cannot be used, or is too small.
    """
    scale = recipe.model.scale
    hr = rgb8(np.asarray(load_image(picture).frames[0].pixels_hwc))
    height, width = (side - side % scale for side in hr.shape[:2])
    if min(height, width) < 8 * scale:
        raise InputError(
            f"{shown(picture)}: {hr.shape[1]}x{hr.shape[0]} is too small; expected {8 * scale} pixels or more"
        )
    hr = np.ascontiguousarray(hr[:height, :width])
    if recipe.family is None:
        return [to_pixels(downscale_matlab(to_tensor(hr), scale), np.dtype(np.uint8))]
    return [degrade(hr, scale, recipe.family, np.random.default_rng([seed, each])) for each in range(count)]


def write_versions(
    versions: Sequence[NDArray[np.uint8]], folder: Path, stem: str, *, force: bool
) -> tuple[list[Path], Path]:
    """Writes each version as a PNG, and a sheet of all of them.

    Returns:
        Files of the versions, and of the sheet.

    Raises:
        OutputError: A file cannot be written, or is there and `force` is not given.
    """
    files = [folder / f"{stem}_{number:03d}.png" for number in range(len(versions))]
    sheet = folder / f"{stem}_sheet.png"
    for file in (*files, sheet):
        refuse_existing(file, force=force)
    make_folder(folder)
    for file, version in zip((*files, sheet), (*versions, _sheet(list(versions))), strict=True):
        with replace_file(file) as temporary:
            Image.fromarray(version).save(temporary, "PNG")
    return files, sheet


def _sheet(versions: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Puts all versions, (H, W, 3) of one size, side by side, up to four in a row."""
    columns = min(4, len(versions))
    blank = np.zeros_like(versions[0])
    padded = versions + [blank] * (-len(versions) % columns)
    rows = [np.concatenate(padded[at : at + columns], axis=1) for at in range(0, len(padded), columns)]
    return np.concatenate(rows, axis=0)
