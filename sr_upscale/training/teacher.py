"""A teacher: weights whose self-ensemble answers a picture once, as a second truth beside HR.

What HR holds beyond its LR cannot be foreseen; it reaches every gradient as noise. A teacher's answer depends on LR
alone, so that little of it is noise, and the mean of eight turns is better than the network itself (Hinton et al. 2015,
arXiv:1503.02531; the ensemble as in `models.ensemble`).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sr_upscale.checkpoint import load_generator
from sr_upscale.color import to_pixels, to_tensor
from sr_upscale.data import Pair
from sr_upscale.errors import OutputError, UsageError
from sr_upscale.files import replace_file
from sr_upscale.models.ensemble import self_ensemble
from sr_upscale.models.generator import Generator


def check_teacher(teacher: Path, *, scale: int) -> None:
    """Refuses weights that cannot teach, before pictures are decoded for them.

    Args:
        teacher: Weights of our own architecture.
        scale: Factor of the student.

    Raises:
        UsageError: The teacher has another factor.
        ModelError: It cannot be read.
    """
    model, _info = load_generator(teacher)
    if model.config.scale != scale:
        raise UsageError(
            f"teacher {teacher.stem} enlarges x{model.config.scale}; expected x{scale} as the recipe's model"
        )


def with_answers(
    pairs: Sequence[Pair],
    teacher: Path,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    cache: Path | None = None,
    on_warning: Callable[[str], None] = lambda _message: None,
) -> list[Pair]:
    """The pairs with the teacher's answers to their LR.

    Args:
        pairs: Pictures.
        teacher: Weights of our own architecture and the pairs' factor (`check_teacher`).
        device: Where the teacher runs.
        dtype: Of its autocast.
        cache: Folder in which answers are kept for the next run and mapped into memory; without it memory holds them.
        on_warning: Called with a sentence where the cache cannot be written.

    Raises:
        ModelError: The teacher cannot be read.
    """
    model, _info = load_generator(teacher)
    model = model.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    answers = _answers(model, pairs, dtype)
    if cache is None:
        return [replace(pair, taught=answer) for pair, answer in zip(pairs, answers, strict=True)]
    path = cache / f"{_key(teacher, pairs, dtype)}.taught"
    try:
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with replace_file(path) as temporary, temporary.open("wb") as file:
                for answer in answers:
                    file.write(answer.tobytes())
    except (OSError, OutputError) as error:
        on_warning(f"the teacher's answers are held in memory, as the cache cannot be written: {error}")
        return with_answers(pairs, teacher, device=device, dtype=dtype)
    return list(_mapped(pairs, np.memmap(path, dtype=np.uint8, mode="r")))


def _answers(model: Generator, pairs: Sequence[Pair], dtype: torch.dtype) -> Iterator[NDArray[np.uint8]]:
    """(H * scale, W * scale, 3) for each pair, one at a time."""
    device = next(model.parameters()).device
    ask = self_ensemble(lambda x: model(x.contiguous(memory_format=torch.channels_last)).float())
    for pair in pairs:
        half = torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)
        with torch.inference_mode(), half:
            answer = ask(to_tensor(np.ascontiguousarray(pair.lr)).to(device))
        yield to_pixels(answer, np.dtype(np.uint8))


def _key(teacher: Path, pairs: Sequence[Pair], dtype: torch.dtype) -> str:
    """Another teacher, other pictures: another file."""
    seen = [(pair.name, pair.lr.shape, zlib.crc32(np.ascontiguousarray(pair.lr).data)) for pair in pairs]
    content = json.dumps([hashlib.sha256(teacher.read_bytes()).hexdigest(), str(dtype), seen])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _mapped(pairs: Sequence[Pair], pixels: NDArray[np.uint8]) -> Iterator[Pair]:
    at = 0
    for pair in pairs:
        yield replace(pair, taught=pixels[at : at + pair.hr.size].reshape(pair.hr.shape))
        at += pair.hr.size
