"""``sr-upscale config``."""

from __future__ import annotations

from sr_upscale.cli import options as opt
from sr_upscale.cli.app import config_file, defaults_of, tables_of_file
from sr_upscale.cli.commands import command_of
from sr_upscale.cli.console import Console
from sr_upscale.formatting import shown


@opt.command(offline=False)
def config(*, console: Console) -> int:
    """Show the defaults that your config.toml sets, and where it is."""
    tables = tables_of_file()
    for name in tables:
        defaults_of(command_of(name))
    path = config_file()
    lines = [f"{name} --{key} {value}" for name, table in tables.items() for key, value in table.items()]
    console.result(
        {"file": str(path), "defaults": tables}, [f"{shown(path)}{'' if path.exists() else ' (not there)'}", *lines]
    )
    return 0
