"""What a stranger meets: the README, and (slow) the wheel in an empty environment, offline."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_upscale.pretrained.registry import TABLE
from tests.helpers import ROOT, pattern

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_python_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pattern(20, 30)).save("photo.jpg")
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README", "exec"), {})
    with Image.open("large.png") as image:
        assert image.size == (60, 40)


@pytest.mark.filterwarnings("ignore::tqdm.TqdmWarning")
@pytest.mark.parametrize("number", range(4))
def test_examples_of_the_python_page_work(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pattern(20, 30)).save("photo.jpg")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    if "import tqdm" in blocks[number]:
        pytest.importorskip("tqdm")
    exec(compile(blocks[number], f"docs/python.md, {number}", "exec"), {})
    if number == 0:
        with Image.open("large.png") as large, Image.open("square.webp") as square:
            assert (large.size, square.size) == ((120, 80), (160, 160))


def test_readme_begins_with_two_commands_and_ci_runs_its_test_command() -> None:
    first_block = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)[0]
    clone, demo = (line.split("#")[0].strip() for line in first_block.splitlines())
    assert (clone.split()[:2], demo) == (["git", "clone"], "make demo")
    assert "`make test`" in README
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_first_picture_of_the_readme_is_what_the_shipped_default_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    made = importlib.import_module("before_after")
    assert re.search(r"!\[[^]]+\]\((.+)\)", README).group(1) == "docs/before-after.jpg"  # type: ignore[union-attr]
    assert made.TARGET.stat().st_size <= 150_000
    with Image.open(made.TARGET) as image:
        assert image.info["comment"].decode() == made.weights_sha256(), "run `python scripts/before_after.py`"
        shown = np.asarray(image.convert("RGB")).astype(int)
    before, after = made.panels()
    height, width = before.shape[:2]
    assert np.abs(shown[:height, :width] - before).mean() < 1.5  # JPEG
    assert np.abs(shown[:height, -width:] - after).mean() < 1.5


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target


def test_changelog_has_an_unreleased_part_and_dependencies_are_used() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "sr_upscale").rglob("*.py"))
    modules = {"pillow": "PIL", "pyvips[binary]": "pyvips"}
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        name = re.split(r"[><=~]", line)[0]
        assert re.search(rf"^\s*(from|import) {modules.get(name, name)}\b", code, flags=re.MULTILINE), name


@pytest.mark.slow
def test_wheel_works_in_another_folder_offline(tmp_path: Path) -> None:
    """Built, installed into an environment of its own over this one's dependencies, run where no network is."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for entry in TABLE:
        assert f"sr_upscale/weights/{entry.name}.safetensors" in names
        assert f"sr_upscale/weights/{entry.name}.md" in names
    assert "sr_upscale/py.typed" in names
    assert "sr_upscale/training/recipes/psnr-x4.toml" in names
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.fromarray(pattern(20, 30)).save(elsewhere / "photo.jpg")
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = {**os.environ, "PYTHONPATH": str(site), **nowhere}
    for command in (["photo.jpg", "-o", "out.png"], ["models"], ["doctor"]):
        program = [sys.executable, "-m", "sr_upscale", *command]
        done = subprocess.run(program, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert f"weights    {site / 'sr_upscale' / 'weights'}" in done.stdout
    with Image.open(elsewhere / "out.png") as image:
        assert image.size == (120, 80)


def test_every_row_of_the_fault_table_names_the_files_of_its_tests() -> None:
    found: dict[int, set[str]] = {}
    for file in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r"^def (test_row_\w+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
            for number in re.findall(r"row_(\d\d)", name):
                found.setdefault(int(number), set()).add(file.relative_to(ROOT).as_posix())
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    stated = {
        int(number): set(re.findall(r"`(tests/[^`]+)`", files))
        for number, files in re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", page, flags=re.MULTILINE)
    }
    assert len(stated) >= 70
    assert sorted(stated) == list(range(1, len(stated) + 1))
    assert stated == found
