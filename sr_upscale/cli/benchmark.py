"""``sr-upscale benchmark --dataset set14 --model psnr``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sr_upscale.benchmark.metrics import load_metrics
from sr_upscale.benchmark.protocol import KERNELS, BenchmarkOptions
from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.cli.obtain import obtain_named, split
from sr_upscale.errors import UsageError
from sr_upscale.formatting import needing, shown
from sr_upscale.pipeline.parsing import dtype_name
from sr_upscale.pretrained.registry import DEFAULT_MODEL, datasets_folder
from sr_upscale.storage.atomic import make_folder, refuse_existing, replace_file


@opt.command()
def benchmark(
    options: BenchmarkOptions,
    console: Console,
    device: opt.Device = "auto",
    fp32: opt.Fp32 = False,
    bf16: opt.Bf16 = False,
    fp16: opt.Fp16 = False,
    tta: opt.Tta = False,
    backend: opt.Backend = "torch",
    force: opt.Force = False,
) -> int:
    """Measure quality, speed and memory of models on data sets.

    PSNR, SSIM and NIQE are computed as in papers; --metric adds others."""
    folder, scale = options.out, options.scale
    if folder is not None:
        refuse_existing(folder / "report.html", force=force)
    if options.plots:
        _require_plots()
    names = obtain_named(options.model, console)

    running: dict[str, Any] = {
        "device": device,
        "dtype": dtype_name(fp32=fp32, bf16=bf16, fp16=fp16),
        "tta": tta,
        "backend": backend,
    }
    with console.progress(", ".join(names)):  # it stands before torch is imported
        from sr_upscale.benchmark.methods import make_method
        from sr_upscale.benchmark.report import Gallery, plot_files, write_report
        from sr_upscale.benchmark.run import run_benchmark
        from sr_upscale.benchmark.sets import pairs_of
        from sr_upscale.benchmark.tables import to_csv, to_dict, to_latex, to_markdown, to_text

        metrics = load_metrics(options.protocol.metrics)
        methods = [make_method(name, scale, **(running if name not in KERNELS else {})) for name in names]
    counts = Counter(method.name for method in methods)
    pairs_named = zip(methods, names, strict=True)
    methods = [
        replace(method, name=str(Path(name).with_suffix(""))) if counts[method.name] > 1 else method
        for method, name in pairs_named
    ]
    if len({method.name for method in methods}) < len(methods):
        raise UsageError(f"--model names {', '.join(names)}: two of them have the same name; expected different ones")
    sets = {}
    for name in split(options.dataset):
        with console.progress(name) as report:
            pairs = pairs_of(
                name,
                scale,
                cache=datasets_folder(),
                lr=options.lr,
                root=options.root,
                on_progress=report,
            )
        label = Path(name).name
        if label in sets:
            raise UsageError(
                f"--dataset names {', '.join(options.dataset)}: two of them are called {label}; give one at a time"
            )
        sets[label] = pairs[: options.limit]
    gallery = Gallery()
    with console.progress("") as report:
        results = run_benchmark(
            sets,
            methods,
            options.protocol,
            metrics=metrics,
            on_progress=report,
            on_picture=gallery.add,
            on_warning=console.warn,
        )
    if folder is not None:
        files: dict[str, str | bytes] = {
            "results.json": json.dumps(to_dict(results), indent=1) + "\n",
            "results.md": to_markdown(results, with_published=options.published),
            "results.tex": to_latex(results, with_published=options.published),
            "pictures.csv": to_csv(results.scores),
            "report.html": write_report(results, gallery, with_published=options.published),
        }
        if options.plots:
            files |= plot_files(results)
        _write(folder, files)
        console.note(f"{shown(folder)}: {', '.join(files)}")
    if not options.model:
        console.note(f"{DEFAULT_MODEL} is trained for looks, not for PSNR; measure -n psnr to compare by PSNR")
    console.result(to_dict(results), [to_text(results, with_published=options.published)])
    return 0


def _require_plots() -> None:
    """Refuses plots that could not be made, before anything is measured."""
    with needing("plots", "--plots needs an extra"):
        import matplotlib  # noqa: F401


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    make_folder(folder)
    for name, content in files.items():
        with replace_file(folder / name) as temporary:
            temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
