"""ncnn against torch: the files that we write for it, the CPU, Vulkan, and pictures without torch in the process."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sr_upscale.device import CPU, Device, DeviceLostError, VulkanCard, has_ncnn, silent_stderr, vulkan_cards
from sr_upscale.errors import ModelError, OutOfMemoryError, UsageError
from sr_upscale.images.decode import load_image
from sr_upscale.inference import backends
from sr_upscale.inference.backends import choice
from sr_upscale.inference.backends.choice import SMALL_PIXELS, SMALL_PIXELS_HALF, choose_backend
from sr_upscale.inference.loaded_networks import LoadedNetworks
from sr_upscale.models.generator import Generator, GeneratorConfig
from sr_upscale.pipeline.executor import LocalExecutor
from sr_upscale.pipeline.request import request_of
from sr_upscale.pretrained.blend import blend_files
from sr_upscale.pretrained.load import module_of
from sr_upscale.pretrained.ncnn_export import ncnn_model, runs_on_ncnn
from sr_upscale.pretrained.registry import TABLE
from sr_upscale.pretrained.weights_file import WeightsInfo, read_info, save_generator
from sr_upscale.upscaler import Upscaler
from tests.helpers import ROOT, Cli, pattern

pytest.importorskip("ncnn")

SIZES = ((1, 1), (7, 13), (33, 20))
CONFIGS = [
    (block, upsampler, scale)
    for block in ("inception", "gated")
    for upsampler in ("pixelshuffle", "nearest_conv")
    for scale in (2, 3, 4)
]
INPUTS = ROOT.parent / "shared" / "data" / "inputs"
WITHOUT_VULKAN = {"VK_DRIVER_FILES": "/none", "VK_ICD_FILENAMES": "/none"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ncnn counts as installed, and no card is there."""
    monkeypatch.setattr(choice, "has_ncnn", lambda: True)
    monkeypatch.setattr(choice, "vulkan_cards", lambda: ())


def random_weights(path: Path, block: str, upsampler: str, scale: int, *, feat: int = 8) -> Path:
    """Weights in which every tensor matters: slopes, gains and biases too."""
    torch.manual_seed(len(block) + len(upsampler) + scale)
    config = GeneratorConfig(scale=scale, num_feat=feat, num_blocks=2, upsampler=upsampler, block=block)
    model = Generator(config)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 0.2, 0.3)
    save_generator(path, model, WeightsInfo(name=path.stem))
    return path


def difference(weights: Path, *, device: Device = CPU, dtype: str = "float32", sizes: Any = SIZES) -> float:
    """Largest difference between ncnn and torch, of a range of 1."""
    network, module = backends.starter("ncnn", weights, device)(dtype), module_of(weights)
    worst = 0.0
    for height, width in sizes:
        picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.inference_mode():
            expected = module(picture).numpy()
        found = network(picture)
        assert found.shape == expected.shape
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


@pytest.mark.parametrize(("block", "upsampler", "scale"), CONFIGS)
def test_every_block_and_tail_agrees_with_torch(block: str, upsampler: str, scale: int, tmp_path: Path) -> None:
    assert difference(random_weights(tmp_path / "a.safetensors", block, upsampler, scale)) < 1e-5


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_shipped_weights_agree_with_torch(entry: Any) -> None:
    assert difference(entry.path, sizes=((19, 26),)) < 1e-3


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_blend_of_two_architectures_agrees_with_torch(share: float, tmp_path: Path) -> None:
    first, second = (
        random_weights(tmp_path / f"{block}.safetensors", block, "pixelshuffle", 2) for block in ("inception", "gated")
    )
    blend_files(first, second, share, tmp_path / "both.safetensors")
    assert difference(tmp_path / "both.safetensors") < 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("head.bias"), "head.bias is missing; expected finite numbers of shape"),
        (lambda tensors: tensors["head.bias"].fill_(float("nan")), "head.bias is not finite"),
        (lambda tensors: tensors.update({"head.bias": torch.zeros(3)}), r"head.bias is of shape \(3,\)"),
        (lambda tensors: tensors.update({"more": torch.zeros(3)}), r"unknown keys \['more'\]"),
    ],
)
def test_damaged_weights_are_refused(change: Any, words: str, micro: Path, tmp_path: Path) -> None:
    tensors = load_file(micro)
    change(tensors)
    info = read_info(micro)
    save_file(tensors, tmp_path / "bad.safetensors", metadata=info.to_metadata())
    with pytest.raises(ModelError, match=words):
        ncnn_model(tmp_path / "bad.safetensors")


def compact(path: Path, *, seed: int = 0) -> Path:
    """A tiny network of others, which has layers of its own kinds."""
    arch = pytest.importorskip("spandrel.architectures.Compact").Compact
    torch.manual_seed(seed)
    save_file(arch(num_feat=8, num_conv=2, upscale=2).state_dict(), path)
    return path


def test_networks_of_others_are_converted_once_and_agree_with_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pnnx")
    foreign = compact(tmp_path / "foreign.safetensors")
    assert not runs_on_ncnn(foreign, convert=False)
    assert runs_on_ncnn(foreign, convert=True)
    monkeypatch.setattr("subprocess.run", None)
    assert difference(foreign) < 1e-5
    pixels = pattern(50, 61)
    expected = Upscaler(foreign, dtype="fp32", backend="torch", tile_size=0)(pixels).astype(int)
    assert np.abs(Upscaler(foreign, backend="ncnn", device="cpu")(pixels) - expected).max() <= 1


@pytest.mark.parametrize(
    ("missing", "kind", "words"),
    [
        ("pnnx", UsageError, r"needs an extra; .*'\.\[ncnn-convert\]'.*, or use --backend torch"),
        (None, ModelError, r"pnnx cannot convert it for ncnn \(ncnn lacks a layer of it\); use --backend torch"),
    ],
)
def test_networks_that_cannot_be_converted_are_refused_with_one_line(
    missing: str | None,
    kind: type[Exception],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    foreign = tmp_path / "foreign.safetensors"
    if missing is None:
        pytest.importorskip("pnnx")
        arch = pytest.importorskip("spandrel.architectures.PLKSR").PLKSR
        save_file(arch(dim=16, n_blocks=1, upscaling_factor=2).state_dict(), foreign)
    else:
        compact(foreign, seed=1)  # not one that stands converted in the cache
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(kind, match=words):
        ncnn_model(foreign)
    assert not runs_on_ncnn(foreign, convert=True)
    assert capfd.readouterr() == ("", "")


# --- pictures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile_size", [None, 16])
@pytest.mark.parametrize(
    "pixels", [pattern(50, 61), pattern(50, 61)[:, :, :1], pattern(50, 61).astype(np.uint16) * 257]
)
def test_pictures_are_those_of_torch_whole_and_in_tiles_without_seams(
    micro: Path, pixels: Any, tile_size: int | None
) -> None:
    expected = Upscaler(micro, dtype="fp32", backend="torch")(pixels).astype(int)
    upscaler = Upscaler(micro, backend="ncnn", tile_size=tile_size)
    found = upscaler(pixels)
    assert found.dtype == pixels.dtype
    assert np.abs(found - expected).max() <= 1


def test_row_77_memory_that_runs_out_makes_tiles_smaller_and_a_lost_card_leads_to_the_cpu(
    micro: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, sizes = pattern(70, 90), []
    expected = Upscaler(micro, backend="ncnn")(pixels)
    upscaler = Upscaler(micro, backend="ncnn")
    real = upscaler.engine.networks.get(micro, "float32")

    def greedy(tile: Any) -> Any:
        sizes.append(tile.shape[2:])
        if tile.shape[2] * tile.shape[3] > 3000:
            raise MemoryError
        return real(tile)

    monkeypatch.setattr(upscaler.engine.networks, "get", lambda *_: greedy)
    assert np.abs(upscaler(pixels).astype(int) - expected).max() <= 1
    assert sizes[0] == (70, 90)
    monkeypatch.setattr(upscaler.engine.networks, "get", lambda *_: _raise(MemoryError()))
    with pytest.raises(OutOfMemoryError, match="even with tiles of 16 pixels"):
        upscaler(pixels)
    choice = dataclasses.replace(upscaler.engine.choice, device=Device(type="vulkan", index=0))
    monkeypatch.setattr(upscaler.engine, "planner", dataclasses.replace(upscaler.engine.planner, choice=choice))
    assert np.abs(upscaler(pixels).astype(int) - expected).max() <= 1
    (line,) = upscaler.warnings
    assert re.match("out of memory on vulkan:0 even with tiles of 16 pixels; .*; computed on the CPU$", line)
    upscaler = Upscaler(micro, backend="ncnn")
    monkeypatch.setattr(
        upscaler.engine.networks, "get", lambda *_: _raise(DeviceLostError("vulkan:0: ncnn ended with -1"))
    )
    np.testing.assert_array_equal(upscaler(pixels), expected)
    assert upscaler.warnings == ["vulkan:0: ncnn ended with -1; computed on the CPU"]


@pytest.mark.parametrize("error", [DeviceLostError("vulkan:0: lost"), MemoryError("out of memory on vulkan:0")])
def test_row_77_a_dry_run_goes_on_without_a_card_that_is_lost_or_full(
    error: Exception, cli: Cli, micro: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(pattern(9, 9)).save(tmp_path / "a.png")
    real, card = LoadedNetworks.get, VulkanCard(name="a", software=False, heap_bytes=1 << 30)

    def get(networks: LoadedNetworks, weights: Path, dtype: str) -> Any:
        if networks.planner.choice.device.type == "vulkan":
            raise error
        return real(networks, weights, dtype)

    monkeypatch.setattr(LoadedNetworks, "get", get)
    monkeypatch.setattr("sr_upscale.device.vulkan_cards", lambda: (card,))
    ran = cli(tmp_path / "a.png", "-n", micro, "--device", "vulkan", "--dry-run")
    assert (ran.code, ran.err) == (0, f"warning: {error}; computed on the CPU\n")


def _raise(error: Exception) -> Any:
    def network(_tile: Any) -> Any:
        raise error

    return network


WITHOUT_TORCH = """
import json, sys
from sr_upscale.cli.app import run
codes = [run(words) for words in json.loads(sys.argv[1])]
print(json.dumps([codes, sorted({"torch", "scipy", "torchvision"} & set(sys.modules))]))
"""
SERVER_WITHOUT_TORCH = """
import json, sys
from pathlib import Path
from tests.server.running import serving
with serving(Path(sys.argv[1]), max_jobs=1, options={"backend": "ncnn"}) as server:
    codes = [server.post(Path(sys.argv[2]).read_bytes()).status_code, server.get("/").status_code]
print(json.dumps([codes, sorted({"torch", "scipy", "torchvision"} & set(sys.modules))]))
"""


def modules_of(script: str, *arguments: str) -> Any:
    """What a process of its own prints last: exit codes, and what it imported that it should not."""
    environment = {**os.environ, **WITHOUT_VULKAN, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_pictures_without_torch_in_the_process(tmp_path: Path, micro: Path) -> None:
    """One process for all: RGB, alpha, 16 bits, another scale, an animation, a chain, a blend, a folder, a dry run."""
    rgba = np.dstack([pattern(48, 48), np.arange(48 * 48).reshape(48, 48) % 256]).astype(np.uint8)
    Image.fromarray(pattern(48, 48)).save(tmp_path / "rgb.png")
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    Image.fromarray((np.arange(900).reshape(30, 30) * 72).astype(np.uint16)).save(tmp_path / "deep.png")
    frames = [Image.fromarray(pattern(20, 20)), Image.fromarray(pattern(20, 20)[::-1])]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(tmp_path / "rgb.png", folder)
    Upscaler("gan", fidelity=0.5)  # torch makes the blend, once
    ncnn = ["-n", str(micro), "--backend", "ncnn", "-o"]
    lines = [
        [f"{tmp_path}/rgb.png", "-n", str(micro), "-o", f"{tmp_path}/rgb-out.png"],  # auto
        [f"{tmp_path}/rgba.png", *ncnn, f"{tmp_path}/rgba-out.png"],
        [f"{tmp_path}/deep.png", *ncnn, f"{tmp_path}/deep-out.png", "-s", "3"],
        [f"{tmp_path}/moving.gif", *ncnn, f"{tmp_path}/moving-out.gif"],
        [f"{tmp_path}/rgb.png", *ncnn, f"{tmp_path}/chain-out.png", "-s", "4"],
        [f"{tmp_path}/rgb.png", "-n", "gan", "--fidelity", "0.5", "-o", f"{tmp_path}/blend-out.png"],
        ["batch", str(folder), *ncnn, f"{tmp_path}/folder-out"],
        [f"{tmp_path}/rgb.png", "--dry-run"],
    ]
    assert modules_of(WITHOUT_TORCH, json.dumps(lines)) == [[0] * len(lines), []]
    same: dict[str, Any] = {"dtype": "fp32", "backend": "torch"}
    plain, blend = Upscaler(micro, **same), Upscaler("gan", fidelity=0.5, **same)
    for name, scale in (("rgb", 2), ("rgba", 2), ("deep", 3), ("chain", 4), ("blend", 4)):
        source = tmp_path / (f"{name}.png" if name in ("rgba", "deep") else "rgb.png")
        expected = (blend if name == "blend" else plain)(np.asarray(Image.open(source)), scale=scale)
        found = np.asarray(Image.open(tmp_path / f"{name}-out.png"))
        assert np.abs(found.astype(int) - expected).max() <= 1
    with Image.open(tmp_path / "moving-out.gif") as moving:
        assert (moving.size, getattr(moving, "n_frames", 1)) == ((40, 40), 2)


def test_a_server_without_torch_in_the_process(tmp_path: Path, micro: Path) -> None:
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    Image.fromarray(pattern(9, 9)).save(tmp_path / "a.png")
    assert modules_of(SERVER_WITHOUT_TORCH, str(micro), f"{tmp_path}/a.png") == [[200, 200], []]


# --- the choice -------------------------------------------------------------------------------------

GPU, PROGRAM = (
    VulkanCard(name=name, software=software, heap_bytes=1 << 30) for name, software in (("a", False), ("b", True))
)


@pytest.mark.parametrize(
    ("cards", "bf16", "words", "expected"),
    [
        ((), False, {"pixels": SMALL_PIXELS}, ("ncnn", "cpu", "float32")),
        ((), False, {"pixels": SMALL_PIXELS + 1}, ("torch", "cpu", "float32")),
        ((), True, {"pixels": SMALL_PIXELS_HALF}, ("ncnn", "cpu", "float32")),
        ((), True, {"pixels": SMALL_PIXELS_HALF + 1}, ("torch", "cpu", "bfloat16")),
        ((), True, {"pixels": None}, ("torch", "cpu", "bfloat16")),
        ((), True, {"pixels": 1, "dtype": "bf16"}, ("torch", "cpu", "bfloat16")),
        ((), True, {"pixels": 1, "ncnn_runs": lambda card: card}, ("torch", "cpu", "bfloat16")),
        ((PROGRAM, GPU), True, {"ncnn_runs": lambda card: card}, ("ncnn", "vulkan:1", "float32")),
        ((PROGRAM, GPU), True, {"ncnn_runs": lambda card: False}, ("torch", "cpu", "bfloat16")),
        ((PROGRAM,), False, {"pixels": None}, ("torch", "cpu", "float32")),
        ((PROGRAM, GPU), False, {"pixels": None}, ("ncnn", "vulkan:1", "float32")),
        ((PROGRAM, GPU), False, {"pixels": None, "dtype": "fp16"}, ("ncnn", "vulkan:1", "float16")),
        ((PROGRAM, GPU), False, {"device": "cpu"}, ("torch", "cpu", "float32")),
        ((PROGRAM, GPU), False, {"backend": "ncnn"}, ("ncnn", "vulkan:1", "float32")),
        ((PROGRAM, GPU), False, {"device": "vulkan"}, ("ncnn", "vulkan:0", "float32")),
        ((), True, {"device": "vulkan"}, ("ncnn", "cpu", "float32")),
        ((GPU,), True, {"backend": "openvino"}, ("openvino", "cpu", "bfloat16")),
    ],
)
def test_what_computes(
    monkeypatch: pytest.MonkeyPatch, cards: Any, bf16: bool, words: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    monkeypatch.setattr(choice, "has_ncnn", lambda: True)
    for place in (choice, sys.modules["sr_upscale.device"]):
        monkeypatch.setattr(place, "vulkan_cards", lambda: cards)
        monkeypatch.setattr(place, "cpu_has_bf16", lambda: bf16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = {"backend": "auto", "device": "auto", "dtype": "auto", "ncnn_runs": lambda card: True, **words}
    found = choose_backend(given.pop("backend"), given.pop("device"), given.pop("dtype"), **given)
    assert (found.backend, str(found.choice.device), found.choice.dtype) == expected


@pytest.mark.parametrize(
    ("backend", "device", "dtype", "words"),
    [
        ("torch", "vulkan", "auto", "backend torch runs on the CPU, CUDA or MPS, not on vulkan"),
        ("ncnn", "cuda", "auto", "backend ncnn runs on the CPU or by Vulkan, not on cuda"),
        ("ncnn", "cpu", "bf16", "ncnn computes in fp32 here; leave out --bf16"),
        ("ncnn", "cpu", "fp16", "fp16 needs a GPU"),
        ("auto", "vulkan:7", "auto", "there are 1 Vulkan devices, numbered from 0"),
        ("auto", "vulkan:x", "auto", "no device 'vulkan:x'"),
    ],
)
def test_what_does_not_go_together(
    monkeypatch: pytest.MonkeyPatch, backend: str, device: str, dtype: str, words: str
) -> None:
    monkeypatch.setattr("sr_upscale.device.vulkan_cards", lambda: (GPU,))
    with pytest.raises(UsageError, match=words):
        choose_backend(backend, device, dtype, ncnn_runs=lambda card: True)


def test_a_missing_extra_is_named(micro: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(UsageError, match=r"'\.\[ncnn\]'"):
        Upscaler(micro, backend="ncnn", device="cpu")(pattern(4, 4))


@pytest.mark.usefixtures("installed")
def test_a_batch_knows_its_backend(micro: Path) -> None:
    prints = [
        LocalExecutor(request_of({"model": str(micro), "backend": backend})).fingerprint
        for backend in ("auto", "torch", "ncnn")
    ]
    assert prints[0] == prints[1] != prints[2]


def test_devices_are_listed_with_their_memory(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sr_upscale.device.vulkan_cards", lambda: (PROGRAM, GPU))
    monkeypatch.setattr("sr_upscale.device.has_ncnn", lambda: True)
    monkeypatch.setattr("sr_upscale.device.may_have_gpu_of_torch", lambda: False)
    ran = cli("--list-devices")
    first, *cards = ran.out.splitlines()
    assert re.fullmatch(r"cpu \(threads: \d+\), [\d.]+ GiB", first)
    assert cards == ["vulkan:0 b, 1.0 GiB (a program on the CPU)", "vulkan:1 a, 1.0 GiB"]


# --- Vulkan -----------------------------------------------------------------------------------------

needs_vulkan = pytest.mark.skipif(
    not has_ncnn() or not vulkan_cards(), reason="needs a Vulkan device, such as Mesa's llvmpipe"
)


@needs_vulkan
@pytest.mark.parametrize(("block", "upsampler", "scale"), CONFIGS[::2])
def test_every_block_and_tail_agrees_with_torch_by_vulkan(
    block: str, upsampler: str, scale: int, tmp_path: Path
) -> None:
    weights = random_weights(tmp_path / "a.safetensors", block, upsampler, scale)
    card = Device(type="vulkan", index=0)
    assert difference(weights, device=card, sizes=((7, 13),)) < 1e-3
    assert difference(weights, device=card, dtype="float16", sizes=((7, 13),)) < 1e-2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="exchanges the stream of glibc")
def test_what_libraries_print_is_lost_and_what_python_prints_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    libc = ctypes.CDLL(None)

    def write(text: bytes) -> None:
        libc.fputs(text, ctypes.c_void_p.in_dll(libc, "stderr"))

    with silent_stderr():
        with silent_stderr():
            write(b"lost ")
            sys.stderr.write("python ")
            sys.stderr.flush()
        write(b"lost ")
    write(b"after")
    assert capfd.readouterr() == ("", "python after")


LIMITED = """
import resource, sys, numpy as np, psutil
from pathlib import Path
from sr_upscale.device import Device
from sr_upscale.inference import backends
network = backends.starter("ncnn", Path(sys.argv[1]), Device(type="vulkan", index=0))("float32")
network(np.zeros((1, 3, 16, 16), np.float32))
limit = psutil.Process().memory_info().vms + (12 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    network(np.zeros((1, 3, 256, 256), np.float32))
except MemoryError:
    print("out of memory")
"""


@needs_vulkan
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by RLIMIT_AS")
def test_row_77_memory_that_a_card_refuses_is_an_error_and_no_crash(tmp_path: Path) -> None:
    weights = random_weights(tmp_path / "a.safetensors", "gated", "pixelshuffle", 2, feat=32)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LIMITED, str(weights)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.stderr) == ("out of memory\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("picture", sorted(INPUTS.glob("*.*")), ids=lambda path: path.name)
@pytest.mark.parametrize("device", ["cpu", pytest.param("vulkan", marks=needs_vulkan)])
@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_every_model_agrees_with_torch_on_every_picture(entry: Any, device: str, picture: Path) -> None:
    """Alpha, gray and 16 bits among them, reduced to some 100 pixels a side."""
    pixels = np.asarray(load_image(picture).frames[0].pixels_hwc)
    pixels = pixels[:: max(1, pixels.shape[0] // 80), :: max(1, pixels.shape[1] // 80)][:96, :96]
    expected = Upscaler(entry.name, dtype="fp32", backend="torch")(pixels).astype(float)
    found = Upscaler(entry.name, backend="ncnn", device=device)(pixels)
    levels = np.abs(found - expected) / (257 if pixels.dtype == np.uint16 else 1)
    assert levels.mean() <= 0.05
    assert levels.max() <= 3


@needs_vulkan
@pytest.mark.slow
@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_half_precision_by_vulkan_changes_pixels_by_three_levels_at_most(entry: Any) -> None:
    pixels = np.asarray(Image.open(INPUTS / "0030.jpg"))[100:148, 100:148]
    expected = Upscaler(entry.name, dtype="fp32", backend="torch")(pixels).astype(float)
    levels = np.abs(Upscaler(entry.name, device="vulkan", dtype="fp16")(pixels) - expected)
    assert 0 < levels.mean() <= 0.15
    assert levels.max() <= 3


@pytest.mark.parametrize("what", ["driver", "room for one"])
def test_row_77_without_a_vulkan_driver_the_picture_is_made_on_the_cpu_with_one_line(
    what: str, tmp_path: Path, nearest: Path
) -> None:
    Image.fromarray(pattern(9, 9)).save(tmp_path / "a.png")
    command = [sys.executable, "-m", "sr_upscale", f"{tmp_path}/a.png", "-n", str(nearest), "--device", "vulkan"]
    if what == "room for one":
        command = ["sh", "-c", 'ulimit -v 900000 && exec "$@"', "sh", *command]
    environment = {**os.environ, **(WITHOUT_VULKAN if what == "driver" else {}), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "-o", f"{tmp_path}/b.png"], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "warning: no device here speaks Vulkan, or `ulimit -v` leaves its driver no room; computed on the CPU "
        "(see `sr-upscale doctor`)\n"
    )
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (18, 18)
