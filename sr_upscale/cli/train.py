"""``sr-upscale train --config psnr-x4 --data FOLDER``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console, print_error
from sr_upscale.errors import SIGNALLED, TrainingError, UsageError
from sr_upscale.formatting import parse_duration, shown
from sr_upscale.pipeline.words import dtype_name
from sr_upscale.pretrained.registry import cache_folder, datasets_folder
from sr_upscale.training.recipes import shipped_recipes

if TYPE_CHECKING:
    from sr_upscale.training.run import Progress

_recipe, _data = opt.panel("Recipe"), opt.panel("Data")


@opt.command()
def train(
    console: Console,
    config: Annotated[
        str | None,
        _recipe(
            "-c",
            "--config",
            help=f"Recipe: {', '.join(shipped_recipes())}, or a TOML file.",
            autocompletion=opt.completing(shipped_recipes),
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        _data(
            "--data",
            help="Folder of pictures, searched recursively, or div2k (downloaded once); may be repeated.",
            autocompletion=opt.completing(lambda: ["div2k"]),
        ),
    ] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", help="Folder of the run. Default: runs/NAME.")] = None,
    val: Annotated[
        str | None, _data("--val", help="Folder of pictures to validate on. Default: some of --data, held out.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run.")] = False,
    auto_resume: Annotated[
        bool, typer.Option("--auto-resume", help="The same where there is one, else begin: for jobs that start again.")
    ] = False,
    lost_after: Annotated[
        str,
        typer.Option(
            "--lost-after", help="Under torchrun: end when another process has given no sign of life for so long."
        ),
    ] = "5m",
    init: Annotated[
        str | None, _recipe("--init", help="Weights to start from: a model name or a file; 'none' for random.")
    ] = None,
    stages: Annotated[
        list[str] | None, _recipe("--stages", help="Only this stage of the recipe; may be repeated.")
    ] = None,
    size: Annotated[
        str, _recipe("--size", help="cpu or gpu: which size of the recipe. Default: by the device.")
    ] = "auto",
    max_time: Annotated[
        str | None, _recipe("--max-time", help="Length of the run, such as 45m or 2h; the schedules fit into it.")
    ] = None,
    steps: Annotated[int | None, _recipe("--steps", help="Length of the run in optimiser steps.")] = None,
    batch_size: Annotated[int | None, _recipe("--batch-size", help="Patches a step.")] = None,
    lr_patch: Annotated[int | None, _recipe("--patch", help="Side of a patch in LR pixels.")] = None,
    lr: Annotated[float | None, _recipe("--lr", help="Highest learning rate.")] = None,
    seed: Annotated[int | None, _recipe("--seed", help="Start of all random numbers.")] = None,
    settings: Annotated[
        list[str] | None,
        _recipe("--set", metavar="KEY=VALUE", help="Any other key of the recipe, such as stages.gan.gan_weight=0.005."),
    ] = None,
    vgg_weights: Annotated[
        str | None,
        _data(
            "--vgg-weights",
            help="VGG19 (.safetensors or .pth) for the perceptual loss. Default: torchvision's, downloaded once.",
        ),
    ] = None,
    no_cache: Annotated[
        bool, _data("--no-cache", help="Hold decoded pictures in memory instead of the cache folder.")
    ] = False,
    device: opt.Device = "auto",
    fp32: opt.Fp32 = False,
    bf16: opt.Bf16 = False,
    fp16: opt.Fp16 = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Run the generator through torch.compile.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log for TensorBoard, too (needs its package).")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say lengths, batches, pictures, downloads; touch nothing.")
    ] = False,
) -> int:
    """Teach a generator on your own pictures; the result works with -n FILE."""
    if config is None:
        raise UsageError(f"--config is missing; expected {', '.join(shipped_recipes())}, or a TOML file")
    if not data:
        raise UsageError("--data is missing; expected a folder of pictures, or div2k")
    with Console(quiet=console.quiet or "RANK" in os.environ).progress(config):  # it stands before torch is imported
        from sr_upscale.training.figures import Figures
        from sr_upscale.training.loop import Interrupted, Resume
        from sr_upscale.training.loop import train as run
        from sr_upscale.training.parallel import joined
        from sr_upscale.training.preview import in_words, preview
        from sr_upscale.training.setup import dtype_in_words, own_choice, recipe_of, size_of, training_dtype
        from sr_upscale.training.tensorboard import board

    wanted_dtype = dtype_name(fp32=fp32, bf16=bf16, fp16=fp16)
    with joined(device, lost_after_s=_patience(lost_after), on_lost=_end_at_once) as world:
        choice = own_choice(device, wanted_dtype, world)
        dtype = training_dtype(choice, wanted_dtype)
        size = size_of(size, choice.device)
        recipe = recipe_of(
            config,
            settings or [],
            size=size,
            stages=stages or [],
            init=init,
            lr=lr,
            seed=seed,
            lr_patch=lr_patch,
            batch_size=batch_size,
            max_time=max_time,
            steps=steps,
        )
        folder = Path(out) if out is not None else Path("runs") / recipe.name
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{shown(folder)} is a file; --out needs a folder")
        if world.rank > 0:
            console = Console(quiet=True)
        processes = f", {world.size} processes" if world.size > 1 else ""
        console.note(f"{recipe.name} ({size}): {shown(folder)}, {choice.device}, {dtype_in_words(dtype)}{processes}")
        common: dict[str, Any] = {
            "out": folder,
            "validation": Path(val) if val else None,
            "resume": Resume.AUTO if auto_resume else Resume.YES if resume else Resume.NO,
            "device": choice.device,
            "dtype": dtype,
            "vgg_weights": Path(vgg_weights) if vgg_weights else None,
            "world": world,
            "on_warning": console.warn,
        }
        if dry_run:
            plan = preview(recipe, data=data, datasets=datasets_folder(), **common)
            if world.rank == 0:
                console.result({"recipe": recipe.name, "dry_run": True, **asdict(plan)}, in_words(plan))
            return 0
        figures = Figures()
        try:
            with (
                console.progress(recipe.name) as report,
                board(folder, wanted=tensorboard, writes=world.rank == 0) as write,
            ):

                def on_progress(progress: Progress) -> None:
                    report(progress.total_fraction, f"{recipe.name} {figures.title(progress)}")
                    write(progress)
                    if (line := figures.add(progress)) is not None:
                        console.note(line)

                def on_asking(there: int, wanted: int) -> None:
                    report(there / wanted, f"{recipe.teacher.model} answers crop {there} of {wanted}")

                weights = run(
                    recipe,
                    data=[_pictures(name, console) for name in data],
                    compiled=compiled,
                    cache=None if no_cache else cache_folder() / "training",
                    on_progress=on_progress,
                    on_asking=on_asking,
                    on_note=console.note,
                    **common,
                )
        except Interrupted as stopped:
            console.note(f"stopped; go on with the same command and --resume (checkpoint in {shown(folder)})")
            return SIGNALLED + stopped.signal
        console.note(figures.speed())
        said = {"weights": str(weights), "recipe": recipe.name, "warnings": console.warnings}
        console.result({**said, **figures.result()})
        console.note(f"done: {shown(weights)}; try `sr-upscale photo.jpg -n {shown(weights)}`")
        return 0


def _patience(text: str) -> float:
    if (seconds := parse_duration(text, "--lost-after")) < 1:
        raise UsageError(f"--lost-after is {text!r}; expected at least 1s")
    return seconds


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
