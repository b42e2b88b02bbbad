"""Training pictures: find, hold out, and cut LR/HR pairs of patches.

A batch is a pure function of the seed and its number. So workers can make it ahead, and a resumed run goes on with the
very batch that comes next. Several processes share a batch without speaking to each other.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import signal
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sr_upscale.data.degradations import Family, degrade, gaussian_blur
from sr_upscale.errors import TrainingError
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import downscale_matlab
from sr_upscale.images.formats import SUFFIXES

SUB_IMAGE = re.compile(r"_part\d{3}$")
"""End of the stems of the overlapping parts that `data.div2k` cuts pictures into."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A picture and its LR twin.

    Attributes:
        name: Name of the picture.
        hr: (H, W, 3) uint8, RGB; H and W multiples of the scale.
        lr: (H / scale, W / scale, 3) uint8, RGB.
        taught: What a teacher makes of lr, of hr's shape and type; only where there is a teacher.
    """

    name: str
    hr: NDArray[np.uint8]
    lr: NDArray[np.uint8]
    taught: NDArray[np.uint8] | None = None


def find_pictures(folders: Iterable[Path]) -> list[Path]:
    """Finds all pictures below the folders, each once.

    Args:
        folders: Where to look, also in their subfolders.

    Returns:
        Resolved paths, folder by folder, each folder's sorted.

    Raises:
        TrainingError: A folder does not exist, or there is no picture at all.
    """
    folders = list(folders)
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise TrainingError(f"training data: {folder} is not a folder; expected a folder of pictures")
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                found[path.resolve()] = None
    if not found:
        names = ", ".join(str(folder) for folder in folders)
        kinds = ", ".join(sorted(SUFFIXES))
        raise TrainingError(f"training data: no pictures below {names}; expected files ending in {kinds}")
    return list(found)


def split_validation(paths: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """Splits paths into training and validation: `count` are held out, chosen by a hash of their names.

    The choice does not depend on the order, on a seed, or on where the folder lies. So every run on the same pictures
    validates on the same ones. Sub-images (`SUB_IMAGE`) of one picture overlap: where one is held out, the others are
    in neither part.

    Args:
        paths: Pictures.
        count: Pictures to hold out; at most one in five is.

    Returns:
        (training, validation) paths, in the order given.
    """
    count = min(count, len(paths) // 5)
    ranked = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(f"{path.parent.name}/{path.name}")).digest())
    held_out = set(ranked[:count])
    near = {_source_of(path) for path in held_out}
    training = [path for path in paths if path not in held_out and _source_of(path) not in near]
    return training, [path for path in paths if path in held_out]


def _source_of(path: Path) -> Path:
    """Returns the picture that a sub-image was cut from; of anything else the path itself."""
    return path.with_name(SUB_IMAGE.sub("", path.stem)) if SUB_IMAGE.search(path.stem) else path


def centre_of(pair: Pair, side: int) -> Pair:
    """Cuts the middle out of a pair.

    Args:
        pair: A pair; its `taught` is left out.
        side: Side of the middle in HR pixels, at most.

    Returns:
        Copies of both middles, lr smaller by the pair's scale.
    """
    scale = pair.hr.shape[0] // pair.lr.shape[0]
    height, width = (min(length, side // scale) for length in pair.lr.shape[:2])
    top, left = (pair.lr.shape[0] - height) // 2, (pair.lr.shape[1] - width) // 2
    lr = pair.lr[top : top + height, left : left + width].copy()
    hr = pair.hr[top * scale : (top + height) * scale, left * scale : (left + width) * scale].copy()
    return Pair(name=pair.name, hr=hr, lr=lr)


# --- patches ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Patches of one batch.

    Attributes:
        lr: (n, 3, p, p) uint8, RGB.
        hr: (n, 3, p * scale, p * scale) uint8, RGB.
        made_s: Seconds of CPU that it took to make.
        taught: A teacher's answers, of hr's shape and type; only where there is a teacher.
        rendered: (n,) bool: which patches are cut from rendered pictures; None where there are no such pictures.
    """

    lr: Tensor
    hr: Tensor
    made_s: float
    taught: Tensor | None = None
    rendered: Tensor | None = None

    def pin_memory(self) -> Batch:
        """Returns the same batch in page-locked memory. Torch's loader calls it."""
        sides: dict[str, Any] = {
            name: side.pin_memory() for name, side in vars(self).items() if isinstance(side, Tensor)
        }
        return replace(self, **sides)


class PatchSampler(Dataset[Batch]):
    """Random LR/HR patch pairs, flipped and rotated; ``sampler[number]`` is a pure function of seed and number.

    Pictures are drawn in proportion to the square root of their area: a large one has more to show, but neighbouring
    patches repeat each other.

    Args:
        pairs: Pictures, each at least one patch large.
        scale: Factor between LR and HR.
        lr_patch: Side of a patch in LR pixels.
        batch_size: Patches a batch, of all processes together.
        seed: Start of the random numbers.
        degradation: Makes LR from HR crops. Without it a patch comes from the picture's LR twin.
        busy_share: Share of the patches (0 to 1) for which the busier of two random places is taken. Flat sky teaches
            little, but what is never seen is never learnt.
        smooth_share: Share of the patches (0 to 1) whose HR is blurred until only slopes are left. Their LR is that HR,
            reduced and rounded to 8 bits: the steps of the rounding must not be enlarged into a mesh. Pairs with a
            teacher's answer are left as they are.
        rank, world: This process's number and their count. It makes its share of every batch.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        scale: int,
        lr_patch: int,
        batch_size: int,
        seed: Sequence[int],
        degradation: Family | None = None,
        busy_share: float = 1.0,
        smooth_share: float = 0.0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pairs = list(pairs)
        self.busy_share = busy_share
        self.smooth_share = smooth_share
        self.scale = scale
        self.lr_patch = lr_patch
        self.seed = list(seed)
        self.degradation = degradation
        self.mine = range(rank, batch_size, world)
        areas = np.array([pair.lr.shape[0] * pair.lr.shape[1] for pair in self.pairs], dtype=np.float64)
        self._chances = np.cumsum(np.sqrt(areas) / np.sqrt(areas).sum())

    def __getitem__(self, number: int) -> Batch:
        start = time.process_time()
        patches = [self.patch(np.random.default_rng([*self.seed, number, each])) for each in self.mine]
        lr, hr, *taught = _stacked(patches)
        return Batch(lr=lr, hr=hr, taught=taught[0] if taught else None, made_s=time.process_time() - start)

    def patch(self, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
        """Cuts LR, HR, and the teacher's answer where there is one; flips and rotates them alike."""
        index = min(int(np.searchsorted(self._chances, rng.random(), side="right")), len(self.pairs) - 1)
        pair, side, scale = self.pairs[index], self.lr_patch, self.scale
        places = []
        for _ in range(2):
            top = int(rng.integers(pair.lr.shape[0] - side + 1))
            left = int(rng.integers(pair.lr.shape[1] - side + 1))
            places.append((top, left))
        top, left = places[0]
        if rng.random() < self.busy_share:
            top, left = max(places, key=lambda place: _busyness(pair.lr[place[0] :, place[1] :][:side, :side]))
        large = [pair.hr] if pair.taught is None else [pair.hr, pair.taught]
        cut = [each[top * scale : (top + side) * scale, left * scale : (left + side) * scale] for each in large]
        if pair.taught is None and rng.random() < self.smooth_share:
            cut = [_smooth(cut[0], scale, rng)]
            lr = reduced(cut[0], scale)
        elif self.degradation is None:
            lr = pair.lr[top : top + side, left : left + side]
        else:
            lr = self._degraded(pair, top, left, self.degradation, rng)
        turn = int(rng.integers(8))
        return [np.rot90(each[:, ::-1] if turn & 4 else each, turn & 3) for each in (lr, *cut)]

    def _degraded(self, pair: Pair, top: int, left: int, family: Family, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Makes the LR of a patch: cuts it out of a slightly larger degraded crop."""
        height, width = pair.lr.shape[:2]
        side, scale = self.lr_patch, self.scale
        above, before = (int(rng.integers(family.margin + 1)) for _ in range(2))
        y0, x0 = max(0, top - above), max(0, left - before)
        y1, x1 = min(height, top - above + family.margin + side), min(width, left - before + family.margin + side)
        crop = degrade(pair.hr[y0 * scale : y1 * scale, x0 * scale : x1 * scale], scale, family, rng)
        return crop[top - y0 : top - y0 + side, left - x0 : left - x0 + side]


def _stacked(patches: Sequence[Sequence[NDArray[np.uint8]]]) -> list[Tensor]:
    """Stacks the sides of patches, (h, w, 3) each, to a tensor (n, 3, h, w) for each side."""
    return [
        torch.from_numpy(np.ascontiguousarray(np.stack(side).transpose(0, 3, 1, 2)))
        for side in zip(*patches, strict=True)
    ]


class MixedSampler(Dataset[Batch]):
    """Patches of several samplers in one batch. Each patch's sampler is drawn by share.

    A patch without a teacher's answer has HR in its place.

    Args:
        main: Gives what the others leave.
        rendered: Cuts rendered pictures; None where there are none.
        rendered_share: Share of its patches, 0 to 1.
        clean: Cuts photographs whose LR is only reduced; None where there are none.
        clean_share: Share of its patches, 0 to 1.
    """

    def __init__(
        self,
        main: PatchSampler,
        *,
        rendered: PatchSampler | None,
        rendered_share: float,
        clean: PatchSampler | None,
        clean_share: float,
    ) -> None:
        self.main, self.rendered, self.clean = main, rendered, clean
        self.rendered_share = rendered_share if rendered is not None else 0.0
        self.clean_share = clean_share if clean is not None else 0.0

    def __getitem__(self, number: int) -> Batch:
        start = time.process_time()
        patches, rendered = [], []
        for each in self.main.mine:
            rng = np.random.default_rng([*self.main.seed, number, each])
            sampler = self._drawn(rng.random())
            sides = sampler.patch(rng)
            patches.append(sides if len(sides) == 3 else [*sides, sides[1]])
            rendered.append(sampler is self.rendered)
        lr, hr, taught = _stacked(patches)
        made_s = time.process_time() - start
        return Batch(lr=lr, hr=hr, taught=taught, rendered=torch.tensor(rendered), made_s=made_s)

    def _drawn(self, draw: float) -> PatchSampler:
        if self.rendered is not None and draw < self.rendered_share:
            return self.rendered
        if self.clean is not None and draw < self.rendered_share + self.clean_share:
            return self.clean
        return self.main


def batches(
    sampler: PatchSampler | MixedSampler, *, start: int, workers: int, pin_memory: bool = False
) -> Iterator[Batch]:
    """Yields ``sampler[start]``, ``sampler[start + 1]``, ... without end.

    Args:
        sampler: Makes the batches.
        start: Number of the first batch.
        workers: Processes that make batches ahead; 0 makes each when it is asked for.
        pin_memory: Whether the patches lie in page-locked memory.

    Yields:
        Batches in order.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # advice for one core
        loader = DataLoader(
            sampler,
            batch_size=None,
            sampler=itertools.count(start),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=pin_memory,
            worker_init_fn=_leave_signals_to_the_parent,
        )
        return iter(loader)


def _leave_signals_to_the_parent(_worker: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends in order
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # and so does SIGTERM, as `timeout` and job schedulers send it


def reduced(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Reduces a picture by MATLAB's bicubic kernel, rounded to 8 bits.

    Args:
        hr: (H, W, 3) uint8; H and W multiples of the scale.
        scale: Factor.
    """
    return to_pixels(downscale_matlab(to_tensor(np.ascontiguousarray(hr)), scale), np.dtype(np.uint8))


def _smooth(hr: NDArray[np.uint8], scale: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blurs a patch by a Gaussian of 1 to 8 LR pixels, and sets a random contrast about its mean."""
    x = to_tensor(np.ascontiguousarray(hr))
    sigma, contrast = scale * 2 ** rng.uniform(0, 3), rng.uniform(0.2, 1)
    x = gaussian_blur(x, sigma)
    mean = x.mean(dim=(-2, -1), keepdim=True)
    return to_pixels(mean + contrast * (x - mean), np.dtype(np.uint8))


def _busyness(patch_hwc: NDArray[np.uint8]) -> float:
    luma = patch_hwc.astype(np.float32).mean(axis=2)
    return float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean())
