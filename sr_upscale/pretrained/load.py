"""Weights of any make: what planning must know of them, and the network itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sr_upscale.models.descriptor import Traits
from sr_upscale.pretrained.weights_file import ARCHITECTURE, config_of, is_ours, load_generator, read_info

if TYPE_CHECKING:
    from torch import nn

    from sr_upscale.models.generator import GeneratorConfig


def traits_of(path: Path) -> Traits:
    """What planning must know about weights. Ours say it in their header; others are loaded."""
    if not is_ours(path):
        from sr_upscale.pretrained.spandrel_adapter import load_foreign

        return load_foreign(path)[1]
    config = config_of(read_info(path), path=path)
    return Traits(
        architecture=ARCHITECTURE,
        scale=config.scale,
        halo=config.halo,
        bytes_per_pixel=bytes_per_pixel(config, torch.float32),
        half_bytes_per_pixel=bytes_per_pixel(config, torch.bfloat16),
        config=config,
    )


def module_of(path: Path) -> nn.Module:
    """The network of a weights file: float32, on the CPU, in evaluation mode."""
    if is_ours(path):
        return load_generator(path)[0]
    from sr_upscale.pretrained.spandrel_adapter import load_foreign

    return copy.deepcopy(load_foreign(path)[0])  # each caller moves its own to a device


def bytes_per_pixel(config: GeneratorConfig, dtype: torch.dtype) -> int:
    """Estimate of the memory that a network takes for one LR pixel of a tile.

    A block needs five maps of `num_feat` channels at its widest point (its input, the long skip, both branches, their
    concatenation and the sum), and what is freed between layers takes about one more; the output is float32.
    """
    maps = 6 * config.num_feat * dtype.itemsize + config.scale**2 * 3 * 4
    if config.upsampler == "pixelshuffle":
        return maps
    return maps + config.scale**2 * (2 * 3 * 4 + 3 * config.num_feat * dtype.itemsize)
