"""What the programs have in common that take arrays and give arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sr_upscale.functional.planes import Planes, on_host
from sr_upscale.inference.color_drift import doubtful, finite

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
