"""``sr-upscale models``."""

from __future__ import annotations

from sr_upscale.checkpoint import read_info
from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.store import DEFAULT_MODEL, TABLE
from sr_upscale.text import mebibytes


def models(as_json: opt.Json = False, debug: opt.Debug = False) -> int:
    """List the models: factor, size, licence, what for, measured scores."""
    del debug  # read from the command line by `app.run`, before options are parsed
    console = Console(as_json=as_json)
    rows = []
    for entry in TABLE:
        row = {
            "name": entry.name,
            "scale": entry.scale,
            "purpose": entry.purpose,
            "license": entry.license,
            "installed": entry.path.is_file(),
            "default": entry.name.startswith(f"{DEFAULT_MODEL}-"),
        }
        if row["installed"]:
            info = read_info(entry.path)
            row |= {"bytes": entry.path.stat().st_size, "data": info.data, "scores": info.scores}
        rows.append(row)
    console.result({"models": rows})
    if not as_json:
        for entry, row in zip(TABLE, rows, strict=True):
            size = mebibytes(entry.path.stat().st_size) if row["installed"] else "missing"
            mark = "*" if row["default"] else " "
            console.line(f"{mark} {entry.name:<10} x{entry.scale}  {size:>8}  {entry.license:<6} {entry.purpose}")
        console.line("* default family: the factor is chosen by the scale. Cards: weights/NAME.md")
    return 0
