"""Networks that others drew, to be taught here: built by the constructors of spandrel (an extra).

A file holds the network's own tensors under their own names. So every program that knows the architecture loads it.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sr_upscale.errors import ModelError, UsageError
from sr_upscale.formatting import extra
from sr_upscale.pretrained.weights_file import WeightsInfo, is_ours, load_generator, save_generator, save_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Constructor:
    """How spandrel builds an architecture.

    Attributes:
        module: Module of ``spandrel.architectures``, and class in it.
        scale: Keyword of the factor.
        sizes: Keywords that a recipe may set; spandrel finds them again in the weights.
        fixed: Keywords that are always given.
        source: The paper.
    """

    module: str
    scale: str
    sizes: tuple[str, ...]
    source: str
    fixed: Mapping[str, int] = field(default_factory=dict)


ARCHITECTURES = {
    "compact": Constructor(
        module="Compact", scale="upscale", sizes=("num_feat", "num_conv"), source="Wang et al. 2021, arXiv:2107.10833"
    ),
    "span": Constructor(
        module="SPAN",
        scale="upscale",
        sizes=("feature_channels",),
        source="Wan et al. 2023, arXiv:2311.12770",
        fixed={"num_in_ch": 3, "num_out_ch": 3},
    ),
    "esrgan": Constructor(
        module="ESRGAN", scale="scale", sizes=("num_filters", "num_blocks"), source="Wang et al. 2018, arXiv:1809.00219"
    ),
    "plksr": Constructor(
        module="PLKSR", scale="upscaling_factor", sizes=("dim", "n_blocks"), source="Lee et al. 2024, arXiv:2404.11848"
    ),
}
"""Architectures by the name that a recipe gives. None has batch norms, and each takes pictures of any size."""


def build_network(name: str, *, scale: int, options: Mapping[str, int]) -> nn.Module:
    """Builds a network of others with random weights, from torch's global generator.

    Args:
        name: A key of `ARCHITECTURES`.
        scale: Factor.
        options: Sizes by the constructor's keywords; what is left out is as published.

    Returns:
        A network, (N, 3, H, W) RGB in [0, 1] -> (N, 3, H * scale, W * scale), nominally in [0, 1].

    Raises:
        UsageError: An option is unknown, or no such network can be built.
        ModelError: spandrel is not installed.
    """
    row = ARCHITECTURES[name]
    try:
        import spandrel
    except ImportError as error:
        raise ModelError(f"model.arch is {name!r}: it needs an extra; {extra('models')}") from error
    if unknown := [key for key in options if key not in row.sizes]:
        raise UsageError(f"model.options has {unknown[0]!r}; {name} takes {', '.join(row.sizes)}")
    constructor = getattr(importlib.import_module(f"spandrel.architectures.{row.module}"), row.module)
    given = ", ".join(f"{key} = {value}" for key, value in {"scale": scale, **options}.items())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about layers without elements, among others
            network: nn.Module = constructor(**{row.scale: scale, **row.fixed, **options})
            again = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(network.state_dict()))
    except Exception as error:  # sizes are trusted there in every way
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"no {name} can be built with {given} ({reason}); try other sizes") from error
    if (again.architecture.id.lower(), again.scale) != (row.module.lower(), scale):
        raise UsageError(f"{name} with {given} would be read as {again.architecture.name} x{again.scale}; try others")
    return network


def save_network(path: Path, model: nn.Module, info: WeightsInfo, *, arch: str) -> None:
    """Writes weights that ``-n FILE`` takes, whole or not at all.

    Args:
        path: Target, replaced if it exists.
        model: A `Generator`, or a network of `build_network`.
        info: Header.
        arch: A key of `ARCHITECTURES`; empty for a `Generator`.

    Raises:
        OutputError: The file cannot be written.
    """
    from sr_upscale.models.generator import Generator

    if isinstance(model, Generator):
        save_generator(path, model, info)
    else:
        save_tensors(path, model, info.to_metadata(architecture=arch))


def tensors_of(path: Path) -> Mapping[str, Tensor]:
    """Reads the tensors of a weights file of any make, by the names that they have in their network.

    Raises:
        ModelError: The file cannot be used.
    """
    if is_ours(path):
        return load_generator(path)[0].state_dict()
    from sr_upscale.pretrained.spandrel_adapter import load_foreign

    return load_foreign(path)[0].network.state_dict()  # type: ignore[no-any-return]
