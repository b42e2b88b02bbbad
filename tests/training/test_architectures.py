"""Networks of others, taught by our recipes: what is saved is what spandrel reads, and what ``-n`` computes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import spandrel
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

from sr_upscale.data.patches import Pair, PatchSampler
from sr_upscale.errors import ModelError, UsageError
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.pretrained.load import module_of, traits_of
from sr_upscale.pretrained.spandrel_adapter import ARCHITECTURES, build_network
from sr_upscale.training import state, step
from sr_upscale.training.loop import Resume, Setup, train
from sr_upscale.training.parallel import World
from sr_upscale.training.recipe_file import load_recipe
from sr_upscale.training.validation import upscaled
from tests.helpers import Cli, pattern

TINY = {
    "compact": {"num_feat": 8, "num_conv": 2},
    "span": {"feature_channels": 8},
    "esrgan": {"num_filters": 8, "num_blocks": 1},
    "plksr": {"dim": 16, "n_blocks": 1},
}
COMPACT = """
name = "tiny-compact"
[model]
arch = "compact"
scale = 2
options = { num_feat = 8, num_conv = 2 }
[data]
lr_patch = 8
batch_size = 4
validation_count = 2
workers = 0
[stages.psnr]
steps = 30
max_time_s = 0
warmup_steps = 0
"""


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-compact.toml"
    path.write_text(COMPACT)
    return path


def alone(path: Path) -> spandrel.ImageModelDescriptor[nn.Module]:
    """What spandrel makes of a file without our code."""
    descriptor = spandrel.ModelLoader(device="cpu").load_from_file(path)
    assert isinstance(descriptor, spandrel.ImageModelDescriptor)
    return descriptor.eval()


def test_a_compact_is_taught_and_is_what_n_and_spandrel_load(
    cli: Cli, folder: Path, compact: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ran = cli("train", "-c", compact, "--data", folder, "-o", out, "--fp32", "--device", "cpu", code=0)
    assert "train longer (--max-time)\n" in ran.err  # our own weights are no start for it
    weights = out / "tiny-compact.safetensors"
    assert (traits_of(weights).architecture, traits_of(weights).scale) == ("RealESRGAN Compact", 2)
    picture = pattern(9, 7)
    with torch.no_grad():
        wanted = alone(weights)(to_tensor(picture)).clamp(0, 1)
    Image.fromarray(picture).save(tmp_path / "p.png")
    ran = cli(tmp_path / "p.png", "-n", weights, "-o", tmp_path / "o.png", "--fp32", "--device", "cpu", code=0)
    with Image.open(tmp_path / "o.png") as image:
        ours = np.asarray(image).astype(int)
    assert np.abs(ours - to_pixels(wanted, np.dtype(np.uint8))).max() <= 1  # rounding of another order of sums
    with safe_open(weights, framework="np") as file:
        assert file.metadata()["modelspec.architecture"] == "compact"
        assert '"pictures": 2' in file.metadata()["sr_upscale.scores"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_learns_is_saved_and_is_read_again(
    folder: Path, compact: Path, tmp_path: Path, name: str
) -> None:
    settings = {"model.arch": name, "stage.steps": 3, "stage.optimizer": "muon", "stage.accumulate": 2, "init": ""}
    text = COMPACT.replace("num_feat = 8, num_conv = 2", ", ".join(f"{k} = {v}" for k, v in TINY[name].items()))
    compact.write_text(text)
    recipe = load_recipe(str(compact), settings)
    weights = train(recipe, Setup(data=[folder], out=tmp_path / "run"))
    longer = load_recipe(str(compact), {**settings, "stage.steps": 5})
    assert train(longer, Setup(data=[folder], out=tmp_path / "run", resume=Resume.YES)) == weights
    checkpoint = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    network = build_network(name, scale=2, options=TINY[name])
    assert not [key for key, _value in network.named_buffers()]  # they would be neither averaged nor joint
    network.load_state_dict(checkpoint["ema"])
    image = to_tensor(pattern(12, 11))
    with torch.no_grad():
        wanted = network.eval()(image).clamp(0, 1)
        assert wanted.shape == (1, 3, 24, 22)
        torch.testing.assert_close(alone(weights)(image), wanted, rtol=0, atol=1e-6)
        torch.testing.assert_close(module_of(weights)(image), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_validation_in_between_changes_nothing(pairs: list[Pair], compact: Path, name: str) -> None:
    """SPAN computes its weights anew at each look; the average and the next stage go on from them all the same."""
    options = ", ".join(f"{key} = {value}" for key, value in TINY[name].items())
    compact.write_text(COMPACT.replace("num_feat = 8, num_conv = 2", options))
    recipe = load_recipe(str(compact), {"model.arch": name})
    sampler = PatchSampler(pairs, scale=2, lr_patch=8, batch_size=4, seed=(0, 0))
    pictures = []
    for looks in (True, False):
        s = state.begin_stage(recipe, 0, state.new_generator(recipe), device=torch.device("cpu"))
        tools = step.Tools(world=World(), dtype=torch.float32, features=None, forward=s.g)
        for number in range(3):
            step.train_step(recipe.stages["psnr"], s, sampler[number], tools, seed=0)
            if looks:
                upscaled(s.ema, pairs[0].lr)
        pictures.append(upscaled(state.begin_stage(recipe, 0, s.ema, device=torch.device("cpu")).ema, pairs[0].lr))
    np.testing.assert_array_equal(*pictures)


def test_a_warm_start_from_a_file_of_the_same_architecture(folder: Path, compact: Path, tmp_path: Path) -> None:
    first = train(load_recipe(str(compact)), Setup(data=[folder], out=tmp_path / "a"))
    settings = {"init": str(first), "model.scale": 4, "stage.steps": 1, "stage.lr": 1e-12}
    said: list[str] = []
    second = train(load_recipe(str(compact), settings), Setup(data=[folder], out=tmp_path / "b", on_note=said.append))
    before, after = (alone(path).model.state_dict() for path in (first, second))
    torch.testing.assert_close(after["body.2.weight"], before["body.2.weight"], atol=1e-6, rtol=0)
    assert alone(second).scale == 4
    assert said[0].endswith("not body.6.weight, body.6.bias; body.6.weight, body.6.bias start at random")
    wide = load_recipe(str(compact), {"init": str(first), "model.options.num_feat": 16})
    with pytest.raises(UsageError, match="the first layer of .* does not fit; .* at random"):
        train(wide, Setup(data=[folder], out=tmp_path / "c"))


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--set", "model.arch=hat"], 2, "model.arch is 'hat'; expected compact, span, esrgan, plksr, or ''"),
        (["--set", "model.options.depth=3"], 2, "model.options has 'depth'; compact takes num_feat, num_conv"),
        (["--set", "model.options.num_feat=0"], 2, "model.options.num_feat is 0; expected more than 0"),
        (["--set", "model.options.num_feat=wide"], 2, "model.options.num_feat is 'wide'; expected int"),
        (["--set", "model.num_blocks=3"], 2, "model.num_blocks is of our generator; compact takes its sizes as"),
        (["--set", "model.arch=''"], 2, "model.options is {'num_feat': 8, 'num_conv': 2}; expected a model.arch that"),
        (["--set", "model.scale=5"], 2, "scale is 5; expected 2, 3, 4 or 8"),
        (["--init", "psnr-x4"], 2, "the first layer of psnr-x4 does not fit"),
    ],
)
def test_what_is_no_network_is_refused_in_a_line(
    cli: Cli, folder: Path, compact: Path, tmp_path: Path, argv: list[str], code: int, words: str
) -> None:
    ran = cli("train", "-c", compact, "--data", folder, "-o", tmp_path / "run", "--dry-run", *argv, code=code)
    assert words in ran.err.splitlines()[-1]


def test_without_spandrel_the_extra_is_named(folder: Path, compact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ModelError, match=r"model.arch is 'compact'.*pip install '\.\[models\]'"):
        train(load_recipe(str(compact)), Setup(data=[folder], out=folder.parent / "run"))
