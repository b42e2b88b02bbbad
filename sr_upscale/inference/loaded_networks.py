"""The loaded networks of a planner, each loaded once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sr_upscale.inference.backends import BackendNetwork
from sr_upscale.inference.network import Network
from sr_upscale.inference.planning import Planner
from sr_upscale.inference.strip_tails import STREAM_TAILS
from sr_upscale.inference.strips import StreamNetwork
from sr_upscale.metrics.reference import psnr
from sr_upscale.models.generator import Generator
from sr_upscale.pretrained.load import module_of

AGREEMENT_DB = 50.0
"""PSNR in dB between half precision and fp32 output, below which fp32 is taken."""

AnyNetwork = StreamNetwork | Network | BackendNetwork


class LoadedNetworks:
    """Networks ready to run, by weights and number type.

    Args:
        planner: Says which device and number types to use.
        backend: ``torch``, ``onnxruntime`` or ``openvino``.
    """

    def __init__(self, planner: Planner, backend: str) -> None:
        self.planner, self.backend = planner, backend
        self._networks: dict[tuple[Path, torch.dtype], AnyNetwork] = {}
        self._loading = threading.Lock()

    def get(self, weights: Path, dtype: torch.dtype) -> AnyNetwork:
        """Returns the network of a weights file, ready to run.

        It is loaded once, whichever thread asks. Half precision that nobody asked for is taken only where it agrees
        with fp32 (`AGREEMENT_DB`).

        Args:
            weights: The file.
            dtype: Wanted number type.

        Raises:
            ModelError: The file cannot be used.
            UsageError: The backend needs an extra that is not installed.
        """
        dtype = self.planner.dtype_of(weights, dtype)
        key = (weights, dtype)
        with self._loading:
            if key not in self._networks:
                start = self._starter(weights)
                network = start(dtype)
                if self.planner.automatic_dtype and dtype != torch.float32:
                    exact = start(torch.float32)
                    network = network if agreement_db(network, exact) >= AGREEMENT_DB else exact
                self._networks[key] = network
            return self._networks[key]

    def _starter(self, weights: Path) -> Callable[[torch.dtype], AnyNetwork]:
        """Loads a weights file once, and returns what makes it ready to run in a number type."""
        if self.backend == "torch":
            module = module_of(weights)
            if isinstance(module, Generator) and type(module.tail) in STREAM_TAILS:
                return partial(StreamNetwork, module.to(self.planner.choice.device))
            return partial(Network, module, self.planner.choice.device)
        from sr_upscale.pretrained.onnx_export import cached_onnx

        return partial(BackendNetwork, cached_onnx(weights), self.backend)


def agreement_db(network: Callable[[Tensor], Tensor], exact: Callable[[Tensor], Tensor]) -> float:
    """Measures how well a network in half precision agrees with the same one in fp32, on a fixed synthetic patch.

    Args:
        network: In half precision, (1, 3, H, W) float32 in [0, 1] -> (1, 3, H * scale, W * scale) float32.
        exact: The same in fp32.

    Returns:
        PSNR in dB between the two outputs.
    """
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    waves = [0.5 + 0.25 * torch.sin(x * a + y * b) + 0.2 * torch.sign(torch.sin(x * 0.3 - y * a)) for a, b in _WAVES]
    patch = torch.stack(waves)[None]
    return float(psnr(network(patch).clamp(0, 1), exact(patch).clamp(0, 1)))


_WAVES = ((0.9, 0.2), (0.4, 0.7), (0.15, 0.35))
