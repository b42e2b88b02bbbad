"""Prints every row of docs/faults.md, what it promises, and whether the tests that it names hold.

    python scripts/faults.py            # all rows
    python scripts/faults.py 1 13 60    # some

A row's tests are those in its files whose names hold its number (`test_row_03_...`). It fails without one that ran.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Row:
    """A row of the table, and how many of its tests ended how: ``passed``, ``failed`` or ``skipped``."""

    number: int
    fault: str
    promise: str
    code: str
    files: tuple[str, ...]
    ended: dict[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return self.ended.get("passed", 0) > 0 and not self.ended.get("failed")

    @property
    def result(self) -> str:
        counts = ", ".join(f"{count} {how}" for how, count in sorted(self.ended.items())) or "no test"
        return f"{'held' if self.holds else 'NOT HELD'} ({counts})"


def rows_of(page: str) -> list[Row]:
    """Reads the rows of the table.

    Raises:
        ValueError: A line of the table has other columns.
    """
    rows = []
    for line in page.splitlines():
        if re.match(r"\|\s*\d", line):
            number, fault, promise, code, tests = (cell.strip() for cell in line.strip().strip("|").split("|"))
            rows.append(Row(int(number), fault, promise, code, tuple(re.findall(r"`([^`]+)`", tests))))
    return rows


def tested(rows: Sequence[Row], root: Path) -> None:
    """Runs the tests of the rows, and notes in each how they ended.

    Args:
        rows: Of `rows_of`.
        root: Folder in which the names of their files are.
    """
    files = sorted({name for row in rows for name in row.files if (root / name).is_file()})
    words = " or ".join(f"row_{row.number:02}" for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", "-k", words, "-o", "junit_family=xunit1", f"--junit-xml={report}"]
        if files:
            subprocess.run([sys.executable, "-m", "pytest", *options, *files], cwd=root, check=False)
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    for case in cases:
        kinds = {child.tag for child in case}
        how = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        numbers = {int(number) for number in re.findall(r"row_(\d+)", case.get("name", "").split("[")[0])}
        for row in rows:
            if row.number in numbers and case.get("file") in row.files:
                row.ended[how] = row.ended.get(how, 0) + 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", type=int, help="numbers of rows; all without any")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "faults.md")
    parser.add_argument("--root", type=Path, default=ROOT)
    options = parser.parse_args()
    rows = rows_of(options.page.read_text(encoding="utf-8"))
    if unknown := set(options.rows) - {row.number for row in rows}:
        parser.error(f"no row {', '.join(map(str, sorted(unknown)))}")
    rows = [row for row in rows if not options.rows or row.number in options.rows]
    tested(rows, options.root)
    say = sys.stdout.write
    for row in rows:
        say(f"{row.number:3}  {row.fault:60.60}  {row.promise:70.70}  {row.code:8}  {row.result}\n")
    held = sum(row.holds for row in rows)
    say(f"{held} of {len(rows)} rows held\n")
    return 0 if rows and held == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
