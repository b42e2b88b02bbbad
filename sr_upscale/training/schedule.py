"""How far a stage is, and its learning rate there."""

from __future__ import annotations

import math

from sr_upscale.training.config import StageSection
from sr_upscale.training.state import TrainState


def set_lr(stage: StageSection, state: TrainState, lr: float) -> None:
    """Sets the learning rate of both optimisers to the generator's. The discriminator's keeps its ratio to it.

    Args:
        stage: Gives the ratio, `d_lr` / `lr`.
        state: Its optimisers are changed in place.
        lr: The generator's learning rate.
    """
    for group in state.g_optimizer.param_groups:
        group["lr"] = lr
    if state.d_optimizer is not None:
        for group in state.d_optimizer.param_groups:
            group["lr"] = lr * (stage.d_lr / stage.lr if stage.d_lr else 1.0)


def fraction_done(stage: StageSection, state: TrainState) -> float:
    """Returns the share of the stage (0 to 1) that lies behind, by steps or by time, whichever is nearer to its end."""
    by_steps = state.step / stage.steps if stage.steps > 0 else 0.0
    by_time = state.elapsed_s / stage.max_time_s if stage.max_time_s > 0 else 0.0
    return min(1.0, max(by_steps, by_time))


def stage_lr(stage: StageSection, step: int, fraction: float) -> float:
    """Computes the generator's learning rate: linear warm-up times the stage's schedule.

    Args:
        stage: Gives the schedule.
        step: Steps of the stage that are done.
        fraction: Share of the stage (0 to 1) that lies behind.
    """
    warmup = min(1.0, (step + 1) / stage.warmup_steps) if stage.warmup_steps > 0 else 1.0
    if stage.schedule == "cosine":
        left = stage.lr_floor + (1 - stage.lr_floor) * 0.5 * (1 + math.cos(math.pi * fraction))
    elif stage.schedule == "multistep":
        left = stage.gamma ** sum(fraction >= milestone for milestone in stage.milestones)
    elif stage.schedule == "wsd":
        left = stage.lr_floor + (1 - stage.lr_floor) * min(1.0, (1 - fraction) / stage.decay_share)
    else:
        left = 1.0
    return stage.lr * warmup * left
