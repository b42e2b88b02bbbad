"""``sr-upscale train --config psnr-x4 --data FOLDER``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console, Report, print_error
from sr_upscale.errors import SIGNALLED, TrainingError, UsageError
from sr_upscale.formatting import parse_duration, shown
from sr_upscale.pipeline.words import dtype_name
from sr_upscale.pretrained.registry import cache_folder
from sr_upscale.training.recipes import shipped_recipes

if TYPE_CHECKING:
    from sr_upscale.training.config import Recipe
    from sr_upscale.training.parallel import World
    from sr_upscale.training.preview import Preview
    from sr_upscale.training.run import Progress

_RECIPE, _DATA, _RUN = "Recipe", "Data", "Running"


def train(
    config: Annotated[
        str | None,
        typer.Option(
            "-c",
            "--config",
            help=f"Recipe: {', '.join(shipped_recipes())}, or a TOML file.",
            rich_help_panel=_RECIPE,
            autocompletion=opt.completing(shipped_recipes),
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="Folder of pictures, searched recursively, or div2k (downloaded once); may be repeated.",
            autocompletion=opt.completing(lambda: ["div2k"]),
            rich_help_panel=_DATA,
        ),
    ] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", help="Folder of the run. Default: runs/NAME.")] = None,
    val: Annotated[
        str | None,
        typer.Option(
            "--val",
            help="Folder of pictures to validate on. Default: some of --data, held out.",
            rich_help_panel=_DATA,
        ),
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
        str | None,
        typer.Option(
            "--init",
            help="Weights to start from: a model name or a file; 'none' for random.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    stages: Annotated[
        list[str] | None,
        typer.Option("--stages", help="Only this stage of the recipe; may be repeated.", rich_help_panel=_RECIPE),
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            "--size", help="cpu or gpu: which size of the recipe. Default: by the device.", rich_help_panel=_RECIPE
        ),
    ] = "auto",
    max_time: Annotated[
        str | None,
        typer.Option(
            "--max-time",
            help="Length of the run, such as 45m or 2h; the schedules fit into it.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Length of the run in optimiser steps.", rich_help_panel=_RECIPE)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Patches a step.", rich_help_panel=_RECIPE)
    ] = None,
    lr_patch: Annotated[
        int | None, typer.Option("--patch", help="Side of a patch in LR pixels.", rich_help_panel=_RECIPE)
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Highest learning rate.", rich_help_panel=_RECIPE)] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Start of all random numbers.", rich_help_panel=_RECIPE)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other key of the recipe, such as stages.gan.gan_weight=0.005.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    vgg_weights: Annotated[
        str | None,
        typer.Option(
            "--vgg-weights",
            help="VGG19 (.safetensors or .pth) for the perceptual loss. Default: torchvision's, downloaded once.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache", help="Hold decoded pictures in memory instead of the cache folder.", rich_help_panel=_DATA
        ),
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
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> int:
    """Teach a generator on your own pictures; the result works with -n FILE."""
    del debug  # they act when they are parsed
    if config is None:
        raise UsageError(f"--config is missing; expected {', '.join(shipped_recipes())}, or a TOML file")
    if not data:
        raise UsageError("--data is missing; expected a folder of pictures, or div2k")
    with Console(quiet=quiet or "RANK" in os.environ).progress(config):  # it stands before torch is imported
        from sr_upscale.device import choose
        from sr_upscale.training.loop import Interrupted, Resume
        from sr_upscale.training.loop import train as run
        from sr_upscale.training.parallel import joined
        from sr_upscale.training.preview import preview
        from sr_upscale.training.setup import dtype_in_words, own_device, recipe_of, resized, training_dtype

    wanted_dtype = dtype_name(fp32=fp32, bf16=bf16, fp16=fp16)
    with joined(device, lost_after_s=_patience(lost_after), on_lost=_end_at_once) as world:
        choice = choose(device if world.size == 1 else own_device(device), wanted_dtype)
        if size not in ("auto", "cpu", "gpu"):
            raise UsageError(f"--size is {size!r}; expected auto, cpu or gpu")
        if size == "auto":
            size = "cpu" if choice.device.type == "cpu" else "gpu"
        recipe = recipe_of(config, settings or [], size=size, stages=stages or [], lr=lr, seed=seed, init=init)
        recipe = resized(recipe, max_time=max_time, steps=steps, lr_patch=lr_patch, batch_size=batch_size)
        dtype = training_dtype(choice, wanted_dtype)
        folder = Path(out) if out is not None else Path("runs") / recipe.name
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{shown(folder)} is a file; --out needs a folder")
        console = Console(quiet=quiet or world.rank > 0, as_json=as_json and world.rank == 0)
        console.note(
            f"{recipe.name} ({size}): {shown(folder)}, {choice.device}, {dtype_in_words(dtype)}{_others(world)}"
        )
        begin = Resume.AUTO if auto_resume else Resume.YES if resume else Resume.NO
        validation, vgg = (Path(each) if each else None for each in (val, vgg_weights))
        if dry_run:
            plan = preview(
                recipe,
                data=data,
                datasets=_datasets(),
                out=folder,
                validation=validation,
                resume=begin,
                device=choice.device,
                dtype=dtype,
                vgg_weights=vgg,
                world=world,
                on_warning=console.warn,
            )
            if world.rank == 0:
                _say(recipe, plan, console)
            return 0
        show = _Show(recipe, console)
        warnings: list[str] = []

        def warn(message: str) -> None:
            warnings.append(message)
            console.warn(message)

        try:
            with console.progress(recipe.name) as report, _tensorboard(folder, tensorboard, world) as write:
                weights = run(
                    recipe,
                    data=[_pictures(name, console) for name in data],
                    out=folder,
                    validation=validation,
                    resume=begin,
                    device=choice.device,
                    dtype=dtype,
                    compiled=compiled,
                    vgg_weights=vgg,
                    cache=None if no_cache else cache_folder() / "training",
                    world=world,
                    on_progress=lambda progress: show(progress, report, write),
                    on_asking=show.asking(report),
                    on_note=console.note,
                    on_warning=warn,
                )
        except Interrupted as stopped:
            console.note(f"stopped; go on with the same command and --resume (checkpoint in {shown(folder)})")
            return SIGNALLED + stopped.signal
        console.note(show.figures.speed())
        console.result({"weights": str(weights), "recipe": recipe.name, "warnings": warnings, **show.figures.result()})
        console.note(f"done: {shown(weights)}; try `sr-upscale photo.jpg -n {shown(weights)}`")
        return 0


# --- what was asked for -----------------------------------------------------------------------------


def _patience(text: str) -> float:
    if (seconds := parse_duration(text, "--lost-after")) < 1:
        raise UsageError(f"--lost-after is {text!r}; expected at least 1s")
    return seconds


def _end_at_once(message: str) -> None:
    """Ends this process from any of its threads: the main one waits for a process that is lost, and never returns."""
    print_error(f"sr-upscale: {message}")
    os._exit(TrainingError.exit_code)


def _others(world: World) -> str:
    return f", {world.size} processes" if world.size > 1 else ""


def _pictures(name: str, console: Console) -> Path:
    """Finds a folder of pictures, or that of a data set, which is downloaded first."""
    from sr_upscale.data.div2k import means_div2k, prepare_div2k

    if not means_div2k(name):
        return Path(name)
    with console.progress("DIV2K") as report:
        return prepare_div2k(_datasets(), on_progress=report)


def _datasets() -> Path:
    return cache_folder() / "datasets"


# --- what is shown ----------------------------------------------------------------------------------


def _say(recipe: Recipe, plan: Preview, console: Console) -> None:
    """Writes what a dry run found on stdout, as lines or as JSON."""
    from sr_upscale.training.preview import in_words

    console.result({"recipe": recipe.name, "dry_run": True, **asdict(plan)})
    if not console.as_json:
        for line in in_words(plan):
            console.line(line)


class _Show:
    """Turns progress into a bar, and a line at every validation."""

    def __init__(self, recipe: Recipe, console: Console) -> None:
        from sr_upscale.training.figures import Figures

        self.recipe, self.console, self.figures = recipe, console, Figures()

    def __call__(self, progress: Progress, report: Report, write: Callable[[Progress], None]) -> None:
        words = f"{progress.stage} step {progress.step} loss {progress.losses['loss']:.4f} {progress.steps_per_s:.1f}/s"
        report(progress.total_fraction, f"{self.recipe.name} {words}")
        write(progress)
        if (line := self.figures.add(progress)) is not None:
            self.console.note(line)

    def asking(self, report: Report) -> Callable[[int, int], None]:
        """Makes a function that shows how far the teacher is: crops answered, and crops wanted."""

        def show(there: int, wanted: int) -> None:
            report(there / wanted, f"{self.recipe.teacher.model} answers crop {there} of {wanted}")

        return show


def _tensorboard(folder: Path, wanted: bool, world: World) -> Any:
    from contextlib import nullcontext

    if not wanted:
        return nullcontext(lambda _progress: None)
    from sr_upscale.training.tensorboard import board

    return board(folder, writes=world.rank == 0)
