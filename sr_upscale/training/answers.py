"""Crops of pictures with a teacher's answers to them, kept in a file: dear to make, and made once."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_upscale.data.degradations import RealWorld
from sr_upscale.data.patches import Pair, PatchSampler
from sr_upscale.data.rendered import Rendered
from sr_upscale.device import has_bf16
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.planes import self_ensemble
from sr_upscale.functional.resize import resize_pixels
from sr_upscale.pretrained.load import module_of
from sr_upscale.storage.atomic import hash_file, make_folder, open_own, output_error, replace_file

ANSWERS_VERSION = 1
"""Raise it when crops or answers come out otherwise."""

STREAM = 1
"""Tells the random numbers of crops from those of patches."""

_REACH = 3
"""LR pixels at a border that bicubic reduction makes of pixels beyond it."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """Everything that answers depend on, but for the pictures.

    Attributes:
        weights: The teacher.
        scale: Its factor.
        crop: Side of an LR crop in pixels.
        ensemble: Whether it answers with the mean over eight turns.
        degradation: Makes LR; None for MATLAB's bicubic.
        busy_share, smooth_share: See `data.patches.PatchSampler`.
        own_colors: Whether an answer gets the mean colour of its LR (`with_colors_of`).
        seed: Start of the random numbers.
    """

    weights: Path
    scale: int
    crop: int
    ensemble: bool
    degradation: RealWorld | Rendered | None
    busy_share: float
    smooth_share: float
    own_colors: bool
    seed: int


class Answers:
    """Crops of some pictures with a teacher's answers, in a file of records: LR, answer, HR.

    Args:
        folder: Where sets of answers are kept.
        question: What was asked.
        pictures: Pictures of the teacher's scale; crops are cut out of their HR.
    """

    def __init__(self, folder: Path, question: Question, pictures: Sequence[Pair]) -> None:
        self.question = question
        self.pictures = pictures
        side, large = question.crop, question.crop * question.scale
        self._shapes = ((side, side, 3), (large, large, 3), (large, large, 3))
        self._record = sum(int(np.prod(shape)) for shape in self._shapes)
        self.folder = folder / self._key()
        self.file = self.folder / "answers.bin"

    def __len__(self) -> int:
        """Counts the whole records that there are by now."""
        return self.file.stat().st_size // self._record if self.file.exists() else 0

    def pairs(self, *, scale: int, context: int, most: int, clean_hr: bool = False) -> list[Pair]:
        """Returns crops with LR, HR and the answer as `taught`, mapped into memory where nothing must be reduced.

        Args:
            scale: Factor of the student. HR and answers are reduced to it (antialiased bicubic).
            context: LR pixels at each border that are cut off, as the answer there lacks context.
            most: Crops at most.
            clean_hr: Whether HR is `taught` where LR is HR reduced and nothing else.

        Returns:
            Pairs with lr of (p, p, 3), and hr and taught of (p * scale, p * scale, 3), all uint8, where p is the crop's
            side less `context` at both ends.
        """
        count = min(len(self), most)
        if not count:
            return []
        records = np.memmap(self.file, dtype=np.uint8, mode="r")[: count * self._record].reshape(count, self._record)
        return [self._pair(number, record, scale, context, clean_hr) for number, record in enumerate(records)]

    def _pair(self, number: int, record: NDArray[np.uint8], scale: int, context: int, clean_hr: bool) -> Pair:
        cuts = np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1]
        lr, taught, hr = (part.reshape(shape) for part, shape in zip(np.split(record, cuts), self._shapes, strict=True))
        if clean_hr and _is_reduced(lr, hr):
            taught = hr
        sides = []
        for side in (lr, taught, hr):
            factor = min(side.shape[0] // self.question.crop, scale)
            size = self.question.crop * factor
            small = side if side.shape[0] == size else resize_pixels(side, (size, size))
            edge = context * factor
            sides.append(small[edge : size - edge, edge : size - edge])
        return Pair(name=f"crop {number}", lr=sides[0], taught=sides[1], hr=sides[2])

    @contextmanager
    def asking(self) -> Iterator[bool]:
        """Tries to become the process that asks, while the context is open.

        Yields:
            Whether this process is the one. The others learn from what it has got so far.

        Raises:
            OutputError: The folder cannot be written.
        """
        make_folder(self.folder)
        lock = filelock.FileLock(self.folder / "asking.lock", blocking=False)
        try:
            with lock:
                yield True
        except filelock.Timeout:
            yield False
        except OSError as error:
            raise output_error(self.folder, error) from error

    def ask(
        self,
        count: int,
        *,
        device: torch.device,
        bf16: bool = False,
        on_answer: Callable[[int], None] = lambda _number: None,
    ) -> None:
        """Asks until there are `count` answers. A cut record at the end of the file is made again.

        Args:
            count: Answers wanted in all.
            device: Where the teacher runs.
            bf16: Whether it computes in bfloat16 where the hardware does, else in float32.
            on_answer: Called with the number of answers after each.

        Raises:
            OutputError, DiskFullError: The file cannot be written.
            ModelError: The teacher cannot be read.
        """
        there = len(self)
        if there >= count:
            return
        ask = asked(self.question.weights, device, ensemble=self.question.ensemble, bf16=bf16)
        crops = PatchSampler(
            self.pictures,
            scale=self.question.scale,
            lr_patch=self.question.crop,
            batch_size=1,
            seed=(self.question.seed, STREAM),
            degradation=self.question.degradation,
            busy_share=self.question.busy_share,
            smooth_share=self.question.smooth_share,
        )
        make_folder(self.folder)
        try:
            with replace_file(self.folder / "question.json") as temporary:
                temporary.write_text(json.dumps(self._about(), indent=1), encoding="utf-8")
            with open_own(self.file, "ab") as file:
                file.truncate(there * self._record)
                for number in range(there, count):
                    crop = crops[number]
                    lr, hr = (side[0].permute(1, 2, 0).numpy() for side in (crop.lr, crop.hr))
                    answer = ask(lr)
                    for side in (lr, with_colors_of(answer, lr) if self.question.own_colors else answer, hr):
                        file.write(np.ascontiguousarray(side).tobytes())
                    file.flush()
                    on_answer(number + 1)
        except OSError as error:
            raise output_error(self.file, error) from error

    def _about(self) -> dict[str, object]:
        """Describes the answers, for people. Its hash names the folder, so that another question is another file."""
        q = self.question
        return {
            "version": ANSWERS_VERSION,
            "teacher": {"name": q.weights.stem, "sha256": hash_file(q.weights)},
            **{key: getattr(q, key) for key in ("scale", "crop", "ensemble", "busy_share", "smooth_share", "seed")},
            **({"own_colors": "mean"} if q.own_colors else {}),
            "degradation": asdict(q.degradation) if q.degradation is not None else "bicubic",
            "pictures": [
                (pair.name, pair.lr.shape, zlib.crc32(np.ascontiguousarray(pair.lr).data)) for pair in self.pictures
            ],
        }

    def _key(self) -> str:
        about = self._about()
        about["teacher"] = about["teacher"]["sha256"]  # type: ignore[index]
        return "answers-" + hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


def asked(
    weights: Path, device: torch.device, *, ensemble: bool, bf16: bool
) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Loads a teacher as a function: (h, w, 3) -> (h * scale, w * scale, 3), both uint8.

    Args:
        weights: The teacher.
        device: Where it runs.
        ensemble: Whether it answers with the mean over eight turns.
        bf16: Whether it computes in bfloat16 where the hardware does, else in float32.

    Raises:
        ModelError: The teacher cannot be read.
    """
    network = module_of(weights).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16 and has_bf16(device.type)):
            answer: Tensor = network(x.contiguous(memory_format=torch.channels_last))
        return answer.float()

    run = self_ensemble(forward) if ensemble else forward

    def ask(lr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with torch.inference_mode():
            return to_pixels(run(to_tensor(np.ascontiguousarray(lr)).to(device)), np.dtype(np.uint8))

    return ask


def with_colors_of(answer: NDArray[np.uint8], lr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Gives an answer the mean colour of its LR.

    Its contrast stays. To take over more of LR's low frequencies would lower that, and students even more so
    (docs/development/training-log.md).

    Args:
        answer: (h * scale, w * scale, 3).
        lr: (h, w, 3).

    Returns:
        An array of the answer's shape.
    """
    shift = lr.mean(axis=(0, 1)) - answer.mean(axis=(0, 1))
    return np.asarray(np.rint(answer + shift).clip(0, 255), dtype=np.uint8)


def _is_reduced(lr: NDArray[np.uint8], hr: NDArray[np.uint8]) -> bool:
    """Tells whether LR is HR reduced and nothing else; its border is of pixels beyond the crop."""
    inside = (slice(_REACH, -_REACH),) * 2
    return np.array_equal(resize_pixels(hr, lr.shape[:2])[inside], lr[inside])
