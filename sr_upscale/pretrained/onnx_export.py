"""Weights -> ONNX, for other programs and for the backends.

Needs the extra ``onnx``.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import torch
from torch import nn

from sr_upscale.errors import ModelError
from sr_upscale.formatting import needing
from sr_upscale.pretrained.load import difference, module_of
from sr_upscale.pretrained.registry import cached_form
from sr_upscale.storage.atomic import replace_file

TOLERANCE = 1e-4
"""Largest difference between torch and ONNX Runtime that an export may have, of a range of 1."""


def export_onnx(weights: Path, out: Path) -> float:
    """Writes a network as ONNX with free height and width, after comparing it with torch.

    Input ``lr`` is (1, 3, H, W) float32 RGB in [0, 1]. Output ``sr`` is (1, 3, H * scale, W * scale), not clamped.

    Args:
        weights: A weights file of any make.
        out: Target, replaced if it exists.

    Returns:
        Largest absolute difference between torch and ONNX Runtime, of a range of 1.

    Raises:
        UsageError: The extra is not installed.
        ModelError: The weights cannot be used, or the architecture cannot be exported or comes out different.
        OutputError: `out` cannot be written.
    """
    module = module_of(weights)
    with needing("onnx", "ONNX needs an extra"):
        import onnx  # noqa: F401 (torch's exporter needs it)
        import onnxscript  # noqa: F401
    dynamic = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # about torch's own exporter
            program = torch.onnx.export(
                module,
                (torch.rand(1, 3, 48, 64),),
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=["lr"],
                output_names=["sr"],
                verbose=False,
            )
    except Exception as error:  # the exporter fails in many ways
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{weights}: this architecture cannot be exported ({reason}); use it with torch") from error
    assert program is not None
    with replace_file(out) as temporary:
        program.save(str(temporary), external_data=False)
        worst = compare(module, temporary)
    return worst


def compare(module: nn.Module, file: Path) -> float:
    """Measures the largest difference between torch and ONNX Runtime on random pictures.

    Args:
        module: Network in evaluation mode on the CPU, (1, 3, H, W) -> (1, 3, H * scale, W * scale).
        file: The same network as ONNX.

    Returns:
        Largest absolute difference of the outputs, for inputs in [0, 1].

    Raises:
        UsageError: The extra is not installed.
        ModelError: The difference is larger than `TOLERANCE`.
    """
    with needing("onnx", "ONNX needs an extra"):
        import onnxruntime
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    worst = difference(module, lambda picture: session.run(None, {name: picture})[0])
    if worst > TOLERANCE:
        raise ModelError(f"export: ONNX Runtime differs from torch by {worst:.1e}; expected at most {TOLERANCE:g}")
    return worst


def cached_onnx(weights: Path) -> Path:
    """Returns the ONNX form of weights from the cache (`registry.cached_form`), and makes it if it is not there.

    Raises:
        UsageError: The extra is not installed.
        ModelError: The weights cannot be used, or the architecture cannot be exported or comes out different.
    """
    return cached_form(weights, ".onnx", export_onnx)
