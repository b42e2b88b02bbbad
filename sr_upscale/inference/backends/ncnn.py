"""ncnn: on the CPU, or on any graphics card by Vulkan; it starts without torch."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.device import (
    CPU,
    Device,
    DeviceLostError,
    cpu_threads,
    free_memory,
    import_ncnn,
    silent_stderr,
)
from sr_upscale.inference.backends import Start
from sr_upscale.inference.loaded_networks import ArrayNetwork, Run
from sr_upscale.pretrained.ncnn_export import INPUT, OUTPUT, NcnnModel, ncnn_model

NO_MEMORY = -100
"""What ncnn returns where memory ran out."""

LOADED, THREAD_BYTES = 8, 10 << 20
"""Memory that loading takes: so many times the size of the network (measured: 4 to 6), and a thread's stack. ncnn
crashes with less."""


def starter(weights: Path, device: Device) -> Start:
    """See `backends.starter`."""
    return partial(ArrayNetwork, partial(_start, ncnn_model(weights), device))


def _start(model: NcnnModel, device: Device, dtype: str) -> Run:
    ncnn = import_ncnn()
    if free_memory(CPU) < LOADED * len(model.numbers) + THREAD_BYTES * cpu_threads():
        raise MemoryError(f"out of memory on {device}")
    vulkan, half = device.type == "vulkan", dtype == "float16"
    silent = silent_stderr if vulkan and sys.platform == "linux" else contextlib.nullcontext
    net = ncnn.Net()
    net.opt.num_threads = cpu_threads()
    net.opt.use_vulkan_compute = vulkan
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = half
    net.opt.use_fp16_arithmetic = False  # changes pixels more than twice as much (docs/speed.md)
    net.opt.use_bf16_storage = net.opt.use_bf16_packed = False
    with silent():
        if vulkan:
            net.set_vulkan_device(device.index or 0)
        if net.load_param_mem(model.graph) or net.load_model(_reader(model.numbers)):
            raise _failure(device, "the network could not be loaded")

    def run(tile: NDArray[np.float32]) -> NDArray[np.float32]:
        with silent():  # ncnn prints what Vulkan answers, besides returning it
            extractor = net.create_extractor()
            extractor.input(INPUT, ncnn.Mat(tile[0]).clone())
            status, out = extractor.extract(OUTPUT)
            del extractor
        if status == NO_MEMORY or (not status and out.empty()):
            raise MemoryError(f"out of memory on {device}")
        if status:
            raise _failure(device, f"ncnn ended with {status}")
        return np.array(out)[None]

    return run


def _failure(device: Device, what: str) -> Exception:
    return DeviceLostError(f"{device}: {what}") if device.type == "vulkan" else MemoryError(what)


def _reader(numbers: bytes) -> Any:
    """Makes what ncnn reads a ``.bin`` file from, out of its content."""
    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]

    class Reader(import_ncnn().DataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.at = 0

        def read(self, place: Any, size: int) -> int:
            part = numbers[self.at : self.at + size]
            ctypes.memmove(address(place, None), part, len(part))
            self.at += len(part)
            return len(part)

    return Reader()
