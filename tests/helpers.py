"""What tests share: small models, small pictures, a server on loopback, recipes."""

from __future__ import annotations

import functools
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms

from sr_upscale.images.picture import Frame, Picture
from sr_upscale.models.features import LAYERS
from sr_upscale.models.generator import Generator, GeneratorConfig
from sr_upscale.pretrained.weights_file import WeightsInfo, save_generator

ROOT = Path(__file__).resolve().parent.parent


def micro_generator(scale: int = 2, *, blocks: int = 2, seed: int = 0) -> Generator:
    """A generator that is quick, and far from the identity: every weight and tap counts."""
    torch.manual_seed(seed)
    model = Generator(GeneratorConfig(scale=scale, num_feat=8, num_blocks=blocks))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.requires_grad_(False).eval()


def save_nearest(path: Path) -> Path:
    """Writes weights, x2, that enlarge by nearest neighbour: what comes out is known without a network."""
    model = Generator(GeneratorConfig(scale=2, num_feat=8, num_blocks=1))
    with torch.no_grad():
        model.tail.last.weight.zero_()
    save_generator(path, model, WeightsInfo(name="nearest-x2"))
    return path


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


def pictures(folder: Path, *names: str, size: tuple[int, int] = (5, 9)) -> Path:
    """Saves a pattern under each name below `folder`, with `size` rows and columns, each a row more; gives `folder`."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pattern(size[0] + number, size[1])).save(folder / name)
    return folder


def doubled(pixels: NDArray[Any]) -> NDArray[Any]:
    """What the weights of `save_nearest` make of pixels."""
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


@dataclass
class Ran:
    """What a command line left behind."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ran]
"""Runs a command line in this process: the fixture `cli`."""


def fails(ran: Ran, code: int, words: str) -> None:
    """Asserts that a command ended with a code, and one line that has these words."""
    assert (ran.code, ran.err.count("\n")) == (code, 1), ran.err
    assert words in ran.err


@contextmanager
def on_loopback(
    answer: Callable[[BaseHTTPRequestHandler], object],
    *,
    protocol: str = "HTTP/1.0",
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[int]:
    """A server on loopback that answers every request by a function; over TLS with a certificate and its key.

    Yields:
        Its port.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = protocol

        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:  # the client has gone
                self.close_connection = True

        do_HEAD = do_PUT = do_POST = do_DELETE = do_CONNECT = do_GET  # noqa: N815

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        server.handle_error = lambda *_arguments: None  # type: ignore[method-assign]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@dataclass
class Served:
    """A server on loopback and what it was asked for; `content`, the same for all or of a path, may change."""

    content: bytes | Callable[[str], bytes]
    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(content: bytes | Callable[[str], bytes]) -> Iterator[Served]:
    """Gives `content` under every path."""
    served = Served(content=content)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        served.asked.append(handler.path)
        body = served.content if isinstance(served.content, bytes) else served.content(handler.path)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with on_loopback(answer) as port:
        served.url = f"http://127.0.0.1:{port}"
        yield served


# --- training ---------------------------------------------------------------------------------------


def lines(path: Path) -> list[dict[str, object]]:
    """The entries of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- pictures ---------------------------------------------------------------------------------------


@functools.cache  # lcms writes the time into it
def p3_profile() -> bytes:
    """Display P3 as a matrix profile: sRGB's bytes with other primaries would do, lcms can only make sRGB,
    Lab and XYZ; so the colorants of an sRGB profile are exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    p3 = {b"rXYZ": (0.5151, 0.2412, -0.0011), b"gXYZ": (0.2919, 0.6922, 0.0419), b"bXYZ": (0.1572, 0.0666, 0.7841)}
    for index in range(int.from_bytes(data[128:132], "big")):
        entry = 132 + 12 * index
        if (name := bytes(data[entry : entry + 4])) in p3:
            offset = int.from_bytes(data[entry + 4 : entry + 8], "big") + 8
            for value in p3[name]:
                data[offset : offset + 4] = round(value * 65536).to_bytes(4, "big", signed=True)
                offset += 4
    return bytes(data)


def animation(channels: int = 3) -> Picture:
    colours = ((250, 0, 0, 255), (0, 250, 0, 255), (0, 0, 250, 0))
    frames = tuple(
        Frame(pixels_hwc=np.full((6, 8, channels), colour[:channels], np.uint8), duration_ms=duration)
        for colour, duration in zip(colours, (100, 250, 70), strict=True)
    )
    return Picture(frames=frames, loop=0)


# --- other programs ---------------------------------------------------------------------------------


def program(*names: str) -> str:
    """The first of these programs that is there. The test is skipped where none is."""
    for name in names:
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip(f"needs {' or '.join(names)}")


def imagemagick(*arguments: str | Path) -> bytes:
    """What ImageMagick writes to its standard output."""
    done = subprocess.run([program("magick", "convert-im6.q16"), *map(str, arguments)], capture_output=True, check=True)
    return done.stdout
