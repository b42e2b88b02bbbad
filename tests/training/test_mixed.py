"""Batches of several kinds of pictures, stages that stay near their start, and a schedule that can be extended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_upscale.data.decoded import load_pairs
from sr_upscale.data.degradations import RealWorld
from sr_upscale.data.patches import Batch, MixedSampler, Pair, PatchSampler, find_pictures, reduced
from sr_upscale.errors import UsageError
from sr_upscale.functional.color import to_tensor
from sr_upscale.pretrained.weights_file import WeightsInfo, load_generator, save_generator
from sr_upscale.training.answers import with_colors_of
from sr_upscale.training.config import DataSection, ModelSection, Recipe, StageSection
from sr_upscale.training.loop import Progress, train
from sr_upscale.training.parallel import World
from sr_upscale.training.recipe_file import load_recipe
from sr_upscale.training.schedule import stage_lr
from sr_upscale.training.state import begin_stage
from sr_upscale.training.step import Tools, train_step
from tests.helpers import micro_generator, pattern


@pytest.fixture
def pairs(folder: Path) -> list[Pair]:
    return load_pairs(find_pictures([folder]), scale=2, min_side=16)


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


WSD = StageSection(schedule="wsd", lr=1.0, lr_floor=0.1, decay_share=0.2, warmup_steps=10)


@pytest.mark.parametrize(
    ("step", "fraction", "expected"),
    [(0, 0.0, 0.1), (4, 0.0, 0.5), (99, 0.5, 1.0), (99, 0.8, 1.0), (99, 0.9, 0.55), (99, 1.0, 0.1)],
)
def test_wsd_warms_up_stays_and_decays(step: int, fraction: float, expected: float) -> None:
    assert stage_lr(WSD, step, fraction) == pytest.approx(expected)


def test_an_anchor_holds_the_network_where_it_started(
    folder: Path, pairs: list[Pair], recipe: Path, rendered: Path, tmp_path: Path, vgg19: Path
) -> None:
    start, teacher = tmp_path / "start.safetensors", tmp_path / "teacher.safetensors"
    save_generator(start, micro_generator(2, blocks=1), WeightsInfo(name="start"))
    save_generator(teacher, micro_generator(2, seed=7), WeightsInfo(name="teacher"))
    changes = {
        "init": str(start),
        "teacher.model": str(teacher),
        "teacher.crop": 18,
        "teacher.context": 1,
        "teacher.crops": 20,
        "teacher.own_colors": True,
        "data.rendered_share": 0.3,
        "data.clean_share": 0.2,
        "stage.pixel_weight": 0.0,
        "stage.teacher_weight": 1.0,
        "stage.perceptual_layers": {"conv1_2": 1.0},
        "stage.steps": 30,
        "stage.lr": 2e-4,
    }

    def moved(name: str, **more: float) -> tuple[float, list[Mapping[str, float]]]:
        """How far the answers moved from the start's, and the losses."""
        progress: list[Progress] = []
        wanted = load_recipe(str(recipe), {**changes, **{f"stage.{key}": value for key, value in more.items()}})
        out = train(
            wanted,
            data=[folder],
            rendered=[rendered],
            out=tmp_path / name,
            vgg_weights=vgg19,
            on_progress=progress.append,
        )
        x = to_tensor(pairs[0].lr)
        with torch.inference_mode():
            distance = (load_generator(out)[0](x) - load_generator(start)[0](x)).abs().mean()
        return float(distance), [each.losses for each in progress]

    free, _losses = moved("free")
    held, losses = moved("held", anchor_weight=10.0, anchor_perceptual_weight=1.0)
    let_go, _losses = moved("let-go", anchor_weight=10.0, anchor_half_life_s=1e-6)
    assert held < 0.5 * free
    assert let_go > 1.5 * held
    assert {"anchor", "anchor_perceptual", "teacher"} <= set(losses[-1])


def test_a_part_without_photographs_has_no_anchor() -> None:
    """The batch in two parts, one of them rendered patches alone, has the losses of the batch as a whole."""
    start = micro_generator(2, blocks=1)
    side = {"pixel_loss": "l2", "anchor_weight": 1.0, "steps": 1}
    generator = torch.Generator().manual_seed(0)
    lr, hr = (torch.randint(0, 256, (4, 3, n, n), dtype=torch.uint8, generator=generator) for n in (8, 16))
    batch = Batch(lr=lr, hr=hr, made_s=0.0, rendered=torch.tensor([True, True, False, False]))
    found = []
    for parts in (1, 2):
        stage = StageSection(accumulate=parts, **side)  # type: ignore[arg-type]
        model = ModelSection(scale=2, num_feat=8, num_blocks=1)
        recipe = Recipe(name="a", init="start", model=model, data=DataSection(batch_size=4), stages={"a": stage})
        state = begin_stage(recipe, 0, micro_generator(2, blocks=1, seed=3), device=torch.device("cpu"))
        tools = Tools(world=World(), dtype=torch.float32, features=None, forward=state.g, start=start)
        found.append(train_step(stage, state, batch, tools, seed=0))
    assert found[0]["anchor"] > 0
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stage.anchor_weight": 1.0}, "weights to start from, as stages.psnr stays near them"),
        ({"data.rendered_share": 0.7, "data.clean_share": 0.4}, "at most 1 together"),
        ({"stage.decay_share": 0.0}, "stages.psnr.decay_share"),
        ({"data.clean_share": -0.1}, "data.clean_share"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, object], named: str, recipe: Path) -> None:
    with pytest.raises(UsageError, match=named):
        load_recipe(str(recipe), changes)


def test_rendered_pictures_and_their_share_come_together(
    folder: Path, recipe: Path, rendered: Path, tmp_path: Path
) -> None:
    for share, folders in ((0.5, []), (0.0, [rendered])):
        wanted = load_recipe(str(recipe), {"data.rendered_share": share})
        with pytest.raises(UsageError, match="rendered_share"):
            train(wanted, data=[folder], rendered=folders, out=tmp_path / "run")
