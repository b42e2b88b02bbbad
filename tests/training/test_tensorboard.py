"""What TensorBoard is told: losses, scores, sample sheets."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_upscale.formatting import extra
from sr_upscale.pretrained.weights_file import load_generator
from tests.helpers import Cli


def test_tensorboard_says_what_to_install(
    cli: Cli, folder: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    ran = cli("train", "--config", recipe, "--data", folder, "-o", tmp_path / "run", "--tensorboard", code=2)
    assert extra("tensorboard") in ran.err


def test_tensorboard_holds_the_losses_and_scores(cli: Cli, folder: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli("train", "--config", recipe, "--data", folder, "-o", out, "--tensorboard").code == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"psnr/loss/pixel", "psnr/lr", "psnr/validation/psnr", "psnr/steps_per_s"} <= tags
    final = events.Scalars("psnr/validation/psnr")[-1]
    info = load_generator(out / "micro.safetensors")[1]
    assert final.step == 40
    assert final.value == pytest.approx(info.scores["validation"]["psnr"], abs=1e-3)
    sheet = events.Images("psnr/samples")[-1]
    assert sheet.step == 40
    with (
        Image.open(out / "samples" / "psnr-000040.png") as file,
        Image.open(BytesIO(sheet.encoded_image_string)) as ours,
    ):
        assert np.array_equal(np.asarray(ours), np.asarray(file))
