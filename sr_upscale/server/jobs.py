"""A queue of pictures, computed one after the other in a thread; a picture stops when its client disconnects."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from sr_upscale.errors import AppearedError, UsageError
from sr_upscale.formatting import shortened, shown
from sr_upscale.images import MAX_PIXELS
from sr_upscale.images.formats import COMICS, VIDEO, Format, sniff
from sr_upscale.inference.engine import Engine
from sr_upscale.pipeline import comic
from sr_upscale.pipeline.batch_plan import refuse_name, refuse_unwritable
from sr_upscale.pipeline.executor import Cancelled, engine_for, job_for
from sr_upscale.pipeline.request import NetworkOptions, Request
from sr_upscale.pipeline.targets import default_name, format_for
from sr_upscale.storage.atomic import replace_file
from sr_upscale.video.containers import DEFAULT, Container

Made = TypeVar("Made")

OUTPUT_TIMES = 16
"""Most pixels of an output, as a multiple of the most of an input: x4 of the largest."""

KEPT_MODELS = 2
"""Models whose networks stay in memory between pictures."""


class TooManyError(UsageError):
    """The server has as many pictures as it takes."""


@dataclass
class Job:
    """One picture of a client.

    Attributes:
        name: Given by the client, or random; ``/progress?job=NAME`` takes it.
        stop: Set when it is cancelled.
        state: ``reading``, ``waiting`` or ``working``.
        share: Finished share, 0 to 1.
    """

    name: str
    stop: threading.Event = field(default_factory=threading.Event)
    state: str = "reading"
    share: float = 0.0

    def step(self, done: int, total: int) -> None:
        """Stores the progress of the picture.

        Raises:
            Cancelled: It was cancelled.
        """
        if self.stop.is_set():
            raise Cancelled
        self.share = done / total if total else 0.0


class Jobs:
    """Those that are read, wait or are computed. Used by the thread of the server alone.

    Args:
        most: How many there may be at a time; each holds its picture in memory.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.running: dict[str, Job] = {}
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sr-serve")

    @contextlib.contextmanager
    def admitted(self, name: str | None) -> Iterator[Job]:
        """Admits a job for as long as the ``with`` lasts.

        Raises:
            TooManyError: There are as many as there may be.
            UsageError: The name is taken, or is none.
        """
        name = secrets.token_hex(8) if name is None else name
        if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name):
            raise UsageError(f"job is {shown(shortened(name))!r}; expected 1 to 64 letters, digits and dashes")
        if name in self.running:
            raise UsageError(f"job {name} exists already; choose another name")
        if len(self.running) >= self.most:
            raise TooManyError(f"{self.most} pictures are being processed or wait already; try again when one is done")
        job = self.running[name] = Job(name)
        try:
            yield job
        finally:
            del self.running[name]

    async def run(self, job: Job, work: Callable[[], Made], gone: Coroutine[Any, Any, None]) -> Made:
        """Runs the work of a job when the thread is free.

        Args:
            job: The job.
            work: Runs in the thread of the jobs, and calls `Job.step`.
            gone: Ends when the client has disconnected.

        Raises:
            Cancelled: The client has disconnected, or the server stops.
        """

        def begun() -> Made:
            job.state = "working"
            job.step(0, 1)
            return work()

        job.state = "waiting"
        made = asyncio.get_running_loop().run_in_executor(self._worker, begun)
        leaving = asyncio.ensure_future(gone)
        try:
            either: set[asyncio.Future[Any]] = {made, leaving}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not made.done():
                job.stop.set()
            return await made
        finally:
            job.stop.set()
            leaving.cancel()

    def stop(self) -> None:
        """Ends every job at its next strip or tile."""
        for job in self.running.values():
            job.stop.set()

    def close(self) -> None:
        """Ends every job, and waits for the thread."""
        self.stop()
        self._worker.shutdown(cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class Enlarged:
    """An output.

    Attributes:
        file: Its bytes, from the beginning.
        name: What it is called.
        format: Its format.
        done: What was done, ready for JSON (`pipeline.job.start`).
    """

    file: BinaryIO
    name: str
    format: Format | Container
    done: dict[str, Any]


def enlarge(data: bytes, name: str, request: Request, job: Job, *, folder: Path | None) -> Enlarged:
    """Enlarges a picture.

    Args:
        data: The bytes of the picture.
        name: What it is called, without a folder.
        request: What to do.
        job: Receives progress, and cancels the work.
        folder: Where the output is written to as well; None keeps it in a file without a name.

    Raises:
        SrUpscaleError: Any of its kinds.
        Cancelled: The client has disconnected.
    """
    path, kind, fmt = Path(name), sniff(data[:256]), request.file.format
    if path.suffix.lower() in COMICS:
        kind, fmt = "a comic", comic.format_of_comic(path, path)
    fmt = format_for(fmt or (DEFAULT if kind == VIDEO else None), "-", kind)
    job_of, in_parts = job_for(fmt), fmt is comic.COMIC or isinstance(fmt, Container)
    engine = _engine_for(request.network)
    output = default_name(path, dataclasses.replace(request, file=dataclasses.replace(request.file, format=fmt)))
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as opened:
        source: Path | bytes = data
        if in_parts or kind == VIDEO:  # it is gone through more than once
            source = Path(temporary) / "source"
            source.write_bytes(data)
        prepared = job_of.prepare(source, fmt, engine, request, name=shown(name))
        width, height = prepared.plan.output_size
        described = job_of.describe(prepared, engine)
        most = (request.file.max_pixels or MAX_PIXELS) * OUTPUT_TIMES
        if (pixels := width * height * described.get("pages", described["frames"])) > most:
            raise UsageError(
                f"{shown(name)}: the output would have {pixels / 1e6:.0f} MP, this server makes up to "
                f"{most / 1e6:.0f} MP; choose a smaller scale"
            )
        place = None if folder is None else _free_place(folder, output)
        # segments and pages stay beside an output that is cancelled
        target = Path(temporary) / "out" if place is None or in_parts else place
        done = job_of.start(prepared, target, fmt, engine, request, on_step=job.step).result()
        if place is not None and in_parts:
            with replace_file(place, overwrite=False) as whole:
                shutil.copyfile(target, whole)
        file: BinaryIO = opened.enter_context(target.open("rb"))
        opened.pop_all()  # whoever sends it closes it
    return Enlarged(file=file, name=output, format=fmt, done=done)


def _free_place(folder: Path, name: str) -> Path:
    """Returns the path of a new file.

    Raises:
        OutputError: Something stands there, the name is too long, or the folder cannot be written.
    """
    target = folder / name
    refuse_name(target)
    refuse_unwritable([target])
    if target.is_symlink() or target.exists():
        raise AppearedError(f"{shown(name)}: exists in the folder of this server; give the picture another name")
    return target


@functools.lru_cache(maxsize=KEPT_MODELS)
def _engine_for(network: NetworkOptions) -> Engine:
    return engine_for(network)
