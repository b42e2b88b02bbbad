"""Recipes: what they hold, what they refuse, and how the command line changes them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sr_upscale.errors import UsageError
from sr_upscale.training.options import shipped_recipes
from sr_upscale.training.recipe_file import load_recipe, parse_override, recipe_from_dict, with_length, with_patches
from tests.helpers import Cli


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_named_as_their_file(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe_from_dict(dataclasses.asdict(recipe)) == recipe


SPLIT = "[stages.a]\ngan_weight = 1\naccumulate = 2\n"
"""A stage with a discriminator, whose batches come in two parts."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[stages.a]\nlearning_rate = 1", "unknown key stages.a.learning_rate; expected one of steps, max_time_s, opt"),
        ("[data]\nbatchsize = 4", "unknown key data.batchsize; did you mean data.batch_size"),
        ("[stage]\nlr = 1", "unknown key stage; did you mean stages"),
        ("[data]\nbatch_size = 'many'", "data.batch_size is 'many'; expected int"),
        ("[data]\nbatch_size = 0", "data.batch_size is 0; expected more than 0"),
        ("[stages.a]\nbetas = [1]", "expected two numbers"),
        ("[stages.a]\nmax_time_s = 0", "no end"),
        ("[stages.a]\nema_decay = 1", "expected 0 to below 1"),
        ("[stages.a]\nmax_time_s = nan", "stages.a.max_time_s is nan; expected a number"),
        ("[stages.a]\nsteps = 1\nvalidate_every_s = -inf", "stages.a.validate_every_s is -inf; expected a number"),
        ("[stages.a]\nperceptual_layers = { conv1_2 = nan }", "conv1_2 is nan; expected a number"),
        ("gpu = 3", "gpu is 3; expected a section"),
        ("[stages.a]\npixel_loss = 'l3'", "stages.a.pixel_loss is 'l3'; expected one of l1, l2, charbonnier, strokes"),
        ("[stages.a]\ngan_loss = 'wgan'", "expected one of relativistic, standard, lsgan"),
        ("[stages.a]\ndiscriminator = 'patch'", "expected one of vgg, unet"),
        ("[stages.a]\noptimizer = 'sgd'", "stages.a.optimizer is 'sgd'; expected one of adam, muon"),
        ("[stages.a]\nschedule = 'step'", "expected one of cosine, multistep, constant"),
        ("[stages.a]\ngan_weight = -1", "stages.a.gan_weight is -1.0; expected 0 or more"),
        ("[stages.a]\npixel_weight = 0", "stages.a has no loss"),
        ("[stages.a]\nperceptual_layers = { conv6_1 = 1 }", "perceptual_layers is 'conv6_1'; expected names such as"),
        ("[stages.a]\nperceptual_layers = 1", "perceptual_layers is 1; expected a section"),
        (
            "[stages.a]\ngan_weight = 1\nlr_patch = 3",
            "12 HR pixels for its discriminator; expected a multiple of 8",
        ),
        ("stages = 1", "stages is 1; expected a section"),
        ("[gpu.data]\nbatch = 1", "unknown key data.batch; did you mean data.batch_size"),
        ("[data]\ndegradation = 'blur'", "data.degradation is 'blur'; expected one of bicubic, real, rendered"),
        ("[degradation.first]\njpeg_quality = 3", "jpeg_quality is 3; expected 2 numbers"),
        (
            "[stages.a]\nteacher_weight = 1",
            "teacher.model is ''; expected weights to learn from, as stages.a listens to them",
        ),
        ("[stages.a]\ngan_real = 'teacher'", "teacher.model is ''; expected weights to learn from"),
        ("[stages.a]\nlr_patch = 20\nfeature_patch = 96", "feature_patch is 96; expected a multiple of 8, at most 80"),
        ("[stages.a]\nlr_patch = 20\nfeature_patch = 20", "feature_patch is 20; expected a multiple of 8, at most 80"),
        (
            "[teacher]\nmodel = 'a'\ncrop = 40\n[stages.a]\nlr_patch = 30\nteacher_weight = 1",
            "teacher.crop is 40; expected at least 46 for patches of 30 with a context of 8",
        ),
        ("[stages.a]\nlr = nan", "stages.a.lr is nan; expected more than 0"),
        ("[stages.a]\npixel_weight = inf", "stages.a.pixel_weight is inf; expected 0 or more"),
        ("[stages.a]\nbetas = [0.9, 2]", "expected two numbers from 0 to below 1"),
        ("[stages.a]\nmilestones = [5, 7]", "expected shares of the stage, between 0 and 1"),
        (
            "[degradation.first]\njpeg_quality = [30, 400]",
            "jpeg_quality is 30 to 400; expected a range",
        ),
        ("[degradation.second]\nnoise_prob = 7", "noise_prob is 7; expected a probability, 0 to 1"),
        ("[degradation.first]\nblur_sigma = [3, 0.2]", "blur_sigma is 3 to 0.2; expected a range"),
        ("[degradation]\nclean_prob = -0.1", "clean_prob is -0.1; expected a probability"),
        ("[degradation.first]\nresize_up = 0.7", "resize_up and resize_down are 0.7 and 0.7; expected at most 1"),
        ("[data]\nbusy_share = 1.5", "data.busy_share is 1.5; expected 0 to 1"),
        ("[teacher]\ncrops = 0", "teacher.crops is 0; expected more than 0"),
        ("[stages", "not valid TOML"),
        ("seed = -1", "seed is -1; expected 0 or more"),
        ("[data]\nvalidation_count = -1", "data.validation_count is -1; expected 0 or more"),
        ("[model]\nscale = 0", "model: generator scale is 0; expected 2, 3, 4 or 8"),
        ("[model]\nnum_blocks = 1000000", "model.num_blocks is 1000000; expected at most 1000"),
        ("[model]\nnum_feat = 100000", "model.num_feat is 100000; expected at most 4096"),
        ("[stages.a]\nbatch_size = -1", "stages.a.batch_size is -1; expected 0 or more"),
        ("[data]\nrendered_share = 0.7\nclean_share = 0.4", "at most 1 together"),
        ("[data]\nclean_share = -0.1", "data.clean_share"),
        ("[stages.a]\ndecay_share = 0", "stages.a.decay_share"),
        ("[stages.a]\nstart_share = 0.5", "weights to start from, as stages.a learns from what they answer"),
        (f"{SPLIT}gan_loss = 'relativistic'", "accumulate is 2; expected 1 with gan_loss relativistic, which"),
        (f"{SPLIT}discriminator = 'vgg'\ngan_loss = 'lsgan'", "expected 1 with the vgg discriminator, whose batch"),
        (f"{SPLIT}batch_size = 9", "stages.a.accumulate is 2; expected a divisor of the batch of 9"),
        ("[stages.a]\naccumulate = 0", "stages.a.accumulate is 0; expected more than 0"),
        ("[stages.a]\nlattice_weight = 1\nlr_patch = 5", "data.lr_patch is 5; expected at least 6 with a lattice"),
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stage.lr=5e-4", ("stage.lr", 5e-4)),
        ("stage.pixel_loss=l2", ("stage.pixel_loss", "l2")),
        ("seed = 3", ("seed", 3)),
    ],
)
def test_overrides_are_read_as_toml(text: str, expected: tuple[str, object]) -> None:
    assert parse_override(text) == expected
    assert load_recipe("psnr-x4", dict([parse_override(text)]))


def test_the_name_of_a_family_leads_to_its_recipes() -> None:
    with pytest.raises(UsageError, match=r"no recipe named 'psnr'; did you mean psnr-x2 or psnr-x4\?"):
        load_recipe("psnr")


@pytest.mark.parametrize("argv", [("--data", "none"), ("--data", ".")])
def test_missing_data_is_a_training_error(
    cli: Cli, tmp_path: Path, argv: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("train", "--config", "psnr-x4", *argv, code=9)
    assert "training data:" in ran.err


def test_both_sizes_of_a_recipe_differ_in_what_its_gpu_section_says(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(
        "[data]\nbatch_size = 4\nlr_patch = 20\n[stages.a]\nlr = 1e-3\ngamma = 0.3\n"
        "[gpu.data]\nbatch_size = 32\n[gpu.stages.a]\nlr = 2e-3\n"
    )
    cpu, gpu = (load_recipe(str(path), size=size) for size in ("cpu", "gpu"))
    assert (cpu.data.batch_size, cpu.data.lr_patch, cpu.stages["a"].lr) == (4, 20, 1e-3)
    assert (gpu.data.batch_size, gpu.data.lr_patch, gpu.stages["a"].lr, gpu.stages["a"].gamma) == (32, 20, 2e-3, 0.3)


def test_stages_can_be_chosen_and_then_named_by_the_short_options() -> None:
    with pytest.raises(UsageError, match="has 2 stages; say which: --set stages.psnr.lr, stages.gan.lr"):
        load_recipe("gan-x4", {"stage.lr": 1e-4})
    chosen = load_recipe("gan-x4", {"stage.lr": 3e-5}, stages=["gan"])
    assert list(chosen.stages) == ["gan"]
    assert chosen.stages["gan"].lr == 3e-5
    with pytest.raises(UsageError, match="has no stage 'gans'; expected psnr, gan"):
        load_recipe("gan-x4", stages=["gans"])


def test_length_is_shared_as_the_recipe_shares_it() -> None:
    recipe = load_recipe("gan-x4", {"stages.psnr.max_time_s": 300, "stages.gan.max_time_s": 100})
    by_time = with_length(recipe, max_time_s=40.0)
    assert [stage.max_time_s for stage in by_time.stages.values()] == [30.0, 10.0]
    by_steps = with_length(recipe, steps=8)
    assert [(stage.steps, stage.max_time_s) for stage in by_steps.stages.values()] == [(6, 0.0), (2, 0.0)]
    assert with_length(recipe) == recipe


def test_one_patch_and_one_batch_for_all_stages() -> None:
    recipe = with_patches(load_recipe("gan-x4"), lr_patch=40, batch_size=2)
    assert {recipe.patch_of(stage) for stage in recipe.stages.values()} == {40}
    assert {recipe.batch_of(stage) for stage in recipe.stages.values()} == {2}
    assert load_recipe("gan-x4").patch_of(load_recipe("gan-x4").stages["gan"]) == 24


def test_the_published_recipe_has_the_published_sizes() -> None:
    """Batch 32 of HR 96; L1 0.1, VGG19 conv5_4 1.0, relativistic 5e-3; 913 027 parameters."""
    from sr_upscale.training.state import new_generator

    recipe = load_recipe("published", size="gpu")
    gan = recipe.stages["gan"]
    assert recipe.batch_of(gan) == 32
    assert recipe.patch_of(gan) * recipe.model.scale == 96
    assert (gan.pixel_weight, gan.perceptual_weight, gan.gan_weight) == (0.1, 1.0, 5e-3)
    assert (gan.perceptual_layers, gan.gan_loss, gan.discriminator) == ({"conv5_4": 1.0}, "relativistic", "vgg")
    assert sum(parameter.numel() for parameter in new_generator(recipe).parameters()) == 913_027


@pytest.mark.parametrize(
    "name", ["../../other", "/etc/other", "..", ".hidden", "", "C:other", "a\\b", "a\0b", "a\nb", "\x1b[31m", "a" * 101]
)
def test_names_that_lead_out_of_the_folder_of_the_results_are_refused(name: str) -> None:
    """Files are made of the names of recipes and stages, and a recipe may be a stranger's."""
    with pytest.raises(UsageError, match="leads to no file in the folder of the results"):
        recipe_from_dict({"name": name})
    with pytest.raises(UsageError, match="leads to no file in the folder of the results"):
        recipe_from_dict({"name": "fine", "stages": {name: {}}})


@pytest.mark.parametrize(
    "content",
    [b"name = '\x8a'", b"a = " + b"[" * 5000, b"seed = " + b"9" * 5000],
    ids=["not UTF-8", "deep", "many digits"],
)
def test_files_that_are_no_toml_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"odd\.toml: not (UTF-8|valid TOML)"):
        load_recipe(str(path))
