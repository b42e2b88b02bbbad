"""What a run will be, by the words of a command line: recipe, length, device, number type."""

from __future__ import annotations

import os
from typing import Any

import torch

from sr_upscale.device import Choice, Device, choose, has_bf16
from sr_upscale.errors import UsageError
from sr_upscale.training.config import Recipe
from sr_upscale.training.options import TrainingOptions
from sr_upscale.training.parallel import World
from sr_upscale.training.recipe_file import load_recipe, parse_override, with_length, with_patches


def recipe_of(options: TrainingOptions, *, size: str) -> Recipe:
    """Reads the recipe of options, in its ``cpu`` or ``gpu`` size, and changes what they say.

    Raises:
        UsageError: There is no such recipe, or it does not take a value; or see `recipe_file.load_recipe`.
    """
    init = "" if options.init == "none" else options.init
    overrides: dict[str, Any] = {"stage.lr": options.lr, "seed": options.seed, "init": init}
    overrides |= dict(parse_override(text) for text in options.settings)
    given = {key: value for key, value in overrides.items() if value is not None}
    recipe = load_recipe(options.config, given, size=size, stages=options.stages)
    recipe = with_patches(recipe, lr_patch=options.lr_patch, batch_size=options.batch_size)
    return with_length(recipe, max_time_s=options.max_time, steps=options.steps)


def own_choice(device: str, dtype: str, world: World) -> Choice:
    """Chooses the device of this process: what was asked for, or its own among those of ``torchrun``.

    There ``auto`` is a GPU of its own, or the CPU where there is no GPU.

    Raises:
        UsageError: See `device.choose`.
    """
    if device.startswith("vulkan"):
        raise UsageError(f"device {device} is not for training; use cpu, cuda or mps")
    if world.size > 1:
        on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
        device = "cpu" if on_cpu else f"cuda:{os.environ['LOCAL_RANK']}"
    return choose(device, dtype)


def torch_device(choice: Choice) -> torch.device:
    """Returns the device of a choice as torch names it."""
    return torch.device(str(choice.device))


def size_of(wanted: str, device: Device) -> str:
    """Returns the size of a recipe: ``cpu`` or ``gpu``, which ``auto`` takes by the device."""
    return wanted if wanted != "auto" else "cpu" if device.type == "cpu" else "gpu"


def training_dtype(choice: Choice, wanted: str) -> torch.dtype:
    """Chooses what was asked for; else bf16 where the hardware has it, because bf16 needs no loss scaling."""
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, choice.dtype)
        return dtype
    if has_bf16(choice.device.type):
        return torch.bfloat16
    return torch.float16 if choice.device.type == "cuda" else torch.float32


def format_dtype(dtype: torch.dtype) -> str:
    """Puts a number type of training into words."""
    short = str(dtype).removeprefix("torch.")
    return {"float32": "fp32", "bfloat16": "bf16 autocast", "float16": "fp16 autocast with loss scaling"}[short]
