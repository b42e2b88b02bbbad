"""Fixtures: a server, and the folder in which it saves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.running import Running, serving


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "saved"


@pytest.fixture(scope="module")
def server(nearest: Path, saved: Path) -> Iterator[Running]:
    saved.mkdir()
    with serving(nearest, folder=saved, max_bytes=1 << 20, options={"max_pixels": "100000"}) as running:
        yield running
