"""Faults 61 to 67, by the number of their row in the fault table: nothing learnt is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from sr_upscale.errors import DiskFullError, OutputError, TrainingError, UsageError
from sr_upscale.pretrained.weights_file import load_generator
from sr_upscale.training import loop, step
from sr_upscale.training.config import StageSection
from sr_upscale.training.loop import Resume, train
from sr_upscale.training.recipe_file import load_recipe
from sr_upscale.training.signals import Interrupted
from sr_upscale.training.state import TrainState
from tests.helpers import Ran, lines, pattern


def test_row_62_newest_checkpoint_is_damaged(folder: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = load_recipe(str(recipe))
    train(settings, data=[folder], out=out)
    assert (out / "checkpoint-previous.pt").exists()
    (out / "checkpoint.pt").write_bytes(b"torn")
    said: list[str] = []
    train(settings, data=[folder], out=out, resume=Resume.YES, on_warning=said.append)
    assert "checkpoint.pt cannot be read" in said[0]
    (out / "checkpoint.pt").write_bytes(b"torn")
    (out / "checkpoint-previous.pt").write_bytes(b"torn")
    with pytest.raises(TrainingError, match="no readable checkpoint"):
        train(settings, data=[folder], out=out, resume=Resume.YES)


@pytest.mark.parametrize("part", ["g", "ema", "g_optimizer"])
def test_row_62_a_whole_checkpoint_of_nan(folder: Path, recipe: Path, tmp_path: Path, part: str) -> None:
    out, settings, said = tmp_path / "run", load_recipe(str(recipe)), []
    train(settings, data=[folder], out=out)
    content = torch.load(out / "checkpoint.pt")
    holds = content[part]["state"][0] if part == "g_optimizer" else content[part]
    holds["exp_avg" if part == "g_optimizer" else "trunk.weight"][0] = float("nan")
    torch.save(content, out / "checkpoint.pt")
    made = train(settings, data=[folder], out=out, resume=Resume.YES, on_warning=said.append)
    assert said[0] == "checkpoint.pt holds values that are not finite; trying the one before it"
    assert all(value.isfinite().all() for value in load_generator(made)[0].state_dict().values())
    assert torch.load(out / "checkpoint.pt")["step"] == 40


@pytest.mark.parametrize("change", [{"recipe": "{"}, {"g": {"x": 1}}, {"stage": 7}], ids=str)
def test_row_62_a_checkpoint_that_loads_and_does_not_fit(
    folder: Path, recipe: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    out, settings, said = tmp_path / "run", load_recipe(str(recipe)), []
    train(settings, data=[folder], out=out)
    torch.save(torch.load(out / "checkpoint.pt") | change, out / "checkpoint.pt")
    train(settings, data=[folder], out=out, resume=Resume.YES, on_warning=said.append)
    assert "checkpoint.pt cannot be read" in said[0]


def test_row_63_loss_that_is_not_finite_stops_the_run(
    folder: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(step.PIXEL_LOSSES, "l1", lambda sr, _hr: (sr * float("nan")).mean())
    with pytest.raises(TrainingError, match="11 steps in a row were not finite"):
        train(load_recipe(str(recipe)), data=[folder], out=tmp_path / "run")
    assert not (tmp_path / "run" / "micro.safetensors").exists()
    assert all("skipped" in line for line in lines(tmp_path / "run" / "train.jsonl")[1:])


def test_row_63_a_single_bad_step_is_skipped(
    folder: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on and ends in finite weights; the log names the step."""
    good, calls = step.PIXEL_LOSSES["l1"], []

    def sometimes(sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return good(sr, hr) * (float("inf") if len(calls) == 7 else 1.0)

    monkeypatch.setitem(step.PIXEL_LOSSES, "l1", sometimes)
    weights = train(load_recipe(str(recipe)), data=[folder], out=tmp_path / "run")
    assert [line["step"] for line in lines(tmp_path / "run" / "train.jsonl") if "skipped" in line] == [6]
    load_generator(weights)  # refuses what is not finite


def test_row_63_a_bad_step_of_the_discriminator_changes_neither_network(
    folder: Path, gan_recipe: Path, tmp_path: Path, vgg19: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, seen = step.GAN_LOSSES["relativistic"], []
    bad = good._replace(discriminator=lambda real, fake, mean: good.discriminator(real, fake, mean) * float("nan"))
    monkeypatch.setitem(step.GAN_LOSSES, "relativistic", bad)

    def watched(stage: StageSection, state: TrainState, *arguments: Any, **more: Any) -> dict[str, float]:
        before = [parameter.clone() for net in (state.g, state.d) if net is not None for parameter in net.parameters()]
        try:
            return step.train_step(stage, state, *arguments, **more)
        except step.NotFinite:
            after = [parameter for net in (state.g, state.d) if net is not None for parameter in net.parameters()]
            seen.append(all(torch.equal(one, two) for one, two in zip(before, after, strict=True)))
            raise

    monkeypatch.setattr(loop, "train_step", watched)
    train(load_recipe(str(gan_recipe)), data=[folder], out=tmp_path / "run", vgg_weights=vgg19)
    assert seen == [True] * 6  # every step of the stage


def test_row_64_unreadable_and_small_pictures(
    cli: Callable[..., Ran], folder: Path, recipe: Path, tmp_path: Path
) -> None:
    """One bad picture is named and left out; more than one in a hundred are listed and refused."""
    (folder / "bad.png").write_bytes(b"nothing")
    argv = ["train", "--config", recipe, "--data", folder, "--steps", "2"]
    ran = cli(*argv, "-o", tmp_path / "a")
    assert ran.code == 0, ran.err
    assert re.search(r"warning: left out: .*bad\.png", ran.err)
    Image.fromarray(pattern(5, 5)).save(folder / "small.png")
    ran = cli(*argv, "-o", tmp_path / "b")
    assert ran.code == 9
    assert re.search(r"2 of 1\d pictures cannot be used \(.*bad\.png.*small\.png: 5x5 is smaller than 16", ran.err)
    assert len(ran.err.strip().splitlines()) == 2  # what runs where, and the error


@pytest.mark.parametrize("stop_at", [3, 5, 8])
@pytest.mark.parametrize("workers", [0, 2])
def test_row_65_resumed_run_equals_an_uninterrupted_one(
    folder: Path,
    gan_recipe: Path,
    vgg19: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stop_at: int,
    workers: int,
) -> None:
    """By steps on a CPU the two end in the same bits: weights, average, discriminator, both optimisers.

    The first stage has Muon, the second Adam. It stops in either stage, or at the end of the first.
    """
    settings = load_recipe(str(gan_recipe), {"data.workers": workers, "stages.psnr.optimizer": "muon"})
    options: dict[str, Any] = {"data": [folder], "vgg_weights": vgg19}
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train(settings, out=whole, **options)
    real, steps = loop.train_step, []

    def step_then_stop(*arguments: Any, **named: Any) -> dict[str, float]:
        if len(steps) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        steps.append(1)
        return real(*arguments, **named)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", step_then_stop)
        with pytest.raises(Interrupted):
            train(settings, out=parted, **options)
    assert signal.getsignal(signal.SIGTERM) == before
    assert torch.load(parted / "checkpoint.pt", weights_only=True)["total_steps"] == stop_at + 1
    train(settings, out=parted, resume=Resume.YES, **options)
    ours, theirs = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (parted, whole))
    for part in ("g", "ema", "d"):
        for key, value in ours[part].items():
            assert torch.equal(value, theirs[part][key]), (part, key)
    for part in ("g_optimizer", "d_optimizer"):
        for number, moments in ours[part]["state"].items():
            for key, value in moments.items():
                assert torch.equal(value, theirs[part]["state"][number][key]), (part, number, key)
    for name in ("micro-gan", "micro-gan-psnr"):
        ours, theirs = (load_generator(run / f"{name}.safetensors")[0].state_dict() for run in (parted, whole))
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@pytest.mark.parametrize("group", [False, True], ids=["process", "its workers too"])
def test_row_66_sigterm_leaves_a_checkpoint_and_exit_code_143(
    folder: Path, recipe: Path, tmp_path: Path, group: bool
) -> None:
    """`timeout` and job schedulers send it to the workers, too."""
    out = tmp_path / "run"
    argv = ["train", "--config", str(recipe), "--data", str(folder), "-o", str(out), "--max-time", "60"]
    words = [sys.executable, "-m", "sr_upscale", *argv]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (out / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    if group:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "go on with the same command and --resume" in err
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] > 0
    load_generator(out / "micro.safetensors")  # also without a validation


def test_row_67_another_recipe_at_resume(folder: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(load_recipe(str(recipe)), data=[folder], out=out)
    with pytest.raises(UsageError, match="add --resume"):
        train(load_recipe(str(recipe)), data=[folder], out=out)
    other = load_recipe(str(recipe), {"stage.lr": 5e-4, "seed": 3})
    with pytest.raises(UsageError, match=re.escape("seed was 0, is 3; stages.psnr.lr was 0.001, is 0.0005")):
        train(other, data=[folder], out=out, resume=Resume.YES)


def test_row_62_a_flipped_bit_in_the_newest_checkpoint_is_found(folder: Path, recipe: Path, tmp_path: Path) -> None:
    """torch.load does not look at checksums; the weights would come out as numbers, and wrong."""
    settings, out = load_recipe(str(recipe)), tmp_path / "run"
    train(settings, data=[folder], out=out)
    assert (out / "checkpoint-previous.pt").exists()
    with zipfile.ZipFile(out / "checkpoint.pt") as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    data = bytearray((out / "checkpoint.pt").read_bytes())
    at = largest.header_offset + len(largest.filename) + 200
    data[at] ^= 0x40
    (out / "checkpoint.pt").write_bytes(data)
    said: list[str] = []
    train(settings, data=[folder], out=out, resume=Resume.YES, on_warning=said.append)
    assert any("checkpoint.pt cannot be read" in text for text in said)


def test_row_50_a_full_disk_in_a_checkpoint_is_an_output_error(
    folder: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=0))
    with pytest.raises(DiskFullError, match="the disk is full"):
        train(load_recipe(str(recipe)), data=[folder], out=tmp_path / "run")


def test_a_log_that_is_a_link_is_not_followed(folder: Path, recipe: Path, tmp_path: Path) -> None:
    """A run that comes from elsewhere would add lines, of which its recipe says some, to any file of the user."""
    out, victim = tmp_path / "run", tmp_path / "victim"
    out.mkdir()
    victim.write_text("alias ls='ls -l'\n")
    (out / "train.jsonl").symlink_to(victim)
    with pytest.raises(OutputError, match=r"train\.jsonl: is a link"):
        train(load_recipe(str(recipe)), data=[folder], out=out)
    assert victim.read_text() == "alias ls='ls -l'\n"
