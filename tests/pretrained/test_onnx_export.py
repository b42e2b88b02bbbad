"""ONNX, and the backends that run it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_upscale.errors import ModelError, UsageError
from sr_upscale.models.generator import Generator, GeneratorConfig
from sr_upscale.pretrained.load import module_of
from sr_upscale.pretrained.onnx_export import cached_onnx, compare
from sr_upscale.pretrained.weights_file import WeightsInfo, save_generator
from sr_upscale.upscaler import Upscaler
from tests.helpers import Cli, pattern

needs_avx = pytest.mark.skipif(
    os.environ.get("ONEDNN_MAX_CPU_ISA") == "SSE41", reason="OpenVINO's nearest neighbour fails without AVX"
)


@pytest.fixture(scope="session")
def exported(micro: Path) -> Path:
    """The micro-model as ONNX, out of the cache."""
    return cached_onnx(micro)


def test_export_agrees_with_torch_at_any_size(exported: Path, micro: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    module = module_of(micro)
    for height, width in ((1, 1), (1, 9), (31, 17)):
        picture = torch.rand(1, 3, height, width)
        (found,) = session.run(None, {"lr": picture.numpy()})
        np.testing.assert_allclose(found, module(picture).numpy(), atol=1e-5)


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=needs_avx)])
def test_gated_blocks_run_on_every_backend(tmp_path: Path, backend: str) -> None:
    torch.manual_seed(4)
    model = Generator(GeneratorConfig(scale=2, num_feat=8, num_blocks=2, block="gated"))
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    save_generator(tmp_path / "gated.safetensors", model, WeightsInfo(name="gated"))
    pixels = pattern(21, 34)
    expected = Upscaler(tmp_path / "gated.safetensors", dtype="fp32")(pixels).astype(int)
    found = Upscaler(tmp_path / "gated.safetensors", dtype="fp32", backend=backend)(pixels)
    assert np.abs(found - expected).max() <= 1


def test_command(cli: Cli, exported: Path, micro: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    ran = cli("export", "-n", micro, "-o", out, "--json", code=0)
    assert json.loads(ran.out)["largest_difference"] < 1e-4
    assert compare(module_of(micro), out) < 1e-4
    assert cli("export", "-n", micro, "-o", out).code == 5
    assert "expected a name ending in .onnx" in cli("export", "-n", micro, "-o", "a.tflite", code=2).err


def test_an_export_for_a_backend_is_announced_once(
    cli: Cli, micro: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SR_UPSCALE_CACHE", str(tmp_path / "cache"))
    Image.fromarray(pattern(8, 9)).save(tmp_path / "a.png")
    call = [tmp_path / "a.png", "-n", micro, "--backend", "onnxruntime", "-o", tmp_path / "b.png", "--force"]
    said = [(ran.code, "exporting to ONNX, once for each model" in ran.err) for ran in (cli(*call), cli(*call))]
    assert said == [(0, True), (0, False)]


def test_an_export_that_differs_is_refused(exported: Path, nearest: Path) -> None:
    with pytest.raises(ModelError, match="ONNX Runtime differs from torch by"):
        compare(module_of(nearest), exported)


def test_the_cache_follows_the_content(exported: Path, micro: Path) -> None:
    before = exported.stat().st_mtime_ns
    assert cached_onnx(micro) == exported
    assert exported.stat().st_mtime_ns == before


def test_a_damaged_file_of_the_cache_is_made_anew(exported: Path, micro: Path) -> None:
    exported.write_bytes(exported.read_bytes()[:-10])
    assert cached_onnx(micro) == exported
    assert compare(module_of(micro), exported) < 1e-4


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=needs_avx)])
def test_backends_make_the_same_picture(exported: Path, micro: Path, backend: str) -> None:
    pixels = pattern(50, 61)
    expected = Upscaler(micro, dtype="fp32")(pixels)
    for tile_size in (None, 32):
        found = Upscaler(micro, dtype="fp32", backend=backend, tile_size=tile_size)(pixels)
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_backend_option(cli: Cli, exported: Path, micro: Path, photo: Path, tmp_path: Path) -> None:
    for backend in ("torch", "onnxruntime"):
        out = tmp_path / f"{backend}.png"
        assert cli(photo, "-n", micro, "--backend", backend, "--fp32", "-o", out).code == 0
    ours, theirs = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("torch", "onnxruntime"))
    assert np.abs(ours - theirs).max() <= 1
    ran = cli(photo, "--backend", "tvm", "-o", tmp_path / "x.png")
    assert "expected one of auto, torch, ncnn, onnxruntime, openvino" in ran.err
    with pytest.raises(UsageError, match="computes in fp32 here"):
        Upscaler(micro, backend="onnxruntime", dtype="bf16")


@pytest.mark.parametrize(
    ("module", "backend", "words"),
    [("onnxruntime", "onnxruntime", r"'\.\[onnx\]'"), ("openvino", "openvino", r"'\.\[openvino\]'")],
)
def test_missing_extras_are_named(
    exported: Path, micro: Path, monkeypatch: pytest.MonkeyPatch, module: str, backend: str, words: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=words):
        Upscaler(micro, dtype="fp32", backend=backend)(pattern(4, 4))
