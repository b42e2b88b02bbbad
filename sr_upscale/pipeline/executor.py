"""Does one file, or a batch's items, in this process, on one device or several."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sr_upscale.errors import SrUpscaleError, UsageError
from sr_upscale.images.formats import COMICS, FORMATS, Format, format_of_path
from sr_upscale.inference.engine import Engine
from sr_upscale.inference.row_queue import write_behind, write_inline
from sr_upscale.pipeline import comic, job
from sr_upscale.pipeline.batch_plan import BatchPlan, Item
from sr_upscale.pipeline.batch_run import ItemLedger, Outcome, Work
from sr_upscale.pipeline.ledger import Ledger
from sr_upscale.pipeline.parsing import Jobs
from sr_upscale.pipeline.request import NetworkOptions, Request
from sr_upscale.upscaler import Upscaler
from sr_upscale.video.containers import Container, container_of_path, parts_folders

if TYPE_CHECKING:
    from sr_upscale.storage.objects import Spool

GPU_THREADS = 4
"""Threads that bring pictures to one GPU; chosen by reasoning, not yet measured."""

FAR_THREADS = 8
"""Threads that read, and that write, where each picture takes half a dozen requests of a store."""


class Cancelled(Exception):
    """Computing shall end at once."""


class LocalExecutor:
    """The executor (`batch_run.ItemExecutor`) of one process.

    Args:
        request: What to do.
        on_step: Called with an item, its strips or tiles that are done, and all of them.
        spool: Its files stand for objects, which are fetched before they are read; None where there are none.

    Attributes:
        jobs: Threads of each stage: what was asked for, or by devices and cores. A GPU gets more threads than one. So
            small pictures meet and run as a batch, and reading and writing keep up.
        fingerprint: See `job.fingerprint`.

    Raises:
        ModelError, UsageError: See `Upscaler`.
    """

    def __init__(
        self,
        request: Request,
        *,
        on_step: Callable[[Item, int, int], None] = lambda _item, _done, _all: None,
        spool: Spool | None = None,
    ) -> None:
        self.request = request
        self.on_step, self._spool = on_step, spool
        self.engines = [engine_for(request.network, device) for device in request.network.device.split(",")]
        self.jobs = _jobs(request.run.jobs, self.engines, 1 if spool is None else FAR_THREADS)
        self.fingerprint = job.fingerprint(request, self.engines[0])
        self._shared: set[Path] = set()

    def load(self, item: Item) -> job.Prepared:
        """Reads an item and plans its output."""
        if self._spool is not None:
            self._spool.fetch(item.source)
        fmt = self.format_for(item)
        prepared: job.Prepared = job_for(fmt).prepare(item.source, fmt, self.engines[0], self.request, queued=True)
        return prepared

    def start(self, item: Item, loaded: job.Prepared, work: Work) -> Future[dict[str, Any]]:
        """Computes an item, and has it written behind (`row_queue.write_behind`).

        Raises:
            Cancelled: `work.stop` was set.
        """
        fmt = self.format_for(item)
        started: Future[dict[str, Any]] = job_for(fmt).start(
            loaded,
            item.target,
            fmt,
            self.engines[work.worker % len(self.engines)],
            self.request,
            writer=write_behind(work.saver),
            on_step=functools.partial(self._on_step, item, work),
            on_whole=work.on_whole,
        )
        return started

    def share(self, item: Item, work: Work) -> None:
        """Makes segments of a clip that another process has begun, once; a picture has no parts.

        Raises:
            Cancelled: `work.stop` was set.
        """
        moves = isinstance(self.format_for(item), Container)
        if not moves or item.target in self._shared or not parts_folders(item.target):
            return
        from sr_upscale.video.run import share_clip

        self._shared.add(item.target)
        engine = self.engines[work.worker % len(self.engines)]
        with contextlib.suppress(SrUpscaleError):  # whoever holds the clip fails as well, or makes all of it
            plan = self.load(item).clip
            assert plan is not None
            share_clip(plan, item.target, engine, on_step=functools.partial(self._on_step, item, work))

    def _on_step(self, item: Item, work: Work, done: int, total: int) -> None:
        if work.stop.is_set():
            raise Cancelled
        self.on_step(item, done, total)

    def format_for(self, item: Item) -> Format | Container:
        """Returns the format of an item's output."""
        if item.source.suffix.lower() in COMICS:
            return comic.format_of_comic(item.source, item.target)
        by_name = container_of_path(item.target)
        return by_name or self.request.file.format or format_of_path(item.target) or FORMATS["png"]


def job_for(fmt: Format | Container) -> Any:
    """Returns the module that does what becomes a picture or a clip (`job`), or a comic (`comic`)."""
    return comic if fmt is comic.COMIC else job


def run_file(
    source: Path | bytes | BinaryIO,
    target: Path | BinaryIO,
    fmt: Format | Container,
    engine: Engine,
    request: Request,
    *,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
    on_whole: Callable[[Path], None] = lambda _temporary: None,
) -> dict[str, Any]:
    """Does one file, from reading to writing.

    Args:
        source: A path, or a whole file; a stream where frames go on as they come.
        target: A path, or a binary stream.
        fmt: Format of the output.
        engine: Computes.
        request: What to do.
        on_step: Called with (strips, tiles or frames done, in all); in all is 0 where that is not known.
        on_whole: Called with the whole file before it takes its place (`replace_file`).

    Returns:
        What was done, ready for JSON; ``warnings`` is a list of sentences.

    Raises:
        SrUpscaleError: Any of its kinds; the target then is what it was before.
    """
    begin = time.perf_counter()
    if isinstance(fmt, Container) and (fmt.raw or not isinstance(target, Path)):
        assert not isinstance(source, bytes)
        done = job.pipe(source, target, fmt, engine, request, on_step=on_step, on_whole=on_whole)
    else:
        way, queued = job_for(fmt), fmt is comic.COMIC  # while a page is written, the next is computed
        prepared = way.prepare(source, fmt, engine, request, queued=queued)
        with ThreadPoolExecutor(1, "save") as saver:
            started = way.start(
                prepared,
                target,
                fmt,
                engine,
                request,
                writer=write_behind(saver) if queued else write_inline,
                on_step=on_step,
                on_whole=lambda temporary, _sha256: on_whole(temporary),
            )
            done = started.result()
    return done | {"seconds": round(time.perf_counter() - begin, 3)}


def set_up(
    plan: BatchPlan,
    request: Request,
    *,
    spool: Spool | None = None,
    verify: bool = False,
    on_step: Callable[[Item, int, int], None] = lambda _item, _done, _all: None,
) -> tuple[LocalExecutor, ItemLedger]:
    """Sets up what does a plan in this process, and what knows which of it is done.

    Args:
        plan: Items and the manifest's folder.
        request: What to do.
        spool: Its files stand for the objects of a plan of `plan_objects`.
        verify: See `Ledger`.
        on_step: See `LocalExecutor`.

    Raises:
        ModelError, UsageError: See `Upscaler`.
        OutputError: See `Ledger`.
    """
    executor, force = LocalExecutor(request, on_step=on_step, spool=spool), request.file.force
    if spool is None or plan.root != spool.outputs:
        return executor, Ledger(plan, executor.fingerprint, force=force, verify=verify, spool=spool)
    from sr_upscale.pipeline.places import ObjectLedger

    return executor, ObjectLedger(spool, plan, executor.fingerprint, force=force)


def engine_for(network: NetworkOptions, device: str | None = None, *, pixels: int | None = None) -> Engine:
    """Sets up what computes, on the one device of the options or on the given one.

    Args:
        network: The options.
        device: Instead of that of the options.
        pixels: LR pixels where one picture is all there is to do.

    Raises:
        UsageError: Several devices are named, or see `Upscaler`.
        ModelError: See `Upscaler`.
    """
    device = device or network.device
    if "," in device:
        raise UsageError(f"--device is {device!r}; one picture takes one device, several are for folders")
    return Upscaler(
        network.model,
        fidelity=network.fidelity,
        denoise=network.denoise,
        before=network.before,
        tta=network.tta,
        device=device,
        backend=network.backend,
        dtype=network.dtype,
        tile_size=network.tile_size,
        overlap=network.overlap,
        halo=network.halo,
        max_memory=network.max_memory,
        pixels=pixels,
    ).engine


def _jobs(wanted: Jobs | None, engines: list[Engine], least: int = 1) -> Jobs:
    devices = len(engines)
    if wanted is not None:
        return Jobs(load=wanted.load, proc=max(wanted.proc, devices), save=wanted.save)
    proc = devices * (1 if engines[0].choice.device.type == "cpu" else GPU_THREADS)
    return Jobs(load=max(proc, least), proc=proc, save=max(proc, least, (os.cpu_count() or 1) // 4))


def forecasts(plan: BatchPlan, executor: LocalExecutor, ledger: ItemLedger) -> Iterator[Outcome]:
    """Yields what would become of each item: ``planned`` with its forecast, ``skipped``, or ``failed``."""
    for item in plan.items:
        try:
            if ledger.is_done(item):
                yield Outcome(item=item, status="skipped")
                continue
            details = job_for(executor.format_for(item)).forecast(executor.load(item), executor.engines[0])
            yield Outcome(item=item, status="planned", seconds=details["estimated_seconds"], details=details)
        except SrUpscaleError as error:
            yield Outcome(item=item, status="failed", error=error)
        finally:
            ledger.release(item)
