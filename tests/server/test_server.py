"""The server on a real loopback address: pictures through it, jobs, and the command."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import requests
from PIL import Image

from sr_upscale.server.app import OPTIONS
from sr_upscale.server.run import listen
from tests.helpers import ROOT, Cli, pattern
from tests.server.conftest import Gate
from tests.server.running import Running, head_of, png, refused, serving, until

# --- pictures ---------------------------------------------------------------------------------------


def test_a_picture_comes_back_enlarged(server: Running) -> None:
    small = pattern(13, 21)
    answer = server.post(png(small), name="photo.png")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert int(answer.headers["content-length"]) == len(answer.content)
    large = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.array_equal(large, small.repeat(2, 0).repeat(2, 1))
    result = json.loads(answer.headers["x-result"])
    assert result["output_size"] == [42, 26]
    assert result["name"] == "photo_x2_nearest-x2.png"
    assert not result["saved"]


def test_the_bytes_are_those_of_the_command_line(
    server: Running, cli: Cli, nearest: Path, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jpg"
    assert cli(photo, "-n", nearest, "--scale", "1.5", "-q", "80", "-o", out, "--device", "cpu").code == 0
    answer = server.post(photo.read_bytes(), scale="1.5", quality=80, format="jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content == out.read_bytes()


def test_saving_writes_one_new_file_into_the_folder(server: Running, saved: Path) -> None:
    data = png(pattern(5, 7))
    answer = server.post(data, name="räv 1.png", save="true")
    assert answer.status_code == 200, answer.text
    assert (saved / "räv 1_x2_nearest-x2.png").read_bytes() == answer.content
    refused(server.post(data, name="räv 1.png", save="true"), 409, 5, "räv 1_x2.* exists in the folder")
    assert [path.name for path in saved.iterdir()] == ["räv 1_x2_nearest-x2.png"]


def test_a_link_in_the_folder_is_not_followed(server: Running, saved: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    link = saved / "link_x2_nearest-x2.png"
    link.symlink_to(outside)
    refused(server.post(png(pattern(5, 7)), name="link.png", save="1"), 409, 5, "exists in the folder")
    assert not outside.exists()
    link.unlink()


def test_without_a_folder_nothing_is_saved(nearest: Path) -> None:
    with serving(nearest) as running:
        refused(running.post(png(pattern(5, 7)), save="true"), 400, 2, "does not save results; start it with -o")
        assert running.get("/about").json()["saves"] is False


def test_what_there_is_needs_no_download(server: Running, nearest: Path) -> None:
    said = server.get("/about").json()
    assert said["models"][0] == str(nearest)
    assert {"photo", "photo-x4"} <= set(said["models"])
    assert not any("esrgan" in name for name in said["models"])
    assert "png" in said["formats"]
    assert (said["max_bytes"], said["max_pixels"]) == (1 << 20, 100_000)


# --- jobs


def open_post(port: int, job: str, data: bytes, more: str = "") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = head_of(f"Content-Length: {len(data)}").replace("/upscale", f"/upscale?job={job}{more}")
    connection.sendall(head.replace("\n", "\r\n").encode() + data)
    return connection


def test_only_so_many_at_a_time_and_those_of_clients_that_go_are_cancelled(
    nearest: Path, gate: Gate, tmp_path: Path
) -> None:
    data = png(pattern(5, 7))
    with serving(nearest, max_jobs=2, folder=tmp_path) as running:
        first = open_post(running.port, "first", data, "&save=true")
        assert gate.reached.wait(30)
        second = open_post(running.port, "second", data)
        until(lambda: running.get("/progress", job="second").json().get("state") == "waiting")
        assert running.get("/progress", job="first").json() == {"state": "working", "share": 0.0}
        refused(running.post(data, job="first"), 400, 2, "job first exists already")
        refused(running.post(data), 429, 2, "2 pictures are being processed or wait already")
        first.close()
        second.close()
        time.sleep(0.3)  # the server sees both go
        gate.opened.set()
        until(lambda: running.get("/progress", job="second").status_code == 404)
        assert gate.ended == ["Cancelled"]  # the second did not even begin
        assert list(tmp_path.iterdir()) == []
        assert running.post(data).status_code == 200  # the next one's turn


def test_a_server_that_ends_cancels_what_is_at_work(nearest: Path, gate: Gate) -> None:
    with serving(nearest) as running:
        client = open_post(running.port, "first", png(pattern(5, 7)))
        assert gate.reached.wait(30)
        threading.Timer(0.3, gate.opened.set).start()
    with client:
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 503
    assert gate.ended == ["Cancelled"]


# --- the command ------------------------------------------------------------------------------------


def test_the_command_serves_until_it_is_interrupted(nearest: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sr_upscale", "serve", "-n", str(nearest), "--device", "cpu", "--json", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", said["address"])
        assert len(said["token"]) >= 32
        answer = requests.post(f"{said['address']}/upscale?token={said['token']}", data=png(pattern(5, 7)), timeout=60)
        assert answer.status_code == 200
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "sr-upscale: stopped\n"
    assert os.listdir(tmp_path) == []


def test_the_command_says_what_cannot_be(cli: Cli, nearest: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = cli("serve", "-o", tmp_path / "file")
    assert (ran.code, "file" in ran.err) == (5, True)
    ran = cli("serve", "--max-bytes", "many")
    assert (ran.code, "--max-bytes is 'many'" in ran.err) == (2, True)
    with listen("127.0.0.1", 0) as bound:
        words = ["-n", nearest, "--device", "cpu", "--port", bound.getsockname()[1]]
        ran = cli("serve", *words, "-o", tmp_path / "new")
    assert (tmp_path / "new").is_dir()
    assert (ran.code, "cannot serve on 127.0.0.1, port" in ran.err) == (2, True)
    ran = cli("serve", "-n", nearest, "--device", "cpu", "--host", "a" * 70)
    assert (ran.code, "cannot serve on aaa" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("prefix", "line"),
    [
        ("/home/me/.local/share/pipx/venvs/sr-upscale", "pipx install --force '.[serve]'"),
        ("/home/me/.local/share/uv/tools/sr-upscale", "uv tool install '.[serve]'"),
        ("/home/me/project/.venv", "pip install '.[serve]'"),
    ],
)
def test_the_command_names_the_extra_as_the_program_was_installed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, prefix: str, line: str
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setattr(sys, "prefix", prefix)
    ran = cli("serve")
    assert (ran.code, f"run `{line}` in " in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "desktop", "terminal", "opens"),
    [((), ":0", True, True), (("--no-open",), ":0", True, False), ((), "", True, False), ((), ":0", False, False)],
)
def test_the_command_opens_the_page_where_there_is_a_desktop(
    cli: Cli, nearest: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], desktop: str, terminal: bool,
    opens: bool,
) -> None:  # fmt: skip
    pages: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda page: pages.append(page) or True)
    monkeypatch.setattr("sr_upscale.server.run.server_of", lambda _settings: Mock())
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", desktop)
    for name in ("WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    ran = cli("serve", "-n", nearest, "--device", "cpu", *words, code=0)
    assert pages == ([ran.out.strip()] if opens else [])
    assert ("opened in your browser" in ran.err) == opens


def test_the_page_of_the_api_names_every_option() -> None:
    text = (ROOT / "docs" / "serve.md").read_text()
    for name in (*OPTIONS, "name", "job", "save"):
        assert f"`{name}`" in text, name
