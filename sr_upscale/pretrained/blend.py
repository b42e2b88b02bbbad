"""Networks between two others: one dial from invented detail to faithfulness.

Networks of one architecture are blended by their weights (network interpolation, Wang et al. 2018, arXiv:1812.10515).
The mean of two networks' parameters is again a network that works, if one of the two was trained starting from the
other. Of networks whose architectures differ the outputs are blended.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from sr_upscale.errors import ModelError, UsageError
from sr_upscale.pretrained.weights_file import (
    BLEND_ARCHITECTURE,
    WeightsInfo,
    is_ours,
    load_generator,
    save_generator,
    save_tensors,
)
from sr_upscale.storage.atomic import cache_folder, hash_file, make_folder

if TYPE_CHECKING:
    from sr_upscale.models.generator import Generator


def blend_files(first: Path, second: Path, alpha: float, out: Path) -> None:
    """Writes (1 - alpha) * first + alpha * second: of the weights, or of the outputs where architectures differ.

    Args:
        first, second: Weights made by `sr-upscale train`, or compact networks of Real-ESRGAN, of one scale. Networks
            that differ in their number of blocks alone count as one architecture: the other blocks of the shallower one
            pass their input on (`models.generator.deepened`).
        alpha: Share of `second`, from 0 to 1. 0 answers as the first and 1 as the second, bit for bit.
        out: A ``.safetensors`` file, replaced if it exists.

    Raises:
        UsageError: alpha is not between 0 and 1.
        ModelError: A file cannot be used, or their scales differ.
        OutputError: `out` cannot be written.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"share is {alpha:g}; expected 0 to 1")
    from sr_upscale.models.generator import OutputBlend, deepened  # it imports torch, which a cached blend needs not

    (a, a_info), (b, b_info) = generator_of(first), generator_of(second)
    if a.config.scale != b.config.scale:
        raise ModelError(f"{first} enlarges x{a.config.scale}, {second} x{b.config.scale}; expected one scale")
    blocks = max(a.config.num_blocks, b.config.num_blocks)
    if dataclasses.replace(a.config, num_blocks=blocks) != dataclasses.replace(b.config, num_blocks=blocks):
        configs = json.dumps([dataclasses.asdict(each.config) for each in (a, b)])
        about = {"format": "pt", "modelspec.architecture": BLEND_ARCHITECTURE, "sr_upscale.configs": configs}
        save_tensors(out, OutputBlend(a, b, alpha), {**about, "sr_upscale.share": repr(alpha)})
        return
    a, b = (each if each.config.num_blocks == blocks else deepened(each, blocks) for each in (a, b))
    theirs = b.state_dict()
    mixed = {
        key: value if alpha == 0 else theirs[key] if alpha == 1 else value.lerp(theirs[key], alpha)
        for key, value in a.state_dict().items()
    }
    a.load_state_dict(mixed)
    info = dataclasses.replace(
        a_info,
        name=f"{a_info.name}-{b_info.name}-{alpha:g}",
        description=f"{1 - alpha:g} of {a_info.name} and {alpha:g} of {b_info.name}",
        recipe={"blend": [{"name": a_info.name, "share": 1 - alpha}, {"name": b_info.name, "share": alpha}]},
        scores={},
    )
    save_generator(out, a, info)


def generator_of(path: Path) -> tuple[Generator, WeightsInfo]:
    """Loads a generator and its header; a compact network as the gated one that answers alike.

    Raises:
        ModelError: The file holds neither.
    """
    if is_ours(path):
        return load_generator(path)
    from sr_upscale.models.generator import gated_from_compact
    from sr_upscale.pretrained.spandrel_adapter import tensors_in

    try:
        return gated_from_compact(tensors_in(path)), WeightsInfo(name=path.stem)
    except ModelError as error:
        raise ModelError(f"{path}: expected weights of `sr-upscale train`, or a compact network ({error})") from error


def blended(first: Path, second: Path, alpha: float) -> Path:
    """Returns a blend from the cache, and makes it if it is not there.

    The name of its file follows from the content of both files and the share.

    Args:
        first, second: See `blend_files`.
        alpha: Share of `second`, from 0 to 1.

    Returns:
        The ``.safetensors`` file of the blend.

    Raises:
        InputError: A file cannot be read.
        UsageError: alpha is not between 0 and 1.
        ModelError: A file cannot be used, or their scales differ.
        OutputError: The blend cannot be written.
    """
    content = hashlib.sha256()
    for path in (first, second):
        content.update(bytes.fromhex(hash_file(path)))
    content.update(f"{alpha:.6f}".encode())
    out = cache_folder() / "blends" / f"{first.stem}-{second.stem}-{content.hexdigest()[:16]}.safetensors"
    if not out.exists():
        make_folder(out.parent)
        blend_files(first, second, alpha, out)
    return out
