"""``train --dry-run``: what it says is what a run does, and nothing is touched."""

from __future__ import annotations

import json
import socket
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from sr_upscale.data.div2k import DIV2K_TRAIN
from sr_upscale.models.discriminator import build_discriminator
from sr_upscale.pretrained.registry import catalogue_entry
from sr_upscale.pretrained.weights_file import load_generator
from sr_upscale.training.parallel import World
from tests.helpers import Cli, lines


def everything(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_a_dry_run_says_what_the_run_then_does_and_touches_nothing(
    cli: Cli,
    folder: Path,
    gan_recipe: Path,
    vgg19: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SR_UPSCALE_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    argv = ["train", "-c", gan_recipe, "--data", folder, "-o", out, "--vgg-weights", vgg19, "--fp32", "--device", "cpu"]
    before = everything(tmp_path)
    ran = cli(*argv, "--dry-run", "--json", code=0)
    assert everything(tmp_path) == before
    said = json.loads(ran.out)
    shown = cli(*argv, "--dry-run").out.splitlines()
    assert everything(tmp_path) == before
    assert "stage psnr: 6 steps, batch of 4, patches of 8x8 LR pixels" in shown
    assert shown[-1] == "download: nothing"

    assert cli(*argv, "--steps", "2").code == 0
    log = lines(out / "train.jsonl")
    model, _info = load_generator(out / "micro-gan.safetensors")
    assert said["parameters"] == sum(each.numel() for each in model.parameters())
    assert said["pictures"] == log[0]["pictures"]
    assert said["held_out"] == 2
    assert (said["device"], said["dtype"]) == (log[0]["device"], "fp32")
    stages = log[0]["recipe"]["stages"]  # type: ignore[index]
    assert [stage["name"] for stage in said["stages"]] == list(stages)
    judge = build_discriminator(stages["gan"]["discriminator"], stages["gan"]["d_num_feat"])
    assert said["stages"][1]["discriminator_parameters"] == sum(each.numel() for each in judge.parameters())
    assert said["stages"][0]["discriminator_parameters"] == 0


def test_a_dry_run_refuses_what_the_run_would_refuse(cli: Cli, folder: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    argv = ["train", "-c", recipe, "--data", folder, "-o", out]
    assert cli(*argv, "--steps", "4").code == 0
    (ran, real) = (cli(*argv, *more) for more in (["--dry-run"], []))
    assert ran.code == real.code == 2
    assert ran.err.splitlines()[-1] == real.err.splitlines()[-1]
    assert "start: goes on from step 4 of stage psnr" in cli(*argv, "--steps", "9", "--resume", "--dry-run").out
    assert cli("train", "-c", recipe, "--data", tmp_path / "none", "--dry-run").code == 9
    assert cli(*argv, "--auto-resume", "--init", "no-such-model", "--dry-run").code == 2  # not the checkpoint's recipe


def test_a_dry_run_names_what_it_would_download_and_opens_no_connection(
    cli: Cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_arguments: object) -> None:
        pytest.fail("a dry run opens a connection")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("SR_UPSCALE_CACHE", str(tmp_path / "cache"))
    argv = ["train", "-c", "anime-x4", "--data", folder, "--data", "div2k", "--init", "none", "--dry-run"]
    ran = cli(*argv, "--json", code=0)
    said = json.loads(ran.out)
    teacher = catalogue_entry("realesrgan-x4plus-anime-6b")
    assert teacher is not None
    sizes = {each["what"]: (each["url"], each["size"]) for each in said["downloads"]}
    assert sizes["teacher"] == (teacher.file.url, teacher.file.size)
    assert sizes["div2k"] == (DIV2K_TRAIN.url, DIV2K_TRAIN.size)
    assert sizes["VGG19"][1] == pytest.approx(548e6, rel=0.05)
    assert said["crops"] == 600
    assert said["pictures"] + said["held_out"] == 12
    assert "download: div2k, 3.3 GiB from https://data.vision.ee.ethz.ch" in cli(*argv).out
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "runs").exists()


@dataclass(frozen=True, kw_only=True)
class OfTwo(World):
    """The first of two processes that agree."""

    size: int = 2

    def agree(self, *values: float) -> tuple[float, ...]:
        return values

    def share(self, value: Any) -> Any:
        return value


def test_batch_and_workers_are_told_per_process_and_in_all(
    cli: Cli, folder: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sr_upscale.training.parallel.joined", lambda *_args, **_more: nullcontext(OfTwo()))
    argv = ["train", "-c", recipe, "--data", folder, "-o", tmp_path / "run", "--device", "cpu", "--fp32", "--dry-run"]
    ran = cli(*argv, "--set", "data.workers=3", code=0)
    shown = ran.out.splitlines()
    assert "stage psnr: 40 steps, batch of 4 (2 on each of 2 processes), patches of 8x8 LR pixels" in shown
    assert "workers: 6 (3 on each of 2 processes)" in shown
    assert not (tmp_path / "run").exists()
