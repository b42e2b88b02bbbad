"""Clients that mean no good."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from sr_upscale.pipeline import job as pipeline
from sr_upscale.server import app, run
from sr_upscale.server.app import plain_name
from sr_upscale.server.guard import host_of, policy_for
from tests.helpers import pattern
from tests.server.running import TOKEN, Running, head_of, png, raw, refused

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
    def images(first: object) -> str:
        return json.dumps([{"name": "before", "url": first}, {"name": "after", "url": "blob:http://127.0.0.1/a-2"}])

    query = {"width": 42, "height": 26, "images": images("blob:http://127.0.0.1/a-1")}
    answer = server.get("/viewer", title="</script><script>alert(1)</script>", **query)
    assert answer.status_code == 200
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert "<script>alert" not in answer.text
    for bad in ("https://evil.example/a", "blob:x\"'<", None, {}):
        refused(server.get("/viewer", **{**query, "images": images(bad)}), 400, 2, "expected")
    for other in ({"images": "["}, {"images": "[" * 9_000}, {"images": "7"}, {"width": "9" * 9}, {"height": "-1"}):
        assert server.get("/viewer", **{**query, **other}).status_code == 400


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
        ({"job": "a/b"}, "job is .a/b.; expected 1 to 64 letters"),
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
    assert "did not arrive" in said["message"]


def test_connections_that_keep_silent_lock_nobody_out(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing of a request, and with a part of its head."""
    monkeypatch.setattr(run, "HEAD_S", 0.5)
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            for _ in range(run.CONNECTIONS - 1)
        ]
        for each in silent[::2]:
            each.sendall(b"GET / HTTP/1.1\r\nHost:")
        assert all(each.recv(1) == b"" for each in silent)
        assert server.get("/about").status_code == 200


def test_row_76_silent_connections_that_come_again_make_room_for_others(server: Running) -> None:
    """None of them is old enough to be closed by itself."""
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            for _ in range(2 * run.CONNECTIONS)
        ]
        assert server.get("/about").status_code == 200
        assert silent[0].recv(1) == b""  # the oldest
        silent[-1].sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")  # of the newest is one left
        assert silent[-1].recv(12) == b"HTTP/1.1 401"


def test_a_second_request_on_a_connection_may_come_later(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HEAD_S", 0.5)
    with requests.Session() as session:
        for _ in range(3):
            answer = session.get(f"{server.base}/about", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
            assert answer.status_code == 200
            time.sleep(0.4)
