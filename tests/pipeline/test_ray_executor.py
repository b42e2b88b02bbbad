"""A folder on a Ray cluster that loses a machine and gains one: the bytes are those of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import Ran, pattern

Cli = Callable[..., Ran]
COUNT = 24

ON_CLUSTER = """
import os, signal, sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from sr_upscale.cli.app import run

out, log, *words = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
killed = []

def disturb():
    while not (begun := list(Path(out).glob(".sr-*.tmp"))) or len(list(Path(out).glob("*.png"))) < 4:
        time.sleep(0.01)
    cluster.remove_node(nodes[0], allow_graceful=False)
    killed.append(len(begun))
    cluster.add_node(num_cpus=1)

threading.Thread(target=disturb, daemon=True).start()
code = run([*words, "--on", "ray", "--address", cluster.address])
Path(log).write_text(str(len(killed)))
cluster.shutdown()
sys.exit(code)
"""


@pytest.mark.slow
def test_a_cluster_that_loses_a_machine_and_gains_one_makes_the_bytes_of_one_process(
    cli: Cli, tmp_path: Path, nearest: Path
) -> None:
    pytest.importorskip("ray")
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(COUNT):
        Image.fromarray(pattern(900 + number, 900)).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    run = ("batch", folder, "-n", nearest, "--json", "-o")
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert cli(*run, alone).code == 3
    words = [*map(str, run), str(together)]
    log = tmp_path / "log"
    ran = subprocess.run(
        [sys.executable, "-c", ON_CLUSTER, str(together), str(log), *words], capture_output=True, text=True, timeout=400
    )
    assert ran.returncode == 3, ran.stderr
    assert log.read_text() == "1"  # it was disturbed
    *rows, said = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]  # Ray writes, too
    assert (said["done"], said["failed"]) == (COUNT, 1)
    assert "bad.png" in next(each["error"] for each in rows if each["status"] == "failed")
    assert sorted(path.name for path in together.iterdir()) == sorted(path.name for path in alone.iterdir())
    for path in alone.glob("*.png"):
        assert (together / path.name).read_bytes() == path.read_bytes()
    lines = (together / ".sr-upscale.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["output"] for line in lines) == sorted(f"{n}.png" for n in range(COUNT))
    again = cli(*run, together)  # the same fingerprint
    assert json.loads(again.out.splitlines()[-1])["skipped"] == COUNT


STRAGGLER = """
import json, os, signal, sys, threading, time
from pathlib import Path
from sr_upscale.pipeline.batch_plan import plan_folder
from sr_upscale.pipeline.batch_run import run_batch
from sr_upscale.pipeline.ray_executor import RayExecutor
from sr_upscale.pipeline.request import request_of
from sr_upscale.storage.process import IDENTITY
import ray

folder, weights = Path(sys.argv[1]), sys.argv[2]
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
stopped = []
with RayExecutor(request_of({"model": weights})) as executor:
    executor._share_of_cores = lambda: 1
    def stop():
        while len(executor._identities) < 2 or len(list((folder / "out").glob("*.png"))) < 2:
            time.sleep(0.005)
        pid = int(IDENTITY.fullmatch(sorted(executor._identities)[0])["pid"])
        os.kill(pid, signal.SIGSTOP)
        stopped.append(pid)
    threading.Thread(target=stop, daemon=True).start()
    try:
        outcomes = run_batch(plan_folder(folder / "in", folder / "out"), executor, jobs=executor.jobs)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
print(json.dumps([[each.status for each in outcomes], len(stopped)]))
"""


@pytest.mark.slow
def test_a_worker_that_stands_still_holds_nothing_up(tmp_path: Path, nearest: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "in").mkdir()
    for number in range(40):
        Image.fromarray(pattern(400 + number, 400)).save(tmp_path / "in" / f"{number}.png")
    words = [sys.executable, "-c", STRAGGLER, str(tmp_path), str(nearest)]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == [["done"] * 40, 1]
    for number in range(40):
        expected = pattern(400 + number, 400).repeat(2, axis=0).repeat(2, axis=1)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / f"{number}.png")), expected)
    left = sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".png")
    assert left == [".sr-upscale.jsonl"]


def test_a_cluster_is_asked_for_whole(cli: Cli, photo: Path) -> None:
    ran = cli("batch", photo.parent, "--address", "node1:6379")
    assert (ran.code, "add --on ray" in ran.err) == (2, True)
    ran = cli("batch", photo.parent, "--on", "dask")
    assert (ran.code, "expected ray" in ran.err) == (2, True)
