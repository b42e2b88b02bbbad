"""A teacher's answers: what they are, where they are kept, and that a student comes nearer to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from sr_upscale.data.degradations import RealWorld
from sr_upscale.data.patches import Pair, PatchSampler
from sr_upscale.errors import UsageError
from sr_upscale.functional.color import to_tensor
from sr_upscale.functional.resize import downscale_matlab
from sr_upscale.pretrained.weights_file import WeightsInfo, save_generator
from sr_upscale.training.config import DataSection, ModelSection, Recipe, TeacherSection
from sr_upscale.training.loop import Setup, train
from sr_upscale.training.recipe_file import load_recipe
from sr_upscale.training.run import Progress
from sr_upscale.training.teacher import Answers, TrainingCrops, answered
from sr_upscale.upscaler import Upscaler
from tests.helpers import Cli, lines, micro_generator

CPU = torch.device("cpu")


def asking(scale: int = 2, family: RealWorld | None = None, smooth_share: float = 0.0, **teacher: object) -> Recipe:
    """A recipe of a student of that factor, with crops of 16 and no context."""
    return Recipe(
        name="student",
        model=ModelSection(scale=scale),
        data=DataSection(degradation="real" if family else "bicubic", smooth_share=smooth_share),
        degradation=family or RealWorld(),
        teacher=TeacherSection(**{"crop": 16, "context": 0, **teacher}),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("ensemble", [False, True])
def test_the_answer_is_what_users_get(pairs: list[Pair], micro: Path, tmp_path: Path, ensemble: bool) -> None:
    upscaler = Upscaler(micro, dtype="fp32", tile_size=0, tta=ensemble)
    recipe = asking(ensemble=ensemble, family=RealWorld())
    answers = Answers(tmp_path, recipe, micro, pairs)
    answers.ask(3, device=CPU)
    crops = answers.pairs(99)
    assert len(crops) == 3
    for pair in [*crops, *answered(pairs[:2], micro, recipe.teacher, CPU)]:
        assert pair.taught is not None
        assert pair.taught.shape == pair.hr.shape == (2 * pair.lr.shape[0], 2 * pair.lr.shape[1], 3)
        assert np.abs(pair.taught.astype(int) - upscaler(np.ascontiguousarray(pair.lr))).max() <= 1


def test_hr_is_the_answer_where_nothing_was_spoiled(pairs: list[Pair], micro: Path, tmp_path: Path) -> None:
    answers, with_hr = (
        Answers(tmp_path, asking(family=RealWorld(clean_prob=0.5), clean_hr=clean), micro, pairs)
        for clean in (False, True)
    )
    answers.ask(12, device=CPU)
    clean = 0
    for pair, plain in zip(with_hr.pairs(99), answers.pairs(99), strict=True):
        expected = downscale_matlab(to_tensor(np.ascontiguousarray(pair.hr)), 2)[0].permute(1, 2, 0).numpy() * 255
        spoiled = np.abs(expected - pair.lr)[3:-3, 3:-3].max() > 0.51
        assert np.array_equal(pair.taught, plain.taught if spoiled else pair.hr)
        assert np.array_equal(pair.hr, plain.hr)
        clean += not spoiled
    assert 2 <= clean <= 10


def test_asking_goes_on_where_it_was_cut_off(pairs: list[Pair], micro: Path, tmp_path: Path) -> None:
    whole = Answers(tmp_path / "whole", asking(family=RealWorld()), micro, pairs)
    whole.ask(5, device=CPU)
    cut = Answers(tmp_path / "cut", asking(family=RealWorld()), micro, pairs)
    cut.ask(3, device=CPU)
    with cut.file.open("ab") as file:
        file.write(b"half a record")
    assert len(cut) == 3
    cut.ask(5, device=CPU)
    assert cut.file.read_bytes() == whole.file.read_bytes()


def test_another_question_is_another_file(pairs: list[Pair], micro: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_generator(other, micro_generator(2, seed=1), WeightsInfo(name="other"))
    asked = [
        Answers(tmp_path, asking(), micro, pairs),
        Answers(tmp_path, asking(), other, pairs),
        Answers(tmp_path, asking(smooth_share=0.5), micro, pairs),
        Answers(tmp_path, asking(family=RealWorld()), micro, pairs),
        Answers(tmp_path, asking(ensemble=True), micro, pairs),
        Answers(tmp_path, asking(), micro, pairs[1:]),
    ]
    assert len({answers.file for answers in asked}) == len(asked)
    assert Answers(tmp_path, asking(), micro, list(pairs)).file == asked[0].file


def test_one_set_serves_students_of_every_factor_of_the_teachers(pairs: list[Pair], tmp_path: Path) -> None:
    """A x4 teacher that enlarges by nearest neighbour, reduced by two, is nearest neighbour x2, but at its edges."""
    teacher = tmp_path / "x4.safetensors"
    model = micro_generator(4)
    with torch.no_grad():
        model.tail.last.weight.zero_()
        model.tail.last.bias.zero_()
    save_generator(teacher, model, WeightsInfo(name="x4"))
    by_four, by_two = (
        Answers(tmp_path, asking(scale, crop=8, context=1), teacher, [_times_two(pair) for pair in pairs])
        for scale in (4, 2)
    )
    by_four.ask(2, device=CPU)
    for large, small in zip(by_four.pairs(2), by_two.pairs(2), strict=True):
        np.testing.assert_array_equal(large.lr, small.lr)
        assert large.taught is not None
        assert small.taught is not None
        assert small.taught.shape == small.hr.shape == (12, 12, 3)
        np.testing.assert_array_equal(large.taught, large.lr.repeat(4, 0).repeat(4, 1))
        means = large.taught.reshape(12, 2, 12, 2, 3).mean(axis=(1, 3))
        assert np.abs(small.taught - means).mean() < 12


def _times_two(pair: Pair) -> Pair:
    hr = pair.hr[: pair.hr.shape[0] // 4 * 4, : pair.hr.shape[1] // 4 * 4]
    return Pair(name=pair.name, hr=hr, lr=np.ascontiguousarray(hr[::4, ::4]))


def test_patches_are_cut_and_turned_as_hr_is(pairs: list[Pair]) -> None:
    taught = [replace(pair, taught=255 - pair.hr) for pair in pairs]
    sampler = PatchSampler(taught, scale=2, lr_patch=8, batch_size=9, seed=(0, 0))
    without = PatchSampler(pairs, scale=2, lr_patch=8, batch_size=9, seed=(0, 0))
    for number in range(3):
        batch = sampler[number]
        assert batch.taught is not None
        assert torch.equal(batch.taught, 255 - batch.hr)
        assert without[number].taught is None


def test_crops_are_shared_out_by_pictures_and_a_new_folder_keeps_the_old_answers(
    pairs: list[Pair], micro: Path, recipe: Path, tmp_path: Path
) -> None:
    wanted = load_recipe(str(recipe), {"teacher.model": str(micro), "teacher.crops": 12, "teacher.crop": 16})
    alone = TrainingCrops(wanted, micro, tmp_path, [pairs[:8]])
    alone.ask(device=CPU, on_progress=lambda *_: None)
    assert len(alone) == 12
    said: list[tuple[int, int]] = []
    both = TrainingCrops(wanted, micro, tmp_path, [pairs[:8], pairs[8:]])
    assert both.wanted == [8, 4]
    both.ask(device=CPU, on_progress=lambda there, of: said.append((there, of)))
    assert said == [(9, 12), (10, 12), (11, 12), (12, 12)]  # only the new folder's
    np.testing.assert_array_equal(alone.pairs()[0].lr, both.pairs()[0].lr)


def test_a_run_begins_with_what_another_process_has_got(
    pairs: list[Pair], micro: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sr_upscale.training.teacher.BEGINNING", 2)
    monkeypatch.setattr("sr_upscale.training.teacher.WAIT_S", 0.01)
    wanted = load_recipe(str(recipe), {"teacher.model": str(micro), "teacher.crops": 9, "teacher.crop": 16})
    crops = TrainingCrops(wanted, micro, tmp_path, [pairs])
    (answers,) = crops.sets
    answers.ask(3, device=CPU)
    with FileLock(answers.folder / "asking.lock"):
        crops.ask(device=CPU, on_progress=lambda *_: pytest.fail("asked beside the other"))
    assert len(crops) == 3
    crops.ask(device=CPU, on_progress=lambda *_: None)
    assert len(crops) == 9


CHANGES = {"stage.teacher_weight": 3.0, "teacher.crop": 18, "teacher.context": 1, "teacher.crops": 30}


def test_a_student_comes_nearer_to_its_teacher(folder: Path, recipe: Path, pairs: list[Pair], tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.safetensors"
    model = micro_generator(2, blocks=1)
    with torch.no_grad():
        model.tail.last.bias.add_(0.2)  # far from HR
    save_generator(teacher, model, WeightsInfo(name="teacher"))
    changes = {**CHANGES, "teacher.model": str(teacher), "stage.steps": 150, "stage.lr": 3e-3}
    changes["teacher.ensemble"] = True  # answers that turn with the picture
    progress: list[Progress] = []
    asked: list[tuple[int, int]] = []
    student = train(
        load_recipe(str(recipe), changes),
        Setup(
            data=[folder],
            out=tmp_path / "run",
            on_progress=progress.append,
            on_asking=lambda there, wanted: asked.append((there, wanted)),
        ),
    )
    assert asked[-1] == (30, 30)
    losses = progress[-1].losses
    assert losses["loss"] == pytest.approx(losses["pixel"] + 3 * losses["teacher"], rel=1e-4)
    alone = train(load_recipe(str(recipe)), Setup(data=[folder], out=tmp_path / "alone"))
    (pair,) = answered(pairs[:1], teacher, TeacherSection(ensemble=True), CPU)
    with_teacher, without = (
        np.abs(Upscaler(weights, dtype="fp32", tile_size=0)(pair.lr).astype(float) - pair.taught).mean()
        for weights in (student, alone)
    )
    assert with_teacher < without / 2
    scores = progress[-1].scores
    assert scores is not None
    assert scores.teacher_l1 is not None
    assert abs(scores.teacher_l1 - with_teacher) < with_teacher


def test_a_stage_may_listen_to_the_teacher_alone(
    folder: Path, recipe: Path, micro: Path, tmp_path: Path, vgg19: Path
) -> None:
    """HR is in no loss: VGG19 and the discriminator look at the teacher's answers, through a window."""
    changes = {
        **CHANGES,
        "teacher.model": str(micro),
        "stage.pixel_weight": 0.0,
        "stage.teacher_perceptual_weight": 0.5,
        "stage.teacher_texture_weight": 0.1,
        "stage.perceptual_layers": {"conv1_2": 1.0},
        "stage.feature_patch": 8,
        "stage.gan_weight": 0.1,
        "stage.gan_real": "teacher",
        "stage.discriminator": "unet",
        "stage.d_num_feat": 4,
        "stage.steps": 3,
        "data.smooth_share": 0.5,
        "data.busy_share": 0.5,
    }
    progress: list[Progress] = []
    run = tmp_path / "run"
    train(
        load_recipe(str(recipe), changes), Setup(data=[folder], out=run, vgg_weights=vgg19, on_progress=progress.append)
    )
    assert {"teacher", "teacher_perceptual", "teacher_texture", "gan", "d"} <= set(progress[-1].losses)
    assert not {"pixel", "perceptual"} & set(progress[-1].losses)
    assert lines(run / "train.jsonl")[-1]["finished"]


def test_texture_alone_is_learnt(folder: Path, recipe: Path, micro: Path, tmp_path: Path, vgg19: Path) -> None:
    changes = {
        **CHANGES,
        "teacher.model": str(micro),
        "stage.pixel_weight": 0.0,
        "stage.teacher_weight": 0.0,
        "stage.teacher_texture_weight": 1.0,
        "stage.perceptual_layers": {"conv1_2": 1.0},
        "stage.lr": 3e-3,
    }

    def after(steps: int) -> float:
        progress: list[Progress] = []
        train(
            load_recipe(str(recipe), {**changes, "stage.steps": steps}),
            Setup(
                data=[folder],
                out=tmp_path / str(steps),
                vgg_weights=vgg19,
                on_progress=progress.append,
            ),
        )
        return progress[-1].losses["teacher_texture"]

    assert after(120) < 0.75 * after(1)


def test_a_growing_set_is_noticed_at_a_validation(folder: Path, recipe: Path, micro: Path, tmp_path: Path) -> None:
    """The set is as large as wanted at the start; another recipe's process adds to it while this one trains."""
    changes = {**CHANGES, "teacher.model": str(micro), "stage.steps": 30}
    seen: list[int] = []
    real = TrainingCrops.pairs

    def pairs(crops: TrainingCrops) -> list[Pair]:
        seen.append(len(crops))
        crops.wanted = [40]
        crops.sets[0].ask(40, device=CPU)
        return real(crops)[: seen[-1]]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TrainingCrops, "pairs", pairs)
        patched.setattr("sr_upscale.training.loop.Every.due", lambda *_: True)
        train(load_recipe(str(recipe), changes), Setup(data=[folder], out=tmp_path / "run", cache=tmp_path / "cache"))
    assert seen[:2] == [30, 40]


def test_a_teacher_of_another_factor_is_refused(recipe: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "x3.safetensors"
    save_generator(teacher, micro_generator(3), WeightsInfo(name="x3"))
    wanted = load_recipe(str(recipe), {"teacher.model": str(teacher), "stages.psnr.teacher_weight": 1.0})
    with pytest.raises(UsageError, match="teacher x3 enlarges x3; expected x2 or a multiple"):
        train(wanted, Setup(data=[tmp_path / "none"], out=tmp_path / "run"))  # before it looks at pictures


def test_the_command_line_says_how_far_the_teacher_is(
    cli: Cli, folder: Path, recipe: Path, micro: Path, tmp_path: Path
) -> None:
    settings = [f"--set={key}={value}" for key, value in {**CHANGES, "teacher.model": micro}.items()]
    ran = cli("train", "-c", recipe, "--data", folder, "-o", tmp_path / "run", *settings, code=0)
    assert "teacher l1" in ran.err
