"""Programs that run networks. Each is a module with a `starter`; only that of torch imports torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sr_upscale.device import Device
    from sr_upscale.functional.planes import Planes

BACKENDS = {
    "torch": "sr_upscale.inference.backends.torch",
    "ncnn": "sr_upscale.inference.backends.ncnn",
    "onnxruntime": "sr_upscale.inference.backends.onnxruntime",
    "openvino": "sr_upscale.inference.backends.openvino",
}
"""Modules by the name of the backend."""


class LoadedNetwork(Protocol):
    """A network ready to run: (1, 3, H, W) float32 in [0, 1] -> (1, 3, H*s, W*s) float32, always finite.

    Attributes:
        dtype: Number type of its convs: ``float32``, ``bfloat16`` or ``float16``, or torch's own of that name.
    """

    @property
    def dtype(self) -> Any: ...

    def __call__(self, planes_nchw: Planes, /) -> Planes: ...


Start = Callable[[str], LoadedNetwork]
"""Makes a network that has been loaded ready to run in a number type."""


def starter(backend: str, weights: Path, device: Device) -> Start:
    """Loads a weights file once, and returns what makes it ready to run.

    Args:
        backend: One of `BACKENDS`.
        weights: The file.
        device: Where it will run.

    Raises:
        ModelError: The file cannot be used, or not by this backend.
        UsageError: The backend needs an extra that is not installed.
    """
    start: Start = import_module(BACKENDS[backend]).starter(weights, device)
    return start
