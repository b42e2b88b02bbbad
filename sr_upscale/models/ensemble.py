"""Self-ensemble (x8): a network asked about all turns and mirrorings of a tile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sr_upscale.functional.planes import Planes

TURNS = 8
"""Times that the network runs."""


def self_ensemble(
    network: Callable[[Planes], Planes], on_turn: Callable[[], None] = lambda: None
) -> Callable[[Planes], Planes]:
    """Makes a function that averages a network's answers to the eight turns and mirrorings of its input.

    Each answer is turned back first. The network runs `TURNS` times, one after the other, so that memory stays what
    one answer takes and a sum.

    Args:
        network: Takes (N, C, H, W) and gives (N, C, H*s, W*s), arrays or tensors. It must take W and H exchanged too.
        on_turn: Called after each run.

    Returns:
        A function that takes and gives the same shapes as `network`.

    Source: Timofte et al. 2016, "Seven ways to improve example-based single image super resolution", arXiv:1511.02228.
    """

    def run(tile_nchw: Planes) -> Planes:
        total: Planes = 0
        for mirrored in (False, True):
            for turns in range(4):
                total = total + _back(network(_there(tile_nchw, turns, mirrored)), turns, mirrored)
                on_turn()
        return total / TURNS

    return run


def _there(x: Planes, turns: int, mirrored: bool) -> Planes:
    return _turned(_mirrored(x) if mirrored else x, turns)


def _back(x: Planes, turns: int, mirrored: bool) -> Planes:
    turned = _turned(x, -turns)
    return _mirrored(turned) if mirrored else turned


def _turned(x: Planes, turns: int) -> Planes:
    if isinstance(x, np.ndarray):
        return np.ascontiguousarray(np.rot90(x, turns, (-2, -1)))  # torch takes no negative strides
    return x.rot90(turns, (-2, -1))


def _mirrored(x: Planes) -> Planes:
    return np.flip(x, -1) if isinstance(x, np.ndarray) else x.flip(-1)
