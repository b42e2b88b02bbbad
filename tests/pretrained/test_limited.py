"""Files of a few kilobytes whose names and shapes ask for huge networks: refused, without time or memory."""

from __future__ import annotations

import importlib
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sr_upscale.errors import ModelError
from sr_upscale.pretrained import safe_pickle
from sr_upscale.pretrained.safe_pickle import Limited
from sr_upscale.pretrained.spandrel_adapter import load_foreign

pytest.importorskip("spandrel")

TRANSFORMER = {"embed_dim": 16, "depths": (2,), "num_heads": (2,), "window_size": 8, "upscale": 2}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "Compact": ("Compact", {"num_feat": 8, "num_conv": 2}),
    "SPAN": ("SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8}),
    "ESRGAN": ("ESRGAN", {"num_filters": 8, "num_blocks": 1}),
    "PLKSR": ("PLKSR", {"dim": 16, "n_blocks": 2}),
    "RealPLKSR": ("PLKSR", {"dim": 16, "n_blocks": 2}),
    "SwinIR": ("SwinIR", {**TRANSFORMER, "upsampler": "pixelshuffledirect"}),
    "HAT": ("HAT", {**TRANSFORMER, "embed_dim": 60, "upsampler": "pixelshuffle"}),
    "ATD": ("ATD", {**TRANSFORMER, "upsampler": "pixelshuffledirect"}),
    "DAT": ("DAT", {"embed_dim": 16, "depth": [2], "num_heads": [2]}),
    "RGT": ("RGT", {"embed_dim": 16, "depth": [2], "num_heads": [2]}),
    "OmniSR": ("OmniSR", {"num_feat": 16}),
}
"""Modules of spandrel and the sizes of a small network."""
LIKE = ("RealPLKSR", "HAT", "ATD", "RGT", "OmniSR")
"""Whose files are read as those of the others; they take most of the time."""


def weights_of(name: str) -> dict[str, Tensor]:
    module, sizes = NETWORKS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = getattr(importlib.import_module(f"spandrel.architectures.{module}"), name)(**sizes)
    return {key: value.clone() for key, value in network.state_dict().items()}


def hostile(state: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields weights with a layer of a high number, one for each place of a number, and with a long first tensor."""
    seen = set()
    for key, value in state.items():
        for found in re.finditer(r"\d+", key):
            high = f"{key[: found.start()]}900{key[found.end() :]}"
            place = re.sub(r"\d+", "0", key[: found.start()])
            if place not in seen:
                yield high, {**state, high: value}
            seen.add(place)
    first = next(iter(state))
    for dimension in range(state[first].dim()):
        shape = list(state[first].shape)
        shape[dimension] = 40_000
        yield f"{first} {shape}", {**state, first: torch.zeros(shape)}


@pytest.mark.parametrize("name", [pytest.param(each, marks=[pytest.mark.slow] * (each in LIKE)) for each in NETWORKS])
def test_row_57_weights_that_ask_for_a_huge_network_are_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least three files of each architecture, with a limit that some of their networks go beyond."""
    monkeypatch.setattr(safe_pickle, "SPARE_BYTES", 64 << 20)
    path, state, tried = tmp_path / "huge.pth", weights_of(name), 0
    torch.save(state, path)
    assert load_foreign(path)[0].scale >= 1
    for what, weights in hostile(state):
        path = tmp_path / f"{tried}.pth"
        torch.save(weights, path)
        begin = time.process_time()
        with pytest.raises(ModelError, match=r"get the file again|get it again|expected"):
            load_foreign(path)
        assert time.process_time() - begin < 10, what
        tried += 1
    assert tried >= 3


def test_what_weights_can_fill_is_built() -> None:
    network = nn.Sequential(*(nn.Conv2d(32, 32, 3) for _ in range(20)))
    state = network.state_dict()
    with Limited(state, "name"):
        again = nn.Sequential(*(nn.Conv2d(32, 32, 3) for _ in range(20)))
        again.load_state_dict(state)
        torch.zeros(1).expand(1 << 30, 1 << 10)  # takes no memory
        assert torch.arange(5).sum().item() == 10
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize(
    "take",
    [
        lambda: torch.zeros(1 << 40, dtype=torch.uint8),
        lambda: nn.Linear(1 << 20, 1 << 20),
        lambda: torch.ones(1 << 20)[:, None] - torch.ones(1 << 20)[None],
        lambda: torch.ones(1).expand(1 << 20, 1 << 20).contiguous(),
        lambda: [torch.zeros(64 << 20, dtype=torch.uint8) for _ in range(1 << 20)],
    ],
    ids=["zeros", "layer", "difference", "copy", "many"],
)
def test_memory_is_refused_before_it_is_taken(take: Any) -> None:
    with pytest.raises(ModelError, match=r"^odd\.pth: .* more memory than its tensors"), Limited({}, "odd.pth"):
        take()


def test_very_many_layers_are_refused() -> None:
    with pytest.raises(ModelError, match=r"^odd\.pth: .* more layers"), Limited({}, "odd.pth"):
        nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(1_000_000)))
