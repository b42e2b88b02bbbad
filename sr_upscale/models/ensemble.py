"""Self-ensemble (x8): a network asked about all turns and mirrorings of a tile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TURNS = 8
"""Times that the network runs."""


def self_ensemble(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Makes a function that averages a network's answers to the eight turns and mirrorings of its input.

    Each answer is turned back first. The network runs `TURNS` times, one after the other, so that memory stays what
    one answer takes and a sum.

    Args:
        network: Takes (N, C, H, W) and gives (N, C, H*s, W*s). It must take W and H exchanged too.

    Returns:
        A function that takes and gives the same shapes as `network`.

    Source: Timofte et al. 2016, "Seven ways to improve example-based single image super resolution", arXiv:1511.02228.
    """

    def run(tile_nchw: Tensor) -> Tensor:
        total: Tensor | None = None
        for mirrored in (False, True):
            for turns in range(4):
                answer = _back(network(_there(tile_nchw, turns, mirrored)), turns, mirrored)
                total = answer.clone() if total is None else total.add_(answer)
        assert total is not None
        return total / TURNS

    return run


def _there(x: Tensor, turns: int, mirrored: bool) -> Tensor:
    return torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))


def _back(x: Tensor, turns: int, mirrored: bool) -> Tensor:
    turned = torch.rot90(x, -turns, (-2, -1))
    return turned.flip(-1) if mirrored else turned
