"""A teacher: a network whose answers to LR crops are a second truth beside HR.

What HR holds beyond its LR cannot be foreseen; it reaches every gradient as noise. A teacher's answer is a function of
LR alone, so that it can be learnt by regression (Hinton et al. 2015, arXiv:1503.02531). That holds even where the
teacher itself was taught by a discriminator. Answers are dear, so they are kept (`training.answers`): a set grows crop
by crop, goes on where it was cut off, and serves students of every scale that divides the teacher's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sr_upscale.data.patches import Pair
from sr_upscale.errors import UsageError
from sr_upscale.functional.resize import resize_pixels
from sr_upscale.pretrained.load import traits_of
from sr_upscale.training.answers import Answers, Question, asked
from sr_upscale.training.config import Recipe

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
        degradation=recipe.family,
        busy_share=recipe.data.busy_share,
        smooth_share=recipe.data.smooth_share,
        own_colors=recipe.teacher.own_colors,
        seed=recipe.seed,
    )


class TrainingCrops:
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
        self.scale, self.teacher = recipe.model.scale, recipe.teacher
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
            for pair in each.pairs(
                scale=self.scale, context=self.teacher.context, most=wanted, clean_hr=self.teacher.clean_hr
            )
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
                            bf16=self.teacher.bf16,
                            on_answer=lambda _number: on_progress(len(self), total),
                        )
                if not mine:
                    if len(each) >= min(wanted, BEGINNING):
                        break
                    time.sleep(WAIT_S)


def training_crops_of(
    recipe: Recipe,
    weights: Path,
    folders: Sequence[Sequence[Path]],
    cache: Path,
    decode: Callable[..., list[Pair]],
) -> TrainingCrops:
    """Builds the crops of a recipe about pictures on disk.

    Args:
        recipe, weights, cache: See `TrainingCrops`.
        folders: Paths of each folder; one without pictures is left out.
        decode: `data.decoded.load_pairs`, with its cache.

    Raises:
        TrainingError: Pictures cannot be read, or are smaller than a crop.
        UsageError, ModelError: See `teacher_scale`.
    """
    scale = teacher_scale(weights, student=recipe.model.scale)
    side = scale * recipe.teacher.crop
    return TrainingCrops(
        recipe, weights, cache, [decode(paths, scale=scale, min_side=side) for paths in folders if paths]
    )


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
    ask = asked(weights, device, ensemble=ensemble, bf16=bf16)
    found = []
    for pair in pairs:
        answer = ask(pair.lr)
        small = answer.shape != pair.hr.shape
        found.append(replace(pair, taught=resize_pixels(answer, pair.hr.shape[:2]) if small else answer))
    return found
