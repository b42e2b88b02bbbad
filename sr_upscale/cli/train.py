"""``sr-upscale train --config psnr-x4 --data FOLDER``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console, print_error
from sr_upscale.errors import SIGNALLED, TrainingError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.pipeline.parsing import dtype_name
from sr_upscale.pretrained.registry import datasets_folder
from sr_upscale.storage.atomic import cache_folder
from sr_upscale.training.options import TrainingOptions

if TYPE_CHECKING:
    from sr_upscale.training.run import Progress


@opt.command()
def train(
    options: TrainingOptions,
    console: Console,
    device: opt.Device = "auto",
    fp32: opt.Fp32 = False,
    bf16: opt.Bf16 = False,
    fp16: opt.Fp16 = False,
) -> int:
    """Train a model on your own pictures.

    The result is a weights file for -n FILE."""
    at_once = Console(quiet=console.quiet or "RANK" in os.environ)
    with at_once.progress(options.config):  # it stands before torch is imported
        from sr_upscale.training.loop import Interrupted, Resume
        from sr_upscale.training.loop import train as run
        from sr_upscale.training.parallel import joined
        from sr_upscale.training.preview import format_preview, preview
        from sr_upscale.training.run import (
            Figures,
            Setup,
            board,
            format_dtype,
            own_choice,
            recipe_of,
            size_of,
            torch_device,
            training_dtype,
        )

    wanted_dtype = dtype_name(fp32=fp32, bf16=bf16, fp16=fp16)
    with joined(device, lost_after_s=options.lost_after, on_lost=_end_at_once) as world:
        choice = own_choice(device, wanted_dtype, world)
        dtype = training_dtype(choice, wanted_dtype)
        size = size_of(options.size, choice.device)
        recipe = recipe_of(options, size=size)
        folder = options.out or Path("runs") / recipe.name
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{shown(folder)} is a file; --out needs a folder")
        if world.rank > 0:
            console = Console(quiet=True)
        processes = f", {world.size} processes" if world.size > 1 else ""
        console.note(f"{recipe.name} ({size}): {shown(folder)}, {choice.device}, {format_dtype(dtype)}{processes}")
        setup = Setup(
            out=folder,
            rendered=[Path(name) for name in options.rendered],
            validation=options.val,
            resume=Resume.AUTO if options.auto_resume else Resume.YES if options.resume else Resume.NO,
            device=torch_device(choice),
            dtype=dtype,
            compiled=options.compiled,
            vgg_weights=options.vgg_weights,
            cache=None if options.no_cache else cache_folder() / "training",
            world=world,
            on_note=console.note,
            on_warning=console.warn,
        )
        if options.dry_run:
            plan = preview(recipe, setup, data=options.data, datasets=datasets_folder())
            if world.rank == 0:
                console.result({"recipe": recipe.name, "dry_run": True, **plan}, format_preview(plan))
            return 0
        figures = Figures()
        try:
            with (
                console.progress(recipe.name) as report,
                board(folder, wanted=options.tensorboard, writes=world.rank == 0) as write,
            ):

                def on_progress(progress: Progress) -> None:
                    report(progress.total_fraction, f"{recipe.name} {figures.title(progress)}")
                    write(progress)
                    if (line := figures.add(progress)) is not None:
                        console.note(line)

                def on_asking(there: int, wanted: int) -> None:
                    report(there / wanted, f"{recipe.teacher.model} answers crop {there} of {wanted}")

                data = [_pictures(name, console) for name in options.data]
                weights = run(recipe, replace(setup, data=data, on_progress=on_progress, on_asking=on_asking))
        except Interrupted as stopped:
            console.note(f"stopped; go on with the same command and --resume (checkpoint in {shown(folder)})")
            return SIGNALLED + stopped.signal
        console.note(figures.speed())
        result = {"weights": str(weights), "recipe": recipe.name, "warnings": console.warnings}
        console.result({**result, **figures.result()})
        console.note(f"done: {shown(weights)}; try `sr-upscale photo.jpg -n {shown(weights)}`")
        return 0


def _end_at_once(message: str) -> None:
    """Ends this process from any of its threads: the main one waits for a process that is lost, and never returns."""
    print_error(f"sr-upscale: {message}")
    os._exit(TrainingError.exit_code)


def _pictures(name: str, console: Console) -> Path:
    """Finds a folder of pictures, or that of a data set, which is downloaded first."""
    from sr_upscale.data.div2k import means_div2k, prepare_div2k

    if not means_div2k(name):
        return Path(name)
    with console.progress("DIV2K") as report:
        return prepare_div2k(datasets_folder(), on_progress=report)
