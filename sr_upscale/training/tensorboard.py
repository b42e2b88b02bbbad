"""Losses and scores for TensorBoard, an extra."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sr_upscale.errors import UsageError
from sr_upscale.formatting import extra

if TYPE_CHECKING:
    from sr_upscale.training.loop import Progress


@contextmanager
def board(folder: Path) -> Iterator[Callable[[Progress], None]]:
    """Opens a board for TensorBoard while the context is open.

    Args:
        folder: Where its files go.

    Yields:
        A function that writes a `Progress` as scalars, by stage.

    Raises:
        UsageError: The package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(f"--tensorboard needs its package; {extra('tensorboard')}") from error
    writer = SummaryWriter(str(folder))

    def write(progress: Progress) -> None:
        values = {**{f"loss/{name}": value for name, value in progress.losses.items()}, "lr": progress.lr}
        values["steps_per_s"] = progress.steps_per_s
        if progress.scores is not None:
            scores = asdict(progress.scores)
            values |= {f"validation/{name}": value for name, value in scores.items() if value is not None}
        for name, value in values.items():
            writer.add_scalar(f"{progress.stage}/{name}", value, progress.step)

    try:
        yield write
    finally:
        writer.close()
