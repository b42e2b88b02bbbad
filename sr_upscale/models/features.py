"""Frozen VGG19 features: what the perceptual loss and the perceptual distance look at.

Layers are called convB_K (block, number). They are taken before their activation (ESRGAN, Wang et al. 2018,
arXiv:1809.00219); conv5_4 is torchvision's ``features[:35]``. Weights come from torchvision, which downloads and
keeps them, or from a file with keys ``features.N.weight``. A file that ends early serves the layers it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.errors import ModelError, NetworkError
from sr_upscale.storage.remote import require_online

_BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


def _positions() -> dict[str, int]:
    """Lists layer names, in order, with the index of each one's conv in torchvision's ``features``."""
    found, index = {}, 0
    for block, (count, _width) in enumerate(_BLOCKS, start=1):
        for number in range(1, count + 1):
            found[f"conv{block}_{number}"] = index
            index += 2  # the conv and its activation
        index += 1  # pooling
    return found


LAYERS: dict[str, int] = _positions()
"""conv1_1 ... conv5_4, in order, and the index of each one's conv in torchvision's ``features``."""

DISTANCE_LAYER = "conv3_4"
"""The layer of the perceptual distance in validations and cards."""


class VGG19Features(nn.Module):
    """VGG19 with frozen weights, as far as the deepest layer that is wanted.

    Args:
        state: ``features.N.weight`` and ``features.N.bias`` of at least the layers up to the deepest wanted.
        layers: Names out of `LAYERS`.

    Raises:
        ModelError: A layer is unknown. Or its weights, or those of a layer before it, are missing or have another
            shape.

    Shapes: (N, 3, H, W), RGB in [0, 1] -> {layer: (N, C, H', W')}, before activation.

    Source: Simonyan & Zisserman 2014, arXiv:1409.1556.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state: Mapping[str, Tensor], layers: Iterable[str]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        if unknown := [layer for layer in self.layers if layer not in LAYERS]:
            raise ModelError(f"VGG19 has no layer {', '.join(unknown)}; expected names such as conv1_2 or conv5_4")
        deepest = max((LAYERS[layer] for layer in self.layers), default=-1)
        self.convs = nn.ModuleDict()
        before = 3
        for name, index in LAYERS.items():
            if index > deepest:
                break
            width = _BLOCKS[int(name[4]) - 1][1]
            weight, bias = state.get(f"features.{index}.weight"), state.get(f"features.{index}.bias")
            if weight is None or bias is None:
                raise ModelError(f"VGG19 weights: features.{index} ({name}) is missing; get a file that holds it")
            if weight.shape != (width, before, 3, 3) or bias.shape != (width,):
                raise ModelError(
                    f"VGG19 weights: features.{index} ({name}) has shape {tuple(weight.shape)}; "
                    f"expected {(width, before, 3, 3)}"
                )
            conv = nn.Conv2d(before, width, 3, padding=1)
            conv.load_state_dict({"weight": weight.float(), "bias": bias.float()})
            self.convs[name] = conv
            before = width
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def rescale(self, pictures: Sequence[Tensor]) -> None:
        """Rescales every layer, in place, so that its mean activation over the pictures is 1.

        Features keep their meaning: a layer's output is only multiplied. Layers of ImageNet weights from different
        sources differ by factors of ten. Losses on rescaled features weigh the same for all of them.

        Args:
            pictures: (1, 3, H, W) each, RGB in [0, 1].

        Source: Gatys et al. 2015, arXiv:1508.06576.
        """
        before = 1.0
        activations = [(picture - self.mean) / self.std for picture in pictures]
        for name, module in self.convs.items():
            conv = cast("nn.Conv2d", module)
            if name.endswith("_1") and name != "conv1_1":
                activations = [F.max_pool2d(x, 2) for x in activations]
            conv.weight.div_(before)  # what the layer before was multiplied by
            activations = [F.relu(conv(x)) for x in activations]
            before = 1 / max(float(np.mean([x.mean().item() for x in activations])), 1e-12)
            conv.weight.mul_(before)
            assert conv.bias is not None
            conv.bias.mul_(before)
            activations = [x * before for x in activations]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = (image - self.mean) / self.std
        found = {}
        for name, conv in self.convs.items():
            if name.endswith("_1") and name != "conv1_1":
                x = F.max_pool2d(x, 2)
            x = conv(x)
            if name in self.layers:
                found[name] = x
            x = F.relu(x)
        return found


def read_vgg19(file: Path | None) -> Mapping[str, Tensor]:
    """Reads the weights of VGG19's convs.

    Args:
        file: ``.safetensors``, or a ``.pth`` state dict (read with torch's restricted unpickler). None takes
            torchvision's weights, from its cache or by a download (548 MB once).

    Returns:
        A state dict with keys ``features.N.weight`` and ``features.N.bias``; N are the indices in `LAYERS`.

    Raises:
        ModelError: The file is missing, unreadable, or holds no ``features.0.weight``.
        NetworkError: The program is offline, or torchvision could not download the weights.
    """
    if file is None:
        return _torchvision_weights()
    hint = "expected VGG19 weights with keys features.0.weight, features.0.bias, ..."
    if not file.is_file():
        raise ModelError(f"{file}: no such file; {hint}")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Mapping[str, Tensor] = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, ImportError) as error:
        raise ModelError(f"{file}: not readable ({error}); {hint}") from error
    except Exception as error:  # unpickling fails with whatever the pickle provokes
        raise ModelError(f"{file}: refused ({type(error).__name__}); {hint}") from error
    if not isinstance(state, Mapping) or not isinstance(state.get("features.0.weight"), Tensor):
        raise ModelError(f"{file}: no features.0.weight in it; {hint}")
    return state


def distance_features(file: Path) -> VGG19Features:
    """Makes what the VGG19 distance is measured by (`DISTANCE_LAYER`), from weights that `read_vgg19` takes.

    Raises:
        ModelError: See `read_vgg19`.
    """
    return VGG19Features(read_vgg19(file), [DISTANCE_LAYER])


def layers_held(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Lists the layers that a state dict can compute, in order: all up to the first conv that is missing.

    Args:
        state: As `read_vgg19` gives it.
    """
    held = []
    for name, index in LAYERS.items():
        if f"features.{index}.weight" not in state:
            break
        held.append(name)
    return tuple(held)


def vgg19_download() -> tuple[str, int]:
    """Returns the address of torchvision's VGG19, and about how many bytes it has."""
    from torchvision.models import VGG19_Weights

    weights = VGG19_Weights.IMAGENET1K_V1
    return weights.url, round(weights.meta["_file_size"] * 2**20)


def _torchvision_weights() -> Mapping[str, Tensor]:
    from torchvision.models import VGG19_Weights

    require_online(VGG19_Weights.IMAGENET1K_V1.url, "give a file with --vgg-weights")
    try:
        state = VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise NetworkError(
            f"VGG19 weights for the perceptual loss: {VGG19_Weights.IMAGENET1K_V1.url} cannot be had ({error}); "
            "try again later, or give a file with --vgg-weights"
        ) from error
    return cast("Mapping[str, Tensor]", state)
