"""What a run is, what it reports, and what it leaves: scores, the weights so far, the best of them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sr_upscale.models.features import DISTANCE_LAYER, VGG19Features
from sr_upscale.pretrained.architectures import save_network
from sr_upscale.pretrained.weights_file import WeightsInfo
from sr_upscale.training.config import Recipe, StageSection
from sr_upscale.training.parallel import World
from sr_upscale.training.sources import Pictures
from sr_upscale.training.state import TrainState
from sr_upscale.training.validation import Scores, sample_sheet, validate


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


def validate_and_keep(run: Run, state: TrainState) -> Scores | None:
    """Scores the averaged weights and writes them, with a sheet to look at. Only the leading process does.

    Returns:
        The scores; None where nothing is held out, or in another process.
    """
    if not run.leads:
        return None
    recipe = run.recipe
    name, stage = list(recipe.stages.items())[state.stage]
    features = run.features if run.features is not None and DISTANCE_LAYER in run.features.layers else None
    scores = validate(state.ema, run.pictures.held_out, features=features) if run.pictures.held_out else None
    info = info_of(run, state, scores)
    arch = recipe.model.arch
    save_network(run.out / f"{recipe.name}.safetensors", state.ema, info, arch=arch)
    if scores is not None:
        sample_sheet(state.ema, run.pictures.held_out, run.out / sheet_of(name, state.step))
        value = _rank(stage, scores)
        if state.best is None or value < state.best:
            state.best = value
            save_network(run.out / f"{recipe.name}-best.safetensors", state.ema, info, arch=arch)
    return scores


def save_so_far(run: Run, state: TrainState) -> None:
    """Writes the averaged weights without scoring them, where a run is stopped."""
    path = run.out / f"{run.recipe.name}.safetensors"
    save_network(path, state.ema, info_of(run, state, None), arch=run.recipe.model.arch)


def sheet_of(stage: str, step: int) -> str:
    """Returns where the sample sheet of a validation lies, below the run's folder."""
    return f"samples/{stage}-{step:06d}.png"


def info_of(run: Run, state: TrainState, scores: Scores | None) -> WeightsInfo:
    """Builds the header of the weights so far.

    Args:
        run: The run.
        state: Where it stands.
        scores: Scores of these weights; None where there are none.
    """
    recipe, name = run.recipe, list(run.recipe.stages)[state.stage]
    measured = {key: round(value, 4) for key, value in asdict(scores).items() if value is not None} if scores else {}
    return WeightsInfo(
        name=recipe.name,
        description=recipe.description,
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        recipe={
            **asdict(recipe),
            "stages_done": [*state.history, {"stage": name, "steps": state.step, "seconds": round(state.elapsed_s)}],
        },
        scores={"validation": {**measured, "pictures": len(run.pictures.held_out)}} if measured else {},
    )


def _rank(stage: StageSection, scores: Scores) -> float:
    """Returns what a stage is judged by, smaller is better: how near it is to its teacher, how it looks, or PSNR."""
    if stage.teacher_perceptual_weight > 0 and scores.teacher_distance is not None:
        return scores.teacher_distance
    if stage.teacher_weight > stage.pixel_weight and scores.teacher_l1 is not None:
        return scores.teacher_l1
    looks = stage.perceptual_weight > 0 or stage.gan_weight > 0
    return scores.distance if looks and scores.distance is not None else -scores.psnr
