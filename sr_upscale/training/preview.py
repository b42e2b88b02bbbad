"""What a run would do, before it does anything; and what it makes of a picture, to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from sr_upscale.storage.remote import in_torch_cache
from sr_upscale.training.config import Recipe, StageSection
from sr_upscale.training.loop import find_checkpoint
from sr_upscale.training.parallel import World
from sr_upscale.training.run import Resume, format_dtype
from sr_upscale.training.sources import find_paths, teacher_of, vgg19_for
from sr_upscale.training.state import new_generator, random_generator


@dataclass(frozen=True, kw_only=True)
class StagePreview:
    """A stage, as far as it says what a step costs and when it ends.

    Attributes:
        name: Its name.
        steps, max_time_s: Its length; 0 where that does not end it.
        lr_patch: Side of a patch in LR pixels.
        batch_size, batch_per_process: Patches a step, in all and of each process.
        accumulate: Parts of each process's share that are computed one after the other.
        discriminator_parameters: Of its discriminator; 0 where it has none.
    """

    name: str
    steps: int
    max_time_s: float
    lr_patch: int
    batch_size: int
    batch_per_process: int
    accumulate: int
    discriminator_parameters: int


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file that is not here.

    Attributes:
        what: What it is for.
        url: Its address.
        size: Its size in bytes.
    """

    what: str
    url: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A run, as it would be.

    Attributes:
        start: Where it begins, in words.
        stages: What is done, in order.
        processes: How many train together.
        workers, workers_per_process: Processes that make batches ahead, in all and of each process.
        pictures, held_out: Pictures found to learn from, and to validate on. Those to download do not count.
        crops: Crops that a teacher answers; 0 without a teacher.
        parameters: Of the network.
        device, dtype: Where it runs, and in what number type, in words.
        downloads: What would be downloaded first.
    """

    start: str
    stages: tuple[StagePreview, ...]
    processes: int
    workers: int
    workers_per_process: int
    pictures: int
    held_out: int
    crops: int
    parameters: int
    device: str
    dtype: str
    downloads: tuple[Download, ...]


def preview(
    recipe: Recipe,
    *,
    data: Sequence[str],
    datasets: Path,
    out: Path,
    validation: Path | None = None,
    resume: Resume = Resume.NO,
    device: torch.device,
    dtype: torch.dtype,
    vgg_weights: Path | None = None,
    world: World,
    on_warning: Callable[[str], None],
) -> Preview:
    """Looks at everything that a run needs. Whatever is here is checked as the run would check it.

    Args:
        recipe: What to do.
        data: Folders of pictures, or ``div2k``.
        datasets: Where data sets are kept that are fetched by name.
        out, validation, resume, device, dtype, vgg_weights, world, on_warning: See `loop.train`.

    Raises:
        TrainingError, UsageError, ModelError: As of `loop.train`.
    """
    for stage in recipe.stages.values():
        world.check_batch(recipe.batch_of(stage), stage.accumulate)
    checkpoint = find_checkpoint(out, recipe, resume, on_warning)
    downloads = _downloads(recipe, begins=checkpoint is None, vgg_weights=vgg_weights)
    missing = {each.what for each in downloads}
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
    if vgg_weights is not None:
        vgg19_for(recipe, vgg_weights, torch.device("cpu"), on_warning)
    folders = [div2k_in(datasets) if means_div2k(name) else Path(name) for name in data]
    there = [folder for folder in folders if folder is not None]
    if len(there) < len(folders):
        downloads.append(Download(what="div2k", url=DIV2K_TRAIN.url, size=DIV2K_TRAIN.size))
    found, held_out = find_paths(recipe, there, validation)
    return Preview(
        start="; ".join(notes) or "begins at random",
        stages=tuple(_stage(recipe, name, stage, world) for name, stage in recipe.stages.items()),
        processes=world.size,
        workers=recipe.data.workers * world.size,
        workers_per_process=recipe.data.workers,
        pictures=sum(map(len, found)),
        held_out=len(held_out),
        crops=recipe.teacher.crops if recipe.has_teacher else 0,
        parameters=_count(network),
        device=str(device),
        dtype=format_dtype(dtype),
        downloads=tuple(downloads),
    )


def _downloads(recipe: Recipe, *, begins: bool, vgg_weights: Path | None) -> list[Download]:
    names = {"init": recipe.init if begins else "", "teacher": recipe.teacher.model if recipe.has_teacher else ""}
    entries = {what: catalogue_entry(name) for what, name in names.items() if name}
    downloads = [
        Download(what=what, url=entry.file.url, size=entry.file.size)
        for what, entry in entries.items()
        if entry is not None and not cached_path(entry).is_file()
    ]
    if recipe.needs_features and vgg_weights is None:
        url, size = vgg19_download()
        if not in_torch_cache(url):
            downloads.append(Download(what="VGG19", url=url, size=size))
    return downloads


def _stage(recipe: Recipe, name: str, stage: StageSection, world: World) -> StagePreview:
    batch = recipe.batch_of(stage)
    parameters = 0
    if stage.gan_weight > 0:
        with torch.device("meta"):
            parameters = _count(build_discriminator(stage.discriminator, stage.d_num_feat, sees_lr=stage.gan_sees_lr))
    return StagePreview(
        name=name,
        steps=stage.steps,
        max_time_s=stage.max_time_s,
        lr_patch=recipe.patch_of(stage),
        batch_size=batch,
        batch_per_process=batch // world.size,
        accumulate=stage.accumulate,
        discriminator_parameters=parameters,
    )


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# --- in words ---------------------------------------------------------------------------------------


def format_preview(plan: Preview) -> list[str]:
    """Puts what a run would do into lines for people."""
    each, one = f" on each of {plan.processes} processes", plan.processes == 1
    workers = f"{plan.workers}" if one else f"{plan.workers} ({plan.workers_per_process}{each})"
    crops = f", {plan.crops} crops answered by the teacher" if plan.crops else ""
    lines = [
        f"start: {plan.start}",
        *(_format_stage(stage, "" if one else f" ({stage.batch_per_process}{each})") for stage in plan.stages),
        f"pictures: {plan.pictures} to learn from, {plan.held_out} to validate on{crops}",
        f"workers: {workers}",
        f"network: {plan.parameters} parameters, {plan.dtype} on {plan.device}",
    ]
    lines += [f"download: {load.what}, {mebibytes(load.size)} from {shown(load.url)}" for load in plan.downloads]
    return lines if plan.downloads else [*lines, "download: nothing"]


def _format_stage(stage: StagePreview, share: str) -> str:
    lengths = [f"{stage.steps} steps"] if stage.steps > 0 else []
    lengths += [duration(stage.max_time_s)] if stage.max_time_s > 0 else []
    discriminator = (
        f", discriminator of {stage.discriminator_parameters} parameters" if stage.discriminator_parameters else ""
    )
    parts = f" in {stage.accumulate} parts" if stage.accumulate > 1 else ""
    patches = f"batch of {stage.batch_size}{share}{parts}, patches of {stage.lr_patch}x{stage.lr_patch} LR pixels"
    return f"stage {stage.name}: {' or '.join(lengths)}, {patches}{discriminator}"


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
