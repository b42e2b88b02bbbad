"""Runs that begin again by themselves: after signals, with a longer recipe, and after other processes were lost."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sr_upscale.errors import TrainingError, UsageError
from sr_upscale.models.descriptor import GeneratorConfig
from sr_upscale.models.generator import Generator
from sr_upscale.pretrained.weights_file import WeightsInfo, load_generator, save_generator
from sr_upscale.storage.atomic import place
from sr_upscale.training import loop, parallel
from sr_upscale.training.loop import Resume, Setup, train
from sr_upscale.training.parallel import World
from sr_upscale.training.recipe_file import load_recipe
from sr_upscale.training.state import new_generator
from tests.helpers import Cli, lines

# --- start or go on ---------------------------------------------------------------------------------


def test_row_66_auto_resume_begins_goes_on_and_ends_whatever_is_there(
    cli: Cli, folder: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command after SIGTERM in set-up, after SIGTERM in training, and after the end."""
    out = tmp_path / "run"
    argv = ["train", "--config", recipe, "--data", folder, "-o", out, "--auto-resume", "--fp32"]
    find, step = loop.load_pictures, loop.train_step

    def stopped(function: Callable[..., Any], at: int) -> Callable[..., Any]:
        calls: list[int] = []

        def call(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(loop, "load_pictures", stopped(find, 1))
    assert cli(*argv).code == 143
    assert not (out / "checkpoint.pt").exists()
    orphan = out / f".sr-{place()}-{2**22 + 1}-00000000-left.tmp"  # no process has this number
    orphan.touch()
    monkeypatch.setattr(loop, "load_pictures", find)
    monkeypatch.setattr(loop, "train_step", stopped(step, 7))
    ran = cli(*argv, code=143)
    assert "going on" not in ran.err
    assert not orphan.exists()
    monkeypatch.setattr(loop, "train_step", step)
    ran = cli(*argv, code=0)
    assert "going on from step 7 of stage psnr" in ran.err
    ran = cli(*argv, code=0)
    assert "going on from step 40 of stage psnr" in ran.err
    whole = train(load_recipe(str(recipe)), Setup(data=[folder], out=tmp_path / "whole"))
    ours, theirs = (load_generator(path)[0].state_dict() for path in (out / whole.name, whole))
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_auto_resume_begins_again_where_every_checkpoint_is_damaged(folder: Path, recipe: Path, tmp_path: Path) -> None:
    settings, out, said = load_recipe(str(recipe), {"stage.steps": 3}), tmp_path / "run", []
    out.mkdir()
    (out / "checkpoint.pt").write_bytes(b"torn")
    train(settings, Setup(data=[folder], out=out, resume=Resume.AUTO, on_warning=said.append))
    assert said[0].startswith("checkpoint.pt cannot be read")
    assert said[1] == "no checkpoint can be read; the run begins again"
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 3


def test_a_checkpoint_that_cannot_be_opened_is_not_taken_for_a_damaged_one(
    folder: Path, recipe: Path, tmp_path: Path
) -> None:
    """It may be there again in a minute: a run that began anew would write over it."""
    (tmp_path / "checkpoint.pt").mkdir()
    with pytest.raises(TrainingError, match=r"checkpoint.pt: cannot be read: Is a directory; try again"):
        train(load_recipe(str(recipe)), Setup(data=[folder], out=tmp_path, resume=Resume.AUTO))


# --- a longer run -----------------------------------------------------------------------------------


def test_row_67_a_longer_run_is_no_other_recipe(folder: Path, recipe: Path, tmp_path: Path) -> None:
    """12 steps, then 30 with other workers: the bits of 30 at once, where the learning rate does not look ahead."""
    always = {"stage.schedule": "constant"}
    short, long = (load_recipe(str(recipe), {**always, "stage.steps": steps}) for steps in (12, 30))
    more = load_recipe(str(recipe), {**always, "stage.steps": 30, "data.workers": 2, "stage.validate_every_s": 9})
    out, said = tmp_path / "run", []
    train(short, Setup(data=[folder], out=out))
    train(more, Setup(data=[folder], out=out, resume=Resume.YES, on_note=said.append))
    assert said == [
        "going on from step 12 of stage psnr; data.workers was 0, is 2; stages.psnr.steps was 12, is 30; "
        "stages.psnr.validate_every_s was 0.05, is 9.0"
    ]
    train(long, Setup(data=[folder], out=tmp_path / "whole"))
    ours, theirs = (torch.load(each / "checkpoint.pt", weights_only=True) for each in (out, tmp_path / "whole"))
    assert ours["step"] == theirs["step"] == 30
    for part in ("g", "ema"):
        assert all(torch.equal(value, theirs[part][key]) for key, value in ours[part].items())
    other = load_recipe(str(recipe), {**always, "stage.steps": 50, "stage.lr": 5e-4})
    with pytest.raises(UsageError, match=re.escape("another recipe: stages.psnr.lr was 0.001, is 0.0005; undo")):
        train(other, Setup(data=[folder], out=out, resume=Resume.YES))


# --- warm starts ------------------------------------------------------------------------------------


def test_a_warm_start_says_what_it_took_and_a_resume_does_not_need_it(
    folder: Path, recipe: Path, tmp_path: Path
) -> None:
    first = train(load_recipe(str(recipe), {"stage.steps": 2}), Setup(data=[folder], out=tmp_path / "a"))
    count = len(load_generator(first)[0].state_dict())
    said: list[str] = []
    same = load_recipe(str(recipe), {"init": str(first), "stage.steps": 2})
    train(same, Setup(data=[folder], out=tmp_path / "b", on_note=said.append))
    assert said == [f"init: {count} of the {count} tensors of {first} were taken over"]
    said.clear()
    other = load_recipe(str(recipe), {"init": str(first), "model.scale": 3, "stage.steps": 2})
    train(other, Setup(data=[folder], out=tmp_path / "c", on_note=said.append))
    lost = ", ".join(key for key in load_generator(first)[0].state_dict() if key.startswith("tail.last"))
    assert said == [
        f"init: {count - 2} of the {count} tensors of {first} were taken over; not {lost}; {lost} start at random"
    ]
    narrow = load_recipe(str(recipe), {"init": str(first), "model.num_feat": 4})
    with pytest.raises(UsageError, match="the blocks of .* do not fit"):
        train(narrow, Setup(data=[folder], out=tmp_path / "d"))
    first.unlink()
    train(other, Setup(data=[folder], out=tmp_path / "c", resume=Resume.YES))


@pytest.mark.parametrize("block", ["gated", "inception"])
def test_half_the_factor_starts_as_the_means_of_2x2_pixels(recipe: Path, tmp_path: Path, block: str) -> None:
    torch.manual_seed(1)
    theirs = Generator(GeneratorConfig(scale=4, num_feat=8, num_blocks=2, block=block)).eval()
    torch.nn.init.normal_(theirs.tail.last.bias)
    save_generator(tmp_path / "x4.safetensors", theirs, WeightsInfo(name="x4"))
    sizes = {"model.num_feat": 8, "model.num_blocks": 2, "model.block": block}
    ours = new_generator(load_recipe(str(recipe), {**sizes, "init": str(tmp_path / "x4.safetensors")})).eval()
    x = torch.rand(1, 3, 9, 7)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), F.avg_pool2d(theirs(x), 2))


def test_a_deeper_network_starts_as_the_shallower_one_that_it_is_made_from(
    folder: Path, recipe: Path, tmp_path: Path
) -> None:
    first = train(load_recipe(str(recipe), {"stage.steps": 2}), Setup(data=[folder], out=tmp_path / "a"))
    shallow = load_generator(first)[0].eval()
    blocks = shallow.config.num_blocks
    deeper = load_recipe(str(recipe), {"init": str(first), "model.num_blocks": blocks + 3})
    said: list[str] = []
    deep = new_generator(deeper, said.append).eval()
    x = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(deep(x), shallow(x), atol=0, rtol=0)
    assert said[0].endswith(f"; blocks from {blocks} on are new and start by passing their input on")
    deep(x).sum().backward()
    assert all(block.conv1.weight.grad.abs().sum() > 0 for block in deep.blocks[blocks:])  # and they can learn


# --- several processes ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Threads(World):
    """Processes that are threads: `agree` alone is replaced."""

    meeting: threading.Barrier
    said: list[float]

    def agree(self, *values: float) -> tuple[float, ...]:
        self.said.extend(values)
        self.meeting.wait(20)
        most = max(self.said)
        if self.meeting.wait(20) == 0:
            self.said.clear()
        self.meeting.wait(20)
        return (most,)


@pytest.mark.parametrize("failing", [None, 0, 1, 2, 3])
def test_each_takes_its_turn_and_none_waits_for_one_that_failed(failing: int | None) -> None:
    """Two hosts of two: the first of all, the first of the other host, the rest."""
    meeting, said = threading.Barrier(4), []
    done: list[int] = []
    ends: dict[int, str] = {}

    def run(rank: int) -> None:
        world = Threads(rank=rank, size=4, local_rank=rank % 2, meeting=meeting, said=said)
        try:
            with world.in_turn():
                time.sleep(0.02)
                done.append(rank)
                if rank == failing:
                    raise UsageError("no")
            ends[rank] = "went on"
        except (UsageError, TrainingError) as error:
            ends[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    if failing is None:
        assert done[:2] == [0, 2]
        assert sorted(done[2:]) == [1, 3]
        assert set(ends.values()) == {"went on"}
        return
    assert ends.pop(failing) == "no"
    assert ends == dict.fromkeys({0, 1, 2, 3} - {failing}, "another process failed; its message says why")


@dataclass
class Signs:
    """A store: what was set last, by key."""

    values: dict[str, bytes] = field(default_factory=dict)

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        if key not in self.values:
            raise RuntimeError("out of reach")
        return self.values[key]


@pytest.mark.parametrize("how", ["silent", "ended", "alive", "no store"])
def test_a_watch_tells_the_lost_from_the_busy_and_the_ended(how: str) -> None:
    store, said = Signs(), []
    watch = parallel.Watch(store, rank=0, size=2, lost_after_s=0.3, on_lost=said.append)
    other = parallel.Watch(store, rank=1, size=2, lost_after_s=9, on_lost=pytest.fail)
    other._period_s = 0.05
    with watch:
        if how == "ended":
            with other:
                pass
        elif how == "silent":
            store.set("alive/1", "7")
        if how == "alive":
            with other:
                time.sleep(1)
        else:
            time.sleep(1)
    expected = "process 1 was silent for 0.3 s (--lost-after)"
    assert [text.split(";")[0] for text in said] == ([expected] if how in ("silent", "no store") else [])


CHILD = """
import os, signal, sys
from pathlib import Path
from sr_upscale.cli.app import main
from sr_upscale.training import loop

out, number, step = Path(sys.argv[1]), int(sys.argv[2]), loop.train_step

def dies(stage, state, *arguments, **named):
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if os.environ["RANK"] == "1" and first and number and state.stage == 1 and state.step == 3:
        assert (out / "checkpoint.pt").exists()
        os.kill(os.getpid(), number)
    return step(stage, state, *arguments, **named)

loop.train_step = dies
main(sys.argv[3:])
"""
"""A process that sends itself a signal in the second stage, unless it was started again."""


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_end_in_the_bits_of_an_undisturbed_run(
    folder: Path, gan_recipe: Path, vgg19: Path, tmp_path: Path
) -> None:
    """torchrun starts both again, and they go on from the last checkpoint."""
    child = tmp_path / "child.py"
    child.write_text(CHILD)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    torchrun += ["--nproc-per-node", "2", "--max-restarts", "2", str(child)]
    argv = ["train", "--config", str(gan_recipe), "--data", str(folder), "--fp32", "--device", "cpu", "--auto-resume"]
    argv += ["--vgg-weights", str(vgg19), "--set", "stages.psnr.optimizer=muon"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, number in (("whole", 0), ("killed", signal.SIGKILL)):
        out = tmp_path / name
        command = [*torchrun, str(out), str(int(number)), *argv, "-o", str(out)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert ran.returncode == 0, ran.stderr
        assert ("going on from step" in ran.stderr) == bool(number)
    starts = [line for line in lines(tmp_path / "killed" / "train.jsonl") if "recipe" in line]
    assert len(starts) == 2
    ours, theirs = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("killed", "whole"))
    assert ours["total_steps"] == theirs["total_steps"] == 12
    for part in ("g", "ema", "d"):
        assert all(torch.equal(value, theirs[part][key]) for key, value in ours[part].items()), part
    for part in ("g_optimizer", "d_optimizer"):
        for at, moments in ours[part]["state"].items():
            assert all(torch.equal(value, theirs[part]["state"][at][key]) for key, value in moments.items())
    for name in ("micro-gan", "micro-gan-psnr"):
        ours, theirs = (
            load_generator(tmp_path / run / f"{name}.safetensors")[0].state_dict() for run in ("killed", "whole")
        )
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGSTOP, "process 1 was silent for 3 s"), (signal.SIGKILL, "another process was lost")],
)
def test_a_lost_process_ends_the_others_soon(
    folder: Path, gan_recipe: Path, vgg19: Path, tmp_path: Path, number: signal.Signals, words: str
) -> None:
    """One is stopped, so that its connections stay open, or killed; no torchrun is there to notice."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = ["-c", CHILD, str(tmp_path / "run"), str(int(number)), "train", "--config", str(gan_recipe)]
    argv += ["--data", str(folder), "--vgg-weights", str(vgg19), "--device", "cpu", "--fp32", "--lost-after", "3s"]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, *argv, "-o", str(tmp_path / "run")],
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        _out, err = processes[0].communicate(timeout=90)
        assert processes[0].returncode == 9, err
        assert words in err
        assert "--auto-resume" in err
    finally:
        processes[1].kill()
        processes[1].communicate()
