"""Proves that processes share a folder: kills two of five, stops one for a minute, and counts what was made.

    python scripts/many_processes.py --pictures 500 --processes 5 --stop 60

It makes pictures and small weights of its own, in a folder that goes at the end, and ends with an error if an output is
wrong, was put in place twice, or an exit code does not tell the truth.
"""

from __future__ import annotations

import argparse
import collections
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sr_upscale.models.generator import Generator, GeneratorConfig
from sr_upscale.pretrained.weights_file import WeightsInfo, save_generator

COUNTED = """
import os, sys, time
from pathlib import Path
from sr_upscale.storage import atomic, claims
log, claims.Claims.__init__.__kwdefaults__["lease_s"] = Path(sys.argv.pop()), float(sys.argv.pop())
slower, put = float(sys.argv.pop()), atomic._put_in_place
def counted(temporary, path, **more):
    if path.suffix == ".png":
        time.sleep(slower)
    put(temporary, path, **more)
    if path.suffix == ".png":
        with log.open("a") as file:
            file.write(path.name + "\\n")
atomic._put_in_place = counted
from sr_upscale.cli.app import main
main()
"""
"""A process that notes each output that it has put in place, and takes a little longer for it."""


def nearest_weights(path: Path) -> None:
    """Writes weights, x2, that repeat each pixel: what is right is known without a network."""
    model = Generator(GeneratorConfig(scale=2, num_feat=8, num_blocks=1))
    with torch.no_grad():
        model.tail.last.weight.zero_()
    save_generator(path, model, WeightsInfo(name="nearest-x2"))


def pixels(number: int) -> np.ndarray:
    """Makes the (H, W, 3) pixels of a picture."""
    return np.random.default_rng(number).integers(0, 256, (9 + number % 7, 12, 3), np.uint8)


def write_pictures(folder: Path, count: int) -> None:
    """Makes a folder of pictures, PNG."""
    folder.mkdir()
    for number in range(count):
        Image.fromarray(pixels(number)).save(folder / f"{number:04}.png")


def prove(folder: Path, *, pictures: int, processes: int, stop_s: float, lease_s: float, slower_s: float) -> list[str]:
    """Does one folder with several processes; returns what is wrong with the result."""
    source, out, weights = folder / "in", folder / "out", folder / "nearest-x2.safetensors"
    nearest_weights(weights)
    write_pictures(source, pictures)

    def start(number: int) -> subprocess.Popen[str]:
        words = ["batch", source, "-o", out, "-n", weights, slower_s, lease_s, folder / f"{number}.log"]
        return subprocess.Popen(
            [sys.executable, "-c", COUNTED, *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    begin = time.monotonic()
    running = [start(number) for number in range(processes)]
    killed, stopped = running[:2], running[2]

    def made() -> int:
        return sum(1 for log in folder.glob("*.log") for _line in log.open())

    for share, process in zip((0.2, 0.4), killed, strict=True):
        while made() < share * pictures:
            time.sleep(0.02)
        process.kill()
    while made() < 0.5 * pictures:
        time.sleep(0.02)
    stopped.send_signal(signal.SIGSTOP)
    time.sleep(stop_s)
    stopped.send_signal(signal.SIGCONT)
    errors = [process.communicate()[1] for process in running]
    seconds = time.monotonic() - begin

    names = [name for log in folder.glob("*.log") for name in log.read_text().split()]
    counts = collections.Counter(names)
    wrong = [f"{name} was made {count} times" for name, count in counts.items() if count > 1]
    for number in range(pictures):
        path = out / f"{number:04}.png"
        expected = pixels(number).repeat(2, axis=0).repeat(2, axis=1)
        if not path.is_file() or not np.array_equal(np.asarray(Image.open(path)), expected):
            wrong.append(f"{path.name} is not there, or not right")
    codes = [process.returncode for process in running]
    if codes != [-signal.SIGKILL] * 2 + [0] * (processes - 2):
        wrong.append(f"exit codes {codes}: {errors}")
    left = sorted(path.name for path in out.iterdir() if path.suffix != ".png")
    if left != [".sr-upscale.jsonl"]:
        wrong.append(f"left in the folder: {left}")
    if (lines := len((out / ".sr-upscale.jsonl").read_text().splitlines())) != pictures:
        wrong.append(f"{lines} lines in the manifest for {pictures} pictures")
    # a kill may come between a picture's place and its line in the log
    if not pictures - len(killed) <= len(names) <= pictures:
        wrong.append(f"{len(names)} outputs were put in place")
    shares = [sum(1 for _line in (folder / f"{number}.log").open()) for number in range(processes)]
    sys.stdout.write(f"{pictures} pictures in {seconds:.1f} s, by process {shares}, exit codes {codes}\n")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--stop", type=float, default=60.0, help="seconds for which one is stopped")
    parser.add_argument("--lease", type=float, default=45.0, help="seconds of a lease")
    parser.add_argument("--slower", type=float, default=0.1, help="seconds more for each output")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = prove(
            Path(folder),
            pictures=given.pictures,
            processes=given.processes,
            stop_s=given.stop,
            lease_s=given.lease,
            slower_s=given.slower,
        )
    for each in wrong:
        sys.stdout.write(f"wrong: {each}\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
