"""A micro-model, trained, stopped, resumed and used; recipes that refuse what they do not know."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sr_upscale.data.decoded import load_pairs
from sr_upscale.data.patches import Batch, Pair, find_pictures, split_validation
from sr_upscale.errors import UsageError
from sr_upscale.functional.color import to_tensor
from sr_upscale.functional.resize import resize_pixels
from sr_upscale.metrics.reference import psnr
from sr_upscale.models.generator import Generator
from sr_upscale.pretrained.weights_file import load_generator
from sr_upscale.training import loop, state, step
from sr_upscale.training.config import Recipe, StageSection
from sr_upscale.training.loop import Setup, train
from sr_upscale.training.parallel import World, joined
from sr_upscale.training.recipe_file import load_recipe
from sr_upscale.training.state import stage_lr
from sr_upscale.training.validation import Scores, beside_start, too_short, validate
from tests.helpers import Cli, lines, pattern, vgg19_state


def test_the_command_trains_to_a_file_that_upscales(cli: Cli, folder: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ran = cli("train", "--config", recipe, "--data", folder, "-o", out, "--json", "--steps", "200", "--fp32", code=0)
    data = json.loads(ran.out)
    assert data["weights"] == str(out / "micro.safetensors")
    log = lines(out / "train.jsonl")
    assert log[-1]["finished"] is True
    assert log[-1]["step"] == 200
    model, info = load_generator(out / "micro.safetensors")
    assert model.config.num_feat == 8
    assert info.recipe["stages_done"][-1]["steps"] == 200
    assert info.scores["validation"]["pictures"] == 2
    # better than where it started: nearest neighbour plus noise
    start, _info = load_generator(out / "micro.safetensors")
    torch.manual_seed(0)
    start.reset_parameters()
    held_out = split_validation(find_pictures([folder]), 2)[1]
    pairs = load_pairs(held_out, scale=2, min_side=8)
    assert validate(model, pairs).psnr > validate(start, pairs).psnr + 1
    assert info.scores["validation"]["ssim"] > validate(start, pairs).ssim
    photo = tmp_path / "p.png"
    Image.fromarray(pattern(9, 7)).save(photo)
    assert cli(photo, "-n", out / "micro.safetensors", "-o", tmp_path / "o.png").code == 0
    with Image.open(tmp_path / "o.png") as image:
        assert image.size == (14, 18)


def test_a_run_that_was_too_short_says_so_and_a_longer_one_does_not(
    cli: Cli, folder: Path, recipe: Path, tmp_path: Path
) -> None:
    ran = cli("train", "-c", recipe, "--data", folder, "-o", tmp_path / "a", "--json", "--steps", "1", "--fp32", code=0)
    (warning,) = json.loads(ran.out)["warnings"]
    assert f"warning: {warning}" in ran.err
    held_out = load_pairs(split_validation(find_pictures([folder]), 2)[1], scale=2, min_side=8)
    bicubic = np.mean(
        [
            psnr(
                to_tensor(resize_pixels(pair.lr, pair.hr.shape[:2])), to_tensor(pair.hr), crop_border=2, y_channel=True
            ).item()
            for pair in held_out
        ]
    )
    assert f"and bicubic resampling {bicubic:.1f} dB" in warning
    assert "--init psnr-x2" in warning
    good = Scores(psnr=float(bicubic) + 0.01, ssim=0.9)
    assert too_short(good, held_out) is None
    assert too_short(Scores(psnr=float(bicubic) - 1, ssim=0.9), held_out, margin_db=2.0) is None
    taught = [replace(pair, taught=pair.hr) for pair in held_out]
    near = np.mean(
        [np.abs(resize_pixels(pair.lr, pair.hr.shape[:2]) - pair.hr.astype(np.float32)).mean() for pair in held_out]
    )
    assert too_short(replace(good, psnr=0.0, teacher_l1=float(near) - 0.01), taught) is None
    assert f"bicubic resampling by {near:.1f};" in str(too_short(replace(good, teacher_l1=float(near) + 1), taught))


def test_a_run_says_whether_it_beat_its_start(cli: Cli, folder: Path, recipe: Path, tmp_path: Path) -> None:
    run = ("train", "-c", recipe, "--data", folder, "--fp32", "--json")
    assert cli(*run, "-o", tmp_path / "a", "--steps", "400").code == 0
    first = tmp_path / "a" / "micro.safetensors"
    scores = load_generator(first)[1].scores["validation"]
    ran = cli(*run, "-o", tmp_path / "b", "--steps", "2", "--lr", "1e-9", "--init", first)  # changes nothing
    assert json.loads(ran.out)["warnings"] == [
        line.removeprefix("warning: ") for line in ran.err.splitlines() if "its start" in line
    ]
    assert f"not beaten its start: it reaches {scores['psnr']:.2f} dB on pictures it has not seen, " in ran.err
    assert f"micro.safetensors {scores['psnr']:.2f} dB" in ran.err


def test_the_start_is_compared_by_psnr_or_by_the_teacher() -> None:
    one, two = Scores(psnr=31.0, ssim=0.9), Scores(psnr=30.5, ssim=0.9)
    assert beside_start(one, two, "psnr-x4") == (
        True,
        "the run is better than its start: it reaches 31.00 dB on pictures it has not seen, psnr-x4 30.50 dB",
    )
    assert beside_start(two, one, "x")[0] is False
    taught = replace(one, teacher_l1=3.0), replace(two, teacher_l1=2.5)
    assert beside_start(*taught, "photo-x4") == (
        False,
        "the run has not beaten its start: it differs from its teacher by 3.00 of 255, photo-x4 by 2.50",
    )


@pytest.mark.parametrize(
    ("schedule", "step", "fraction", "expected"),
    [
        ("cosine", 4, 0.0, 0.5),  # of ten steps of warm-up
        ("cosine", 100, 0.0, 1.0),
        ("cosine", 100, 0.5, 0.55),
        ("cosine", 100, 1.0, 0.1),
        ("multistep", 99, 0.49, 1.0),
        ("multistep", 99, 0.5, 0.3),
        ("multistep", 99, 0.8, 0.09),
        ("constant", 0, 0.9, 0.1),
        ("constant", 500, 0.9, 1.0),
        ("wsd", 4, 0.0, 0.5),
        ("wsd", 99, 0.8, 1.0),
        ("wsd", 99, 0.9, 0.55),
        ("wsd", 99, 1.0, 0.1),
    ],
)
def test_the_learning_rate_by_its_schedule(schedule: str, step: int, fraction: float, expected: float) -> None:
    numbers = {"lr": 1.0, "lr_floor": 0.1, "decay_share": 0.2, "warmup_steps": 10, "gamma": 0.3}
    stage = StageSection(schedule=schedule, milestones=(0.5, 0.75), **numbers)
    assert stage_lr(stage, step, fraction) == pytest.approx(expected)


# --- both stages ------------------------------------------------------------------------------------


def test_one_command_runs_both_stages_stops_resumes_and_the_result_upscales(
    cli: Cli, folder: Path, gan_recipe: Path, vgg19: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    argv = ["train", "--config", gan_recipe, "--data", folder, "-o", out, "--vgg-weights", vgg19, "--json"]
    real, calls = loop.train_step, []

    def stop_in_the_second_stage(*arguments: Any, **named: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "train_step", stop_in_the_second_stage)
        ran = cli(*argv)
    assert ran.code == 130
    assert "--resume" in ran.err
    ran = cli(*argv, "--resume", code=0)
    result = json.loads(ran.out)
    assert result["stage"] == "gan"
    assert result["step"] == 6
    assert set(result["scores"]) == {"psnr", "ssim", "distance"}
    assert 0 < result["network_share"] <= 1
    assert "steps/s; the network had its batch" in ran.err
    info = load_generator(out / "micro-gan.safetensors")[1]
    assert [(done["stage"], done["steps"]) for done in info.recipe["stages_done"]] == [("psnr", 6), ("gan", 6)]
    for name in ("micro-gan", "micro-gan-best", "micro-gan-psnr"):
        photo = tmp_path / f"{name}.png"
        Image.fromarray(pattern(9, 7)).save(photo)
        assert cli(photo, "-n", out / f"{name}.safetensors", "-o", tmp_path / f"{name}-out.png").code == 0
    sheets = sorted((out / "samples").glob("gan-*.png"))
    held_out = load_pairs(split_validation(find_pictures([folder]), 2)[1], scale=2, min_side=16)
    with Image.open(sheets[-1]) as sheet:  # a row for each picture, four columns as wide as the widest
        assert sheet.height == sum(pair.hr.shape[0] + 4 for pair in held_out)
        assert sheet.width == 4 * max(pair.hr.shape[1] for pair in held_out)


def test_sheet_shows_lr_bicubic_sr_and_hr(pairs: list[Pair], tmp_path: Path) -> None:
    """Columns: every LR pixel as a block, bicubic, the generator's output, and HR itself."""
    from sr_upscale.functional.color import to_pixels, to_tensor
    from sr_upscale.functional.resize import resize
    from sr_upscale.training.validation import sample_sheet, upscaled
    from tests.helpers import micro_generator

    pair = pairs[0]
    model = micro_generator(2)
    sample_sheet(model, [pair], tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    height, width = pair.hr.shape[:2]
    lr, bicubic, sr, hr = (sheet[:height, at * width : (at + 1) * width] for at in range(4))
    np.testing.assert_array_equal(lr[::2, ::2], pair.lr)
    np.testing.assert_array_equal(lr[1::2, 1::2], pair.lr)
    np.testing.assert_array_equal(bicubic, to_pixels(resize(to_tensor(pair.lr), (height, width)), np.dtype(np.uint8)))
    np.testing.assert_array_equal(sr, upscaled(model, pair.lr))
    np.testing.assert_array_equal(hr, pair.hr)


def gan_state(recipe: Recipe) -> state.TrainState:
    index = list(recipe.stages).index("gan")
    return state.begin_stage(recipe, index, state.new_generator(recipe), device=torch.device("cpu"))


def tools_for(s: state.TrainState, vgg19: Path) -> step.Tools:
    from sr_upscale.models.features import VGG19Features, read_vgg19

    features = VGG19Features(read_vgg19(vgg19), ["conv1_2", "conv2_2"])
    return step.Tools(world=World(), dtype=torch.float32, features=features, forward=s.g)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_frozen_parameters_stay_as_they_are(batch: Batch, gan_recipe: Path, vgg19: Path, optimizer: str) -> None:
    overrides = {"stages.gan.frozen": ["blocks.0.*"], "stages.gan.optimizer": optimizer}
    recipe = load_recipe(str(gan_recipe), overrides)
    s = gan_state(recipe)
    before = {name: value.clone() for name, value in s.g.state_dict().items()}
    step.train_step(recipe.stages["gan"], s, batch, tools_for(s, vgg19), seed=0)
    kept = {name for name, value in s.g.state_dict().items() if torch.equal(value, before[name])}
    assert kept == {name for name in before if name.startswith("blocks.0.")}


@pytest.mark.parametrize(("sharpen", "soften"), [(0.0, 0.0), (0.5, 0.0), (0.5, 0.6)])
def test_a_step_reports_the_losses_of_its_formulas(
    batch: Batch, gan_recipe: Path, vgg19: Path, sharpen: float, soften: float
) -> None:
    """The step's figures against the formulas written out here, on the same batch and the same weights."""
    from torch.nn import functional as F

    from sr_upscale.training.losses import gaussian_blur, unsharp_mask

    recipe = load_recipe(str(gan_recipe), {"stages.gan.sharpen_hr": sharpen, "stages.gan.soften_hr": soften})
    stage = recipe.stages["gan"]
    s = gan_state(recipe)
    assert s.d is not None
    tools = tools_for(s, vgg19)
    lr, hr = batch.lr.float() / 255, batch.hr.float() / 255
    judge, model = (load_copy(each) for each in (s.d, s.g))
    found = step.train_step(stage, s, batch, tools, seed=0)
    with torch.no_grad():
        sr = model(lr)
        soft = gaussian_blur(hr, soften * recipe.model.scale) if soften else hr
        target = unsharp_mask(soft, sharpen)
        assert torch.equal(target, hr) == (sharpen == 0)
        spectrum = torch.fft.rfft2(sr) - torch.fft.rfft2(target)
        ours, theirs = tools.features(sr), tools.features(target)  # type: ignore[misc]
        fake, real = judge(sr), judge(hr)  # the judge sees HR as it is
        expected = {
            "pixel": (sr - target).abs().mean(),
            "fft": (spectrum.real.abs().mean() + spectrum.imag.abs().mean()) / 2,
            "perceptual": 0.1 * (ours["conv1_2"] - theirs["conv1_2"]).abs().mean()
            + (ours["conv2_2"] - theirs["conv2_2"]).abs().mean(),
            "gan": (F.softplus(-(fake - real.mean())).mean() + F.softplus(real - fake.mean()).mean()) / 2,
        }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value.item(), rel=1e-4), name
    total = expected["pixel"] + 0.05 * expected["fft"] + 0.5 * expected["perceptual"] + 0.01 * expected["gan"]
    assert found["loss"] == pytest.approx(total.item(), rel=1e-4)
    assert found["d"] > 0


def load_copy(module: torch.nn.Module) -> torch.nn.Module:
    import copy

    return copy.deepcopy(module)


def test_generator_and_discriminator_are_taught_apart(batch: Batch, gan_recipe: Path, vgg19: Path) -> None:
    """With a zero learning rate of one, only the other changes; VGG19 never does."""
    recipe = load_recipe(str(gan_recipe))
    for frozen, moving in (("g", "d"), ("d", "g")):
        s = gan_state(recipe)
        tools = tools_for(s, vgg19)
        for group in getattr(s, f"{frozen}_optimizer").param_groups:
            group["lr"] = 0.0
        before = {name: [p.clone() for p in getattr(s, name).parameters()] for name in ("g", "d")}
        features_before = [p.clone() for p in tools.features.parameters()]  # type: ignore[union-attr]
        step.train_step(recipe.stages["gan"], s, batch, tools, seed=0)
        changed = {
            name: any(not torch.equal(a, b) for a, b in zip(before[name], getattr(s, name).parameters(), strict=True))
            for name in ("g", "d")
        }
        assert changed == {frozen: False, moving: True}
        after = tools.features.parameters()  # type: ignore[union-attr]
        assert all(torch.equal(a, b) for a, b in zip(features_before, after, strict=True))


def test_losses_on_features_see_a_random_window_or_a_random_shift() -> None:
    image = torch.arange(32 * 32).view(1, 1, 32, 32)
    plain, shifted, part = StageSection(), StageSection(shift=8), StageSection(feature_patch=16)
    assert torch.equal(image[step._window(plain, 32, 0)], image)
    for stage, side, starts in ((shifted, 24, 9), (part, 16, 17)):
        cuts = [image[step._window(stage, 32, seed)] for seed in range(400)]
        assert {cut.shape for cut in cuts} == {(1, 1, side, side)}
        corners = {divmod(int(cut[0, 0, 0, 0]), 32) for cut in cuts}
        assert {top for top, _left in corners} == {left for _top, left in corners} == set(range(starts))
        assert torch.equal(cuts[3], image[step._window(stage, 32, 3)])


def test_short_vgg19_file_serves_the_layers_it_holds_and_says_so(gan_recipe: Path, tmp_path: Path) -> None:
    from sr_upscale.training.sources import vgg19_for

    short = tmp_path / "short.safetensors"
    save_file(vgg19_state("conv2_1"), short)
    said: list[str] = []
    recipe = load_recipe(str(gan_recipe))
    features = vgg19_for(recipe, short, torch.device("cpu"), said.append)
    assert features is not None
    assert features.layers == ("conv1_2",)
    assert said == ["VGG19 weights end at conv2_1: the perceptual loss uses conv1_2 without conv2_2"]
    shorter = tmp_path / "shorter.safetensors"
    save_file(vgg19_state("conv1_1"), shorter)
    with pytest.raises(UsageError, match="holds VGG19 up to conv1_1, and stage gan looks at conv1_2, conv2_2"):
        vgg19_for(recipe, shorter, torch.device("cpu"), said.append)


# --- several processes ------------------------------------------------------------------------------


def test_two_processes_make_what_one_makes(
    cli: Cli, folder: Path, gan_recipe: Path, vgg19: Path, tmp_path: Path
) -> None:
    """torchrun with gloo: the same joint batches, so the same weights, within rounding."""
    argv = ["train", "--config", str(gan_recipe), "--data", str(folder), "--fp32", "--no-cache", "--device", "cpu"]
    argv += ["--vgg-weights", str(vgg19), "--set", "stages.psnr.optimizer=muon"]
    assert cli(*argv, "-o", tmp_path / "one").code == 0
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, "-m", "sr_upscale", *argv, "-o", str(tmp_path / "two"), "--tensorboard"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "2 processes" in ran.stderr
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1  # not a writer for each process
    one, two = (load_generator(tmp_path / name / "micro-gan.safetensors")[0].state_dict() for name in ("one", "two"))
    fresh = Generator(load_generator(tmp_path / "one" / "micro-gan.safetensors")[0].config)
    torch.manual_seed(0)
    fresh.reset_parameters()
    moved = max(float((value - fresh.state_dict()[key]).abs().max()) for key, value in one.items())
    apart = max(float((value - two[key]).abs().max()) for key, value in one.items())
    assert moved > 1e-3
    assert apart < 1e-5


def test_pictures_to_validate_on_are_not_trained_on(folder: Path, recipe: Path) -> None:
    from sr_upscale.training.sources import find_data

    below = folder / "val"
    below.mkdir()
    Image.fromarray(pattern(600, 700)).save(below / "v.png")
    training, held_out = find_data(load_recipe(str(recipe)), [folder], below, lambda _text: None)
    assert [pair.name for pair in held_out] == ["v.png"]
    assert held_out[0].hr.shape == (512, 512, 3)  # the middle of a large one
    assert {path.name for (paths,) in [training] for path in paths} == {f"{number}.png" for number in range(12)}


def test_a_vgg19_that_ends_before_the_distance_is_no_reason_to_stop(folder: Path, recipe: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.safetensors"
    save_file(vgg19_state("conv1_2"), short)
    train(load_recipe(str(recipe)), Setup(data=[folder], out=tmp_path / "run", vgg_weights=short))
    assert lines(tmp_path / "run" / "train.jsonl")[-2]["scores"]["distance"] is None  # type: ignore[index]


def test_a_run_goes_on_with_loss_scaling_that_began_without(recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(str(recipe))
    cpu = torch.device("cpu")
    before = state.begin_stage(loaded, 0, state.new_generator(loaded), device=cpu)
    state.save_checkpoint(tmp_path, loaded, before)
    checkpoint = state.read_checkpoint(tmp_path, loaded, pytest.fail)
    assert checkpoint is not None
    after = state.restore(checkpoint, loaded, device=cpu, fp16=True, on_note=lambda _text: None)
    assert after.g_scaler.is_enabled()


@pytest.mark.parametrize(("device", "words"), [("mps", "expected auto, cpu or cuda"), ("auto", "process 1 for 1 GPUs")])
def test_torchrun_with_other_devices_than_there_are(monkeypatch: pytest.MonkeyPatch, device: str, words: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=words), joined(device, on_lost=pytest.fail):
        pass
