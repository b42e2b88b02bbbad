"""Several processes that train one model: each makes its share of every batch, and gradients are averaged.

They are started by ``torchrun``; on one process everything here does nothing. Gradients are averaged after the backward
pass instead of during it: the generator is small, and two networks with several forward passes a step stay easy to
follow. The processes must agree on the time and on a signal to stop; they do so once a step.
"""

from __future__ import annotations

import datetime
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as dist_functional

from sr_upscale.errors import TrainingError, UsageError

T = TypeVar("T")

PATIENCE = datetime.timedelta(days=2)
"""How long processes wait for one that is at work, such as decoding pictures. `Watch` notices those that are not."""

MEETING = datetime.timedelta(minutes=10)
"""How long processes wait for the first one to arrive."""

LOST_AFTER_S = 300.0
"""Seconds without a sign of life after which a process counts as lost."""

TURNS = 3
"""Turns of `World.in_turn`: the first process of all, the first of every other host, the rest."""


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among its equals.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        local_rank: Number of this process on its host, from 0.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def mean(self, x: Tensor) -> Tensor:
        """Computes the mean over the joint batch, differentiably.

        Args:
            x: This process's share, of any shape; every process holds an equal share.

        Returns:
            A scalar.
        """
        local = x.mean()
        if self.size == 1:
            return local
        with _others_may_be_lost():
            total: Tensor = dist_functional.all_reduce(local)  # type: ignore[no-untyped-call]
        return total / self.size

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces gradients by their mean over all processes, in place.

        Args:
            parameters: Parameters in the same order in every process; those without a gradient are left out.

        Raises:
            TrainingError: Another process was lost.
        """
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with _others_may_be_lost():
            dist.all_reduce(flat)
        flat /= self.size
        means = torch.split(flat, [each.numel() for each in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agree(self, *values: float) -> tuple[float, ...]:
        """Returns the largest of each value over all processes.

        Raises:
            TrainingError: Another process was lost.
        """
        if self.size == 1:
            return values
        device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
        joint = torch.tensor(values, dtype=torch.float64, device=device)
        with _others_may_be_lost():
            dist.all_reduce(joint, op=dist.ReduceOp.MAX)
        return tuple(joint.tolist())

    def share(self, value: T) -> T:
        """Returns the value of the first process. It is copied, so that hosts need not see the same files.

        Args:
            value: Anything that can be pickled; only that of the first process counts.

        Raises:
            TrainingError: Another process was lost.
        """
        if self.size == 1:
            return value
        box = [value]
        with _others_may_be_lost():
            dist.broadcast_object_list(box)
        return box[0]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Lets one process do what is inside before others do it, so that they find its files.

        The first of all begins, then come the first of every other host, then the rest. So files are made once where
        hosts share a folder, and once a host where they do not.

        Raises:
            TrainingError: It failed in another process.
        """
        turn = 0 if self.rank == 0 else 1 if self.local_rank == 0 else 2
        for _ in range(turn):
            self._go_on()
        try:
            yield
        except Exception:
            self.agree(1.0)  # or the others would wait
            raise
        for _ in range(turn, TURNS):
            self._go_on()

    def _go_on(self) -> None:
        (failed,) = self.agree(0.0)
        if failed:
            raise TrainingError("another process failed; its message says why")

    def check_batch(self, batch_size: int, parts: int = 1) -> None:
        """Refuses a batch that does not divide, since its mean would not be the mean of the shares' means.

        Args:
            batch_size: Patches a batch, of all processes together.
            parts: Parts into which each process splits its share.

        Raises:
            UsageError: It is not a multiple of the number of processes times `parts`.
        """
        if batch_size % (self.size * parts):
            split = f", {parts} parts each" if parts > 1 else ""
            raise UsageError(
                f"batch size {batch_size} does not divide among {self.size} processes{split}; "
                f"expected a multiple of {self.size * parts} (--batch-size)"
            )


@contextmanager
def _others_may_be_lost() -> Iterator[None]:
    """Says what it means when processes cannot talk to each other."""
    try:
        yield
    except RuntimeError as error:  # all that torch raises there is one
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"another process was lost ({reason}); start all of them again with --auto-resume to go on"
        ) from error


class Watch:
    """Tells when another process is lost, while the context is open.

    A process that waits for a lost one inside a collective operation never returns, and one that is busy is not lost.
    So each gives signs of life from a thread: a number that grows, in a store that all of them see. What counts is how
    often this process has looked in vain: a time in which it was itself stopped does not.

    Args:
        store: Where the signs are: a store of torch, of which `set` and `get` are called.
        rank, size: This process and their count.
        lost_after_s: Seconds without a sign of another after which it is lost.
        on_lost: Called once, from the thread, with a sentence. It is expected to end the process.
    """

    def __init__(
        self, store: Any, *, rank: int, size: int, lost_after_s: float, on_lost: Callable[[str], None]
    ) -> None:
        self._store = store
        self._rank = rank
        self._others = [other for other in range(size) if other != rank]
        self._lost_after_s = lost_after_s
        self._period_s = min(5.0, lost_after_s / 10)
        self._on_lost = on_lost
        self._ended = threading.Event()
        self._quiet_s = dict.fromkeys(self._others, 0.0)
        # two, as a store that is out of reach may hold up whoever speaks to it
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._exchange, self._count)]

    def __enter__(self) -> Watch:
        self._sign("0")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(self._period_s)
        if kind is None:  # after an error the others are to end, too
            with suppress(RuntimeError):  # they have all ended, and the store with them
                self._sign(_ENDED)

    def _sign(self, text: str) -> None:
        self._store.set(f"alive/{self._rank}", text)

    def _exchange(self) -> None:
        """Gives signs, and takes note of new ones."""
        signs: dict[int, bytes] = {}
        number = 0
        while not self._ended.wait(self._period_s):
            number += 1
            with suppress(RuntimeError):  # the store is out of reach for now
                self._sign(str(number))
                for other in self._others:
                    sign: bytes = self._store.get(f"alive/{other}")
                    if sign != signs.get(other) or sign == _ENDED.encode():
                        self._quiet_s[other] = 0.0
                    signs[other] = sign

    def _count(self) -> None:
        """Counts how long the others have been quiet."""
        while not self._ended.wait(self._period_s):
            for other in self._others:
                self._quiet_s[other] += self._period_s
                if self._quiet_s[other] > self._lost_after_s:
                    self._on_lost(
                        f"process {other} was silent for {self._lost_after_s:g} s (--lost-after); "
                        "start all of them again with --auto-resume to go on"
                    )
                    return


_ENDED = "ended"
"""Sign of a process that has ended in order."""


@contextmanager
def joined(
    device: str = "auto", *, on_lost: Callable[[str], None], lost_after_s: float = LOST_AFTER_S
) -> Iterator[World]:
    """Joins the processes of ``torchrun`` while the context is open. Without torchrun there is a world of one.

    Args:
        device: As users name it: ``auto`` gives each process a GPU of its own where there are any, else the CPU.
        on_lost: Called from another thread where a process is lost; see `Watch`.
        lost_after_s: Seconds without a sign of a process after which it is lost.

    Yields:
        This process among its equals.

    Raises:
        UsageError: There are more processes than GPUs, or another device was asked for.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device is {device!r} under torchrun; expected auto, cpu or cuda: each process takes its own"
        )
    cuda = device != "cpu" and torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK") or os.environ["RANK"])
    if cuda:
        count = torch.cuda.device_count()
        if local >= count:
            raise UsageError(f"torchrun started process {local} for {count} GPUs; expected at most one for each")
        torch.cuda.set_device(local)
    rank = int(os.environ["RANK"])
    met, signs = _stores(lost_after_s)
    with Watch(signs, rank=rank, size=size, lost_after_s=lost_after_s, on_lost=on_lost):
        dist.init_process_group(
            "nccl" if cuda and dist.is_nccl_available() else "gloo",
            store=met,
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
        try:
            yield World(rank=rank, size=size, local_rank=local)
        finally:
            dist.destroy_process_group()


def _stores(lost_after_s: float) -> tuple[Any, Any]:
    """Returns the store at which processes meet, and one for their signs of life.

    That has a connection of its own, as others may wait on theirs. A restarted group has keys of its own: torchrun may
    leave it the store of the last one, with the addresses of processes that are no more.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    met, _rank, _size = next(dist.rendezvous("env://", timeout=MEETING))  # type: ignore[attr-defined]
    tcp = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=datetime.timedelta(seconds=min(30.0, lost_after_s)),
    )
    with_prefix: Callable[[str, Any], Any] = dist.PrefixStore  # type: ignore[attr-defined]
    return with_prefix(f"met/{attempt}", met), with_prefix(f"signs/{attempt}", tcp)
