"""Other programs that can run a network on a CPU: ONNX Runtime and OpenVINO, each an extra."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sr_upscale.errors import UsageError
from sr_upscale.formatting import extra
from sr_upscale.inference.color_drift import doubtful
from sr_upscale.inference.network import finite

Run = Callable[
    ["np.ndarray[tuple[int, ...], np.dtype[np.float32]]"], "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
]

BACKENDS = ("torch", "onnxruntime", "openvino")
"""What `Upscaler(backend=...)` takes."""


class BackendNetwork:
    """A network that another program runs: (1, 3, H, W) float32 in [0, 1] -> (1, 3, H*s, W*s) float32.

    Input and output are on the CPU. The output is always finite. A doubtful one in bfloat16 (`color_drift.doubtful`) is
    computed again in float32.

    Args:
        onnx_file: The network, with free height and width.
        backend: ``onnxruntime`` or ``openvino``.
        dtype: float32, or bfloat16 with OpenVINO.

    Raises:
        UsageError: The extra is not installed.
        SrUpscaleError: When called: the output is not finite, even in float32.
    """

    def __init__(self, onnx_file: Path, backend: str, dtype: torch.dtype) -> None:
        self.device = torch.device("cpu")
        self.dtype = dtype
        self._start = functools.cache(lambda dtype: _STARTS[backend](onnx_file, dtype))
        self._start(dtype)

    def __call__(self, tile_nchw: Tensor) -> Tensor:
        out = self._run(tile_nchw, self.dtype)
        if self.dtype != torch.float32 and doubtful(tile_nchw, out):
            out = self._run(tile_nchw, torch.float32)
        return finite(out)

    def _run(self, tile_nchw: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(self._start(dtype)(np.ascontiguousarray(tile_nchw.numpy(), dtype=np.float32)))


def _start_onnxruntime(file: Path, _dtype: torch.dtype) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(f"--backend onnxruntime needs an extra; {extra('onnx')}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tile: session.run(None, {name: tile})[0]


def _start_openvino(file: Path, dtype: torch.dtype) -> Run:
    try:
        import openvino
    except ImportError as error:
        raise UsageError(f"--backend openvino needs an extra; {extra('openvino')}") from error
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype is torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(str(file)), "CPU", settings)
    return lambda tile: np.array(compiled(tile)[0])


_STARTS: dict[str, Callable[[Path, torch.dtype], Run]] = {
    "onnxruntime": _start_onnxruntime,
    "openvino": _start_openvino,
}
