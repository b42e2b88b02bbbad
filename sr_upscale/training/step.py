"""One optimiser step: the generator's losses, then the discriminator's, then the average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.data import Batch
from sr_upscale.losses import GAN_LOSSES, PIXEL_LOSSES, fft_loss, lattice_loss, perceptual_loss
from sr_upscale.models.features import VGG19Features
from sr_upscale.training.config import StageSection
from sr_upscale.training.parallel import World
from sr_upscale.training.state import TrainState


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What steps need and do not change.

    Attributes:
        world: The processes.
        dtype: Of autocast; float32 turns it off.
        features: VGG19, where a loss wants it.
        forward: The generator's forward pass, compiled or not.
    """

    world: World
    dtype: torch.dtype
    features: VGG19Features | None
    forward: nn.Module


class NotFinite(Exception):
    """A loss or a gradient was infinite or not a number; nothing was changed."""


def train_step(stage: StageSection, state: TrainState, batch: Batch, tools: Tools, *, seed: int) -> dict[str, float]:
    """Changes the weights once.

    Args:
        stage: Losses and their weights.
        state: Changed in place, unless the step fails.
        batch: This process's share.
        tools: See there.
        seed: Of the random shift.

    Returns:
        Losses by name, unweighted: pixel, teacher, fft, lattice, perceptual, gan, d, and the mean logits d_real and
        d_fake, as far as the stage has them; ``loss`` is the generator's weighted sum.

    Raises:
        NotFinite: See there.
    """
    device = state.device
    lr, hr = (_to_float(side, device) for side in (batch.lr, batch.hr))
    with _autocast(device, tools.dtype):
        sr = tools.forward(lr)
    sr = sr.float()
    terms = {"pixel": (stage.pixel_weight, PIXEL_LOSSES[stage.pixel_loss](sr, hr))} if stage.pixel_weight else {}
    if stage.teacher_weight:
        assert batch.taught is not None  # the loop asks the teacher for every stage with this loss
        terms["teacher"] = (stage.teacher_weight, F.l1_loss(sr, _to_float(batch.taught, device)))
    if stage.fft_weight:
        terms["fft"] = (stage.fft_weight, fft_loss(sr, hr))
    if stage.lattice_weight:
        terms["lattice"] = (stage.lattice_weight, lattice_loss(sr, hr, hr.shape[-1] // lr.shape[-1]))
    top, left = np.random.default_rng(seed).integers(stage.shift + 1, size=2) if stage.shift else (0, 0)
    fake, real = (_cut(side, int(top), int(left), stage.shift) for side in (sr, hr))
    if stage.perceptual_weight:
        terms["perceptual"] = (stage.perceptual_weight, _perceptual(stage, fake, real, tools))
    if stage.gan_weight:
        terms["gan"] = (stage.gan_weight, _generator_gan(stage, state, fake, real, tools))
    loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
    losses = {name: value.detach() for name, (_weight, value) in terms.items()} | {"loss": loss.detach()}
    _descend(loss, state.g, state.g_optimizer, state.g_scaler, tools.world, clip_norm=stage.clip_norm)
    if stage.gan_weight:
        losses |= _teach_discriminator(stage, state, fake.detach(), real, tools)
    decay = min(stage.ema_decay, (1 + state.step) / (10 + state.step))  # follow quickly at the start
    torch._foreach_lerp_(list(state.ema.parameters()), list(state.g.parameters()), 1 - decay)
    return {name: float(value) for name, value in losses.items()}


def _perceptual(stage: StageSection, fake: Tensor, real: Tensor, tools: Tools) -> Tensor:
    assert tools.features is not None  # the loop reads VGG19 for every stage with this loss
    with _autocast(fake.device, tools.dtype):
        ours = tools.features(fake)
        with torch.no_grad():
            theirs = tools.features(real)
    layers = {layer: weight for layer, weight in stage.perceptual_layers.items() if layer in tools.features.layers}
    return perceptual_loss(ours, theirs, layers)


def _generator_gan(stage: StageSection, state: TrainState, fake: Tensor, real: Tensor, tools: Tools) -> Tensor:
    assert state.d is not None
    state.d.requires_grad_(False)
    with _autocast(fake.device, tools.dtype):
        fake_logits = state.d(fake)
        with torch.no_grad():
            real_logits = state.d(real)
    return GAN_LOSSES[stage.gan_loss].generator(real_logits.float(), fake_logits.float(), tools.world.mean)


def _teach_discriminator(
    stage: StageSection, state: TrainState, fake: Tensor, real: Tensor, tools: Tools
) -> dict[str, Tensor]:
    assert state.d is not None
    assert state.d_optimizer is not None
    state.d.requires_grad_(True)
    with _autocast(fake.device, tools.dtype):
        real_logits, fake_logits = state.d(real).float(), state.d(fake).float()
    loss = GAN_LOSSES[stage.gan_loss].discriminator(real_logits, fake_logits, tools.world.mean)
    _descend(loss, state.d, state.d_optimizer, state.d_scaler, tools.world, clip_norm=float("inf"))
    means = {"d_real": real_logits.mean(), "d_fake": fake_logits.mean()}
    return {"d": loss.detach()} | {name: value.detach() for name, value in means.items()}


def _descend(
    loss: Tensor,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    world: World,
    *,
    clip_norm: float,
) -> None:
    """Backward, clip, step."""
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    world.average_gradients(model.parameters())
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    finite = bool(torch.isfinite(norm))
    if not finite and (not scaler.is_enabled() or scaler.get_scale() < 1):
        if scaler.is_enabled():
            scaler.update()
        raise NotFinite
    scaler.step(optimizer)  # with scaling at work, leaves out a step that overflowed
    scaler.update()


def _to_float(patches: Tensor, device: torch.device) -> Tensor:
    on_device = patches.to(device, non_blocking=True)
    return on_device.float().div_(255).contiguous(memory_format=torch.channels_last)


def _cut(image: Tensor, top: int, left: int, shift: int) -> Tensor:
    """The image from (top, left), the same size whatever they are: a multiple of 8, which the U-Net needs."""
    if not shift:
        return image
    height, width = ((side - shift) // 8 * 8 for side in image.shape[-2:])
    return image[..., top : top + height, left : left + width]


@contextmanager
def _autocast(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    with nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype):
        yield
