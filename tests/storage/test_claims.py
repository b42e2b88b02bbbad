"""One holder for each name, whoever else is there, stops, ends or comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sr_upscale.errors import OutputError
from sr_upscale.storage.atomic import has_ended, identity, place
from sr_upscale.storage.claims import Claims

NAME = "0123456789abcdef" * 2


@pytest.fixture
def host(tmp_path: Path) -> Callable[..., Claims]:
    """Makes the claims of a process on another host, whose number means nothing here."""

    def make(number: int, *, lease_s: float = 0.4) -> Claims:
        claims = Claims(tmp_path / "claims", lease_s=lease_s)
        claims.identity = f"host{number}.0000000{number}-{os.getpid()}-0123abcd"
        return claims

    return make


def stop(claims: Claims) -> None:
    """Lets a process renew nothing more, as if it were stopped or cut off."""
    claims._closed.set()
    assert claims._renewing is not None
    claims._renewing.join()


def test_one_of_many_gets_each_name(host: Callable[..., Claims]) -> None:
    names = [f"{number:032x}" for number in range(60)]
    hosts = [host(number, lease_s=20) for number in range(8)]
    got: dict[int, list[str]] = {}
    start = threading.Barrier(len(hosts))

    def run(number: int) -> None:
        start.wait()
        got[number] = [name for name in names if hosts[number].take(name)]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(hosts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sum(got.values(), [])) == names
    for number, each in enumerate(hosts):
        assert all(each.holds(name) for name in got[number])
        each.close()
    assert not hosts[0].folder.exists()


def test_a_holder_that_renews_keeps_its_claim_whatever_its_clock_says(host: Callable[..., Claims]) -> None:
    first, second = host(1), host(2)
    assert first.take(NAME)
    stop(first)
    lease = first.folder / f"{first.identity}.lease"
    end, year = time.monotonic() + 1.2, 0
    while time.monotonic() < end:
        year += 1
        os.utime(lease, (year * 3e7, year * 3e7))  # renewed, in other years
        assert not second.take(NAME)
        time.sleep(0.05)
    assert first.holds(NAME)
    first.close()


def test_a_claim_is_taken_over_when_the_lease_stands_still_and_the_first_holder_notices(
    host: Callable[..., Claims],
) -> None:
    first, second, third = host(1), host(2), host(3)
    assert first.take(NAME)
    stop(first)
    begin = time.monotonic()
    while not second.take(NAME):
        time.sleep(0.02)
    assert time.monotonic() - begin >= 0.4
    assert not first.holds(NAME)
    assert second.holds(NAME)
    assert not third.take(NAME)
    first.release(NAME)  # takes nothing from the second one
    assert second.holds(NAME)
    second.release(NAME)
    assert third.take(NAME)
    for each in (first, second, third):
        each.close()
    assert not first.folder.exists()


def test_what_a_half_released_claim_leaves_is_taken_over_too(host: Callable[..., Claims]) -> None:
    """The one that took it over was killed between removing its predecessor's claim and its own."""
    first = host(1)
    first.folder.mkdir()
    (first.folder / f"{NAME}.1.claim").write_text("host9.00000009-7-0123abcd")
    while not first.take(NAME):
        time.sleep(0.02)
    assert first.holds(NAME)
    assert (first.folder / f"{NAME}.2.claim").read_text() == first.identity
    first.close()
    assert not first.folder.exists()


def test_a_claim_takes_one_list_of_the_folder_and_looking_at_one_that_is_held_none(
    host: Callable[..., Claims], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a network each is a round trip, and more in a large folder."""
    first, second = host(1, lease_s=20), host(2, lease_s=20)
    assert first.take("1" * 32)
    assert second.take("2" * 32)
    lists: list[object] = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: lists.append(path) or real(path))
    assert first.take(NAME)
    assert not second.take(NAME)
    assert first.holds(NAME)
    first.release(NAME)
    assert lists == [first.folder]
    assert not first.holds(NAME)
    assert second.take(NAME)
    for each in (first, second):
        each.close()
    assert not first.folder.exists()


def test_a_process_that_has_ended_here_is_known_at_once(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    time.sleep(0.2)  # not yet waited for: a zombie is no more, too
    name = f"{place()}-{dead.pid}-0123abcd"
    while not has_ended(name):
        time.sleep(0.02)
    dead.wait()
    assert has_ended(name)
    assert has_ended(f"{place()}-{os.getpid()}-0123abcd")  # an earlier process of this number
    assert not has_ended(identity())
    assert not has_ended(f"elsewhere.01234567-{dead.pid}-0123abcd")
    assert not has_ended("nonsense")
    claims = Claims(tmp_path / "claims", lease_s=100)
    claims.folder.mkdir()
    (claims.folder / f"{NAME}.0.claim").write_text(name)
    (claims.folder / f"{name}.lease").touch()
    assert claims.take(NAME)
    assert claims.gone() == {name}
    claims.clear({name})
    assert claims.gone() == set()
    claims.close()
    assert not claims.folder.exists()


def test_a_release_that_a_signal_ends_is_repeated_at_the_end(
    host: Callable[..., Claims], monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = host(1)
    assert claims.take(NAME)

    def ended(_path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(claims, "_remove", ended)
        with pytest.raises(KeyboardInterrupt):
            claims.release(NAME)
    claims.close()
    assert not claims.folder.exists()


def test_a_lease_that_others_have_removed_comes_back(host: Callable[..., Claims]) -> None:
    first, second = host(1), host(2)
    assert first.take(NAME)
    lease = first.folder / f"{first.identity}.lease"
    lease.unlink()
    while not lease.exists():
        time.sleep(0.02)
    assert second.others() == {first.identity}
    first.close()


def test_links_and_pipes_in_the_place_of_claims_are_not_followed(host: Callable[..., Claims], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "claims").symlink_to(victim)
    with pytest.raises(OutputError, match="is no folder of this program's"):
        host(1)
    (tmp_path / "claims").unlink()
    first = host(1)
    first.folder.mkdir()
    os.mkfifo(first.folder / f"{NAME}.0.claim")
    (first.folder / f"{'1' * 32}.0.claim").symlink_to(victim / "new")
    assert not first.take(NAME)
    assert not first.take("1" * 32)
    assert not list(victim.iterdir())
    first.close()
