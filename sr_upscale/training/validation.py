"""How good the generator is on pictures that it was not taught on, in numbers and as a sheet to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from sr_upscale.data.degradations import Family, degrade
from sr_upscale.data.patches import Pair
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import resize_pixels
from sr_upscale.metrics.reference import psnr, ssim, vgg19_distance
from sr_upscale.models.features import VGG19Features
from sr_upscale.storage.atomic import replace_file

SHEET_ROWS = 4
SHEET_PATCH = 48


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Means over the pictures, of 8-bit output.

    A border of one scale is left out, except for `teacher_l1`.

    Attributes:
        psnr: PSNR on Y, in dB.
        ssim: SSIM on Y.
        distance: VGG19 distance at conv3_4 (`metrics.reference.vgg19_distance`); None where no VGG19 is at hand.
        teacher_l1: Mean absolute difference to the teacher's answers, RGB, in levels of 255; None without a teacher.
        teacher_distance: VGG19 distance to them; None without a teacher or VGG19.
    """

    psnr: float
    ssim: float
    distance: float | None = None
    teacher_l1: float | None = None
    teacher_distance: float | None = None


def degraded(pairs: Sequence[Pair], family: Family) -> list[Pair]:
    """Returns the pairs with their LR made by `family`, the same at every call."""
    return [
        replace(pair, lr=degrade(pair.hr, pair.hr.shape[0] // pair.lr.shape[0], family, np.random.default_rng([0, at])))
        for at, pair in enumerate(pairs)
    ]


def validate(model: nn.Module, pairs: Sequence[Pair], *, features: VGG19Features | None = None) -> Scores:
    """Scores a generator on LR/HR pairs, on the device of its weights.

    Args:
        model: The generator, (1, 3, H, W) -> (1, 3, H * scale, W * scale), nominally in [0, 1].
        pairs: Pictures, at least one.
        features: VGG19 with conv3_4; without it there are no distances.

    Returns:
        Means over the pictures.
    """
    rows = [_scores(upscaled(model, pair.lr), pair, features) for pair in pairs]
    return Scores(**{key: float(np.mean([row[key] for row in rows])) for key in rows[0]})


def too_short(scores: Scores, pairs: Sequence[Pair], *, margin_db: float = 0.0, ours: bool = True) -> str | None:
    """Says in a sentence where a run was too short to be of use: bicubic resampling does as well.

    With a teacher, the measure is how near its answers are; else PSNR.

    Args:
        scores: Of the run's end.
        pairs: The pictures that it was scored on.
        margin_db: How far the PSNR of a network that invents detail may be below bicubic's.
        ours: Whether the network is our generator, so that it can start from our weights.

    Returns:
        The sentence; None where the network does better.
    """
    rows = [_scores(resize_pixels(pair.lr, pair.hr.shape[:2]), pair, None) for pair in pairs]
    psnr, *taught = (float(np.mean([row[key] for row in rows])) for key in ("psnr", "teacher_l1") if key in rows[0])
    if taught and scores.teacher_l1 is not None:
        if scores.teacher_l1 < taught[0]:
            return None
        found = f"differs from its teacher by {scores.teacher_l1:.1f} of 255, and bicubic resampling by {taught[0]:.1f}"
    else:
        if scores.psnr >= psnr - margin_db:
            return None
        found = f"reaches {scores.psnr:.1f} dB on pictures it has not seen, and bicubic resampling {psnr:.1f} dB"
    scale = pairs[0].hr.shape[0] // pairs[0].lr.shape[0]
    start = f", or start from a trained model with --init psnr-x{scale}" if ours and scale in (2, 4) else ""
    return f"the run was too short to be of use: the network {found}; train longer (--max-time){start}"


def beside_start(scores: Scores, start: Scores, name: str) -> tuple[bool, str]:
    """Says whether a run is better than the weights that it began with, and in a sentence by how much.

    Args:
        scores: Of the run's end; with a teacher its answers are the measure, else PSNR.
        start: Of the weights at its beginning, on the same pictures.
        name: What they are called.
    """
    if scores.teacher_l1 is not None and start.teacher_l1 is not None:
        found = f"differs from its teacher by {scores.teacher_l1:.2f} of 255, {name} by {start.teacher_l1:.2f}"
        better = scores.teacher_l1 < start.teacher_l1
    else:
        found = f"reaches {scores.psnr:.2f} dB on pictures it has not seen, {name} {start.psnr:.2f} dB"
        better = scores.psnr > start.psnr
    return better, f"the run {'is better than' if better else 'has not beaten'} its start: it {found}"


def _scores(sr_pixels: NDArray[np.uint8], pair: Pair, features: VGG19Features | None) -> dict[str, float]:
    """Scores one picture, by the names of `Scores`."""
    sr, hr = to_tensor(sr_pixels), to_tensor(pair.hr)
    border = pair.hr.shape[0] // pair.lr.shape[0]
    row = {name: f(sr, hr, crop_border=border, y_channel=True).item() for name, f in (("psnr", psnr), ("ssim", ssim))}
    truths = {"distance": hr}
    if pair.taught is not None:
        truths["teacher_distance"] = to_tensor(pair.taught)
        row["teacher_l1"] = float(np.abs(sr_pixels.astype(np.float32) - pair.taught).mean())
    if features is not None:
        device = next(features.parameters()).device
        for name, truth in truths.items():
            row[name] = vgg19_distance(sr.to(device), truth.to(device), features, crop_border=border).item()
    return row


def upscaled(model: nn.Module, lr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarges a picture, the whole of it at once, on the device of the generator's weights.

    Args:
        model: The generator.
        lr: (H, W, 3) uint8, RGB.

    Returns:
        (H * scale, W * scale, 3) uint8, RGB.
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        batch = to_tensor(lr).to(device).contiguous(memory_format=torch.channels_last)
        return to_pixels(model(batch), np.dtype(np.uint8))


def sample_sheet(model: nn.Module, pairs: Sequence[Pair], path: Path) -> None:
    """Writes a PNG: a row for each of the first pictures, with the middle of LR, bicubic, SR and HR.

    Args:
        model: The generator.
        pairs: Pictures, at least one. The first `SHEET_ROWS` are shown, `SHEET_PATCH` LR pixels a side of each.
        path: File to write; its folder is made where it is missing.

    Raises:
        OutputError: It cannot be written.
    """
    rows = [np.concatenate(_row(model, pair), axis=1) for pair in pairs[:SHEET_ROWS]]
    width = max(row.shape[1] for row in rows)
    sheet = np.concatenate([np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows], axis=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        Image.fromarray(sheet).save(temporary, "PNG")


def _row(model: nn.Module, pair: Pair) -> list[NDArray[np.uint8]]:
    scale = pair.hr.shape[0] // pair.lr.shape[0]
    height, width = (min(side, SHEET_PATCH) for side in pair.lr.shape[:2])
    top, left = (pair.lr.shape[0] - height) // 2, (pair.lr.shape[1] - width) // 2
    lr = pair.lr[top : top + height, left : left + width]
    hr = pair.hr[top * scale : (top + height) * scale, left * scale : (left + width) * scale]
    return [np.repeat(np.repeat(lr, scale, 0), scale, 1), resize_pixels(lr, hr.shape[:2]), upscaled(model, lr), hr]
