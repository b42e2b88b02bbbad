"""Weights of any make: what planning must know of them, and the network itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from sr_upscale.errors import ModelError
from sr_upscale.models.descriptor import Traits
from sr_upscale.pretrained.weights_file import (
    ARCHITECTURE,
    BLEND_ARCHITECTURE,
    BlendInfo,
    blend_of,
    config_of,
    is_ours,
    load_generator,
    load_safetensors,
    read_info,
)

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
        if (blend := blend_of(path)) is not None:
            halo = max(config.halo for config in blend.configs)
            return Traits(architecture=BLEND_ARCHITECTURE, scale=blend.configs[0].scale, halo=halo)
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
    if (blend := blend_of(path)) is not None:
        return _output_blend(path, blend)
    from sr_upscale.pretrained.spandrel_adapter import load_foreign

    return copy.deepcopy(load_foreign(path)[0])  # each caller moves its own to a device


def _output_blend(path: Path, info: BlendInfo) -> nn.Module:
    """Loads a file that `blend.blend_files` wrote of two architectures."""
    from sr_upscale.models.generator import Generator, OutputBlend

    try:
        first, second = (Generator(config) for config in info.configs)
        blend = OutputBlend(first, second, info.share)
        blend.load_state_dict(load_safetensors(path))
    except (RuntimeError, ModelError) as error:
        raise ModelError(f"{path}: the blend is damaged ({error}); remove it, and it is made again") from error
    return blend.requires_grad_(False).eval()
