"""The recipes that come with the package. Does not import torch."""

from __future__ import annotations

from importlib import resources


def shipped_recipes() -> list[str]:
    """Their names."""
    folder = resources.files("sr_upscale.training.recipes")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name: str) -> str:
    """The TOML text of one."""
    return (resources.files("sr_upscale.training.recipes") / f"{name}.toml").read_text("utf-8")
