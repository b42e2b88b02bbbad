"""Results as text: a table for the terminal, Markdown, CSV and JSON.

Published scores can stand beside ours, marked as such.
"""

from __future__ import annotations

import csv
import io
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from sr_upscale.benchmark.metrics import METRICS, OPTIONAL, PictureScore, Summary, scores_by_name
from sr_upscale.formatting import mebibytes

if TYPE_CHECKING:
    from sr_upscale.benchmark.run import Results


@lru_cache(maxsize=1)
def published() -> list[dict[str, Any]]:
    """Reads the shipped scores that authors published, which were never measured here (``references.toml``).

    Returns:
        Rows: ``name``, ``source``, ``scale``, and ``scores``, PSNR on Y in dB and SSIM by data set.
    """
    text = (resources.files("sr_upscale.benchmark") / "references.toml").read_text("utf-8")
    rows: list[dict[str, Any]] = tomllib.loads(text)["row"]
    return rows


HEADINGS = ("picture", "model", *(metric.heading for metric in METRICS))
"""First columns of tables, in their order."""

Row = Mapping[str, str]
"""Formatted cells by their heading."""


def score_cells(scores: Mapping[str, float]) -> Row:
    """Formats scores by name, in the order of their columns."""
    return {metric.heading: format(scores[metric.name], metric.format) for metric in METRICS if metric.name in scores}


def _summary_row(summary: Summary) -> Row:
    taken = summary.device_bytes if summary.device_bytes is not None else summary.host_bytes
    return {
        "model": summary.method,
        **score_cells(summary.scores),
        "MPix/s ↑": f"{summary.mpix_per_s:.2f} ({summary.mpix_per_s_low:.2f}-{summary.mpix_per_s_high:.2f})",
        "memory ↓": mebibytes(taken) if taken is not None else "",
        "parameters ↓": f"{summary.parameters / 1e6:.3f} M" if summary.parameters else "",
        "MACs at 720p ↓": f"{summary.macs_720p / 1e9:.1f} G" if summary.macs_720p else "",
    }


def table_of(results: Results, dataset: str, *, with_published: bool) -> list[tuple[str, ...]]:
    """Formats headings and rows of one data set, without columns that are empty.

    Measured rows stand first. A published row says that it is of the whole set where the others are not.
    """
    rows = [_summary_row(summary) for summary in results.summaries if summary.dataset == dataset]
    if with_published:
        of = "published, of the whole set" if results.protocol.limit is not None else "published"
        rows += [
            {
                "model": f"{row['name']}, {of}",
                **score_cells(dict(zip(("psnr", "ssim"), row["scores"][dataset], strict=True))),
            }
            for row in published()
            if row["scale"] == results.protocol.scale and dataset in row["scores"]
        ]
    return as_table(rows)


def as_table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Lays out rows of cells below their headings, without columns that are empty."""
    ordered = [*HEADINGS, *(heading for row in rows for heading in row)]
    headings = [each for each in dict.fromkeys(ordered) if any(row.get(each) for row in rows)]
    return [tuple(headings), *(tuple(row.get(heading, "") for heading in headings) for row in rows)]


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


def _flat(rows: Sequence[PictureScore | Summary]) -> list[dict[str, Any]]:
    """Returns rows as dictionaries with a key for each score that was asked for; None where a row has it not."""
    found = scores_by_name(rows)
    names = [metric.name for metric in METRICS if metric.name in found or metric.name not in OPTIONAL]
    whole = [(row, asdict(row)) for row in rows]
    return [
        {name: value for name, value in every.items() if name != "scores"}
        | {name: row.scores.get(name) for name in names}
        for row, every in whole
    ]


def to_csv(scores: Sequence[PictureScore]) -> str:
    """Formats scores as CSV, with a line for each picture and method."""
    buffer = io.StringIO()
    rows = _flat(scores)
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def to_dict(results: Results) -> dict[str, Any]:
    """Makes everything ready for JSON.

    JSON knows no infinity, so the PSNR of an exact output is null.
    """
    whole: dict[str, Any] = finite(
        {
            "protocol": {**asdict(results.protocol), "text": str(results.protocol)},
            "environment": dict(results.environment),
            "summaries": _flat(results.summaries),
            "pictures": _flat(results.scores),
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
