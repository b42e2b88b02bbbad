"""What `fuzz.py` feeds with hostile bytes, and the sound files that it starts from."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import shutil
import socket
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, features
from safetensors.torch import save

from sr_upscale.images import FORMATS, Frame, Metadata, Picture, SaveOptions, load_image, save_image, strips_of
from sr_upscale.images.adapt import adapt
from sr_upscale.pipeline.batch_plan import Item
from sr_upscale.pipeline.manifest import MANIFEST, Manifest
from sr_upscale.pretrained import spandrel_adapter
from sr_upscale.pretrained.load import module_of, traits_of
from sr_upscale.storage import attempts, download
from sr_upscale.storage.remote import RemoteFile
from sr_upscale.training import state
from sr_upscale.training.recipe_file import load_recipe
from sr_upscale.training.state import begin_stage, new_generator, save_checkpoint
from tests.helpers import on_loopback, save_nearest


@dataclass(frozen=True, kw_only=True)
class Target:
    """What reads hostile bytes.

    Attributes:
        seeds: Makes sound inputs.
        attempt: Reads an input; its files are in the folder. It may raise what users may meet, and nothing else.
        mend: Makes checksums right again after a mutation, so that it reaches what lies behind them.
    """

    seeds: Callable[[], list[bytes]]
    attempt: Callable[[bytes, Path], object]
    mend: Callable[[bytes], bytes] = bytes


# --- pictures ---------------------------------------------------------------------------------------

MAX_PIXELS = 1 << 14
"""Few, as some encoders take seconds for a million; files that claim more are refused from their headers."""
WRITTEN = [fmt for fmt in FORMATS.values() if not fmt.written_as and (fmt.pillow != "AVIF" or features.check("avif"))]


def picture_seeds() -> list[bytes]:
    """Makes a still of each format and kind of pixels, and the animations."""
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (9, 13, 4), dtype=np.uint8)
    stills = {mode: Image.fromarray(rgba).convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")}
    stills["I;16"] = Image.fromarray(rng.integers(0, 65536, (9, 13), dtype=np.uint16))
    first, *more = (Image.fromarray(np.roll(rgba, step, axis=1)) for step in range(3))
    seeds = []
    for fmt in WRITTEN:
        for image in stills.values():
            seeds += _saved(image, fmt.pillow)
        if fmt.pillow in ("GIF", "PNG", "WEBP", "AVIF"):
            seeds += _saved(first, fmt.pillow, save_all=True, append_images=more, duration=[10, 20, 30], loop=0)
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        seeds += _saved(stills["RGB"], "TIFF", compression=compression)
    return seeds + _with_metadata(rgba) + _heic(rgba)


def _saved(image: Image.Image, kind: str, **options: Any) -> list[bytes]:
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options)
    except (KeyError, OSError, ValueError):  # a format does not hold all kinds, or Pillow does not write it
        return []
    return [buffer.getvalue()]


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'


def _with_metadata(rgba: NDArray[np.uint8]) -> list[bytes]:
    """Makes pictures of 16 bits where that can be, with everything that travels with pixels."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    seeds = []
    for fmt in WRITTEN:
        pixels = (rgba[:, :, :3].astype(np.uint16) * 257) if fmt.bits == 16 else rgba[:, :, :3]
        metadata = Metadata(
            icc=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() if fmt.icc else None,
            exif=exif.tobytes() if fmt.exif else None,
            xmp=XMP if fmt.xmp else None,
            text=(("Comment", "text"),) if fmt.text else (),
            dpi=(72.0, 72.0),
        )
        buffer = io.BytesIO()
        save_image(Picture(frames=(Frame(pixels_hwc=pixels),), metadata=metadata), buffer, fmt)
        seeds.append(buffer.getvalue())
    return seeds


def _heic(rgba: NDArray[np.uint8]) -> list[bytes]:
    """Makes a HEIC, where there is a library that can."""
    try:
        import pillow_heif
    except ImportError:
        return []
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(rgba).convert("RGB").resize((64, 64))).save(buffer, quality=50)
    return [buffer.getvalue()]


def read_picture(data: bytes, folder: Path) -> None:
    """Reads a picture, as `job` does without the network.

    A quarter is written, too, in a format that follows from the bytes: encoders take the most time, and find the least.
    """
    chance = zlib.crc32(data)
    fmt = WRITTEN[chance % len(WRITTEN)]
    options = SaveOptions(background=(255, 255, 255))
    picture = load_image(data, max_pixels=MAX_PIXELS, allow_truncated=bool(chance & 64))
    picture, _notes = adapt(picture, fmt, options, name="fuzz")
    for frame in picture.frames:
        for _strip in strips_of(frame.pixels_hwc, 64):
            pass
    if chance >> 30 == 0:
        save_image(picture, folder / f"out.{fmt.name}", fmt, options)


def mend_png(data: bytes) -> bytes:
    """Makes the checksums of a PNG right. Other bytes stay."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        length = int.from_bytes(out[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


# --- weights and checkpoints ------------------------------------------------------------------------


def weights_seeds() -> list[bytes]:
    """Makes our own file, and another make's network as safetensors, as a zip of torch and as its older pickle."""
    from spandrel.architectures.Compact import Compact

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "tiny.safetensors"
        seeds = [save_nearest(path).read_bytes()]
    state = Compact(num_feat=4, num_conv=1, upscale=2).state_dict()
    seeds.append(save(state))
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"params": state}, buffer, _use_new_zipfile_serialization=zipped)
        seeds.append(buffer.getvalue())
    return seeds


def read_weights(data: bytes, folder: Path) -> None:
    ending = "pth" if data[:2] == b"PK" or data[:1] == b"\x80" else "safetensors"
    path = folder / f"weights.{ending}"
    path.write_bytes(data)
    spandrel_adapter._load.cache_clear()
    traits_of(path)
    module_of(path)


def mend_zip(data: bytes) -> bytes:
    """Makes the checksums of a zip's stored members right, where it can be opened. Other bytes stay."""
    out = bytearray(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                start = info.header_offset + 30 + sum(struct.unpack_from("<HH", data, info.header_offset + 26))
                checksum = struct.pack("<I", zlib.crc32(data[start : start + info.compress_size]))
                for at in (info.header_offset + 14, data.rfind(info.filename.encode()) - 30):
                    if 0 <= at <= len(out) - 4:
                        out[at : at + 4] = checksum
    except Exception:  # whatever zipfile finds, the bytes stay hostile
        return data
    return bytes(out)


RECIPE = Path(__file__).parent.parent / "tests" / "training" / "micro-gan.toml"


def read_recipe(data: bytes, folder: Path) -> None:
    path = folder / "recipe.toml"
    path.write_bytes(data)
    load_recipe(str(path))


def checkpoint_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as name:
        recipe = load_recipe(str(RECIPE))
        first = begin_stage(recipe, 0, new_generator(recipe), device=torch.device("cpu"))
        save_checkpoint(Path(name), recipe, first)
        return [(Path(name) / "checkpoint.pt").read_bytes()]


def read_checkpoint(data: bytes, folder: Path) -> None:
    (folder / "checkpoint.pt").write_bytes(data)
    state.read_checkpoint(folder, load_recipe(str(RECIPE)), lambda _message: None)


# --- manifest ---------------------------------------------------------------------------------------


def manifest_seeds() -> list[bytes]:
    digest = hashlib.sha256(b"picture").hexdigest()
    entry = {"output": "a.png", "input": "in.png", "settings": "0" * 64}
    entry |= {"input_sha256": digest, "output_sha256": digest}
    line = json.dumps(entry).encode()
    return [line + b"\n", line + b"\n" + line[:30], b"[" * 50 + b"]" * 50 + b"\n", b'{"output": 1e999}\n']


def read_manifest(data: bytes, folder: Path) -> None:
    for name in ("a.png", "in.png"):
        (folder / name).write_bytes(b"picture")
    (folder / MANIFEST).write_bytes(data)
    manifest = Manifest(folder, {})
    item = Item(source=folder / "in.png", target=folder / "a.png")
    manifest.state(item)
    manifest.add(item, item.target, hashlib.sha256(b"picture").hexdigest())
    assert Manifest(folder, {}).state(item) == "current"


# --- downloads --------------------------------------------------------------------------------------

BODY = b"0123456789" * 30


def header_seeds() -> list[bytes]:
    size = len(BODY)
    return [
        b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "a"' % size,
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\nContent-Range: bytes 0-%d/%d" % (size, size - 1, size),
        b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\nContent-Length: 0",
        b"HTTP/1.1 429 Busy\r\nRetry-After: 3\r\nContent-Length: 0",
        b"HTTP/1.1 503 Busy\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip",
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic",
        b"HTTP/1.1 416 Range\r\nContent-Range: bytes */%d" % size,
    ]


@functools.cache
def answering() -> tuple[list[bytes], int]:
    """A server on loopback, and its answer to everything, which may be exchanged. No other host can be asked."""
    find = socket.getaddrinfo

    def only_here(host: object, *arguments: object, **more: object) -> object:
        if host not in ("127.0.0.1", b"127.0.0.1"):
            raise socket.gaierror(-2, "Name or service not known")
        return find(host, *arguments, **more)  # type: ignore[arg-type]

    socket.getaddrinfo = only_here  # type: ignore[assignment]
    attempts.BACKOFF_S, attempts.TIMEOUT_S, attempts.LONGEST_WAIT_S = (0.0, 0.0), (1.0, 1.0), 0.0
    answer = [b""]
    server = on_loopback(lambda handler: handler.wfile.write(answer[0]))
    SERVERS.append(server)
    return answer, server.__enter__()


SERVERS: list[contextlib.AbstractContextManager[int]] = []
"""Those that run; they end with the process."""


def read_answer(data: bytes, folder: Path) -> None:
    answer, port = answering()
    answer[0] = data + b"\r\n\r\n" + BODY
    file = RemoteFile(url=f"http://127.0.0.1:{port}/f", size=len(BODY), sha256=hashlib.sha256(BODY).hexdigest())
    for note in (None, {"sha256": file.sha256, "etag": '"a"'}):
        if note is not None:
            (folder / "f.part").write_bytes(BODY[:100])
            (folder / "f.part.json").write_text(json.dumps(note))
        assert download.fetch(file, folder / "f").read_bytes() == BODY
        (folder / "f").unlink()


TARGETS: dict[str, Target] = {
    "decode": Target(seeds=picture_seeds, attempt=read_picture, mend=mend_png),
    "weights": Target(seeds=weights_seeds, attempt=read_weights),
    "checkpoint": Target(seeds=checkpoint_seeds, attempt=read_checkpoint, mend=mend_zip),
    "recipe": Target(seeds=lambda: [RECIPE.read_bytes()], attempt=read_recipe),
    "manifest": Target(seeds=manifest_seeds, attempt=read_manifest),
    "download": Target(seeds=header_seeds, attempt=read_answer),
}


def attempted(target: Target, data: bytes) -> None:
    """Lets a target read bytes in a folder of their own."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        target.attempt(data, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
