"""What must be known of a network without building it, whoever made it. This module does not import torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sr_upscale.errors import ModelError
from sr_upscale.formatting import shortened

NEGATIVE_SLOPE = 0.2
"""Of the generator's LeakyReLU."""

INNER_ROWS: dict[str, tuple[int, ...]] = {"inception": (3, 2, 2), "gated": (1, 2)}
"""Blocks by name: rows of half the channels that each keeps between its convs while it streams
(`inference.strip_layers`)."""


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Everything that is needed to build a `Generator`.

    Attributes:
        scale: Integer factor of the network: 2, 3, 4 or 8.
        num_feat: Channels of the trunk, even, at least 2.
        num_blocks: Number of inception-residual blocks, at least 1.
        upsampler: Name of the tail, one of `TAIL_TRAITS`.
        block: Name of the blocks, one of `INNER_ROWS`.

    Raises:
        ModelError: A value is none of these.
    """

    scale: int = 4
    num_feat: int = 64
    num_blocks: int = 24
    upsampler: str = "pixelshuffle"
    block: str = "inception"

    def __post_init__(self) -> None:
        for name in ("scale", "num_feat", "num_blocks"):
            if type(value := getattr(self, name)) is not int:
                raise ModelError(f"generator {name} is {shortened(repr(value))}; expected a whole number")
        if self.scale not in (2, 3, 4, 8):
            raise ModelError(f"generator scale is {self.scale}; expected 2, 3, 4 or 8")
        if self.num_feat < 2 or self.num_feat % 2:
            raise ModelError(f"generator num_feat is {self.num_feat}; expected an even number of at least 2")
        if self.num_blocks < 1:
            raise ModelError(f"generator num_blocks is {self.num_blocks}; expected at least 1")
        for name, known in (("upsampler", TAIL_TRAITS), ("block", INNER_ROWS)):
            if getattr(self, name) not in known:
                raise ModelError(
                    f"generator {name} is {shortened(repr(getattr(self, name)))}; expected {' or '.join(known)}"
                )

    @property
    def trunk_reach(self) -> int:
        """Returns the radius of the receptive field of head, blocks and trunk conv, in LR pixels."""
        return 1 + 2 * self.num_blocks + (1 if self.block == "inception" else 0)

    @property
    def halo(self) -> int:
        """Returns the radius of the receptive field in LR pixels. An output pixel depends on nothing farther."""
        return TAIL_TRAITS[self.upsampler].halo(self) + self.trunk_reach


@dataclass(frozen=True, kw_only=True)
class TailTraits:
    """What planning must know of a tail of the generator (`models.generator.TAILS`).

    Attributes:
        halo: Gives the radius of its receptive field in LR pixels.
        tile_bytes: Estimates the bytes that it takes for each LR pixel of a tile, beside those of the blocks, with
            numbers of so many bytes.
        strip_bytes: Estimates the bytes that it takes for each LR pixel of a strip, with numbers of so many bytes.
    """

    halo: Callable[[GeneratorConfig], int]
    tile_bytes: Callable[[GeneratorConfig, int], int]
    strip_bytes: Callable[[GeneratorConfig, int], int]


def nearest_stages(scale: int) -> tuple[int, ...]:
    """Returns the upsampling factors of the stages of ``nearest_conv``, first to last. Their product is the scale."""
    return (3,) if scale == 3 else (2,) * int(math.log2(scale))


def _nearest_halo(config: GeneratorConfig) -> int:
    radius = 2  # the two convs at the output's resolution
    for factor in reversed(nearest_stages(config.scale)):
        radius = math.ceil((radius + 1) / factor)
    return radius


TAIL_TRAITS: dict[str, TailTraits] = {
    "pixelshuffle": TailTraits(
        halo=lambda _config: 1,
        tile_bytes=lambda config, _size: config.scale**2 * 3 * 4,
        strip_bytes=lambda config, size: config.scale**2 * 3 * (size + 3 * 4),
    ),
    "nearest_conv": TailTraits(
        halo=_nearest_halo,
        tile_bytes=lambda config, size: config.scale**2 * (3 * 3 * 4 + 3 * config.num_feat * size),
        strip_bytes=lambda config, size: config.scale**2 * 4 * config.num_feat * size,
    ),
}
"""Tails by the name in a configuration."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """A network, ours or from outside.

    Attributes:
        architecture: Name of the architecture.
        scale: Factor; 1 for networks that clean and do not enlarge.
        halo: Radius of the receptive field in LR pixels; None where it is not known, or is the whole picture.
        half: Half precisions in which it may run, among ``fp16`` and ``bf16``.
        max_tile_pixels: Most LR pixels of a tile. Larger tiles do not pay, or do not work.
        parameters: Number of parameters.
        config: Configuration of one of our generators, which can stream; None for other networks.
    """

    architecture: str
    scale: int
    halo: int | None
    half: tuple[str, ...] = ("fp16", "bf16")
    max_tile_pixels: int = 1 << 40
    parameters: int = 0
    config: GeneratorConfig | None = None
