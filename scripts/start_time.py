"""What a small picture costs beside ``import torch``: ``python scripts/start_time.py``. `bench.py` keeps it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
ROUNDS = 5


def start() -> dict[str, dict[str, float]]:
    """Wall and CPU seconds, and the peak in MiB, of processes that take turns: the least, as other work only adds."""
    with tempfile.TemporaryDirectory() as name:
        small = Path(name) / "small.png"
        Image.open(ROOT / "examples" / "chelsea.png").crop((100, 100, 148, 148)).save(small)
        program = [sys.executable, "-m", "sr_upscale"]
        complete = {"_SR_UPSCALE_COMPLETE": "complete_bash", "COMP_WORDS": "sr-upscale a.png -n pho", "COMP_CWORD": "3"}
        candidates: dict[str, tuple[list[str], dict[str, str]]] = {
            "import torch": ([sys.executable, "-c", "import torch"], {}),
            "48x48, x4": ([*program, str(small), "-o", str(small.with_name("out.png")), "--force"], {}),
            "48x48, x4, --backend torch": (
                [*program, str(small), "-o", str(small.with_name("t.png")), "--backend", "torch", "--force"],
                {},
            ),
            "--help": ([*program, "--help"], {}),
            "completion of a word": (program, complete),
        }
        rows: dict[str, list[tuple[float, float, float]]] = {title: [] for title in candidates}
        for _ in range(ROUNDS):
            for title, (command, variables) in candidates.items():
                rows[title].append(measured(command, variables))
    keys = ("wall_s", "cpu_s", "peak_mib")
    return {
        title: {key: round(min(column), 2) for key, column in zip(keys, zip(*found, strict=True), strict=True)}
        for title, found in rows.items()
    }


def measured(command: list[str], variables: dict[str, str]) -> tuple[float, float, float]:
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **variables}, cwd=ROOT
    )
    _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: ended with {process.returncode}; nothing was measured")
    return time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def table(found: dict[str, dict[str, float]]) -> list[str]:
    """Markdown, as docs/speed.md shows it."""
    return [
        "| a process of its own | wall, s | CPU, s | peak, MiB |",
        "|---|---|---|---|",
        *(
            f"| {title} | {row['wall_s']:.2f} | {row['cpu_s']:.2f} | {row['peak_mib']:.0f} |"
            for title, row in found.items()
        ),
    ]


if __name__ == "__main__":
    sys.stdout.write("\n".join(table(start())) + "\n")
