"""Weights of any make: what planning must know of them, and the network itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

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

CHECK_SIZES = ((24, 24), (17, 40))
"""(height, width) of the pictures on which a network is compared with its form for another program."""


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


def difference(module: nn.Module, run: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> float:
    """Measures the largest difference between a network and its form for another program on random pictures.

    Args:
        module: In evaluation mode on the CPU, (1, 3, H, W) -> (1, 3, H * scale, W * scale).
        run: The same for arrays.

    Returns:
        Largest absolute difference, of a range of 1; infinite where the outputs differ in size.
    """
    import torch

    worst, generator = 0.0, torch.Generator().manual_seed(0)
    for height, width in CHECK_SIZES:
        picture = torch.rand(1, 3, height, width, generator=generator)
        found = run(picture.numpy())
        with torch.inference_mode():
            expected = module(picture).numpy()
        worst = max(worst, float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf)
    return worst
