"""The short form of `make crash`: kills at known places of every write path; and that it would find a torn file."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and limits files as Linux does")


def run(*words: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def test_row_49_and_row_61_no_kill_leaves_a_torn_or_lost_file() -> None:
    """Two in each write path, of pictures, batches, checkpoints, weights; the next run ends as an undisturbed one."""
    code, said = run("scripts/crash.py", "--kills", "26")
    assert (code, said.splitlines()[-1]) == (0, "26 kills, 0 faults"), said


CARELESS = """
import sys
from pathlib import Path
from tempfile import mkdtemp
sys.path.insert(0, "scripts")
import crash
from sr_upscale.storage.atomic import replace_file

def in_place(folder):
    (folder / "old.bin").write_bytes(b"new" * 1000)

def removed_first(folder):
    (folder / "old.bin").unlink(missing_ok=True)
    with replace_file(folder / "old.bin") as temporary:
        temporary.write_bytes(b"new" * 1000)

def unlike(folder):
    kept = folder / "count.bin"
    kept.write_bytes(b"again" if kept.exists() else b"first")

for run in (in_place, removed_first, unlike):
    scene = crash.Scene(prepare=lambda folder: (folder / "old.bin").write_bytes(b"old"), run=run)
    tally = crash.play(scene, Path(mkdtemp()), 6)
    print(run.__name__, tally.kills, len(tally.torn), len(tally.lost), len(tally.unlike))
"""


def test_careless_writers_are_found() -> None:
    code, said = run("-c", CARELESS)
    assert code == 0, said
    found = {name: tuple(map(int, counts.split())) for name, counts in re.findall(r"^(\w+) ([\d ]+)$", said, re.M)}
    assert found["in_place"][:2] == (6, 5)  # before the opening nothing is torn
    assert found["removed_first"][0] == 6
    assert found["removed_first"][2] > 0
    assert found["unlike"][3] > 0
