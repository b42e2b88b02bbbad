"""Losses, scores and sample sheets for TensorBoard, an extra."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sr_upscale.errors import UsageError
from sr_upscale.formatting import extra

if TYPE_CHECKING:
    from sr_upscale.training.loop import Progress


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
