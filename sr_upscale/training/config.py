"""A recipe: frozen and validated. `recipe_file` reads it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from sr_upscale.data.degradations import RealWorld
from sr_upscale.data.rendered import Rendered
from sr_upscale.errors import ModelError, UsageError
from sr_upscale.formatting import shortened
from sr_upscale.models.discriminator import DISCRIMINATORS
from sr_upscale.models.features import LAYERS
from sr_upscale.models.generator import GeneratorConfig
from sr_upscale.pretrained.architectures import ARCHITECTURES
from sr_upscale.training.losses import GAN_LOSSES, LATTICE_WINDOW, PIXEL_LOSSES


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """The network that is taught.

    Attributes:
        arch: Empty for our generator, or a network of others: a key of `pretrained.architectures.ARCHITECTURES`.
        options: Sizes of a network of others, by the keywords of its constructor; what is left out is as published.
        scale: Factor.
        num_feat, num_blocks, upsampler, block: Sizes, tail and blocks of our generator; see `GeneratorConfig`.
    """

    arch: str = ""
    options: Mapping[str, int] = field(default_factory=dict)
    scale: int = 4
    num_feat: int = 64
    num_blocks: int = 24
    upsampler: str = "pixelshuffle"
    block: str = "inception"

    @property
    def generator(self) -> GeneratorConfig:
        """Returns the configuration of our generator."""
        return GeneratorConfig(**{key: getattr(self, key) for key in GENERATOR_KEYS})


GENERATOR_KEYS = ("scale", "num_feat", "num_blocks", "upsampler", "block")
"""Keys of `ModelSection` that build our generator. Of these others share the first."""


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """How patches are made.

    Attributes:
        degradation: How LR is made: ``bicubic`` (MATLAB's), ``real`` (the section ``degradation``) or ``rendered`` (the
            section ``rendered``).
        lr_patch: Side of a training patch in LR pixels.
        batch_size: Patches a step, of all processes together.
        busy_share: Share of the patches (0 to 1) for which the busier of two random places is taken.
        smooth_share: Share of smooth patches (`data.patches.PatchSampler`), or of the crops for a teacher; 0 to 1.
        rendered_share: Share of the patches (0 to 1) that are cut from rendered pictures (``--rendered``). HR is their
            answer, whatever a teacher would say.
        clean_share: Share of the patches (0 to 1) that are cut from photographs, fresh at every step, and only reduced.
            HR is their answer, too. For stages with a teacher, whose crops are fixed.
        validation_count: Pictures held out of each training folder.
        workers: Processes that make batches ahead of the network; 0 makes them in between.
    """

    degradation: str = "bicubic"
    lr_patch: int = 32
    batch_size: int = 8
    busy_share: float = 1.0
    smooth_share: float = 0.0
    rendered_share: float = 0.0
    clean_share: float = 0.0
    validation_count: int = 16
    workers: int = 1


@dataclass(frozen=True, kw_only=True)
class TeacherSection:
    """A network whose answers to LR crops are a second truth beside HR (`training.teacher`).

    Attributes:
        model: Whatever ``-n`` takes: a name or a file, of any architecture. Empty: no teacher.
        crops: LR crops that it is asked about, of all folders together.
        crop: Side of a crop in LR pixels.
        context: LR pixels at each border of a crop that are left out of patches, as the answer there lacks context.
        ensemble: Whether its answer is the mean over eight turns (`models.ensemble`), at eight times the cost.
        bf16: Whether it computes in bfloat16 where the hardware does (`device.has_bf16`): about four times as fast on
            a CPU with AMX, a quarter of a level off. Too rough for teachers of PSNR.
        clean_hr: Whether HR takes the place of the answer where LR was only reduced: there is nothing to repair.
        own_colors: Whether an answer gets the low frequencies of its LR in place of its own, since some teachers darken
            and tint.
    """

    model: str = ""
    crops: int = 2000
    crop: int = 80
    context: int = 8
    ensemble: bool = False
    bf16: bool = False
    clean_hr: bool = False
    own_colors: bool = False


@dataclass(frozen=True, kw_only=True)
class StageSection:
    """One stage of optimisation: an optimiser, and a learning rate that follows steps or time.

    Attributes:
        steps: Length in optimiser steps; 0 means that only `max_time_s` ends it.
        max_time_s: Length in seconds of running time; 0 means that only `steps` ends it.
        optimizer: Optimiser of the generator: ``adam``, or ``muon``, which learns more in a step (`training.muon`). The
            discriminator has Adam.
        lr: Highest learning rate.
        schedule: ``cosine`` down to `lr_floor`, ``multistep``, ``constant``, or ``wsd``: constant until the last
            `decay_share` of the stage, then straight down to `lr_floor`. A run by the last can be extended before it
            decays; a copy of its folder, resumed with a shorter length, is a branch that decays.
        lr_floor: Share of `lr` that is left at the end of ``cosine`` and ``wsd``.
        decay_share: Share of the stage (0 to 1) in which ``wsd`` decays.
        milestones: Shares of the stage (0 to 1) after which ``multistep`` multiplies by `gamma`.
        gamma: Factor of `lr` at each of the `milestones`.
        warmup_steps: Steps of linear warm-up.
        betas: Adam's decay rates, of generator and discriminator.
        clip_norm: Largest norm of the generator's gradient.
        ema_decay: Decay of the averaged weights, which are the ones validated and published.
        pixel_loss: ``l1``, ``charbonnier``, or ``l2`` (what PSNR measures) for a last fine-tuning.
        pixel_weight: Weight of the pixel loss.
        sharpen_hr: Amount of `training.losses.unsharp_mask` on the HR that pixel and VGG19 losses see, in Real-ESRGAN
            0.5. The discriminator sees HR as it is.
        teacher_weight: Weight of the L1 distance to the answer of the recipe's `teacher`.
        teacher_perceptual_weight: Weight of the VGG19 loss towards that answer.
        teacher_texture_weight: Weight of `training.losses.texture_loss` towards it, on the same layers: its crispness,
            which losses that compare place by place blur where its detail cannot be foreseen.
        anchor_weight: Weight of the L1 distance to what the network answered before the run (`Recipe.init`), on patches
            that are not rendered.
        anchor_perceptual_weight: Weight of the VGG19 loss towards that.
        anchor_half_life_s: Seconds of the stage in which both of these weights fall to half; 0 leaves them as they are.
        fft_weight: Weight of the frequency loss; SAFMN takes 0.05.
        lattice_weight: Weight of the loss against a lattice of one and of two LR pixels. It compares with HR, or with
            the teacher's answer where a stage that listens to a teacher has no `pixel_weight`.
        color_weight: Weight of `training.losses.color_loss` towards HR. It holds the colours of a stage that learns its
            detail from a teacher or a discriminator.
        perceptual_weight: Weight of the VGG19 loss towards HR.
        perceptual_layers: Weight of each VGG19 layer, before activation.
        gan_weight: Weight of the generator's adversarial loss.
        gan_loss: ``relativistic`` (average), ``standard`` or ``lsgan``.
        gan_real: What the discriminator is shown as real: ``hr``, or ``teacher`` for the teacher's answers.
        gan_sees_lr: Whether the discriminator sees LR beside what it judges. So it can tell texture that LR hints at
            from texture that fills what is unsure.
        discriminator: ``vgg`` (one logit a picture) or ``unet`` (one a pixel, spectral norm).
        d_num_feat: Channels of the discriminator; the published size is 64.
        d_lr: Learning rate of the discriminator; 0 takes `lr`.
        shift: Most HR pixels that are cut off at the top and left of SR and HR, at random, for losses on features. So
            the strides of VGG19 and the discriminator do not lock to the tail's sub-pixels.
        feature_patch: Side in HR pixels of the random part of each patch that VGG19 and the discriminator look at, in
            place of `shift`. They cost more than the generator. 0: all of it.
        lr_patch, batch_size: In place of those of `data`, where not 0.
        accumulate: Parts of a batch that are computed one after the other, so that memory falls. The step is that of
            the whole batch. Not for what looks at the whole batch: ``relativistic`` and the ``vgg`` discriminator.
        validate_every_s: Seconds between validations.
        checkpoint_every_s: Seconds between checkpoints.
    """

    steps: int = 0
    max_time_s: float = 2700.0
    optimizer: str = "adam"
    lr: float = 1e-3
    schedule: str = "cosine"
    lr_floor: float = 0.01
    decay_share: float = 0.15
    milestones: tuple[float, ...] = (0.5, 0.75, 0.9)
    gamma: float = 0.5
    warmup_steps: int = 200
    betas: tuple[float, ...] = (0.9, 0.99)
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    pixel_loss: str = "l1"
    pixel_weight: float = 1.0
    sharpen_hr: float = 0.0
    teacher_weight: float = 0.0
    teacher_perceptual_weight: float = 0.0
    teacher_texture_weight: float = 0.0
    anchor_weight: float = 0.0
    anchor_perceptual_weight: float = 0.0
    anchor_half_life_s: float = 0.0
    fft_weight: float = 0.0
    lattice_weight: float = 0.0
    color_weight: float = 0.0
    perceptual_weight: float = 0.0
    perceptual_layers: Mapping[str, float] = field(default_factory=lambda: {"conv5_4": 1.0})
    gan_weight: float = 0.0
    gan_loss: str = "relativistic"
    gan_real: str = "hr"
    gan_sees_lr: bool = False
    discriminator: str = "vgg"
    d_num_feat: int = 64
    d_lr: float = 0.0
    shift: int = 0
    feature_patch: int = 0
    lr_patch: int = 0
    batch_size: int = 0
    accumulate: int = 1
    validate_every_s: float = 120.0
    checkpoint_every_s: float = 60.0


LOSS_WEIGHTS = tuple(each.name for each in dataclasses.fields(StageSection) if each.name.endswith("_weight"))
"""Keys of a stage that weigh its losses."""

NAME_CHARACTERS = 100
"""Most characters in the name of a recipe or stage, of which names of files are made."""

MOST = {"num_blocks": 1000, "num_feat": 4096}
"""Largest sizes of our generator in a recipe; more is a slip."""

CHOICES = {
    "optimizer": ("adam", "muon"),
    "schedule": ("cosine", "multistep", "constant", "wsd"),
    "pixel_loss": tuple(PIXEL_LOSSES),
    "gan_loss": tuple(GAN_LOSSES),
    "gan_real": ("hr", "teacher"),
    "discriminator": tuple(DISCRIMINATORS),
}
"""Words that a key of a stage may hold."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe.

    Attributes:
        name: Name of the weights that it makes, and of their files.
        description: What they are for.
        init: Weights to start from (a name or a file). Tensors of equal name and shape are taken over, so that another
            scale can serve. Blocks beyond theirs start by passing their input on. Empty: start at random.
        seed: Start of all random numbers.
        model, data, teacher: See `ModelSection`, `DataSection` and `TeacherSection`.
        degradation: The chains of ``data.degradation = "real"``.
        rendered: Those of ``data.degradation = "rendered"``, and of the patches of a `rendered_share`.
        stages: By name, in the order in which they run. Each starts from the averaged weights of the last.

    Raises:
        UsageError: A value is out of its range, or two do not go together; the key is named.
    """

    name: str
    description: str = ""
    init: str = ""
    seed: int = 0
    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    teacher: TeacherSection = field(default_factory=TeacherSection)
    degradation: RealWorld = field(default_factory=RealWorld)
    rendered: Rendered = field(default_factory=Rendered)
    stages: Mapping[str, StageSection] = field(default_factory=lambda: {"psnr": StageSection()})

    def __post_init__(self) -> None:
        for key, name in (("name", self.name), *(("stages", stage) for stage in self.stages)):
            if not _is_plain(name):
                raise UsageError(
                    f"recipe: {key}: the name {shortened(name)!r} leads to no file in the folder of the results; "
                    f"expected 1 to {NAME_CHARACTERS} characters without a folder"
                )
        if self.data.degradation not in ("bicubic", "real", "rendered"):
            self._refuse("data.degradation", self.data.degradation, "bicubic, real or rendered")
        for key in ("lr_patch", "batch_size"):
            self._positive(f"data.{key}", getattr(self.data, key))
        for key, value in (
            ("seed", self.seed),
            ("data.workers", self.data.workers),
            ("data.validation_count", self.data.validation_count),
        ):
            if value < 0:
                self._refuse(key, value, "0 or more")
        for key in ("crops", "crop"):
            self._positive(f"teacher.{key}", getattr(self.teacher, key))
        for key in ("busy_share", "smooth_share", "rendered_share", "clean_share"):
            if not 0 <= getattr(self.data, key) <= 1:
                self._refuse(f"data.{key}", getattr(self.data, key), "0 to 1")
        if self.data.rendered_share + self.data.clean_share > 1:
            together = self.data.rendered_share + self.data.clean_share
            self._refuse("data.rendered_share and data.clean_share", together, "at most 1 together")
        try:
            self.model.generator  # noqa: B018  its scales are those of every network
        except ModelError as error:
            raise UsageError(f"recipe {self.name}: model: {error}") from error
        for key, most in MOST.items():
            if getattr(self.model, key) > most:
                self._refuse(f"model.{key}", getattr(self.model, key), f"at most {most}")
        if self.model.arch and self.model.arch not in ARCHITECTURES:
            self._refuse("model.arch", self.model.arch, f"{', '.join(ARCHITECTURES)}, or '' for our generator")
        if self.model.options and not self.model.arch:
            self._refuse("model.options", dict(self.model.options), "a model.arch that takes them")
        for key, value in self.model.options.items():
            self._positive(f"model.options.{key}", value)
        if not self.stages:
            self._refuse("stages", "empty", "at least one section such as [stages.psnr]")
        for name, stage in self.stages.items():
            self._check_stage(f"stages.{name}", stage)

    def _check_stage(self, where: str, stage: StageSection) -> None:
        for key in ("lr", "clip_norm", "d_num_feat", "accumulate"):
            self._positive(f"{where}.{key}", getattr(stage, key))
        for key, words in CHOICES.items():
            if getattr(stage, key) not in words:
                self._refuse(f"{where}.{key}", getattr(stage, key), f"one of {', '.join(words)}")
        for key in (
            *LOSS_WEIGHTS,
            "sharpen_hr",
            "d_lr",
            "shift",
            "feature_patch",
            "lr_patch",
            "batch_size",
            "anchor_half_life_s",
        ):
            if not 0 <= getattr(stage, key) < math.inf:
                self._refuse(f"{where}.{key}", getattr(stage, key), "0 or more")
        if listens(stage) and not self.teacher.model:
            self._refuse("teacher.model", self.teacher.model, f"weights to learn from, as {where} listens to them")
        if anchored(stage) and not self.init:
            self._refuse("init", self.init, f"weights to start from, as {where} stays near them (anchor_weight)")
        least = self.patch_of(stage) + 2 * self.teacher.context
        if listens(stage) and self.teacher.crop < least:
            patches = f"patches of {self.patch_of(stage)} with a context of {self.teacher.context}"
            self._refuse("teacher.crop", self.teacher.crop, f"at least {least} for {patches}")
        if not any(getattr(stage, key) for key in LOSS_WEIGHTS):
            raise UsageError(f"recipe {self.name}: {where} has no loss; give it a pixel_weight")
        if unknown := [layer for layer in stage.perceptual_layers if layer not in LAYERS]:
            self._refuse(f"{where}.perceptual_layers", unknown[0], f"names such as {', '.join(list(LAYERS)[-2:])}")
        if len(stage.betas) != 2 or not all(0 <= beta < 1 for beta in stage.betas):
            self._refuse(f"{where}.betas", list(stage.betas), "two numbers from 0 to below 1")
        if not all(0 < milestone < 1 for milestone in stage.milestones):
            self._refuse(f"{where}.milestones", list(stage.milestones), "shares of the stage, between 0 and 1")
        if stage.steps <= 0 and stage.max_time_s <= 0:
            raise UsageError(f"recipe {self.name}: no end; give {where}.steps or .max_time_s (--steps, --max-time)")
        if stage.lattice_weight > 0 and self.patch_of(stage) < LATTICE_WINDOW:
            self._refuse("data.lr_patch", self.patch_of(stage), f"at least {LATTICE_WINDOW} with a lattice_weight")
        hr_patch = self.patch_of(stage) * self.model.scale
        if stage.feature_patch and (stage.feature_patch % 8 or stage.feature_patch > hr_patch):
            self._refuse(f"{where}.feature_patch", stage.feature_patch, f"a multiple of 8, at most {hr_patch}")
        if (
            stage.gan_weight > 0
            and not stage.feature_patch
            and (hr_patch - stage.shift < 16 or (hr_patch % 8 and not stage.shift))
        ):
            raise UsageError(
                f"recipe {self.name}: {where} judges patches of {hr_patch} HR pixels; "
                f"expected a multiple of 8, of at least {16 + stage.shift} (--patch)"
            )
        if stage.accumulate > 1:
            self._check_parts(where, stage)
        for key, value in (*vars(stage).items(), *stage.perceptual_layers.items()):
            if isinstance(value, float) and not math.isfinite(value):
                self._refuse(f"{where}.{key}", value, "a number")
        if not 0 <= stage.ema_decay < 1:
            self._refuse(f"{where}.ema_decay", stage.ema_decay, "0 to below 1")
        if not 0 < stage.decay_share <= 1:
            self._refuse(f"{where}.decay_share", stage.decay_share, "more than 0, at most 1")

    def _check_parts(self, where: str, stage: StageSection) -> None:
        """Refuses to split a batch that does not divide, or whose losses are not means of those of its parts."""
        if self.batch_of(stage) % stage.accumulate:
            self._refuse(f"{where}.accumulate", stage.accumulate, f"a divisor of the batch of {self.batch_of(stage)}")
        if stage.gan_weight > 0 and stage.gan_loss == "relativistic":
            expected = "1 with gan_loss relativistic, which compares with means over the batch; or standard or lsgan"
            self._refuse(f"{where}.accumulate", stage.accumulate, expected)
        if stage.gan_weight > 0 and stage.discriminator == "vgg":
            expected = "1 with the vgg discriminator, whose batch norms see the whole batch; or discriminator unet"
            self._refuse(f"{where}.accumulate", stage.accumulate, expected)

    def _positive(self, key: str, value: float) -> None:
        if not 0 < value < math.inf:  # also refuses NaN
            self._refuse(key, value, "more than 0")

    def _refuse(self, key: str, value: object, expected: str) -> NoReturn:
        raise UsageError(f"recipe {self.name}: {key} is {value!r}; expected {expected}")

    @property
    def family(self) -> RealWorld | Rendered | None:
        """Returns the chains that make LR; None for MATLAB's bicubic."""
        if self.data.degradation == "bicubic":
            return None
        return self.degradation if self.data.degradation == "real" else self.rendered

    @property
    def has_teacher(self) -> bool:
        """Says whether a stage learns from the teacher."""
        return any(listens(stage) for stage in self.stages.values())

    @property
    def needs_features(self) -> bool:
        """Says whether a stage wants VGG19."""
        return any(looks_at_features(stage) for stage in self.stages.values())

    def patch_of(self, stage: StageSection) -> int:
        """Returns the side of a stage's patches in LR pixels."""
        return stage.lr_patch or self.data.lr_patch

    def batch_of(self, stage: StageSection) -> int:
        """Returns the number of patches in a step of a stage, of all processes together."""
        return stage.batch_size or self.data.batch_size


def _is_plain(name: str) -> bool:
    """Says whether files can be called so: what comes from others must not lead out of the folder of the results."""
    return (
        0 < len(name) <= NAME_CHARACTERS
        and name.isprintable()
        and name[0] != "."
        and not any(c in "/\\:" for c in name)
    )


def listens(stage: StageSection) -> bool:
    """Says whether a stage learns from the teacher."""
    weights = stage.teacher_weight + stage.teacher_perceptual_weight + stage.teacher_texture_weight
    return weights > 0 or stage.gan_real == "teacher"


def anchored(stage: StageSection) -> bool:
    """Says whether a stage stays near the network that the run started from."""
    return stage.anchor_weight + stage.anchor_perceptual_weight > 0


def looks_at_features(stage: StageSection) -> bool:
    """Says whether a loss of a stage compares VGG19 features."""
    taught = stage.teacher_perceptual_weight + stage.teacher_texture_weight
    return stage.perceptual_weight + taught + stage.anchor_perceptual_weight > 0
