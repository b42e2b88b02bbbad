"""The recipes that come with the package. Does not import torch."""

from __future__ import annotations

from importlib import resources


def shipped_recipes() -> list[str]:
    """Returns the names of the recipes that come with the package, sorted."""
    folder = resources.files("sr_upscale.training.recipes")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name: str) -> str:
    """Returns the TOML text of a shipped recipe."""
    return (resources.files("sr_upscale.training.recipes") / f"{name}.toml").read_text("utf-8")
