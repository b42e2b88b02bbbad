"""What a run is, for all of its stages, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sr_upscale.models.features import VGG19Features
from sr_upscale.training.config import Recipe
from sr_upscale.training.parallel import World
from sr_upscale.training.sources import Pictures
from sr_upscale.training.validation import Scores


class Resume(Enum):
    """Whether a run goes on from a checkpoint: never, always, or where there is one."""

    NO = "no"
    YES = "yes"
    AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One line of the log: what a caller may show.

    Attributes:
        stage: Name of the stage.
        step, elapsed_s, fraction: How far the stage is, in steps, in seconds, and as a share (0 to 1).
        total_fraction: How far the run is, as a share (0 to 1).
        losses: Means since the last line, by name (`step.train_step`).
        lr: Learning rate.
        steps_per_s: Speed since the last line.
        network_share: Share of that time (0 to 1) that did not wait for batches.
        data_s: Seconds of CPU that a batch took to make.
        scores: A validation, where there was one.
        sheet: Its sample sheet, a path below the run's folder.
    """

    stage: str
    step: int
    elapsed_s: float
    fraction: float
    total_fraction: float
    losses: Mapping[str, float]
    lr: float
    steps_per_s: float
    network_share: float
    data_s: float
    scores: Scores | None = None
    sheet: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all stages share.

    Attributes:
        recipe: What to do.
        out: Folder of the run.
        pictures: What it learns from, and what it is validated on.
        world: The processes.
        dtype: Number type of autocast; float32 turns it off.
        compiled: Whether the generator runs through `torch.compile`.
        features: VGG19, where a loss or the validation wants it.
        start: The network that the run started from, where a stage stays near it.
        log: Writes an entry to the log.
        on_progress: Called about once a second and at every validation.
    """

    recipe: Recipe
    out: Path
    pictures: Pictures
    world: World
    dtype: torch.dtype
    compiled: bool
    features: VGG19Features | None
    start: nn.Module | None
    log: Callable[[Mapping[str, Any]], None]
    on_progress: Callable[[Progress], None]

    @property
    def leads(self) -> bool:
        """Says whether this process writes the files."""
        return self.world.rank == 0
