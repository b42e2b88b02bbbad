"""Setup, fit, validate: a training run from pictures to a weights file that the command line can use."""

from __future__ import annotations

import copy
import datetime
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.checkpoint import WeightsInfo, load_generator, save_generator
from sr_upscale.color import to_pixels, to_tensor
from sr_upscale.data import Pair, PatchSampler, find_pictures, load_pairs, split_validation
from sr_upscale.errors import TrainingError, UsageError
from sr_upscale.files import replace_file
from sr_upscale.metrics import psnr
from sr_upscale.models.generator import Generator, GeneratorConfig
from sr_upscale.store import resolve_weights
from sr_upscale.training.config import Recipe, StageSection, recipe_from_dict

MAX_BAD_STEPS = 10
"""Steps in a row whose loss or gradient may be non-finite before the run stops."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One line of the log: what a caller may show."""

    step: int
    elapsed_s: float
    fraction: float
    loss: float
    lr: float
    steps_per_s: float
    validation_psnr: float | None = None


@dataclass(kw_only=True)
class TrainState:
    """Everything that a checkpoint holds besides the recipe."""

    model: Generator
    ema: Generator
    optimizer: torch.optim.Optimizer
    sampler: PatchSampler
    step: int = 0
    elapsed_s: float = 0.0


class Stopwatch:
    """Running time."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        return seconds

    def restart(self) -> None:
        """Begins a lap now; what has passed of the last one does not count."""
        self._last = time.monotonic()


def train(
    recipe: Recipe,
    *,
    data: Sequence[Path],
    out: Path,
    validation: Path | None = None,
    resume: bool = False,
    device: torch.device | None = None,
    bf16: bool = True,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    on_warning: Callable[[str], None] = lambda _message: None,
) -> Path:
    """Trains a generator and writes its weights.

    Args:
        recipe: What to do.
        data: Folders of pictures, searched recursively.
        out: Folder of the run: ``<name>.safetensors`` (averaged weights, usable at any moment),
            ``checkpoint.pt`` and the one before it, ``train.jsonl``.
        validation: Folder of pictures to validate on; without it some of `data` are held out.
        resume: Go on from the newest checkpoint in `out` that can be read.
        device: Where to train; CPU by default.
        bf16: Run the forward pass in bfloat16 (autocast); weights and optimiser stay float32.
        on_progress: Called about once a second and at every validation.
        on_warning: Called with a sentence about anything that was left out or fell back.

    SIGTERM and SIGINT end the run at the next step, with a checkpoint (`Interrupted`). A stopped process
    (Ctrl-Z, SIGSTOP) does not spend its time budget. Both need the main thread.

    Returns:
        Path of the weights file.

    Raises:
        TrainingError: Data cannot be used, the loss stays non-finite, or there is nothing to resume.
        UsageError: The checkpoint was made by another recipe.
        Interrupted: A signal arrived; the checkpoint is written.
    """
    device = device or torch.device("cpu")
    out.mkdir(parents=True, exist_ok=True)
    training, held_out = _load_data(recipe, data, validation, on_warning)
    state = _setup(recipe, training, device)
    if resume:
        _load_checkpoint(out, recipe, state, on_warning)
    elif (out / "checkpoint.pt").exists():
        raise UsageError(f"{out} holds an unfinished run; add --resume to go on, or choose another --out")
    with (out / "train.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"recipe": asdict(recipe), "device": str(device), "pictures": len(training)}) + "\n")
        _fit(recipe, state, held_out, out=out, log=_JsonLog(log.write, log.flush), bf16=bf16, on_progress=on_progress)
    return out / f"{recipe.name}.safetensors"


def validate(model: nn.Module, pairs: Sequence[Pair], *, device: torch.device) -> float:
    """Mean Y-channel PSNR in dB over LR/HR pairs, 8-bit output, border of one scale cropped."""
    scores = []
    with torch.inference_mode():
        for pair in pairs:
            lr = to_tensor(pair.lr).to(device).contiguous(memory_format=torch.channels_last)
            sr = to_tensor(to_pixels(model(lr), np.dtype(np.uint8)))
            scale = pair.hr.shape[0] // pair.lr.shape[0]
            scores.append(psnr(sr, to_tensor(pair.hr), crop_border=scale, y_channel=True).item())
    return float(np.mean(scores))


# --- setup ------------------------------------------------------------------------------------------


def _load_data(
    recipe: Recipe, data: Sequence[Path], validation: Path | None, on_warning: Callable[[str], None]
) -> tuple[list[Pair], list[Pair]]:
    paths = find_pictures(data)
    if validation is not None:
        held_out_paths = find_pictures([validation])
    else:
        paths, held_out_paths = split_validation(paths, recipe.data.validation_count)
    scale = recipe.model.scale
    training = load_pairs(paths, scale=scale, min_side=recipe.data.lr_patch * scale, on_warning=on_warning)
    if not held_out_paths:
        on_warning("too few pictures to hold any out: there is no validation (give some with --val)")
        return training, []
    return training, load_pairs(held_out_paths, scale=scale, min_side=4 * scale, on_warning=on_warning)


def _setup(recipe: Recipe, pairs: Sequence[Pair], device: torch.device) -> TrainState:
    torch.manual_seed(recipe.seed)
    model = Generator(GeneratorConfig(**asdict(recipe.model)))
    if recipe.init:
        _warm_start(model, recipe.init)
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    stage = recipe.stage
    optimizer = torch.optim.Adam(model.parameters(), lr=stage.lr, betas=stage.betas, fused=True)
    sampler = PatchSampler(pairs, scale=recipe.model.scale, lr_patch=recipe.data.lr_patch, seed=recipe.seed)
    return TrainState(model=model, ema=ema, optimizer=optimizer, sampler=sampler)


def _warm_start(model: Generator, source: str) -> None:
    weights, _info = load_generator(resolve_weights(source))
    state = model.state_dict()
    fitting = {
        key: value for key, value in weights.state_dict().items() if key in state and state[key].shape == value.shape
    }
    if "trunk.weight" not in fitting:  # small tensors of the tail fit by chance
        raise UsageError(f"init: the trunk of {source} does not fit; start from weights of the same num_feat")
    model.load_state_dict(fitting, strict=False)


# --- fit --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _JsonLog:
    write: Callable[[str], Any]
    flush: Callable[[], Any]

    def __call__(self, entry: Mapping[str, Any]) -> None:
        self.write(json.dumps(entry) + "\n")
        self.flush()


def _fit(
    recipe: Recipe,
    state: TrainState,
    held_out: Sequence[Pair],
    *,
    out: Path,
    log: Callable[[Mapping[str, Any]], None],
    bf16: bool,
    on_progress: Callable[[Progress], None],
) -> None:
    stage = recipe.stage
    device = next(state.model.parameters()).device
    report, checkpoint, validation = _Every(1.0), _Every(stage.checkpoint_every_s), _Every(stage.validate_every_s)
    stopwatch = Stopwatch()
    losses: list[float] = []
    bad_steps = 0
    with _Signals(on_continue=stopwatch.restart) as signals:
        while (fraction := _fraction_done(stage, state)) < 1 and not signals.stop:
            lr = _learning_rate(stage, state.step, fraction)
            for group in state.optimizer.param_groups:
                group["lr"] = lr
            loss = _train_step(recipe, state, device=device, bf16=bf16)
            if loss is not None:
                bad_steps = 0
                losses.append(loss)
            else:
                bad_steps += 1
                log({"step": state.step, "skipped": "loss or gradient is not finite"})
                if bad_steps > MAX_BAD_STEPS:
                    raise TrainingError(
                        f"{bad_steps} steps in a row were not finite at step {state.step}; the last good checkpoint is "
                        f"in {out}; lower the learning rate (--lr) and start again from it (--init)"
                    )
            state.step += 1
            state.elapsed_s += stopwatch.lap()
            if report.due(state.elapsed_s) and losses:
                validate_now = validation.due(state.elapsed_s)
                progress = Progress(
                    step=state.step,
                    elapsed_s=state.elapsed_s,
                    fraction=_fraction_done(stage, state),
                    loss=float(np.mean(losses)),
                    lr=lr,
                    steps_per_s=len(losses) / report.interval_s,
                    validation_psnr=_validate_and_keep(recipe, state, held_out, out=out) if validate_now else None,
                )
                on_progress(progress)
                if validate_now:
                    log(asdict(progress))
                losses.clear()
            if checkpoint.due(state.elapsed_s):
                _save_checkpoint(out, recipe, state)
            stopwatch.restart()  # validating and saving are not training: they do not spend the budget
    _save_checkpoint(out, recipe, state)
    if signals.stop:
        raise Interrupted(signals.stop)
    score = _validate_and_keep(recipe, state, held_out, out=out)
    log({"step": state.step, "elapsed_s": state.elapsed_s, "validation_psnr": score, "finished": True})


class _Every:
    """True once per period of running time."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.interval_s = 0.0
        self._last: float | None = None

    def due(self, elapsed_s: float) -> bool:
        if self._last is None:
            self._last = elapsed_s
        self.interval_s = elapsed_s - self._last
        if self.interval_s < self.period_s:
            return False
        self._last = elapsed_s
        return True


def _train_step(recipe: Recipe, state: TrainState, *, device: torch.device, bf16: bool) -> float | None:
    """One optimiser step. Returns the loss, or None where it was not finite and the step was skipped."""
    stage = recipe.stage
    lr, hr = (side.to(device) for side in state.sampler.batch(recipe.data.batch_size))
    context: AbstractContextManager[Any] = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
    with context:
        sr = state.model(lr.contiguous(memory_format=torch.channels_last))
    pixel_loss = F.l1_loss if stage.pixel_loss == "l1" else F.mse_loss
    loss: Tensor = stage.pixel_weight * pixel_loss(sr.float(), hr)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), stage.clip_norm)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        return None
    state.optimizer.step()
    decay = min(stage.ema_decay, (1 + state.step) / (10 + state.step))  # follow quickly at the start
    torch._foreach_lerp_(list(state.ema.parameters()), list(state.model.parameters()), 1 - decay)
    return float(loss.detach())


def _fraction_done(stage: StageSection, state: TrainState) -> float:
    """Share of the stage that lies behind, by steps or by time, whichever is nearer to its end."""
    by_steps = state.step / stage.steps if stage.steps > 0 else 0.0
    by_time = state.elapsed_s / stage.max_time_s if stage.max_time_s > 0 else 0.0
    return min(1.0, max(by_steps, by_time))


def _learning_rate(stage: StageSection, step: int, fraction: float) -> float:
    """Linear warm-up times a half cosine from `lr` down to `lr * lr_floor`."""
    warmup = min(1.0, (step + 1) / stage.warmup_steps) if stage.warmup_steps > 0 else 1.0
    cosine = stage.lr_floor + (1 - stage.lr_floor) * 0.5 * (1 + math.cos(math.pi * fraction))
    return stage.lr * warmup * cosine


class Interrupted(Exception):
    """The run was stopped by a signal, after its checkpoint was written."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class _Signals:
    """While open: the first SIGTERM or SIGINT asks for a stop, a second one acts at once; SIGCONT is reported.

    Outside the main thread signals cannot be handled and are left alone.
    """

    def __init__(self, *, on_continue: Callable[[], None]) -> None:
        self.stop = 0
        self._on_continue = on_continue
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            names = ("SIGTERM", "SIGINT", "SIGCONT")  # Windows has no SIGCONT
            for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
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
        self.stop = number
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._before[each])


# --- files of a run ---------------------------------------------------------------------------------


def _validate_and_keep(recipe: Recipe, state: TrainState, held_out: Sequence[Pair], *, out: Path) -> float | None:
    """Scores the averaged weights and writes them; None where nothing is held out."""
    score = validate(state.ema, held_out, device=next(state.ema.parameters()).device) if held_out else None
    info = WeightsInfo(
        name=recipe.name,
        description=recipe.description,
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        recipe={**asdict(recipe), "steps_done": state.step, "seconds": round(state.elapsed_s)},
        scores={"validation": {"psnr_y": round(score, 3), "pictures": len(held_out)}} if score is not None else {},
    )
    save_generator(out / f"{recipe.name}.safetensors", state.ema, info)
    return score


def _save_checkpoint(out: Path, recipe: Recipe, state: TrainState) -> None:
    path = out / "checkpoint.pt"
    content = {
        "recipe": json.dumps(asdict(recipe)),
        "model": state.model.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "sampler": json.dumps(state.sampler.rng.bit_generator.state),
        "torch_rng": torch.get_rng_state(),
        "step": state.step,
        "elapsed_s": state.elapsed_s,
    }
    with replace_file(path) as temporary:
        torch.save(content, temporary)
        if path.exists():
            path.replace(out / "checkpoint-previous.pt")


def _load_checkpoint(out: Path, recipe: Recipe, state: TrainState, on_warning: Callable[[str], None]) -> None:
    for path in (out / "checkpoint.pt", out / "checkpoint-previous.pt"):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in many ways; the one before it may be whole
            on_warning(f"{path.name} cannot be read ({type(error).__name__}); trying the one before it")
            continue
        break
    else:
        raise TrainingError(f"{out}: no readable checkpoint to resume; start again without --resume")
    _refuse_changes(recipe_from_dict(json.loads(content["recipe"])), recipe)
    state.model.load_state_dict(content["model"])
    state.ema.load_state_dict(content["ema"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.sampler.rng.bit_generator.state = json.loads(content["sampler"])
    torch.set_rng_state(content["torch_rng"])
    state.step, state.elapsed_s = content["step"], content["elapsed_s"]


def _refuse_changes(before: Recipe, now: Recipe) -> None:
    old, new = _flat(asdict(before)), _flat(asdict(now))
    changed = [f"{key} was {old[key]}, is {new[key]}" for key in old if old[key] != new[key]]
    if changed:
        raise UsageError(f"cannot resume with another recipe: {'; '.join(changed)}; undo that or choose another --out")


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            out.update(_flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return out
