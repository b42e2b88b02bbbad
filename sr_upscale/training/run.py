"""What a run is, by its options; what it reports, and what it leaves: scores, the weights so far, the best of them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from sr_upscale.data.patches import Pair
from sr_upscale.device import Choice, Device, choose, has_bf16
from sr_upscale.errors import UsageError
from sr_upscale.formatting import duration, needing
from sr_upscale.models.features import DISTANCE_LAYER, VGG19Features
from sr_upscale.pretrained.spandrel_adapter import save_network
from sr_upscale.pretrained.weights_file import WeightsInfo
from sr_upscale.training.config import Recipe, StageSection
from sr_upscale.training.options import TrainingOptions
from sr_upscale.training.parallel import World
from sr_upscale.training.recipe_file import load_recipe, parse_override, with_length, with_patches
from sr_upscale.training.state import TrainState
from sr_upscale.training.teacher import TrainingCrops
from sr_upscale.training.validation import Scores, sample_sheet, validate


def recipe_of(options: TrainingOptions, *, size: str) -> Recipe:
    """Reads the recipe of options, in its ``cpu`` or ``gpu`` size, and changes what they say.

    Raises:
        UsageError: There is no such recipe, or it does not take a value; or see `recipe_file.load_recipe`.
    """
    init = "" if options.init == "none" else options.init
    overrides: dict[str, Any] = {"stage.lr": options.lr, "seed": options.seed, "init": init}
    overrides |= dict(parse_override(text) for text in options.settings)
    given = {key: value for key, value in overrides.items() if value is not None}
    recipe = load_recipe(options.config, given, size=size, stages=options.stages)
    recipe = with_patches(recipe, lr_patch=options.lr_patch, batch_size=options.batch_size)
    return with_length(recipe, max_time_s=options.max_time, steps=options.steps)


def own_choice(device: str, dtype: str, world: World) -> Choice:
    """Chooses the device of this process: what was asked for, or its own among those of ``torchrun``.

    There ``auto`` is a GPU of its own, or the CPU where there is no GPU.

    Raises:
        UsageError: See `device.choose`.
    """
    if device.startswith("vulkan"):
        raise UsageError(f"device {device} is not for training; use cpu, cuda or mps")
    if world.size > 1:
        on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
        device = "cpu" if on_cpu else f"cuda:{os.environ['LOCAL_RANK']}"
    return choose(device, dtype)


def torch_device(choice: Choice) -> torch.device:
    """Returns the device of a choice as torch names it."""
    return torch.device(str(choice.device))


def size_of(wanted: str, device: Device) -> str:
    """Returns the size of a recipe: ``cpu`` or ``gpu``, which ``auto`` takes by the device."""
    return wanted if wanted != "auto" else "cpu" if device.type == "cpu" else "gpu"


def training_dtype(choice: Choice, wanted: str) -> torch.dtype:
    """Chooses what was asked for; else bf16 where the hardware has it, because bf16 needs no loss scaling."""
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, choice.dtype)
        return dtype
    if has_bf16(choice.device.type):
        return torch.bfloat16
    return torch.float16 if choice.device.type == "cuda" else torch.float32


def format_dtype(dtype: torch.dtype) -> str:
    """Puts a number type of training into words."""
    short = str(dtype).removeprefix("torch.")
    return {"float32": "fp32", "bfloat16": "bf16 autocast", "float16": "fp16 autocast with loss scaling"}[short]


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
class Setup:
    """What a run needs besides its recipe, and what is called on the way.

    Attributes:
        out: Folder of the run: ``NAME.safetensors`` (averaged weights, usable from the first validation on),
            ``NAME-best.safetensors`` (the best of the last stage by validation), ``NAME-STAGE.safetensors`` (the end of
            each earlier stage), ``checkpoint.pt`` and the one before it, ``train.jsonl``, ``samples/``.
        data: Folders of pictures, searched recursively.
        rendered: Folders of rendered pictures, for a recipe with a `rendered_share`.
        validation: Folder of pictures to validate on. Without it some of `data` are held out.
        resume: Whether to go on from the newest checkpoint in `out` that can be read.
        device: Where to train.
        dtype: Number type of autocast: float32 (off), bfloat16, or float16 with loss scaling. Weights and optimisers
            stay float32.
        compiled: Run the generator through `torch.compile`.
        vgg_weights: VGG19 in a file. Without it torchvision's are used where the recipe needs VGG19.
        cache: Folder that keeps decoded pictures. Without it they are held in memory.
        world: The processes that train together.
        on_progress: Called about once a second and at every validation.
        on_asking: Called with the crops that a teacher has answered and those wanted, after each.
        on_note: Called with a sentence about where the run begins.
        on_warning: Called with a sentence about anything that was left out or fell back.
    """

    out: Path
    data: Sequence[Path] = ()
    rendered: Sequence[Path] = ()
    validation: Path | None = None
    resume: Resume = Resume.NO
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    compiled: bool = False
    vgg_weights: Path | None = None
    cache: Path | None = None
    world: World = World()
    on_progress: Callable[[Progress], None] = lambda _progress: None
    on_asking: Callable[[int, int], None] = lambda _there, _wanted: None
    on_note: Callable[[str], None] = lambda _message: None
    on_warning: Callable[[str], None] = lambda _message: None


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The pictures of a run.

    Attributes:
        training: Pictures to learn from, or crops of them with a teacher's answers.
        rendered: Rendered pictures to learn from beside them; may be empty.
        photographs: Pictures for patches that are only reduced; may be empty.
        held_out: Pictures to validate on; may be empty.
    """

    training: Sequence[Pair] | TrainingCrops
    rendered: Sequence[Pair]
    photographs: Sequence[Pair]
    held_out: Sequence[Pair]

    def pairs(self) -> Sequence[Pair]:
        """Returns what there is to learn from by now."""
        return self.training.pairs() if isinstance(self.training, TrainingCrops) else self.training


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all stages share.

    Attributes:
        recipe: What to do.
        setup: See `Setup`.
        pictures: What it learns from, and what it is validated on.
        features: VGG19, where a loss or the validation wants it.
        start: The network that the run started from, where a stage stays near it.
        log: Writes an entry to the log.
    """

    recipe: Recipe
    setup: Setup
    pictures: Pictures
    features: VGG19Features | None
    start: nn.Module | None
    log: Callable[[Mapping[str, Any]], None]

    @property
    def leads(self) -> bool:
        """Says whether this process writes the files."""
        return self.setup.world.rank == 0


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
    save_network(run.setup.out / f"{recipe.name}.safetensors", state.ema, info, arch=arch)
    if scores is not None:
        sample_sheet(state.ema, run.pictures.held_out, run.setup.out / sheet_of(name, state.step))
        value = _rank(stage, scores)
        if state.best is None or value < state.best:
            state.best = value
            save_network(run.setup.out / f"{recipe.name}-best.safetensors", state.ema, info, arch=arch)
    return scores


def save_so_far(run: Run, state: TrainState) -> None:
    """Writes the averaged weights without scoring them, where a run is stopped."""
    path = run.setup.out / f"{run.recipe.name}.safetensors"
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


class Figures:
    """Gathers the progress of a run.

    Attributes:
        scores: Of the last validation, rounded.
    """

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}
        self._last: Progress | None = None
        self._time: dict[str, list[float]] = {}

    def add(self, progress: Progress) -> str | None:
        """Takes a report in.

        Returns:
            The line of its validation; None where there was none.
        """
        self._last = progress
        for key in ("steps_per_s", "network_share", "data_s"):
            self._time.setdefault(key, []).append(getattr(progress, key))
        if progress.scores is None:
            return None
        self.scores = {key: round(value, 4) for key, value in asdict(progress.scores).items() if value is not None}
        distance = f"  distance {progress.scores.distance:.3f}" if progress.scores.distance is not None else ""
        for name in ("teacher_l1", "teacher_distance"):
            if name in self.scores:
                distance += f"  {name.replace('_', ' ')} {self.scores[name]:.3f}"
        d_loss = f"  d {progress.losses['d']:.3f}" if "d" in progress.losses else ""
        return (
            f"{duration(progress.elapsed_s)}  {progress.stage} {progress.step}  "
            f"loss {progress.losses['loss']:.5f}{d_loss}  lr {progress.lr:.2e}  {progress.steps_per_s:.1f} steps/s  "
            f"validation {progress.scores.psnr:.2f} dB  SSIM {progress.scores.ssim:.4f}{distance}"
        )

    def title(self, progress: Progress) -> str:
        """Says in a few words where the run is."""
        at = f"{progress.stage} step {progress.step}"
        return f"{at} loss {progress.losses['loss']:.4f} {progress.steps_per_s:.1f}/s"

    def means(self) -> dict[str, float]:
        """Returns means over the run: steps a second, share of the network, seconds that a batch took to make."""
        return {key: sum(values) / len(values) for key, values in self._time.items()}

    def speed(self) -> str:
        """Says in a sentence where the time went."""
        if not self._time:
            return "too short to measure its speed"
        f = self.means()
        return (
            f"{f['steps_per_s']:.2f} steps/s; the network had its batch {f['network_share']:.1%} of the time; "
            f"making a batch took {f['data_s'] * 1000:.1f} ms of one core, "
            f"{f['data_s'] * f['steps_per_s']:.1%} of a step"
        )

    def result(self) -> dict[str, Any]:
        """Returns what ``--json`` shows: the last stage and step, scores, and means over the run."""
        if self._last is None:
            return {"scores": self.scores}
        speed = {key: round(value, 4) for key, value in self.means().items()}
        return {"stage": self._last.stage, "step": self._last.step, "scores": self.scores, **speed}


@contextmanager
def board(out: Path, *, wanted: bool = True, writes: bool = True) -> Iterator[Callable[[Progress], None]]:
    """Opens a board for TensorBoard while the context is open.

    Args:
        out: Folder of the run; the board's files go into ``tensorboard`` in it.
        wanted: Whether there is a board at all.
        writes: Whether this process is the one that writes. The others look for the package, too, so that all of them
            fail alike.

    Yields:
        A function that writes a `Progress` as scalars by stage, and its sample sheet as an image.

    Raises:
        UsageError: The package is not installed.
    """
    if not wanted:
        yield lambda _progress: None
        return
    with needing("tensorboard", "--tensorboard needs its package"):
        from torch.utils.tensorboard import SummaryWriter
    if not writes:
        yield lambda _progress: None
        return
    writer = SummaryWriter(str(out / "tensorboard"))

    def write(progress: Progress) -> None:
        values = {**{f"loss/{name}": value for name, value in progress.losses.items()}, "lr": progress.lr}
        values["steps_per_s"] = progress.steps_per_s
        if progress.scores is not None:
            scores = asdict(progress.scores)
            values |= {f"validation/{name}": value for name, value in scores.items() if value is not None}
        for name, value in values.items():
            writer.add_scalar(f"{progress.stage}/{name}", value, progress.step)
        if progress.sheet is not None:
            with Image.open(out / progress.sheet) as sheet:
                writer.add_image(f"{progress.stage}/samples", np.asarray(sheet), progress.step, dataformats="HWC")

    try:
        yield write
    finally:
        writer.close()
