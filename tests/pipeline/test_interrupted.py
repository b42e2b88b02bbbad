"""Faults 47 to 53 by the number of their row: signals, kills, full disks, memory; a rerun completes what is missing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image
from torch.nn import functional as F

from sr_upscale.images.codecs import png
from sr_upscale.images.codecs import row_writer as stream
from sr_upscale.inference import loaded_networks
from sr_upscale.inference import strips as streaming
from sr_upscale.pipeline.manifest import MANIFEST
from sr_upscale.storage import atomic as files
from sr_upscale.storage.atomic import identity, place, remove_orphans, replace_file
from tests.helpers import Cli, pattern, pictures

COUNT = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = pictures(tmp_path / "in", *(f"{number}.png" for number in range(COUNT)))
    return folder


def check(out: Path, numbers: range = range(COUNT)) -> None:
    """These outputs are there and right, and nothing else is but the manifest: its file, or this process's part."""
    manifest, *pictures = sorted(path.name for path in out.iterdir())
    assert manifest in (".sr-upscale.jsonl", f".sr-upscale.{identity()}.jsonl")
    assert pictures == [f"{number}.png" for number in numbers]
    for number in numbers:
        with Image.open(out / f"{number}.png") as image:
            expected = pattern(5 + number, 9).repeat(2, axis=0).repeat(2, axis=1)
            assert np.array_equal(np.asarray(image), expected)


def child(code: str, *argv: object) -> subprocess.Popen[str]:
    """The program in a process of its own, with some of it changed before it starts."""
    program = f"{code}\nfrom sr_upscale.cli.app import main\nmain()"
    words = [sys.executable, "-c", program, *map(str, argv)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


SIGNALS = pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])


@SIGNALS
def test_row_47_and_row_48_a_signal_stops_a_batch_that_then_goes_on(
    cli: Cli, folder: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str
) -> None:
    out, write, calls = folder.with_name("out"), png.write_rows, []

    def stop(*args: Any, **more: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        if len(calls) >= 3:
            time.sleep(1)  # on a busy machine the pictures left would be written before the main thread hears of it
        write(*args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(png, "write_rows", stop)
        ran = cli("batch", folder, "-o", out, "-n", nearest)
    assert ran.code == 128 + number
    stopped, last = ran.err.splitlines()
    assert stopped.startswith("stopped after ")
    assert stopped.endswith(f" of {COUNT}; run the same command to continue")
    assert last == f"sr-upscale: {word}; unfinished files were removed"
    left = {path.name for path in out.iterdir()}
    assert left - {path.name for path in out.glob("*.png")} == {MANIFEST}  # no claims, and no part that nobody merges
    assert 2 <= len(list(out.glob("*.png"))) < COUNT
    ran = cli("batch", folder, "-o", out, "-n", nearest, code=0)
    check(out)


NEVER_ENDS = """
import sys, threading, time
from sr_upscale.pipeline import job
def hang(*_args, **_more):
    sys.stderr.write("hangs\\n")
    sys.stderr.flush()
    time.sleep(3600)
job.start = hang
"""


def test_row_47_a_second_signal_ends_it_at_once(folder: Path, nearest: Path) -> None:
    process = child(NEVER_ENDS, "batch", folder, "-o", folder.with_name("out"), "-n", nearest)
    assert process.stderr is not None
    assert process.stderr.readline() == "hangs\n"
    process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    assert process.poll() is None  # it waits for the stage
    process.send_signal(signal.SIGINT)
    _said, errors = process.communicate(timeout=300)  # it would hang for an hour
    assert process.returncode == 130
    assert "killed; unfinished files" in errors


def full(*_args: object, **_more: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill(monkeypatch: pytest.MonkeyPatch, where: str, *, after: int) -> None:
    """From the call with this number on, the disk is full at this step of writing."""
    owner, name = {"write": (stream._Target, "_write_all"), "fsync": (os, "fsync"), "rename": (files, "_put_in_place")}[
        where
    ]
    whole, calls = getattr(owner, name), []

    def limited(*args: Any, **more: Any) -> Any:
        calls.append(name)
        return full() if len(calls) > after else whole(*args, **more)

    monkeypatch.setattr(owner, name, limited)


@pytest.mark.parametrize("where", ["write", "fsync", "rename"])
def test_row_50_full_disk(cli: Cli, folder: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    out = folder.with_name("out.png")
    out.write_bytes(b"old")
    fill(monkeypatch, where, after=0)
    ran = cli(folder / "0.png", "-o", out, "-n", nearest, "--force", code=5)
    remedy = "the disk is full; free some space or choose another folder with -o"
    assert ran.err == f"sr-upscale: {out}: cannot write: No space left on device; {remedy}\n"
    assert out.read_bytes() == b"old"
    assert {path.name for path in out.parent.iterdir()} == {"in", "out.png"}


SHORT = """
import resource, sys
from sr_upscale.cli.app import run
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
source, weights, *outs = sys.argv[1:]
sys.exit([run([source, "-n", weights, "-o", out]) for out in outs] != [5] * len(outs))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of a file's size")
def test_row_50_a_write_that_falls_short_is_not_taken_for_a_whole_one(
    folder: Path, nearest: Path, tmp_path: Path
) -> None:
    """The file may grow to 200 bytes: what is asked to be written is written in part, as where the disk gets full."""
    outs = [tmp_path / f"out.{kind}" for kind in ("png", "webp", "bmp", "gif")]
    command = [sys.executable, "-c", SHORT, folder / "5.png", nearest, *outs]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("cannot write")) == (0, 4), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(("where", "after"), [("write", 2), ("fsync", 6), ("rename", 2)])
def test_row_50_full_disk_stops_a_batch(
    cli: Cli, folder: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch, where: str, after: int
) -> None:
    """Each small picture is one block, one new name, and three times flushed: file, manifest, folder."""
    out = folder.with_name("out")
    fill(monkeypatch, where, after=after)
    ran = cli("batch", folder, "-o", out, "-n", nearest, "-j", "1:1:1", code=5)
    *_, stopped, error = ran.err.splitlines()
    assert stopped == f"stopped after 2 of {COUNT}; run the same command to continue"
    assert "2.png: cannot write: No space left on device; the disk is full" in error
    check(out, range(2))
    monkeypatch.undo()
    ran = cli("batch", folder, "-o", out, "-n", nearest)
    assert (ran.code, "4 done, 2 skipped, 0 failed of 6" in ran.err) == (0, True)
    check(out)
    assert (out / ".sr-upscale.jsonl").is_file()


def test_row_51_memory_of_the_device_runs_out(
    cli: Cli, folder: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, tried = streaming.stream_rows, []

    def greedy(network: Any, strips: Any, *, height: int, rows: int, column: int = 0) -> Any:
        tried.append(rows)
        if rows > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(network, strips, height=height, rows=rows, column=column)

    monkeypatch.setattr(streaming, "stream_rows", greedy)
    limit, out = 2, folder.with_name("out.png")
    assert cli(folder / "5.png", "-o", out, "-n", nearest, "--fp32").code == 0  # bf16 would be tried on a patch first
    assert (tried[0] > 2, tried[-1] <= 2) == (True, True)
    with Image.open(out) as image:
        assert np.array_equal(np.asarray(image), pattern(10, 9).repeat(2, axis=0).repeat(2, axis=1))
    limit = 0
    ran = cli(folder / "5.png", "-o", out, "-n", nearest, "--fp32", "--force", code=8)
    assert "even with single rows" in ran.err


def test_row_52_other_errors_of_the_device_are_not_taken_for_it(
    cli: Cli, folder: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def broken(*_args: Any, **_more: Any) -> Any:
        tried.append(1)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(streaming, "stream_rows", broken)
    ran = cli(folder / "5.png", "-o", folder.with_name("out.png"), "-n", nearest)
    assert (ran.code, tried) == (1, [1])
    assert len(ran.err.splitlines()) == 1
    assert "illegal memory access" in ran.err


def test_row_53_memory_of_the_host(cli: Cli, folder: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = cli(folder / "5.png", "-n", nearest, "--max-memory", "1M", code=8)
    assert "MiB of memory; 1 MiB is allowed; raise --max-memory" in ran.err

    def stop(*_args: object, **_more: object) -> None:
        raise MemoryError

    monkeypatch.setattr(png, "decode_still", stop)
    ran = cli(folder / "5.png", "-n", nearest, code=8)
    assert "5.png: too large to decode in the memory that is free" in ran.err
    ran = cli("batch", folder, "-o", folder.with_name("out"), "-n", nearest)
    assert (ran.code, f"{COUNT} failed" in ran.err) == (3, True)
    assert not folder.with_name("out").exists()


def test_orphans_of_other_machines_and_processes_that_live_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {
        f".sr-{place()}-{dead.pid}-0123abcd-a.tmp": False,
        f".sr-{place()}-{os.getpid()}-0123abcd-a.tmp": False,  # an earlier process of this number
        f".sr-{identity()}-a.tmp": True,
        f".sr-elsewhere.01234567-{dead.pid}-0123abcd-a.tmp": True,
        ".sr-upscale.jsonl": True,
        ".sr-odd.tmp": True,
    }
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    remove_orphans(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {name for name, stays in names.items() if stays}
    with replace_file(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"whole")
        remove_orphans(tmp_path)
        assert temporary.exists()
    assert (tmp_path / "a.png").read_bytes() == b"whole"


def test_an_echo_of_a_signal_is_not_a_second_one(folder: Path, nearest: Path) -> None:
    """`timeout` sends it to the process and to its group."""
    process = child(SLOW, "batch", folder, "-o", folder.with_name("out"), "-n", nearest)
    assert process.stderr is not None
    assert process.stderr.readline() == "works\n"
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    _said, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors.splitlines()[-1] == "sr-upscale: terminated; unfinished files were removed"


SLOW = NEVER_ENDS.replace("hangs", "works").replace("time.sleep(3600)", "time.sleep(0.8); raise KeyError")


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_while_computing_stays(
    cli: Cli, photo: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Also where the file system knows no hard links; --force still overwrites."""
    target, real = photo.with_name("out.png"), streaming.stream_rows

    def slow(*arguments: Any, **more: Any) -> Any:
        target.write_bytes(b"somebody else's")
        return real(*arguments, **more)

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(streaming, "stream_rows", slow)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    ran = cli(photo, "-n", nearest, "-o", target, code=5)
    assert "appeared while this was computed, and stays" in ran.err
    assert target.read_bytes() == b"somebody else's"
    assert sorted(path.name for path in photo.parent.iterdir()) == ["out.png", "photo.png"]
    assert cli(photo, "-n", nearest, "-o", target, "--force").code == 0
    assert target.read_bytes() != b"somebody else's"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("where", ["loading", "computing", "encoding"])
@SIGNALS
def test_row_47_and_row_48_a_signal_in_a_callback_of_a_library(
    cli: Cli, folder: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str, where: str
) -> None:
    """Python drops what a handler raises there; the end comes all the same, and without a file."""
    source, out = folder / "moving.gif", folder / "out.gif"
    frames = [Image.fromarray(np.roll(pattern(30, 40), shift, axis=1)) for shift in range(4)]
    frames[0].save(source, save_all=True, append_images=frames[1:])
    names = sorted(path.name for path in folder.iterdir())
    owner, name = {
        "loading": (loaded_networks, "starter"),
        "computing": (streaming, "stream_rows"),
        "encoding": (pyvips.Operation, "call"),
    }[where]
    real, asked = getattr(owner, name), list[Any]()

    class Callback:
        def __del__(self) -> None:  # what is raised here is lost
            os.kill(os.getpid(), number)
            sum(range(1000))

    def call(*args: Any, **more: Any) -> Any:
        if not asked and (where != "encoding" or args[0] == "gifsave_target"):
            asked.append(Callback())
            asked[0] = None
        return real(*args, **more)

    monkeypatch.setattr(owner, name, call)
    ran = cli(source, "-n", nearest, "-o", out, code=128 + number)
    assert ran.err.splitlines()[-1] == f"sr-upscale: {word}; unfinished files were removed"
    assert where == "loading" or len(ran.err.splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.parametrize(("words", "as_batch"), [((), False), (("-x",), False), (("-x", "-t", 16), True)])
def test_row_47_a_signal_ends_a_network_between_two_layers(
    cli: Cli, folder: Path, micro: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], as_batch: bool
) -> None:
    """A turn of the self-ensemble may take seconds, and so may a large tile of someone else's network."""
    conv2d, calls = F.conv2d, []

    def slow(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)  # the main thread hears of it
        return conv2d(*args, **more)

    monkeypatch.setattr(F, "conv2d", slow)
    name, out = (folder, folder.with_name("out")) if as_batch else (folder / "5.png", folder.with_name("out.png"))
    ran = cli(
        *(["batch"] if as_batch else []), name, "-n", micro, "--fp32", "--backend", "torch", "-o", out, *words, code=130
    )
    assert len(calls) <= 4
    assert ran.err.splitlines()[-1] == "sr-upscale: interrupted; unfinished files were removed"


WHILE_IMPORTING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs behind it with SIGINT ignored
class Finder:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from sr_upscale.__main__ import main
main()
"""


def test_row_47_a_signal_before_the_program_listens() -> None:
    ran = subprocess.run([sys.executable, "-c", WHILE_IMPORTING, "doctor"], capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGINT, b"", b"")


def test_row_49_a_later_run_clears_what_a_killed_one_left(cli: Cli, folder: Path, nearest: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (folder / f".sr-{place()}-{dead.pid}-00000000-a.tmp").write_bytes(b"half")
    assert cli(folder / "0.png", "-n", nearest, "-o", folder / "out.png").code == 0
    assert not list(folder.glob(".sr-*"))
