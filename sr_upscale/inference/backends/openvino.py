"""OpenVINO, on the CPU, in float32 or bfloat16."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from sr_upscale.device import Device, cpu_threads
from sr_upscale.formatting import needing
from sr_upscale.inference.backends import Start
from sr_upscale.inference.loaded_networks import ArrayNetwork, Run
from sr_upscale.pretrained.onnx_export import cached_onnx


def starter(weights: Path, _device: Device) -> Start:
    """See `backends.starter`."""
    return partial(ArrayNetwork, partial(_start, cached_onnx(weights)))


def _start(file: Path, dtype: str) -> Run:
    with needing("openvino", "--backend openvino needs an extra"):
        import openvino
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": cpu_threads(),
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(str(file)), "CPU", settings)
    return lambda tile: np.array(compiled(tile)[0])
