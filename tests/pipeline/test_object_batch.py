"""Folders in an object store: what local folders become, each output written once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from sr_upscale.pipeline import places
from sr_upscale.pipeline.request import request_of
from sr_upscale.storage import objects
from tests.helpers import Cli, Ran
from tests.storage.object_store import Store, doubled, pixels, png, refuse

pytestmark = pytest.mark.usefixtures("spools")


@pytest.fixture
def scans(store: Store) -> dict[str, bytes]:
    """Pictures below ``scans/`` by their names there, beside what is none."""
    pictures = {"a.png": png(), "deep/b.png": png(14, 9), "deep/er/c.png": png(5, 6)}
    for name, data in pictures.items():
        store.put(f"scans/{name}", data)
    store.put("scans/notes.txt", b"no picture")
    store.put("scans_of_others/d.png", png())
    return pictures


def batch(store: Store, weights: Path, *more: object) -> tuple[object, ...]:
    return ("batch", f"s3://{store.bucket}/scans", "-n", weights, "-o", f"s3://{store.bucket}/large", "--json", *more)


ONE_AT_A_TIME = ("-j", "1:1:1")


def statuses(ran: Ran) -> list[str]:
    return [row["status"] for row in map(json.loads, ran.out.splitlines()) if row.get("event", "") == "picture"]


def test_a_folder_of_objects_is_mirrored_once(
    cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path, micro: Path
) -> None:
    ran = cli(*batch(store, nearest))
    assert (ran.code, statuses(ran)) == (0, ["done"] * 3), ran.err
    for name, data in scans.items():
        assert np.array_equal(pixels(store.get(f"large/{name}")), doubled(data))
    assert "1 .txt" in ran.err
    assert f"outputs in s3://{store.bucket}/large/" in ran.err
    assert [condition for method, path, condition in store.asked if method == "PUT" and ".png" in path] == ["*"] * 3

    store.asked.clear()
    assert statuses(cli(*batch(store, nearest))) == ["skipped"] * 3
    assert {method for method, path, _ in store.asked if ".png" in path} == {"HEAD"}  # nothing is read

    store.put("scans/a.png", png(3, 4))
    assert sorted(statuses(cli(*batch(store, nearest)))) == ["done", "skipped", "skipped"]
    assert np.array_equal(pixels(store.get("large/a.png")), doubled(png(3, 4)))
    other = cli(*batch(store, micro))
    assert (other.code, statuses(other)) == (3, ["failed"] * 3)
    assert "large/a.png: made with other options or weights; add --force" in other.err
    assert statuses(cli(*batch(store, micro, "--force"))) == ["done"] * 3
    writes = {key: count for key, count in store.writes().items() if key.startswith("large/")}
    assert writes == {"large/a.png": 3, "large/deep/b.png": 2, "large/deep/er/c.png": 2}


def test_a_local_folder_goes_to_objects(cli: Cli, store: Store, nearest: Path, folder: Path) -> None:
    run = ("batch", folder, "-n", nearest, "-o", f"s3://{store.bucket}/out/", "--json")
    assert statuses(cli(*run)) == ["done"] * 12
    for name in ("0.png", "11.png"):
        data = (folder / "deep" / name).read_bytes()
        assert np.array_equal(pixels(store.get(f"out/deep/{name}")), doubled(data))
        os.utime(folder / "deep" / name)  # what counts is the content
    assert statuses(cli(*run)) == ["skipped"] * 12


def test_a_folder_of_objects_goes_to_a_local_one(
    cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "large"
    run = ("batch", f"s3://{store.bucket}/scans", "-n", nearest, "-o", out, "--json")
    assert statuses(cli(*run, "--dry-run")) == ["planned"] * 3
    ran = cli(*run)
    assert (ran.code, statuses(ran)) == (0, ["done"] * 3), ran.err
    for name, data in scans.items():
        assert np.array_equal(pixels((out / name).read_bytes()), doubled(data))
    lines = [json.loads(line) for line in (out / ".sr-upscale.jsonl").read_text().splitlines()]
    assert sorted(line["input"] for line in lines) == [f"s3://{store.bucket}/scans/{name}" for name in sorted(scans)]
    assert sorted(path.name for path in out.iterdir()) == [".sr-upscale.jsonl", "a.png", "deep"]
    store.asked.clear()
    assert statuses(cli(*run)) == ["skipped"] * 3
    assert [path for _, path, _ in store.asked if ".png" in path] == []  # the list says all
    store.put("scans/a.png", png(3, 4))
    (out / "deep" / "b.png").write_bytes(b"mine")
    ran = cli(*run)
    assert (ran.code, sorted(statuses(ran))) == (3, ["done", "failed", "skipped"])
    assert np.array_equal(pixels((out / "a.png").read_bytes()), doubled(png(3, 4)))
    assert (out / "deep" / "b.png").read_bytes() == b"mine"


def test_foreign_objects_and_bad_pictures_fail_alone(
    cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path
) -> None:
    store.put("large/a.png", b"mine")
    store.put("scans/z.png", scans["a.png"][:150])
    ran = cli(*batch(store, nearest))
    assert (ran.code, sorted(statuses(ran))) == (3, ["done", "done", "failed", "failed"])
    assert f"s3://{store.bucket}/large/a.png: exists and was not made by this program" in ran.err
    assert f"s3://{store.bucket}/scans/z.png: " in ran.err
    assert "temporary" not in ran.err + ran.out
    assert store.get("large/a.png") == b"mine"
    assert cli(*batch(store, nearest, "--force")).code == 3
    assert np.array_equal(pixels(store.get("large/a.png")), doubled(scans["a.png"]))


def test_shards_levels_and_a_dry_run(cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path) -> None:
    ran = cli(*batch(store, nearest, "--dry-run"))
    assert (ran.code, statuses(ran)) == (0, ["planned"] * 3), ran.err
    assert [method for method, _, _ in store.asked if method == "PUT"] == []
    assert statuses(cli(*batch(store, nearest, "--no-recursive"))) == ["done"]
    parts = [statuses(cli(*batch(store, nearest, "--shard", f"{part}/2", "--force"))) for part in (1, 2)]
    assert sum(map(len, parts)) == 3
    ran = cli("batch", f"s3://{store.bucket}/empty", "-n", nearest, "-o", f"s3://{store.bucket}/out", code=4)


def test_results_inside_the_folder_are_no_pictures(
    cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path
) -> None:
    run = ("batch", f"s3://{store.bucket}/scans", "-n", nearest, "-o", f"s3://{store.bucket}/scans/large", "--json")
    assert statuses(cli(*run)) == ["done"] * 3
    assert statuses(cli(*run)) == ["skipped"] * 3


def test_names_that_are_no_paths_stay_outside_of_nothing(
    cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path
) -> None:
    store.put("scans/x//y.png", png())
    store.put("scans/up/%2E%2E/%2E%2E/%2E%2E/z.png", png())
    ran = cli(*batch(store, nearest))
    assert (ran.code, statuses(ran)) == (3, ["done"] * 3)
    assert ran.err.count("cannot be the name of a file; left out") == 2


@pytest.mark.skipif(sys.platform != "linux", reason="the spool's disc may take both for one name")
def test_keys_that_differ_in_case_alone_are_different_objects(
    cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path
) -> None:
    store.put("scans/A.png", png(3, 4))
    assert statuses(cli(*batch(store, nearest))) == ["done"] * 4
    for key, data in (("A.png", png(3, 4)), ("a.png", scans["a.png"])):
        assert np.array_equal(pixels(store.get(f"large/{key}")), doubled(data))


def test_row_70_of_two_workers_one_wins_and_the_other_finds_it_done(
    cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path
) -> None:
    """The other one runs from its start to its end between what this one looks at and puts."""
    others: list[int] = []

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command == "PUT" and "large" in handler.path and ".png" in handler.path and not others:
            others.append(0)
            words = [sys.executable, "-m", "sr_upscale", *map(str, batch(store, nearest, *ONE_AT_A_TIME))]
            environment = {**os.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}"}
            others[0] = subprocess.run(words, check=False, env=environment, capture_output=True).returncode
        return False

    store.fault = fault
    ran = cli(*batch(store, nearest, *ONE_AT_A_TIME))
    assert (ran.code, others) == (0, [0]), ran.err
    assert statuses(ran) == ["skipped"] * 3
    writes = {key: count for key, count in store.writes().items() if key.startswith("large/")}
    assert set(writes.values()) == {1}
    assert len(writes) == 3


def test_a_stale_output_is_replaced_only_as_it_was_seen(
    cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path
) -> None:
    """Another process makes one anew right before this one's put arrives."""
    assert statuses(cli(*batch(store, nearest))) == ["done"] * 3
    for name in scans:
        store.put(f"scans/{name}", png(3, 4))
    conditions: list[str | None] = []

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command == "PUT" and handler.path.split("?")[0].endswith("/large/a.png"):
            conditions.append(handler.headers["If-Match"])
            if len(conditions) == 1:
                store.put("large/a.png", b"another's")
        return False

    seen = store.ask("HEAD", "/large/a.png")[1]["ETag"]
    store.fault = fault
    ran = cli(*batch(store, nearest))
    assert (ran.code, sorted(statuses(ran))) == (3, ["done", "done", "failed"]), ran.err
    assert conditions == [seen]
    assert "large/a.png: exists and was not made by this program" in ran.err
    assert store.get("large/a.png") == b"another's"


def test_each_picture_is_read_once_and_asked_for_before_it_is_computed(
    cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path
) -> None:
    def asked_of(place: str) -> list[str]:
        return sorted(method for method, path, _ in store.asked if f"/{place}/" in path and ".png" in path)

    assert statuses(cli(*batch(store, nearest))) == ["done"] * 3
    assert asked_of("scans") == ["GET"] * 3
    assert asked_of("large") == ["HEAD"] * 6 + ["PUT"] * 3  # before it is read, and before it is computed
    store.asked.clear()
    assert statuses(cli(*batch(store, nearest))) == ["skipped"] * 3
    assert (asked_of("scans"), asked_of("large")) == ([], ["HEAD"] * 3)


def test_what_another_worker_made_while_a_picture_was_read_is_not_computed(
    cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path
) -> None:
    names = sorted(scans)
    assert cli("batch", f"s3://{store.bucket}/scans", "-n", nearest, "-o", f"s3://{store.bucket}/its").code == 0

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command == "GET" and handler.path.endswith(".png"):
            for name in names:  # what it made, with its notes
                store.ask("PUT", f"/large/{name}", **{"x-amz-copy-source": f"{store.bucket}/its/{name}"})
        return False

    store.fault = fault
    store.asked.clear()
    ran = cli(*batch(store, nearest, *ONE_AT_A_TIME))
    assert (ran.code, statuses(ran)) == (0, ["skipped"] * 3), ran.err
    assert [path for method, path, _ in store.asked if method == "PUT"] == []


def test_each_process_has_an_order_of_its_own(store: Store, nearest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        store.put(f"scans/{number:02}.png", b"")
    orders = []
    for process in ("node1.00000000-1-00000000", "node2.00000000-1-00000000"):
        monkeypatch.setattr(places, "identity", lambda process=process: process)
        with objects.Spool() as ours:
            request = request_of({"model": str(nearest)})
            plan = places.plan_objects(f"s3://{store.bucket}/scans", f"s3://{store.bucket}/out", request, ours)
        orders.append([item.target.name for item in plan.items])
    assert sorted(orders[0]) == sorted(orders[1]) == [f"{number:02}.png" for number in range(30)]
    assert orders[0] != orders[1]


def test_a_store_without_conditions_does_and_one_that_refuses_them_says_so(
    cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path
) -> None:
    def without(handler: BaseHTTPRequestHandler) -> bool:
        del handler.headers["If-None-Match"]
        return False

    store.fault = without
    ran = cli(*batch(store, nearest))
    assert (ran.code, statuses(ran)) == (0, ["done"] * 3), ran.err
    store.put("scans/a.png", png(3, 4))  # made anew: If-Match
    store.fault = lambda handler: bool(handler.headers["If-Match"]) and refuse(501, "NotImplemented")(handler)
    ran = cli(*batch(store, nearest))
    assert (ran.code, sorted(statuses(ran))) == (3, ["failed", "skipped", "skipped"]), ran.err
    assert "the store refuses" in ran.err


def test_an_input_waits_where_the_spool_would_hold_too_many_bytes(
    cli: Cli, store: Store, scans: dict[str, bytes], nearest: Path, monkeypatch: pytest.MonkeyPatch, spools: Path
) -> None:
    held: list[int] = []

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command in ("GET", "PUT") and ".png" in handler.path:
            held.append(len(list(spools.glob("*/in/**/*.png"))))
        return False

    store.fault = fault
    assert cli(*batch(store, nearest, "-j", "3:1:3")).code == 0
    most = max(held)
    held.clear()
    monkeypatch.setattr(objects, "MOST_BYTES", 1)
    ran = cli(*batch(store, nearest, "-j", "3:1:3", "--force"))
    assert (ran.code, statuses(ran)) == (0, ["done"] * 3)
    assert max(held) == 1 < most


def test_what_a_killed_worker_left_in_its_spool_goes(
    cli: Cli, store: Store, nearest: Path, photo: Path, spools: Path
) -> None:
    script = (
        "import os, signal, sys; from sr_upscale.storage.objects import Spool; spool = Spool();"
        "(spool.inputs / 'a.png').write_bytes(b'1'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert len(list(spools.glob("sr-upscale-*/in/a.png"))) == 1
    assert cli(photo, "-n", nearest, "-o", f"s3://{store.bucket}/out.png").code == 0


@pytest.mark.slow
def test_row_70_workers_that_race_make_each_output_once(store: Store, nearest: Path) -> None:
    for number in range(30):
        store.put(f"scans/{number}.png", png(20 + number, 30))
    words = [sys.executable, "-m", "sr_upscale", *map(str, batch(store, nearest))]
    workers = [subprocess.Popen(words, stdout=-1, stderr=-1, text=True) for _ in range(3)]
    ends = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], ends
    done = sum(len(re.findall('"status": ?"done"', out)) for out, _ in ends)
    writes = [count for key, count in store.writes().items() if key.startswith("large/")]
    assert (done, writes) == (30, [1] * 30)
