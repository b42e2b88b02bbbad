"""What a run would do, before it does anything; and what it makes of a picture, to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from sr_upscale.data.degradations import degrade
from sr_upscale.data.div2k import DIV2K_TRAIN, div2k_in, means_div2k
from sr_upscale.errors import InputError
from sr_upscale.formatting import duration, mebibytes, shown
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.pil_arrays import rgb8
from sr_upscale.functional.resize import downscale_matlab
from sr_upscale.images import load_image
from sr_upscale.models.discriminator import build_discriminator
from sr_upscale.models.features import vgg19_download
from sr_upscale.pretrained.registry import cached_path, catalogue_entry
from sr_upscale.storage.atomic import make_folder, refuse_existing, replace_file
from sr_upscale.storage.remote import RemoteFile, in_torch_cache
from sr_upscale.training.config import Recipe, StageSection
from sr_upscale.training.loop import find_checkpoint
from sr_upscale.training.parallel import World
from sr_upscale.training.run import Setup, format_dtype
from sr_upscale.training.sources import find_paths, vgg19_for
from sr_upscale.training.state import new_generator, random_generator
from sr_upscale.training.teacher import teacher_of


def preview(recipe: Recipe, setup: Setup, *, data: Sequence[str], datasets: Path) -> dict[str, Any]:
    """Looks at everything that a run needs. Whatever is here is checked as the run would check it.

    Args:
        recipe, setup: See `loop.train`.
        data: Folders of pictures, or ``div2k``.
        datasets: Where data sets are kept that are fetched by name.

    Returns:
        A run, as it would be, ready for JSON: its start in words; its stages, a length of 0 where that does not end one
            of them; processes and workers; pictures to learn from and to validate on, without those to download; crops
            that a teacher answers; parameters; device and number type; downloads, with their size in bytes.

    Raises:
        TrainingError, UsageError, ModelError: As of `loop.train`.
    """
    world = setup.world
    for stage in recipe.stages.values():
        world.check_batch(recipe.batch_of(stage), stage.accumulate)
    checkpoint = find_checkpoint(recipe, setup)
    downloads = _downloads(recipe, begins=checkpoint is None, vgg_weights=setup.vgg_weights)
    missing = {each["what"] for each in downloads}
    notes: list[str] = []
    if checkpoint is not None:
        network = checkpoint.state.g
        stage_name = list(recipe.stages)[checkpoint.state.stage]
        notes.append(f"goes on from step {checkpoint.state.step} of stage {stage_name}")
    elif "init" in missing:
        network = random_generator(recipe)
        notes.append(f"begins from {recipe.init}")
    else:
        network = new_generator(recipe, notes.append)
    if "teacher" not in missing:
        teacher_of(recipe)
    if setup.vgg_weights is not None:
        vgg19_for(recipe, setup.vgg_weights, torch.device("cpu"), setup.on_warning)
    folders = [div2k_in(datasets) if means_div2k(name) else Path(name) for name in data]
    there = [folder for folder in folders if folder is not None]
    if len(there) < len(folders):
        downloads.append(_download("div2k", DIV2K_TRAIN))
    found, held_out = find_paths(recipe, there, setup.validation)
    return {
        "start": "; ".join(notes) or "begins at random",
        "stages": [_stage(recipe, name, stage, world) for name, stage in recipe.stages.items()],
        "processes": world.size,
        "workers": recipe.data.workers * world.size,
        "workers_per_process": recipe.data.workers,
        "pictures": sum(map(len, found)),
        "held_out": len(held_out),
        "crops": recipe.teacher.crops if recipe.has_teacher else 0,
        "parameters": _count(network),
        "device": str(setup.device),
        "dtype": format_dtype(setup.dtype),
        "downloads": downloads,
    }


def _downloads(recipe: Recipe, *, begins: bool, vgg_weights: Path | None) -> list[dict[str, Any]]:
    names = {"init": recipe.init if begins else "", "teacher": recipe.teacher.model if recipe.has_teacher else ""}
    entries = {what: catalogue_entry(name) for what, name in names.items() if name}
    downloads = [
        _download(what, entry.file)
        for what, entry in entries.items()
        if entry is not None and not cached_path(entry).is_file()
    ]
    if recipe.needs_features and vgg_weights is None:
        url, size = vgg19_download()
        if not in_torch_cache(url):
            downloads.append({"what": "VGG19", "url": url, "size": size})
    return downloads


def _download(what: str, file: RemoteFile) -> dict[str, Any]:
    return {"what": what, "url": file.url, "size": file.size}


def _stage(recipe: Recipe, name: str, stage: StageSection, world: World) -> dict[str, Any]:
    batch = recipe.batch_of(stage)
    parameters = 0
    if stage.gan_weight > 0:
        with torch.device("meta"):
            parameters = _count(build_discriminator(stage.discriminator, stage.d_num_feat, sees_lr=stage.gan_sees_lr))
    return {
        "name": name,
        "steps": stage.steps,
        "max_time_s": stage.max_time_s,
        "lr_patch": recipe.patch_of(stage),
        "batch_size": batch,
        "batch_per_process": batch // world.size,
        "accumulate": stage.accumulate,
        "discriminator_parameters": parameters,
    }


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# --- as text ----------------------------------------------------------------------------------------


def format_preview(plan: Mapping[str, Any]) -> list[str]:
    """Puts what a run would do into lines for people."""
    each, one = f" on each of {plan['processes']} processes", plan["processes"] == 1
    workers = f"{plan['workers']}" if one else f"{plan['workers']} ({plan['workers_per_process']}{each})"
    crops = f", {plan['crops']} crops answered by the teacher" if plan["crops"] else ""
    return [
        f"start: {plan['start']}",
        *(_format_stage(stage, "" if one else f" ({stage['batch_per_process']}{each})") for stage in plan["stages"]),
        f"pictures: {plan['pictures']} to learn from, {plan['held_out']} to validate on{crops}",
        f"workers: {workers}",
        f"network: {plan['parameters']} parameters, {plan['dtype']} on {plan['device']}",
        *(f"download: {x['what']}, {mebibytes(x['size'])} from {shown(x['url'])}" for x in plan["downloads"]),
        *([] if plan["downloads"] else ["download: nothing"]),
    ]


def _format_stage(stage: Mapping[str, Any], share: str) -> str:
    lengths = [f"{stage['steps']} steps"] if stage["steps"] > 0 else []
    lengths += [duration(stage["max_time_s"])] if stage["max_time_s"] > 0 else []
    parts = f" in {stage['accumulate']} parts" if stage["accumulate"] > 1 else ""
    side, count = stage["lr_patch"], stage["discriminator_parameters"]
    discriminator = f", discriminator of {count} parameters" if count else ""
    patches = f"batch of {stage['batch_size']}{share}{parts}, patches of {side}x{side} LR pixels"
    return f"stage {stage['name']}: {' or '.join(lengths)}, {patches}{discriminator}"


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
