"""Claims in an object store: one holder at a time, taken over when it stands still, known by who has lost one."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler

import pytest

from sr_upscale.errors import NetworkError
from sr_upscale.storage import object_claims, objects, stores
from sr_upscale.storage.object_claims import ObjectClaims
from tests.storage.object_store import Store, forward, refuse

LEASE_S = 0.9
Begin = Callable[[], ObjectClaims]


@pytest.fixture
def begin(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Begins to claim as a process of another machine."""
    monkeypatch.setattr(object_claims, "identity", lambda: "elsewhere.00000000-1-00000000")
    with ExitStack() as stack:

        def call() -> ObjectClaims:
            claims = ObjectClaims(f"s3://{store.bucket}/large/.sr-upscale.claims", lease_s=LEASE_S)
            assert claims.begin() is None
            stack.callback(claims.close)
            return claims

        yield call


def claim_keys(store: Store) -> list[str]:
    return [key for key in store.present() if "claim" in key]


def stop_renewing(claims: ObjectClaims) -> None:
    """What a process is that has ended, or is stopped, or has no network."""
    claims._closed.set()
    claims._renewing.join()


def test_one_of_many_gets_a_name_and_gives_it_back(begin: Begin, store: Store) -> None:
    first, second = begin(), begin()
    assert first.take("x")
    assert not second.take("x")
    assert second.take("y")
    time.sleep(1.5 * LEASE_S)  # it is renewed
    assert not second.take("x")
    assert first.holds("x")
    assert not first.has_lost("x")
    first.release("x")
    assert not first.holds("x")
    assert second.take("x")
    second.close()
    assert claim_keys(store) == []


def test_one_of_twenty_that_ask_at_once_gets_a_name(begin: Begin) -> None:
    claims, got = begin(), []
    everyone = threading.Barrier(20)

    def ask() -> None:
        everyone.wait()
        got.append(claims.take("x"))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(got) == [False] * 19 + [True]


def test_what_stands_still_is_taken_over_and_its_holder_knows(begin: Begin, store: Store) -> None:
    first, second = begin(), begin()
    assert first.take("x")
    stop_renewing(first)
    since = time.monotonic()
    while not second.take("x"):
        time.sleep(0.05)
    assert time.monotonic() - since >= LEASE_S
    assert not first.holds("x")
    assert first.has_lost("x")
    first.release("x")  # of the other one it removes nothing
    assert second.holds("x")


def test_a_renewal_whose_answer_was_lost_is_one(begin: Begin, store: Store) -> None:
    lost = []

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command != "PUT" or not handler.headers["If-Match"] or lost:
            return False
        lost.append(1)
        forward(handler, store.port, answer_it=False)
        handler.close_connection = True
        return True

    claims = begin()
    assert claims.take("x")
    store.fault = fault
    time.sleep(LEASE_S)
    assert lost == [1]
    assert claims.holds("x")
    claims.release("x")
    assert claim_keys(store) == []


def test_what_the_killed_left_goes_at_the_end_of_another(store: Store, begin: Begin) -> None:
    script = (
        "import os, signal, sys; from sr_upscale.storage.object_claims import ObjectClaims;"
        "claims = ObjectClaims(sys.argv[1]); claims.begin(); claims.take('x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    claims = begin()
    subprocess.run([sys.executable, "-c", script, claims.folder], check=False)
    assert len(claim_keys(store)) == 1
    claims.close()
    assert claim_keys(store) == []


def test_a_store_that_answered_before_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("FSSPEC_S3", '{"retries": 1}')
    monkeypatch.setattr(stores, "PAUSE_S", 0.01)
    monkeypatch.setattr(stores, "_answered", set())
    asked: list[int] = []

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        asked.append(1)
        return len(asked) < 3 and refuse(500, "InternalError")(handler)

    address = f"s3://{store.bucket}/none.png"
    store.fault = fault
    with pytest.raises(NetworkError):
        objects.read_note(address)
    assert len(asked) == 1
    store.fault = lambda _handler: False
    assert objects.read_note(address) is None
    asked.clear()
    store.fault = fault
    assert objects.read_note(address) is None
    assert len(asked) == 3
