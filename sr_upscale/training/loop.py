"""Setup, fit, validate: a training run from pictures to a weights file that the command line can use."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from sr_upscale.data.patches import (
    Batch,
    MixedSampler,
    Pair,
    PatchSampler,
    batches,
    centre_of,
)
from sr_upscale.errors import TrainingError, UsageError
from sr_upscale.functional.color import to_tensor
from sr_upscale.interrupts import Insistence, ending_of, ending_signals
from sr_upscale.storage.atomic import make_folder, open_own, remove_orphans, replace_file
from sr_upscale.training.config import Recipe, StageSection
from sr_upscale.training.run import Progress, Resume, Run, Setup, save_so_far, sheet_of, validate_and_keep
from sr_upscale.training.sources import load_pictures, vgg19_for
from sr_upscale.training.state import (
    CHECKPOINT,
    PREVIOUS,
    Checkpoint,
    TrainState,
    begin_stage,
    checkpoint_of,
    fraction_done,
    new_generator,
    over_processes,
    read_checkpoint,
    restore,
    save_checkpoint,
    set_lr,
    stage_lr,
    start_of,
)
from sr_upscale.training.step import NotFinite, Tools, train_step
from sr_upscale.training.teacher import TrainingCrops, teacher_of
from sr_upscale.training.validation import Scores, beside_start, too_short, validate

__all__ = ["Interrupted", "Progress", "Resume", "Setup", "train"]

RESCALE_PICTURES, RESCALE_SIDE = 16, 256
"""Number of held-out pictures, and side of their middle in pixels, on which the layers of VGG19 get a mean activation
of 1."""

MAX_BAD_STEPS = 10
"""Steps in a row whose loss or gradient may be non-finite before the run stops."""


def train(recipe: Recipe, setup: Setup) -> Path:
    """Trains a generator through the stages of a recipe and writes its weights.

    SIGTERM and SIGINT end the run at the next step, with a checkpoint (`Interrupted`). A stopped process (Ctrl-Z,
    SIGSTOP) does not spend its time budget. Both need the main thread.

    Args:
        recipe: What to do.
        setup: Its folders, device, processes, and what is called on the way.

    Returns:
        Path of the weights file.

    Raises:
        TrainingError: Data cannot be used, the loss stays non-finite, there is nothing to resume, or another process
            failed or was lost.
        UsageError: `out` holds an unfinished run without `resume`, the checkpoint was made by another recipe, the batch
            does not divide among the processes, or weights do not fit the recipe.
        ModelError, NetworkError: VGG19, the teacher or the weights to start from cannot be read or had.
        OutputError: `out` cannot be written.
        Interrupted: A signal arrived; the checkpoint is written.
    """
    out, device, world = setup.out, setup.device, setup.world
    for stage in recipe.stages.values():
        world.check_batch(recipe.batch_of(stage), stage.accumulate)
    checkpoint = _shared_checkpoint(recipe, setup)
    teacher = teacher_of(recipe)
    make_folder(out)
    remove_orphans(out)
    features = vgg19_for(recipe, setup.vgg_weights, device, setup.on_warning)
    with world.in_turn():  # whoever is first fills the cache
        pictures = load_pictures(recipe, teacher, setup)
    if features is not None:
        seen = pictures.held_out or pictures.pairs()
        features.rescale([to_tensor(centre_of(pair, RESCALE_SIDE).hr, device) for pair in seen[:RESCALE_PICTURES]])
    fp16 = setup.dtype is torch.float16
    state = (
        restore(checkpoint, recipe, device=device, fp16=fp16, on_note=setup.on_note)
        if checkpoint is not None
        else begin_stage(recipe, 0, new_generator(recipe, setup.on_note), device=device, fp16=fp16)
    )
    with _log(out / ("train.jsonl" if world.rank == 0 else f"train-{world.rank}.jsonl")) as write:
        about = {"device": str(device), "dtype": str(setup.dtype), "pictures": len(pictures.training)}
        write({"recipe": asdict(recipe), **about})
        start = start_of(recipe, device)
        run = Run(recipe=recipe, setup=setup, pictures=pictures, features=features, start=start, log=write)
        while True:
            over_processes(state, world)
            scores = _fit(run, state)
            if state.stage + 1 == len(recipe.stages):
                break
            state = _next_stage(run, state, fp16=fp16)
        write({"step": state.total_steps, "elapsed_s": state.total_s, "finished": True})
    if scores is not None:
        _say_how_good(run, scores)
    return out / f"{recipe.name}.safetensors"


@contextmanager
def _log(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Opens a log while the context is open. Yields what writes an entry to it."""
    with open_own(path, "ab") as log:

        def write(entry: Mapping[str, Any]) -> None:
            rest = memoryview(json.dumps(entry).encode() + b"\n")
            while rest:
                rest = rest[log.write(rest) :]

        yield write


def _say_how_good(run: Run, scores: Scores) -> None:
    """Warns of a run that does no better than bicubic resampling, and compares it with the weights it began with."""
    recipe, setup, held_out = run.recipe, run.setup, run.pictures.held_out
    margin_db = 2.0 if list(recipe.stages.values())[-1].gan_weight > 0 else 0.0  # of invented detail
    if warning := too_short(scores, held_out, margin_db=margin_db, ours=not recipe.model.arch):
        setup.on_warning(warning)
    elif recipe.init:
        start = validate(new_generator(recipe).to(setup.device).eval(), held_out)
        better, sentence = beside_start(scores, start, recipe.init)
        (setup.on_note if better else setup.on_warning)(sentence)


def _shared_checkpoint(recipe: Recipe, setup: Setup) -> Checkpoint | None:
    """Reads the checkpoint to go on from in the first process, and hands it to the others."""
    checkpoint = find_checkpoint(recipe, setup) if setup.world.rank == 0 else None
    content = setup.world.share(checkpoint.content if checkpoint is not None else None)
    return checkpoint_of(content, recipe) if content is not None and checkpoint is None else checkpoint


def find_checkpoint(recipe: Recipe, setup: Setup) -> Checkpoint | None:
    """Reads the checkpoint to go on from; None where the run begins.

    Raises:
        UsageError: There is one that nobody asked for, or of another recipe.
        TrainingError: There is none, and only that was asked for; or it cannot be opened.
    """
    out = setup.out
    there = any((out / name).exists() for name in (CHECKPOINT, PREVIOUS))
    if setup.resume is Resume.NO:
        if there:
            raise UsageError(
                f"{out} holds an unfinished run; add --resume (or --auto-resume) to go on, or choose another --out"
            )
        return None
    checkpoint = read_checkpoint(out, recipe, setup.on_warning)
    if checkpoint is None and setup.resume is Resume.YES:
        raise TrainingError(f"{out}: no readable checkpoint to resume; start again without --resume")
    if checkpoint is None and there:
        setup.on_warning("no checkpoint can be read; the run begins again")
    return checkpoint


def _next_stage(run: Run, state: TrainState, *, fp16: bool) -> TrainState:
    """Returns the state of the stage after this one. What this one made is kept under its name."""
    name = list(run.recipe.stages)[state.stage]
    if run.leads:
        final = run.setup.out / f"{run.recipe.name}.safetensors"
        with replace_file(run.setup.out / f"{run.recipe.name}-{name}.safetensors") as temporary:
            shutil.copyfile(final, temporary)
    after = begin_stage(run.recipe, state.stage + 1, state.ema, device=run.setup.device, fp16=fp16)
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

    def add_step(self, waited_s: float, seconds: float, batch: Batch) -> None:
        self.seconds += seconds
        self.waited_s += waited_s
        self.made_s += batch.made_s
        self.steps += 1

    def means(self) -> dict[str, float]:
        return {name: float(np.mean(values)) for name, values in self.losses.items()}


def _fit(run: Run, state: TrainState) -> Scores | None:
    """Runs a stage to its end, or to a signal (`Interrupted`). Returns the scores of the end, where any can be had."""
    recipe = run.recipe
    name, stage = list(recipe.stages.items())[state.stage]
    report, checkpoint, validation = Every(1.0), Every(stage.checkpoint_every_s), Every(stage.validate_every_s)
    loader, pictures = _loader(run, state)
    forward: nn.Module = torch.compile(state.g) if run.setup.compiled else state.g  # type: ignore[assignment]
    tools = Tools(world=run.setup.world, dtype=run.setup.dtype, features=run.features, forward=forward, start=run.start)
    stopwatch = Stopwatch()
    reported, meter, bad_steps = _Meter(), _Meter(), 0
    with Signals(on_continue=stopwatch.restart) as signals:
        while True:
            state.elapsed_s, stop = run.setup.world.agree(state.elapsed_s, signals.stop)
            fraction = fraction_done(stage, state)
            if fraction >= 1 or stop:
                break
            lr = stage_lr(stage, state.step, fraction)
            set_lr(stage, state, lr)
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
                        f"in {run.setup.out}; lower the learning rate (--lr) and start again from it (--init)"
                    ) from None
            seconds = waited + stopwatch.lap()
            state.advance(seconds)
            meter.add_step(waited, seconds, batch)
            if report.due(state.elapsed_s) and meter.losses:
                scores = None
                if validation.due(state.elapsed_s):
                    scores = validate_and_keep(run, state)
                    if len(run.pictures.training) > pictures:
                        loader, pictures = _loader(run, state)
                progress = _progress(run, state, meter, lr=lr, scores=scores)
                run.setup.on_progress(progress)
                if scores is not None:
                    run.log(asdict(progress))
                reported, meter = meter, _Meter()
            if checkpoint.due(state.elapsed_s) and run.leads:
                save_checkpoint(run.setup.out, recipe, state)
            stopwatch.restart()  # validating and saving are not training: they do not spend the budget
    return _end_stage(run, state, meter if meter.losses else reported, stop)


def _end_stage(run: Run, state: TrainState, last: _Meter, stop: float) -> Scores | None:
    """Validates, reports and saves at the end of a stage. After a signal it only saves, and raises `Interrupted`."""
    name = list(run.recipe.stages)[state.stage]
    scores = validate_and_keep(run, state) if not stop else None
    if last.losses:
        run.setup.on_progress(_progress(run, state, last, lr=state.g_optimizer.param_groups[0]["lr"], scores=scores))
    if run.leads:
        save_checkpoint(run.setup.out, run.recipe, state)
    if stop:
        if run.leads:
            save_so_far(run, state)
        raise Interrupted(int(stop))
    end = {"stage": name, "step": state.step, "elapsed_s": state.elapsed_s}
    run.log({**end, "scores": asdict(scores) if scores is not None else None})
    return scores


def _loader(run: Run, state: TrainState) -> tuple[Iterator[Batch], int]:
    """Returns the batches from the next one on, and how many pictures they are cut from."""
    pairs = run.pictures.pairs()
    sampler = _sampler(run, state.stage, list(run.recipe.stages.values())[state.stage], pairs)
    cuda = state.device.type == "cuda"
    return batches(sampler, start=state.step, workers=run.recipe.data.workers, pin_memory=cuda), len(pairs)


def _sampler(run: Run, index: int, stage: StageSection, pairs: Sequence[Pair]) -> PatchSampler | MixedSampler:
    recipe, pictures = run.recipe, run.pictures
    sampler = partial(
        PatchSampler,
        scale=recipe.model.scale,
        lr_patch=recipe.patch_of(stage),
        batch_size=recipe.batch_of(stage),
        seed=(recipe.seed, index),
        busy_share=recipe.data.busy_share,
        smooth_share=recipe.data.smooth_share,
        rank=run.setup.world.rank,
        world=run.setup.world.size,
    )
    main = sampler(pairs, degradation=None if isinstance(pictures.training, TrainingCrops) else recipe.family)
    if not pictures.rendered and not pictures.photographs:
        return main
    return MixedSampler(
        main,
        rendered=sampler(pictures.rendered, degradation=recipe.rendered) if pictures.rendered else None,
        rendered_share=recipe.data.rendered_share,
        clean=sampler(pictures.photographs) if pictures.photographs else None,
        clean_share=recipe.data.clean_share,
    )


def _progress(run: Run, state: TrainState, meter: _Meter, *, lr: float, scores: Scores | None) -> Progress:
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
        sheet=sheet_of(name, state.step) if scores is not None else None,
    )


# --- time and signals -------------------------------------------------------------------------------


class Stopwatch:
    """A stopwatch of running time."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Returns the seconds since the last lap, and begins another."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        return seconds

    def restart(self) -> None:
        """Begins a lap now. What has passed of the last one does not count."""
        self._last = time.monotonic()


class Every:
    """A question that is answered with yes once per period of running time.

    Args:
        period_s: Seconds.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._last: float | None = None

    def due(self, elapsed_s: float) -> bool:
        """Says whether a period has passed since the last yes, or since the first call.

        Args:
            elapsed_s: Running time so far, in seconds.
        """
        if self._last is None:
            self._last = elapsed_s
        if elapsed_s - self._last < self.period_s:
            return False
        self._last = elapsed_s
        return True


class Interrupted(Exception):
    """The run was stopped by a signal, after its checkpoint was written.

    Attributes:
        signal: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class Signals:
    """Handlers of signals, in place while the context is open.

    The first SIGTERM or SIGINT (on Windows also SIGBREAK) asks for a stop. A second one acts at once, unless it is an
    echo of the first (`interrupts`). SIGCONT is reported. Outside the main thread signals cannot be handled and are
    left alone.

    Args:
        on_continue: Called at SIGCONT.

    Attributes:
        stop: Number of the signal that asked for a stop; 0 before.
    """

    def __init__(self, *, on_continue: Callable[[], None]) -> None:
        self.stop = 0
        self._stopping = Insistence()
        self._on_continue = on_continue
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            resumed = [signal.SIGCONT] if hasattr(signal, "SIGCONT") else []  # Windows has none
            for number in (*ending_signals(), *resumed):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGCONT", None):
            self._on_continue()
            return
        if self._stopping.first():
            self.stop = ending_of(number)
        elif self._stopping.insists():
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
