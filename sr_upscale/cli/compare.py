"""``sr-upscale compare PICTURE --model A --model B``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from sr_upscale.benchmark.names import KERNELS
from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.cli.models import obtain_named
from sr_upscale.errors import OutputError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.pipeline.batch_plan import Item, refuse_collisions, refuse_name, refuse_unwritable
from sr_upscale.pretrained.registry import known_names
from sr_upscale.storage.atomic import replace_file


def compare(
    picture: Annotated[str, typer.Argument(help="Picture to enlarge.", show_default=False)],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-n",
            "--model",
            help="A model, a file, bicubic or lanczos; several by comma. Default: bicubic, ours.",
            autocompletion=opt.completing(lambda: [*KERNELS, *known_names()]),
        ),
    ] = None,
    crop: Annotated[
        str | None, typer.Option("--crop", metavar="X,Y,W,H", help="Only this part, in input pixels.")
    ] = None,
    scale: Annotated[int, typer.Option("-s", "--scale", min=2, max=8, help="Factor.")] = 4,
    out: Annotated[str | None, typer.Option("-o", "--out", help="Page to write. Default: STEM_compare.html.")] = None,
    device: opt.Device = "auto",
    force: opt.Force = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    offline: opt.Offline = False,
    debug: opt.Debug = False,
) -> int:
    """Enlarge a picture with several models and write a page with a slider between them."""
    del debug, offline  # they act when they are parsed
    console = Console(quiet=quiet, as_json=as_json)
    source = Path(picture)
    target = Path(out) if out is not None else source.with_name(f"{source.stem}_compare.html")
    refuse_collisions([Item(source=source, target=target)])
    refuse_name(target)
    refuse_unwritable([target])
    if target.exists() and not force:
        raise OutputError(f"{shown(target)}: exists; add --force to overwrite it, or choose another -o")
    names = obtain_named(model, console)

    with console.progress(source.name) as report:  # it stands before torch is imported
        import numpy as np

        from sr_upscale.benchmark.methods import make_method
        from sr_upscale.benchmark.report import compare_page
        from sr_upscale.functional.pil_arrays import rgb8
        from sr_upscale.images import load_image

        pixels = rgb8(np.asarray(load_image(source).frames[0].pixels_hwc))
        if crop is not None:
            left, top, width, height = _box(crop, pixels.shape[1], pixels.shape[0])
            pixels = np.ascontiguousarray(pixels[top : top + height, left : left + width])
        images: dict[str, Any] = {"input": pixels.repeat(scale, 0).repeat(scale, 1)}
        for number, name in enumerate(names):
            report(number / len(names), name)
            method = make_method(name, scale, **({} if name in KERNELS else {"device": device}))
            label = method.name if method.name not in images else name
            images[label] = method.run(pixels)
    text = compare_page(f"{source.name} x{scale}", source.name, images)
    with replace_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    console.result({"output": str(target), "models": [label for label in images if label != "input"]})
    console.note(f"{shown(target)}: open it in a browser")
    return 0


def _box(text: str, width: int, height: int) -> tuple[int, int, int, int]:
    match = re.fullmatch(r"(\d+),(\d+),(\d+),(\d+)", text.strip())
    if match is None:
        raise UsageError(f"--crop is {text!r}; expected X,Y,W,H such as 100,80,256,256")
    left, top, w, h = (int(part) for part in match.groups())
    if w < 1 or h < 1 or left + w > width or top + h > height:
        raise UsageError(f"--crop is {text!r}; expected a part of the picture of {width}x{height}")
    return left, top, w, h
