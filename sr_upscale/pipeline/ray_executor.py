"""Does a batch's items on the machines of a Ray cluster (https://docs.ray.io, Ray Core; extra `ray`).

A worker is an actor with one GPU, or with a share of cores where the cluster has none. It reads an input and writes a
whole file beside the target, under a name that this process chose; all of them see the folders under the same paths.
This process alone notes outputs and puts them in place. So an item may be computed twice, and is done once.
"""

from __future__ import annotations

import functools
import os
import secrets
import signal
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sr_upscale.errors import InputError, SrUpscaleError, UsageError
from sr_upscale.formatting import extra, shown
from sr_upscale.images.formats import FORMATS, Format, format_of_path
from sr_upscale.pipeline.batch_plan import Item
from sr_upscale.pipeline.batch_run import Work
from sr_upscale.pipeline.executor import LocalExecutor, fingerprint, upscaler_for
from sr_upscale.pipeline.parsing import Jobs
from sr_upscale.pipeline.request import Request
from sr_upscale.storage.atomic import publish_file, remove_orphans
from sr_upscale.storage.process import identity

CORES = 4
"""Cores of a worker where the cluster has no GPU; a smaller machine's worker takes what its largest machine has."""
WINDOW = 64
"""Items that are handed out or wait for a worker, the largest first."""
STRAGGLES = 3.0
"""An item gets a second copy after this many times the median of those that are done."""
ATTEMPTS = 3
"""Workers that an item may take with it before it fails."""
POLL_S = 0.2


@dataclass(eq=False, kw_only=True)
class _Task:
    """An item on its way.

    Attributes:
        item, fmt, size: The item, its output's format, its input's size in bytes.
        work: Of `run_batch`.
        written: Ends with the item's details.
        copies: Workers that do it, with the file that each writes.
        begun: When the first of them began.
        lost: How many workers have been lost with it.
    """

    item: Item
    fmt: Format
    size: int
    work: Work
    written: Future[dict[str, Any]] = field(default_factory=Future)
    copies: dict[Any, Path] = field(default_factory=dict)
    begun: float = 0.0
    lost: int = 0


class Worker:
    """The actor: an executor in a process on some machine."""

    def __init__(self, request: Request) -> None:
        self.executor = LocalExecutor(request)

    def ready(self) -> tuple[str, dict[str, Any]]:
        """Returns this process's identity, and the executor's fingerprint."""
        return identity(), self.executor.fingerprint

    def do(self, source: Path, temporary: Path, fmt: Format) -> tuple[dict[str, Any], str] | SrUpscaleError:
        """Writes an output to a new file. Returns what was done and the input's sha256, or why it was not."""
        from sr_upscale.pipeline import job

        try:
            upscaler, request = self.executor.upscalers[0], self.executor.request
            begin = time.perf_counter()
            prepared = job.prepare(source, fmt, upscaler, request)
            done = job.start(prepared, temporary, fmt, upscaler, request).result()
            return done | {"seconds": round(time.perf_counter() - begin, 3)}, prepared.picture.sha256
        except SrUpscaleError as error:
            return error


class RayExecutor:
    """The executor (`batch_run.ItemExecutor`) of a cluster, to be used in a ``with``.

    One worker more than there are is always asked for, so that machines that are added later are used.

    Args:
        request: What to do.
        address: Of the cluster, as Ray takes it; None is the one of this machine, or a new one on it.

    Attributes:
        jobs: Threads of this process and the window; the work is done elsewhere.
        lanes: How many workers there have been at a time.
        fingerprint: See `batch_run.ItemExecutor`.

    Raises:
        UsageError: Ray is not installed, several devices are named, or there is no cluster.
        ModelError: See `Upscaler`.
    """

    def __init__(self, request: Request, *, address: str | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise UsageError(f"--on ray needs Ray; {extra('ray')}") from error
        self.request = request
        self.fingerprint = fingerprint(request, upscaler_for(request.network))
        self.jobs = Jobs(load=1, proc=1, save=WINDOW)
        self.lanes = 1
        self._ray: Any = ray
        self._mine = not ray.is_initialized()
        terminate = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = address or "this machine"
            raise UsageError(f"no Ray cluster at {where}: {error}; start one with `ray start --head`") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, terminate)  # Ray sets its own, which ends with another exit code
        self._waiting: list[_Task] = []
        self._changed = threading.Lock()
        self._workers: dict[Any, str] = {}
        self._identities: set[str] = set()
        self._folders: set[Path] = set()
        self._seconds: list[float] = []
        self._closed = threading.Event()
        self._refused: SrUpscaleError | None = None
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_error: object) -> None:
        self._closed.set()
        self._thread.join()
        for worker in self._workers:
            self._ray.kill(worker)
        for folder in self._folders:
            remove_orphans(folder, is_gone=self._identities.__contains__)
        if self._mine:
            self._ray.shutdown()

    def load(self, item: Item) -> int:
        """Returns the size of an input in bytes.

        Raises:
            InputError: It is not there.
        """
        try:
            return os.stat(item.source).st_size
        except OSError as error:
            raise InputError(f"{shown(item.source)}: cannot read: {error.strerror}") from error

    def start(self, item: Item, loaded: int, work: Work) -> Future[dict[str, Any]]:
        """Hands an item to the cluster."""
        fmt = self.request.file.format or format_of_path(item.target) or FORMATS["png"]
        task = _Task(item=item, fmt=fmt, size=loaded, work=work)
        with self._changed:
            self._folders.add(item.target.parent)
            self._waiting.append(task)
        return task.written

    # --- one thread that hands out and collects ----------------------------------------------------

    def _run(self) -> None:
        running: dict[Any, tuple[Any, _Task]] = {}
        coming: dict[Any, Any] = {}
        while not self._closed.is_set():
            if not coming and self._refused is None:
                worker = self._ask_for_worker()
                coming[worker.ready.remote()] = worker
            self._hand_out(running)
            if not coming and not running:
                self._closed.wait(POLL_S)
                continue
            for reference in self._ray.wait([*coming, *running], timeout=POLL_S)[0]:
                if reference in coming:
                    self._welcome(coming.pop(reference), reference)
                else:
                    self._collect(reference, *running.pop(reference))
        for worker in coming.values():
            self._ray.kill(worker)
        for _worker, task in running.values():
            for path in task.copies.values():
                path.unlink(missing_ok=True)

    def _ask_for_worker(self) -> Any:
        resources = self._ray.cluster_resources()
        needs = {"num_gpus": 1} if resources.get("GPU", 0) >= 1 else {"num_cpus": self._share_of_cores()}
        return self._ray.remote(Worker).options(**needs).remote(self.request)

    def _share_of_cores(self) -> int:
        cores = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        return max(1, min(CORES, int(max(cores, default=1))))

    def _welcome(self, worker: Any, reference: Any) -> None:
        """Takes a worker in, if it would make what this process would."""
        try:
            name, theirs = self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            return  # its machine went; another one is asked for
        except self._ray.exceptions.RayTaskError as error:
            self._refused = SrUpscaleError(f"a worker could not start: {error.cause}")
        else:
            if theirs == self.fingerprint:
                self._workers[worker] = name
                self._identities.add(name)
                self.lanes = max(self.lanes, len(self._workers))
                return
            self._refused = UsageError(
                "a worker has other weights or another version; install the same on every machine"
            )
            self._ray.kill(worker)

    def _hand_out(self, running: dict[Any, tuple[Any, _Task]]) -> None:
        if self._refused is not None and not self._workers:
            with self._changed:
                hopeless, self._waiting = self._waiting, []
            for each in hopeless:
                self._end(each, self._refused)
        busy = {worker for worker, _task in running.values()}
        for worker in [free for free in self._workers if free not in busy]:
            task = self._next(running)
            if task is None:
                return
            path = task.item.target.parent / f".sr-{identity()}-{secrets.token_hex(4)}.tmp"
            task.copies[worker] = path
            task.begun = task.begun or time.monotonic()
            running[worker.do.remote(task.item.source, path, task.fmt)] = worker, task

    def _next(self, running: dict[Any, tuple[Any, _Task]]) -> _Task | None:
        """Returns the largest item that waits, else one that takes far longer than others and has no second copy."""
        with self._changed:
            if self._waiting:
                largest = max(self._waiting, key=lambda each: each.size)
                self._waiting.remove(largest)
                return largest
        limit = STRAGGLES * statistics.median(self._seconds) if self._seconds else float("inf")
        late = [task for _, task in running.values() if len(task.copies) == 1 and not task.written.done()]
        return next((task for task in late if time.monotonic() - task.begun > limit), None)

    def _collect(self, reference: Any, worker: Any, task: _Task) -> None:
        path = task.copies.pop(worker)
        try:
            done = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            done = SrUpscaleError(f"{shown(task.item.source)}: internal error: {error.cause}; please report it")
        except self._ray.exceptions.RayError:  # the worker is lost, or its machine
            self._workers.pop(worker, None)
            path.unlink(missing_ok=True)
            task.lost += 1
            if task.lost >= ATTEMPTS and not task.copies:
                self._end(task, SrUpscaleError(f"{shown(task.item.source)}: {task.lost} workers were lost with it"))
            elif not task.copies and not task.written.done():
                with self._changed:
                    self._waiting.append(task)
            return
        if task.written.done() or (isinstance(done, SrUpscaleError) and task.copies):
            path.unlink(missing_ok=True)  # another copy was first, or may still do it
        elif isinstance(done, SrUpscaleError):
            self._end(task, done)
        else:
            details, sha256 = done
            self._seconds.append(time.monotonic() - task.begun)
            self._end(task, functools.partial(self._put_in_place, task, path, details, sha256))

    def _put_in_place(self, task: _Task, path: Path, details: dict[str, Any], sha256: str) -> dict[str, Any]:
        target = task.item.target
        overwrite = self.request.file.force or os.path.lexists(target)
        try:
            publish_file(path, target, on_whole=lambda whole: task.work.on_whole(whole, sha256), overwrite=overwrite)
        finally:
            path.unlink(missing_ok=True)
        return details

    def _end(self, task: _Task, how: SrUpscaleError | Callable[[], dict[str, Any]]) -> None:
        try:
            if isinstance(how, SrUpscaleError):
                raise how
            task.written.set_result(how())
        except Exception as error:  # run_batch says what became of it
            task.written.set_exception(error)
