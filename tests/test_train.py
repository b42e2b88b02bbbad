"""A micro-model, trained, stopped, resumed and used; recipes that refuse what they do not know."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sr_upscale.checkpoint import load_generator
from sr_upscale.data import PatchSampler, find_pictures, load_pairs, split_validation
from sr_upscale.degrade import downscale_matlab
from sr_upscale.errors import TrainingError, UsageError
from sr_upscale.training import loop
from sr_upscale.training.config import (
    Recipe,
    StageSection,
    load_recipe,
    parse_override,
    recipe_from_dict,
    shipped_recipes,
)
from sr_upscale.training.loop import _learning_rate, train, validate
from tests.conftest import Ran, pattern

RECIPE = """
name = "micro"
description = "for a test"
[model]
scale = 2
num_feat = 8
num_blocks = 1
[data]
lr_patch = 8
batch_size = 4
validation_count = 2
[stage]
steps = 40
max_time_s = 0
warmup_steps = 5
validate_every_s = 0.05
checkpoint_every_s = 0.05
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures of 40 to 51 pixels."""
    folder = tmp_path / "pictures" / "deep"
    folder.mkdir(parents=True)
    for index in range(12):
        Image.fromarray(np.roll(pattern(40 + index, 51 - index), 5 * index, axis=(0, 1))).save(folder / f"{index}.png")
    return folder.parent


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "micro.toml"
    path.write_text(RECIPE)
    return path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command_trains_to_a_file_that_upscales(
    cli: Callable[..., Ran], folder: Path, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ran = cli("train", "--config", recipe, "--data", folder, "-o", out, "--json", "--steps", "200", "--fp32")
    assert ran.code == 0, ran.err
    data = json.loads(ran.out)
    assert data["weights"] == str(out / "micro.safetensors")
    log = lines(out / "train.jsonl")
    assert log[-1]["finished"] is True
    assert log[-1]["step"] == 200
    model, info = load_generator(out / "micro.safetensors")
    assert model.config.num_feat == 8
    assert info.recipe["steps_done"] == 200
    assert info.scores["validation"]["pictures"] == 2
    # better than where it started: nearest neighbour plus noise
    start, _info = load_generator(out / "micro.safetensors")
    torch.manual_seed(0)
    start.reset_parameters()
    held_out = split_validation(find_pictures([folder]), 2)[1]
    pairs = load_pairs(held_out, scale=2, min_side=8)
    device = torch.device("cpu")
    assert validate(model, pairs, device=device) > validate(start, pairs, device=device) + 1
    photo = tmp_path / "p.png"
    Image.fromarray(pattern(9, 7)).save(photo)
    assert cli(photo, "-n", out / "micro.safetensors", "-o", tmp_path / "o.png").code == 0
    with Image.open(tmp_path / "o.png") as image:
        assert image.size == (14, 18)


def test_resumed_run_equals_an_uninterrupted_one(
    folder: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By steps on a CPU the two end in the same weights, bit for bit."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    settings = load_recipe(str(recipe))
    train(settings, data=[folder], out=whole, bf16=False)

    real = loop._train_step

    def step_then_stop(recipe: Recipe, state: loop.TrainState, **options: Any) -> float | None:
        if state.step == 16:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(recipe, state, **options)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "_train_step", step_then_stop)
        with pytest.raises(loop.Interrupted):
            train(settings, data=[folder], out=parted, bf16=False)
    assert signal.getsignal(signal.SIGTERM) == before
    assert torch.load(parted / "checkpoint.pt", weights_only=True)["step"] == 17
    train(settings, data=[folder], out=parted, bf16=False, resume=True)
    ours, theirs = (load_generator(run / "micro.safetensors")[0].state_dict() for run in (parted, whole))
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


def test_sigterm_leaves_a_checkpoint_and_exit_code_143(folder: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    argv = ["train", "--config", str(recipe), "--data", str(folder), "-o", str(out), "--max-time", "60"]
    process = subprocess.Popen([sys.executable, "-m", "sr_upscale", *argv], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "go on with the same command and --resume" in err
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] > 0


def test_damaged_checkpoint_falls_back_to_the_one_before(folder: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = load_recipe(str(recipe))
    train(settings, data=[folder], out=out, bf16=False)
    assert (out / "checkpoint-previous.pt").exists()
    (out / "checkpoint.pt").write_bytes(b"torn")
    said: list[str] = []
    train(settings, data=[folder], out=out, bf16=False, resume=True, on_warning=said.append)
    assert "checkpoint.pt cannot be read" in said[0]
    (out / "checkpoint.pt").write_bytes(b"torn")
    (out / "checkpoint-previous.pt").write_bytes(b"torn")
    with pytest.raises(TrainingError, match="no readable checkpoint"):
        train(settings, data=[folder], out=out, bf16=False, resume=True)


def test_a_run_is_not_overwritten_and_not_resumed_with_another_recipe(
    folder: Path, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(load_recipe(str(recipe)), data=[folder], out=out, bf16=False)
    with pytest.raises(UsageError, match="add --resume"):
        train(load_recipe(str(recipe)), data=[folder], out=out, bf16=False)
    other = load_recipe(str(recipe), {"stage.lr": 5e-4, "seed": 3})
    with pytest.raises(UsageError, match=re.escape("seed was 0, is 3; stage.lr was 0.001, is 0.0005")):
        train(other, data=[folder], out=out, bf16=False, resume=True)


def test_warm_start_takes_over_what_fits(folder: Path, recipe: Path, tmp_path: Path) -> None:
    first = train(load_recipe(str(recipe)), data=[folder], out=tmp_path / "a", bf16=False)
    settings = load_recipe(str(recipe), {"init": str(first), "model.scale": 3, "stage.steps": 1, "stage.lr": 1e-12})
    second = train(settings, data=[folder], out=tmp_path / "b", bf16=False)
    before, after = (load_generator(path)[0] for path in (first, second))
    torch.testing.assert_close(after.trunk.weight, before.trunk.weight, atol=1e-6, rtol=0)
    assert after.config.scale == 3
    narrow = load_recipe(str(recipe), {"init": str(first), "model.num_feat": 4})
    with pytest.raises(UsageError, match="the trunk of .* does not fit"):
        train(narrow, data=[folder], out=tmp_path / "c", bf16=False)


def test_loss_that_is_not_finite_stops_the_run(
    folder: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.functional.l1_loss", lambda sr, hr: (sr * float("nan")).mean())
    with pytest.raises(TrainingError, match="11 steps in a row were not finite"):
        train(load_recipe(str(recipe)), data=[folder], out=tmp_path / "run", bf16=False)
    assert not (tmp_path / "run" / "micro.safetensors").exists()
    assert all("skipped" in line for line in lines(tmp_path / "run" / "train.jsonl")[1:])


def test_schedule_warms_up_and_follows_a_cosine() -> None:
    stage = StageSection(lr=1.0, lr_floor=0.01, warmup_steps=10)
    assert _learning_rate(stage, 0, 0.0) == pytest.approx(0.1)
    assert _learning_rate(stage, 100, 0.0) == pytest.approx(1.0)
    assert _learning_rate(stage, 100, 0.5) == pytest.approx(0.505)
    assert _learning_rate(stage, 100, 1.0) == pytest.approx(0.01)


# --- recipes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_named_as_their_file(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe_from_dict(dataclasses.asdict(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[stage]\nlearning_rate = 1", "unknown key stage.learning_rate; expected one of steps, max_time_s, lr"),
        ("[data]\nbatchsize = 4", "unknown key data.batchsize; did you mean data.batch_size"),
        ("[stge]\nlr = 1", "unknown key stge; did you mean stage"),
        ("[data]\nbatch_size = 'many'", "data.batch_size is 'many'; expected int"),
        ("[data]\nbatch_size = 0", "data.batch_size is 0; expected more than 0"),
        ("[stage]\nbetas = [1]", "expected two numbers"),
        ("[stage]\nmax_time_s = 0", "no end"),
        ("[stage]\nema_decay = 1", "expected 0 to below 1"),
        ("[stage]\npixel_loss = 'l3'", "expected l1 or l2"),
        ("[stage", "not valid TOML"),
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


@pytest.mark.parametrize(
    ("text", "words"), [("lr", "expected KEY=VALUE"), ("stage.rate=1", "unknown key"), ("name.x=1", "not a section")]
)
def test_bad_overrides_are_refused(cli: Callable[..., Ran], tmp_path: Path, text: str, words: str) -> None:
    ran = cli("train", "-c", "psnr-x4", "--data", tmp_path, "--set", text)
    assert ran.code == 2
    assert words in ran.err


@pytest.mark.parametrize("pixel_loss", ["l1", "l2"])
def test_pixel_losses_are_the_mean_absolute_and_the_mean_squared_error(
    folder: Path, recipe: Path, pixel_loss: str
) -> None:
    settings = load_recipe(str(recipe), {"stage.pixel_loss": pixel_loss, "stage.pixel_weight": 3})
    pairs = load_pairs(find_pictures([folder]), scale=2, min_side=16)
    cpu = torch.device("cpu")
    lr, hr = loop._setup(settings, pairs, cpu).sampler.batch(settings.data.batch_size)
    state = loop._setup(settings, pairs, cpu)
    with torch.no_grad():
        difference = state.model(lr) - hr
    expected = {"l1": difference.abs().mean(), "l2": difference.square().mean()}[pixel_loss]
    found = loop._train_step(settings, state, device=cpu, bf16=False)
    assert found == pytest.approx(3 * expected.item(), rel=1e-5)


def test_unknown_recipe_names_the_known_ones(cli: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cli("train", "--config", "psnr-x5", "--data", tmp_path)
    assert ran.code == 2
    assert "expected one of psnr-x2, psnr-x4" in ran.err


@pytest.mark.parametrize("argv", [("--data", "none"), ("--data", ".")])
def test_missing_data_is_a_training_error(
    cli: Callable[..., Ran], recipe: Path, tmp_path: Path, argv: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("train", "--config", recipe, *argv)
    assert ran.code == 9
    assert "training data:" in ran.err


# --- data -------------------------------------------------------------------------------------------


def test_pairs_and_patches_belong_together(folder: Path) -> None:
    """Every LR patch is the degraded HR patch, turned and mirrored in the same way."""
    pairs = load_pairs(find_pictures([folder]), scale=2, min_side=16)
    sampler = PatchSampler(pairs, scale=2, lr_patch=12, seed=0)
    lr, hr = sampler.batch(40)
    assert lr.shape == (40, 3, 12, 12)
    assert hr.shape == (40, 3, 24, 24)
    inner = (..., slice(3, -3), slice(3, -3))  # a patch ends where the picture goes on
    assert (downscale_matlab(hr, 2)[inner] - lr[inner]).abs().max() <= 1.01 / 255


def test_sampling_is_deterministic_by_seed_and_covers_all_turns(tmp_path: Path) -> None:
    """A square picture that is one patch large comes in exactly its eight turns and mirrorings."""
    Image.fromarray(pattern(32, 32)).save(tmp_path / "square.png")
    pairs = load_pairs(find_pictures([tmp_path]), scale=2, min_side=16)
    side = min(pairs[0].lr.shape[:2])
    first, second, other = (PatchSampler(pairs, scale=2, lr_patch=side, seed=seed).batch(64) for seed in (1, 1, 2))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[0], other[0])
    assert len({patch.numpy().tobytes() for patch in first[0]}) == 8


def test_validation_pictures_do_not_depend_on_order_or_place(folder: Path, tmp_path: Path) -> None:
    paths = find_pictures([folder])
    training, held_out = split_validation(paths, 2)
    assert len(held_out) == 2
    assert not set(training) & set(held_out)
    assert set(split_validation(paths[::-1], 2)[1]) == set(held_out)
    (folder / "deep").rename(tmp_path / "deep")
    moved = split_validation(find_pictures([tmp_path / "deep"]), 2)[1]
    assert [path.name for path in moved] == [path.name for path in held_out]


def test_bad_pictures_are_counted_and_too_many_refuse_to_start(folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"nothing")
    assert len(load_pairs(find_pictures([folder]), scale=2, min_side=16)) == 12
    Image.fromarray(pattern(5, 5)).save(folder / "small.png")
    with pytest.raises(TrainingError, match=r"2 of 14 pictures cannot be used \(.*bad.*; .*small.png: 5x5 is smaller"):
        load_pairs(find_pictures([folder]), scale=2, min_side=16)
