"""Proofs that take minutes: ten kills, two thousand frames in the memory of fifty, the network busy."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.video.clips import ffmpeg, hashes, times_of

pytest.importorskip("av")
pytestmark = pytest.mark.slow

RUN = "import sys; from sr_upscale.video import run; run.SEGMENT_FRAMES = int(sys.argv[1]); "
RUN += "from sr_upscale.cli.app import main; main(sys.argv[2:])"


def started(frames: int, *words: object) -> subprocess.Popen[str]:
    """Starts the program with segments of so many frames."""
    command = [sys.executable, "-c", RUN, str(frames), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def made_clip(path: Path, size: str, seconds: float, *, rate: int = 25) -> Path:
    """A clip in which no frame is the one before."""
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds}", "-f", "lavfi", "-i", f"sine=d={seconds}",
           "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", path)  # fmt: skip
    return path


def test_ten_kills_change_no_frame(tmp_path: Path, nearest: Path) -> None:
    source, whole, out = made_clip(tmp_path / "a.mp4", "96x72", 12), tmp_path / "whole.mkv", tmp_path / "out.mkv"
    words = ("-n", nearest, "--json", "--preset", "ultrafast")
    with started(8, source, "-o", whole, *words) as undisturbed:
        undisturbed.communicate()
    assert undisturbed.returncode == 0
    chance, there = random.Random(1), 0
    for _kill in range(10):
        wanted = there + chance.randint(1, 2)
        with started(8, source, "-o", out, *words) as child:
            while there < wanted:
                assert child.poll() is None
                time.sleep(0.01)
                there = len([*tmp_path.glob(".sr-*.clip/*.segment")])
            time.sleep(chance.uniform(0, 0.2))
            child.send_signal(signal.SIGKILL)
    assert not out.exists()
    last = started(8, source, "-o", out, *words)
    answer, _ = last.communicate()
    assert last.returncode == 0
    assert json.loads(answer.splitlines()[-1])["resumed_frames"] > 0
    assert hashes(out) == hashes(whole)
    assert times_of(out) == times_of(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "out.mkv", "whole.mkv"]


def test_two_thousand_frames_take_the_memory_of_fifty(tmp_path: Path, nearest: Path) -> None:
    peaks = []
    for seconds in (2, 80):
        source = made_clip(tmp_path / f"{seconds}.mp4", "160x120", seconds)
        script = RUN.replace("import main; main(sys.argv[2:])", "import run as go; assert go(sys.argv[2:]) == 0; ")
        script += "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        command = [sys.executable, "-c", script, "250", source, "-o", tmp_path / f"{seconds}.mkv", "-n", nearest]
        done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
        assert len(times_of(tmp_path / f"{seconds}.mkv")) == seconds * 25
    assert peaks[1] - peaks[0] < 60, f"MiB at the most: {peaks}"


def test_the_network_is_busy(tmp_path: Path) -> None:
    source = made_clip(tmp_path / "a.mp4", "320x240", 4)
    child = started(250, source, "-o", tmp_path / "out.mkv", "-n", "photo-fast", "--json")
    answer, errors = child.communicate()
    assert child.returncode == 0, errors
    done = json.loads(answer.splitlines()[-1])
    assert done["busy_seconds"] / done["seconds"] >= 0.9
