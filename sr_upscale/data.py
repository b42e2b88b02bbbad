"""Training pictures: find, decode, hold out, and cut LR/HR pairs of patches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sr_upscale.color import to_pixels, to_tensor
from sr_upscale.degrade import downscale_matlab
from sr_upscale.errors import TrainingError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

MAX_UNREADABLE = 0.01
"""Share of pictures that may be unreadable or too small before a run refuses to start."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One picture and its LR twin. hr: (H, W, 3) uint8, H and W multiples of the scale; lr: uint8."""

    name: str
    hr: NDArray[np.uint8]
    lr: NDArray[np.uint8]


def find_pictures(folders: Iterable[Path]) -> list[Path]:
    """All pictures below the folders, sorted by path, each once.

    Raises:
        TrainingError: A folder does not exist, or there is no picture at all.
    """
    folders = list(folders)
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            msg = f"training data: {folder} is not a folder; expected a folder of pictures"
            raise TrainingError(msg)
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                found[path.resolve()] = None
    if not found:
        names = ", ".join(str(folder) for folder in folders)
        kinds = ", ".join(sorted(SUFFIXES))
        msg = f"training data: no pictures below {names}; expected files ending in {kinds}"
        raise TrainingError(msg)
    return list(found)


def split_validation(paths: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """(training, validation) paths: `count` are held out, chosen by a hash of their names.

    The choice does not depend on the order, on a seed, or on where the folder lies, so that every run on
    the same pictures validates on the same ones. At most one picture in five is held out.
    """
    count = min(count, len(paths) // 5)
    ranked = sorted(paths, key=lambda path: hashlib.sha256(f"{path.parent.name}/{path.name}".encode()).digest())
    held_out = set(ranked[:count])
    return [path for path in paths if path not in held_out], [path for path in paths if path in held_out]


def load_pairs(
    paths: Sequence[Path],
    *,
    scale: int,
    min_side: int,
    workers: int = 2,
    on_warning: Callable[[str], None] = lambda _message: None,
) -> list[Pair]:
    """Decodes pictures to RGB and makes their LR twins (`downscale_matlab`), in the order of the paths.

    Args:
        paths: Pictures.
        scale: LR is smaller by this factor; HR is cropped to a multiple of it.
        min_side: Smallest HR side in pixels that can be used.
        workers: Threads that decode.
        on_warning: Called with a sentence about each picture that is left out.

    Raises:
        TrainingError: More than 1 % of the pictures (and more than one) cannot be used, or none can.
    """

    def load(path: Path) -> Pair | str:
        try:
            with Image.open(path) as image:
                rgb = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            return f"{path}: {error}"
        height, width = (side - side % scale for side in rgb.shape[:2])
        if min(height, width) < min_side:
            return f"{path}: {rgb.shape[1]}x{rgb.shape[0]} is smaller than {min_side} pixels"
        hr = np.ascontiguousarray(rgb[:height, :width])
        lr = to_pixels(downscale_matlab(to_tensor(hr), scale), np.dtype(np.uint8))
        return Pair(name=path.name, hr=hr, lr=lr)

    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(load, paths))
    pairs = [result for result in results if isinstance(result, Pair)]
    bad = [result for result in results if isinstance(result, str)]
    if not pairs or len(bad) > max(1, MAX_UNREADABLE * len(paths)):
        shown = "; ".join(bad[:5])
        msg = f"training data: {len(bad)} of {len(paths)} pictures cannot be used ({shown}); remove or replace them"
        raise TrainingError(msg)
    for each in bad:
        on_warning(f"left out: {each}")
    return pairs


class PatchSampler:
    """Random LR/HR patch pairs, flipped and rotated. Deterministic by its generator's state.

    Pictures are drawn in proportion to the square root of their area (a large one has more to show, but
    neighbouring patches repeat each other), and of two random places the busier one is taken: flat sky
    teaches nothing.

    Args:
        pairs: Pictures, each at least one patch large.
        scale: Factor between LR and HR.
        lr_patch: Side of a patch in LR pixels.
        seed: Start of the random numbers.
    """

    def __init__(self, pairs: Sequence[Pair], *, scale: int, lr_patch: int, seed: int) -> None:
        self.pairs = list(pairs)
        self.scale = scale
        self.lr_patch = lr_patch
        self.rng = np.random.default_rng(seed)
        areas = np.array([pair.lr.shape[0] * pair.lr.shape[1] for pair in self.pairs], dtype=np.float64)
        self._probability = np.sqrt(areas) / np.sqrt(areas).sum()

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """(LR, HR): (size, 3, p, p) and (size, 3, p*scale, p*scale), float32 RGB in [0, 1]."""
        chosen = self.rng.choice(len(self.pairs), size=size, p=self._probability)
        patches = [self._patch(self.pairs[index]) for index in chosen]
        lr, hr = (np.stack(side).transpose(0, 3, 1, 2) for side in zip(*patches, strict=True))
        return tuple(torch.from_numpy(np.ascontiguousarray(side)).float() / 255 for side in (lr, hr))  # type: ignore[return-value]

    def _patch(self, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        side, scale = self.lr_patch, self.scale
        places = []
        for _ in range(2):
            top = int(self.rng.integers(pair.lr.shape[0] - side + 1))
            left = int(self.rng.integers(pair.lr.shape[1] - side + 1))
            places.append((top, left))
        top, left = max(places, key=lambda place: _busyness(pair.lr[place[0] :, place[1] :][:side, :side]))
        lr = pair.lr[top : top + side, left : left + side]
        hr = pair.hr[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        turn = int(self.rng.integers(8))
        if turn & 4:
            lr, hr = lr[:, ::-1], hr[:, ::-1]
        return np.rot90(lr, turn & 3), np.rot90(hr, turn & 3)


def _busyness(patch_hwc: NDArray[np.uint8]) -> float:
    luma = patch_hwc.astype(np.float32).mean(axis=2)
    return float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean())
