"""Comics: a zip of pages in, a zip of larger pages out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_upscale.upscaler import Upscaler
from tests.helpers import ROOT, Cli, pattern

INFO = b"<ComicInfo><Title>A tale</Title></ComicInfo>"
NAMES = [f"ch 1/../page {number}.png" if number == 3 else f"ch 1/page {number}.png" for number in range(12, 0, -1)]


def _page(height: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pattern(height, 90)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """Twelve pages, not in the order of their names, one of which would lead out of a folder; and what is no page."""
    with zipfile.ZipFile(tmp_path / "book.cbz", "w") as file:
        for number, name in enumerate(NAMES):
            file.writestr(name, _page(60 + number))
        file.writestr("ComicInfo.xml", INFO)
    return tmp_path / "book.cbz"


@pytest.mark.parametrize("batch", [False, True])
def test_row_81_a_comic_that_was_killed_goes_on_with_its_pages(
    cli: Cli, book: Path, tmp_path: Path, nearest: Path, batch: bool
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out" / "book.cbz"
    folder.mkdir()
    (folder / "book.cbz").write_bytes(book.read_bytes())
    (folder / "page.png").write_bytes(_page(8))
    alone = [folder / "book.cbz", "-o", f"{out.parent}/", "--suffix", ""]
    call = [*map(str, ["batch", folder, "-o", out.parent] if batch else alone), "-n", str(nearest), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sr_upscale", *call],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(pages := list(out.parent.glob(".sr-*.clip/*.page"))) < 3 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in out.parent.glob(".sr-*.clip/*.page")}
    assert 3 <= len(pages) <= len(done) < 12
    assert not out.exists()
    dry = cli(*call, "--dry-run")
    assert (dry.code, '"pages": 12' in dry.out) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    ran = cli(*call)
    assert ran.code == 0
    rows = {row["input"]: row for row in map(json.loads, ran.out.splitlines()) if row["event"] == "picture"}
    assert rows[str(folder / "book.cbz")]["resumed_pages"] == len(done)
    assert sorted(path.name for path in out.parent.glob("[!.]*")) == ["book.cbz", "page.png"][: 1 + batch]
    assert not list(out.parent.glob(".sr-*.clip"))
    with zipfile.ZipFile(out) as file, zipfile.ZipFile(book) as before:
        assert file.namelist() == [*NAMES, "ComicInfo.xml"]
        assert file.read("ComicInfo.xml") == INFO
        small, large = (np.asarray(Image.open(io.BytesIO(each.read(NAMES[1])))) for each in (before, file))
    np.testing.assert_array_equal(large, Upscaler(nearest)(small))
    again = cli(*call)
    assert again.code == (0 if batch else 5)
    assert '"skipped": 2' in again.out if batch else "exists" in again.err


def test_pages_of_another_format_and_one_name(cli: Cli, tmp_path: Path, nearest: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.cbz", "w") as file:
        file.writestr("1.jpg", _page(8, "JPEG"))
        file.writestr("1.png", _page(9))
    assert cli(tmp_path / "a.cbz", "-o", tmp_path / "b.cbz", "-n", nearest, "--format", "png").code == 0
    with zipfile.ZipFile(tmp_path / "b.cbz") as file:
        assert [(each, Image.open(file.open(each)).size) for each in file.namelist()] == [
            ("1.png", (180, 16)),
            ("1_png.png", (180, 18)),
        ]


def test_row_81_a_batch_goes_on_after_what_is_no_comic(cli: Cli, tmp_path: Path, nearest: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.cbr").write_bytes(b"Rar!")
    (folder / "b.png").write_bytes(_page(8))
    with zipfile.ZipFile(folder / "c.cbz", "w") as file:
        file.writestr("1.png", _page(8)[:60])
    with zipfile.ZipFile(folder / "d.cbz", "w") as file:
        file.writestr("notes.txt", "no page")
    ran = cli("batch", folder, "-o", tmp_path / "out", "-n", nearest)
    assert ran.code == 3
    assert "1 done, 0 skipped, 3 failed" in ran.err
    for words in ("a.cbr: of comics only .cbz files are read; repack it as zip", "c.cbz: 1.png: ", "no pages found"):
        assert words in ran.err
    assert [path.name for path in (tmp_path / "out").glob("*") if not path.name.startswith(".sr-upscale")] == ["b.png"]


@pytest.mark.parametrize(
    ("name", "data", "code", "words"),
    [
        ("a.cbr", b"Rar!", 2, "of comics only .cbz files are read; repack it as zip first"),
        ("a.cbz", b"no zip", 4, "a damaged comic"),
    ],
)
def test_row_81_what_is_no_comic(
    cli: Cli, tmp_path: Path, nearest: Path, name: str, data: bytes, code: int, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    ran = cli(tmp_path / name, "-n", nearest)
    assert (ran.code, words in ran.err) == (code, True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_row_81_a_page_that_claims_a_gigabyte_is_not_read(
    cli: Cli, book: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sr_upscale.pipeline.comic.MEMBER_BYTES", 100)
    ran = cli(book, "-n", nearest)
    assert (ran.code, "is said to have" in ran.err) == (4, True)


def test_row_81_a_comic_that_unpacks_to_hundreds_of_times_its_size_is_refused(
    cli: Cli, tmp_path: Path, nearest: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "a.cbz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("1.png", _page(8))
        file.writestr("notes.txt", bytes(65 << 20))
    ran = cli(tmp_path / "a.cbz", "-n", nearest)
    assert (ran.code, "unpacks to more than 100 times its size" in ran.err) == (4, True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.cbz"]
