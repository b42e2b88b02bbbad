"""Several processes, also on several hosts, share a folder: each picture is done once, and what is done is known."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_upscale.errors import OutputError
from sr_upscale.pipeline import manifest
from sr_upscale.pipeline.batch_plan import Item, plan_folder, plan_items, refuse_unwritable
from sr_upscale.pipeline.batch_run import Work, run_batch
from sr_upscale.pipeline.ledger import CLAIMS, Ledger
from sr_upscale.pipeline.manifest import MANIFEST, Manifest
from sr_upscale.pipeline.parsing import Shard
from sr_upscale.storage import claims
from sr_upscale.storage.atomic import hash_file, replace_file
from tests.helpers import Cli, pattern, pictures

COUNT = int(os.environ.get("SR_UPSCALE_PICTURES", "60"))  # `make many` has more

CHILD = """
import os, signal, sys, time
from concurrent.futures import Future
from pathlib import Path
from sr_upscale.pipeline.batch_plan import Item, plan_items
from sr_upscale.pipeline.batch_run import run_batch
from sr_upscale.pipeline.ledger import Ledger
from sr_upscale.storage import atomic, claims
from sr_upscale.storage.atomic import hash_file

folder, number, ends, count = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
atomic.place = lambda: f"host{number}.0000000{number}"  # each on a host of its own
claims.Claims.__init__.__kwdefaults__["lease_s"] = 1.5
log, done, put = folder / f"{number}.log", 0, atomic._put_in_place

def put_and_note(temporary, path, **more):
    global done
    if path.suffix == ".txt":
        done += 1
        if done == 5:
            (folder / f"{number}.five").touch()
        if done == 5 and ends == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if done == 5 and ends == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
    put(temporary, path, **more)
    if path.suffix == ".txt":
        with log.open("a") as file:
            file.write(path.name + "\\n")

atomic._put_in_place = put_and_note

class Twice:
    def load(self, item):
        return item.source.read_text()
    def start(self, item, loaded, work):
        time.sleep(0.02)
        new = not os.path.lexists(item.target)
        whole = lambda temporary: work.on_whole(temporary, hash_file(item.source))
        with atomic.replace_file(item.target, on_whole=whole, overwrite=not new) as temporary:
            temporary.write_text(loaded * 2)
            global ends
            if done == 5 and ends == "stopped while it writes":
                ends = "works"
                os.kill(os.getpid(), signal.SIGSTOP)
        written = Future()
        written.set_result({"seconds": 0.0})
        return written
    def share(self, item, work):
        pass

items = [Item(source=folder / f"{n}.in", target=folder / "out" / f"{n}.txt") for n in range(count)]
while ends == "works" and len([*folder.glob("*.five")]) < 4:  # however slowly the others start
    time.sleep(0.05)
plan = plan_items(items)
outcomes = run_batch(plan, Twice(), Ledger(plan, {}))
sys.exit(3 if any(each.status == "failed" for each in outcomes) else 0)
"""


def test_row_68_five_processes_two_killed_and_two_stopped_make_each_output_once(tmp_path: Path) -> None:
    """They end or stop at the worst places: between the manifest's line and the output's place, or with an unfinished
    file, which the others remove."""
    for number in range(COUNT):
        (tmp_path / f"{number}.in").write_text(f"picture {number};")
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(number), ends, str(COUNT)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, ends in enumerate(("killed", "killed", "stopped", "stopped while it writes", "works"))
    ]
    out = tmp_path / "out"
    try:
        running[4].wait(timeout=300)
        assert len(list(out.glob("*.txt"))) == COUNT  # also what the others had begun
        for process in running[2:4]:
            process.send_signal(signal.SIGCONT)
        errors = [process.communicate(timeout=300)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [-signal.SIGKILL, -signal.SIGKILL, 0, 0, 0], errors
    for number in range(COUNT):
        assert (out / f"{number}.txt").read_text() == f"picture {number};" * 2
    made = [name for log in tmp_path.glob("*.log") for name in log.read_text().split()]
    assert Counter(made) == Counter({f"{number}.txt": 1 for number in range(COUNT)})
    left = sorted(path.name for path in out.iterdir() if path.suffix != ".txt")
    assert left == [MANIFEST]  # no claims, no parts, no temporary files, of any host
    lines = [json.loads(line)["output"] for line in (out / MANIFEST).read_text().splitlines()]
    assert Counter(lines) == Counter(made)


# --- one process beside others -----------------------------------------------------------------------


class Copies:
    """An executor that writes what it reads, and notes of which items."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.before: Callable[[Item], None] = lambda _item: None

    def load(self, item: Item) -> bytes:
        return item.source.read_bytes()

    def start(self, item: Item, loaded: bytes, work: Work) -> Future[dict[str, Any]]:
        self.before(item)
        new = not os.path.lexists(item.target)
        with replace_file(
            item.target, on_whole=lambda t: work.on_whole(t, hash_file(item.source)), overwrite=not new
        ) as t:
            t.write_bytes(loaded)
        self.made.append(item.target.name)
        written: Future[dict[str, Any]] = Future()
        written.set_result({"seconds": 0.0})
        return written

    def share(self, item: Item, work: Work) -> None:
        """An item of these has no parts."""


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    made = [Item(source=tmp_path / f"{n}.in", target=tmp_path / "out" / f"{n}.txt") for n in range(6)]
    for item in made:
        item.source.write_text(item.source.name)
    return made


def as_host(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    for module in (claims, manifest):
        monkeypatch.setattr(module, "identity", lambda: f"host{number}.0000000{number}-{number}-0123abcd")


def statuses(
    items: list[Item], executor: Copies, *, force: bool = False, verify: bool = False, **more: Any
) -> list[str]:
    plan = plan_items(items)
    return [each.status for each in run_batch(plan, executor, Ledger(plan, {}, force=force, verify=verify), **more)]


def test_what_another_process_makes_meanwhile_is_skipped_and_not_foreign(
    items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first item is made and two are read ahead, another host makes the others, and has not ended yet."""
    here, there = Copies(), Copies()
    waited: list[int] = []

    def other_host(_item: Item) -> None:
        here.before = lambda _item: None
        with monkeypatch.context() as patched:
            as_host(patched, 7)
            patched.setattr(Ledger, "__exit__", lambda *_: None)
            assert statuses(items[3:], there) == ["done"] * 3

    here.before = other_host
    assert statuses(items, here, on_wait=waited.append) == ["done"] * 3 + ["skipped"] * 3
    assert (here.made, there.made) == (["0.txt", "1.txt", "2.txt"], ["3.txt", "4.txt", "5.txt"])
    assert waited == []


def claim_of(item: Item) -> str:
    return f"{hashlib.sha256(item.target.name.encode()).hexdigest()[:32]}.0.claim"


def test_a_held_item_is_waited_for_and_taken_over(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(claims.Claims.__init__.__kwdefaults__, "lease_s", 0.6)
    folder, waited, executor = items[0].target.parent / CLAIMS, [], Copies()
    folder.mkdir(parents=True)
    (folder / claim_of(items[2])).write_text("host7.00000007-7-0123abcd")
    (folder / "host7.00000007-7-0123abcd.lease").touch()
    orphan = folder.parent / ".sr-host7.00000007-7-0123abcd-01234567.tmp"
    unknown = folder.parent / ".sr-host8.00000008-7-0123abcd-01234567.tmp"
    orphan.touch()
    unknown.touch()
    assert statuses(items, executor, on_wait=waited.append) == ["done"] * 6
    assert executor.made[-1] == "2.txt"
    assert waited == [1]
    assert not folder.exists()
    assert not orphan.exists()
    assert unknown.exists()  # it may be at work: it never had a lease here


def test_with_force_each_item_is_made_anew_once(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = Copies(), Copies()
    assert statuses(items, here) == ["done"] * 6
    here.made.clear()
    with monkeypatch.context() as patched:
        as_host(patched, 7)
        patched.setattr(Ledger, "__exit__", lambda *_: None)
        assert statuses(items[:4], there, force=True) == ["done"] * 4  # and goes on
    assert statuses(items, here, force=True) == ["skipped"] * 4 + ["done"] * 2
    assert here.made == ["4.txt", "5.txt"]


def test_a_foreign_file_is_given_time_only_while_others_are_at_work(
    items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(claims.Claims.__init__.__kwdefaults__, "lease_s", 0.6)
    items[0].target.parent.mkdir()
    items[0].target.write_text("foreign")
    waited: list[int] = []
    assert statuses(items, Copies(), on_wait=waited.append) == ["failed"] + ["done"] * 5
    assert waited == []
    monkeypatch.setattr(claims.Claims, "others", lambda _self: {"host7.00000007-7-0123abcd"})
    begin = time.monotonic()
    assert statuses(items, Copies(), on_wait=waited.append) == ["failed"] + ["skipped"] * 5
    assert time.monotonic() - begin >= 0.6
    assert waited == [1]
    assert items[0].target.read_text() == "foreign"


def test_a_resume_reads_no_file_and_verify_reads_all(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    assert statuses(items, Copies()) == ["done"] * 6
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "hash_file", lambda path: pytest.fail(f"{path} was read"))
        assert statuses(items, Copies()) == ["skipped"] * 6
    before = os.stat(items[1].source)
    items[1].source.write_text("other")  # 4 -> 5 bytes: size tells
    items[2].source.write_text("2.xx")
    os.utime(items[2].source, ns=(before.st_atime_ns, os.stat(items[3].source).st_mtime_ns))
    executor = Copies()
    assert statuses(items, executor).count("done") == 2
    assert executor.made == ["1.txt", "2.txt"]
    stamp = os.stat(items[4].source)
    items[4].source.write_text("4.xx")
    os.utime(items[4].source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # size and time hide it
    assert statuses(items, Copies()) == ["skipped"] * 6
    executor = Copies()
    statuses(items, executor, verify=True)
    assert executor.made == ["4.txt"]


def test_a_resume_asks_the_file_system_four_times_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice to plan, twice to see that all is done; what is asked of folders does not count."""
    pictures = [tmp_path / "in" / f"{number % 3}" / f"{number}.png" for number in range(30)]
    for path in pictures:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    asked: list[str] = []

    def resume() -> list[str]:
        plan = plan_folder(tmp_path / "in", tmp_path / "out")
        refuse_unwritable([item.target for item in plan.items])
        return [each.status for each in run_batch(plan, Copies(), Ledger(plan, {}))]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def ask(path: Any, *arguments: Any, **more: Any) -> Any:
            asked.append(os.fspath(path) if not isinstance(path, int) else "")
            return call(path, *arguments, **more)

        return ask

    assert resume() == ["done"] * 30
    for name in ("stat", "lstat", "open", "readlink", "access"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    assert resume() == ["skipped"] * 30
    of_pictures = Counter(path for path in asked if path.endswith(".png"))
    assert of_pictures == Counter({str(path): 2 for path in pictures}) + Counter(
        {str(tmp_path / "out" / path.relative_to(tmp_path / "in")): 2 for path in pictures}
    )


def test_a_copy_of_the_folder_is_told_by_hashes_once(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    """As is a manifest of an earlier version, which has no stamps."""
    assert statuses(items, Copies()) == ["done"] * 6
    path = items[0].target.parent / MANIFEST
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({k: v for k, v in each.items() if "stamp" not in k}) + "\n" for each in lines[:3])
        + "".join(json.dumps(each) + "\n" for each in lines[3:])
    )
    for item in items[3:]:
        os.utime(item.target, (1e9, 1e9))
    assert statuses(items, Copies()) == ["skipped"] * 6
    monkeypatch.setattr(manifest, "hash_file", lambda path: pytest.fail(f"{path} was read"))
    assert statuses(items, Copies()) == ["skipped"] * 6
    assert len(path.read_text().splitlines()) == 6


def test_reading_while_parts_are_merged_loses_nothing(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts go between a listing and the reading."""
    root = items[0].target.parent
    reader = Manifest(root, {})
    with monkeypatch.context() as patched:
        as_host(patched, 7)
        patched.setattr(Ledger, "_merge", lambda *_: None)
        statuses(items, Copies())
        writer = Manifest(root, {})
    assert [path.name for path in root.glob(".sr-upscale.*-*.jsonl")] == [".sr-upscale.host7.00000007-7-0123abcd.jsonl"]
    real = reader._read_on
    monkeypatch.setattr(
        reader, "_read_on", lambda path: (path.name == MANIFEST or writer.merge(lambda: None) or True) and real(path)
    )
    assert [reader.state(item) for item in items] == ["current"] * 6
    assert [path.name for path in root.glob(".sr-upscale*")] == [MANIFEST]


def test_a_link_in_the_place_of_a_part_is_refused(items: list[Item], tmp_path: Path) -> None:
    items[0].target.parent.mkdir()
    (tmp_path / "victim").write_text("")
    part = items[0].target.parent / ".sr-upscale.host7.00000007-7-0123abcd.jsonl"
    part.symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError, match="is a link and was not made by this program"):
        Ledger(plan_items(items), {})


# --- shards ------------------------------------------------------------------------------------------


def test_shards_are_disjoint_complete_and_stable(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(40)] + ["deep/ä.png", "deep/\udcff.png"]
    for name in names:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def shard(index: int, count: int) -> set[str]:
        plan = plan_folder(tmp_path / "in", tmp_path / "out", shard=Shard(index=index, count=count))
        return {item.source.relative_to(tmp_path / "in").as_posix() for item in plan.items}

    parts = [shard(index, 5) for index in range(1, 6)]
    assert sorted(sum(map(list, parts), [])) == sorted(names)
    assert all(parts)
    for index, part in enumerate(parts):
        for name in part:
            assert int(hashlib.sha256(os.fsencode(name)).hexdigest()[:16], 16) % 5 == index
    (tmp_path / "in" / "0.png").unlink()
    (tmp_path / "in" / "00.png").touch()
    assert [shard(index, 5) - {"00.png"} for index in range(1, 6)] == [part - {"0.png"} for part in parts]


def test_shards_on_the_command_line(cli: Cli, tmp_path: Path, nearest: Path) -> None:
    pictures(tmp_path / "in", *(f"{number}.png" for number in range(4)))
    run, done = ("batch", tmp_path / "in", "-o", tmp_path / "out", "-n", nearest, "--json"), 0
    for index in range(1, 8):  # some are empty
        ran = cli(*run, "--shard", f"{index}/7", code=0)
        done += json.loads(ran.out.splitlines()[-1])["done"]
    assert done == 4
    for number in range(4):
        expected = pattern(5 + number, 9).repeat(2, axis=0).repeat(2, axis=1)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / f"{number}.png")), expected)
    assert "4 skipped" in cli(*run, "--verify").err
    assert cli(*run, "--shard", "8/7").code == 2
