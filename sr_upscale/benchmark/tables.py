"""Results as text: a table for the terminal, Markdown, CSV and JSON.

Published scores can stand beside ours, marked as such.
"""

from __future__ import annotations

import csv
import io
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from sr_upscale.benchmark.run import PictureScore, Results, Summary
from sr_upscale.formatting import mebibytes


@dataclass(frozen=True, kw_only=True)
class Published:
    """Scores that authors published; never measured here.

    Attributes:
        name: Name of the model.
        source: Where they were read.
        scale: Factor.
        scores: (PSNR on Y in dB, SSIM) by data set.
    """

    name: str
    source: str
    scale: int
    scores: Mapping[str, tuple[float, float]]


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """Reads the shipped table of published scores (``references.toml``)."""
    table = tomllib.loads((resources.files("sr_upscale.benchmark") / "references.toml").read_text("utf-8"))
    return tuple(
        Published(
            name=row["name"],
            source=row["source"],
            scale=row["scale"],
            scores={name: (float(both[0]), float(both[1])) for name, both in row["scores"].items()},
        )
        for row in table["row"]
    )


HEADINGS = (
    "model",
    "PSNR, dB ↑",
    "SSIM ↑",
    "NIQE ↓",
    "VGG19 ↓",
    "LPIPS ↓",
    "CER ↓",
    "MPix/s ↑",
    "memory ↓",
    "parameters ↓",
    "MACs at 720p ↓",
)
"""Columns; an arrow up stands where more is better, and one down where less is."""


def summary_cells(summary: Summary) -> tuple[str, ...]:
    """Formats the row of a summary, in the columns of `HEADINGS`."""
    taken = summary.device_bytes if summary.device_bytes is not None else summary.host_bytes
    return (
        summary.method,
        f"{summary.psnr:.2f}",
        f"{summary.ssim:.4f}",
        f"{summary.niqe:.2f}" if summary.niqe is not None else "",
        f"{summary.distance:.3f}" if summary.distance is not None else "",
        f"{summary.lpips:.4f}" if summary.lpips is not None else "",
        f"{summary.cer:.3f}" if summary.cer is not None else "",
        f"{summary.mpix_per_s:.2f} ({summary.mpix_per_s_low:.2f}-{summary.mpix_per_s_high:.2f})",
        mebibytes(taken) if taken is not None else "",
        f"{summary.parameters / 1e6:.3f} M" if summary.parameters else "",
        f"{summary.macs_720p / 1e9:.1f} G" if summary.macs_720p else "",
    )


def published_cells(row: Published, dataset: str, *, limited: bool) -> tuple[str, ...]:
    """Formats a published row in the same columns, for a data set that it has scores of.

    Args:
        row, dataset: Whose scores, and of what.
        limited: Whether the rows beside it are not of the whole set; then the row says that it is.
    """
    decibels, similarity = row.scores[dataset]
    words = "published, of the whole set" if limited else "published"
    return (f"{row.name}, {words}", f"{decibels:.2f}", f"{similarity:.4f}", *("",) * (len(HEADINGS) - 3))


def rows_of(results: Results, dataset: str, *, with_published: bool) -> list[tuple[str, ...]]:
    """Formats all rows of one data set, in the columns of `HEADINGS`, measured ones first."""
    rows = [summary_cells(summary) for summary in results.summaries if summary.dataset == dataset]
    if with_published:
        scale = results.protocol.scale
        limited = results.protocol.limit is not None
        fitting = [row for row in published() if row.scale == scale and dataset in row.scores]
        rows += [published_cells(row, dataset, limited=limited) for row in fitting]
    return rows


def table_of(results: Results, dataset: str, *, with_published: bool) -> list[tuple[str, ...]]:
    """Formats headings and rows of one data set, without columns that are empty. Measured rows stand first."""
    rows = rows_of(results, dataset, with_published=with_published)
    columns = zip(HEADINGS, *rows, strict=True)
    return list(zip(*(column for column in columns if any(column[1:])), strict=True))


def datasets_of(results: Results) -> list[str]:
    """Lists the names of the data sets, in the order in which they were measured."""
    return list(dict.fromkeys(summary.dataset for summary in results.summaries))


def to_text(results: Results, *, with_published: bool = False) -> str:
    """Formats results for the terminal.

    There is a table for each data set, without columns that are empty, and the protocol below.
    """
    parts = []
    for dataset in datasets_of(results):
        table = table_of(results, dataset, with_published=with_published)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [_padded(row, widths) for row in table]
        parts.append("\n".join([f"{dataset} x{results.protocol.scale}", lines[0], "-" * len(lines[0]), *lines[1:]]))
    return "\n\n".join([*parts, f"protocol: {results.protocol}"])


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *figures = row
    return "  ".join(
        [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True))]
    )


def to_markdown(results: Results, *, with_published: bool = False) -> str:
    """Formats results for a README, as Markdown.

    There is a table for each data set, without columns that are empty. Protocol and machine stand below.
    """
    parts = []
    for dataset in datasets_of(results):
        headings, *rows = table_of(results, dataset, with_published=with_published)
        lines = [f"### {dataset} x{results.protocol.scale}", "", _markdown_row(headings), "|---" * len(headings) + "|"]
        lines += [_markdown_row(row) for row in rows]
        parts.append("\n".join(lines))
    machine = results.environment
    return "\n\n".join([*parts, f"{results.protocol}. {machine['processor']}, torch {machine['torch']}."]) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def to_latex(results: Results, *, with_published: bool = False) -> str:
    """Formats results for a paper, as LaTeX for the package booktabs.

    There is a table for each data set, without columns that are empty, its rows below a rule of their own where they
    are published ones. The protocol is the caption.
    """
    machine = results.environment
    parts = [
        f"% sr-upscale {machine['sr-upscale']}, torch {machine['torch']}, {machine['processor']}",
        "% needs \\usepackage{booktabs}; tables wider than the page fit with \\small or \\resizebox",
    ]
    for dataset in datasets_of(results):
        headings, *rows = table_of(results, dataset, with_published=with_published)
        measured = sum(summary.dataset == dataset for summary in results.summaries)
        scale = results.protocol.scale
        lines = [
            "",
            "\\begin{table}",
            "  \\centering",
            f"  \\caption{{{_latex(f'{dataset}. {results.protocol}.')}}}",
            f"  \\label{{tab:{''.join(char if char.isalnum() else '-' for char in dataset)}-x{scale}}}",
            f"  \\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
            "    \\toprule",
            _latex_row(headings),
            "    \\midrule",
            *map(_latex_row, rows[:measured]),
        ]
        if rows[measured:]:
            lines += ["    \\midrule", *map(_latex_row, rows[measured:])]
        parts.append("\n".join([*lines, "    \\bottomrule", "  \\end{tabular}", "\\end{table}"]))
    return "\n".join(parts) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return f"    {' & '.join(map(_latex, cells))} \\\\"


_LATEX = str.maketrans(
    {
        **{char: f"\\{char}" for char in "&%$#_{}"},
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "<": "\\textless{}",
        ">": "\\textgreater{}",
        "↑": "$\\uparrow$",
        "↓": "$\\downarrow$",
    }
)


def _latex(text: str) -> str:
    """Writes a text so that LaTeX prints it as it is."""
    return text.translate(_LATEX)


def to_csv(scores: Sequence[PictureScore]) -> str:
    """Formats scores as CSV, with a line for each picture and method."""
    buffer = io.StringIO()
    names = list(PictureScore.__dataclass_fields__)
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(score) for score in scores)
    return buffer.getvalue()


def to_dict(results: Results) -> dict[str, Any]:
    """Makes everything ready for JSON.

    JSON knows no infinity, so the PSNR of an exact output is null.
    """
    whole: dict[str, Any] = finite(
        {
            "protocol": {**asdict(results.protocol), "words": str(results.protocol)},
            "environment": dict(results.environment),
            "summaries": [asdict(summary) for summary in results.summaries],
            "pictures": [asdict(score) for score in results.scores],
        }
    )
    return whole


def finite(value: Any) -> Any:
    """Returns a value with null (None) for every number in it that is not finite. Tuples become lists."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
