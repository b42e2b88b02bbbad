"""Batches of several kinds of pictures, targets of teacher and start, and a schedule that can be extended."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from sr_upscale.data.decoded import load_pairs
from sr_upscale.data.degradations import RealWorld
from sr_upscale.data.patches import Batch, MixedSampler, Pair, PatchSampler, find_pictures, reduced
from sr_upscale.errors import UsageError
from sr_upscale.training.config import DataSection, ModelSection, Recipe, StageSection, TeacherSection
from sr_upscale.training.loop import Setup, train
from sr_upscale.training.parallel import World
from sr_upscale.training.recipe_file import load_recipe
from sr_upscale.training.state import begin_stage
from sr_upscale.training.step import Tools, train_step
from sr_upscale.training.teacher import with_colors_of
from tests.helpers import micro_generator, pattern


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """Black and white pictures: no photograph of the tests has only those."""
    drawn = tmp_path / "rendered"
    drawn.mkdir()
    for number in range(2):
        pixels = np.where(pattern(48, 48)[..., :1] > 100 + 40 * number, 255, 0).astype(np.uint8)
        Image.fromarray(pixels.repeat(3, axis=2)).save(drawn / f"{number}.png")
    return drawn


def test_patches_are_drawn_by_share_and_hr_is_their_answer(pairs: list[Pair], rendered: Path) -> None:
    def sampler(of: list[Pair], degradation: RealWorld | None = None) -> PatchSampler:
        return PatchSampler(of, scale=2, lr_patch=8, batch_size=200, seed=(0, 0), degradation=degradation)

    drawn = load_pairs(find_pictures([rendered]), scale=2, min_side=16)
    mixed = MixedSampler(
        sampler([replace(pair, taught=255 - pair.hr) for pair in pairs]),
        rendered=sampler(drawn, RealWorld(clean_prob=0.0)),
        rendered_share=0.25,
        clean=sampler(pairs),
        clean_share=0.15,
    )
    batch = mixed[5]
    assert batch.rendered is not None
    assert batch.taught is not None
    black_and_white = ((batch.hr == 0) | (batch.hr == 255)).flatten(1).all(1)
    assert torch.equal(batch.rendered, black_and_white)
    by_hr = (batch.taught == batch.hr).flatten(1).all(1)
    by_teacher = (batch.taught == 255 - batch.hr).flatten(1).all(1)
    assert torch.equal(by_hr, ~by_teacher)
    counts = {"rendered": int(batch.rendered.sum()), "clean": int((by_hr & ~batch.rendered).sum())}
    for name, share in (("rendered", 0.25), ("clean", 0.15)):  # within three standard deviations
        assert abs(counts[name] - 200 * share) < 3 * (200 * share * (1 - share)) ** 0.5, name
    for number in (by_hr & ~batch.rendered).nonzero()[:3, 0]:
        hr, lr = (side[number].permute(1, 2, 0).numpy() for side in (batch.hr, batch.lr))
        assert np.array_equal(reduced(np.ascontiguousarray(hr), 2)[3:-3, 3:-3], lr[3:-3, 3:-3])
    again = mixed[5]
    assert torch.equal(again.lr, batch.lr)
    assert not torch.equal(mixed[6].lr, batch.lr)


def test_an_answer_gets_the_mean_colour_of_its_lr() -> None:
    """A tint goes, everything else stays."""
    rng = np.random.default_rng(0)
    lr = rng.integers(60, 160, size=(24, 24, 3), dtype=np.uint8)
    answer = (lr.repeat(2, 0).repeat(2, 1) + rng.integers(-20, 21, size=(48, 48, 3)) + (9, -6, 4)).astype(np.uint8)
    fixed = with_colors_of(answer, lr)
    np.testing.assert_allclose(fixed.mean(axis=(0, 1)), lr.mean(axis=(0, 1)), atol=0.5)
    assert len(np.unique(fixed.astype(int)[..., 0] - answer[..., 0])) == 1


def test_a_stage_learns_from_the_sharpened_mean_of_teacher_and_start() -> None:
    """The target against SciPy's Gaussian; rendered patches are not mixed. Parts of a batch add up to it."""
    start = micro_generator(2, blocks=1)
    generator = torch.Generator().manual_seed(0)
    lr = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8, generator=generator)
    taught = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8, generator=generator)
    rendered = torch.tensor([True, False, True, False])
    batch = Batch(lr=lr, hr=taught, taught=taught, made_s=0.0, rendered=rendered)
    side = {"pixel_weight": 0.0, "teacher_weight": 1.0, "start_share": 0.25, "sharpen_teacher": 0.6, "steps": 1}
    with torch.inference_mode():
        begun = start(lr.float() / 255).clamp(0, 1).numpy()
    mean = 0.75 * taught.numpy() / 255 + 0.25 * begun
    blurred = partial(gaussian_filter, mode="mirror", truncate=3)
    made = rendered.numpy()[:, None, None, None]
    answers, amounts = np.where(made, taught.numpy() / 255, mean), np.where(made, 0.3, 0.6)
    fine = answers + amounts * (answers - blurred(answers, (0, 0, 2, 2)))
    expected = fine + amounts * (fine - blurred(fine, (0, 0, 8, 8)))
    for parts in (1, 2):
        stage = StageSection(accumulate=parts, **side)  # type: ignore[arg-type]
        model = ModelSection(scale=2, num_feat=8, num_blocks=1)
        teacher = TeacherSection(model="teacher", crop=48)
        recipe = Recipe(
            name="a", init="start", model=model, teacher=teacher, data=DataSection(batch_size=4), stages={"a": stage}
        )
        state = begin_stage(recipe, 0, micro_generator(2, blocks=1, seed=3), device=torch.device("cpu"))
        with torch.inference_mode():
            answer = state.g(lr.float() / 255).numpy()
        tools = Tools(world=World(), dtype=torch.float32, features=None, forward=state.g, start=start)
        losses = train_step(stage, state, batch, tools, seed=0)
        assert losses["teacher"] == pytest.approx(np.abs(answer - expected).mean(), rel=1e-4)


def test_rendered_pictures_and_their_share_come_together(
    folder: Path, recipe: Path, rendered: Path, tmp_path: Path
) -> None:
    for share, folders in ((0.5, []), (0.0, [rendered])):
        wanted = load_recipe(str(recipe), {"data.rendered_share": share})
        with pytest.raises(UsageError, match="rendered_share"):
            train(wanted, Setup(data=[folder], rendered=folders, out=tmp_path / "run"))
