"""ONNX Runtime, on the CPU, in float32."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sr_upscale.device import Device, cpu_threads
from sr_upscale.formatting import needing
from sr_upscale.inference.backends import Start
from sr_upscale.inference.loaded_networks import ArrayNetwork, Run
from sr_upscale.pretrained.onnx_export import cached_onnx


def starter(weights: Path, _device: Device) -> Start:
    """See `backends.starter`."""
    return partial(ArrayNetwork, partial(_start, cached_onnx(weights)))


def _start(file: Path, _dtype: str) -> Run:
    with needing("onnx", "--backend onnxruntime needs an extra"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tile: session.run(None, {name: tile})[0]
