"""Places batches on the machines of a Ray cluster (https://docs.ray.io, Ray Core; extra `ray`).

A worker does the whole folder as a process on its machine would, and shares it with the others by claims. Of objects
each does a shard. A lost worker is replaced; its pictures are taken over by the others, or by the one in its place.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sr_upscale.errors import SrUpscaleError, UsageError
from sr_upscale.formatting import needing, shown
from sr_upscale.interrupts import Stopped
from sr_upscale.pipeline.batch_run import run_batch
from sr_upscale.pipeline.parsing import Shard
from sr_upscale.pipeline.places import planned
from sr_upscale.pipeline.request import Request

CORES = 4
"""Cores of a worker where the cluster has no GPU; a smaller machine's worker takes what its largest machine has."""
CONNECT_S = 5.0
"""Seconds in which a cluster must answer."""
STOP_S = 20.0
"""Seconds in which workers must end that are asked to; they are killed after that."""
LOSSES = 10
"""Workers that may be lost with no picture done in between."""
POLL_S = 0.5
STARTED = "started"
RANKS = ("skipped", "failed", "done")
"""What becomes of an item, by what counts where workers say different things of it."""

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class FolderWork:
    """A folder to do, as it goes to the workers.

    Args:
        folder, output, request, recursive: See `targets.planned`.
        verify: See `Ledger`.
    """

    folder: str
    output: str | None
    request: Request
    recursive: bool
    verify: bool

    def do(self, shard: Shard | None, on_row: Callable[[Row], None], check: Callable[[], None]) -> None:
        """Does a shard of the folder, or all of it.

        Args:
            shard: The part.
            on_row: Called with what became of each item (`Outcome.row`), and before that with the fingerprint.
            check: Called between strips and tiles; may raise `Stopped`.
        """
        from sr_upscale.pipeline.executor import set_up

        with planned(self.folder, self.output, self.request, recursive=self.recursive, shard=shard) as (plan, spool):
            executor, ledger = set_up(
                plan, self.request, spool=spool, verify=self.verify, on_step=lambda *_step: check()
            )
            on_row({"status": STARTED, "fingerprint": executor.fingerprint})
            run_batch(
                plan,
                executor,
                ledger,
                jobs=executor.jobs,
                spool=spool,
                on_outcome=lambda outcome: on_row(outcome.row()),
            )


class _Worker:
    """The actor: a process on some machine."""

    def __init__(self) -> None:
        self._stopping = threading.Event()

    def run(self, work: FolderWork, shard: Shard | None, rows: Any) -> SrUpscaleError | None:
        """Does a part. Returns why it cannot go on, if it cannot."""
        try:
            work.do(shard, rows.put, self._check)
        except Stopped:
            pass
        except SrUpscaleError as error:
            return error
        return None

    def stop(self) -> None:
        self._stopping.set()

    def _check(self) -> None:
        if self._stopping.is_set():
            raise Stopped(signal.SIGTERM)


@dataclass(kw_only=True)
class RayWorkers:
    """The workers of one batch.

    Args:
        work: What they do.
        by_shards: Whether the workers do disjoint parts, and do not share by claims.
        address: Of the cluster, ``HOST:PORT``; None is the one of this machine, or a new one on it.

    Attributes:
        most: How many there have been at a time.
    """

    work: FolderWork
    by_shards: bool
    address: str | None = None
    most: int = 0
    _rows: dict[str, Row] = field(default_factory=dict)
    _fingerprint: Mapping[str, Any] | None = None

    def run(self, on_row: Callable[[Row], None]) -> None:
        """Does the work, with as many workers as the cluster has room for at any time.

        Args:
            on_row: Called with a row for each item: those that are done as they come, the others at the end.

        Raises:
            UsageError: Ray is not installed, or there is no cluster.
            SrUpscaleError: A worker cannot go on, or too many were lost.
        """
        ray = _connected(self.address)
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        rows = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        running: dict[Any, tuple[Any, Shard | None]] = {}
        room = _room(ray)[0]
        waiting = deque(Shard(index=each, count=room) if self.by_shards else None for each in range(1, room + 1))
        losses, ended = 0, False
        try:
            while running or waiting:
                room, needs = _room(ray)
                while not self.by_shards and not ended and len(running) + len(waiting) < room:
                    waiting.append(None)
                while waiting and len(running) < room:
                    worker, shard = ray.remote(_Worker).options(max_concurrency=2, **needs).remote(), waiting.popleft()
                    running[worker.run.remote(self.work, shard, rows)] = worker, shard
                self.most = max(self.most, len(running))
                ready, _ = ray.wait(list(running), timeout=POLL_S)
                losses = 0 if self._take(rows, on_row) else losses
                for reference in ready:
                    worker, shard = running.pop(reference)
                    if _has_ended(ray, reference):
                        ended = True
                        ray.kill(worker)
                        continue
                    losses += 1
                    if losses == LOSSES:
                        raise SrUpscaleError(f"{losses} workers were lost, and no picture done in between")
                    if self.by_shards or not ended:  # who ends has seen that the whole folder is done
                        waiting.append(shard)
        finally:
            with contextlib.suppress(ray.exceptions.RayError):
                _stop(ray, running)
                self._take(rows, on_row)
            for row in self._rows.values():
                if row["status"] != "done":
                    on_row(row)
            ray.shutdown()

    def _take(self, rows: Any, on_row: Callable[[Row], None]) -> bool:
        """Takes what has come of the workers. Returns whether a picture was done."""
        done = False
        for row in rows.get_nowait_batch(rows.qsize()):
            if row["status"] == STARTED:
                self._fingerprint = self._fingerprint or row["fingerprint"]
                if row["fingerprint"] != self._fingerprint:
                    raise UsageError("two workers have different weights; install the same version on every machine")
                continue
            known = self._rows.get(row["input"])
            if known is None or RANKS.index(row["status"]) > RANKS.index(known["status"]):
                self._rows[row["input"]] = row
                if row["status"] == "done":
                    done = True
                    on_row(row)
        return done


def _connected(address: str | None) -> Any:
    """Returns Ray, connected to a cluster.

    Raises:
        UsageError: It is not installed, or there is no cluster.
    """
    with needing("ray", "--on ray needs Ray"):
        import ray
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        if address not in (None, "auto", "local"):
            host, _, port = str(address).rpartition(":")
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()  # Ray tries for a quarter of an hour
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster at {shown(address or 'this machine')}: {error}; expected HOST:PORT of one that"
            " `ray start --head` has started"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)  # Ray sets its own, which ends with another exit code
    return ray


def _room(ray: Any) -> tuple[int, dict[str, int]]:
    """Returns how many workers a cluster has room for, at least one, and what each takes."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if gpus:
        return gpus, {"num_gpus": 1}
    cores = [int(node.get("CPU", 0)) for node in nodes]
    share = max(1, min(CORES, max(cores, default=1)))
    return max(1, sum(each // share for each in cores)), {"num_cpus": share}


def _has_ended(ray: Any, reference: Any) -> bool:
    """Says whether a worker has ended, and was not lost with its machine.

    Raises:
        SrUpscaleError: It cannot go on.
    """
    try:
        error = ray.get(reference)
    except ray.exceptions.RayActorError:
        return False
    if error is not None:
        raise error
    return True


def _stop(ray: Any, running: Mapping[Any, tuple[Any, Shard | None]]) -> None:
    """Ends workers: asks them to, and kills those that do not."""
    for worker, _shard in running.values():
        worker.stop.remote()
    if running:
        ray.wait(list(running), num_returns=len(running), timeout=STOP_S)
    for worker, _shard in running.values():
        ray.kill(worker)
