"""The write paths that `crash.py` kills, each as small as it can be."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import importlib
import json
import os
import re
import shutil
import signal
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from crash_child import announced, child
from PIL import Image
from safetensors import safe_open

from sr_upscale.cli.app import run as command
from sr_upscale.data.decoded import load_pairs
from sr_upscale.pipeline import batch_run, executor, job  # noqa: F401  imported once, for all children
from sr_upscale.pretrained.blend import blended
from sr_upscale.pretrained.weights_file import WeightsInfo, load_generator, save_generator
from sr_upscale.storage.download import fetch
from sr_upscale.storage.remote import RemoteFile
from sr_upscale.training.loop import Resume, Setup, train
from sr_upscale.training.recipe_file import load_recipe
from tests.helpers import micro_generator, on_loopback, pictures


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A write path.

    Attributes:
        prepare: Makes in an empty folder what stands there before.
        run: Writes; the same again completes what a kill left.
        read: Content of a file that is compared; None where it may differ from run to run. It raises an exception for
            a file that is torn.
        versions: Whether a killed run may leave only what stands there before or after. Training leaves more.
    """

    prepare: Callable[[Path], object]
    run: Callable[[Path], object]
    read: Callable[[Path], object] = Path.read_bytes
    versions: bool = True


def weights(path: Path, seed: int = 0) -> Path:
    save_generator(path, micro_generator(blocks=1, seed=seed), WeightsInfo(name=path.stem))
    return path


def in_folder(folder: Path, count: int, side: int = 24) -> Path:
    return pictures(folder / "in", *(f"{number}.png" for number in range(count)), size=(side, 24))


def told(*words: object) -> None:
    """Runs a command line."""
    if code := command([str(word) for word in words]):
        raise SystemExit(code)


def one_picture(ending: str, before: bytes) -> Scene:
    """A picture in a format, over an older file where `before` is not empty."""

    def prepare(folder: Path) -> None:
        in_folder(folder, 1)
        weights(folder / "model.safetensors")
        if before:
            (folder / f"out.{ending}").write_bytes(before)

    def run(folder: Path) -> None:
        out = folder / f"out.{ending}"
        told(folder / "in" / "0.png", "-n", folder / "model.safetensors", "-o", out, *["--force"] * out.exists())

    return Scene(prepare=prepare, run=run)


def batch(*, again: bool) -> Scene:
    """A folder with its manifest; `again` over outputs of pictures that have changed since."""

    def prepare(folder: Path) -> None:
        in_folder(folder, 4)
        weights(folder / "model.safetensors")
        if again:
            run(folder)
            in_folder(folder, 4, side=22)

    def run(folder: Path) -> None:
        told("batch", folder / "in", "-o", folder / "out", "-n", folder / "model.safetensors", "-j", "1:1:1")

    return Scene(prepare=prepare, run=run, read=read_batch)


def read_batch(path: Path) -> bytes | None:
    """Reads an output. Of a manifest, every line but the last is whole, or the torn one of a killed run.

    Its entries are not compared: that the next run skips what is done shows in its outputs.
    """
    if path.suffix != ".jsonl":
        return path.read_bytes()
    for line in path.read_text().splitlines()[:-1]:
        with contextlib.suppress(ValueError):
            assert json.loads(line)["output"]
    return None


def cache() -> Scene:
    """The decoded pictures of a training run."""

    def run(folder: Path) -> None:
        load_pairs(sorted((folder / "in").iterdir()), scale=2, min_side=16, cache=folder / "cache", workers=1)

    return Scene(prepare=lambda folder: in_folder(folder, 4), run=run)


RECIPE = load_recipe(
    str(Path(__file__).parent.parent / "tests" / "training" / "micro.toml"),
    {
        "data.batch_size": 2,
        "data.validation_count": 1,
        "stages.psnr.steps": 5,
        "stages.psnr.validate_every_s": 1e-6,
        "stages.psnr.checkpoint_every_s": 1e-6,
    },
)


def training(*, resumed: bool) -> Scene:
    """A run of five steps with a checkpoint after each; `resumed` from one that was killed after three of them."""

    def prepare(folder: Path) -> None:
        in_folder(folder, 4)
        if resumed:
            third = [at for at, call in enumerate(announced(run, folder)) if call.name.endswith(" to checkpoint.pt")][3]
            shutil.rmtree(folder / "run")
            assert child(run, folder, stop=third).killed

    def run(folder: Path) -> None:
        out = folder / "run"
        train(RECIPE, Setup(data=[folder / "in"], out=out, resume=Resume.AUTO))

    return Scene(prepare=prepare, run=run, read=trained, versions=False)


def trained(path: Path) -> object:
    """Reads what a training run leaves, without times of day; checks every byte of a checkpoint."""
    if path.suffix == ".pt":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
        content = torch.load(path, weights_only=True)
        if path.name == "checkpoint-previous.pt":
            return None  # of the last step or the one before: a resumed run may have nothing left to do
        return content["step"], *(digest(content[name]) for name in ("g", "ema"))
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return digest({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    if path.suffix == ".png":
        with Image.open(path) as image:
            return image.tobytes()
    return None if path.suffix == ".jsonl" else path.read_bytes()


def digest(state: Mapping[str, torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(state[key].numpy().tobytes() for key in sorted(state))).hexdigest()


def blend() -> Scene:
    """Weights between two others, in the cache and in a file."""

    def prepare(folder: Path) -> None:
        for seed, name in enumerate("ab"):
            weights(folder / f"{name}.safetensors", seed)
        (folder / "mixed.safetensors").write_bytes(b"an older file")

    def run(folder: Path) -> None:
        a, b = folder / "a.safetensors", folder / "b.safetensors"
        blended(a, b, 0.5)
        told("models", "blend", a, b, "--alpha", 0.25, "-o", folder / "mixed.safetensors", "--force")

    return Scene(prepare=prepare, run=run)


SENT = bytes(range(256)) * 1200


def download() -> Scene:
    """A file from a server on loopback, in several pieces."""

    def run(folder: Path) -> None:
        file = RemoteFile(
            url=f"{os.environ['CRASH_SERVER']}/f", size=len(SENT), sha256=hashlib.sha256(SENT).hexdigest()
        )
        fetch(file, folder / "cache" / "file.bin")

    return Scene(prepare=lambda _folder: None, run=run)


SCENES: dict[str, Scene] = {
    **{f"{kind}, new": one_picture(kind, b"") for kind in ("png", "jpg", "tif", "webp", "bmp")},
    "png, over an older file": one_picture("png", b"old"),
    "batch, new": batch(again=False),
    "batch, over older outputs": batch(again=True),
    "decoded pictures": cache(),
    "training": training(resumed=False),
    "training, resumed": training(resumed=True),
    "blend": blend(),
    "download": download(),
}


@contextlib.contextmanager
def server() -> Iterator[None]:
    """Serves `SENT` on loopback from a process of its own; CRASH_SERVER holds its address."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        handler.send_response(206 if start else 200)
        handler.send_header("ETag", '"one"')
        handler.send_header("Content-Length", str(len(SENT) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(SENT) - 1}/{len(SENT)}")
        handler.end_headers()
        handler.wfile.write(SENT[start:])

    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with on_loopback(answer) as port:
            os.write(writing, str(port).encode())
            signal.pause()
    os.environ["CRASH_SERVER"] = f"http://127.0.0.1:{os.read(reading, 9).decode()}"
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def import_the_rest() -> None:
    """Imports in this process what the program and torch import when they first work."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        load_generator(weights(Path(folder) / "model.safetensors"))
    for name in ("pyvips", "torch._dynamo"):  # the latter by the first step of any optimizer
        importlib.import_module(name)
    Image.init()
