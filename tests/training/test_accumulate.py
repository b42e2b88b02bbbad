"""Batches in parts: one step of k parts of n patches is the step of one batch of k * n."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sr_upscale.data.patches import Batch, Pair, PatchSampler
from sr_upscale.errors import UsageError
from sr_upscale.models.features import VGG19Features, read_vgg19
from sr_upscale.training import state, step
from sr_upscale.training.loop import Resume, Setup, train
from sr_upscale.training.parallel import World
from sr_upscale.training.recipe_file import load_recipe
from tests.helpers import Cli

CPU = torch.device("cpu")
JUDGED = {
    "stages.gan.gan_loss": "lsgan",
    "stages.gan.discriminator": "unet",
    "stages.gan.gan_weight": 0.5,
    "stages.gan.clip_norm": 1e-3,
    "data.batch_size": 8,
}


@pytest.fixture
def batch(pairs: list[Pair]) -> Batch:
    return PatchSampler(pairs, scale=2, lr_patch=8, batch_size=8, seed=(0, 1))[0]


def test_the_gradient_of_parts_is_that_of_the_batch_by_its_formula(recipe: Path, batch: Batch) -> None:
    """Adam's first step, written out: lr * sign of the mean gradient, up to its epsilon; plain L2 of all patches."""
    settings = {"data.batch_size": 8, "stage.accumulate": 4, "stage.pixel_loss": "l2", "stage.clip_norm": 1e9}
    loaded = load_recipe(str(recipe), settings)
    s = state.begin_stage(loaded, 0, state.new_generator(loaded), device=CPU)
    lr, hr = batch.lr.float() / 255, batch.hr.float() / 255
    error = (s.g(lr) - hr).square().mean()
    wanted = torch.autograd.grad(error, list(s.g.parameters()))
    before = [each.detach().clone() for each in s.g.parameters()]
    tools = step.Tools(world=World(), dtype=torch.float32, features=None, forward=s.g)
    for group in s.g_optimizer.param_groups:
        group["lr"] = 1e-3
    found = step.train_step(loaded.stages["psnr"], s, batch, tools, seed=0)
    assert found["loss"] == pytest.approx(error.item(), rel=1e-5)
    for parameter, gradient, old in zip(s.g.parameters(), wanted, before, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-8)
        adam = parameter.grad / (parameter.grad.abs() + 1e-8)  # of `gradient` a vanishing one may have another sign
        torch.testing.assert_close(old - parameter, 1e-3 * adam, rtol=1e-2, atol=1e-6)


def test_a_discriminator_sees_lr_beside_the_same_part_of_real_and_fake(
    gan_recipe: Path, vgg19: Path, batch: Batch
) -> None:
    """HR is made from LR by torch's bilinear resampling, so that LR enlarged is HR itself wherever the window lies."""
    lr = batch.lr.float()
    hr = torch.nn.functional.interpolate(lr, scale_factor=2, mode="bilinear").round().to(torch.uint8)
    features = VGG19Features(read_vgg19(vgg19), ["conv1_2", "conv2_2"])
    recipe = load_recipe(str(gan_recipe), {**JUDGED, "stages.gan.gan_sees_lr": True, "stages.gan.feature_patch": 8})
    s = state.begin_stage(recipe, 1, state.new_generator(recipe), device=CPU)
    assert s.d is not None
    judged: list[torch.Tensor] = []
    s.d.register_forward_pre_hook(lambda _module, inputs: judged.append(inputs[0].detach()))
    tools = step.Tools(world=World(), dtype=torch.float32, features=features, forward=s.g)
    for seed in range(3):
        step.train_step(recipe.stages["gan"], s, Batch(lr=batch.lr, hr=hr, made_s=0.0), tools, seed=seed)
    assert [tuple(each.shape) for each in judged] == [(8, 6, 8, 8)] * 12
    beside = torch.stack([each[:, 3:] for each in judged]).unflatten(0, (3, 4))
    assert (beside == beside[:, :1]).all()  # of the two networks' looks at real and fake
    assert not torch.equal(beside[0], beside[1])  # the window moves
    pictures = torch.stack([each[:, :3] for each in judged]).unflatten(0, (3, 4))
    apart = (pictures - beside).abs().amax(dim=(2, 3, 4, 5))
    assert ((apart < 0.6 / 255).sum(dim=1) == 2).all()  # HR, once for each network


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_steps_of_generator_and_discriminator_are_those_of_one_batch(
    gan_recipe: Path, vgg19: Path, batch: Batch, parts: int
) -> None:
    """Several steps, within rounding: weights, losses, and the vectors of the discriminator's spectral norms.

    The steps are those of SGD: Adam makes a whole step of the sign of a gradient that is nothing but rounding.
    """
    features = VGG19Features(read_vgg19(vgg19), ["conv1_2", "conv2_2"])
    ends = []
    for accumulate in (1, parts):
        recipe = load_recipe(str(gan_recipe), {**JUDGED, "stages.gan.accumulate": accumulate})
        s = state.begin_stage(recipe, 1, state.new_generator(recipe), device=CPU)
        assert s.d is not None
        s.g_optimizer = torch.optim.SGD(s.g.parameters(), lr=1.0)  # of a gradient clipped to 1e-3
        s.d_optimizer = torch.optim.SGD(s.d.parameters(), lr=1e-2)
        seen: list[int] = []
        s.g.register_forward_pre_hook(lambda _module, inputs, seen=seen: seen.append(len(inputs[0])))
        tools = step.Tools(world=World(), dtype=torch.float32, features=features, forward=s.g)
        start = [each.detach().clone() for each in (*s.g.parameters(), *s.d.parameters())]
        losses = [step.train_step(recipe.stages["gan"], s, batch, tools, seed=at) for at in range(3)]
        assert seen == [8 // accumulate] * (3 * accumulate)
        ends.append((losses, [each.detach() for each in (*s.g.parameters(), *s.d.parameters())], list(s.d.buffers())))
    (losses, one, norms), (losses_k, many, norms_k) = ends
    for a, b in zip(losses, losses_k, strict=True):
        assert a == pytest.approx(b, rel=1e-3)
    for at, (whole, parted, old) in enumerate(zip(one, many, start, strict=True)):
        moved, apart = float((whole - old).norm()), float((whole - parted).norm())
        assert moved > 0, at
        assert apart < 0.01 * moved, at
    for one_norm, norm_k in zip(norms, norms_k, strict=True):
        torch.testing.assert_close(one_norm, norm_k, rtol=1e-3, atol=1e-4)


def test_shares_must_divide_into_parts() -> None:
    World(size=2).check_batch(8, 2)
    with pytest.raises(UsageError, match="batch size 8 does not divide among 3 processes; expected a multiple of 3"):
        World(size=3).check_batch(8)
    with pytest.raises(UsageError, match="batch size 8 does not divide among 2 processes, 3 parts each; .* of 6"):
        World(size=2).check_batch(8, 3)


def test_a_run_goes_on_in_other_parts(cli: Cli, folder: Path, recipe: Path, tmp_path: Path) -> None:
    train(load_recipe(str(recipe), {"stage.steps": 3}), Setup(data=[folder], out=tmp_path / "run"))
    said: list[str] = []
    longer = load_recipe(str(recipe), {"stage.steps": 6, "stage.accumulate": 4})
    train(longer, Setup(data=[folder], out=tmp_path / "run", resume=Resume.YES, on_note=said.append))
    assert "stages.psnr.accumulate was 1, is 4" in said[0]
    argv = ["train", "-c", recipe, "--data", folder, "-o", tmp_path / "other", "--dry-run"]
    assert "batch of 4 in 2 parts," in cli(*argv, "--set", "stage.accumulate=2").out
    stage = json.loads(cli(*argv, "--set", "stage.accumulate=2", "--json").out)["stages"][0]
    assert (stage["batch_size"], stage["accumulate"]) == (4, 2)
