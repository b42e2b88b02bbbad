"""What a run says of itself: a line at every validation, means at its end, and, with an extra, a TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sr_upscale.errors import UsageError
from sr_upscale.formatting import duration, extra
from sr_upscale.training.run import Progress


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
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(f"--tensorboard needs its package; {extra('tensorboard')}") from error
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
