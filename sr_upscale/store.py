"""The table of weights, and where they lie. Does not import torch."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from sr_upscale.checkpoint import read_info
from sr_upscale.errors import ModelError

PACKAGE = Path(__file__).resolve().parent

DEFAULT_MODEL = "psnr"
"""Family that is used when no model is named: `<family>-x<scale>` of the fitting scale."""


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """A row of the table.

    Attributes:
        name: What users type after ``-n``.
        scale: Factor of the network.
        purpose: What it is for, in a few words.
        license: SPDX identifier.
    """

    name: str
    scale: int
    purpose: str
    license: str = "MIT"

    @property
    def path(self) -> Path:
        """Where the file is, or would be."""
        return weights_folder() / f"{self.name}.safetensors"


TABLE = (
    StoredWeights(name="psnr-x4", scale=4, purpose="faithful enlargement of clean pictures"),
    StoredWeights(name="psnr-x2", scale=2, purpose="faithful enlargement of clean pictures"),
)


def cache_folder() -> Path:
    """Where downloads and decoded training pictures are kept: ``SR_UPSCALE_CACHE``, else the system's place."""
    return Path(os.environ.get("SR_UPSCALE_CACHE") or platformdirs.user_cache_dir("sr-upscale"))


def weights_folder() -> Path:
    """Our weights: inside an installed package, or at the top of a source tree."""
    inside = PACKAGE / "weights"
    return inside if inside.is_dir() else PACKAGE.parent / "weights"


def resolve_weights(name_or_path: str) -> Path:
    """The file of a model name, or the path itself if it is one.

    Raises:
        ModelError: No such name and no such file; the nearest name is suggested.
    """
    for entry in TABLE:
        if entry.name == name_or_path:
            if not entry.path.is_file():
                msg = f"model {entry.name}: {entry.path} is missing; the installation is damaged, install it again"
                raise ModelError(msg)
            return entry.path
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = [entry.name for entry in TABLE] + sorted({entry.name.rsplit("-x", 1)[0] for entry in TABLE})
    near = difflib.get_close_matches(name_or_path, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}, or a .safetensors file"
    msg = f"no model named {name_or_path!r}, and no such file; {hint}"
    raise ModelError(msg)


def resolve_family(name_or_path: str) -> dict[int, Path]:
    """Weights by trained factor: all of a family such as ``psnr``, or the one that a name or path means.

    Raises:
        ModelError: No such name and no such file, or a file that is not ours.
    """
    family = [entry for entry in TABLE if entry.name == f"{name_or_path}-x{entry.scale}"]
    if family:
        return {entry.scale: resolve_weights(entry.name) for entry in family}
    path = resolve_weights(name_or_path)
    return {int(read_info(path).config.get("scale", 0)): path}
