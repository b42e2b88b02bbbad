"""Reading, computing and writing overlap; order, errors and signals are those of one after the other."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from sr_upscale.errors import InputError
from sr_upscale.flags import flags
from sr_upscale.inference.row_queue import Abandoned, Handover
from sr_upscale.pipeline import own_outputs
from sr_upscale.pipeline.batch_plan import Item, plan_items
from sr_upscale.pipeline.batch_run import Outcome, Work, run_batch
from sr_upscale.pipeline.executor import GPU_THREADS, LocalExecutor, _jobs
from sr_upscale.pipeline.ledger import Ledger
from sr_upscale.pipeline.manifest import MANIFEST, MAX_LINE, Entry, Manifest
from sr_upscale.pipeline.own_outputs import made_beside_others, made_from_others
from sr_upscale.pipeline.parsing import Jobs
from sr_upscale.pipeline.request import SECTIONS, request_of
from sr_upscale.storage.atomic import hash_file, replace_file
from tests.helpers import Cli, pattern, pictures


def items_in(folder: Path, count: int) -> list[Item]:
    items = [Item(source=folder / f"{number}.in", target=folder / "out" / f"{number}.txt") for number in range(count)]
    for item in items:
        item.source.write_bytes(b"x")
    (folder / "out").mkdir()
    return items


class Stages:
    """An executor whose stages take a while each, and note how many items each has, and how many all have."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.lock = seconds, threading.Lock()
        self.active: dict[str, int] = {"load": 0, "proc": 0, "save": 0}
        self.most, self.together = dict(self.active), 0

    def take(self, stage: str) -> None:
        with self.lock:
            self.active[stage] += 1
            self.most[stage] = max(self.most[stage], self.active[stage])
            self.together = max(self.together, sum(self.active.values()))
        time.sleep(self.seconds)
        with self.lock:
            self.active[stage] -= 1

    def load(self, item: Item) -> str:
        self.take("load")
        if item.source.stem == "3":
            raise InputError("3.in: damaged")
        return item.source.stem

    def start(self, item: Item, loaded: str, work: Work) -> Future[dict[str, Any]]:
        self.take("proc")

        def write() -> dict[str, Any]:
            self.take("save")
            with replace_file(
                item.target, on_whole=lambda temporary: work.on_whole(temporary, hash_file(item.source))
            ) as t:
                t.write_text(loaded)
            return {"seconds": 0.0}

        return work.saver.submit(write)

    def share(self, item: Item, work: Work) -> None:
        raise AssertionError(item)


@pytest.mark.parametrize("jobs", [Jobs(), Jobs(load=2, proc=2, save=3)])
def test_stages_overlap_and_outcomes_keep_the_order(tmp_path: Path, jobs: Jobs) -> None:
    stages, items = Stages(0.03), items_in(tmp_path, 12)
    seen: list[Outcome] = []
    plan = plan_items(items)
    outcomes = run_batch(plan, stages, Ledger(plan, {}), jobs=jobs, on_outcome=seen.append)
    assert [each.item for each in outcomes] == items
    assert seen == outcomes
    assert [each.status for each in outcomes] == ["failed" if number == 3 else "done" for number in range(12)]
    assert "3.in: damaged" in str(outcomes[3].error)
    assert [path.read_text() for path in sorted((tmp_path / "out").glob("*.txt"))] == sorted(
        str(number) for number in range(12) if number != 3
    )
    assert stages.together > jobs.save  # items of more than one stage
    assert all(stages.most[stage] <= getattr(jobs, stage) for stage in stages.most)
    again = run_batch(plan, stages, Ledger(plan, {"other": 1}, force=True), jobs=jobs)
    assert [each.status for each in again].count("done") == 11


def test_a_signal_ends_all_stages_and_passes_on(tmp_path: Path) -> None:
    items = items_in(tmp_path, 50)
    stopped = threading.Event()

    class Waiting(Stages):
        def start(self, item: Item, loaded: str, work: Work) -> Future[dict[str, Any]]:
            if item.source.stem == "5":
                work.stop.wait(10)
                stopped.set()
            return super().start(item, loaded, work)

    def interrupt(outcome: Outcome) -> None:
        if outcome.item.source.stem == "4":
            raise KeyboardInterrupt

    plan = plan_items(items)
    with pytest.raises(KeyboardInterrupt):
        run_batch(plan, Waiting(0.01), Ledger(plan, {}), on_outcome=interrupt)
    assert stopped.is_set()
    assert len(list((tmp_path / "out").glob("*.txt"))) < 10


def test_handover_is_bounded_and_keeps_the_order() -> None:
    handover = Handover(max_bytes=100)
    bands = [np.full(40, number, np.uint8) for number in range(20)]
    waiting = threading.Thread(target=lambda: [handover.put(band) for band in bands] and handover.end())
    waiting.start()
    time.sleep(0.1)
    assert handover._bytes <= 100 + 40
    assert [int(band[0]) for band in handover] == list(range(20))
    waiting.join()
    assert handover.waited_s > 0.05


def test_handover_passes_failures_both_ways() -> None:
    handover = Handover()
    handover.put(np.zeros(3, np.uint8))
    handover.end(ValueError("network"))
    with pytest.raises(ValueError, match="network"):
        list(handover)
    handover = Handover()
    handover.abandon()
    with pytest.raises(Abandoned):
        handover.put(np.zeros(3, np.uint8))


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_a_folder_on_several_devices_comes_out_the_same(cli: Cli, tmp_path: Path, nearest: Path, devices: str) -> None:
    folder, out = pictures(tmp_path / "in", *(f"{number}.png" for number in range(7))), tmp_path / "out"
    ran = cli("batch", folder, "-o", out, "-n", nearest, "-g", devices, "-j", "2:1:2", "--json", code=0)
    assert 0 < json.loads(ran.out.splitlines()[-1])["network_busy"] <= 1
    for number in range(7):
        expected = pattern(5 + number, 9).repeat(2, axis=0).repeat(2, axis=1)
        assert np.array_equal(np.asarray(Image.open(out / f"{number}.png")), expected)


def test_threads_follow_the_devices(nearest: Path) -> None:
    one, two = (LocalExecutor(request_of({"model": str(nearest), "device": name})) for name in ("cpu", "cpu,cpu"))
    assert one.jobs.proc == 1
    assert two.jobs.proc == 2
    assert _jobs(Jobs(), two.engines).proc == 2
    for engine in two.engines:
        engine.planner = replace(engine.planner, choice=replace(engine.choice, device=torch.device("cuda")))
    assert _jobs(None, two.engines).proc == 2 * GPU_THREADS > 2
    assert (_jobs(None, two.engines, 16).load, _jobs(Jobs(), two.engines, 16).load) == (16, 1)  # asked for counts


def test_every_option_that_changes_pixels_is_in_the_fingerprint(nearest: Path) -> None:
    """Another value of each option that is marked is another fingerprint; of the others it is the same one."""
    plain = LocalExecutor(request_of({"model": str(nearest)})).fingerprint
    others: dict[str, Any] = {
        "scale": 3.0, "width": 99, "height": 98, "size": "97x96",
        "print": "3x3cm", "wrap": "x", "dpi": 200, "fit": "cover", "one_pass": True, "tta": True, "tile": 64,
        "no_tile": True, "overlap": 8, "halo": 9, "backend": "onnxruntime", "fp32": True, "bf16": True, "fp16": True,
        "format": "webp", "quality": 7, "compression": 3, "strip_metadata": True, "background": "red", "frame": 0,
        "allow_truncated": True, "before": None, "model": None, "fidelity": None, "denoise": None,
        "start": 1.0, "duration": 2.0, "codec": "av1", "crf": 30, "preset": "slow", "deinterlace": True,
    }  # fmt: skip
    marked = {each.name for section in SECTIONS.values() for each, _flag in flags(section) if each.metadata["pixels"]}
    assert marked == set(others)
    for name, value in others.items():
        if value is not None:
            request = request_of({"model": str(nearest), name: value})
            assert request.pixel_options() != request_of({"model": str(nearest)}).pixel_options(), name
    for name, value in {"max_memory": "9G", "suffix": "_a", "force": True, "jobs": "1:1:1", "device": "cpu"}.items():
        assert LocalExecutor(request_of({"model": str(nearest), name: value})).fingerprint == plain, name
    again = LocalExecutor(request_of({"model": str(nearest), "before": (str(nearest),)[:0]}))
    assert again.fingerprint == plain
    json.dumps(plain)


def test_outputs_in_several_folders_have_a_manifest_each(cli: Cli, tmp_path: Path, nearest: Path) -> None:
    """And nothing is written into the folder above them, which may not be ours."""
    pictures = [tmp_path / name / "a.png" for name in ("one", "two")]
    for path in pictures:
        path.parent.mkdir()
        Image.fromarray(pattern(5, 9)).save(path)
    ran = cli(*pictures, "-n", nearest)
    assert (ran.code, "2 done, 0 skipped, 0 failed of 2; outputs beside their pictures" in ran.err) == (0, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert all((path.parent / ".sr-upscale.jsonl").is_file() for path in pictures)
    assert "2 skipped" in cli(*pictures, "-n", nearest).err


@pytest.mark.parametrize("words", [("--bf16",), ("--tile", "16")])
def test_a_batch_replaces_the_results_of_other_options_only_by_force(
    cli: Cli, tmp_path: Path, nearest: Path, words: tuple[str, ...]
) -> None:
    folder = pictures(tmp_path / "in", "a.png")
    run = ("batch", folder, "-o", tmp_path / "out", "-n", nearest)
    assert "1 done" in cli(*run).err
    assert "1 skipped" in cli(*run).err
    before = (tmp_path / "out" / "a.png").stat()
    for more in ((), ("--dry-run",)):
        refused = cli(*run, *words, *more, code=5)
        assert "1 of 1 outputs would be replaced, such as " in refused.err
        assert "a.png: made with other options or weights; add --force" in refused.err
        assert "continue" not in refused.err
    assert (tmp_path / "out" / "a.png").stat() == before
    assert "1 done" in cli(*run, *words, "--force").err
    assert "1 skipped" in cli(*run, *words).err
    Image.fromarray(pattern(6, 9)).save(folder / "a.png")  # another input is the same result, out of date
    assert "1 done" in cli(*run, *words).err


def test_a_dry_run_knows_what_is_done_and_what_is_in_the_way(cli: Cli, tmp_path: Path, nearest: Path) -> None:
    folder, out = pictures(tmp_path / "in", "a.png"), tmp_path / "out"
    run = ("batch", folder, "-o", out, "-n", nearest)
    assert cli(*run).code == 0
    Image.fromarray(pattern(5, 9)).save(folder / "b.png")
    Image.fromarray(pattern(5, 9)).save(folder / "c.png")
    (out / "c.png").write_bytes(b"foreign")
    dry = cli(*run, "--dry-run", code=3)
    assert "a.png: up to date; skipped" in dry.err
    assert "would fail: " in dry.err
    assert dry.out.count("\n") == 1
    assert "b.png 9x5 -> " in dry.out
    assert cli(*run, "--dry-run", "--force").out.count("\n") == 3


def test_verbose_says_what_became_of_each(cli: Cli, tmp_path: Path, nearest: Path) -> None:
    folder = pictures(tmp_path / "in", "a.png")
    run = ("batch", folder, "-o", tmp_path / "out", "-n", nearest, "--fp32")
    assert "18x10  nearest-x2  float32 on cpu" in cli(*run, "-v", "--force").err
    assert "18x10" not in cli(*run, "--force").err


def test_progress_counts_pictures_and_not_the_steps_of_one(
    cli: Cli, tmp_path: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sr_upscale.cli.console.LINE_EVERY_S", 0)
    ran = cli("batch", pictures(tmp_path / "in", "a.png", "b.png"), "-o", tmp_path / "out", "-n", nearest)
    lines = re.findall(r"(\d+)/(\d+) [ab]\.png: (\d+)% after", ran.err)
    assert {total for _number, total, _share in lines} == {"2"}
    assert all(50 * int(number) - 50 <= int(share) <= 50 * int(number) for number, _total, share in lines)


# --- a folder from elsewhere ------------------------------------------------------------------------


def test_a_manifest_that_is_a_link_is_not_followed(cli: Cli, tmp_path: Path, nearest: Path) -> None:
    """A downloaded folder must not make a batch write into another file of the user."""
    folder, victim = tmp_path / "dl", tmp_path / ".bashrc"
    folder.mkdir()
    victim.write_text("alias ls='ls -l'\n")
    for number in range(2):
        Image.fromarray(pattern(5, 9)).save(folder / f"$(touch {number}).png")
    (folder / MANIFEST).symlink_to("../.bashrc")
    ran = cli(*sorted(folder.glob("*.png")), "-n", nearest, code=5)
    assert "is a link and was not made by this program" in ran.err
    assert victim.read_text() == "alias ls='ls -l'\n"
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("deep", [False, True])
def test_row_75_a_linked_folder_of_outputs(cli: Cli, tmp_path: Path, nearest: Path, deep: bool) -> None:
    """An archive brings both: the pictures, and beside them an output folder with a link to anywhere."""
    folder, out, victim = tmp_path / "dl", tmp_path / "dl_x2", tmp_path / "victim"
    (folder / "sub" / "deep").mkdir(parents=True)
    Image.fromarray(pattern(4, 5)).save(folder / "sub" / ("deep" if deep else "") / "a.png")
    victim.mkdir()
    (tmp_path / "real_x2").mkdir()
    out.symlink_to(tmp_path / "real_x2")  # which the user made
    (out / "sub").symlink_to(victim)
    ran = cli("batch", folder, "-n", nearest, "-o", out, "--force", code=5)
    assert f"leads to {victim}" in ran.err
    assert "by a link; remove the link, or choose another -o" in ran.err
    assert list(victim.iterdir()) == []
    (out / "sub").unlink()
    assert cli("batch", folder, "-n", nearest, "-o", out).code == 0


def test_a_manifest_that_is_a_pipe_is_not_waited_for(cli: Cli, tmp_path: Path, nearest: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    os.mkfifo(folder / MANIFEST)
    Image.fromarray(pattern(5, 9)).save(tmp_path / "a.png")
    Image.fromarray(pattern(5, 9)).save(tmp_path / "b.png")
    ran = cli(tmp_path / "a.png", tmp_path / "b.png", "-o", folder, "-n", nearest, code=5)
    assert "is not a regular file" in ran.err


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*Entry._fields, "output", "input"]), inner | st.just("a.png"))
    ),
    max_leaves=8,
)
NONSENSE = [b"[" * 100_000, b'{"output": ' + b"9" * 5000 + b"}", b"null", b'"text"', b'{"output": {}}', b"\x00"]


@given(lines=st.lists(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()), max_size=4))
@example(lines=NONSENSE)
def test_nonsense_in_a_manifest_is_no_reason_to_stop(lines: list[bytes]) -> None:
    """What was made is still known, and may be made anew."""
    with tempfile.TemporaryDirectory() as name:
        item = Item(source=Path(name) / "a.in", target=Path(name) / "out" / "a.png")
        item.target.parent.mkdir()
        for path in (item.source, item.target):
            path.write_bytes(b"picture")
        Manifest(item.target.parent, {}).add(item, item.target, hash_file(item.source))
        with (item.target.parent / MANIFEST).open("ab") as file:
            file.writelines(line + b"\n" for line in lines)
        again = Manifest(item.target.parent, {})
        assert again.state(item) == "current"
        again.add(item, item.target, hash_file(item.source))
        assert Manifest(item.target.parent, {}).state(item) == "current"


def line_of(output: str, content: bytes, input_stamp: object = None) -> bytes:
    """A line of a manifest, as a stranger may write it."""
    hashes = {"input_sha256": "0" * 64, "output_sha256": hashlib.sha256(content).hexdigest()}
    line = {"output": output, **hashes, "settings": "x", "input_stamp": input_stamp, "output_stamp": None}
    return json.dumps(line).encode() + b"\n"


@pytest.mark.parametrize("stamp", [[[1], 2], [{}, 2], ["1", 2], [float("inf"), 2], "12", [1, 2, 3], 7])
def test_stamps_in_a_manifest_that_are_none_are_nonsense(tmp_path: Path, stamp: object) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / MANIFEST).write_bytes(line_of("a.png", b"a.png", stamp))
    assert made_from_others([tmp_path / "a.png", tmp_path / "b.png"]) == set()
    assert Manifest(tmp_path, {}).entries == {}


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000, "../../../etc/passwd", ""])
def test_names_in_a_manifest_that_no_file_has_are_merged_like_others(tmp_path: Path, name: str) -> None:
    (tmp_path / MANIFEST).write_bytes(line_of(name, b"1") + line_of(name, b"2"))
    manifest = Manifest(tmp_path, {})
    manifest.merge(lambda: None)
    assert Manifest(tmp_path, {}).entries == manifest.entries
    assert list(manifest.entries) == [name]


def part_of(folder: Path, *lines: bytes) -> Path:
    """The part of a process that is no more."""
    path = folder / ".sr-upscale.host7.00000007-7-0123abcd.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def test_a_few_new_lines_are_put_behind_a_manifest_and_many_old_ones_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / MANIFEST
    old = b"".join(line_of(f"{number}.png", b"1") for number in range(9))
    file.write_bytes(old)
    number = file.stat().st_ino
    for count in range(9):
        part = part_of(tmp_path, line_of("new.png", b"%d" % count))
        Manifest(tmp_path, {}).merge(lambda: None)
        assert not part.exists()
        assert file.read_bytes() == old + b"".join(line_of("new.png", b"%d" % each) for each in range(count + 1))
    assert file.stat().st_ino == number
    before = Manifest(tmp_path, {}).entries
    (tmp_path / "new.png").write_bytes(b"9")
    stamp = (1, (tmp_path / "new.png").stat().st_mtime_ns)
    newest = line_of("new.png", b"9").replace(b'"output_stamp": null', b'"output_stamp": [%d, %d]' % stamp)
    part_of(tmp_path, newest, *(line_of(f"{each}.png", b"1") for each in range(2)))
    Manifest(tmp_path, {}).merge(lambda: None)
    assert sorted(file.read_bytes().splitlines(True)) == sorted([*old.splitlines(True), newest])
    assert before.keys() == Manifest(tmp_path, {}).entries.keys()


def test_a_merge_that_is_killed_at_any_byte_loses_nothing(tmp_path: Path) -> None:
    """What had been put behind the manifest by then is torn, or stands in the part, too."""
    old = [line_of(f"{number}.png", b"1") for number in range(9)]
    new = [line_of("a.png", b"1"), line_of("b.png", b"1")]
    for cut in range(0, len(b"".join(new)) + 1, 7):
        (tmp_path / MANIFEST).write_bytes(b"".join(old) + b"".join(new)[:cut])
        part_of(tmp_path, *new)
        manifest = Manifest(tmp_path, {})
        assert len(manifest.entries) == 11
        manifest.merge(lambda: None)
        assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]
        lines = (tmp_path / MANIFEST).read_bytes().splitlines(True)
        assert set(lines) == {*old, *new}
        assert Manifest(tmp_path, {}).entries == manifest.entries


def test_lines_behind_one_without_end_are_not_lost(tmp_path: Path) -> None:
    """No reader goes on behind it; so the manifest is written anew."""
    (tmp_path / MANIFEST).write_bytes(line_of("a.png", b"1") + b"x" * (MAX_LINE + 1) + b"\n")
    part_of(tmp_path, line_of("b.png", b"1"))
    Manifest(tmp_path, {}).merge(lambda: None)
    assert (tmp_path / MANIFEST).read_bytes() == line_of("a.png", b"1") + line_of("b.png", b"1")


def test_a_manifest_takes_neither_memory_nor_time_without_end(tmp_path: Path) -> None:
    """A sparse file of a TB, which takes no room in an archive, and very many lines of one output."""
    (tmp_path / "a.png").write_bytes(b"7")
    lines = line_of("a.png", b"7") + b"".join(line_of("a.png", b"%d" % number) for number in range(8, 40_000))
    (tmp_path / MANIFEST).write_bytes(lines)
    os.truncate(tmp_path / MANIFEST, 1 << 40)
    begin = time.process_time()
    manifest = Manifest(tmp_path, {})
    item = Item(source=tmp_path / "in.png", target=tmp_path / "a.png")
    item.source.write_bytes(b"in")
    assert manifest.state(item) == "other"
    assert time.process_time() - begin < 10


def test_outputs_of_an_earlier_run_are_left_out(cli: Cli, nearest: Path, tmp_path: Path) -> None:
    """In a folder inside that of the inputs, and beside them; alone they are pictures like others."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(pattern(4, 5 + ord(name[0]))).save(folder / name)
    first, second = folder / "first", folder / "second"
    assert cli("batch", folder, "-o", first, "-n", nearest).code == 0
    ran = cli("batch", folder, "-o", second, "-n", nearest)
    assert (ran.code, "2 of 4 pictures were made from others by this program; left out" in ran.err) == (0, True)
    assert sorted(path.name for path in second.rglob("*.png")) == ["a.png", "b.png"]
    assert not (second / "first").exists()

    edited = first / "b.png"
    Image.fromarray(pattern(3, 3)).save(edited)  # an owner's work
    ran = cli("batch", folder, "-o", tmp_path / "third", "-n", nearest)
    assert "3 of 6 pictures were made from others" in ran.err
    assert sorted(str(path.relative_to(tmp_path / "third")) for path in (tmp_path / "third").rglob("*.png")) == [
        "a.png",
        "b.png",
        "first/b.png",
    ]
    assert cli("batch", second, "-o", tmp_path / "again", "-n", nearest).code == 0
    assert len(list((tmp_path / "again").glob("*.png"))) == 2

    for _ in range(2):
        names = sorted(str(path) for path in folder.glob("*.png"))
        assert cli(*names, "-n", nearest).code == 0
        assert sorted(path.name for path in folder.glob("*.png")) == [
            "a.png",
            "a_x2_nearest-x2.png",
            "b.png",
            "b_x2_nearest-x2.png",
        ]


def test_outputs_of_single_runs_are_left_out(cli: Cli, nearest: Path, tmp_path: Path) -> None:
    """They leave no manifest. A name alone is none of ours, nor is an output whose input is elsewhere."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(pattern(4, 5)).save(folder / "a_x4.png")
    for size in (["-s", "2"], ["-s", "1.5"], ["--width", "20"], ["--height", "9"], ["--size", "12x12"]):
        assert cli(folder / "a_x4.png", *size, "-n", nearest).code == 0
    for ending in ("jpg", "webp", "tif", "avif"):
        assert cli(folder / "a_x4.png", "-n", nearest, "--format", ending).code == 0
    made = sorted(path.name for path in folder.glob("a_x4_*"))
    assert len(made) == 9
    shutil.copy(folder / made[0], folder / "sub")
    shutil.copy(folder / made[0], folder / "b_x2_nearest-x2.png")
    Image.fromarray(pattern(4, 5)).save(folder / "a_x4_1024x768_2.png")  # a camera's, or a web page's
    ran = cli("batch", folder, "-o", tmp_path / "out", "-n", nearest)
    assert (ran.code, "9 of 13 pictures were made from others by this program; left out" in ran.err) == (0, True)
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")) == [
        "a_x4.png",
        "a_x4_1024x768_2.png",
        "b_x2_nearest-x2.png",
        f"sub/{made[0]}",
    ]


def test_the_history_of_an_output_is_found_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [tmp_path / "a.png", tmp_path / "a_x4_b.png"]
    sources[1].write_bytes(b"." * 25 + b'softwareAgent="sr-upscale 1.0"')
    for size in range(26, 60):
        monkeypatch.setattr(own_outputs, "_CHUNK", size)
        assert made_beside_others(sources) == {sources[1]}
    sources[1].write_bytes(b'softwareAgent="GIMP 2.10"')
    assert made_beside_others(sources) == set()


def test_a_manifest_of_elsewhere_leaves_nothing_out(cli: Cli, nearest: Path, tmp_path: Path) -> None:
    """Lines that no run wrote, and a link."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(pattern(4, 5)).save(folder / "a.png")
    Image.fromarray(pattern(5, 4)).save(folder / "sub" / "b.png")
    entry = {"output": "a.png", "output_sha256": hash_file(folder / "a.png"), "input": 7, "input_sha256": None}
    (folder / MANIFEST).write_text("".join(json.dumps(line) + "\n" for line in (entry, [], "x", {"output": 1})))
    (folder / "sub" / MANIFEST).symlink_to(folder / MANIFEST)
    ran = cli("batch", folder, "-o", tmp_path / "out", "-n", nearest)
    assert (ran.code, "2 done" in ran.err, "left out" in ran.err) == (0, True, False)
