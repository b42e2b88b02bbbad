"""What a run will be, by the words of a command line: recipe, length, device, number type."""

from __future__ import annotations

import os
from typing import Any

import torch

from sr_upscale.device import Choice, choose, has_bf16
from sr_upscale.errors import UsageError
from sr_upscale.formatting import parse_duration
from sr_upscale.training.config import Recipe
from sr_upscale.training.parallel import World
from sr_upscale.training.recipe_file import load_recipe, parse_override, with_length, with_patches


def recipe_of(
    config: str,
    settings: list[str],
    *,
    size: str,
    stages: list[str],
    init: str | None = None,
    lr: float | None = None,
    seed: int | None = None,
    lr_patch: int | None = None,
    batch_size: int | None = None,
    max_time: str | None = None,
    steps: int | None = None,
) -> Recipe:
    """Reads a recipe and changes what options say; None leaves a value as it stands.

    Raises:
        UsageError: There is no such recipe, or it does not take a value; or see `recipe_file.load_recipe`.
    """
    overrides: dict[str, Any] = {"stage.lr": lr, "seed": seed, "init": "" if init == "none" else init}
    overrides |= dict(parse_override(text) for text in settings)
    given = {key: value for key, value in overrides.items() if value is not None}
    recipe = load_recipe(config, given, size=size, stages=stages)
    seconds = parse_duration(max_time) if max_time is not None else None
    return with_length(with_patches(recipe, lr_patch=lr_patch, batch_size=batch_size), max_time_s=seconds, steps=steps)


def own_choice(device: str, dtype: str, world: World) -> Choice:
    """Chooses the device of this process: what was asked for, or its own among those of ``torchrun``.

    There ``auto`` is a GPU of its own, or the CPU where there is no GPU.

    Raises:
        UsageError: See `device.choose`.
    """
    if world.size > 1:
        on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
        device = "cpu" if on_cpu else f"cuda:{os.environ['LOCAL_RANK']}"
    return choose(device, dtype)


def size_of(wanted: str, device: torch.device) -> str:
    """Returns the size of a recipe: ``cpu`` or ``gpu``, which ``auto`` takes by the device.

    Raises:
        UsageError: There is no such size.
    """
    if wanted not in ("auto", "cpu", "gpu"):
        raise UsageError(f"--size is {wanted!r}; expected auto, cpu or gpu")
    return wanted if wanted != "auto" else "cpu" if device.type == "cpu" else "gpu"


def training_dtype(choice: Choice, wanted: str) -> torch.dtype:
    """Chooses what was asked for; else bf16 where the hardware has it, because bf16 needs no loss scaling."""
    if wanted != "auto":
        return choice.dtype
    if has_bf16(choice.device):
        return torch.bfloat16
    return torch.float16 if choice.device.type == "cuda" else torch.float32


def dtype_in_words(dtype: torch.dtype) -> str:
    """Puts a number type of training into words."""
    short = str(dtype).removeprefix("torch.")
    return {"float32": "fp32", "bfloat16": "bf16 autocast", "float16": "fp16 autocast with loss scaling"}[short]
