"""One optimiser step: the generator's losses, then the discriminator's, then the average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import EllipsisType
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.data.patches import Batch
from sr_upscale.models.discriminator import beside
from sr_upscale.models.features import VGG19Features
from sr_upscale.training.config import StageSection, listens, looks_at_features
from sr_upscale.training.losses import (
    GAN_LOSSES,
    PIXEL_LOSSES,
    color_loss,
    fft_loss,
    gaussian_blur,
    lattice_losses,
    perceptual_loss,
    texture_loss,
    unsharp_mask,
)
from sr_upscale.training.parallel import World
from sr_upscale.training.state import TrainState

T = TypeVar("T")

FINE_SIGMA, COARSE_SIGMA = 2.0, 8.0
"""HR pixels: how far a pixel's surroundings reach when a teacher's answers are sharpened; the latter as Real-ESRGAN
sharpens HR."""

RENDERED_SHARE = 0.5
"""How much of that sharpening rendered patches get, whose HR has no soft edges: more leaves dark outlines."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What steps need and do not change.

    Attributes:
        world: The processes.
        dtype: Number type of autocast; float32 turns it off.
        features: VGG19, where a loss wants it.
        forward: The generator's forward pass, compiled or not.
        start: The network that the run started from, for stages that stay near it.
    """

    world: World
    dtype: torch.dtype
    features: VGG19Features | None
    forward: nn.Module
    start: nn.Module | None = None


class NotFinite(Exception):
    """A loss or a gradient was infinite or not a number. The network that it belongs to was not changed."""


def train_step(stage: StageSection, state: TrainState, batch: Batch, tools: Tools, *, seed: int) -> dict[str, float]:
    """Takes one step of the generator and of the discriminator, and moves the average.

    Args:
        stage: Losses and their weights.
        state: Changed in place. A network is left as it was where its loss or gradient is not finite.
        batch: This process's share. Its parts (`StageSection.accumulate`) are computed one after the other.
        tools: See `Tools`.
        seed: Seed of the random shift.

    Returns:
        Losses by name, unweighted: pixel, teacher, fft, lattice, color, perceptual, teacher_perceptual,
            teacher_texture, gan, d, and the mean logits d_real and d_fake, as far as the stage has
            them. ``loss`` is the generator's weighted sum.

    Raises:
        NotFinite: A loss or a gradient was infinite or not a number.
    """
    optimizers = [each for each in (state.g_optimizer, state.d_optimizer) if each is not None]
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    buffers = list(state.d.buffers()) if state.d is not None else []
    before = [buffer.clone() for buffer in buffers]
    found: list[dict[str, Tensor]] = []
    for part in parts_of(batch, stage.accumulate):
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)  # each part meets the same spectral norms
        found.append(_backward(stage, state, part, tools, seed))
    _finish(state.g, state.g_optimizer, state.g_scaler, tools.world, clip_norm=stage.clip_norm)
    if state.d is not None:
        try:
            _finish(state.d, _there(state.d_optimizer), state.d_scaler, tools.world, clip_norm=float("inf"))
        except NotFinite:  # neither of the two is changed
            if state.g_scaler.is_enabled():
                state.g_scaler.update()
            raise
        _step(state.d_optimizer, state.d_scaler)
    _step(state.g_optimizer, state.g_scaler)
    decay = min(stage.ema_decay, (1 + state.step) / (10 + state.step))  # follow quickly at the start
    torch._foreach_lerp_(list(state.ema.parameters()), list(state.g.parameters()), 1 - decay)
    return {name: sum(float(losses[name]) for losses in found) / len(found) for name in found[0]}


def parts_of(batch: Batch, count: int) -> list[Batch]:
    """Splits a batch into equal parts, in its order; the number of its patches is a multiple of `count`."""
    names = ("lr", "hr", "taught", "rendered")
    sides = (getattr(batch, name) for name in names)
    parts = zip(*((None,) * count if side is None else side.chunk(count) for side in sides), strict=True)
    return [Batch(made_s=batch.made_s / count, **dict(zip(names, part, strict=True))) for part in parts]


def _backward(stage: StageSection, state: TrainState, batch: Batch, tools: Tools, seed: int) -> dict[str, Tensor]:
    """Adds the gradients of a part of a batch to those of the networks. Returns its losses, by name."""
    device = state.device
    lr, hr = (_to_float(side, device) for side in (batch.lr, batch.hr))
    taught = _taught(stage, batch, lr, tools) if listens(stage) else None
    with _autocast(device, tools.dtype):
        sr = tools.forward(lr)
    sr = sr.float()
    scale = hr.shape[-1] // lr.shape[-1]
    target = gaussian_blur(hr, stage.soften_hr * scale) if stage.soften_hr else hr
    target = unsharp_mask(target, stage.sharpen_hr) if stage.sharpen_hr else target
    terms = _picture_terms(stage, sr, hr, target, taught, scale=scale)
    window = _window(stage, hr.shape[-1], seed)
    fake, real = sr[window], hr[window]
    answer = taught[window] if taught is not None else None
    if looks_at_features(stage):
        terms |= _feature_terms(stage, fake, target[window], answer, tools)
    if stage.gan_real == "teacher":
        real = _there(answer)
    if stage.gan_weight:
        seen = F.interpolate(lr, size=hr.shape[-2:], mode="bilinear")[window] if stage.gan_sees_lr else None
        terms["gan"] = (stage.gan_weight, _generator_gan(stage, state, beside(fake, seen), beside(real, seen), tools))
    loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
    losses = {name: value.detach() for name, (_weight, value) in terms.items()} | {"loss": loss.detach()}
    state.g_scaler.scale(loss / stage.accumulate).backward()  # type: ignore[no-untyped-call]
    if stage.gan_weight:
        losses |= _discriminator_losses(stage, state, beside(fake.detach(), seen), beside(real, seen), tools)
    return losses


@torch.no_grad()
def _taught(stage: StageSection, batch: Batch, lr: Tensor, tools: Tools) -> Tensor:
    """Returns the teacher's answers as a stage wants them: mixed with the start's, and sharpened."""
    taught = _to_float(_there(batch.taught), lr.device)
    photographs = ~batch.rendered.to(lr.device) if batch.rendered is not None else torch.ones(len(lr), dtype=torch.bool)
    if stage.start_share and photographs.any():
        with _autocast(lr.device, tools.dtype):
            start = _there(tools.start)(lr[photographs].contiguous(memory_format=torch.channels_last)).float()
        taught[photographs] = taught[photographs].lerp(start.clamp(0, 1), stage.start_share)
    amounts = stage.sharpen_teacher * torch.where(photographs, 1.0, RENDERED_SHARE)
    for sigma in (FINE_SIGMA, COARSE_SIGMA) if stage.sharpen_teacher else ():
        taught = taught + amounts[:, None, None, None] * (taught - gaussian_blur(taught, sigma))
    return taught


def _picture_terms(
    stage: StageSection,
    sr: Tensor,
    hr: Tensor,
    target: Tensor,
    taught: Tensor | None,
    *,
    scale: int,
) -> dict[str, tuple[float, Tensor]]:
    """Computes the losses that compare pictures, as far as the stage has them: weight and value by name."""
    terms = {}
    if stage.pixel_weight:
        terms["pixel"] = (stage.pixel_weight, PIXEL_LOSSES[stage.pixel_loss](sr, target))
    if stage.teacher_weight:
        terms["teacher"] = (stage.teacher_weight, F.l1_loss(sr, _there(taught)))
    if stage.fft_weight:
        terms["fft"] = (stage.fft_weight, fft_loss(sr, target))
    if stage.lattice_weight:
        truth = target if taught is None or stage.pixel_weight else taught
        terms["lattice"] = (stage.lattice_weight, lattice_losses(sr, truth, scale))
    if stage.color_weight:
        terms["color"] = (stage.color_weight, color_loss(sr, hr, scale))
    return terms


def _feature_terms(
    stage: StageSection,
    fake: Tensor,
    real: Tensor,
    answer: Tensor | None,
    tools: Tools,
) -> dict[str, tuple[float, Tensor]]:
    """Computes the losses on features, towards HR and the teacher's answer, as far as the stage has them."""
    assert tools.features is not None  # the loop reads VGG19 for every stage with such a loss
    layers = {layer: weight for layer, weight in stage.perceptual_layers.items() if layer in tools.features.layers}
    terms = {}
    with _autocast(fake.device, tools.dtype):
        ours = tools.features(fake)
        for name, weight, texture, truth in (
            ("perceptual", stage.perceptual_weight, 0.0, real),
            ("teacher_perceptual", stage.teacher_perceptual_weight, stage.teacher_texture_weight, answer),
        ):
            if not weight and not texture:
                continue
            with torch.no_grad():
                theirs = tools.features(_there(truth))
            if weight:
                terms[name] = (weight, perceptual_loss(ours, theirs, layers))
            if texture:
                terms["teacher_texture"] = (texture, texture_loss(ours, theirs, layers))
    return terms


def _there(value: T | None) -> T:
    assert value is not None  # the loop asks the teacher, and builds a discriminator, for every stage that wants them
    return value


def _generator_gan(stage: StageSection, state: TrainState, fake: Tensor, real: Tensor, tools: Tools) -> Tensor:
    assert state.d is not None
    state.d.requires_grad_(False)
    with _autocast(fake.device, tools.dtype):
        fake_logits = state.d(fake)
        with torch.no_grad():
            real_logits = state.d(real)
    return GAN_LOSSES[stage.gan_loss].generator(real_logits.float(), fake_logits.float(), tools.world.mean)


def _discriminator_losses(
    stage: StageSection, state: TrainState, fake: Tensor, real: Tensor, tools: Tools
) -> dict[str, Tensor]:
    assert state.d is not None
    state.d.requires_grad_(True)
    with _autocast(fake.device, tools.dtype):
        real_logits, fake_logits = state.d(real).float(), state.d(fake).float()
    loss = GAN_LOSSES[stage.gan_loss].discriminator(real_logits, fake_logits, tools.world.mean)
    state.d_scaler.scale(loss / stage.accumulate).backward()  # type: ignore[no-untyped-call]
    means = {"d_real": real_logits.mean(), "d_fake": fake_logits.mean()}
    return {"d": loss.detach()} | {name: value.detach() for name, value in means.items()}


def _finish(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    world: World,
    *,
    clip_norm: float,
) -> None:
    """Averages the gradient over all processes, and clips it.

    Raises:
        NotFinite: The gradient is infinite or not a number, and no scaling of losses explains it.
    """
    world.average_gradients(model.parameters())
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    finite = bool(torch.isfinite(norm))
    if not finite and (not scaler.is_enabled() or scaler.get_scale() < 1):
        if scaler.is_enabled():
            scaler.update()
        raise NotFinite


def _step(optimizer: torch.optim.Optimizer | None, scaler: torch.amp.GradScaler) -> None:
    assert optimizer is not None
    scaler.step(optimizer)  # with scaling at work, leaves out a step that overflowed
    scaler.update()


def _to_float(patches: Tensor, device: torch.device) -> Tensor:
    on_device = patches.to(device, non_blocking=True)
    return on_device.float().div_(255).contiguous(memory_format=torch.channels_last)


def _window(stage: StageSection, side: int, seed: int) -> tuple[EllipsisType | slice, ...]:
    """Chooses the part of patches of `side` HR pixels that losses on features see.

    It is random, and its side a multiple of 8, as U-Nets need. Without `shift` and `feature_patch` it is all.
    """
    size = stage.feature_patch or (side - stage.shift) // 8 * 8
    slack = side - size if stage.feature_patch else stage.shift
    if not slack:
        return (...,)
    top, left = (int(start) for start in np.random.default_rng(seed).integers(slack + 1, size=2))
    return ..., slice(top, top + size), slice(left, left + size)


@contextmanager
def _autocast(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    with nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype):
        yield
