"""Small pictures, a micro-model, and the command line in this process."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from sr_upscale.checkpoint import WeightsInfo, save_generator
from sr_upscale.models.features import LAYERS
from sr_upscale.models.generator import Generator, GeneratorConfig

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Benchmarks, real inputs and training pictures, which the repository does not hold."""
    folder = Path(os.environ.get("SR_UPSCALE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("needs the shared data folder (set SR_UPSCALE_TEST_DATA)")
    return folder


def micro_generator(scale: int = 2, *, blocks: int = 2, seed: int = 0) -> Generator:
    """A generator that is quick, and far from the identity: every weight and tap counts."""
    torch.manual_seed(seed)
    model = Generator(GeneratorConfig(scale=scale, num_feat=8, num_blocks=blocks))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of a test lands in the user's cache, and nothing there changes a test."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SR_UPSCALE_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("SR_UPSCALE_MIRROR", "SR_UPSCALE_OFFLINE"):
            patched.delenv(name, raising=False)
        yield


def vgg19_state(last: str) -> dict[str, torch.Tensor]:
    """Random weights of VGG19's convs up to `last`, with torchvision's names."""
    widths = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}
    generator, before, state = torch.Generator().manual_seed(0), 3, {}
    for name, index in LAYERS.items():
        width = widths[int(name[4])]
        weight = torch.randn(width, before, 3, 3, generator=generator) * (2 / (9 * before)) ** 0.5
        state |= {f"features.{index}.weight": weight, f"features.{index}.bias": torch.zeros(width)}
        before = width
        if name == last:
            return state
    raise ValueError(last)


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a micro-model, x2."""
    path = tmp_path_factory.mktemp("weights") / "micro-x2.safetensors"
    save_generator(path, micro_generator(2), WeightsInfo(name="micro-x2"))
    return path


@pytest.fixture(scope="session")
def nearest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, x2, that enlarge by nearest neighbour: what comes out is known without a network."""
    model = Generator(GeneratorConfig(scale=2, num_feat=8, num_blocks=1))
    with torch.no_grad():
        model.tail.last.weight.zero_()
    path = tmp_path_factory.mktemp("weights") / "nearest-x2.safetensors"
    save_generator(path, model, WeightsInfo(name="nearest-x2"))
    return path


def pattern(
    height: int, width: int, channels: int = 3, dtype: type[np.uint8] | type[np.uint16] = np.uint8
) -> NDArray[np.uint8 | np.uint16]:
    """(H, W, C) of slopes and edges that differ between channels; no two turns or mirrorings of it are equal."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        0.5 + 0.3 * np.sin(0.31 * x + 0.07 * y * (c + 1)) + 0.2 * ((x * 3 + y * 2) // 7 % 2 - 0.5)
        for c in range(channels)
    ]
    values = np.stack(planes, axis=-1) * (0.6 + 0.4 * (x + 2 * y) / (width + 2 * height))[..., None]
    return np.rint(values.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small picture on disk: 21x13 RGB PNG."""
    path = tmp_path / "photo.png"
    Image.fromarray(pattern(13, 21)).save(path)
    return path


@dataclass
class Ran:
    """What a command line left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs a command line in this process."""
    from sr_upscale.cli.app import run

    def call(*argv: object) -> Ran:
        capsys.readouterr()
        code = run([str(each) for each in argv])
        captured = capsys.readouterr()
        return Ran(code=code, out=captured.out, err=captured.err)

    return call


# --- network ----------------------------------------------------------------------------------------


@dataclass
class Served:
    """A server on loopback and what it was asked for; `content` may change while it runs."""

    content: bytes
    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(content: bytes) -> Iterator[Served]:
    """Gives `content` under every path."""
    served = Served(content=content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(served.content)))
            self.end_headers()
            self.wfile.write(served.content)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield served
        server.shutdown()
        thread.join()


# --- training ---------------------------------------------------------------------------------------

RECIPE = """
name = "micro"
description = "for a test"
[model]
scale = 2
num_feat = 8
num_blocks = 1
[data]
lr_patch = 8
batch_size = 4
validation_count = 2
workers = 0
[stages.psnr]
steps = 40
max_time_s = 0
warmup_steps = 5
validate_every_s = 0.05
checkpoint_every_s = 0.05
"""

GAN = """
[stages.gan]
steps = 6
max_time_s = 0
lr = 1e-4
warmup_steps = 0
fft_weight = 0.05
perceptual_weight = 0.5
perceptual_layers = { conv1_2 = 0.1, conv2_2 = 1.0 }
gan_weight = 0.01
discriminator = "unet"
d_num_feat = 4
validate_every_s = 0.05
checkpoint_every_s = 0.05
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures of 40 to 51 pixels."""
    folder = tmp_path / "pictures" / "deep"
    folder.mkdir(parents=True)
    for index in range(12):
        Image.fromarray(np.roll(pattern(40 + index, 51 - index), 5 * index, axis=(0, 1))).save(folder / f"{index}.png")
    return folder.parent


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "micro.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def gan_recipe(tmp_path: Path) -> Path:
    path = tmp_path / "micro-gan.toml"
    path.write_text(RECIPE.replace('"micro"', '"micro-gan"').replace("steps = 40", "steps = 6") + GAN)
    return path


@pytest.fixture(scope="session")
def vgg19(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of VGG19's first two blocks and half of the third, with random weights."""
    path = tmp_path_factory.mktemp("vgg") / "vgg19.safetensors"
    save_file(vgg19_state("conv3_4"), path)
    return path


def lines(path: Path) -> list[dict[str, object]]:
    """The entries of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]
