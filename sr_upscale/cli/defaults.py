"""The file of defaults: a table for each command, any long option by its name."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import platformdirs

from sr_upscale.cli import COMMANDS
from sr_upscale.errors import UsageError
from sr_upscale.formatting import shortened, shown


def config_file() -> Path:
    """Returns the file of defaults: ``SR_UPSCALE_CONFIG``, else the system's place for settings."""
    return Path(os.environ.get("SR_UPSCALE_CONFIG") or platformdirs.user_config_path("sr-upscale") / "config.toml")


def defaults_of(command: Any) -> dict[str, Any]:
    """Returns the defaults of a command that stand in the file, by the names of its parameters.

    Args:
        command: As typer runs it.

    Raises:
        UsageError: The file cannot be read, or a name in it is no option of the command.
    """
    options = {
        name.removeprefix("--"): parameter.name
        for parameter in getattr(command, "params", ())
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--") and parameter.param_type_name == "option"
    }
    table = tables_of_file().get(command.name, {})
    for key in table:
        if key not in options:
            raise UsageError(_misspelt(f"{command.name}.{key}", key, options))
    return {options[key]: value for key, value in table.items()}


def tables_of_file() -> Mapping[str, Mapping[str, Any]]:
    """Reads the file, as tables of options by the name of the command; empty where there is none.

    Raises:
        UsageError: It cannot be read, or a table is named like no command.
    """
    path = config_file()
    try:
        tables = (
            tomllib.loads(path.read_text(encoding="utf-8"))
            if path.exists() or "SR_UPSCALE_CONFIG" in os.environ
            else {}
        )
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{shown(path)}: cannot be read ({error}); expected TOML with a table for each command"
        ) from error
    for name, table in tables.items():
        if name not in COMMANDS or not isinstance(table, dict):
            raise UsageError(_misspelt(name, name, COMMANDS))
    return tables


def _misspelt(place: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [*known], n=1)
    kind = "option" if "." in place else "command, and options stand below one"
    hint = f"did you mean {near[0]}?" if near else "see `sr-upscale --help`"
    return f"{shown(config_file())}: {shortened(place)} is no {kind}; {hint}"
