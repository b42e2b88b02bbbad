"""One picture of an object store or a web server: the pixels of a local file, and one clear line where not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from sr_upscale.errors import NetworkError
from sr_upscale.pipeline import places
from sr_upscale.storage import objects, stores
from tests.helpers import Cli, fails, on_loopback
from tests.storage.object_store import Store, doubled, forward, pixels, png, refuse, send
from tests.storage.test_download_faults import make_certificate

pytestmark = pytest.mark.usefixtures("spools")


def test_an_object_becomes_an_object(cli: Cli, store: Store, nearest: Path) -> None:
    store.put("in/photo%20ä.png".replace("ä", "%C3%A4"), png())
    ran = cli(
        f"s3://{store.bucket}/in/photo ä.png",
        "-n",
        nearest,
        "-o",
        f"s3://{store.bucket}/out/large.png",
        "--json",
        code=0,
    )
    assert np.array_equal(pixels(store.get("out/large.png")), doubled(png()))
    row = json.loads(ran.out.splitlines()[0])
    assert row["input"] == f"s3://{store.bucket}/in/photo ä.png"
    assert row["output"] == f"s3://{store.bucket}/out/large.png"
    assert [condition for method, _, condition in store.asked if method == "PUT"] == ["*"]
    assert store.ask("HEAD", "/out/large.png")[1]["Content-Type"] == "image/png"


def test_an_output_is_named_as_beside_a_file(
    cli: Cli, store: Store, nearest: Path, photo: Path, tmp_path: Path
) -> None:
    store.put("in/photo.png", png())
    assert cli(f"s3://{store.bucket}/in/photo.png", "-n", nearest).code == 0
    assert cli(photo, "-n", nearest, "-o", f"s3://{store.bucket}/out/").code == 0
    assert cli(f"s3://{store.bucket}/in/photo.png", "-n", nearest, "-o", tmp_path / "local.png").code == 0
    assert store.writes() == {"in/photo.png": 1, "in/photo_x2_nearest-x2.png": 1, "out/photo_x2_nearest-x2.png": 1}
    for data in (store.get("in/photo_x2_nearest-x2.png"), (tmp_path / "local.png").read_bytes()):
        assert np.array_equal(pixels(data), doubled(png()))


def test_what_is_there_stays_unless_forced(cli: Cli, store: Store, nearest: Path, photo: Path) -> None:
    store.put("out.png", b"mine")
    there = f"s3://{store.bucket}/out.png"
    ran = cli(photo, "-n", nearest, "-o", there)
    fails(ran, 5, f"{there}: exists; add --force")
    assert store.get("out.png") == b"mine"
    assert cli(photo, "-n", nearest, "-o", there, "--force").code == 0
    assert np.array_equal(pixels(store.get("out.png")), doubled(png()))


def test_row_70_what_appears_meanwhile_stays(cli: Cli, store: Store, nearest: Path, photo: Path) -> None:
    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command == "PUT":
            store.put("out.png", b"theirs")
        return False

    store.fault = fault
    ran = cli(photo, "-n", nearest, "-o", f"s3://{store.bucket}/out.png", code=5)
    assert "appeared while this was computed" in ran.err
    assert store.get("out.png") == b"theirs"


def test_row_69_a_put_whose_answer_was_lost_is_done(cli: Cli, store: Store, nearest: Path, photo: Path) -> None:
    lost = []

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command != "PUT" or lost:
            return False
        lost.append(1)
        forward(handler, store.port, answer_it=False)
        handler.close_connection = True
        return True

    store.fault = fault
    ran = cli(photo, "-n", nearest, "-o", f"s3://{store.bucket}/out.png")
    assert (ran.code, lost) == (0, [1]), ran.err
    assert store.writes() == {"out.png": 1}


def test_row_69_a_put_that_met_another_is_tried_again(
    cli: Cli, store: Store, nearest: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "CONFLICT_WAITS_S", (0.01, 0.01))
    met = []

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command != "PUT" or met:
            return False
        met.append(1)
        return refuse(409, "ConditionalRequestConflict")(handler)

    store.fault = fault
    assert cli(photo, "-n", nearest, "-o", f"s3://{store.bucket}/out.png").code == 0
    assert store.writes() == {"out.png": 1}


@pytest.mark.parametrize("to_store", [False, True])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (None, "no such object or bucket"),
        (refuse(403, "AccessDenied"), "no rights"),
        (refuse(403, "InvalidAccessKeyId"), "no rights"),
    ],
)
def test_row_69_a_missing_bucket_and_missing_rights_are_one_line(
    cli: Cli, store: Store, nearest: Path, photo: Path, fault: object, words: str, to_store: bool, tmp_path: Path
) -> None:
    bucket = store.bucket if fault else f"{store.bucket}-not-there"
    if fault:
        store.fault = fault  # type: ignore[assignment]
    there = f"s3://{bucket}/photo.png"
    names = (photo, "-o", there) if to_store else (there, "-o", tmp_path / "out.png")
    ran = cli(*names, "-n", nearest)
    assert (ran.code, ran.err.count("\n")) == (5 if to_store else 4, 1), ran.err
    assert f"{there}: {words}" in ran.err.replace(f"{there.removesuffix('/photo.png')}: ", f"{there}: ")
    assert not (tmp_path / "out.png").exists()
    batch = ("batch", photo.parent, "-o", f"s3://{bucket}/out") if to_store else ("batch", f"s3://{bucket}/in")
    ran = cli(*batch, "-n", nearest)
    assert ran.code in ((3, 5) if to_store else (4, 5)), ran.err
    assert words in ran.err


def test_row_69_a_missing_object_is_no_picture(cli: Cli, store: Store, nearest: Path, tmp_path: Path) -> None:
    ran = cli(f"s3://{store.bucket}/none.png", "-n", nearest, "-o", tmp_path / "out.png")
    fails(ran, 4, f"s3://{store.bucket}/none.png: no such object")


def test_a_picture_that_cannot_be_read_is_named_by_its_address(
    cli: Cli, store: Store, nearest: Path, tmp_path: Path
) -> None:
    store.put("in/bad.png", png()[:200])
    ran = cli(f"s3://{store.bucket}/in/bad.png", "-n", nearest, "-o", tmp_path / "out.png", code=4)
    assert f"s3://{store.bucket}/in/bad.png: " in ran.err
    assert "temporary" not in ran.err


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_row_69_a_connection_that_is_always_cut_is_the_network(
    cli: Cli, store: Store, nearest: Path, photo: Path, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("FSSPEC_S3", '{"retries": 2}')
    store.put("photo.png", png())

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command != method:
            return False
        if method == "GET":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        handler.close_connection = True
        return True

    store.fault = fault
    there = f"s3://{store.bucket}/photo.png"
    out = there.replace("photo", "out")
    ran = (
        cli(there, "-n", nearest, "-o", tmp_path / "out.png")
        if method == "GET"
        else cli(photo, "-n", nearest, "-o", out)
    )
    fails(ran, 6, "the store does not answer")
    assert list(store.writes()) == ["photo.png"]


def test_row_69_no_store_at_all_is_the_network(
    cli: Cli, store: Store, nearest: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("FSSPEC_S3", '{"retries": 1}')
    ran = cli(photo, "-n", nearest, "-o", f"s3://{store.bucket}/out.png")
    assert (ran.code, ran.err.count("\n")) == (6, 1), ran.err
    assert cli("--offline", photo, "-n", nearest, "-o", f"s3://{store.bucket}/out.png").code == 6
    assert store.asked == []


def test_an_input_that_changes_while_it_is_read_is_of_one_version(
    cli: Cli, store: Store, nearest: Path, tmp_path: Path
) -> None:
    store.put("photo.png", png())

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command == "GET":
            store.put("photo.png", png(14, 22))
        return False

    store.fault = fault
    cli(f"s3://{store.bucket}/photo.png", "-n", nearest, "-o", tmp_path / "out.png", code=0)
    assert np.array_equal(pixels((tmp_path / "out.png").read_bytes()), doubled(png(14, 22)))
    assert [method for method, path, _ in store.asked if "photo.png" in path] == ["GET"]  # one request, one version


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("ftp://host/a.png",), "unknown kind of address"),
        (("http://host/a.png",), "unknown kind of address"),
        (("https://host/a.png",), "https is only read"),
        (("https://host/a.png", "-o", "https://host/b.png"), "https is only read"),
        (("https://host/", "-o", "s3://b/c/"), "lists no folders"),
        (("https://host", "-o", "s3://b/c.png"), "names no picture"),
        (("s3://bucket", "-o", "a.png"), "names no picture"),
        (("s3:///a.png", "-o", "a.png"), "names no bucket"),
        (("s3://b/a.png", "s3://b/c.png"), "one address at a time"),
        (("s3://b/a.png", "-o", "s3://b/a.png"), "is an input"),
        (("batch", "s3://b/in", "-o", "s3://b/in"), "is the folder of the pictures"),
        (("batch", "s3://b"), "is a whole bucket"),
        (("batch", "s3://b/in", "-o", "s3://b/a.png"), "is one picture"),
        (("batch", "s3://b/in", "--verify"), "--verify takes folders"),
    ],
)
def test_addresses_that_cannot_be_used_so(
    cli: Cli, nearest: Path, names: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "refuse_missing_bucket", lambda _address: None)
    ran = cli(*names, "-n", nearest)
    fails(ran, 2, words)


def test_without_the_extra_its_name_is_said(
    cli: Cli, nearest: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores._file_system.cache_clear()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    ran = cli(photo, "-n", nearest, "-o", "s3://bucket/a.png")
    fails(ran, 2, "pip install '.[cloud]'")


# --- https ------------------------------------------------------------------------------------------


@contextmanager
def web(folder: Path, answer: Callable[[BaseHTTPRequestHandler], None], patch: pytest.MonkeyPatch) -> Iterator[str]:
    """A TLS server on localhost, which is trusted."""
    pytest.importorskip("aiohttp")
    pytest.importorskip("fsspec")
    certificate, key = make_certificate(folder)
    with on_loopback(answer, certificate=(certificate, key)) as port:
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            patch.delenv(name, raising=False)
        patch.setenv("SSL_CERT_FILE", str(certificate))
        stores._file_system.cache_clear()
        yield f"https://localhost:{port}"
        stores._file_system.cache_clear()


def test_certificates_that_cannot_be_read(
    cli: Cli, nearest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web(tmp_path, lambda _handler: None, monkeypatch) as url:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
        ran = cli(f"{url}/a.png", "-n", nearest, "-o", tmp_path / "out.png")
    fails(ran, 6, "none.pem: no certificates")


def test_https_is_read(cli: Cli, nearest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        found = handler.path == "/a/my%20photo.png?signature=secret"
        send(handler, 200 if found else 404, png() if found else b"", {})

    with web(tmp_path, answer, monkeypatch) as url:
        out = tmp_path / "out"
        out.mkdir()
        ran = cli(f"{url}/a/my%20photo.png?signature=secret", "-n", nearest, "-o", out, "--verbose", code=0)
        assert np.array_equal(pixels((out / "my photo_x2_nearest-x2.png").read_bytes()), doubled(png()))
        assert "secret" not in ran.err
        ran = cli(f"{url}/none.png?signature=secret", "-n", nearest, "-o", out)
        assert (ran.code, ran.err.count("\n")) == (4, 1)
        assert "secret" not in ran.err


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


def test_a_web_server_is_not_waited_for_because_another_one_answered(
    cli: Cli, nearest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        send(handler, 200 if handler.path == "/good.png" else 500, png(), {})

    monkeypatch.setattr(stores, "_answered", set())
    monkeypatch.setattr(stores, "PATIENCE_S", 0.5)
    monkeypatch.setattr(stores, "PAUSE_S", 0.02)
    out = tmp_path / "out.png"
    with web(tmp_path, answer, monkeypatch) as url:
        assert cli(f"{url}/good.png", "-n", nearest, "-o", out).code == 0
        assert cli(f"{url}/bad.png", "-n", nearest, "-o", out, "--force").code == 6
        assert asked.count("/bad.png") > 1
    asked.clear()
    with web(tmp_path, answer, monkeypatch) as url:
        assert cli(f"{url}/bad.png", "-n", nearest, "-o", out, "--force").code == 6
    assert asked == ["/bad.png"]


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [("cut", 6, "does not answer"), ("plain", 6, "redirects from https"), (403, 4, "no rights"), (500, 6, "500")],
)
def test_row_69_a_web_server_that_fails(
    cli: Cli, nearest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: object, code: int, words: str
) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if kind == "cut":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + png()[:100])
        elif kind == "plain":
            send(handler, 302, b"", {"Location": "http://127.0.0.1:9/a.png"})
        else:
            send(handler, int(str(kind)), b"", {})

    with web(tmp_path, answer, monkeypatch) as url:
        ran = cli(f"{url}/a.png?signature=secret", "-n", nearest, "-o", tmp_path / "out.png")
    fails(ran, code, words)
    assert "secret" not in ran.err
    assert not (tmp_path / "out.png").exists()
