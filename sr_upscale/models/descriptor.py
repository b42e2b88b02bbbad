"""What planning must know about a network, whoever made it."""

from __future__ import annotations

from dataclasses import dataclass

from sr_upscale.models.generator import GeneratorConfig


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
