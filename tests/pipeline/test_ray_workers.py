"""A folder on a Ray cluster that loses a machine and gains one: bytes and frames are those of one process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from sr_upscale.errors import UsageError
from sr_upscale.pipeline.parsing import Shard
from sr_upscale.pipeline.ray_workers import FolderWork, RayWorkers
from sr_upscale.pipeline.request import request_of
from tests.helpers import Cli, pictures
from tests.video.clips import hashes, make_clip

COUNT = 24

ON_CLUSTER = """
import os, sys, threading, time
os.environ["RAY_worker_niceness"] = "0"  # a busy machine would hardly run them
from pathlib import Path
from ray.cluster_utils import Cluster
from sr_upscale.cli.app import run
from sr_upscale.pipeline import ray_workers

out, log, *words = sys.argv[1:]

class Work(ray_workers.FolderWork):  # with short segments; who writes one waits until another process does, too
    def do(self, *more):
        from sr_upscale.video import run

        def write(*arguments):
            with open(log, "a") as file:
                print(os.getpid(), file=file)
            late = time.monotonic() + 60
            while len(set(Path(log).read_text().split())) < 2 and time.monotonic() < late:
                time.sleep(0.05)
            real(*arguments)

        real, run.SEGMENT_FRAMES, run.write_segment = run.write_segment, 7, write
        super().do(*more)

ray_workers.FolderWork = Work
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
cluster.shutdown()
assert len(killed) == 1
sys.exit(code)
"""


@pytest.mark.slow
def test_a_cluster_that_loses_a_machine_and_gains_one_makes_the_bytes_of_one_process(
    cli: Cli, tmp_path: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("av")
    folder = pictures(tmp_path / "in", *(f"{number}.png" for number in range(COUNT)), size=(900, 900))
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    shutil.copy(make_clip(tmp_path, "plain.mp4"), folder / "clip.mp4")  # 30 frames
    monkeypatch.setattr("sr_upscale.video.run.SEGMENT_FRAMES", 7)
    run = ("batch", folder, "-n", nearest, "--json", "-o")
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert cli(*run, alone).code == 3
    words = [*map(str, run), str(together)]
    log = tmp_path / "log"
    ran = subprocess.run(
        [sys.executable, "-c", ON_CLUSTER, str(together), str(log), *words], capture_output=True, text=True, timeout=400
    )
    assert ran.returncode == 3, ran.stderr
    assert len(set(log.read_text().split())) > 1  # workers shared the clip
    *rows, said = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]  # Ray writes, too
    assert (said["done"], said["failed"]) == (COUNT + 1, 1)
    assert "bad.png" in next(each["error"] for each in rows if each["status"] == "failed")
    assert sorted(path.name for path in together.iterdir()) == sorted(path.name for path in alone.iterdir())
    for path in alone.glob("*.png"):
        assert (together / path.name).read_bytes() == path.read_bytes()
    assert hashes(together / "clip.mkv") == hashes(alone / "clip.mkv")
    lines = (together / ".sr-upscale.jsonl").read_text().splitlines()
    assert {json.loads(line)["output"] for line in lines} == {"clip.mkv", *(f"{n}.png" for n in range(COUNT))}
    again = cli(*run, together)  # the same fingerprint
    assert json.loads(again.out.splitlines()[-1])["skipped"] == COUNT + 1


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("127.0.0.1:1", "Connection refused"),
        ("node1", "expected HOST:PORT"),
        ("127.0.0.1:99999", "expected HOST:PORT"),
    ],
)
def test_a_wrong_address_is_one_line_at_once(
    cli: Cli, folder: Path, tmp_path: Path, nearest: Path, address: str, problem: str
) -> None:
    pytest.importorskip("ray")
    ran = cli("batch", folder, "-o", tmp_path / "out", "-n", nearest, "--on", "ray", "--address", address)
    assert (ran.code, f"no Ray cluster at {address}" in ran.err, problem in ran.err) == (2, True, True), ran.err


def row(name: str, status: str, **more: object) -> dict[str, object]:
    return {"status": status, "input": name, "output": name, **more}


class Rows:
    """What has come of workers."""

    def __init__(self, *rows: dict[str, object]) -> None:
        self.rows = [*rows]

    def qsize(self) -> int:
        return len(self.rows)

    def get_nowait_batch(self, count: int) -> list[dict[str, object]]:
        taken, self.rows = self.rows[:count], self.rows[count:]
        return taken


def workers() -> RayWorkers:
    work = FolderWork(folder="in", output=None, request=request_of({}), recursive=True, verify=False)
    return RayWorkers(work=work, by_shards=False)


def test_each_item_counts_once_as_the_best_that_a_worker_says_of_it() -> None:
    ours, passed_on = workers(), []
    said = [row("a", "skipped"), row("b", "failed", error="x"), row("a", "done"), row("b", "skipped"), row("a", "done")]
    assert ours._take(Rows(*said), passed_on.append)
    assert passed_on == [row("a", "done")]  # the rest comes at the end, since it may change
    assert [*ours._rows.values()] == [row("a", "done"), row("b", "failed", error="x")]
    assert not ours._take(Rows(row("b", "skipped")), passed_on.append)


class Lost(Exception):
    """Stands for Ray's error of a worker that is no more."""


@pytest.mark.parametrize(("by_shards", "started"), [(True, ["1/2", "2/2", "2/2"]), (False, [None, None])])
def test_a_worker_that_is_lost_after_another_has_ended_starts_anew_for_its_shard_alone(
    by_shards: bool, started: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray, ours, begun = MagicMock(), workers(), []
    ray.exceptions.RayActorError = ray.exceptions.RayError = Lost
    ray.nodes.return_value = [{"Alive": True, "Resources": {"CPU": 4}}] * 2

    def run(_work: FolderWork, shard: Shard | None, _rows: Rows) -> int:
        begun.append(shard and f"{shard.index}/{shard.count}")
        return len(begun)

    ray.remote().options().remote().run.remote = run
    ray.wait = lambda references, **_more: (references[:1], references[1:])
    ray.get.side_effect = [None, Lost(), None]
    for name in ("ray", "ray.util", "ray.util.queue", "ray.util.scheduling_strategies"):
        monkeypatch.setitem(sys.modules, name, ray)
    ray.Queue.return_value = Rows()
    ours.by_shards = by_shards
    ours.run(print)
    assert begun == started


def test_workers_with_different_weights_are_refused() -> None:
    ours = workers()
    same, other = ({"status": "started", "fingerprint": {"weights": each}} for each in ("1", "2"))
    assert not ours._take(Rows(same, dict(same)), print)
    with pytest.raises(UsageError, match="different weights"):
        ours._take(Rows(other), print)
