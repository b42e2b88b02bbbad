"""Quality against speed as figures for papers. Imports matplotlib, which is an extra."""

from __future__ import annotations

import io
import math

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from sr_upscale.benchmark.run import Results
from sr_upscale.benchmark.tables import datasets_of

MARKERS = "osD^vP*X<>"


def plot_files(results: Results) -> dict[str, bytes]:
    """Draws PSNR against speed, a figure for each data set.

    Speed is the median of the pictures with its quartiles, in output megapixels a second. A method without an error has
    no PSNR that could be drawn, and is left out. The texts of an SVG are texts, which the fonts of a paper can set.

    Returns:
        Files by name: ``speed-<data set>.svg`` and ``.png``.
    """
    files = {}
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sr-upscale"}):
        for dataset in datasets_of(results):
            figure = _figure(results, dataset)
            for kind in ("svg", "png"):
                buffer = io.BytesIO()
                figure.savefig(buffer, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else None)
                files[f"speed-{dataset}.{kind}"] = buffer.getvalue()
    return files


def _figure(results: Results, dataset: str) -> Figure:
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in results.summaries if row.dataset == dataset and math.isfinite(row.scores["psnr"])]
    for number, row in enumerate(rows):
        axes.errorbar(
            row.mpix_per_s,
            row.scores["psnr"],
            xerr=[[row.mpix_per_s - row.mpix_per_s_low], [row.mpix_per_s_high - row.mpix_per_s]],
            marker=MARKERS[number % len(MARKERS)],
            linestyle="none",
            capsize=3,
            label=row.method,
        )
    axes.set(
        title=f"{dataset}, x{results.protocol.scale}",
        xlabel=f"speed, output MPix/s ({results.environment['processor']})",
        ylabel=f"PSNR on {'Y' if results.protocol.channel == 'y' else 'RGB'}, dB",
        xscale="log",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="both", alpha=0.25)
    if rows:
        axes.legend()
    return figure
