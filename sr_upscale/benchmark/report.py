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
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Shown:
    """One picture of a gallery.

    Attributes:
        dataset, name: What it is called.
        width, height: Size in pixels.
        images: Encoded images (data URLs) by name, HR last.
    """

    dataset: str
    name: str
    width: int
    height: int
    images: Mapping[str, str]


@dataclass
class Gallery:
    """Collects pictures for a report. They are encoded at once, so that memory stays small."""

    pictures: list[Shown] = field(default_factory=list)

    def add(self, dataset: str, name: str, images: Mapping[str, Pixels]) -> None:
        """Takes the images of one picture.

        Args:
            dataset, name: What the picture is called.
            images: (H, W, 1 or 3) uint8 by name, all of one size.
        """
        height, width = next(iter(images.values())).shape[:2]
        ordered = {label: images[label] for label in sorted(images, key=lambda label: label == "HR")}
        encoded = {label: _data_url(pixels) for label, pixels in ordered.items()}
        self.pictures.append(Shown(dataset=dataset, name=name, width=width, height=height, images=encoded))


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
    scores = {(score.dataset, score.picture, score.method): score for score in results.scores}
    ordered = sorted(gallery.pictures, key=lambda each: scores[each.dataset, each.name, last_method].scores["psnr"])
    half = MAX_PICTURES // 2
    chosen = ordered if len(ordered) <= MAX_PICTURES else [*ordered[:half], *ordered[-half:]]

    def caption(picture: Shown, method: str) -> str:
        score = scores.get((picture.dataset, picture.name, method))
        return f"{score.scores['psnr']:.2f} dB, SSIM {score.scores['ssim']:.4f}" if score else ""

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
    return page(
        title=f"Benchmark x{results.protocol.scale}: {', '.join(datasets_of(results))}",
        protocol=str(results.protocol),
        environment=_environment(results.environment),
        sets=sets,
        points=points,
        gallery=[_picture(each, caption) for each in chosen],
        picture_headings=headings,
        pictures=pictures,
    )


def page(
    *,
    title: str,
    protocol: str = "",
    environment: str = "",
    sets: Sequence[Mapping[str, Any]] = (),
    points: Sequence[Mapping[str, Any]] = (),
    gallery: Sequence[Mapping[str, Any]] = (),
    picture_headings: Sequence[str] = (),
    pictures: Sequence[Sequence[str]] = (),
) -> str:
    """Puts the data of a page into its template.

    Args:
        title: Of the page.
        protocol: How scores were measured, as text.
        environment: Where they were measured, as text.
        sets: A table for each data set: title, headings and rows.
        points: Points of the plot: name, speed in megapixels a second and PSNR in dB.
        gallery: Pictures: title, width and height in pixels, the pair of names to open on, and images with name, data
            URL and scores as text.
        picture_headings, pictures: The table of every picture, as text.

    Returns:
        HTML.
    """
    data = {
        "protocol": protocol,
        "environment": environment,
        "sets": list(sets),
        "points": list(points),
        "gallery": list(gallery),
        "pictureHeadings": list(picture_headings),
        "pictures": [list(row) for row in pictures],
    }
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
    return page(title=title, gallery=[_picture(gallery.pictures[0], lambda _picture, _method: "")])


def _set(results: Results, dataset: str, *, with_published: bool) -> dict[str, Any]:
    headings, *rows = table_of(results, dataset, with_published=with_published)
    measured = sum(summary.dataset == dataset for summary in results.summaries)
    return {
        "title": f"{dataset} x{results.protocol.scale}",
        "headings": headings,
        "rows": [{"cells": row, "published": number >= measured} for number, row in enumerate(rows)],
    }


def _picture(picture: Shown, caption: Any) -> dict[str, Any]:
    """Makes a picture ready for the page, with the pair to open on: the first image, and the last network's."""
    methods = [label for label in picture.images if label != "HR"]
    networks = [label for label in methods if label not in (*KERNELS, "input")]
    return {
        "pair": [methods[0], (networks or methods)[-1]],
        "title": f"{picture.dataset} {picture.name}".strip(),
        "width": picture.width,
        "height": picture.height,
        "images": [
            {"name": label, "url": url, "scores": caption(picture, label)} for label, url in picture.images.items()
        ],
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
