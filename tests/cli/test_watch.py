"""A folder is watched while files arrive, slowly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import ROOT, pattern


@pytest.mark.skipif(sys.platform == "win32", reason="ends the process by a signal")
def test_files_are_taken_when_they_are_whole(tmp_path: Path, nearest: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.fromarray(pattern(40, 60)).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    command = [sys.executable, "-m", "sr_upscale", "batch", str(folder), "-o", str(out), "-n", str(nearest), "--watch"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        time.sleep(1)  # it watches an empty folder
        (folder / "first.png").write_bytes(data)
        with (folder / "slow.png").open("wb") as slow:
            for at in range(0, len(data), len(data) // 8):
                slow.write(data[at : at + len(data) // 8])
                slow.flush()
                time.sleep(0.6)
        end = time.monotonic() + 120
        while not {"first.png", "slow.png"} <= ({each.name for each in out.glob("*")} if out.exists() else set()):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "failed of" not in said.replace("0 failed of", "")
    for name in ("first.png", "slow.png"):
        with Image.open(out / name) as image:
            assert image.size == (120, 80)
