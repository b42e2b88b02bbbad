"""``sr-upscale benchmark --dataset set14 --model psnr``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sr_upscale.benchmark.names import KERNELS, NAMES
from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.cli.obtain import obtain_named, split
from sr_upscale.errors import UsageError
from sr_upscale.formatting import extra, shown
from sr_upscale.pipeline.words import dtype_name
from sr_upscale.pretrained.registry import datasets_folder
from sr_upscale.storage.atomic import make_folder, refuse_existing, replace_file

_data, _protocol = opt.panel("Data"), opt.panel("Protocol")


@opt.command()
def benchmark(
    console: Console,
    dataset: Annotated[
        list[str],
        _data(
            "--dataset",
            help=f"{', '.join(NAMES)}, or a folder of HR pictures; several by comma.",
            autocompletion=opt.completing(lambda: NAMES),
        ),
    ],
    model: opt.Methods = None,
    scale: Annotated[int, typer.Option("-s", "--scale", min=2, max=8, help="Factor.")] = 4,
    lr: Annotated[str | None, _data("--lr", help="Folder of LR pictures that belong to a folder of HR ones.")] = None,
    root: Annotated[
        str | None, _data("--root", help="Folder that holds the data sets, in place of the network.")
    ] = None,
    limit: Annotated[int | None, _data("--limit", min=1, help="Only so many pictures of each set.")] = None,
    channel: Annotated[str, _protocol("--channel", help="y (as papers) or rgb.")] = "y",
    border: Annotated[
        int | None, _protocol("--border", min=0, help="HR pixels left out at the edges. Default: the scale.")
    ] = None,
    gray: Annotated[
        str, _protocol("--gray", help="Gray pictures: rgb (as networks' test codes) or gray (as MATLAB's).")
    ] = "rgb",
    own_lr: Annotated[bool, _protocol("--own-lr", help="Make LR here, even where there are LR files.")] = False,
    vgg_weights: Annotated[
        str | None,
        typer.Option("--vgg-weights", help="VGG19 (.safetensors or .pth): measures the VGG19 distance, too."),
    ] = None,
    lpips: Annotated[
        str | None, typer.Option("--lpips", help="Measure LPIPS with this backbone: alex or vgg (an extra).")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Show published scores beside the measured ones, marked.")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option("-o", "--out", help="Folder for report.html, pictures.csv and results.json, .md and .tex."),
    ] = None,
    plots: Annotated[
        bool, typer.Option("--plots", help="In --out also quality against speed, as SVG and PNG (an extra).")
    ] = False,
    device: opt.Device = "auto",
    fp32: opt.Fp32 = False,
    bf16: opt.Bf16 = False,
    fp16: opt.Fp16 = False,
    tta: opt.Tta = False,
    backend: opt.Backend = "torch",
    force: opt.Force = False,
) -> int:
    """Measure models on data sets as the papers do: PSNR, SSIM, NIQE, speed and memory."""
    if channel not in ("y", "rgb") or gray not in ("rgb", "gray"):
        raise UsageError(f"--channel is {channel!r} and --gray {gray!r}; expected y or rgb, and rgb or gray")
    folder = Path(out) if out is not None else None
    if folder is not None:
        refuse_existing(folder / "report.html", force=force)
    if plots:
        _require_plots(folder)
    names = obtain_named(model, console)

    options: dict[str, Any] = {
        "device": device,
        "dtype": dtype_name(fp32=fp32, bf16=bf16, fp16=fp16),
        "tta": tta,
        "backend": backend,
    }
    with console.progress(", ".join(names)):  # it stands before torch is imported
        from sr_upscale.benchmark.methods import make_method
        from sr_upscale.benchmark.report import Gallery, write_report
        from sr_upscale.benchmark.run import Protocol, run_benchmark
        from sr_upscale.benchmark.sets import pairs_of
        from sr_upscale.benchmark.tables import to_csv, to_dict, to_latex, to_markdown, to_text
        from sr_upscale.metrics.reference import lpips_model
        from sr_upscale.models.features import distance_features

        methods = [make_method(name, scale, **(options if name not in KERNELS else {})) for name in names]
    if len({method.name for method in methods}) < len(methods):
        raise UsageError(f"--model names {', '.join(names)}: two of them have one name; expected different ones")
    protocol = Protocol(
        scale=scale,
        channel=channel,
        crop_border=scale if border is None else border,
        gray_as_rgb=gray == "rgb",
        own_lr=own_lr,
        lpips=lpips or "",
        limit=limit,
    )
    sets = {}
    for name in split(dataset):
        with console.progress(name) as report:
            pairs = pairs_of(
                name,
                scale,
                cache=datasets_folder(),
                lr=Path(lr) if lr else None,
                root=Path(root) if root else None,
                on_progress=report,
            )
        label = Path(name).name
        if label in sets:
            raise UsageError(f"--dataset names {dataset}: two of them are called {label}; give one at a time")
        sets[label] = pairs[:limit]
    gallery = Gallery()
    with console.progress("") as report:
        results = run_benchmark(
            sets,
            methods,
            protocol,
            features=distance_features(Path(vgg_weights)) if vgg_weights else None,
            lpips=lpips_model(lpips) if lpips is not None else None,
            on_progress=report,
            on_picture=gallery.add,
            on_warning=console.warn,
        )
    if folder is not None:
        files: dict[str, str | bytes] = {
            "results.json": json.dumps(to_dict(results), indent=1) + "\n",
            "results.md": to_markdown(results, with_published=published),
            "results.tex": to_latex(results, with_published=published),
            "pictures.csv": to_csv(results.scores),
            "report.html": write_report(results, gallery, with_published=published),
        }
        if plots:
            from sr_upscale.benchmark.plots import plot_files

            files |= plot_files(results)
        _write(folder, files)
        console.note(f"{shown(folder)}: {', '.join(files)}")
    console.result(to_dict(results), [to_text(results, with_published=published)])
    return 0


def _require_plots(folder: Path | None) -> None:
    """Refuses plots that could not be made, before anything is measured."""
    if folder is None:
        raise UsageError("--plots are files of --out; give -o a folder")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--plots needs an extra; {extra('plots')}") from error


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    make_folder(folder)
    for name, content in files.items():
        with replace_file(folder / name) as temporary:
            temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
