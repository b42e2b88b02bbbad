"""The character error rate, and the command that reads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from sr_upscale.errors import InputError, UsageError
from sr_upscale.metrics.reading import Reader, character_error_rate
from tests.helpers import Cli

reads = pytest.mark.skipif(shutil.which("tesseract") is None, reason="needs the command tesseract")
plays = pytest.mark.skipif(os.name == "nt", reason="plays the command with a shell script")


def distance(one: str, other: str) -> int:
    """Levenshtein's distance by its definition."""
    if not one or not other:
        return len(one) + len(other)
    ways = (
        distance(one[1:], other) + 1,
        distance(one, other[1:]) + 1,
        distance(one[1:], other[1:]) + (one[0] != other[0]),
    )
    return min(ways)


@pytest.mark.parametrize(
    ("text", "truth", "edits"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("xxabcxx", "abc", 4), ("Straße", "Strasse", 2)],
)
def test_error_rate_of_known_pairs(text: str, truth: str, edits: int) -> None:
    assert character_error_rate(text, truth) == pytest.approx(edits / len(truth))


def test_error_rate_by_its_definition() -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        one, other = ("".join(rng.choice(list("abc"), size=size)) for size in rng.integers(1, 6, size=2))
        assert character_error_rate(one, other) == pytest.approx(distance(one, other) / len(other))


def test_an_empty_truth_is_refused() -> None:
    with pytest.raises(UsageError, match="empty text"):
        character_error_rate("abc", "")


def page(text: str, size: int = 40) -> np.ndarray:
    image = Image.new("RGB", (800, 80 + size), (255, 255, 255))
    ImageDraw.Draw(image).text((30, 30), text, (0, 0, 0), font=ImageFont.load_default(size))
    return np.asarray(image)


@reads
def test_tesseract_reads_colour_and_gray() -> None:
    pixels = page("Reading twelve plain words")
    assert Reader()(pixels) == "Reading twelve plain words"
    assert Reader()(pixels[..., :1]) == "Reading twelve plain words"
    assert Reader()(np.full((60, 60, 3), 255, dtype=np.uint8)) == ""


def played(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts a command in the place of tesseract."""
    command = folder / "tesseract"
    command.write_text(f"#!/bin/sh\n[ $1 = --list-langs ] && printf 'languages:\\neng\\nosd\\n' && exit\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@plays
def test_unknown_languages_and_failures_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played(tmp_path, monkeypatch, "cat > /dev/null; echo no memory >&2; exit 3")
    with pytest.raises(UsageError, match="does not know the language 'deu'; expected one of eng, osd"):
        Reader("eng+deu")
    with pytest.raises(InputError, match="tesseract ended with 3: no memory"):
        Reader("eng")(page("x"))


def test_without_the_command_the_line_says_how_to_get_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    Image.fromarray(page("words")).save(tmp_path / "page.png")
    ran = cli("benchmark", "--dataset", tmp_path, "--model", "bicubic", "--metric", "cer=eng", code=2)
    assert "the command tesseract is not installed" in ran.err
    assert "apt-get install tesseract-ocr" in ran.err
    assert len(ran.err.strip().splitlines()) == 1


@plays
def test_benchmark_compares_the_reading_with_that_of_hr(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The played command reads HR as 'abcd' and what comes after it as 'abxd'; a page without text has no rate."""
    folder = tmp_path / "hr"
    folder.mkdir()
    Image.fromarray(page("words")).save(folder / "page.png")
    count = tmp_path / "count"
    played(tmp_path, monkeypatch, f"cat > /dev/null; [ -e {count} ] && echo 'ab xd' || echo ' ab cd '; touch {count}")
    ran = cli(
        "benchmark",
        "--dataset",
        folder,
        "--model",
        "bicubic,lanczos",
        "--metric",
        "cer=eng",
        "-o",
        tmp_path / "out",
        code=0,
    )
    headings, *rows = [line.split("  ") for line in ran.out.splitlines() if "CER" in line or "0.200" in line][:3]
    assert any("CER" in cell for cell in headings)
    assert len(rows) == 2
    lines = (tmp_path / "out" / "pictures.csv").read_text().splitlines()
    assert [line.split(",")[lines[0].split(",").index("cer")] for line in lines[1:]] == ["0.2", "0.2"]
    assert "CER of tesseract in eng" in ran.out
