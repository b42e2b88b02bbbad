"""Folders in Google's object store, as a small server of its JSON interface has it.

https://cloud.google.com/storage/docs/json_api/v1/objects
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest

from sr_upscale.storage import objects, stores
from tests.helpers import Cli, fails, on_loopback
from tests.storage.object_store import doubled, pixels, png, send

pytestmark = pytest.mark.usefixtures("spools")


@dataclass
class Google:
    """A bucket ``pics``: content and metadata of its objects, and how each put of a picture was conditioned."""

    objects: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    conditions: list[str | None] = field(default_factory=list)
    before_put: Callable[[str, bytes, dict[str, str]], None] = lambda _key, _data, _metadata: None

    def resource(self, key: str) -> dict[str, Any]:
        data, metadata = self.objects[key]
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        about = {"name": key, "bucket": "pics", "size": str(len(data)), "md5Hash": md5, "metadata": metadata}
        return {
            "kind": "storage#object",
            "updated": "2026-01-01T00:00:00Z",
            "generation": str(self.generations.get(key, 1)),
            **about,
        }

    def holds(self, key: str, condition: str | None) -> bool:
        """Says whether an object is of the generation that a request asks for; 0 is none."""
        return condition in (None, str(self.generations.get(key, 1)) if key in self.objects else "0")

    def answer(self, handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        url = urlsplit(handler.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        path = url.path.partition("/v1/b/")[2]
        if path == "pics":
            return 200, json.dumps({"kind": "storage#bucket", "name": "pics"}).encode()
        if not path.startswith("pics/o"):
            return 404, b"{}"
        if handler.command == "POST":
            body = handler.rfile.read(int(handler.headers["Content-Length"]))
            about, data = re.fullmatch(rb"--==0==.*?\n\n(.*?)\n--==0==.*?\n\n(.*)\n--==0==--", body, re.DOTALL).groups()  # type: ignore[union-attr]
            known = json.loads(about)
            self.before_put(known["name"], data, known.get("metadata", {}))
            self.conditions.append(asked.get("ifGenerationMatch"))
            if not self.holds(known["name"], asked.get("ifGenerationMatch")):
                return 412, b'{"error": {"message": "conditionNotMet"}}'
            self.objects[known["name"]] = data, known.get("metadata", {})
            self.generations[known["name"]] = len(self.generations) + self.generations.get(known["name"], 1) + 1
            return 200, json.dumps(self.resource(known["name"])).encode()
        if path == "pics/o":
            found = [self.resource(key) for key in self.objects if key.startswith(asked.get("prefix", ""))]
            return 200, json.dumps({"kind": "storage#objects", "items": found}).encode()
        key = unquote(path.removeprefix("pics/o/"))
        if key not in self.objects:
            return 404, b'{"error": {"message": "No such object"}}'
        return 200, self.objects[key][0] if asked.get("alt") == "media" else json.dumps(self.resource(key)).encode()


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    pytest.importorskip("gcsfs")
    store = Google()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        status, content = store.answer(handler)
        send(handler, status, content, {"Content-Type": "application/json"})

    with on_loopback(answer, protocol="HTTP/1.1") as port:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("FSSPEC_GS", '{"token": "anon"}')
        stores._file_system.cache_clear()
        yield store
        stores._file_system.cache_clear()


def test_a_folder_of_google_is_mirrored_once(cli: Cli, google: Google, nearest: Path) -> None:
    google.objects |= {"scans/a.png": (png(), {}), "scans/deep/b.png": (png(5, 6), {})}
    run = ("batch", "gs://pics/scans", "-n", nearest, "-o", "gs://pics/large")
    ran = cli(*run, code=0)
    assert google.conditions == ["0", "0"]
    for name in ("a.png", "deep/b.png"):
        made, source = google.objects[f"large/{name}"][0], google.objects[f"scans/{name}"][0]
        assert np.array_equal(pixels(made), doubled(source))
    assert "2 skipped" in cli(*run).err
    google.objects["scans/a.png"] = png(3, 4), {}
    assert "1 done, 1 skipped" in cli(*run).err
    assert google.conditions == ["0", "0", None]
    google.objects["large/a.png"] = b"mine", {}
    ran = cli(*run)
    assert (ran.code, google.objects["large/a.png"][0]) == (3, b"mine")
    assert "gs://pics/large/a.png: exists and was not made by this program" in ran.err


def test_row_70_of_two_workers_one_wins(cli: Cli, google: Google, nearest: Path) -> None:
    def first(key: str, data: bytes, metadata: dict[str, str]) -> None:
        note = json.loads(metadata[objects.NOTE]) | {"by": "another"}
        google.objects[key] = data, {objects.NOTE: json.dumps(note)}

    google.objects["scans/a.png"] = png(), {}
    google.before_put = first
    ran = cli("batch", "gs://pics/scans", "-n", nearest, "-o", "gs://pics/large")
    assert (ran.code, google.conditions) == (0, ["0"]), ran.err
    assert "0 done, 1 skipped" in ran.err
    assert json.loads(google.objects["large/a.png"][1][objects.NOTE])["by"] == "another"


def test_row_69_a_missing_bucket_of_google(cli: Cli, google: Google, nearest: Path, photo: Path) -> None:
    ran = cli(photo, "-n", nearest, "-o", "gs://none/a.png")
    fails(ran, 5, "gs://none/a.png: no such object or bucket")
