"""The server on a real loopback address: pictures through it, and clients that mean no good."""

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from sr_upscale.pipeline import job as pipeline
from sr_upscale.server import app
from sr_upscale.server.app import Settings
from sr_upscale.server.guard import host_of, policy_for
from sr_upscale.server.run import listen, server_of
from sr_upscale.server.words import OPTIONS, plain_name
from tests.helpers import ROOT, Ran, pattern

TOKEN = "a-token-of-the-tests"
Cli = Callable[..., Ran]


@dataclass
class Running:
    """A server of this process."""

    base: str
    port: int

    def post(self, data: Any, *, token: str | None = TOKEN, **query: object) -> requests.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return requests.post(f"{self.base}/upscale", data=data, params=query, headers=headers, timeout=60)  # type: ignore[arg-type]

    def get(self, path: str, *, token: str | None = TOKEN, **query: object) -> requests.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return requests.get(f"{self.base}{path}", params=query, headers=headers, timeout=60)  # type: ignore[arg-type]


@contextmanager
def serving(model: Path, **settings: Any) -> Iterator[Running]:
    options = {"model": str(model), "device": "cpu", **settings.pop("options", {})}
    server = server_of(Settings(token=TOKEN, hosts={"127.0.0.1", "localhost"}, options=options, **settings))
    with listen("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        port = bound.getsockname()[1]
        try:
            yield Running(base=f"http://127.0.0.1:{port}", port=port)
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "saved"


@pytest.fixture(scope="module")
def server(nearest: Path, saved: Path) -> Iterator[Running]:
    saved.mkdir()
    with serving(nearest, folder=saved, max_bytes=1 << 20, options={"max_pixels": "100000"}) as running:
        yield running


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def refused(answer: requests.Response, status: int, code: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert set(said) == {"code", "kind", "message"}
    assert said["code"] == code
    assert re.search(words, said["message"]), said["message"]


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
    refused(server.post(data, name="räv 1.png", save="true"), 409, 5, "räv 1_x2.* stands in the folder")
    assert [path.name for path in saved.iterdir()] == ["räv 1_x2_nearest-x2.png"]


def test_a_link_in_the_folder_is_not_followed(server: Running, saved: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    link = saved / "link_x2_nearest-x2.png"
    link.symlink_to(outside)
    refused(server.post(png(pattern(5, 7)), name="link.png", save="1"), 409, 5, "stands in the folder")
    assert not outside.exists()
    link.unlink()


def test_without_a_folder_nothing_is_saved(nearest: Path) -> None:
    with serving(nearest) as running:
        refused(running.post(png(pattern(5, 7)), save="true"), 400, 2, "saves nothing; start it with -o")
        assert running.get("/about").json()["saves"] is False


def test_what_there_is_needs_no_download(server: Running, nearest: Path) -> None:
    said = server.get("/about").json()
    assert said["models"][0] == str(nearest)
    assert {"photo", "photo-x4"} <= set(said["models"])
    assert not any("esrgan" in name for name in said["models"])
    assert "png" in said["formats"]
    assert (said["max_bytes"], said["max_pixels"]) == (1 << 20, 100_000)


# --- who is let in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/about", "/progress", "/viewer", "/nothing"])
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x"])
def test_without_its_token_nothing_is_said(server: Running, path: str, token: str | None) -> None:
    answer = server.get(path, token=token)
    refused(answer, 401, 2, "no token, or a wrong one")
    assert TOKEN not in answer.text


def test_a_picture_without_the_token_is_refused(server: Running) -> None:
    refused(server.post(png(pattern(5, 7)), token="ünknown".encode().decode("latin-1")), 401, 2, "no token")
    refused(server.post(png(pattern(5, 7)), token=None), 401, 2, "no token")


def raw(port: int, text: str, *, more: bytes = b"") -> tuple[int, dict[str, Any]]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode() + more)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, json.loads(answer.read())


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "0.0.0.0"]
)
def test_a_name_that_is_not_its_own_is_refused(server: Running, host: str) -> None:
    """Also with the right token: a page whose name was given the address of loopback knows none, but for how long."""
    status, said = raw(server.port, f"GET /about?token={TOKEN} HTTP/1.1\nHost: {host}\n\n")
    assert (status, said["code"]) == (421, 2)


def test_names_of_its_own_are_served(server: Running) -> None:
    for host in ("localhost", f"LOCALHOST:{server.port}", f"127.0.0.1:{server.port}"):
        status, said = raw(server.port, f"GET /about?token={TOKEN} HTTP/1.1\nHost: {host}\n\n")
        assert (status, "models" in said) == (200, True)
    assert [host_of(text) for text in ("[::1]:80", "a.b", "a:b:c", "a/b", "[::1")] == ["::1", "a.b", "", "", ""]


def test_every_answer_has_strict_headers(server: Running) -> None:
    answers = [server.get("/"), server.get("/about"), server.get("/nothing"), server.get("/", token=None)]
    answers += [server.post(png(pattern(5, 7))), server.post(b"text")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
    html = server.get("/").text
    assert not re.search(r'\son\w+="|style="|https?:', html)  # what that policy would stop


def test_the_policy_names_the_hashes_of_the_scripts() -> None:
    policy = policy_for("<style>a</style><script>b</script><script type=x>c</script>", framed="'self'")
    assert "script-src 'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0=';" in policy  # of b
    assert "style-src 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs=';" in policy  # of a


def test_the_viewer_shows_pictures_of_the_page_alone(server: Running) -> None:
    query = {"width": 42, "height": 26, "before": "blob:http://127.0.0.1/a-1", "after": "blob:http://127.0.0.1/a-2"}
    answer = server.get("/viewer", title="</script><script>alert(1)</script>", **query)
    assert answer.status_code == 200
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert "<script>alert" not in answer.text
    for bad in ({"before": "https://evil.example/a"}, {"after": "blob:x\"'<"}, {"width": "9" * 9}, {"height": "-1"}):
        refused(server.get("/viewer", **{**query, **bad}), 400, 2, "expected")


# --- what is asked for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../out.png", "/etc/passwd", "a/b.png", "a\\b.png", "..", ".", ".hidden.png", "C:x.png", "a\0.png", "a\n.png", ""],
)
def test_a_name_never_leads_elsewhere(server: Running, saved: Path, name: str) -> None:
    before = sorted(saved.parent.rglob("*"))
    refused(server.post(png(pattern(5, 7)), name=name, save="true"), 400, 2, "name is .*without a folder")
    assert sorted(saved.parent.rglob("*")) == before


def test_a_name_that_is_too_long_is_refused(server: Running) -> None:
    refused(server.post(png(pattern(5, 7)), name="n" * 300, save="true"), 409, 5, "too long")
    assert plain_name("Å b (1).tar.png") == "Å b (1).tar.png"


@pytest.mark.parametrize(
    "model", ["/etc/passwd", "../micro-x2.safetensors", "realesrgan-x4plus", "", "https://evil.example/a"]
)
def test_a_model_that_is_not_offered_is_neither_read_nor_downloaded(server: Running, model: str) -> None:
    refused(server.post(png(pattern(5, 7)), model=model), 400, 2, "model is .*; expected one of")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"scale": "many"}, "scale is 'many'; expected a number"),
        ({"scale": "nan"}, "scale is nan; expected 1 to 64"),
        ({"scale": "1e9"}, "expected 1 to 64"),
        ({"scale": "2", "width": "9"}, "contradict"),
        ({"width": "9" * 90}, "more than 64 times"),
        ({"width": "9" * 5000}, "at most 100 characters"),
        ({"size": "big"}, "expected WIDTHxHEIGHT"),
        ({"format": "exe"}, "cannot write format"),
        ({"quality": "101"}, "expected 1 to 100"),
        ({"tta": "maybe"}, "expected true or false"),
        ({"frame": "9" * 90}, "no frame"),
        ({"device": "cuda"}, "no option 'device'"),
        ({"max_pixels": "1e12"}, "no option 'max_pixels'"),
        ({"force": "true"}, "no option 'force'"),
        ({"job": "a/b"}, "job is no name"),
        ({"scale": ["2", "3"]}, "scale is given twice"),
    ],
)
def test_words_that_make_no_sense_are_refused_in_the_words_of_the_command_line(
    server: Running, query: dict[str, Any], words: str
) -> None:
    refused(server.post(png(pattern(5, 7)), **query), 400, 2, words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", r"odd\.png: empty file"),
        (b"hello", r"odd\.png: looks like a text file"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"<svg onload='alert(1)'></svg>", "an SVG"),
        (png(pattern(400, 300)), r"odd\.png: 0\.12 MP exceeds 0\.1 MP"),
        (png(pattern(40, 30))[:-40], "truncated"),
    ],
)
def test_what_is_no_picture_is_refused(server: Running, data: bytes, words: str) -> None:
    refused(server.post(data, name="odd.png"), 422, 4, words)


def test_an_output_beyond_all_measure_is_refused(server: Running) -> None:
    refused(server.post(png(np.zeros((300, 300), np.uint8)), scale=64), 400, 2, "would have 369 MP, .* up to 2 MP")


def test_other_methods_and_addresses_are_refused(server: Running) -> None:
    refused(server.get("/upscale"), 405, 2, "no such address or method")
    refused(server.get("/../../etc/passwd"), 404, 2, "no such address")
    refused(server.get("/progress", job="none"), 404, 2, "no such job")


def test_an_internal_error_is_said_as_such(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "prepare", lambda *_, **__: 1 / 0)
    refused(server.post(png(pattern(5, 7))), 500, 1, "internal error: ZeroDivisionError")
    monkeypatch.undo()
    assert server.post(png(pattern(5, 7))).status_code == 200


# --- size, number, time -----------------------------------------------------------------------------


def head_of(length: str) -> str:
    return f"POST /upscale HTTP/1.1\nHost: localhost\nAuthorization: Bearer {TOKEN}\n{length}\n\n"


def test_a_huge_body_is_refused_before_it_is_read(server: Running) -> None:
    status, said = raw(server.port, head_of(f"Content-Length: {1 << 40}"))
    assert (status, said["code"], said["kind"]) == (413, 4, "InputError")
    assert "more than 1 MiB" in said["message"]


def test_an_endless_body_is_cut(server: Running) -> None:
    chunk = b"20000\r\n" + bytes(0x20000) + b"\r\n"
    status, said = raw(server.port, head_of("Transfer-Encoding: chunked"), more=chunk * 9)  # and no end
    assert (status, said["code"]) == (413, 4)


def test_a_body_that_does_not_come_is_not_waited_for(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_S", 0.2)
    status, said = raw(server.port, head_of("Content-Length: 100"), more=b"\x89PNG")
    assert (status, said["code"]) == (408, 4)
    assert "did not come" in said["message"]


@dataclass
class Gate:
    """Holds a job at its first step."""

    reached: threading.Event
    opened: threading.Event
    ended: list[BaseException | None]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate, start = Gate(threading.Event(), threading.Event(), []), pipeline.start

    def held(*arguments: Any, on_step: Callable[[int, int], None], **more: Any) -> Any:
        def step(done: int, total: int) -> None:
            gate.reached.set()
            assert gate.opened.wait(30)
            on_step(done, total)

        try:
            future = start(*arguments, on_step=step, **more)
        except BaseException as error:
            gate.ended.append(error)
            raise
        gate.ended.append(None)
        return future

    monkeypatch.setattr(pipeline, "start", held)
    return gate


def open_post(port: int, job: str, data: bytes, more: str = "") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = head_of(f"Content-Length: {len(data)}").replace("/upscale", f"/upscale?job={job}{more}")
    connection.sendall(head.replace("\n", "\r\n").encode() + data)
    return connection


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
        refused(running.post(data, job="first"), 400, 2, "there is a job first already")
        refused(running.post(data), 429, 2, "2 pictures are at work or wait already")
        first.close()
        second.close()
        time.sleep(0.3)  # the server sees both go
        gate.opened.set()
        until(lambda: running.get("/progress", job="second").status_code == 404)
        assert [type(error).__name__ for error in gate.ended] == ["Cancelled"]  # the second did not even begin
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
    assert [type(error).__name__ for error in gate.ended] == ["Cancelled"]


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
    assert err == "sr-upscale: interrupted; unfinished files were removed\n"
    assert os.listdir(tmp_path) == []


def test_the_command_says_what_cannot_be(cli: Cli, nearest: Path, tmp_path: Path) -> None:
    ran = cli("serve", "-o", tmp_path / "none")
    assert (ran.code, "no such folder; create it first" in ran.err) == (2, True)
    ran = cli("serve", "--max-bytes", "many")
    assert (ran.code, "--max-bytes is 'many'" in ran.err) == (2, True)
    with listen("127.0.0.1", 0) as bound:
        ran = cli("serve", "-n", nearest, "--device", "cpu", "--port", bound.getsockname()[1])
    assert (ran.code, "cannot serve on 127.0.0.1, port" in ran.err) == (2, True)


def test_the_command_names_the_extra(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ran = cli("serve")
    assert (ran.code, "pip install 'sr-upscale[serve]'" in ran.err) == (2, True)


def test_the_page_of_the_api_names_every_option() -> None:
    text = (ROOT / "docs" / "serve.md").read_text()
    for name in (*OPTIONS, "name", "job", "save"):
        assert f"`{name}`" in text, name
