"""Comics: a zip of pages in, a zip of larger pages out."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_upscale.upscaler import Upscaler
from tests.helpers import ROOT, Ran, pattern

INFO = b"<ComicInfo><Title>A tale</Title></ComicInfo>"
NAMES = [f"ch 1/../page {number}.png" if number == 3 else f"ch 1/page {number}.png" for number in range(12, 0, -1)]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """Twelve pages, not in the order of their names, one of which would lead out of a folder; and what is no page."""
    with zipfile.ZipFile(tmp_path / "book.cbz", "w") as file:
        for number, name in enumerate(NAMES):
            buffer = io.BytesIO()
            Image.fromarray(pattern(60 + number, 90)).save(buffer, "PNG")
            file.writestr(name, buffer.getvalue())
        file.writestr("ComicInfo.xml", INFO)
    return tmp_path / "book.cbz"


def test_a_comic_that_was_killed_goes_on_with_its_pages(
    cli: Callable[..., Ran], book: Path, tmp_path: Path, nearest: Path
) -> None:
    out, work = tmp_path / "large.cbz", tmp_path / ".large.cbz.pages"
    command = [sys.executable, "-m", "sr_upscale", str(book), "-o", str(out), "-n", str(nearest), "-j", "1:1:1"]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    while len(list(work.glob("out/*.png"))) < 3 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in work.glob("out/*.png")}
    assert 3 <= len(done) < 12
    assert not out.exists()
    assert cli(book, "-o", out, "-n", nearest, "--dry-run").code == 0
    assert {path: path.stat().st_mtime_ns for path in work.glob("out/*.png")} == done
    ran = cli(book, "-o", out, "-n", nearest)
    assert ran.code == 0
    assert int(ran.err.split(" skipped")[0].rpartition(" ")[2]) >= 3
    assert not work.exists()
    with zipfile.ZipFile(out) as file, zipfile.ZipFile(book) as before:
        assert file.namelist() == [*NAMES, "ComicInfo.xml"]
        assert file.read("ComicInfo.xml") == INFO
        small, large = (np.asarray(Image.open(io.BytesIO(each.read(NAMES[1])))) for each in (before, file))
    np.testing.assert_array_equal(large, Upscaler(nearest)(small))
    assert "exists" in cli(book, "-o", out, "-n", nearest).err


@pytest.mark.parametrize(
    ("name", "data", "code", "words"),
    [
        ("a.cbr", b"Rar!", 2, "comics are .cbz files, in and out; repack others as zip first"),
        ("a.cbz", b"no zip", 4, "a damaged comic"),
    ],
)
def test_what_is_no_comic(
    cli: Callable[..., Ran], tmp_path: Path, nearest: Path, name: str, data: bytes, code: int, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    ran = cli(tmp_path / name, "-n", nearest)
    assert (ran.code, words in ran.err) == (code, True)
    assert [path.name for path in tmp_path.iterdir()] == [name]
