"""A recipe: frozen and validated. `recipe_file` reads it."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn

from sr_upscale.data.degradations import RealWorld
from sr_upscale.data.rendered import Rendered
from sr_upscale.errors import ModelError, UsageError
from sr_upscale.formatting import shortened
from sr_upscale.models.discriminator import DISCRIMINATORS
from sr_upscale.models.features import LAYERS
from sr_upscale.models.generator import GeneratorConfig
from sr_upscale.pretrained.spandrel_adapter import ARCHITECTURES
from sr_upscale.training.losses import GAN_LOSSES, LATTICE_WINDOW, PIXEL_LOSSES


@dataclass(frozen=True)
class Range:
    """Finite numbers that a key may hold.

    Attributes:
        lowest, highest: Limits.
        expected: The range as errors put it.
        open_low, open_high: Whether the limit itself is left out.
    """

    lowest: float
    highest: float
    expected: str
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        low = value > self.lowest if self.open_low else value >= self.lowest
        high = value < self.highest if self.open_high or math.isinf(self.highest) else value <= self.highest
        return low and high  # NaN fails both


@dataclass(frozen=True)
class OneOf:
    """Strings that a key may hold."""

    names: tuple[str, ...]

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.names)}"

    def __contains__(self, value: str) -> bool:
        return value in self.names


ABOVE_ZERO = Range(0, math.inf, "more than 0", open_low=True)
FROM_ZERO = Range(0, math.inf, "0 or more")
SHARE = Range(0, 1, "0 to 1")

PositiveInt = Annotated[int, ABOVE_ZERO]
PositiveFloat = Annotated[float, ABOVE_ZERO]
Count = Annotated[int, FROM_ZERO]
Weight = Annotated[float, FROM_ZERO]
Share = Annotated[float, SHARE]
Decay = Annotated[float, Range(0, 1, "0 to below 1", open_high=True)]
PartShare = Annotated[float, Range(0, 1, "more than 0, at most 1", open_low=True)]
Finite = Annotated[float, Range(-math.inf, math.inf, "a number", open_low=True, open_high=True)]


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """The network that is taught.

    Attributes:
        arch: Empty for our generator, or a network of others: a key of `pretrained.spandrel_adapter.ARCHITECTURES`.
        options: Sizes of a network of others, by the keywords of its constructor; what is left out is as published.
        scale: Factor.
        num_feat, num_blocks, upsampler, block: Sizes, tail and blocks of our generator; see `GeneratorConfig`.
    """

    arch: str = ""
    options: Mapping[str, int] = field(default_factory=dict)
    scale: int = 4
    num_feat: Annotated[int, Range(-math.inf, 4096, "at most 4096")] = 64
    num_blocks: Annotated[int, Range(-math.inf, 1000, "at most 1000")] = 24
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

    degradation: Annotated[str, OneOf(("bicubic", "real", "rendered"))] = "bicubic"
    lr_patch: PositiveInt = 32
    batch_size: PositiveInt = 8
    busy_share: Share = 1.0
    smooth_share: Share = 0.0
    rendered_share: Share = 0.0
    clean_share: Share = 0.0
    validation_count: Count = 16
    workers: Count = 1


@dataclass(frozen=True, kw_only=True)
class TeacherSection:
    """A network whose answers to LR crops are a second truth beside HR (`training.teacher`).

    Attributes:
        model: Whatever ``-n`` takes: a name or a file, of any architecture. Empty: no teacher.
        crops: LR crops that it is asked about, of all folders together.
        crop: Side of a crop in LR pixels.
        context: LR pixels at each border of a crop that are left out of patches, as the answer there lacks context.
        ensemble: Whether its answer is the mean over eight turns (`planes.self_ensemble`), at eight times the cost.
        bf16: Whether it computes in bfloat16 where the hardware does (`device.has_bf16`): about four times as fast on
            a CPU with AMX, a quarter of a level off. Too rough for teachers of PSNR.
        clean_hr: Whether HR takes the place of the answer where LR was only reduced: there is nothing to repair.
        own_colors: Whether an answer gets the mean colour of its LR in place of its own, since some teachers darken and
            tint.
    """

    model: str = ""
    crops: PositiveInt = 2000
    crop: PositiveInt = 80
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
        frozen: Patterns, as of file names, of the generator's parameters that stay as they are:
            ``blocks.[0-9].second.*``.
        ema_decay: Decay of the averaged weights, which are the ones validated and published.
        pixel_loss: ``l1``, ``charbonnier``, ``l2`` (what PSNR measures), or ``strokes`` (L2 for text).
        pixel_weight: Weight of the pixel loss.
        sharpen_hr: Amount of `training.losses.unsharp_mask` on the HR that pixel and VGG19 losses see, in Real-ESRGAN
            0.5. The discriminator sees HR as it is.
        soften_hr: Blur of the HR that these losses see, in LR pixels (a Gaussian): OCR reads soft edges with fewer
            errors than hard ones.
        teacher_weight: Weight of the L1 distance to the answer of the recipe's `teacher`.
        teacher_perceptual_weight: Weight of the VGG19 loss towards that answer.
        teacher_texture_weight: Weight of `training.losses.texture_loss` towards it, on the same layers: its crispness,
            which losses that compare place by place blur where its detail cannot be foreseen.
        start_share: Share of what the network answered before the run (`Recipe.init`) in the teacher's answer, on
            patches that are not rendered. The start's detail is certain and keeps its contrast.
        sharpen_teacher: Share of the difference to their blurred selves that is added to all answers, at
            `step.FINE_SIGMA` and then `step.COARSE_SIGMA`. It gives in advance the contrast that a student loses where
            it averages over answers. Rendered patches get `step.RENDERED_SHARE` of it. The result is not clamped.
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
        gan_sees_lr: Whether the discriminator sees LR beside the picture, to distinguish texture that LR hints at
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
    max_time_s: Finite = 2700.0
    optimizer: Annotated[str, OneOf(("adam", "muon"))] = "adam"
    lr: PositiveFloat = 1e-3
    schedule: Annotated[str, OneOf(("cosine", "multistep", "constant", "wsd"))] = "cosine"
    lr_floor: Finite = 0.01
    decay_share: PartShare = 0.15
    milestones: tuple[float, ...] = (0.5, 0.75, 0.9)
    gamma: Finite = 0.5
    warmup_steps: int = 200
    betas: tuple[float, ...] = (0.9, 0.99)
    clip_norm: PositiveFloat = 1.0
    frozen: tuple[str, ...] = ()
    ema_decay: Decay = 0.999
    pixel_loss: Annotated[str, OneOf(tuple(PIXEL_LOSSES))] = "l1"
    pixel_weight: Weight = 1.0
    sharpen_hr: Weight = 0.0
    soften_hr: Weight = 0.0
    teacher_weight: Weight = 0.0
    teacher_perceptual_weight: Weight = 0.0
    teacher_texture_weight: Weight = 0.0
    start_share: Share = 0.0
    sharpen_teacher: Weight = 0.0
    fft_weight: Weight = 0.0
    lattice_weight: Weight = 0.0
    color_weight: Weight = 0.0
    perceptual_weight: Weight = 0.0
    perceptual_layers: Mapping[str, float] = field(default_factory=lambda: {"conv5_4": 1.0})
    gan_weight: Weight = 0.0
    gan_loss: Annotated[str, OneOf(tuple(GAN_LOSSES))] = "relativistic"
    gan_real: Annotated[str, OneOf(("hr", "teacher"))] = "hr"
    gan_sees_lr: bool = False
    discriminator: Annotated[str, OneOf(tuple(DISCRIMINATORS))] = "vgg"
    d_num_feat: PositiveInt = 64
    d_lr: Weight = 0.0
    shift: Count = 0
    feature_patch: Count = 0
    lr_patch: Count = 0
    batch_size: Count = 0
    accumulate: PositiveInt = 1
    validate_every_s: Finite = 120.0
    checkpoint_every_s: Finite = 60.0


LOSS_WEIGHTS = tuple(each.name for each in dataclasses.fields(StageSection) if each.name.endswith("_weight"))
"""Keys of a stage that weigh its losses."""

NAME_CHARACTERS = 100
"""Most characters in the name of a recipe or stage, of which names of files are made."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe.

    Attributes:
        name: Name of the weights that it makes, and of their files.
        description: What they are for.
        init: Weights to start from (a name or a file). Tensors of equal name and shape are taken over, so that another
            scale can serve. Blocks beyond theirs start by passing their input on. Empty: start at random.
        seed: Random seed.
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
    seed: Count = 0
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
        for prefix, section in self._sections():
            self._check_ranges(prefix, section)
        if self.data.rendered_share + self.data.clean_share > 1:
            together = self.data.rendered_share + self.data.clean_share
            self._refuse("data.rendered_share and data.clean_share", together, "at most 1 together")
        try:
            self.model.generator  # noqa: B018  its scales are those of every network
        except ModelError as error:
            raise UsageError(f"recipe {self.name}: model: {error}") from error
        if self.model.arch and self.model.arch not in ARCHITECTURES:
            self._refuse("model.arch", self.model.arch, f"{', '.join(ARCHITECTURES)}, or '' for our generator")
        if self.model.options and not self.model.arch:
            self._refuse("model.options", dict(self.model.options), "a model.arch that takes them")
        for key, value in self.model.options.items():
            self._check_range(f"model.options.{key}", value, ABOVE_ZERO)
        if not self.stages:
            self._refuse("stages", "empty", "at least one section such as [stages.psnr]")
        for name, stage in self.stages.items():
            self._check_stage(f"stages.{name}", stage)

    def _sections(self) -> Iterator[tuple[str, Any]]:
        """Yields the sections whose fields have ranges, each with the prefix of its keys; first the recipe itself."""
        yield "", self
        yield from (("model.", self.model), ("data.", self.data), ("teacher.", self.teacher))
        yield from ((f"stages.{name}.", stage) for name, stage in self.stages.items())

    def _check_ranges(self, prefix: str, section: Any) -> None:
        for name, kind in typing.get_type_hints(type(section), include_extras=True).items():
            for allowed in getattr(kind, "__metadata__", ()):
                self._check_range(f"{prefix}{name}", getattr(section, name), allowed)

    def _check_range(self, key: str, value: Any, allowed: Range | OneOf) -> None:
        if value not in allowed:
            self._refuse(key, value, allowed.expected)

    def _check_stage(self, where: str, stage: StageSection) -> None:
        """Refuses values of a stage that do not go together, with each other or with the rest of the recipe."""
        if not any(getattr(stage, key) for key in LOSS_WEIGHTS):
            raise UsageError(f"recipe {self.name}: {where} has no loss; give it a pixel_weight")
        if stage.steps <= 0 and stage.max_time_s <= 0:
            raise UsageError(f"recipe {self.name}: no end; give {where}.steps or .max_time_s (--steps, --max-time)")
        for layer, weight in stage.perceptual_layers.items():
            if layer not in LAYERS:
                self._refuse(f"{where}.perceptual_layers", layer, f"names such as {', '.join(list(LAYERS)[-2:])}")
            if not math.isfinite(weight):
                self._refuse(f"{where}.{layer}", weight, "a number")
        if len(stage.betas) != 2 or not all(0 <= beta < 1 for beta in stage.betas):
            self._refuse(f"{where}.betas", list(stage.betas), "two numbers from 0 to below 1")
        if not all(0 < milestone < 1 for milestone in stage.milestones):
            self._refuse(f"{where}.milestones", list(stage.milestones), "shares of the stage, between 0 and 1")
        self._check_sources(where, stage)
        self._check_patches(where, stage)
        if stage.accumulate > 1:
            self._check_parts(where, stage)

    def _check_sources(self, where: str, stage: StageSection) -> None:
        """Refuses a stage that learns from a teacher or a start that the recipe does not name."""
        if listens(stage) and not self.teacher.model:
            self._refuse("teacher.model", self.teacher.model, f"weights to learn from, as {where} listens to them")
        if stage.start_share and not self.init:
            self._refuse(
                "init", self.init, f"weights to start from, as {where} learns from what they answer (start_share)"
            )
        least = self.patch_of(stage) + 2 * self.teacher.context
        if listens(stage) and self.teacher.crop < least:
            patches = f"patches of {self.patch_of(stage)} with a context of {self.teacher.context}"
            self._refuse("teacher.crop", self.teacher.crop, f"at least {least} for {patches}")

    def _check_patches(self, where: str, stage: StageSection) -> None:
        """Refuses patches that are too small for a loss, or that do not divide as it needs them."""
        if stage.lattice_weight > 0 and self.patch_of(stage) < LATTICE_WINDOW:
            self._refuse("data.lr_patch", self.patch_of(stage), f"at least {LATTICE_WINDOW} with a lattice_weight")
        hr_patch = self.patch_of(stage) * self.model.scale
        if stage.feature_patch:
            if stage.feature_patch % 8 or stage.feature_patch > hr_patch:
                self._refuse(f"{where}.feature_patch", stage.feature_patch, f"a multiple of 8, at most {hr_patch}")
        elif stage.gan_weight > 0 and (hr_patch - stage.shift < 16 or (hr_patch % 8 and not stage.shift)):
            raise UsageError(
                f"recipe {self.name}: {where} has patches of {hr_patch} HR pixels for its discriminator; "
                f"expected a multiple of 8, of at least {16 + stage.shift} (--patch)"
            )

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


def looks_at_features(stage: StageSection) -> bool:
    """Says whether a loss of a stage compares VGG19 features."""
    taught = stage.teacher_perceptual_weight + stage.teacher_texture_weight
    return stage.perceptual_weight + taught > 0
