"""A teacher: a network whose answers to LR crops are a second truth beside HR.

What HR holds beyond its LR cannot be foreseen; it reaches every gradient as noise. A teacher's answer is a function of
LR alone, so that it can be learnt by regression (Hinton et al. 2015, arXiv:1503.02531). That holds even where the
teacher itself was taught by a discriminator. Answers are dear, so they are kept in a file: a set grows crop by crop,
goes on where it was cut off, and serves students of every scale that divides the teacher's.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import filelock
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_upscale.data.patches import Pair, PatchSampler
from sr_upscale.device import has_bf16
from sr_upscale.errors import UsageError
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.planes import self_ensemble
from sr_upscale.functional.resize import resize_pixels
from sr_upscale.pretrained.load import module_of, traits_of
from sr_upscale.pretrained.registry import resolve_weights
from sr_upscale.storage.atomic import hash_file, make_folder, open_own, output_error, replace_file
from sr_upscale.training.config import Recipe, TeacherSection

ANSWERS_VERSION = 1
"""Raise it when crops or answers come out otherwise."""

STREAM = 1
"""Separates the random numbers of crops from those of patches."""

_REACH = 3
"""LR pixels at a border that bicubic reduction makes of pixels beyond it."""

BEGINNING = 64
"""Answers of a set with which a run may begin while another process asks for the rest."""

WAIT_S = 2.0
"""Seconds between looks at what another process has got."""


def teacher_of(recipe: Recipe) -> Path | None:
    """Finds the weights that teach, and checks their factor before pictures are decoded for it.

    Returns:
        Path of the weights; None where no stage listens.

    Raises:
        UsageError: The student's factor does not divide theirs.
        ModelError, NetworkError: They cannot be read or had.
    """
    if not recipe.has_teacher:
        return None
    weights = resolve_weights(recipe.teacher.model)
    scale, student = traits_of(weights).scale, recipe.model.scale
    if scale % student:
        raise UsageError(
            f"teacher {weights.stem} enlarges x{scale}; expected x{student} or a multiple, for this recipe"
        )
    return weights


class Answers:
    """Crops of some pictures with a teacher's answers, in a file of records: LR, answer, HR.

    Args:
        folder: Where sets of answers are kept.
        recipe: Who is taught what.
        weights: The teacher.
        pictures: Pictures of the teacher's scale; crops are cut out of their HR.

    Raises:
        ModelError: The teacher cannot be read.
    """

    def __init__(self, folder: Path, recipe: Recipe, weights: Path, pictures: Sequence[Pair]) -> None:
        self.recipe, self.weights, self.pictures = recipe, weights, pictures
        self.scale = traits_of(weights).scale
        side, large = recipe.teacher.crop, recipe.teacher.crop * self.scale
        self._shapes = ((side, side, 3), (large, large, 3), (large, large, 3))
        self._record = sum(int(np.prod(shape)) for shape in self._shapes)
        self.folder = folder / self._key()
        self.file = self.folder / "answers.bin"

    def __len__(self) -> int:
        """Counts the whole records that there are by now."""
        return self.file.stat().st_size // self._record if self.file.exists() else 0

    def pairs(self, most: int) -> list[Pair]:
        """Returns crops with LR, HR and the answer as `taught`, mapped into memory where nothing must be reduced.

        HR and answers are reduced to the student's factor (antialiased bicubic), and cut as `TeacherSection` says.

        Args:
            most: Crops at most.

        Returns:
            Pairs with lr of (p, p, 3), and hr and taught of (p * scale, p * scale, 3), all uint8, where p is the crop's
            side less the context at both ends.
        """
        count = min(len(self), most)
        if not count:
            return []
        records = np.memmap(self.file, dtype=np.uint8, mode="r")[: count * self._record].reshape(count, self._record)
        return [self._pair(number, record) for number, record in enumerate(records)]

    def _pair(self, number: int, record: NDArray[np.uint8]) -> Pair:
        crop, context = self.recipe.teacher.crop, self.recipe.teacher.context
        cuts = np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1]
        lr, taught, hr = (part.reshape(shape) for part, shape in zip(np.split(record, cuts), self._shapes, strict=True))
        if self.recipe.teacher.clean_hr and _is_reduced(lr, hr):
            taught = hr
        sides = []
        for side in (lr, taught, hr):
            factor = min(side.shape[0] // crop, self.recipe.model.scale)
            size, edge = crop * factor, context * factor
            small = side if side.shape[0] == size else resize_pixels(side, (size, size))
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

    def ask(self, count: int, *, device: torch.device, on_answer: Callable[[int], None] = lambda _number: None) -> None:
        """Asks until there are `count` answers. A cut record at the end of the file is made again.

        Args:
            count: Answers wanted in all.
            device: Where the teacher runs.
            on_answer: Called with the number of answers after each.

        Raises:
            OutputError, DiskFullError: The file cannot be written.
            ModelError: The teacher cannot be read.
        """
        there, teacher, data = len(self), self.recipe.teacher, self.recipe.data
        if there >= count:
            return
        ask = _asked(self.weights, teacher, device)
        crops = PatchSampler(
            self.pictures,
            scale=self.scale,
            lr_patch=teacher.crop,
            batch_size=1,
            seed=(self.recipe.seed, STREAM),
            degradation=self.recipe.family,
            busy_share=data.busy_share,
            smooth_share=data.smooth_share,
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
                    for side in (lr, with_colors_of(answer, lr) if teacher.own_colors else answer, hr):
                        file.write(np.ascontiguousarray(side).tobytes())
                    file.flush()
                    on_answer(number + 1)
        except OSError as error:
            raise output_error(self.file, error) from error

    def _about(self) -> dict[str, object]:
        """Describes the answers, for people. Its hash names the folder, so that another question is another file."""
        recipe, family = self.recipe, self.recipe.family
        return {
            "version": ANSWERS_VERSION,
            "teacher": {"name": self.weights.stem, "sha256": hash_file(self.weights)},
            "scale": self.scale,
            "crop": recipe.teacher.crop,
            "ensemble": recipe.teacher.ensemble,
            "busy_share": recipe.data.busy_share,
            "smooth_share": recipe.data.smooth_share,
            "seed": recipe.seed,
            **({"own_colors": "mean"} if recipe.teacher.own_colors else {}),
            "degradation": asdict(family) if family is not None else "bicubic",
            "pictures": [
                (pair.name, pair.lr.shape, zlib.crc32(np.ascontiguousarray(pair.lr).data)) for pair in self.pictures
            ],
        }

    def _key(self) -> str:
        about = self._about()
        about["teacher"] = about["teacher"]["sha256"]  # type: ignore[index]
        return "answers-" + hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


class TrainingCrops:
    """A teacher's answers about the pictures of several folders, each folder with a set of its own.

    A folder that is added leaves the answers about the others as they are.

    Args:
        recipe: Who is taught what. Its crops are shared among the folders in proportion to their pictures.
        weights: The teacher.
        cache: Folder in which sets are kept.
        folders: Pictures of each folder, at the teacher's scale.

    Raises:
        ModelError: The teacher cannot be read.
    """

    def __init__(self, recipe: Recipe, weights: Path, cache: Path, folders: Sequence[Sequence[Pair]]) -> None:
        self.sets = [Answers(cache, recipe, weights, pictures) for pictures in folders]
        total = sum(len(pictures) for pictures in folders)
        self.wanted = [math.ceil(recipe.teacher.crops * len(pictures) / total) for pictures in folders]

    def __len__(self) -> int:
        """Counts the crops that there are by now, of those wanted."""
        return sum(min(len(each), wanted) for each, wanted in zip(self.sets, self.wanted, strict=True))

    def pairs(self) -> list[Pair]:
        """Returns the crops with LR, HR and the teacher's answer, without their context (`Answers.pairs`)."""
        return [pair for each, wanted in zip(self.sets, self.wanted, strict=True) for pair in each.pairs(wanted)]

    def ask(self, *, device: torch.device, on_progress: Callable[[int, int], None]) -> None:
        """Asks for what is missing. Where another process is asking, waits for its first `BEGINNING` answers alone.

        Args:
            device: Where the teacher runs.
            on_progress: Called with the crops that there are and those wanted.

        Raises:
            OutputError, DiskFullError, ModelError: See `Answers.ask`.
        """
        total = sum(self.wanted)
        for each, wanted in zip(self.sets, self.wanted, strict=True):
            while len(each) < wanted:
                with each.asking() as mine:
                    if mine:
                        each.ask(wanted, device=device, on_answer=lambda _number: on_progress(len(self), total))
                if not mine:
                    if len(each) >= min(wanted, BEGINNING):
                        break
                    time.sleep(WAIT_S)


def answered(pairs: Sequence[Pair], weights: Path, teacher: TeacherSection, device: torch.device) -> list[Pair]:
    """Gives whole pictures the teacher's answers, reduced to the scale of the pairs. It asks anew at every call.

    Args:
        pairs: Pictures.
        weights: The teacher.
        teacher: Says how it answers.
        device: Where it runs.

    Returns:
        The pairs with `taught` of hr's shape.

    Raises:
        ModelError: The teacher cannot be read.
    """
    ask = _asked(weights, teacher, device)
    found = []
    for pair in pairs:
        answer = ask(pair.lr)
        small = answer.shape != pair.hr.shape
        found.append(replace(pair, taught=resize_pixels(answer, pair.hr.shape[:2]) if small else answer))
    return found


def _asked(
    weights: Path, teacher: TeacherSection, device: torch.device
) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Loads a teacher as a function: (h, w, 3) -> (h * scale, w * scale, 3), both uint8."""
    network = module_of(weights).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    bf16 = teacher.bf16 and has_bf16(device.type)

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            answer: Tensor = network(x.contiguous(memory_format=torch.channels_last))
        return answer.float()

    run = self_ensemble(forward) if teacher.ensemble else forward

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
