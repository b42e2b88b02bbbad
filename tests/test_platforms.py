"""What other systems lack or refuse, played on this one: Windows's renames, flushes, signals and encodings."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_upscale.errors import OutputError
from sr_upscale.storage import atomic
from sr_upscale.storage.atomic import replace_file
from sr_upscale.storage.download import fetch
from sr_upscale.storage.remote import RemoteFile
from tests.helpers import ROOT, Cli, pattern, pictures, serving

pytestmark = pytest.mark.skipif(os.name == "nt", reason="plays Windows on a system that is not")


def in_a_process(*words: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    program = [sys.executable, *map(str, words)]
    return subprocess.run(program, cwd=cwd, env=environment, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_names_that_an_encoding_lacks_are_escaped(encoding: str, tmp_path: Path) -> None:
    Image.fromarray(pattern(6, 7)).save(tmp_path / "写真.png")
    words = ("-m", "sr_upscale", "写真.png", "-o", "出力.png", "--dry-run")
    done = in_a_process(*words, cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert rb"\u5199\u771f.png" in done.stdout
    assert rb"\u51fa\u529b.png" in done.stdout


WITHOUT_POSIX = """
import os, signal, sys
import PIL.Image, filelock, platformdirs.unix, psutil, pyvips, safetensors.torch, torch
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "sched_getaffinity", "getuid", "geteuid", "mkfifo", "fork",
             "killpg", "getpgid", "statvfs", "pread", "posix_fadvise", "sync", "uname", "getloadavg"):
    delattr(os, name)
for name in ("SIGCONT", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM", "SIGPIPE"):
    delattr(signal, name)
def no_links(*_arguments, **_more):
    raise OSError(1, "no hard links here")
os.link = no_links
from sr_upscale.cli.app import run
sys.exit(run(sys.argv[1:]) or run(sys.argv[1:]))
"""


def test_pictures_are_enlarged_where_posix_is_not(tmp_path: Path, nearest: Path) -> None:
    """Also in a batch, with its claims and manifest, and a second time."""
    pictures(tmp_path / "in", "a.png", size=(6, 7))
    done = in_a_process("-c", WITHOUT_POSIX, "batch", "in", "-o", "out", "-n", nearest, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.findall(rb"\d done, \d skipped", done.stderr) == [b"1 done, 0 skipped", b"0 done, 1 skipped"]
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert np.array_equal(np.asarray(image), pattern(6, 7).repeat(2, 0).repeat(2, 1))


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a rename is refused from now on, as where a virus scanner has the file open; it counts down."""
    left, real = [0], Path.replace

    def replace(self: Path, target: Path) -> Path:
        if left[0] > 0:
            left[0] -= 1
            raise PermissionError(errno.EACCES, "Access is denied")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    return left


def test_a_rename_that_windows_refuses_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: list[int]
) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")

    def write() -> None:
        with replace_file(target) as temporary:
            temporary.write_text("new")

    refusals[0] = 1
    with pytest.raises(OutputError, match="Access is denied"):
        write()
    assert target.read_text() == "old"

    monkeypatch.setattr(atomic, "WINDOWS", True)
    refusals[0] = 3
    write()
    assert (target.read_text(), refusals[0]) == ("new", 0)

    monkeypatch.setattr(atomic, "PATIENCE_S", 0.1)
    refusals[0] = 10**6
    with pytest.raises(OutputError, match="Access is denied"):
        write()
    assert list(tmp_path.iterdir()) == [target]


def test_only_what_may_be_written_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses to flush a file that is open for reading alone, and to open a folder at all."""
    import fcntl

    real, flushed = os.fsync, []

    def fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with serving(b"weights") as server:
        file = RemoteFile(url=f"{server.url}/weights.bin", size=7, sha256=hashlib.sha256(b"weights").hexdigest())
        assert fetch(file, tmp_path / "weights.bin").read_bytes() == b"weights"
    with replace_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("a")
    assert len(flushed) == 2


def test_ctrl_break_ends_a_command_as_sigterm_does(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    monkeypatch.setattr("sr_upscale.cli.doctor.check_up", lambda _device: signal.raise_signal(signal.SIGUSR1) or {})
    ran = cli("doctor")
    assert (ran.code, ran.err) == (143, "sr-upscale: terminated; unfinished files were removed\n")
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
