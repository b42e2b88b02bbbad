"""The options of `train`, but for device and number type. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

from sr_upscale.errors import UsageError
from sr_upscale.flags import DATA, RECIPE, option
from sr_upscale.formatting import parse_duration


def shipped_recipes() -> list[str]:
    """Returns the names of the recipes that come with the package, sorted."""
    folder = resources.files("sr_upscale.training") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name: str) -> str:
    """Returns the TOML text of a shipped recipe."""
    return (resources.files("sr_upscale.training") / "recipes" / f"{name}.toml").read_text("utf-8")


def _patience(text: str) -> float:
    if (seconds := parse_duration(text, "--lost-after")) < 1:
        raise UsageError(f"--lost-after is {text!r}; expected at least 1s")
    return seconds


_recipe, _data = partial(option, panel=RECIPE), partial(option, panel=DATA)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Recipe, data and output of a training run. The help of each option describes it; durations are in seconds.

    Raises:
        UsageError: An option is missing or has no such value.
    """

    config: str = _recipe(
        "", "-c", "--config", help=f"Recipe: {', '.join(shipped_recipes())}, or a TOML file.", choices=shipped_recipes
    )
    data: tuple[str, ...] = _data(
        (),
        "--data",
        help="Folder of pictures, with subfolders, or div2k (downloaded once); may be repeated.",
        choices=lambda: ["div2k"],
    )
    rendered: tuple[str, ...] = _data(
        (),
        "--rendered",
        help="Folder of rendered pictures (text, screens), for recipes with a rendered_share; may be repeated.",
    )
    out: Path | None = option(None, "-o", "--out", help="Folder of the run. Default: runs/NAME.", parse=Path)
    val: Path | None = _data(
        None, "--val", help="Folder of validation pictures. Default: some of --data, kept out of training.", parse=Path
    )
    resume: bool = option(False, "--resume", help="Continue from the newest checkpoint of the run.")
    auto_resume: bool = option(
        False, "--auto-resume", help="Continue if there is a checkpoint, else start: for jobs that are restarted."
    )
    lost_after: float = option(
        300.0,
        "--lost-after",
        help="Under torchrun: stop if another process is silent for this long. Default: 5m.",
        parse=_patience,
    )
    init: str | None = _recipe(None, "--init", help="Weights to start from: a model name or a file; 'none' for random.")
    stages: tuple[str, ...] = _recipe((), "--stages", help="Run only this stage of the recipe; may be repeated.")
    size: str = _recipe(
        "auto",
        "--size",
        help="Size of the recipe: cpu or gpu. Default: from the device.",
        choices=lambda: ("cpu", "gpu"),
    )
    max_time: float | None = _recipe(
        None,
        "--max-time",
        help="Length of the run, such as 45m or 2h; schedules are scaled to it.",
        parse=parse_duration,
    )
    steps: int | None = _recipe(None, "--steps", help="Length of the run in optimiser steps.")
    batch_size: int | None = _recipe(None, "--batch-size", help="Patches per step.")
    lr_patch: int | None = _recipe(None, "--patch", help="Side of a patch in LR pixels.")
    lr: float | None = _recipe(None, "--lr", help="Highest learning rate.")
    seed: int | None = _recipe(None, "--seed", help="Random seed.")
    settings: tuple[str, ...] = _recipe(
        (), "--set", metavar="KEY=VALUE", help="Any other key of the recipe, such as stages.gan.gan_weight=0.005."
    )
    vgg_weights: Path | None = _data(
        None,
        "--vgg-weights",
        help="VGG19 (.safetensors or .pth) for the perceptual loss. Default: torchvision's, downloaded once.",
        parse=Path,
    )
    no_cache: bool = _data(False, "--no-cache", help="Keep decoded pictures in memory instead of the cache folder.")
    compiled: bool = option(False, "--compile", help="Run the generator through torch.compile.")
    tensorboard: bool = option(False, "--tensorboard", help="Also log for TensorBoard (an extra).")
    dry_run: bool = option(False, "--dry-run", help="Print lengths, batches, pictures and downloads; write nothing.")

    def __post_init__(self) -> None:
        if not self.config:
            raise UsageError(f"--config is missing; expected {', '.join(shipped_recipes())}, or a TOML file")
        if not self.data:
            raise UsageError("--data is missing; expected a folder of pictures, or div2k")
        if self.size not in ("auto", "cpu", "gpu"):
            raise UsageError(f"--size is {self.size!r}; expected auto, cpu or gpu")
