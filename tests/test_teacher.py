"""A teacher's answers: what they are, where they are kept, and that a student comes nearer to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sr_upscale.checkpoint import WeightsInfo, save_generator
from sr_upscale.data import Pair, PatchSampler, find_pictures, load_pairs
from sr_upscale.errors import UsageError
from sr_upscale.training.config import load_recipe
from sr_upscale.training.loop import Progress, train
from sr_upscale.training.teacher import with_answers
from sr_upscale.upscaler import Upscaler
from tests.conftest import micro_generator

CPU = torch.device("cpu")


@pytest.fixture
def pairs(folder: Path) -> list[Pair]:
    return load_pairs(find_pictures([folder]), scale=2, min_side=16)


def test_the_answer_is_the_self_ensemble_that_users_get(pairs: list[Pair], micro: Path) -> None:
    upscaler = Upscaler(micro, dtype="fp32", tile_size=0, tta=True)
    for pair in with_answers(pairs[:3], micro, device=CPU):
        assert pair.taught is not None
        assert pair.taught.shape == pair.hr.shape
        assert np.abs(pair.taught.astype(int) - upscaler(pair.lr)).max() <= 1


def test_answers_are_kept_for_the_same_teacher_and_pictures(
    pairs: list[Pair], micro: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    fresh = with_answers(pairs, micro, device=CPU)
    first = with_answers(pairs, micro, device=CPU, cache=cache)
    with monkeypatch.context() as patched:
        patched.setattr("sr_upscale.models.generator.Generator.forward", lambda *_: pytest.fail("asked again"))
        again = with_answers(pairs, micro, device=CPU, cache=cache)
    for one, two, three in zip(fresh, first, again, strict=True):
        np.testing.assert_array_equal(one.taught, two.taught)
        np.testing.assert_array_equal(one.taught, three.taught)
    other = tmp_path / "other.safetensors"
    save_generator(other, micro_generator(2, seed=1), WeightsInfo(name="other"))
    with_answers(pairs, other, device=CPU, cache=cache)
    with_answers(pairs[1:], micro, device=CPU, cache=cache)
    assert len(list(cache.iterdir())) == 3


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(pairs: list[Pair], micro: Path, tmp_path: Path) -> None:
    blocked, said = tmp_path / "file", []
    blocked.write_text("")
    found = with_answers(pairs[:1], micro, device=CPU, cache=blocked, on_warning=said.append)
    assert found[0].taught is not None
    assert "held in memory" in said[0]


def test_patches_are_cut_and_turned_as_hr_is(pairs: list[Pair]) -> None:
    taught = [replace(pair, taught=255 - pair.hr) for pair in pairs]
    sampler = PatchSampler(taught, scale=2, lr_patch=8, batch_size=9, seed=(0, 0))
    without = PatchSampler(pairs, scale=2, lr_patch=8, batch_size=9, seed=(0, 0))
    for number in range(3):
        batch = sampler[number]
        assert batch.taught is not None
        assert torch.equal(batch.taught, 255 - batch.hr)
        assert torch.equal(batch.lr, without[number].lr)  # the same places with and without a teacher
        assert without[number].taught is None


def test_a_student_comes_nearer_to_its_teacher(folder: Path, recipe: Path, pairs: list[Pair], tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.safetensors"
    model = micro_generator(2, blocks=1)
    with torch.no_grad():
        model.tail.last.bias.add_(0.2)  # far from HR
    save_generator(teacher, model, WeightsInfo(name="teacher"))
    changes = {"teacher": str(teacher), "stage.teacher_weight": 3.0, "stage.steps": 150, "stage.lr": 3e-3}
    progress: list[Progress] = []
    notes: list[str] = []
    student = train(
        load_recipe(str(recipe), changes),
        data=[folder],
        out=tmp_path / "run",
        on_progress=progress.append,
        on_note=notes.append,
    )
    assert "the teacher answers 10 pictures" in notes[0]
    losses = progress[-1].losses
    assert losses["loss"] == pytest.approx(losses["pixel"] + 3 * losses["teacher"], rel=1e-4)
    alone = train(load_recipe(str(recipe)), data=[folder], out=tmp_path / "alone")
    (pair,) = with_answers(pairs[:1], teacher, device=CPU)
    with_teacher, without = (
        np.abs(Upscaler(weights, dtype="fp32", tile_size=0)(pair.lr).astype(float) - pair.taught).mean()
        for weights in (student, alone)
    )
    assert with_teacher < without / 2


def test_a_teacher_of_another_factor_is_refused(folder: Path, recipe: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "x3.safetensors"
    save_generator(teacher, micro_generator(3), WeightsInfo(name="x3"))
    wanted = load_recipe(str(recipe), {"teacher": str(teacher), "stages.psnr.teacher_weight": 1.0})
    with pytest.raises(UsageError, match="teacher x3 enlarges x3; expected x2"):
        train(wanted, data=[tmp_path / "none"], out=tmp_path / "run")  # before it looks at pictures
