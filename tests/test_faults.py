"""Faults 1 to 30, by the number of their row in the fault table: message, exit code, nothing lost."""

from __future__ import annotations

import os
import re
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sr_upscale.images import load_image, save_image
from sr_upscale.images.formats import FORMATS
from sr_upscale.pipeline import batch_plan, job
from tests.helpers import Cli, Ran, animation, doubled, p3_profile, pattern, pictures


@pytest.fixture
def run(cli: Cli, nearest: Path) -> Cli:
    """Upscales x2 by nearest neighbour."""
    return lambda *argv, **more: cli(*argv, "-n", nearest, **more)


def pixels_of(path: Path) -> Any:
    return load_image(path).frames[0].pixels_hwc


def refused(ran: Ran, code: int, *words: str, out: Path | None = None) -> None:
    """One line on stderr with these words, nothing on stdout, no output and no temporary file."""
    assert ran.code == code, ran.err
    assert ran.out == ""
    lines = ran.err.strip().splitlines()
    assert len(lines) == 1, ran.err
    for word in words:
        assert re.search(word, lines[0]), f"{word!r} not in {lines[0]!r}"
    if out is not None:
        assert not out.exists()
        assert not list(out.parent.glob(".sr-*"))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def test_row_01_truncated_jpeg(run: Cli, tmp_path: Path) -> None:
    whole, cut, out = (tmp_path / name for name in ("whole.jpg", "cut.jpg", "out.png"))
    Image.fromarray(pattern(300, 80)).save(whole, quality=95)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    ran = run(cut, "-o", out)
    refused(ran, 4, "cut.jpg: truncated at row \\d+ of 300", "--allow-truncated", out=out)
    row = int(re.search(r"row (\d+) of", ran.err)[1])  # type: ignore[index]
    assert 100 < row < 200
    assert run(cut, "-o", out, "--allow-truncated").code == 0
    assert np.abs(pixels_of(out)[: 2 * row - 40].astype(int) - doubled(pixels_of(whole))[: 2 * row - 40]).max() == 0


def test_row_02_truncated_or_damaged_png(run: Cli, tmp_path: Path) -> None:
    whole, cut, out = (tmp_path / name for name in ("whole.png", "cut.png", "out.png"))
    noise = np.random.default_rng(0).integers(0, 256, (120, 80, 3), np.uint8)
    Image.fromarray(noise).save(whole)
    data = bytearray(whole.read_bytes())
    cut.write_bytes(data[: len(data) // 2])
    refused(run(cut, "-o", out), 4, "cut.png: truncated at row \\d+ of 120", "--allow-truncated", out=out)
    data[len(data) // 2] ^= 0xFF
    cut.write_bytes(data)
    refused(run(cut, "-o", out), 4, "row \\d+ of 120, or damaged there", out=out)
    idat_crc = whole.read_bytes().index(b"IEND") - 8
    data = bytearray(whole.read_bytes())
    data[idat_crc] ^= 0xFF  # only the checksum is wrong
    cut.write_bytes(data)
    refused(run(cut, "-o", out), 4, "cut.png: ", out=out)


def test_row_03_pixel_bomb(run: Cli, tmp_path: Path) -> None:
    bomb, out = tmp_path / "bomb.png", tmp_path / "out.png"
    bomb.write_bytes(png_header(14000, 14000) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b""))
    refused(run(bomb, "-o", out), 4, "bomb.png: 196 MP exceeds 178 MP; use --max-pixels", out=out)


def test_row_04_text_and_icc_bombs(run: Cli, tmp_path: Path) -> None:
    bomb, out = tmp_path / "bomb.png", tmp_path / "out.png"
    rest = png_chunk(b"IDAT", zlib.compress(b"\0\1\2\3")) + png_chunk(b"IEND", b"")
    blob = zlib.compress(bytes(200_000_000), 9)
    for name, data in ((b"zTXt", b"Comment\0\0" + blob), (b"iCCP", b"profile\0\0" + blob)):
        bomb.write_bytes(png_header(1, 1) + png_chunk(name, data) + rest)
        refused(run(bomb, "-o", out), 4, "bomb.png: refused PNG header", out=out)


def test_row_05_empty_file(run: Cli, tmp_path: Path) -> None:
    empty, out = tmp_path / "empty.png", tmp_path / "out.png"
    empty.touch()
    refused(run(empty, "-o", out), 4, "empty.png: empty file", out=out)


def test_row_06_wrong_extension(run: Cli, tmp_path: Path) -> None:
    wrong, out = tmp_path / "really-a-png.jpg", tmp_path / "out.png"
    Image.fromarray(pattern(6, 7)).save(wrong, format="PNG")
    ran = run(wrong, "-o", out, code=0)
    assert "warning:" in ran.err
    assert "is a PNG file in spite of its name" in ran.err
    assert np.array_equal(pixels_of(out), doubled(pattern(6, 7)))


def test_row_07_documents(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    trap = tmp_path / "gs"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/ghostscript-ran\n")
    trap.chmod(0o755)
    out = tmp_path / "out.png"
    for name, head, words in (
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "a PostScript document"),
        ("a.png", b"%PDF-1.4\n", "a PDF document"),
        ("a.jpg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG or XML document"),
        ("a.tif", b"dear diary\n", "a text file"),
    ):
        (tmp_path / name).write_bytes(head)
        refused(run(tmp_path / name, "-o", out), 4, f"{name}: looks like {words}; expected one of png", out=out)
    assert not (tmp_path / "ghostscript-ran").exists()


def test_row_08_cmyk(run: Cli, tmp_path: Path) -> None:
    for suffix in (".jpg", ".tif"):
        ink, out = tmp_path / f"ink{suffix}", tmp_path / f"out{suffix}.png"
        Image.new("CMYK", (8, 6), (0, 255, 255, 0)).save(ink)
        ran = run(ink, "-o", out, code=0)
        assert "CMYK converted to sRGB by a standard profile" in ran.err
        red, green, blue = pixels_of(out)[3, 3].astype(int)
        assert red > 200  # printed red: not the naive (255, 0, 0), but clearly red
        assert max(green, blue) < 80
        assert pixels_of(out).shape == (12, 16, 3)


def test_row_09_palette_with_transparency(run: Cli, tmp_path: Path) -> None:
    source, out = tmp_path / "p.png", tmp_path / "out.png"
    image = Image.new("P", (4, 3), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((2, 1), 0)
    image.save(source, transparency=0)
    assert run(source, "-o", out).code == 0
    found = pixels_of(out)
    assert found.shape == (6, 8, 4)
    assert np.array_equal(found[:, :, 3], doubled(np.asarray(image) * 255))
    assert (found[found[:, :, 3] == 255][:, :3] == (200, 100, 50)).all()


def test_row_10_sixteen_bit_gray(run: Cli, tmp_path: Path) -> None:
    pixels = pattern(5, 7, 1, np.uint16)
    for suffix in (".png", ".tif"):
        source, out = tmp_path / f"g{suffix}", tmp_path / f"out{suffix}"
        Image.fromarray(pixels[:, :, 0]).save(source)
        assert run(source, "-o", out).code == 0
        with Image.open(out) as image:
            assert image.mode == "I;16"
            assert np.array_equal(np.asarray(image), doubled(pixels)[:, :, 0])


def test_row_11_sixteen_bit_rgb(run: Cli, tmp_path: Path) -> None:
    pixels = pattern(5, 7, 3, np.uint16)
    source = tmp_path / "c.tif"
    tifffile.imwrite(source, pixels, photometric="rgb")
    assert run(source, "-o", tmp_path / "out.tif").code == 0
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), doubled(pixels))
    ran = run(source, "-o", tmp_path / "out.jpg", code=0)
    assert "warning:" in ran.err
    assert "JPG holds 8 bits per channel; the output is reduced from 16" in ran.err


def test_row_12_one_bit(run: Cli, tmp_path: Path) -> None:
    image = Image.fromarray(pattern(6, 9, 1)[:, :, 0]).convert("1")
    for suffix in (".png", ".tif", ".bmp"):
        source, out = tmp_path / f"b{suffix}", tmp_path / f"out{suffix}"
        image.save(source)
        assert run(source, "-o", out).code == 0
        assert np.array_equal(pixels_of(out)[:, :, 0], doubled(np.asarray(image.convert("L"))))
        assert pixels_of(out).shape[2] == 1


def test_row_13_animations(run: Cli, tmp_path: Path) -> None:
    for suffix in (".gif", ".webp", ".png"):
        source, out = tmp_path / f"a{suffix}", tmp_path / f"out{suffix}"
        save_image(animation(), source, FORMATS[suffix[1:]])
        assert run(source, "-o", out, "-q", "100").code == 0
        found, before = load_image(out), load_image(source)
        assert [frame.duration_ms for frame in found.frames] == [100, 250, 70]
        assert found.loop == 0
        assert (found.width, found.height) == (16, 12)
        for ours, theirs in zip(found.frames, before.frames, strict=True):
            assert np.abs(ours.pixels_hwc.astype(int) - doubled(theirs.pixels_hwc)).max() <= 3
    ran = run(tmp_path / "a.gif", "-o", tmp_path / "still.bmp", code=0)
    assert "BMP holds one picture; the first of 3 frames is used" in ran.err
    assert pixels_of(tmp_path / "still.bmp")[0, 0].tolist() == pytest.approx([250, 0, 0], abs=3)
    assert run(tmp_path / "a.gif", "-o", tmp_path / "second.bmp", "--frame", "1").err == ""
    assert pixels_of(tmp_path / "second.bmp")[0, 0].tolist() == pytest.approx([0, 250, 0], abs=3)


def test_row_14_exif_orientation(run: Cli, tmp_path: Path) -> None:
    upright = pattern(6, 10)
    for orientation in range(1, 9):
        source, out = tmp_path / f"{orientation}.png", tmp_path / f"{orientation}-out.png"
        turned = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}.get(orientation)
        if turned is None:
            across = upright.transpose(1, 0, 2)
            turned = {5: across, 6: across[::-1], 7: across[::-1, ::-1], 8: across[:, ::-1]}[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(turned)).save(source, exif=exif)
        assert run(source, "-o", out).code == 0
        with Image.open(out) as image:
            assert image.getexif().get(0x0112, 1) == 1
            assert np.array_equal(np.asarray(image), doubled(upright)), orientation


def test_row_15_icc_profile(run: Cli, tmp_path: Path) -> None:
    source = tmp_path / "p3.png"
    Image.fromarray(pattern(6, 7)).save(source, icc_profile=p3_profile())
    for suffix in (".png", ".jpg", ".webp", ".tif", ".avif"):
        out = tmp_path / f"out{suffix}"
        assert run(source, "-o", out).code == 0
        with Image.open(out) as image:
            assert image.info["icc_profile"] == p3_profile()


def test_row_16_very_large_picture(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huge, out = tmp_path / "huge.png", tmp_path / "out.png"
    huge.write_bytes(png_header(30000, 30000) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b""))
    refused(run(huge, "-o", out), 4, "900 MP exceeds 178 MP; use --max-pixels", out=out)
    # allowed by option, and too much for this machine's memory: the need is named, before anything is computed
    monkeypatch.setattr("sr_upscale.inference.planning.free_memory", lambda _device: 60 << 20)
    large = tmp_path / "large.png"
    Image.new("L", (12000, 12000)).save(large, compress_level=1)
    refused(
        run(large, "-o", out, "--max-pixels", "900MP"),
        8,
        r"needs about \d+ MiB of memory; 60 MiB is free",
        out=out,
    )


def test_row_17_one_pixel(run: Cli, tmp_path: Path) -> None:
    for size in ((1, 1), (1, 17), (17, 1)):
        source, out = tmp_path / f"{size}.png", tmp_path / f"{size}-out.png"
        Image.fromarray(pattern(*size)).save(source)
        assert run(source, "-o", out).code == 0
        assert np.array_equal(pixels_of(out), doubled(pattern(*size)))


def test_row_18_not_finite(run: Cli, tmp_path: Path) -> None:
    source, out = tmp_path / "f.tif", tmp_path / "out.png"
    values = np.full((4, 5, 3), 0.5, np.float32)
    values[1, 2] = np.nan
    values[0, 0, 0] = np.inf
    tifffile.imwrite(source, values, photometric="rgb")
    refused(run(source, "-o", out), 4, "f.tif: 4 samples are NaN or infinite", out=out)


def test_row_19_beyond_the_format(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "wide.png"
    Image.new("L", (8200, 1)).save(source)
    monkeypatch.setattr(
        "sr_upscale.inference.engine.Engine.enlarged", lambda *_args, **_more: pytest.fail("it computed first")
    )
    out = tmp_path / "out.webp"
    refused(
        run(source, "-o", out), 5, "16400x2 is too large for WEBP, which ends at 16383", "use --format png", out=out
    )
    Image.new("L", (32800, 1)).save(source)
    out = tmp_path / "out.jpg"
    refused(run(source, "-o", out), 5, "65600x2 is too large for JPG, which ends at 65500", "use --format", out=out)


def test_row_20_transparency_to_jpeg(run: Cli, tmp_path: Path) -> None:
    source, out = tmp_path / "a.png", tmp_path / "out.jpg"
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(source)
    refused(run(source, "-o", out), 2, "JPG has no transparency; give a --background", out=out)
    assert run(source, "-o", out, "--background", "#ff0000").code == 0
    assert pixels_of(out)[4, 4].tolist() == pytest.approx([255, 0, 0], abs=2)
    refused(run(source, "-o", tmp_path / "b.jpg", "--background", "reddish"), 2, "--background is 'reddish'")


def test_row_21_strange_names(
    run: Cli, cli: Cli, nearest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["été-写真.png", "two\nlines.png", " spaces .png", os.fsdecode(b"\xff\xfe.png"), "100%.png", "[a].png"]
    for name in names:
        Image.fromarray(pattern(4, 5)).save(tmp_path / "plain.png")
        (tmp_path / "plain.png").rename(name)
        assert run(name, "-o", f"{name}.out.png").code == 0
        assert np.array_equal(pixels_of(Path(f"{name}.out.png")), doubled(pattern(4, 5)))
    Path("été-写真.png").rename("-dash.png")
    assert cli("-n", nearest, "-o", "dash.png", "--", "-dash.png").code == 0
    assert run("./-dash.png", "-o", "dash-2.png").code == 0
    ran = run("two\nlines.pgn", "-o", "x.png")
    refused(ran, 4, r"two\\nlines.pgn: no such file")


def test_row_22_overlong_name(run: Cli, tmp_path: Path, photo: Path) -> None:
    longest = tmp_path / ("n" * 251 + ".png")
    assert run(photo, "-o", longest).code == 0  # the temporary name is short
    assert longest.exists()
    ran = run(photo, "-o", tmp_path / ("n" * 252 + ".png"))
    refused(ran, 5, "the name is too long", "choose a shorter one")
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    longest.rename(folder / longest.name)
    photo.rename(folder / photo.name)
    for there in (False, True):  # whether or not the folder of outputs is there, it fails alone
        assert out.is_dir() == there
        ran = run("batch", folder, "-o", out, "--suffix", "_x2", "--force")
        assert (ran.code, "1 done, 0 skipped, 1 failed of 2" in ran.err) == (3, True), ran.err
        assert "the name is too long" in ran.err
    assert [path.name for path in out.glob("*.png")] == ["photo_x2.png"]


def test_row_23_output_is_the_input(run: Cli, tmp_path: Path, photo: Path) -> None:
    before = photo.read_bytes()
    (tmp_path / "symbolic.png").symlink_to(photo)
    os.link(photo, tmp_path / "hard.png")
    (tmp_path / "sub").mkdir()
    for same in (photo, tmp_path / "symbolic.png", tmp_path / "hard.png", tmp_path / "sub" / ".." / "photo.png"):
        refused(run(photo, "-o", same, "--force"), 2, "is an input and would be overwritten")
        assert photo.read_bytes() == before


def test_row_24_two_inputs_one_output(run: Cli, tmp_path: Path) -> None:
    folder, out = pictures(tmp_path / "in", "a.jpg", "a.png", "b.png", size=(4, 5)), tmp_path / "out"
    for more, status in (("--dry-run",), "planned"), ((), "done"):
        ran = run("batch", folder, "-o", out, "--format", "png", *more)
        assert (ran.code, f"2 {status}, 0 skipped, 1 failed" in ran.err) == (3, True), ran.err
        assert re.search("a.jpg and .*a.png would both become .*a.png; leave out --format", ran.err)
    assert sorted(path.name for path in out.iterdir()) == [".sr-upscale.jsonl", "a.png", "b.png"]
    assert np.array_equal(pixels_of(out / "a.png"), doubled(pixels_of(folder / "a.jpg")))  # the first one's


def test_row_25_existing_output(run: Cli, tmp_path: Path, photo: Path) -> None:
    single = tmp_path / "out.png"
    single.write_bytes(b"mine")
    refused(run(photo, "-o", single), 5, "out.png: exists; add --force")
    assert single.read_bytes() == b"mine"
    assert run(photo, "-o", single, "--force").code == 0

    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.fromarray(pattern(4, 5)).save(folder / "a.png")
    Image.fromarray(pattern(5, 4)).save(folder / "b.png")
    assert "2 done, 0 skipped" in run("batch", folder, "-o", out).err
    first = (out / "a.png").stat().st_mtime_ns
    ran = run("batch", folder, "-o", out)
    assert (ran.code, "0 done, 2 skipped, 0 failed" in ran.err) == (0, True)
    assert (out / "a.png").stat().st_mtime_ns == first
    Image.fromarray(255 - pattern(4, 5)).save(folder / "a.png")  # another input under the same name
    assert "1 done, 1 skipped" in run("batch", folder, "-o", out).err
    assert np.array_equal(pixels_of(out / "a.png"), doubled(255 - pattern(4, 5)))
    refused(run("batch", folder, "-o", out, "-s", "3"), 5, "2 of 2 outputs would be replaced", "add --force")
    assert "2 done, 0 skipped" in run("batch", folder, "-o", out, "-s", "3", "--force").err
    (out / "a.png").write_bytes(b"edited by its owner")
    ran = run("batch", folder, "-o", out, "-s", "3", code=3)
    assert "was changed since; add --force" in ran.err
    assert (out / "a.png").read_bytes() == b"edited by its owner"


def test_row_26_unwritable_folder(run: Cli, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sr_upscale.upscaler.Upscaler.__init__", lambda *_args, **_more: pytest.fail("loaded a model first")
    )
    refused(run(photo, "-o", "/proc/out.png"), 5, "/proc/out.png: cannot write", "with -o")
    refused(run(photo, "-o", photo / "out.png"), 5, "its parent is not a folder|is not a folder|does not exist")
    refused(run(photo, "-o", tmp_path / "none" / "out.png"), 5, "does not exist; create it")

    def deny(*_args: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(batch_plan.tempfile, "TemporaryFile", deny)
    refused(run("batch", tmp_path, "-o", tmp_path / "out"), 5, "Permission denied; choose another folder with -o")


def test_row_27_symlink_loop(run: Cli, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(pattern(4, 5)).save(folder / "sub" / "a.png")
    (folder / "sub" / "loop").symlink_to(folder)
    ran = run("batch", folder, "-o", out, code=0)
    assert "already visited" in ran.err
    assert "1 done" in ran.err
    assert [path.relative_to(out) for path in out.rglob("*.png")] == [Path("sub/a.png")]


def test_row_28_not_a_regular_file(run: Cli, tmp_path: Path, photo: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "folder.png").mkdir(parents=True)
    os.mkfifo(folder / "pipe.png")
    Image.fromarray(pattern(4, 5)).save(folder / "good.png")
    refused(run(folder / "pipe.png", "-o", tmp_path / "o.png"), 4, "pipe.png: not a regular file but a pipe")
    refused(run("/dev/zero", "-o", tmp_path / "o.png"), 4, "/dev/zero: not a regular file but a pipe, socket or device")
    ran = run("batch", folder, "-o", out, code=3)  # would never return if it waited for the pipe
    assert "pipe.png: not a regular file" in ran.err
    assert (out / "good.png").exists()
    refused(run(photo, "-o", folder / "pipe.png"), 5, "is not a regular file")


def test_row_29_input_vanishes_or_changes(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = pictures(tmp_path / "in", "a.png", "b.png", "c.png", size=(4, 5)), tmp_path / "out"
    real = job.prepare

    def vanish(source: Any, *rest: Any, **more: Any) -> Any:
        (folder / "b.png").unlink(missing_ok=True)
        return real(source, *rest, **more)

    monkeypatch.setattr(job, "prepare", vanish)
    ran = run("batch", folder, "-o", out, code=3)
    assert "b.png: no such file" in ran.err
    assert sorted(path.name for path in out.glob("*.png")) == ["a.png", "c.png"]

    original = os.fstat

    def grow(descriptor: int) -> os.stat_result:
        found = original(descriptor)
        with (folder / "c.png").open("ab") as other:
            other.write(b"more")
        return found

    monkeypatch.setattr(os, "fstat", grow)
    refused(
        run(folder / "c.png", "-o", tmp_path / "o.png"), 4, "c.png: changed while it was read", out=tmp_path / "o.png"
    )


def test_row_30_empty_folder(run: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "notes.txt").write_text("hello")
    refused(run("batch", folder), 4, "in: no images found; expected files ending in .apng")
    refused(run(folder, "-o", tmp_path / "o"), 4, "in: no images found", out=tmp_path / "o")
    refused(run("batch", tmp_path / "none"), 4, "none: no such folder")


def test_every_row_is_here() -> None:
    rows = [name[9:11] for name in vars(sys.modules[__name__]) if name.startswith("test_row_")]
    assert rows == [f"{number:02d}" for number in range(1, 31)]
