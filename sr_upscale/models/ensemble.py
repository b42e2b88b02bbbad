"""Networks made of networks: the self-ensemble (x8) over all turns of a tile, and the blend of two outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sr_upscale.models.descriptor import Traits
from sr_upscale.models.generator import Generator

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


OUTPUT_BLEND = "sr-upscale/output-blend"
"""Architecture that files of an `OutputBlend` name."""


class OutputBlend(nn.Module):
    """Two generators side by side: (1 - share) of the output of the first, and share of that of the second.

    Args:
        first, second: Of one scale.
        share: Share of `second`, 0 to 1.

    Shapes: (N, 3, H, W) -> (N, 3, H * scale, W * scale), as of both.
    """

    def __init__(self, first: Generator, second: Generator, share: float) -> None:
        super().__init__()
        self.first, self.second, self.share = first, second, share

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(self.first(x).float(), self.second(x).float(), self.share)

    @property
    def traits(self) -> Traits:
        """Returns what planning must know."""
        configs = self.first.config, self.second.config
        return Traits(
            architecture=OUTPUT_BLEND,
            scale=configs[0].scale,
            halo=max(config.halo for config in configs),
            parameters=sum(parameter.numel() for parameter in self.parameters()),
        )
