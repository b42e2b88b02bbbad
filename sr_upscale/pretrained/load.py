"""Weights of any make: what planning must know of them, and the network itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from sr_upscale.models.descriptor import Traits
from sr_upscale.pretrained.blend import load_output_blend
from sr_upscale.pretrained.weights_file import ARCHITECTURE, config_of, is_ours, load_generator, read_info

if TYPE_CHECKING:
    from torch import nn


def traits_of(path: Path) -> Traits:
    """Finds out what planning must know about weights.

    Ours say it in their header. Weights of others are loaded.

    Args:
        path: A weights file of any make.

    Raises:
        ModelError: The file cannot be used.
    """
    if not is_ours(path):
        if (blend := load_output_blend(path)) is not None:
            return blend.traits
        from sr_upscale.pretrained.spandrel_adapter import load_foreign

        return load_foreign(path)[1]
    config = config_of(read_info(path), path=path)
    return Traits(
        architecture=ARCHITECTURE,
        scale=config.scale,
        halo=config.halo,
        config=config,
    )


def module_of(path: Path) -> nn.Module:
    """Loads the network of a weights file.

    Args:
        path: A weights file of any make.

    Returns:
        A network of the caller's own: float32, on the CPU, in evaluation mode.

    Raises:
        ModelError: The file cannot be used.
    """
    if is_ours(path):
        return load_generator(path)[0]
    if (blend := load_output_blend(path)) is not None:
        return blend
    from sr_upscale.pretrained.spandrel_adapter import load_foreign

    return copy.deepcopy(load_foreign(path)[0])  # each caller moves its own to a device
