"""Networks of others -> ncnn, by pnnx, which needs the extra ``ncnn-convert``."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from sr_upscale.device import import_ncnn, silent_stderr
from sr_upscale.errors import ModelError, UsageError
from sr_upscale.formatting import extra
from sr_upscale.pretrained.load import module_of
from sr_upscale.pretrained.registry import cached_form
from sr_upscale.storage.atomic import replace_file

TRACED, VARIED = (32, 48), (40, 24)
"""(height, width) of the picture that a network is traced with, and of another, by which pnnx knows what varies."""

CHECK_SIZES = ((24, 24), (17, 40))
"""(height, width) of the pictures on which ncnn is compared with torch."""

TOLERANCE = 1e-3
"""Largest difference between torch and ncnn that a conversion may have, of a range of 1."""

PATIENCE = 300
"""Seconds after which a conversion counts as failed."""


def converted(weights: Path) -> tuple[str, bytes]:
    """Returns graph and numbers of a network of others, from the cache (`registry.cached_form`) or converted now.

    The ends of the graph are called ``in0`` and ``out0``, as pnnx names them.

    Raises:
        UsageError: The extra is not installed.
        ModelError: The weights cannot be used, or pnnx or ncnn does not know the architecture.
    """
    with zipfile.ZipFile(cached_form(weights, ".ncnn", _convert)) as file:
        return file.read("param").decode(), file.read("bin")


def _convert(weights: Path, out: Path) -> None:
    try:
        from pnnx import EXEC_PATH
    except ImportError as error:
        raise UsageError(
            f"ncnn runs networks of others after a conversion, which needs an extra; {extra('ncnn-convert')}, "
            "or use --backend torch"
        ) from error
    shapes = [f"[1,3,{height},{width}]f32" for height, width in (TRACED, VARIED)]
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings(), torch.inference_mode():
        folder = Path(name)
        warnings.simplefilter("ignore")  # about tracing, and what networks of others do meanwhile
        module = module_of(weights)
        try:
            torch.jit.trace(module, torch.rand(1, 3, *TRACED), check_trace=False).save(str(folder / "network.pt"))  # type: ignore[no-untyped-call]
            command = [EXEC_PATH, "network.pt", f"inputshape={shapes[0]}", f"inputshape2={shapes[1]}", "fp16=0"]
            subprocess.run(command, cwd=folder, capture_output=True, timeout=PATIENCE, check=True)
            graph = (folder / "network.ncnn.param").read_text()
            difference = _difference(module, folder)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{weights}: pnnx cannot convert it for ncnn ({reason}); use --backend torch") from error
        if not difference <= TOLERANCE:
            raise ModelError(f"{weights}: ncnn differs from torch by {difference:.1e}; use --backend torch")
        with replace_file(out) as temporary, zipfile.ZipFile(temporary, "w") as file:
            file.writestr("param", graph)
            file.write(folder / "network.ncnn.bin", "bin")


def _difference(module: torch.nn.Module, folder: Path) -> float:
    """Measures the largest difference between torch and what pnnx wrote on random pictures; infinite if it fails."""
    ncnn = import_ncnn()
    net = ncnn.Net()
    with silent_stderr():
        missing = net.load_param(str(folder / "network.ncnn.param"))
    if missing or net.load_model(str(folder / "network.ncnn.bin")):
        raise RuntimeError("ncnn lacks a layer of it")
    worst, generator = 0.0, torch.Generator().manual_seed(0)
    for height, width in CHECK_SIZES:
        picture = torch.rand(1, 3, height, width, generator=generator)
        expected = module(picture).numpy()[0]
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(picture[0].numpy()).clone())
        status, out = extractor.extract("out0")
        found = np.array(out) if not status else np.empty(0)
        worst = max(worst, float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf)
    return worst
