"""Recipes from TOML files, with changes put over them. An unknown key is refused with the nearest known name."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sr_upscale.errors import UsageError
from sr_upscale.training.config import GENERATOR_KEYS, Recipe
from sr_upscale.training.options import read_recipe, shipped_recipes

T = TypeVar("T")


def with_length(recipe: Recipe, *, max_time_s: float | None = None, steps: int | None = None) -> Recipe:
    """Returns the recipe cut to a length in all, which its stages share as they shared their own.

    With one of `max_time_s` and `steps`, the other no longer ends a stage. With neither, the recipe stays as it is.

    Args:
        recipe: What to cut.
        max_time_s: Seconds of running time of all stages together.
        steps: Optimiser steps of all stages together; each stage has at least one.
    """
    if max_time_s is None and steps is None:
        return recipe
    stages = recipe.stages
    in_time = all(stage.max_time_s > 0 for stage in stages.values())
    lengths = [stage.max_time_s if in_time else stage.steps for stage in stages.values()]
    shares = [length / sum(lengths) for length in lengths] if all(lengths) else [1 / len(stages)] * len(stages)
    changed = {
        name: replace(
            stage,
            max_time_s=max_time_s * share if max_time_s is not None else 0.0,
            steps=max(1, round(steps * share)) if steps is not None else 0,
        )
        for (name, stage), share in zip(stages.items(), shares, strict=True)
    }
    return replace(recipe, stages=changed)


def with_patches(recipe: Recipe, *, lr_patch: int | None = None, batch_size: int | None = None) -> Recipe:
    """Returns the recipe with one patch size or batch size in all stages; None leaves the recipe's own.

    Args:
        recipe: What to change.
        lr_patch: Side of a patch in LR pixels.
        batch_size: Patches a step, of all processes together.
    """
    sizes: dict[str, Any] = {
        key: value for key, value in (("lr_patch", lr_patch), ("batch_size", batch_size)) if value is not None
    }
    unset: dict[str, Any] = dict.fromkeys(sizes, 0)
    stages = {name: replace(stage, **unset) for name, stage in recipe.stages.items()}
    return replace(recipe, data=replace(recipe.data, **sizes), stages=stages)


def load_recipe(
    name_or_path: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    size: str = "cpu",
    stages: Sequence[str] = (),
) -> Recipe:
    """Loads a shipped recipe by name, or one from a TOML file, with dotted overrides such as ``stages.psnr.lr``.

    Args:
        name_or_path: A name of `shipped_recipes`, or a path that ends in .toml.
        overrides: Values by dotted key; a key ``stage.lr`` means the only stage of a recipe that has one.
        size: ``cpu`` for the recipe as it stands, ``gpu`` for what its section ``gpu`` makes of it.
        stages: Only these stages, in the recipe's order.

    Raises:
        UsageError: No such recipe, broken TOML, an unknown key, or a value of the wrong type or range.
    """
    try:
        table = tomllib.loads(_text_of(name_or_path))
    except (ValueError, RecursionError) as error:  # ValueError: no TOML, or a number of thousands of digits
        raise UsageError(f"recipe {name_or_path}: not valid TOML: {error}") from error
    gpu = table.pop("gpu", {})
    if not isinstance(gpu, Mapping):
        raise UsageError(f"recipe {name_or_path}: gpu is {gpu!r}; expected a section")
    table.setdefault("name", Path(name_or_path).stem)
    recipe_from_dict(_merged(table, gpu))  # the other size must be valid, too
    if size == "gpu":
        table = _merged(table, gpu)
    if stages:
        there = table.get("stages", {})
        if unknown := [stage for stage in stages if stage not in there]:
            raise UsageError(f"recipe {table['name']} has no stage {unknown[0]!r}; expected {', '.join(there)}")
        table["stages"] = {name: stage for name, stage in there.items() if name in stages}
    _refuse_sizes(table, overrides or {})
    for key, value in (overrides or {}).items():
        _refuse_new_stage(key, table)
        table = _merged(table, _nested(_named_stage(key, table), value, name_or_path))
    return recipe_from_dict(table)


def _text_of(name_or_path: str) -> str:
    path = Path(name_or_path)
    if path.suffix == ".toml":
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"recipe {path}: {error.strerror}; expected a TOML file") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"recipe {path}: not UTF-8 ({error.reason}); expected a TOML file") from error
    if name_or_path in shipped_recipes():
        return read_recipe(name_or_path)
    near = [name for name in shipped_recipes() if name.startswith(f"{name_or_path}-x")]  # the name of a family
    expected = f"expected one of {', '.join(shipped_recipes())}, or a file ending in .toml"
    expected = f"did you mean {' or '.join(near)}?" if near else expected
    raise UsageError(f"no recipe named {name_or_path!r}; {expected}")


def _merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `table` with `changes` put over it, section by section."""
    merged = dict(table)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and not isinstance(value, Mapping):
            raise UsageError(f"recipe: {key} is a section; cannot set it to {value!r}")
        if isinstance(value, Mapping) and before is not None and not isinstance(before, Mapping):
            raise UsageError(f"recipe: {key} is not a section; cannot set {key}.{next(iter(value), '')}")
        merged[key] = _merged(before or {}, value) if isinstance(value, Mapping) else value
    return merged


def _nested(key: str, value: Any, source: str) -> dict[str, Any]:
    *parents, last = key.split(".")
    if not all((*parents, last)):
        raise UsageError(f"recipe {source}: {key!r} is not a key; expected one such as data.batch_size")
    table = {last: value}
    for parent in reversed(parents):
        table = {parent: table}
    return table


def _refuse_new_stage(key: str, table: Mapping[str, Any]) -> None:
    """Refuses ``stages.psn.lr`` where there is no such stage: it would silently become a stage of its own."""
    first, _, rest = key.partition(".")
    name, known = rest.partition(".")[0], table.get("stages", {"psnr": {}})
    if first == "stages" and isinstance(known, Mapping) and name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
        raise UsageError(f"recipe {table['name']} has no stage {name!r}; {hint}")


def _refuse_sizes(table: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    """Refuses sizes of our generator that were given together with another architecture, which would ignore them."""
    model = table.get("model", {})
    given = {key.removeprefix("model.") for key in overrides if key.startswith("model.")}
    arch = overrides.get("model.arch", model.get("arch", ""))
    if "arch" in model:
        given |= set(model)
    if arch and (ours := [key for key in GENERATOR_KEYS[1:] if key in given]):
        raise UsageError(f"recipe: model.{ours[0]} is of our generator; {arch} takes its sizes as model.options")


def _named_stage(key: str, table: Mapping[str, Any]) -> str:
    """Turns ``stage.lr`` into ``stages.psnr.lr``, where there is one stage."""
    first, _, rest = key.partition(".")
    if first != "stage" or not rest:
        return key
    names = list(table.get("stages", {"psnr": {}}))
    if len(names) != 1:
        choices = ", ".join(f"stages.{name}.{rest}" for name in names)
        raise UsageError(f"recipe {table['name']} has {len(names)} stages; say which: --set {choices}")
    return f"stages.{names[0]}.{rest}"


def parse_override(text: str) -> tuple[str, Any]:
    """Splits ``stage.pixel_loss="l2"`` into (key, value). The value is read as TOML, a bare word as a string.

    Raises:
        UsageError: There is no ``=`` in it, or no key before it.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set is {text!r}; expected KEY=VALUE such as stage.lr=5e-4")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except ValueError:  # no TOML, or a number of thousands of digits
        return key.strip(), value.strip()


def recipe_from_dict(table: Mapping[str, Any]) -> Recipe:
    """Builds a recipe from nested sections, and checks keys and types. It is the inverse of `dataclasses.asdict`.

    Raises:
        UsageError: An unknown key, or a value of the wrong type or range.
    """
    return _build(Recipe, table, prefix="")


def _build(kind: type[T], table: Any, *, prefix: str) -> T:
    if not isinstance(table, Mapping):
        raise UsageError(f"recipe: {prefix.rstrip('.')} is {table!r}; expected a section")
    known = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise UsageError(f"recipe: unknown key {prefix}{key}; {hint}")
        values[key] = _checked(value, known[key], f"{prefix}{key}")
    return kind(**values)


def _checked(value: Any, kind: Any, key: str) -> Any:
    """Returns the value as the annotation `kind` wants it."""
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast("type", kind), value, prefix=f"{key}.")
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        count = None if arguments[-1] is Ellipsis else len(arguments)
        if not isinstance(value, list | tuple) or (count is not None and len(value) != count):
            raise UsageError(f"recipe: {key} is {value!r}; expected {'some' if count is None else count} numbers")
        return tuple(_checked(item, arguments[0], key) for item in value)
    if origin is not None:  # a mapping from names
        if not isinstance(value, Mapping):
            raise UsageError(f"recipe: {key} is {value!r}; expected a section")
        return {name: _checked(item, arguments[1], f"{key}.{name}") for name, item in value.items()}
    if type(value) is int and kind is float:
        return float(value)
    if type(value) is not kind:  # a bool is no int
        raise UsageError(f"recipe: {key} is {value!r}; expected {kind.__name__}")
    return value
