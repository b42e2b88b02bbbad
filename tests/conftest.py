"""Fixtures: folders and files of small things, and the command line in this process."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from safetensors.torch import save_file

from sr_upscale.data.decoded import load_pairs
from sr_upscale.data.patches import Batch, Pair, PatchSampler, find_pictures
from sr_upscale.inference.backends import choice
from sr_upscale.pretrained.weights_file import WeightsInfo, save_generator
from sr_upscale.storage import stores
from tests.helpers import ROOT, Ran, micro_generator, pattern, save_nearest, vgg19_state
from tests.storage.object_store import Store, before, moto_server

settings.register_profile("tests", deadline=None, derandomize=True, database=None)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Benchmarks, real inputs and training pictures, which the repository does not hold."""
    folder = Path(os.environ.get("SR_UPSCALE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("needs the shared data folder (set SR_UPSCALE_TEST_DATA)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of a test lands in the user's cache, and nothing there changes a test."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SR_UPSCALE_CACHE", str(tmp_path_factory.mktemp("cache")))
        nothing = tmp_path_factory.mktemp("settings") / "config.toml"
        nothing.touch()
        patched.setenv("SR_UPSCALE_CONFIG", str(nothing))
        for name in ("SR_UPSCALE_MIRROR", "SR_UPSCALE_OFFLINE"):
            patched.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _torch_by_default() -> Iterator[None]:
    """What is right must not depend on whether ncnn is installed; tests of ncnn ask for it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(choice, "has_ncnn", lambda: False)
        yield


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a micro-model, x2."""
    path = tmp_path_factory.mktemp("weights") / "micro-x2.safetensors"
    save_generator(path, micro_generator(2), WeightsInfo(name="micro-x2"))
    return path


@pytest.fixture(scope="session")
def nearest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of `save_nearest`."""
    return save_nearest(tmp_path_factory.mktemp("weights") / "nearest-x2.safetensors")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small picture on disk: 21x13 RGB PNG."""
    path = tmp_path / "photo.png"
    Image.fromarray(pattern(13, 21)).save(path)
    return path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs a command line in this process, which must end with `code` where that is given."""
    from sr_upscale.cli.app import run

    def call(*argv: object, code: int | None = None) -> Ran:
        capsys.readouterr()
        ended = run([str(each) for each in argv])
        captured = capsys.readouterr()
        assert code in (None, ended), captured.err
        return Ran(code=ended, out=captured.out, err=captured.err)

    return call


@pytest.fixture(scope="session")
def store_port() -> Iterator[int]:
    for name in ("moto", "flask_cors", "s3fs"):
        pytest.importorskip(name)
    with moto_server() as port:
        yield port


@pytest.fixture
def store(store_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A bucket with versions in an S3 store on loopback, which this process and its children take for S3."""
    with before(Store(port=store_port, bucket=f"pics-{secrets.token_hex(4)}")) as store:
        store.ask("PUT", "")
        store.ask("PUT", "/?versioning", b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setattr(stores, "PATIENCE_S", 1.0)
        # an answer may wait for another process's end
        monkeypatch.setattr("s3fs.S3FileSystem.read_timeout", 300)
        stores._file_system.cache_clear()
        yield store
        stores._file_system.cache_clear()


@pytest.fixture
def spools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where spools are, and that none is left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    assert list(folder.iterdir()) == []


# --- network ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures of 40 to 51 pixels."""
    folder = tmp_path / "pictures" / "deep"
    folder.mkdir(parents=True)
    for index in range(12):
        Image.fromarray(np.roll(pattern(40 + index, 51 - index), 5 * index, axis=(0, 1))).save(folder / f"{index}.png")
    return folder.parent


@pytest.fixture
def pairs(folder: Path) -> list[Pair]:
    """The pictures of `folder`, at the factor 2."""
    return load_pairs(find_pictures([folder]), scale=2, min_side=16)


@pytest.fixture
def batch(pairs: list[Pair]) -> Batch:
    """Four patches of them, of 8 LR pixels a side."""
    return PatchSampler(pairs, scale=2, lr_patch=8, batch_size=4, seed=(0, 1))[0]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "tests" / "training" / "micro.toml", tmp_path))


@pytest.fixture
def gan_recipe(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "tests" / "training" / "micro-gan.toml", tmp_path))


@pytest.fixture(scope="session")
def vgg19(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of VGG19's first two blocks and half of the third, with random weights."""
    path = tmp_path_factory.mktemp("vgg") / "vgg19.safetensors"
    save_file(vgg19_state("conv3_4"), path)
    return path
