"""Setup, fit, validate: a training run from pictures to a weights file that the command line can use."""

from __future__ import annotations

import datetime
import json
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sr_upscale.data.patches import (
    Batch,
    Pair,
    PatchSampler,
    batches,
    centre_of,
    find_pictures,
    load_pairs,
    split_validation,
)
from sr_upscale.errors import TrainingError, UsageError
from sr_upscale.functional.color import to_tensor
from sr_upscale.models.features import DISTANCE_LAYER, LAYERS, VGG19Features, layers_held, read_vgg19
from sr_upscale.pretrained.registry import resolve_weights
from sr_upscale.pretrained.weights_file import WeightsInfo, save_generator
from sr_upscale.storage.atomic import make_folder, replace_file
from sr_upscale.training.config import Recipe, StageSection
from sr_upscale.training.parallel import World
from sr_upscale.training.signals import Every, Interrupted, Signals, Stopwatch
from sr_upscale.training.state import (
    CHECKPOINT,
    TrainState,
    begin_stage,
    load_checkpoint,
    new_generator,
    over_processes,
    save_checkpoint,
)
from sr_upscale.training.step import NotFinite, Tools, train_step
from sr_upscale.training.teacher import Lessons, answered, lessons_of, teacher_scale
from sr_upscale.training.validation import Scores, degraded, sample_sheet, validate

__all__ = ["Interrupted", "Progress", "train"]

VALIDATION_SIDE = 512
"""HR pixels of a side of validation pictures at most: their middle; whole camera pictures would take longer than the
training."""

RESCALE_PICTURES, RESCALE_SIDE = 16, 256
"""Held-out pictures, and the middle of each, on which the layers of VGG19 get a mean activation of 1."""

MAX_BAD_STEPS = 10
"""Steps in a row whose loss or gradient may be non-finite before the run stops."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One line of the log: what a caller may show.

    Attributes:
        stage: Name of the stage.
        step, elapsed_s, fraction: How far the stage is.
        total_fraction: How far the run is.
        losses: Means since the last line, by name (`step.train_step`).
        lr: Learning rate.
        steps_per_s: Speed since the last line.
        network_share: Share of that time that did not wait for batches.
        data_s: Seconds of CPU that a batch took to make.
        scores: A validation, where there was one.
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


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What all stages share."""

    recipe: Recipe
    out: Path
    training: Sequence[Pair] | Lessons
    held_out: Sequence[Pair]
    world: World
    dtype: torch.dtype
    compiled: bool
    features: VGG19Features | None
    log: Callable[[Mapping[str, Any]], None]
    on_progress: Callable[[Progress], None]

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.world.rank == 0


def train(
    recipe: Recipe,
    *,
    data: Sequence[Path],
    out: Path,
    validation: Path | None = None,
    resume: bool = False,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
    vgg_weights: Path | None = None,
    cache: Path | None = None,
    world: World | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    on_asking: Callable[[int, int], None] = lambda _there, _wanted: None,
    on_warning: Callable[[str], None] = lambda _message: None,
) -> Path:
    """Trains a generator through the stages of a recipe and writes its weights.

    Args:
        recipe: What to do.
        data: Folders of pictures, searched recursively.
        out: Folder of the run: ``NAME.safetensors`` (averaged weights, usable from the first validation on),
            ``NAME-best.safetensors`` (the best of the last stage by validation), ``NAME-STAGE.safetensors`` (the end of
            each earlier stage), ``checkpoint.pt`` and the one before it, ``train.jsonl``, ``samples/``.
        validation: Folder of pictures to validate on; without it some of `data` are held out.
        resume: Go on from the newest checkpoint in `out` that can be read.
        device: Where to train; CPU by default.
        dtype: Of autocast: float32 (off), bfloat16, or float16 with loss scaling; weights and optimisers stay float32.
        compiled: Run the generator through `torch.compile`.
        vgg_weights: VGG19 in a file; without it torchvision's are used where the recipe needs VGG19.
        cache: Folder that keeps decoded pictures; without it they are held in memory.
        world: The processes that train together.
        on_progress: Called about once a second and at every validation.
        on_asking: Called with the crops that a teacher has answered and those wanted, after each.
        on_warning: Called with a sentence about anything that was left out or fell back.

    SIGTERM and SIGINT end the run at the next step, with a checkpoint (`Interrupted`). A stopped process
    (Ctrl-Z, SIGSTOP) does not spend its time budget. Both need the main thread.

    Returns:
        Path of the weights file.

    Raises:
        TrainingError: Data cannot be used, the loss stays non-finite, or there is nothing to resume.
        UsageError: The checkpoint was made by another recipe, or the batch does not divide among the processes.
        ModelError, NetworkError: VGG19 cannot be read or had.
        Interrupted: A signal arrived; the checkpoint is written.
    """
    device = device or torch.device("cpu")
    world = world or World()
    for stage in recipe.stages.values():
        world.check_batch(recipe.batch_of(stage))
    if not resume and (out / CHECKPOINT).exists():
        raise UsageError(f"{out} holds an unfinished run; add --resume to go on, or choose another --out")
    teacher = _teacher_of(recipe)
    make_folder(out)
    features = _features(recipe, vgg_weights, device, on_warning)
    folders, held_out = _load_data(recipe, data, validation, on_warning)
    decode = partial(load_pairs, cache=cache, on_warning=on_warning)
    training: list[Pair] | Lessons
    with world.first():  # it fills the cache
        if teacher is None:
            min_side = recipe.model.scale * max(recipe.patch_of(stage) for stage in recipe.stages.values())
            paths = [path for folder in folders for path in folder]
            training = decode(paths, scale=recipe.model.scale, min_side=min_side)
        else:
            held_out = answered(held_out, teacher, device=device, ensemble=recipe.teacher.ensemble)
            training = lessons_of(recipe, teacher, folders, cache or out, decode)
            training.ask(device=device, on_progress=on_asking)
    if features is not None:
        seen = held_out or (training.pairs() if isinstance(training, Lessons) else training)
        features.rescale([to_tensor(centre_of(pair, RESCALE_SIDE).hr, device) for pair in seen[:RESCALE_PICTURES]])
    options = {"device": device, "fp16": dtype is torch.float16}
    state = (
        load_checkpoint(out, recipe, on_warning=on_warning, **options)  # type: ignore[arg-type]
        if resume
        else begin_stage(recipe, 0, new_generator(recipe), **options)  # type: ignore[arg-type]
    )
    with (out / ("train.jsonl" if world.rank == 0 else f"train-{world.rank}.jsonl")).open("a", encoding="utf-8") as log:

        def write(entry: Mapping[str, Any]) -> None:
            log.write(json.dumps(entry) + "\n")
            log.flush()

        write({"recipe": asdict(recipe), "device": str(device), "dtype": str(dtype), "pictures": len(training)})
        run = _Run(
            recipe=recipe,
            out=out,
            training=training,
            held_out=held_out,
            world=world,
            dtype=dtype,
            compiled=compiled,
            features=features,
            log=write,
            on_progress=on_progress,
        )
        while True:
            over_processes(state, world)
            _fit(run, state)
            if state.stage + 1 == len(recipe.stages):
                break
            state = _next_stage(run, state, **options)  # type: ignore[arg-type]
        write({"step": state.total_steps, "elapsed_s": state.total_s, "finished": True})
    return out / f"{recipe.name}.safetensors"


# --- setup ------------------------------------------------------------------------------------------


def _features(
    recipe: Recipe, file: Path | None, device: torch.device, on_warning: Callable[[str], None]
) -> VGG19Features | None:
    """VGG19 with the layers that losses and validation look at, as far as the weights hold them."""
    if not recipe.needs_features and file is None:
        return None
    state = read_vgg19(file)
    held = layers_held(state)
    wanted = {DISTANCE_LAYER}
    for name, stage in recipe.stages.items():
        if stage.perceptual_weight + stage.teacher_perceptual_weight <= 0:
            continue
        layers = [layer for layer in LAYERS if layer in stage.perceptual_layers]
        missing = [layer for layer in layers if layer not in held]
        if len(missing) == len(layers):
            raise UsageError(
                f"{file}: holds VGG19 up to {held[-1]}, and stage {name} looks at {', '.join(layers)}; "
                f"give a whole VGG19, or layers with --set stages.{name}.perceptual_layers.{held[-1]}=1"
            )
        if missing:
            used = ", ".join(layer for layer in layers if layer in held)
            on_warning(f"VGG19 weights end at {held[-1]}: the perceptual loss uses {used} without {', '.join(missing)}")
        wanted |= set(layers)
    features = VGG19Features(state, [layer for layer in LAYERS if layer in wanted and layer in held])
    return features.to(device=device, memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def _load_data(
    recipe: Recipe, data: Sequence[Path], validation: Path | None, on_warning: Callable[[str], None]
) -> tuple[list[list[Path]], list[Pair]]:
    """Paths of the training pictures of each folder, and the pictures to validate on."""
    held_out_paths = find_pictures([validation]) if validation is not None else []
    seen = set(held_out_paths)
    folders = []
    for folder in data:
        paths = [path for path in find_pictures([folder]) if path not in seen]
        seen |= set(paths)
        if validation is None:
            paths, some = split_validation(paths, recipe.data.validation_count)
            held_out_paths += some
        folders.append(paths)
    scale = recipe.model.scale
    if not held_out_paths:
        on_warning("too few pictures to hold any out: there is no validation (give some with --val)")
        return folders, []
    held_out = load_pairs(held_out_paths, scale=scale, min_side=11 + 2 * scale, on_warning=on_warning)
    held_out = [centre_of(pair, VALIDATION_SIDE) for pair in held_out]
    return folders, degraded(held_out, recipe.degradation) if recipe.data.degradation == "real" else held_out


def _teacher_of(recipe: Recipe) -> Path | None:
    if not recipe.has_teacher:
        return None
    teacher = resolve_weights(recipe.teacher.model)
    teacher_scale(teacher, student=recipe.model.scale)
    return teacher


def _next_stage(run: _Run, state: TrainState, *, device: torch.device, fp16: bool) -> TrainState:
    """The state of the stage after this one; what this one made is kept under its name."""
    name = list(run.recipe.stages)[state.stage]
    if run.leads:
        final = run.out / f"{run.recipe.name}.safetensors"
        with replace_file(run.out / f"{run.recipe.name}-{name}.safetensors") as temporary:
            shutil.copyfile(final, temporary)
    after = begin_stage(run.recipe, state.stage + 1, state.ema, device=device, fp16=fp16)
    after.total_steps, after.total_s = state.total_steps, state.total_s
    after.history = [*state.history, {"stage": name, "steps": state.step, "seconds": round(state.elapsed_s)}]
    return after


# --- fit --------------------------------------------------------------------------------------------


@dataclass
class _Meter:
    """Sums since the last report."""

    seconds: float = 0.0
    waited_s: float = 0.0
    made_s: float = 0.0
    steps: int = 0
    losses: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            self.losses[name].append(value)

    def means(self) -> dict[str, float]:
        return {name: float(np.mean(values)) for name, values in self.losses.items()}


def _fit(run: _Run, state: TrainState) -> None:
    """Runs a stage to its end, or to a signal (`Interrupted`)."""
    recipe = run.recipe
    name, stage = list(recipe.stages.items())[state.stage]
    report, checkpoint, validation = Every(1.0), Every(stage.checkpoint_every_s), Every(stage.validate_every_s)
    loader, pictures = _loader(run, state)
    forward: nn.Module = torch.compile(state.g) if run.compiled else state.g  # type: ignore[assignment]
    tools = Tools(world=run.world, dtype=run.dtype, features=run.features, forward=forward)
    stopwatch = Stopwatch()
    meter, bad_steps = _Meter(), 0
    with Signals(on_continue=stopwatch.restart) as signals:
        while True:
            state.elapsed_s, stop = run.world.agree(state.elapsed_s, signals.stop)
            fraction = fraction_done(stage, state)
            if fraction >= 1 or stop:
                break
            lr = stage_lr(stage, state.step, fraction)
            _set_lr(stage, state, lr)
            batch = next(loader)
            waited = stopwatch.lap()
            try:
                meter.add(train_step(stage, state, batch, tools, seed=recipe.seed + state.step))
                bad_steps = 0
            except NotFinite:
                bad_steps += 1
                run.log({"stage": name, "step": state.step, "skipped": "loss or gradient is not finite"})
                if bad_steps > MAX_BAD_STEPS:
                    raise TrainingError(
                        f"{bad_steps} steps in a row were not finite at step {state.step}; the last good checkpoint is "
                        f"in {run.out}; lower the learning rate (--lr) and start again from it (--init)"
                    ) from None
            state.step += 1
            state.total_steps += 1
            seconds = waited + stopwatch.lap()
            state.elapsed_s += seconds
            state.total_s += seconds
            meter.seconds += seconds
            meter.waited_s += waited
            meter.made_s += batch.made_s
            meter.steps += 1
            if report.due(state.elapsed_s) and meter.losses:
                scores = None
                if validation.due(state.elapsed_s):
                    scores = _validate_and_keep(run, state)
                    if isinstance(run.training, Lessons) and len(run.training) > pictures:
                        loader, pictures = _loader(run, state)
                progress = _progress(run, state, meter, lr=lr, scores=scores)
                run.on_progress(progress)
                if scores is not None:
                    run.log(asdict(progress))
                meter = _Meter()
            if checkpoint.due(state.elapsed_s) and run.leads:
                save_checkpoint(run.out, recipe, state)
            stopwatch.restart()  # validating and saving are not training: they do not spend the budget
    scores = _validate_and_keep(run, state) if not stop else None
    if meter.losses:
        run.on_progress(_progress(run, state, meter, lr=state.g_optimizer.param_groups[0]["lr"], scores=scores))
    if run.leads:
        save_checkpoint(run.out, recipe, state)
    if stop:
        if run.leads:
            save_generator(run.out / f"{recipe.name}.safetensors", state.ema, _info(run, state, None))
        raise Interrupted(int(stop))
    end = {"stage": name, "step": state.step, "elapsed_s": state.elapsed_s}
    run.log({**end, "scores": asdict(scores) if scores is not None else None})


def _loader(run: _Run, state: TrainState) -> tuple[Iterator[Batch], int]:
    """Batches from the next one on, and how many pictures they are cut from."""
    pairs = run.training.pairs() if isinstance(run.training, Lessons) else run.training
    sampler = _sampler(run, state.stage, list(run.recipe.stages.values())[state.stage], pairs)
    cuda = state.device.type == "cuda"
    return batches(sampler, start=state.step, workers=run.recipe.data.workers, pin_memory=cuda), len(pairs)


def _sampler(run: _Run, index: int, stage: StageSection, pairs: Sequence[Pair]) -> PatchSampler:
    recipe = run.recipe
    taught = isinstance(run.training, Lessons)
    return PatchSampler(
        pairs,
        scale=recipe.model.scale,
        lr_patch=recipe.patch_of(stage),
        batch_size=recipe.batch_of(stage),
        seed=(recipe.seed, index),
        degradation=recipe.degradation if recipe.data.degradation == "real" and not taught else None,
        busy_share=recipe.data.busy_share,
        smooth_share=recipe.data.smooth_share,
        rank=run.world.rank,
        world=run.world.size,
    )


def _progress(run: _Run, state: TrainState, meter: _Meter, *, lr: float, scores: Scores | None) -> Progress:
    name, stage = list(run.recipe.stages.items())[state.stage]
    fraction = fraction_done(stage, state)
    return Progress(
        stage=name,
        step=state.step,
        elapsed_s=state.elapsed_s,
        fraction=fraction,
        total_fraction=(state.stage + fraction) / len(run.recipe.stages),
        losses=meter.means(),
        lr=lr,
        steps_per_s=meter.steps / meter.seconds,
        network_share=1 - meter.waited_s / meter.seconds,
        data_s=meter.made_s / meter.steps,
        scores=scores,
    )


def _set_lr(stage: StageSection, state: TrainState, lr: float) -> None:
    for group in state.g_optimizer.param_groups:
        group["lr"] = lr
    if state.d_optimizer is not None:
        for group in state.d_optimizer.param_groups:
            group["lr"] = lr * (stage.d_lr / stage.lr if stage.d_lr else 1.0)


def fraction_done(stage: StageSection, state: TrainState) -> float:
    """Share of the stage that lies behind, by steps or by time, whichever is nearer to its end."""
    by_steps = state.step / stage.steps if stage.steps > 0 else 0.0
    by_time = state.elapsed_s / stage.max_time_s if stage.max_time_s > 0 else 0.0
    return min(1.0, max(by_steps, by_time))


def stage_lr(stage: StageSection, step: int, fraction: float) -> float:
    """The generator's learning rate: linear warm-up times the stage's schedule."""
    warmup = min(1.0, (step + 1) / stage.warmup_steps) if stage.warmup_steps > 0 else 1.0
    if stage.schedule == "cosine":
        left = stage.lr_floor + (1 - stage.lr_floor) * 0.5 * (1 + math.cos(math.pi * fraction))
    elif stage.schedule == "multistep":
        left = stage.gamma ** sum(fraction >= milestone for milestone in stage.milestones)
    else:
        left = 1.0
    return stage.lr * warmup * left


# --- results ----------------------------------------------------------------------------------------


def _validate_and_keep(run: _Run, state: TrainState) -> Scores | None:
    """Scores the averaged weights and writes them, with a sheet to look at; None where nothing is held out."""
    if not run.leads:
        return None
    recipe = run.recipe
    name, stage = list(recipe.stages.items())[state.stage]
    features = run.features if run.features is not None and DISTANCE_LAYER in run.features.layers else None
    scores = validate(state.ema, run.held_out, features=features) if run.held_out else None
    info = _info(run, state, scores)
    save_generator(run.out / f"{recipe.name}.safetensors", state.ema, info)
    if scores is not None:
        sample_sheet(state.ema, run.held_out, run.out / "samples" / f"{name}-{state.step:06d}.png")
        value = _rank(stage, scores)
        if state.best is None or value < state.best:
            state.best = value
            save_generator(run.out / f"{recipe.name}-best.safetensors", state.ema, info)
    return scores


def _info(run: _Run, state: TrainState, scores: Scores | None) -> WeightsInfo:
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
        scores={"validation": {**measured, "pictures": len(run.held_out)}} if measured else {},
    )


def _rank(stage: StageSection, scores: Scores) -> float:
    """What a stage is judged by, smaller is better: how near it is to its teacher, how it looks, or PSNR."""
    if stage.teacher_perceptual_weight > 0 and scores.teacher_distance is not None:
        return scores.teacher_distance
    if stage.teacher_weight > stage.pixel_weight and scores.teacher_l1 is not None:
        return scores.teacher_l1
    looks = stage.perceptual_weight > 0 or stage.gan_weight > 0
    return scores.distance if looks and scores.distance is not None else -scores.psnr
