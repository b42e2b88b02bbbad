"""Everything that a run carries from step to step: how far it is, its rates, the checkpoints that bring it back."""

from __future__ import annotations

import copy
import errno
import fnmatch
import json
import math
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from sr_upscale.errors import SrUpscaleError, TrainingError, UsageError
from sr_upscale.models.discriminator import build_discriminator
from sr_upscale.models.generator import Block, Generator, gated_from_compact, halved
from sr_upscale.pretrained.registry import resolve_weights
from sr_upscale.pretrained.spandrel_adapter import build_network, tensors_of
from sr_upscale.storage.atomic import rename, replace_file
from sr_upscale.training.config import Recipe, StageSection
from sr_upscale.training.muon import Muon
from sr_upscale.training.parallel import World
from sr_upscale.training.recipe_file import recipe_from_dict

CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint-previous.pt"

FULL_BYTES = 1 << 20
"""A disk with less than this free is full."""


@dataclass(kw_only=True)
class TrainState:
    """Generator, its average, discriminator, optimisers, and where the run stands.

    Attributes:
        g, ema: The generator, ours or a network of others, and its averaged weights.
        d: The discriminator of an adversarial stage.
        g_optimizer, d_optimizer: Adam, or Muon for the generator.
        g_scaler, d_scaler: Loss scaling, at work in fp16 alone.
        stage: Index of the stage.
        step: Steps of this stage that are done.
        elapsed_s: Running time of this stage, in seconds.
        total_steps, total_s: The same over all stages.
        best: Best validation of this stage; smaller is better.
        history: Stages that are done: name, steps and seconds of each.
    """

    g: nn.Module
    ema: nn.Module
    g_optimizer: torch.optim.Optimizer
    g_scaler: torch.amp.GradScaler
    d_scaler: torch.amp.GradScaler
    d: nn.Module | None = None
    d_optimizer: torch.optim.Optimizer | None = None
    stage: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    total_steps: int = 0
    total_s: float = 0.0
    best: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Returns the device on which everything is."""
        return next(self.g.parameters()).device

    def advance(self, seconds: float) -> None:
        """Counts a step that took so many seconds."""
        self.step += 1
        self.total_steps += 1
        self.elapsed_s += seconds
        self.total_s += seconds


def new_generator(recipe: Recipe, on_note: Callable[[str], None] = lambda _message: None) -> nn.Module:
    """Builds the generator as the first stage meets it: random by the recipe's seed, or warm from other weights.

    Args:
        recipe: Says its sizes and its start.
        on_note: Called with a sentence about what was taken over from other weights, and what was not.

    Raises:
        UsageError: The weights to start from are of another size.
        ModelError, NetworkError: They cannot be read or had.
    """
    model = random_generator(recipe)
    if recipe.init:
        _warm_start(model, recipe.init, on_note)
    return model


def start_of(recipe: Recipe, device: torch.device) -> nn.Module | None:
    """Builds the network that the run started from, where a stage learns from its answers.

    Raises:
        UsageError, ModelError, NetworkError: See `new_generator`.
    """
    if not any(stage.start_share for stage in recipe.stages.values()):
        return None
    start = new_generator(recipe).requires_grad_(False).eval()
    return start.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def random_generator(recipe: Recipe) -> nn.Module:
    """Builds the generator of a recipe with random weights, by the recipe's seed.

    Raises:
        UsageError: A network of others cannot be built so.
        ModelError: It needs spandrel, which is not installed.
    """
    torch.manual_seed(recipe.seed)
    if recipe.model.arch:
        return build_network(recipe.model.arch, scale=recipe.model.scale, options=recipe.model.options)
    return Generator(recipe.model.generator)


def begin_stage(
    recipe: Recipe, index: int, start: nn.Module, *, device: torch.device, fp16: bool = False
) -> TrainState:
    """Builds a fresh state for a stage: optimisers at zero, a random discriminator where the stage has one.

    Args:
        recipe: The recipe.
        index: Which of its stages.
        start: Generator to start from; it is copied.
        device: Where to put everything.
        fp16: Whether loss scaling is at work.
    """
    stage = list(recipe.stages.values())[index]
    torch.manual_seed(recipe.seed + index)
    g = copy.deepcopy(start).requires_grad_(True).train()
    for name, parameter in g.named_parameters():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in stage.frozen):
            parameter.requires_grad_(False)
    g = g.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = TrainState(
        g=g,
        ema=copy.deepcopy(g).requires_grad_(False).eval(),
        g_optimizer=(_muon if stage.optimizer == "muon" else _adam)(g, stage.lr, stage),
        g_scaler=_scaler(device, fp16),
        d_scaler=_scaler(device, fp16),
        stage=index,
    )
    if stage.gan_weight > 0:
        d = build_discriminator(stage.discriminator, stage.d_num_feat, sees_lr=stage.gan_sees_lr)
        state.d = d.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        state.d_optimizer = _adam(state.d, stage.d_lr or stage.lr, stage)
    return state


def over_processes(state: TrainState, world: World) -> None:
    """Makes the discriminator count its batch norms over all processes; torch can do that on CUDA alone."""
    if state.d is not None and world.size > 1 and state.device.type == "cuda":
        state.d = nn.SyncBatchNorm.convert_sync_batchnorm(state.d)  # type: ignore[no-untyped-call]


def _scaler(device: torch.device, fp16: bool) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(device.type, enabled=fp16)


def _adam(model: nn.Module, lr: float, stage: StageSection) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr, betas=(stage.betas[0], stage.betas[1]), fused=True)


def _muon(model: nn.Module, lr: float, stage: StageSection) -> torch.optim.Optimizer:
    return Muon(model.parameters(), lr, betas=(stage.betas[0], stage.betas[1]))


def _warm_start(model: nn.Module, source: str, on_note: Callable[[str], None]) -> None:
    """Takes over what fits, and says so. Blocks that are missing pass their input on.

    The pixel shuffle of twice the factor gives its means of 2x2 pixels.
    """
    theirs, needed, hint = tensors_of(resolve_weights(source)), next(iter(model.state_dict())), ""
    new: list[int] = []
    if isinstance(model, Generator):
        gated = model.config.block == "gated"
        if gated and "body.0.weight" in theirs:
            theirs = gated_from_compact(theirs).state_dict()
        needed = "blocks.0.gain" if gated else "trunk.weight"  # small tensors of the tail fit by chance
        hint = "the blocks of {} do not fit; start from weights of the same num_feat and block"
        twice = (12 * model.config.scale**2, model.config.num_feat, 3, 3)  # of a pixel shuffle
        if model.config.upsampler == "pixelshuffle" and getattr(theirs.get("tail.last.weight"), "shape", ()) == twice:
            theirs = halved(theirs, model.config.scale)
    state = model.state_dict()
    fitting = {key: value for key, value in theirs.items() if key in state and state[key].shape == value.shape}
    if needed not in fitting:
        hint = hint or (
            "the first layer of {} does not fit; start from weights of the same architecture and width, "
            "or at random (--init none)"
        )
        raise UsageError(f"init: {hint.format(source)}")
    model.load_state_dict(fitting, strict=False)
    if isinstance(model, Generator):
        new = _deepen(model, fitting)
    on_note(_taken_over(theirs, state, fitting, new, source))


def _taken_over(
    theirs: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    fitting: Mapping[str, torch.Tensor],
    new: list[int],
    source: str,
) -> str:
    """Says in a sentence what of other weights was taken over; `new` are the numbers of blocks that they lack."""
    unused = [key for key in theirs if key not in fitting]
    random = [key for key in state if key not in fitting and not key.startswith(tuple(f"blocks.{n}." for n in new))]
    return (
        f"init: {len(fitting)} of the {len(theirs)} tensors of {source} were taken over"
        + (f"; not {', '.join(unused)}" if unused else "")
        + (f"; {', '.join(random)} start at random" if random else "")
        + (f"; blocks from {new[0]} on are new and start by passing their input on" if new else "")
    )


def _deepen(model: Generator, fitting: Mapping[str, torch.Tensor]) -> list[int]:
    """Makes blocks that shallower weights do not have pass their input on. Returns their numbers."""
    there = {key.split(".")[1] for key in fitting if key.startswith("blocks.")}
    new = [n for n in range(model.config.num_blocks) if str(n) not in there]
    for n in new:
        cast("Block", model.blocks[n]).pass_on()
    return new


# --- checkpoints ------------------------------------------------------------------------------------

_PLAIN = ("stage", "step", "elapsed_s", "total_steps", "total_s", "best", "history")
_PARTS = ("g", "ema", "d", "g_optimizer", "d_optimizer", "g_scaler", "d_scaler")


def save_checkpoint(out: Path, recipe: Recipe, state: TrainState) -> None:
    """Writes the checkpoint whole or not at all. The one before it stays beside it.

    Args:
        out: Folder of the run.
        recipe: Kept in the checkpoint, which refuses another.
        state: What to keep.

    Raises:
        OutputError, DiskFullError: The folder cannot be written.
    """
    path = out / CHECKPOINT
    content: dict[str, Any] = {name: getattr(state, name) for name in _PLAIN}
    for name in _PARTS:
        part = getattr(state, name)
        content[name] = part.state_dict() if part is not None else None
    content |= {"recipe": json.dumps(asdict(recipe)), "torch_rng": torch.get_rng_state()}
    with replace_file(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch says in its own words that a write failed
            full = shutil.disk_usage(out).free < FULL_BYTES
            raise OSError(errno.ENOSPC if full else errno.EIO, f"the checkpoint cannot be written: {error}") from error
        if path.exists():
            rename(path, out / PREVIOUS)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that has been read and fits the recipe.

    Attributes:
        content: What was in the file, for other processes.
        state: The state that it holds, on the CPU and without loss scaling.
        changed: What of the recipe is new, in words.
    """

    content: Mapping[str, Any]
    state: TrainState
    changed: tuple[str, ...]


def read_checkpoint(out: Path, recipe: Recipe, on_warning: Callable[[str], None]) -> Checkpoint | None:
    """Reads the newest checkpoint that can be read, is finite and fits the recipe; None where there is none.

    Args:
        out: Folder of the run.
        recipe: Must be that of the checkpoint, but for what `FREE` names.
        on_warning: Called with a sentence about each checkpoint that is there and damaged, or gone while the one before
            it is there.

    Raises:
        TrainingError: One is there and cannot be opened, which may pass: nothing is to be begun in its place.
        UsageError: It was made by another recipe; the differences are named.
    """
    for name in (CHECKPOINT, PREVIOUS):
        path = out / name
        try:
            with zipfile.ZipFile(path) as archive:  # torch overlooks wrong checksums
                if (damaged := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"{damaged} is damaged")
            content = torch.load(path, map_location="cpu", weights_only=True)
            if _is_finite(content):
                return checkpoint_of(content, recipe)
            on_warning(f"{name} holds values that are not finite; trying the one before it")
        except FileNotFoundError:
            if name == CHECKPOINT and (out / PREVIOUS).exists():
                on_warning(f"{name} is not there; trying the one before it")
        except (SrUpscaleError, MemoryError):
            raise
        except OSError as error:
            raise TrainingError(f"{path}: cannot be read: {error.strerror or error}; try again") from error
        except Exception as error:  # a damaged file fails in many ways; the one before it may be whole
            on_warning(f"{name} cannot be read ({type(error).__name__}); trying the one before it")
    return None


def _is_finite(content: Mapping[str, Any]) -> bool:
    """Says whether everything that is learnt in a checkpoint is a number: a network of NaN stays one."""
    tensors = (each for name in _PARTS for each in tree_leaves(content[name]) if isinstance(each, torch.Tensor))
    return all(bool(torch.isfinite(each).all()) for each in tensors)


def checkpoint_of(content: Mapping[str, Any], recipe: Recipe) -> Checkpoint:
    """Builds the state that the content of a checkpoint holds. Other content fails in many ways.

    Raises:
        UsageError: It was made by another recipe; the differences are named.
    """
    changed = _changes(recipe_from_dict(json.loads(content["recipe"])), recipe)
    state = begin_stage(recipe, content["stage"], random_generator(recipe), device=torch.device("cpu"))
    for name in _PARTS:
        if content[name]:  # a scaler that was not at work has no state
            getattr(state, name).load_state_dict(content[name])
    for name in _PLAIN:
        setattr(state, name, content[name])
    return Checkpoint(content=content, state=state, changed=tuple(changed))


def restore(
    checkpoint: Checkpoint, recipe: Recipe, *, device: torch.device, fp16: bool, on_note: Callable[[str], None]
) -> TrainState:
    """Brings the state of a checkpoint to where it is to run, and torch's random numbers to where they were.

    Args:
        checkpoint: Its state becomes what is returned.
        recipe: Names the stages.
        device: Where to put everything.
        fp16: Whether loss scaling is at work.
        on_note: Called with a sentence about where the run goes on, and what of the recipe is new.
    """
    state, content = checkpoint.state, checkpoint.content
    for model in filter(None, (state.g, state.ema, state.d)):
        model.to(device)
    for optimizer in filter(None, (state.g_optimizer, state.d_optimizer)):
        optimizer.load_state_dict(optimizer.state_dict())  # what it keeps follows its parameters
    state.g_scaler, state.d_scaler = (_scaler(device, fp16) for _each in range(2))
    for name in ("g_scaler", "d_scaler"):
        if content[name]:
            getattr(state, name).load_state_dict(content[name])
    torch.set_rng_state(content["torch_rng"])
    stage = list(recipe.stages)[state.stage]
    on_note("; ".join([f"going on from step {state.step} of stage {stage}", *checkpoint.changed]))
    return state


FREE = re.compile(
    r"data\.(workers|rendered_share|clean_share)|rendered\.\w+|stages\.[^.]+\.(steps|max_time_s|accumulate|validate_every_s|checkpoint_every_s)"
)
"""Keys of a recipe that may change at a resume: how long the run is, what it sees how often, and who does the work, in
what parts."""


def _changes(before: Recipe, now: Recipe) -> list[str]:
    """Says how a recipe differs from that of the checkpoint, in keys that may.

    Raises:
        UsageError: It differs in others.
    """
    old, new = _flat(asdict(before)), _flat(asdict(now))
    changed = {
        key: f"{key} was {old.get(key, 'absent')}, is {new.get(key, 'absent')}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    }
    if refused := [text for key, text in changed.items() if not FREE.fullmatch(key)]:
        raise UsageError(f"cannot resume with another recipe: {'; '.join(refused)}; undo that or choose another --out")
    return list(changed.values())


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            out.update(_flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return out


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
