"""``sr-upscale train --config psnr-x4 --data FOLDER``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.errors import UsageError
from sr_upscale.text import duration, shown

if TYPE_CHECKING:
    from sr_upscale.training.loop import Progress


def train(
    config: Annotated[str, typer.Option("-c", "--config", help="Recipe: a shipped name, or a TOML file.")],
    data: Annotated[
        list[str], typer.Option("--data", help="Folder of pictures, searched recursively; may be repeated.")
    ],
    out: Annotated[str | None, typer.Option("-o", "--out", help="Folder of the run. Default: runs/NAME.")] = None,
    val: Annotated[
        str | None, typer.Option("--val", help="Folder of pictures to validate on. Default: some of --data, held out.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run.")] = False,
    init: Annotated[
        str | None, typer.Option("--init", help="Weights to start from: a model name or a file; 'none' for random.")
    ] = None,
    max_time: Annotated[
        str | None, typer.Option("--max-time", help="Length of the run, such as 45m or 2h; the schedule fits into it.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Length of the run in optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Patches a step.")] = None,
    lr_patch: Annotated[int | None, typer.Option("--patch", help="Side of a patch in LR pixels.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Highest learning rate.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Start of all random numbers.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other key of the recipe, such as stage.pixel_loss=l2."),
    ] = None,
    device: opt.Device = "auto",
    fp32: opt.Fp32 = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> int:
    """Teach a generator on your own pictures; the result works with -n FILE."""
    del debug  # read from the command line by `app.run`, before options are parsed
    overrides: dict[str, Any] = {
        "data.batch_size": batch_size,
        "data.lr_patch": lr_patch,
        "stage.lr": lr,
        "stage.steps": steps,
        "stage.max_time_s": opt.parse_duration(max_time) if max_time is not None else (0.0 if steps else None),
        "seed": seed,
        "init": "" if init == "none" else init,
    }
    from sr_upscale.training.config import load_recipe, parse_override

    overrides |= dict(parse_override(text) for text in settings or [])
    recipe = load_recipe(config, {key: value for key, value in overrides.items() if value is not None})
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{shown(folder)} is a file; --out needs a folder")
    console = Console(quiet=quiet, as_json=as_json)

    from sr_upscale.device import choose, cpu_has_bf16
    from sr_upscale.training.loop import Interrupted
    from sr_upscale.training.loop import train as run

    choice = choose(device, "fp32" if fp32 else "auto")
    bf16 = not fp32 and (choice.device.type == "cuda" or (choice.device.type == "cpu" and cpu_has_bf16()))
    console.note(f"{recipe.name}: {shown(folder)}, {choice.device}, {'bf16 autocast' if bf16 else 'fp32'}")
    best: dict[str, Any] = {"validation_psnr": None, "step": 0, "elapsed_s": 0.0}
    try:
        with console.progress(recipe.name) as report:

            def on_progress(progress: Progress) -> None:
                words = f"{recipe.name} step {progress.step} loss {progress.loss:.4f} {progress.steps_per_s:.1f}/s"
                report(progress.fraction, words)
                best.update(step=progress.step, elapsed_s=round(progress.elapsed_s))
                if progress.validation_psnr is not None:
                    best["validation_psnr"] = round(progress.validation_psnr, 3)
                    console.note(
                        f"{duration(progress.elapsed_s)}  step {progress.step}  loss {progress.loss:.5f}  "
                        f"lr {progress.lr:.2e}  {progress.steps_per_s:.1f} steps/s  "
                        f"validation {progress.validation_psnr:.2f} dB"
                    )

            weights = run(
                recipe,
                data=[Path(folder) for folder in data],
                out=folder,
                validation=Path(val) if val else None,
                resume=resume,
                device=choice.device,
                bf16=bf16,
                on_progress=on_progress,
                on_warning=console.warn,
            )
    except Interrupted as stopped:
        console.note(f"stopped; go on with the same command and --resume (checkpoint in {shown(folder)})")
        return 128 + stopped.signal
    console.result({"weights": str(weights), "recipe": recipe.name, **best})
    console.note(f"done: {shown(weights)}; try `sr-upscale photo.jpg -n {shown(weights)}`")
    return 0
