"""A teacher: a network whose answers to LR crops are a second truth beside HR.

What HR holds beyond its LR cannot be foreseen; it reaches every gradient as noise. A teacher's answer is a function of
LR alone, so that it can be learnt by regression (Hinton et al. 2015, arXiv:1503.02531). That holds even where the
teacher itself was taught by a discriminator. Answers are dear, so they are kept in a file. It grows crop by crop, goes
on where it was cut off, and serves students of every scale that divides the teacher's.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import filelock
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_upscale.data.degradations import RealWorld
from sr_upscale.data.patches import Pair, PatchSampler
from sr_upscale.device import has_bf16
from sr_upscale.errors import UsageError
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import resize
from sr_upscale.models.ensemble import self_ensemble
from sr_upscale.pretrained.load import module_of, traits_of
from sr_upscale.storage.atomic import make_folder, open_own, output_error, replace_file
from sr_upscale.storage.digest import hash_file
from sr_upscale.training.config import Recipe

ANSWERS_VERSION = 1
"""Raise it when crops or answers come out otherwise."""

STREAM = 1
"""Tells the random numbers of crops from those of patches."""

BEGINNING = 64
"""Answers of a set with which a run may begin while another process asks for the rest."""

WAIT_S = 2.0
"""Seconds between looks at what another process has got."""


def teacher_scale(weights: Path, *, student: int) -> int:
    """Returns the factor of a teacher, checked before pictures are decoded for it.

    Args:
        weights: The teacher.
        student: Factor of the student.

    Raises:
        UsageError: The student's factor does not divide the teacher's.
        ModelError: The weights cannot be read.
    """
    scale = traits_of(weights).scale
    if scale % student:
        raise UsageError(
            f"teacher {weights.stem} enlarges x{scale}; expected x{student} or a multiple, for this recipe"
        )
    return scale


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
        seed: Start of the random numbers.
    """

    weights: Path
    scale: int
    crop: int
    ensemble: bool
    degradation: RealWorld | None
    busy_share: float
    smooth_share: float
    seed: int


def question_of(recipe: Recipe, weights: Path, scale: int) -> Question:
    """Says what a recipe asks its teacher.

    Args:
        recipe: The recipe.
        weights: The teacher.
        scale: Factor of the teacher.
    """
    return Question(
        weights=weights,
        scale=scale,
        crop=recipe.teacher.crop,
        ensemble=recipe.teacher.ensemble,
        degradation=recipe.degradation if recipe.data.degradation == "real" else None,
        busy_share=recipe.data.busy_share,
        smooth_share=recipe.data.smooth_share,
        seed=recipe.seed,
    )


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

    def pairs(self, *, scale: int, context: int, most: int) -> list[Pair]:
        """Returns crops with LR, HR and the answer as `taught`, mapped into memory where nothing must be reduced.

        Args:
            scale: Factor of the student. HR and answers are reduced to it (antialiased bicubic).
            context: LR pixels at each border that are cut off, as the answer there lacks context.
            most: Crops at most.

        Returns:
            Pairs with lr of (p, p, 3), and hr and taught of (p * scale, p * scale, 3), all uint8, where p is the crop's
            side less `context` at both ends.
        """
        count = min(len(self), most)
        if not count:
            return []
        records = np.memmap(self.file, dtype=np.uint8, mode="r")[: count * self._record].reshape(count, self._record)
        return [self._pair(number, record, scale, context) for number, record in enumerate(records)]

    def _pair(self, number: int, record: NDArray[np.uint8], scale: int, context: int) -> Pair:
        sides, at = [], 0
        for shape in self._shapes:
            size = int(np.prod(shape))
            whole = record[at : at + size].reshape(shape)
            at += size
            factor = shape[0] // self.question.crop
            if factor > scale:
                whole, factor = _reduced(whole, (self.question.crop * scale,) * 2), scale
            edge = context * factor
            sides.append(whole[edge : whole.shape[0] - edge, edge : whole.shape[1] - edge])
        lr, taught, hr = sides
        return Pair(name=f"crop {number}", lr=lr, hr=hr, taught=taught)

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
        ask = _teacher(self.question.weights, device, ensemble=self.question.ensemble, bf16=bf16)
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
                    for side in (lr, ask(lr), hr):
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
            "degradation": asdict(q.degradation) if q.degradation is not None else "bicubic",
            "pictures": [
                (pair.name, pair.lr.shape, zlib.crc32(np.ascontiguousarray(pair.lr).data)) for pair in self.pictures
            ],
        }

    def _key(self) -> str:
        about = self._about()
        about["teacher"] = about["teacher"]["sha256"]  # type: ignore[index]
        return "answers-" + hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


class Lessons:
    """A teacher's answers about the pictures of several folders, each folder with a set of its own.

    A folder that is added leaves the answers about the others as they are.

    Args:
        recipe: Who is taught what. Its crops are shared among the folders in proportion to their pictures.
        weights: The teacher.
        cache: Folder in which sets are kept.
        folders: Pictures of each folder, at the teacher's scale.

    Raises:
        UsageError, ModelError: See `teacher_scale`.
    """

    def __init__(self, recipe: Recipe, weights: Path, cache: Path, folders: Sequence[Sequence[Pair]]) -> None:
        question = question_of(recipe, weights, teacher_scale(weights, student=recipe.model.scale))
        self.scale, self.context, self.bf16 = recipe.model.scale, recipe.teacher.context, recipe.teacher.bf16
        self.sets = [Answers(cache, question, pictures) for pictures in folders]
        total = sum(len(pictures) for pictures in folders)
        self.wanted = [math.ceil(recipe.teacher.crops * len(pictures) / total) for pictures in folders]

    def __len__(self) -> int:
        """Counts the crops that there are by now, of those wanted."""
        return sum(min(len(each), wanted) for each, wanted in zip(self.sets, self.wanted, strict=True))

    def pairs(self) -> list[Pair]:
        """Returns the crops with LR, HR and the teacher's answer, without their context (`Answers.pairs`)."""
        return [
            pair
            for each, wanted in zip(self.sets, self.wanted, strict=True)
            for pair in each.pairs(scale=self.scale, context=self.context, most=wanted)
        ]

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
                        each.ask(
                            wanted,
                            device=device,
                            bf16=self.bf16,
                            on_answer=lambda _number: on_progress(len(self), total),
                        )
                if not mine:
                    if len(each) >= min(wanted, BEGINNING):
                        break
                    time.sleep(WAIT_S)


def lessons_of(
    recipe: Recipe,
    weights: Path,
    folders: Sequence[Sequence[Path]],
    cache: Path,
    decode: Callable[..., list[Pair]],
) -> Lessons:
    """Builds the lessons of a recipe about pictures on disk.

    Args:
        recipe, weights, cache: See `Lessons`.
        folders: Paths of each folder; one without pictures is left out.
        decode: `data.decoded.load_pairs`, with its cache.

    Raises:
        TrainingError: Pictures cannot be read, or are smaller than a crop.
        UsageError, ModelError: See `teacher_scale`.
    """
    scale = teacher_scale(weights, student=recipe.model.scale)
    side = scale * recipe.teacher.crop
    return Lessons(recipe, weights, cache, [decode(paths, scale=scale, min_side=side) for paths in folders if paths])


def answered(
    pairs: Sequence[Pair], weights: Path, *, device: torch.device, ensemble: bool = False, bf16: bool = False
) -> list[Pair]:
    """Gives whole pictures the teacher's answers, reduced to the scale of the pairs. It asks anew at every call.

    Args:
        pairs: Pictures.
        weights: The teacher.
        device: Where it runs.
        ensemble: Whether it answers with the mean over eight turns.
        bf16: See `Answers.ask`.

    Returns:
        The pairs with `taught` of hr's shape.

    Raises:
        ModelError: The teacher cannot be read.
    """
    ask = _teacher(weights, device, ensemble=ensemble, bf16=bf16)
    found = []
    for pair in pairs:
        answer = ask(pair.lr)
        small = answer.shape != pair.hr.shape
        found.append(replace(pair, taught=_reduced(answer, pair.hr.shape[:2]) if small else answer))
    return found


def _teacher(
    weights: Path, device: torch.device, *, ensemble: bool, bf16: bool
) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Loads a teacher as a function: (h, w, 3) -> (h * scale, w * scale, 3), both uint8."""
    network = module_of(weights).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16 and has_bf16(device)):
            answer: Tensor = network(x.contiguous(memory_format=torch.channels_last))
        return answer.float()

    run = self_ensemble(forward) if ensemble else forward

    def ask(lr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with torch.inference_mode():
            return to_pixels(run(to_tensor(np.ascontiguousarray(lr)).to(device)), np.dtype(np.uint8))

    return ask


def _reduced(pixels: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    height, width = size
    return to_pixels(resize(to_tensor(np.ascontiguousarray(pixels)), (height, width)), np.dtype(np.uint8))
