"""A recipe: frozen, validated, read from TOML. An unknown key is refused with the nearest known name."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from sr_upscale.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """Sizes and tail of the generator; see `GeneratorConfig`."""

    scale: int = 4
    num_feat: int = 64
    num_blocks: int = 24
    upsampler: str = "pixelshuffle"


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """Patches.

    Attributes:
        lr_patch: Side of a training patch in LR pixels.
        batch_size: Patches a step.
        validation_count: Pictures held out of the training folder.
    """

    lr_patch: int = 32
    batch_size: int = 8
    validation_count: int = 16


@dataclass(frozen=True, kw_only=True)
class StageSection:
    """One stage of optimisation: Adam, warm-up, then a cosine over steps or over time.

    Attributes:
        steps: Length in optimiser steps; 0 means that only `max_time_s` ends it.
        max_time_s: Length in seconds of running time; 0 means that only `steps` ends it.
        lr: Highest learning rate.
        lr_floor: Share of `lr` that is left at the end of the cosine.
        warmup_steps: Steps of linear warm-up.
        betas: Adam's decay rates.
        clip_norm: Largest norm of the gradient.
        ema_decay: Decay of the averaged weights, which are the ones validated and published.
        pixel_loss: ``l1``, or ``l2`` (mean squared error, what PSNR measures) for a last fine-tuning.
        pixel_weight: Weight of the pixel loss.
        validate_every_s: Seconds between validations.
        checkpoint_every_s: Seconds between checkpoints.
    """

    steps: int = 0
    max_time_s: float = 2700.0
    lr: float = 1e-3
    lr_floor: float = 0.01
    warmup_steps: int = 200
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    pixel_loss: str = "l1"
    pixel_weight: float = 1.0
    validate_every_s: float = 120.0
    checkpoint_every_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe.

    Attributes:
        name: Name of the weights that it makes.
        description: What they are for.
        init: Weights to start from (a name or a file); tensors of equal name and shape are taken over, so
            that another scale can serve. Empty: start at random.
        seed: Start of all random numbers.
        model, data, stage: See there.
    """

    name: str
    description: str = ""
    init: str = ""
    seed: int = 0
    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    stage: StageSection = field(default_factory=StageSection)

    def __post_init__(self) -> None:
        positive = {
            "data.lr_patch": self.data.lr_patch,
            "data.batch_size": self.data.batch_size,
            "stage.lr": self.stage.lr,
            "stage.clip_norm": self.stage.clip_norm,
            "stage.pixel_weight": self.stage.pixel_weight,
        }
        for key, value in positive.items():
            if value <= 0:
                raise UsageError(f"recipe {self.name}: {key} is {value}; expected more than 0")
        if self.stage.steps <= 0 and self.stage.max_time_s <= 0:
            raise UsageError(f"recipe {self.name}: no end; give stage.steps or stage.max_time_s (--steps, --max-time)")
        if self.stage.pixel_loss not in ("l1", "l2"):
            raise UsageError(f"recipe {self.name}: stage.pixel_loss is {self.stage.pixel_loss!r}; expected l1 or l2")
        if not 0 <= self.stage.ema_decay < 1:
            raise UsageError(f"recipe {self.name}: stage.ema_decay is {self.stage.ema_decay}; expected 0 to below 1")


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("sr_upscale.training") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A shipped recipe by name, or one from a TOML file, with dotted overrides such as ``stage.lr``.

    Raises:
        UsageError: No such recipe, broken TOML, an unknown key, or a value of the wrong type or range.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"recipe {path}: {error.strerror}; expected a TOML file") from error
    elif name_or_path in shipped_recipes():
        text = (resources.files("sr_upscale.training") / "recipes" / f"{name_or_path}.toml").read_text("utf-8")
    else:
        known = ", ".join(shipped_recipes())
        raise UsageError(f"no recipe named {name_or_path!r}; expected one of {known}, or a file ending in .toml")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"recipe {name_or_path}: not valid TOML: {error}") from error
    for key, value in (overrides or {}).items():
        *parents, last = key.split(".")
        target = table
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise UsageError(f"recipe {name_or_path}: {parent} is not a section; cannot set {key}")
        target[last] = value
    table.setdefault("name", path.stem)
    return recipe_from_dict(table)


def parse_override(text: str) -> tuple[str, Any]:
    """``stage.pixel_loss="l2"`` -> (key, value); the value is read as TOML, a bare word as a string.

    Raises:
        UsageError: No ``=`` in it.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set is {text!r}; expected KEY=VALUE such as stage.lr=5e-4")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def recipe_from_dict(table: Mapping[str, Any]) -> Recipe:
    """Inverse of `dataclasses.asdict`; validates keys and types."""
    sections: dict[str, type] = {"model": ModelSection, "data": DataSection, "stage": StageSection}
    values = {key: value for key, value in table.items() if key not in sections}
    for key, section in sections.items():
        values[key] = _build(section, table.get(key, {}), prefix=f"{key}.")
    return _build(Recipe, values, prefix="")


def _build(kind: type[T], table: Mapping[str, Any], *, prefix: str) -> T:
    known = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise UsageError(f"recipe: unknown key {prefix}{key}; {hint}")
        values[key] = _checked(value, known[key].type, f"{prefix}{key}")
    return kind(**values)


def _checked(value: Any, annotation: Any, key: str) -> Any:
    fits: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
    if annotation == "tuple[float, float]":
        if not (isinstance(value, list | tuple) and len(value) == 2 and all(_number(item) for item in value)):
            raise UsageError(f"recipe: {key} is {value!r}; expected two numbers")
        return (float(value[0]), float(value[1]))
    if annotation in fits and (not isinstance(value, fits[annotation]) or isinstance(value, bool)):
        raise UsageError(f"recipe: {key} is {value!r}; expected {annotation}")
    return float(value) if annotation == "float" else value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
