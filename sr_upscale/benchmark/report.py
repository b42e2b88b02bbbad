"""One self-contained HTML page: tables that sort, a plot, and a slider to look with; and plots as figures for papers.

It needs no network and no server.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from PIL import Image

from sr_upscale.benchmark.protocol import KERNELS
from sr_upscale.benchmark.tables import as_table, datasets_of, finite, score_cells, table_of
from sr_upscale.formatting import mebibytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sr_upscale.benchmark.run import Results
    from sr_upscale.functional.color import Pixels

MAX_PICTURES = 24
"""Most pictures of a report. Where there are more, the worst and the best are shown."""

QUALITY = 92
"""WebP quality of embedded pictures: what one looks for in them is larger than its errors."""


class Gallery:
    """Collects pictures for a report. They are encoded at once, so that memory stays small.

    Attributes:
        pictures: Entries of the page by (data set, picture), without scores.
    """

    def __init__(self) -> None:
        self.pictures: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, dataset: str, name: str, images: Mapping[str, Pixels]) -> None:
        """Takes the images of one picture. The page opens on the first image, and the last network's.

        Args:
            dataset, name: What the picture is called.
            images: (H, W, 1 or 3) uint8 by name, all of one size.
        """
        height, width = next(iter(images.values())).shape[:2]
        methods = [label for label in images if label != "HR"]
        networks = [label for label in methods if label not in (*KERNELS, "input")]
        self.pictures[dataset, name] = {
            "pair": [methods[0], (networks or methods)[-1]],
            "title": f"{dataset} {name}".strip(),
            "width": width,
            "height": height,
            "images": [
                {"name": label, "url": _data_url(images[label]), "scores": ""}
                for label in sorted(images, key=lambda label: label == "HR")
            ],
        }


def _data_url(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def write_report(results: Results, gallery: Gallery, *, with_published: bool = False) -> str:
    """Writes the page for a benchmark.

    Pictures stand in the order of the PSNR of the last method, the worst first.

    Args:
        results: What was measured.
        gallery: The pictures that can be shown.
        with_published: Whether published scores stand beside the measured ones.

    Returns:
        HTML.
    """
    last_method = results.summaries[-1].method
    scores = {(score.dataset, score.picture, score.method): score.scores for score in results.scores}
    ordered = sorted(gallery.pictures, key=lambda key: scores[*key, last_method]["psnr"])
    half = MAX_PICTURES // 2
    chosen = ordered if len(ordered) <= MAX_PICTURES else [*ordered[:half], *ordered[-half:]]
    for key in chosen:
        for image in gallery.pictures[key]["images"]:
            if (found := scores.get((*key, image["name"]))) is not None:
                image["scores"] = f"{found['psnr']:.2f} dB, SSIM {found['ssim']:.4f}"
    sets = [_set(results, dataset, with_published=with_published) for dataset in datasets_of(results)]
    last = datasets_of(results)[-1]
    points = [
        {"name": summary.method, "speed": summary.mpix_per_s, "psnr": summary.scores["psnr"]}
        for summary in results.summaries
        if summary.dataset == last
    ]
    rows = [
        {"picture": f"{score.dataset} {score.picture}", "model": score.method, **score_cells(score.scores)}
        for score in results.scores
    ]
    headings, *pictures = as_table(rows)
    title = f"Benchmark x{results.protocol.scale}: {', '.join(datasets_of(results))}"
    data = {"protocol": str(results.protocol), "environment": _environment(results.environment)}
    return page(
        title,
        [gallery.pictures[key] for key in chosen],
        **data,
        sets=sets,
        points=points,
        pictureHeadings=headings,
        pictures=pictures,
    )


def page(title: str, gallery: Sequence[Mapping[str, Any]], **scores: Any) -> str:
    """Puts the data of a page into its template.

    Args:
        title: Of the page.
        gallery: Pictures: title, width and height in pixels, the pair of names to open on, and images with name, data
            URL and scores as text.
        scores: Of a benchmark: ``protocol`` and ``environment``, how and where it was measured, as text; ``sets``, a
            table for each data set with title, headings and rows; ``points`` of the plot with name, speed in megapixels
            a second and PSNR in dB; ``pictureHeadings`` and ``pictures``, the table of every picture, as text.

    Returns:
        HTML.
    """
    data = {"protocol": "", "environment": "", "sets": [], "points": [], "gallery": gallery}
    data |= {"pictureHeadings": [], "pictures": [], **scores}
    template = (resources.files("sr_upscale.benchmark") / "report.html").read_text("utf-8")
    safe = json.dumps(finite(data)).replace("<", "\\u003c")  # no name in it can end the script element
    return template.replace("/*TITLE*/", html.escape(title)).replace("/*DATA*/", safe)


def compare_page(title: str, name: str, images: Mapping[str, Pixels]) -> str:
    """Writes a page with the slider alone, for one picture.

    Args:
        title: Of the page.
        name: Of the picture.
        images: (H, W, 1 or 3) uint8 by name, all of one size.

    Returns:
        HTML.
    """
    gallery = Gallery()
    gallery.add("", name, images)
    return page(title, list(gallery.pictures.values()))


def _set(results: Results, dataset: str, *, with_published: bool) -> dict[str, Any]:
    headings, *rows = table_of(results, dataset, with_published=with_published)
    measured = sum(summary.dataset == dataset for summary in results.summaries)
    return {
        "title": f"{dataset} x{results.protocol.scale}",
        "headings": headings,
        "rows": [{"cells": row, "published": number >= measured} for number, row in enumerate(rows)],
    }


def _environment(environment: Mapping[str, Any]) -> str:
    gpus = ", ".join(environment["gpus"]) or "no GPU"
    machine = f"{environment['processor']}, {environment['threads']} threads, {mebibytes(environment['memory_bytes'])}"
    versions = [f"{name} {environment[name]}" for name in ("sr-upscale", "torch", "python")]
    return f"{machine}, {gpus}; {', '.join(versions)}, {environment['system']}"


_MARKERS = "osD^vP*X<>"


def plot_files(results: Results) -> dict[str, bytes]:
    """Draws PSNR against speed with matplotlib (an extra), a figure for each data set.

    Speed is the median of the pictures with its quartiles, in output megapixels a second. A method without an error has
    no PSNR that could be drawn, and is left out. The texts of an SVG are texts, which the fonts of a paper can set.

    Returns:
        Files by name: ``speed-<data set>.svg`` and ``.png``.
    """
    import matplotlib as mpl

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
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in results.summaries if row.dataset == dataset and math.isfinite(row.scores["psnr"])]
    for number, row in enumerate(rows):
        axes.errorbar(
            row.mpix_per_s,
            row.scores["psnr"],
            xerr=[[row.mpix_per_s - row.mpix_per_s_low], [row.mpix_per_s_high - row.mpix_per_s]],
            marker=_MARKERS[number % len(_MARKERS)],
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
