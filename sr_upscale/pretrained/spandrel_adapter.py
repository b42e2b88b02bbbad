"""Weights that others made: ESRGAN, SPAN, SwinIR, DAT, HAT and what else spandrel (an extra) recognises.

The file is read here, safely (`safe_pickle`, safetensors), so that spandrel sees tensors alone. It knows architectures
under permissive licences (chaiNNer-org/spandrel, MIT). It also knows what each of them needs: multiples of a size,
channels, number types.
"""

from __future__ import annotations

import importlib
import math
import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sr_upscale.errors import ModelError, UsageError
from sr_upscale.formatting import mebibytes, needing
from sr_upscale.models.descriptor import Traits
from sr_upscale.pretrained.safe_pickle import Limited, load_tensors
from sr_upscale.pretrained.weights_file import (
    MAX_TENSORS,
    WeightsInfo,
    is_ours,
    load_generator,
    load_safetensors,
    save_generator,
    save_tensors,
)

SHARED = 4
"""How many times the size of a file its tensors may be, since some of them may share their numbers."""
MAX_SCALE = 32
"""Largest factor of a network. No known one goes beyond 16."""
TILE_PIXELS = 256 * 256
"""Largest tile, in LR pixels: attention and deep trunks take much memory for each pixel."""


class Foreign(nn.Module):
    """A network that others made: (1, 3, H, W) RGB in [0, 1] -> (1, 3, H * scale, W * scale) in [0, 1].

    It takes these whatever channels and sizes the network inside takes.

    Args:
        descriptor: The network, as spandrel describes it.
    """

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network = descriptor.model  # registered here, so that `to` moves it
        self.descriptor = descriptor
        self.scale = int(descriptor.scale)
        self.channels = int(descriptor.input_channels)

    def forward(self, image: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about their code, and nothing that a user could mend
            # spandrel pads to the sizes that the network takes, crops again, and clamps to [0, 1]
            return _as_rgb(self.descriptor(_with_channels(image, self.channels)))


def _with_channels(image: Tensor, channels: int) -> Tensor:
    if channels == 1:
        return image.mean(dim=1, keepdim=True)
    if channels == 4:
        return torch.cat((image, torch.ones_like(image[:, :1])), dim=1)
    return image


def _as_rgb(image: Tensor) -> Tensor:
    return image[:, :3] if image.shape[1] >= 3 else image[:, :1].expand(-1, 3, -1, -1)


@lru_cache(maxsize=4)
def _load(path: Path, _changed_ns: int) -> tuple[Foreign, Traits]:
    state = _state_of(path)
    what = f"{path}: not made by `sr-upscale train`; weights of others need an extra"
    with needing("models", what, ModelError):
        import spandrel
    try:
        state = spandrel.canonicalize_state_dict(state)
    except AttributeError as error:
        raise ModelError(f"{path}: a tensor's name is not text; the file is damaged, get it again") from error
    _check_count(path, state)
    _check(path, state)
    try:
        with warnings.catch_warnings(), Limited(state, str(path)):
            warnings.simplefilter("ignore")
            descriptor = spandrel.ModelLoader(device="cpu").load_from_state_dict(state)
    except spandrel.UnsupportedModelError as error:
        keys = ", ".join(sorted(map(str, state))[:5])
        raise ModelError(
            f"{path}: no known architecture has these weights (the first keys: {keys}); "
            "expected one of ESRGAN, SPAN, compact, SwinIR, DAT, HAT and others that spandrel lists"
        ) from error
    except ModelError:
        raise
    except Exception as error:  # spandrel takes a network's sizes from its tensors, and trusts them in every way
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: the weights do not fit their architecture ({reason}); get the file again") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise ModelError(f"{path}: {descriptor.architecture.name} fills holes and does not enlarge; not usable here")
    channels = {descriptor.input_channels, descriptor.output_channels}
    if not channels <= {1, 3, 4} or not 1 <= descriptor.scale <= MAX_SCALE:
        raise ModelError(
            f"{path}: a network of {descriptor.input_channels} to {descriptor.output_channels} channels that enlarges "
            f"x{descriptor.scale}; expected 1, 3 or 4 channels, and x1 to x{MAX_SCALE}"
        )
    module = Foreign(descriptor).requires_grad_(False).eval()
    half = [("fp16", descriptor.supports_half), ("bf16", descriptor.supports_bfloat16)]
    whole = descriptor.tiling is not spandrel.ModelTiling.SUPPORTED
    traits = Traits(
        architecture=descriptor.architecture.name,
        scale=module.scale,
        halo=None,
        half=tuple(name for name, supported in half if supported),
        max_tile_pixels=1 << 40 if whole else TILE_PIXELS,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )
    return module, traits


def load_foreign(path: Path) -> tuple[Foreign, Traits]:
    """Loads the network and the traits of a third-party file; the last few are kept.

    Args:
        path: A ``.safetensors``, ``.pth``, ``.pt`` or ``.ckpt`` file.

    Returns:
        The network (float32, CPU, evaluation mode) and its traits. Callers share them: copy the network to change it.

    Raises:
        ModelError: The file is missing, unsafe, damaged, unknown or not finite, or spandrel is not installed.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise ModelError(f"{path}: no such weights file ({error.strerror})") from error
    return _load(path, changed)


def tensors_in(path: Path) -> dict[str, Any]:
    """Reads the tensors of a file of others by name, without asking what network they are.

    Raises:
        ModelError: The file is missing, damaged, or holds more than tensors.
    """
    state = _state_of(path)
    inner = next((state[key] for key in ("params_ema", "params") if isinstance(state.get(key), Mapping)), state)
    return {str(key): value for key, value in inner.items()}


def _state_of(path: Path) -> dict[str, Any]:
    return dict(load_safetensors(path)) if path.suffix.lower() == ".safetensors" else load_tensors(path)


def _check_count(path: Path, state: Mapping[str, Any]) -> None:
    """Refuses names that make a network of very many layers, before one is built."""
    largest = max((int(number) for key in state for number in re.findall(r"\d{1,18}", key)), default=0)
    most = min(MAX_TENSORS, 4 * len(state) + 1000)  # each number stands for a layer, and few layers have no tensor
    if max(largest, len(state)) > most:
        raise ModelError(f"{path}: {len(state)} tensors, numbered up to {largest}; expected at most {most}")


def _check(path: Path, state: Mapping[str, Any]) -> None:
    tensors = [value for value in state.values() if isinstance(value, Tensor)]
    said = sum(value.element_size() * math.prod(value.shape) for value in tensors)  # `nbytes` begins anew at 2**64
    there = path.stat().st_size
    if said > SHARED * there:
        raise ModelError(
            f"{path}: its tensors claim {mebibytes(said)}, the file has {mebibytes(there)}; it is damaged, get it again"
        )
    for key, value in state.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{path}: {key} holds values that are not finite; the file is damaged, get it again")


class Constructor(NamedTuple):
    """How spandrel builds an architecture.

    Attributes:
        module: Module of ``spandrel.architectures``, and class in it.
        scale: Keyword of the factor.
        sizes: Keywords that a recipe may set; spandrel finds them again in the weights.
        fixed: Keywords that are always given.
    """

    module: str
    scale: str
    sizes: tuple[str, ...]
    fixed: Mapping[str, int] = {}


ARCHITECTURES = {
    # Wang et al. 2021, arXiv:2107.10833
    "compact": Constructor("Compact", "upscale", ("num_feat", "num_conv")),
    # Wan et al. 2023, arXiv:2311.12770
    "span": Constructor("SPAN", "upscale", ("feature_channels",), {"num_in_ch": 3, "num_out_ch": 3}),
    # Wang et al. 2018, arXiv:1809.00219
    "esrgan": Constructor("ESRGAN", "scale", ("num_filters", "num_blocks")),
    # Lee et al. 2024, arXiv:2404.11848
    "plksr": Constructor("PLKSR", "upscaling_factor", ("dim", "n_blocks")),
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
    with needing("models", f"model.arch is {name!r}: it needs an extra", ModelError):
        import spandrel
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

    return load_foreign(path)[0].network.state_dict()  # type: ignore[no-any-return]
