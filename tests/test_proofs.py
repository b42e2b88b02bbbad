"""The scripts that prove, in short: `make faults` and `make fuzz` hold, and see what does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT


def faults(*words: object) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, ROOT / "scripts" / "faults.py", *words]
    return subprocess.run([str(word) for word in program], capture_output=True, text=True, check=False, timeout=120)


def test_rows_of_the_table_hold() -> None:
    ran = faults(5, 17)
    assert ran.returncode == 0, ran.stdout
    five, seventeen, end = ran.stdout.splitlines()[-3:]
    assert five.split() == [*["5", "An", "empty", "file", "refused", "as", "such", "4", "held", "(1"], "passed)"]
    assert seventeen.startswith(" 17  One pixel, one row ")
    assert end == "2 of 2 rows held"


def test_rows_that_do_not_hold_are_seen(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_a.py").write_text(
        "import pytest\n"
        "def test_row_01_and_row_02_good(): pass\n"
        "@pytest.mark.parametrize('row_05', [1])\n"
        "def test_row_02_bad(row_05): assert False\n"
        "@pytest.mark.skip\n"
        "def test_row_03_skipped(): pass\n"
        "def test_row_04_in_a_file_that_its_row_does_not_name(): pass\n"
    )
    (tmp_path / "test_b.py").write_text("def test_other(): pass\n")
    page = tmp_path / "page.md"
    lines = [f"| {number} | fault | promise | 4 | `test_{'b' if number == 4 else 'a'}.py` |" for number in range(1, 6)]
    page.write_text("| row | fault | what users get | exit code | tests |\n|---|---|---|---|---|\n" + "\n".join(lines))
    ran = faults("--page", page, "--root", tmp_path)
    assert ran.returncode == 1
    results = [line.split("  4         ")[-1] for line in ran.stdout.splitlines()[-6:]]
    assert results == [
        "held (1 passed)",
        "NOT HELD (1 failed, 1 passed)",
        "NOT HELD (1 skipped)",
        "NOT HELD (no test)",
        "NOT HELD (no test)",
        "1 of 5 rows held",
    ]


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")


def fuzz(*words: object, prelude: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys\nsys.path.insert(0, 'scripts')\nimport fuzz\n{prelude}\nsys.exit(fuzz.main())"
    program = [sys.executable, "-c", code, *words]
    return subprocess.run(
        [str(word) for word in program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )


@on_linux
def test_mutants_of_sound_files_are_taken_or_refused(tmp_path: Path) -> None:
    targets = ("decode", "weights", "checkpoint", "recipe", "manifest", "download")
    ran = fuzz("--mutants", 40, "--finds", tmp_path, *(word for name in targets for word in ("--target", name)))
    assert ran.returncode == 0, ran.stdout + "".join(path.read_text() for path in tmp_path.glob("*.txt"))
    assert len(ran.stdout.splitlines()) == len(targets)


@on_linux
def test_an_exception_that_users_must_not_meet_is_a_find(tmp_path: Path) -> None:
    """One find for a place, however many inputs lead there; an error with an exit code of its own is none."""
    broken = """
import fuzz_targets
from sr_upscale.errors import InputError, SrUpscaleError
def attempt(data, _folder):
    raise {0: InputError, 1: SrUpscaleError, 2: KeyError}[len(data) % 3]("x")
fuzz_targets.TARGETS["recipe"] = fuzz_targets.Target(seeds=lambda: [b"a", b"ab", b"abc"], attempt=attempt)
"""
    ran = fuzz("--mutants", 20, "--finds", tmp_path, "--target", "recipe", prelude=broken)
    assert ran.returncode == 1
    assert "2 finds" in ran.stdout
    assert sorted(path.read_text().splitlines()[-1] for path in tmp_path.glob("*.txt")) == [
        "KeyError: 'x'",
        "sr_upscale.errors.SrUpscaleError: x",
    ]


def test_the_security_page_names_rows_and_tests_that_there_are() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    known = {int(number) for number in re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "faults.md").read_text(), re.M)}
    proofs = [line.split("|")[2] for line in page.splitlines() if line.startswith("| ")][1:]
    assert len(proofs) >= 9
    for proof in proofs:
        rows = {int(number) for number in re.findall(r"\b\d+\b", proof)}
        files = re.findall(r"`(tests/[^`]+)`", proof)
        assert rows or files
        assert rows <= known
        assert all((ROOT / file).is_file() for file in files)
