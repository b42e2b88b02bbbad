"""Weights of any make: what planning must know of them, and the network itself."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from sr_upscale.errors import ModelError
from sr_upscale.models.descriptor import Traits
from sr_upscale.models.ensemble import OUTPUT_BLEND, OutputBlend
from sr_upscale.models.generator import Generator, GeneratorConfig
from sr_upscale.pretrained.weights_file import (
    ARCHITECTURE,
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
        if (blend := _output_blend(path)) is not None:
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
    if (blend := _output_blend(path)) is not None:
        return blend
    from sr_upscale.pretrained.spandrel_adapter import load_foreign

    return copy.deepcopy(load_foreign(path)[0])  # each caller moves its own to a device


def _output_blend(path: Path) -> OutputBlend | None:
    """Loads a file that `blend.blend_files` wrote of two architectures; None where it is another file.

    Raises:
        ModelError: The file is damaged.
    """
    if path.suffix.lower() != ".safetensors":
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except Exception:  # whoever reads the file next says what is wrong with it
        return None
    if metadata.get("modelspec.architecture") != OUTPUT_BLEND:
        return None
    try:
        first, second = (Generator(GeneratorConfig(**each)) for each in json.loads(metadata["sr_upscale.configs"]))
        blend = OutputBlend(first, second, float(metadata["sr_upscale.share"]))
        blend.load_state_dict(load_safetensors(path))
    except (KeyError, ValueError, TypeError, RuntimeError, ModelError) as error:
        raise ModelError(f"{path}: the blend is damaged ({error}); remove it, and it is made again") from error
    return blend.requires_grad_(False).eval()
