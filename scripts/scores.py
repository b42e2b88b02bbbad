"""Scores of weights on Set5 and Set14, for cards (`publish_weights.py`) and for the slow tests; what crops suffer.

The data are those of github.com/jbhuang0604/SelfExSR: ``**/Set5/image_SRF_4/img_001_SRF_4_{HR,LR}.png``. Pictures
are read as RGB, LR is the repository's (MATLAB's bicubic) or made from it, output is 8-bit, a border of one scale is
left out.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sr_upscale.data.degradations import gaussian_blur
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import resize_pixels
from sr_upscale.metrics.niqe import niqe
from sr_upscale.metrics.reference import lattice_energy, psnr, ssim, vgg19_distance
from sr_upscale.models.features import VGG19Features, distance_features
from sr_upscale.pretrained.weights_file import read_info
from sr_upscale.upscaler import Upscaler

Pixels = np.ndarray
Scores = dict[str, float]


Spoil = Callable[[Pixels, int], Pixels]
"""Damages an LR picture; takes its number, too, and does the same at every call."""


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    """Through a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def noisy(pixels: Pixels, levels: float, seed: Sequence[int]) -> Pixels:
    """With Gaussian noise."""
    noise = np.random.default_rng(seed).normal(0, levels, pixels.shape)
    return np.rint(pixels + noise).clip(0, 255).astype(np.uint8)


def jpeg40(lr: Pixels, _number: int) -> Pixels:
    return jpeg(lr, 40)


def noise8(lr: Pixels, number: int) -> Pixels:
    return noisy(lr, 8, [0, number])


def soft60(lr: Pixels, number: int) -> Pixels:
    """Blur of 1.2 pixels, noise of 3 levels, JPEG of quality 60."""
    return jpeg(noisy(to_pixels(gaussian_blur(to_tensor(lr), 1.2), np.dtype(np.uint8)), 3, [1, number]), 60)


def clean(lr: Pixels, _number: int) -> Pixels:
    return lr


SETS: dict[str, tuple[str, Spoil]] = {
    "set5": ("Set5", clean),
    "set14": ("Set14", clean),
    "set14_jpeg40": ("Set14", jpeg40),
    "set14_noise8": ("Set14", noise8),
}
"""Folder, and what happens to an LR before it is enlarged."""


def vgg(file: Path | None) -> VGG19Features | None:
    """VGG19 for the distance."""
    return distance_features(file) if file else None


def score(
    weights: Mapping[str, Path], benchmarks: Path, name: str, *, features: VGG19Features | None = None
) -> dict[str, Scores]:
    """Mean scores by method: bicubic, every weights file, and HR itself.

    Weights are measured in fp32 on the whole picture; ``psnr_default`` is the PSNR on Y of what users get here.
    ``lattice`` is the energy at the period of the tail (`metrics.reference.lattice_energy`), ``mesh`` that at twice the
    period, ``tint`` the largest mean difference of a channel from HR, in levels of 255.
    """
    (scale,) = {int(read_info(path).config["scale"]) for path in weights.values()}
    exact = {label: Upscaler(path, dtype="fp32", tile_size=0) for label, path in weights.items()}
    usual = {label: Upscaler(path) for label, path in weights.items()}
    rows: dict[str, list[Scores]] = {}
    for hr, lr in pictures(benchmarks, name, scale):
        made = {"bicubic": resize_pixels(lr, hr.shape[:2])}
        made |= {label: upscaler(lr) for label, upscaler in exact.items()}
        for label, sr in {**made, "HR": hr}.items():
            rows.setdefault(label, []).append(measure(sr, hr, scale, features))
        for label, upscaler in usual.items():
            rows[label][-1]["psnr_default"] = _psnr_y(to_tensor(upscaler(lr)), to_tensor(hr), scale)
    if not rows:
        sys.exit(f"no pictures of {SETS[name][0]} at x{scale} below {benchmarks}")
    return {label: {key: float(np.mean([row[key] for row in each])) for key in each[0]} for label, each in rows.items()}


def pictures(benchmarks: Path, name: str, scale: int) -> Iterator[tuple[Pixels, Pixels]]:
    """(HR, spoiled LR), RGB of 8 bits."""
    folder, spoil = SETS[name]
    found = sorted(benchmarks.glob(f"**/{folder}/image_SRF_{scale}/*_HR.png"))
    for number, path in enumerate(found):
        hr, lr = (np.asarray(Image.open(each).convert("RGB")) for each in (path, str(path).replace("_HR", "_LR")))
        yield hr, spoil(lr, number)


def measure(sr: Pixels, hr: Pixels, scale: int, features: VGG19Features | None = None) -> Scores:
    """All scores of one picture; PSNR is left out for HR itself."""
    ours, theirs = to_tensor(sr), to_tensor(hr)
    found = {"ssim_y": ssim(ours, theirs, crop_border=scale, y_channel=True).item()}
    if sr is not hr:
        found = {"psnr_y": _psnr_y(ours, theirs, scale), **found}
        found["tint"] = (ours - theirs).mean(dim=(2, 3)).abs().max().item() * 255
    if features is not None:
        found["vgg19_distance"] = vgg19_distance(ours, theirs, features, crop_border=scale).item()
    found["niqe"] = niqe(ours, crop_border=scale)
    found |= {name: lattice_energy(ours, period).item() for name, period in (("lattice", scale), ("mesh", 2 * scale))}
    return found


def _psnr_y(sr: torch.Tensor, hr: torch.Tensor, scale: int) -> float:
    return psnr(sr, hr, crop_border=scale, y_channel=True).item()


COLUMNS = {
    "psnr_y": ("PSNR, dB", "{:.2f}"),
    "psnr_default": ("PSNR as users get it", "{:.2f}"),
    "ssim_y": ("SSIM", "{:.4f}"),
    "vgg19_distance": ("VGG19 distance", "{:.3f}"),
    "niqe": ("NIQE", "{:.2f}"),
    "lattice": ("lattice", "{:.2f}"),
    "mesh": ("mesh", "{:.2f}"),
    "tint": ("tint", "{:.2f}"),
}


def table(scores: Mapping[str, Scores]) -> str:
    """Markdown: a row for each method, bicubic first and HR last, a column for each score that any method has."""
    keys = [key for key in COLUMNS if any(key in each for each in scores.values())]
    lines = [f"| | {' | '.join(COLUMNS[key][0] for key in keys)} |", f"|---{'|---' * len(keys)}|"]
    for label in sorted(scores, key=lambda name: (name == "HR", name != "bicubic")):
        each = scores[label]
        cells = (COLUMNS[key][1].format(each[key]) if key in each else "" for key in keys)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)
