"""Fixtures: a server, and the folder in which it saves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sr_upscale.pipeline import job as pipeline
from tests.server.running import Running, serving


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "saved"


@pytest.fixture(scope="module")
def server(nearest: Path, saved: Path) -> Iterator[Running]:
    saved.mkdir()
    with serving(nearest, folder=saved, max_bytes=1 << 20, options={"max_pixels": "100000"}) as running:
        yield running


@dataclass
class Gate:
    """Holds a job at its first step."""

    reached: threading.Event
    opened: threading.Event
    ended: list[str]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate, start = Gate(threading.Event(), threading.Event(), []), pipeline.start

    def held(*arguments: Any, on_step: Callable[[int, int], None], **more: Any) -> Any:
        def step(done: int, total: int) -> None:
            gate.reached.set()
            assert gate.opened.wait(30)
            on_step(done, total)

        try:
            return start(*arguments, on_step=step, **more)
        except BaseException as error:
            gate.ended.append(type(error).__name__)
            raise

    monkeypatch.setattr(pipeline, "start", held)
    return gate
