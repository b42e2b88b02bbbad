"""``sr-upscale compare PICTURE --model A --model B``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sr_upscale.benchmark.protocol import BenchmarkOptions
from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.cli.obtain import obtain_named
from sr_upscale.formatting import shown
from sr_upscale.pipeline.parsing import parse_box
from sr_upscale.pipeline.targets import check_single
from sr_upscale.storage.atomic import replace_file


@opt.command()
def compare(
    console: Console,
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="Picture to enlarge.", show_default=False)],
    model: Annotated[list[str] | None, opt.option_of(BenchmarkOptions, "model")] = None,
    crop: Annotated[
        str | None, typer.Option("--crop", metavar="X,Y,W,H", help="Only this part, in input pixels.")
    ] = None,
    scale: Annotated[int, typer.Option("-s", "--scale", min=2, max=8, help="Factor.")] = 4,
    out: Annotated[str | None, typer.Option("-o", "--out", help="Page to write. Default: STEM_compare.html.")] = None,
    device: opt.Device = "auto",
    force: opt.Force = False,
) -> int:
    """Compare models on a picture, on a page with a slider."""
    source = Path(picture)
    target = Path(out) if out is not None else source.with_name(f"{source.stem}_compare.html")
    check_single(source, target, force=force)
    box = parse_box(crop) if crop is not None else None
    names = obtain_named(model, console)

    with console.progress(source.name) as report:  # it stands before torch is imported
        from sr_upscale.benchmark.methods import enlarged_by
        from sr_upscale.benchmark.report import compare_page

        images = enlarged_by(names, source, scale, box=box, device=device, on_progress=report)
    with replace_file(target) as temporary:
        temporary.write_text(compare_page(f"{source.name} x{scale}", source.name, images), encoding="utf-8")
    console.result({"output": str(target), "models": list(images)[1:]})
    console.note(f"{shown(target)}: open it in a browser")
    return 0
