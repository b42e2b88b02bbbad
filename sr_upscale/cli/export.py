"""``sr-upscale export -n MODEL``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.cli.obtain import obtain
from sr_upscale.errors import UsageError
from sr_upscale.formatting import mebibytes, shown
from sr_upscale.pretrained.registry import known_names
from sr_upscale.storage.atomic import refuse_existing


@opt.command()
def export(
    console: Console,
    model: Annotated[
        str,
        typer.Option(
            "-n",
            "--model",
            help="Name of `sr-upscale models`, or a file.",
            autocompletion=opt.completing(known_names),
        ),
    ],
    out: Annotated[str | None, typer.Option("-o", "--out", help="File, .onnx. Default: NAME.onnx here.")] = None,
    force: opt.Force = False,
) -> int:
    """Export a model to ONNX and check that it computes the same."""
    if out is not None and Path(out).suffix.lower() != ".onnx":
        raise UsageError(f"--out is {shown(out)}; expected a name ending in .onnx")
    weights = obtain(model, console)
    target = Path(out) if out is not None else Path(f"{weights.stem}.onnx")
    refuse_existing(target, force=force)
    with console.progress(target.name):  # it stands before torch is imported
        from sr_upscale.pretrained.onnx_export import export_onnx

        difference = export_onnx(weights, target)
    console.result({"output": str(target), "model": weights.stem, "largest_difference": difference})
    console.note(
        f"{shown(target)}: {mebibytes(target.stat().st_size)}, any height and width, within {difference:.0e} of torch"
    )
    return 0
