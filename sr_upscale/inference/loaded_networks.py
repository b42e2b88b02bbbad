"""The loaded networks of a planner, each loaded once, and those that other programs than torch run."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sr_upscale.functional.planes import Planes, on_host
from sr_upscale.inference.backends import LoadedNetwork, starter
from sr_upscale.inference.color_drift import doubtful, finite
from sr_upscale.inference.planning import Planner

AGREEMENT_DB = 50.0
"""PSNR in dB between half precision and fp32 output, below which fp32 is taken."""


class LoadedNetworks:
    """Networks ready to run, by weights and number type.

    Args:
        planner: Says which device and number types to use.
        backend: One of `backends.BACKENDS`.
    """

    def __init__(self, planner: Planner, backend: str) -> None:
        self.planner, self.backend = planner, backend
        self._networks: dict[tuple[Path, str], LoadedNetwork] = {}
        self._loading = threading.Lock()

    def get(self, weights: Path, dtype: str) -> LoadedNetwork:
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
                start = starter(self.backend, weights, self.planner.choice.device)
                network = start(dtype)
                if self.planner.automatic_dtype and dtype != "float32":
                    exact = start("float32")
                    network = network if agreement_db(network, exact) >= AGREEMENT_DB else exact
                self._networks[key] = network
            return self._networks[key]


def agreement_db(network: LoadedNetwork, exact: LoadedNetwork) -> float:
    """Measures how well a network in half precision agrees with the same one in fp32, on a fixed synthetic patch.

    Args:
        network: In half precision.
        exact: The same in fp32.

    Returns:
        PSNR in dB between the two outputs.
    """
    y, x = np.mgrid[:48.0, :48.0]
    waves = [0.5 + 0.25 * np.sin(x * a + y * b) + 0.2 * np.sign(np.sin(x * 0.3 - y * a)) for a, b in _WAVES]
    patch = np.stack(waves)[None].astype(np.float32)
    half, single = (on_host(each(patch)).clip(0, 1).astype(np.float64) for each in (network, exact))
    error = float(((half - single) ** 2).mean())
    return -10 * math.log10(error) if error else math.inf


_WAVES = ((0.9, 0.2), (0.4, 0.7), (0.15, 0.35))


Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(1, 3, H, W) in [0, 1] -> (1, 3, H*s, W*s)."""


class ArrayNetwork:
    """A network that another program than torch runs: (1, 3, H, W) in [0, 1] -> (1, 3, H*s, W*s), float32, finite.

    A doubtful result in half precision (`color_drift.doubtful`) is computed again in float32.

    Args:
        start: Makes what runs the network in a number type; each type is started once.
        dtype: Number type of the convs.

    Raises:
        SrUpscaleError: When called: the output is not finite, even in float32.
    """

    def __init__(self, start: Callable[[str], Run], dtype: str) -> None:
        self.dtype = dtype
        self._start = functools.cache(start)
        self._start(dtype)

    def __call__(self, planes_nchw: Planes) -> Planes:
        tile = np.ascontiguousarray(on_host(planes_nchw), dtype=np.float32)
        out = self._start(self.dtype)(tile)
        if self.dtype != "float32" and doubtful(tile, out):
            out = self._start("float32")(tile)
        return finite(out)
