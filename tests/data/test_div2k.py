"""DIV2K, fetched from a server on loopback and cut."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_upscale.data.div2k import DIV2K_TRAIN, _starts, prepare_div2k
from sr_upscale.errors import IntegrityError
from sr_upscale.storage.remote import RemoteFile
from tests.helpers import Served, pattern, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving(b"") as running:
        monkeypatch.setenv("SR_UPSCALE_MIRROR", f"{running.url}/mirror")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield running


def remote(content: bytes) -> RemoteFile:
    return RemoteFile(
        url="https://example.org/data/file.zip", size=len(content), sha256=hashlib.sha256(content).hexdigest()
    )


def test_the_mirror_takes_the_place_of_scheme_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DIV2K_TRAIN.addresses == (DIV2K_TRAIN.url,)
    monkeypatch.setenv("SR_UPSCALE_MIRROR", "http://host:8/prefix/")
    assert DIV2K_TRAIN.addresses == ("http://host:8/prefix/cvl/DIV2K/DIV2K_train_HR.zip",)


# --- DIV2K ------------------------------------------------------------------------------------------


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def png(height: int, width: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pattern(height, width)).save(buffer, "PNG")
    return buffer.getvalue()


def test_div2k_is_fetched_cut_and_not_fetched_again(server: Served, tmp_path: Path) -> None:
    server.content = archive({"DIV2K_train_HR/0001.png": png(500, 1000), "DIV2K_train_HR/0002.png": png(90, 70)})
    folder = prepare_div2k(tmp_path, source=remote(server.content))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [*(f"0001_part{number:03d}.png" for number in range(1, 7)), "0002_part001.png"]
    whole = pattern(500, 1000)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "0001_part006.png")), whole[20:, 520:])
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "0002_part001.png")), pattern(90, 70))
    assert not (tmp_path / "file.zip").exists()
    server.asked.clear()
    assert prepare_div2k(tmp_path, source=remote(server.content)) == folder
    assert server.asked == []


@pytest.mark.parametrize("length", [1, 480, 481, 959, 960, 1404, 2040])
def test_sub_images_cover_a_side(length: int) -> None:
    covered = np.zeros(length, bool)
    for start in _starts(length):
        assert start + min(480, length) <= length
        covered[start : start + 480] = True
    assert covered.all()


def test_row_46_names_in_the_archive_are_not_paths(server: Served, tmp_path: Path) -> None:
    server.content = archive({"../../outside.png": png(10, 10), "/abs.png": png(10, 10), "..\\win.png": png(10, 10)})
    folder = prepare_div2k(tmp_path / "sets", source=remote(server.content))
    assert sorted(path.name for path in folder.iterdir()) == [
        "abs_part001.png",
        "outside_part001.png",
        "win_part001.png",
    ]
    assert not list(tmp_path.glob("*.png"))


def test_row_46_bombs_and_damage_are_refused(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sr_upscale.data.div2k.MAX_MEMBER_BYTES", 1000)
    server.content = archive({"big.png": b"0" * 5000})
    with pytest.raises(IntegrityError, match=r"big\.png unpacks to 5000 bytes; refused"):
        prepare_div2k(tmp_path / "a", source=remote(server.content))
    server.content = b"not a zip file at all"
    with pytest.raises(IntegrityError, match="not a zip file"):
        prepare_div2k(tmp_path / "b", source=remote(server.content))
    server.content = archive({"torn.png": png(40, 40)[:200]})
    with pytest.raises(IntegrityError, match="remove it and run the command again"):
        prepare_div2k(tmp_path / "c", source=remote(server.content))
