"""Faults 61 to 67, by the number of their row in the fault table: nothing learnt is lost."""

from __future__ import annotations

import os
import re
import shutil
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

from sr_upscale.errors import DiskFullError, OutputError, TrainingError
from sr_upscale.pretrained.weights_file import load_generator
from sr_upscale.training import loop, step
from sr_upscale.training.config import StageSection
from sr_upscale.training.loop import Interrupted, Resume, Setup, train
from sr_upscale.training.recipe_file import load_recipe
from sr_upscale.training.state import TrainState
from tests.helpers import ROOT, Cli, lines, pattern, pictures

SETTINGS = load_recipe(str(ROOT / "tests" / "training" / "micro.toml"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures, and a run on them that has come to its end."""
    root = tmp_path_factory.mktemp("finished")
    folder = pictures(root / "pictures", *(f"{number}.png" for number in range(12)), size=(40, 51))
    train(SETTINGS, Setup(data=[folder], out=root / "run"))
    return folder, root / "run"


def flip_a_bit(checkpoint: Path) -> None:
    """Of its largest part: torch.load does not look at checksums; weights would come out as numbers, and wrong."""
    with zipfile.ZipFile(checkpoint) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    data = bytearray(checkpoint.read_bytes())
    data[largest.header_offset + len(largest.filename) + 200] ^= 0x40
    checkpoint.write_bytes(data)


def change(checkpoint: Path, **parts: Any) -> None:
    torch.save(torch.load(checkpoint) | parts, checkpoint)


def put_nan(checkpoint: Path, part: str) -> None:
    content = torch.load(checkpoint)
    holds, name = (content[part]["state"][0], "exp_avg") if part == "g_optimizer" else (content[part], "trunk.weight")
    holds[name][0] = float("nan")
    torch.save(content, checkpoint)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(b"torn"), "checkpoint.pt cannot be read"),
        (flip_a_bit, "checkpoint.pt cannot be read"),
        (lambda path: change(path, recipe="{"), "checkpoint.pt cannot be read"),
        (lambda path: change(path, g={"x": 1}), "checkpoint.pt cannot be read"),
        (lambda path: change(path, stage=7), "checkpoint.pt cannot be read"),
        (lambda path: put_nan(path, "g"), "checkpoint.pt holds values that are not finite; trying the one before it"),
        (lambda path: put_nan(path, "ema"), "checkpoint.pt holds values that are not finite"),
        (lambda path: put_nan(path, "g_optimizer"), "checkpoint.pt holds values that are not finite"),
    ],
)
def test_row_62_a_damaged_checkpoint_is_done_without(
    finished: tuple[Path, Path], tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    """The one before it is taken, with a warning; where that is damaged, too, nothing is begun anew."""
    folder, run = finished
    out, said = shutil.copytree(run, tmp_path / "run"), list[str]()
    damage(out / "checkpoint.pt")
    made = train(SETTINGS, Setup(data=[folder], out=out, resume=Resume.YES, on_warning=said.append))
    assert words in said[0]
    assert torch.load(out / "checkpoint.pt")["step"] == 40
    load_generator(made)  # refuses what is not finite
    for name in ("checkpoint.pt", "checkpoint-previous.pt"):
        (out / name).write_bytes(b"torn")
    with pytest.raises(TrainingError, match="no readable checkpoint"):
        train(SETTINGS, Setup(data=[folder], out=out, resume=Resume.YES))


def test_row_63_loss_that_is_not_finite_stops_the_run(
    folder: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(step.PIXEL_LOSSES, "l1", lambda sr, _hr: (sr * float("nan")).mean())
    with pytest.raises(TrainingError, match="11 steps in a row were not finite"):
        train(load_recipe(str(recipe)), Setup(data=[folder], out=tmp_path / "run"))
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
    weights = train(load_recipe(str(recipe)), Setup(data=[folder], out=tmp_path / "run"))
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
    train(load_recipe(str(gan_recipe)), Setup(data=[folder], out=tmp_path / "run", vgg_weights=vgg19))
    assert seen == [True] * 6  # every step of the stage


def test_row_64_unreadable_and_small_pictures(cli: Cli, folder: Path, recipe: Path, tmp_path: Path) -> None:
    """One bad picture is named and left out; more than one in a hundred are listed and refused."""
    (folder / "bad.png").write_bytes(b"nothing")
    argv = ["train", "--config", recipe, "--data", folder, "--steps", "2"]
    ran = cli(*argv, "-o", tmp_path / "a", code=0)
    assert re.search(r"warning: left out: .*bad\.png", ran.err)
    Image.fromarray(pattern(5, 5)).save(folder / "small.png")
    ran = cli(*argv, "-o", tmp_path / "b", code=9)
    assert re.search(r"2 of 1\d pictures cannot be used \(.*bad\.png.*small\.png: 5x5 is smaller than 16", ran.err)
    assert len(ran.err.strip().splitlines()) == 2  # what runs where, and the error


@pytest.mark.parametrize(("stop_at", "workers"), [(3, 2), (5, 0), (8, 2)])
def test_row_65_resumed_run_equals_an_uninterrupted_one(
    folder: Path,
    gan_recipe: Path,
    vgg19: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_at: int,
    workers: int,
) -> None:
    """By steps on a CPU the two end in the same bits: weights, average, discriminator, both optimisers.

    The first stage has Muon, the second Adam. It stops in either stage, or at the end of the first.
    """
    settings = load_recipe(str(gan_recipe), {"data.workers": workers, "stages.psnr.optimizer": "muon"})
    options: dict[str, Any] = {"data": [folder], "vgg_weights": vgg19}
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train(settings, Setup(out=whole, **options))
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
            train(settings, Setup(out=parted, **options))
    assert signal.getsignal(signal.SIGTERM) == before
    assert torch.load(parted / "checkpoint.pt", weights_only=True)["total_steps"] == stop_at + 1
    train(settings, Setup(out=parted, resume=Resume.YES, **options))
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


def test_row_66_sigterm_leaves_a_checkpoint_and_exit_code_143(folder: Path, recipe: Path, tmp_path: Path) -> None:
    """It goes to the workers, too, as `timeout` and job schedulers send it."""
    out = tmp_path / "run"
    argv = ["train", "--config", str(recipe), "--data", str(folder), "-o", str(out), "--max-time", "60"]
    words = [sys.executable, "-m", "sr_upscale", *argv]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (out / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "go on with the same command and --resume" in err
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] > 0
    load_generator(out / "micro.safetensors")  # also without a validation


def test_row_50_a_full_disk_in_a_checkpoint_is_an_output_error(
    folder: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=0))
    with pytest.raises(DiskFullError, match="the disk is full"):
        train(load_recipe(str(recipe)), Setup(data=[folder], out=tmp_path / "run"))


def test_a_log_that_is_a_link_is_not_followed(folder: Path, recipe: Path, tmp_path: Path) -> None:
    """A run that comes from elsewhere would add lines, of which its recipe says some, to any file of the user."""
    out, victim = tmp_path / "run", tmp_path / "victim"
    out.mkdir()
    victim.write_text("alias ls='ls -l'\n")
    (out / "train.jsonl").symlink_to(victim)
    with pytest.raises(OutputError, match=r"train\.jsonl: is a link"):
        train(load_recipe(str(recipe)), Setup(data=[folder], out=out))
    assert victim.read_text() == "alias ls='ls -l'\n"
