"""``sr-upscale benchmark --dataset set14 --model psnr``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sr_upscale.benchmark.names import KERNELS, NAMES
from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.cli.models import obtain_named
from sr_upscale.errors import OutputError, UsageError
from sr_upscale.formatting import extra, shown
from sr_upscale.pipeline.words import dtype_name
from sr_upscale.pretrained.registry import cache_folder, known_names
from sr_upscale.storage.atomic import output_error, replace_file

if TYPE_CHECKING:
    from sr_upscale.benchmark.sets import PicturePair
    from sr_upscale.models.features import VGG19Features

_DATA, _PROTOCOL = "Data", "Protocol"


def benchmark(
    dataset: Annotated[
        list[str],
        typer.Option(
            "--dataset",
            help=f"{', '.join(NAMES)}, or a folder of HR pictures; several by comma.",
            autocompletion=opt.completing(lambda: NAMES),
            rich_help_panel=_DATA,
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-n",
            "--model",
            help="A model, a file, bicubic or lanczos; several by comma. Default: bicubic and ours.",
            autocompletion=opt.completing(lambda: [*KERNELS, *known_names()]),
        ),
    ] = None,
    scale: Annotated[int, typer.Option("-s", "--scale", min=2, max=8, help="Factor.")] = 4,
    lr: Annotated[
        str | None,
        typer.Option("--lr", help="Folder of LR pictures that belong to a folder of HR ones.", rich_help_panel=_DATA),
    ] = None,
    root: Annotated[
        str | None,
        typer.Option("--root", help="Folder that holds the data sets, in place of the network.", rich_help_panel=_DATA),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many pictures of each set.", rich_help_panel=_DATA)
    ] = None,
    channel: Annotated[str, typer.Option("--channel", help="y (as papers) or rgb.", rich_help_panel=_PROTOCOL)] = "y",
    border: Annotated[
        int | None,
        typer.Option(
            "--border", min=0, help="HR pixels left out at the edges. Default: the scale.", rich_help_panel=_PROTOCOL
        ),
    ] = None,
    gray: Annotated[
        str,
        typer.Option(
            "--gray",
            help="Gray pictures: rgb (as networks' test codes) or gray (as MATLAB's).",
            rich_help_panel=_PROTOCOL,
        ),
    ] = "rgb",
    own_lr: Annotated[
        bool,
        typer.Option("--own-lr", help="Make LR here, even where there are LR files.", rich_help_panel=_PROTOCOL),
    ] = False,
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
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    offline: opt.Offline = False,
    debug: opt.Debug = False,
) -> int:
    """Measure models on data sets as the papers do: PSNR, SSIM, NIQE, speed and memory."""
    del debug, offline  # they act when they are parsed
    if channel not in ("y", "rgb") or gray not in ("rgb", "gray"):
        raise UsageError(f"--channel is {channel!r} and --gray {gray!r}; expected y or rgb, and rgb or gray")
    console = Console(quiet=quiet, as_json=as_json)
    folder = Path(out) if out is not None else None
    if folder is not None and (folder / "report.html").exists() and not force:
        raise OutputError(f"{shown(folder)} holds a report; use --force, or another --out")
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
        from sr_upscale.benchmark.tables import to_csv, to_dict, to_latex, to_markdown, to_text
        from sr_upscale.metrics.reference import lpips_model

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
    for name in _split(dataset):
        with console.progress(name) as report:
            pairs = _pairs(name, scale, lr=lr, root=root, report=report)
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
            features=_features(vgg_weights),
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
    console.result(to_dict(results))
    if not as_json:
        console.line(to_text(results, with_published=published))
    return 0


def _split(values: list[str] | None) -> list[str]:
    return [part for value in values or [] for part in value.split(",") if part]


def _pairs(name: str, scale: int, *, lr: str | None, root: str | None, report: Any) -> list[PicturePair]:
    from sr_upscale.benchmark.sets import folder_set, named_set

    if name in NAMES:
        if lr is not None:
            raise UsageError(f"--lr belongs to a folder of HR pictures; {name} has LR files of its own")
        cache = cache_folder() / "datasets"
        return named_set(name, scale, cache=cache, root=Path(root) if root else None, on_progress=report)
    return folder_set(Path(name), Path(lr) if lr else None)


def _features(file: str | None) -> VGG19Features | None:
    if file is None:
        return None
    from sr_upscale.models.features import DISTANCE_LAYER, VGG19Features, read_vgg19

    return VGG19Features(read_vgg19(Path(file)), [DISTANCE_LAYER])


def _require_plots(folder: Path | None) -> None:
    """Refuses plots that could not be made, before anything is measured."""
    if folder is None:
        raise UsageError("--plots are files of --out; give -o a folder")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--plots needs an extra; {extra('plots')}") from error


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    for name, content in files.items():
        with replace_file(folder / name) as temporary:
            temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
