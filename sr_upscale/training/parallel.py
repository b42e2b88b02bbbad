"""Several processes that train one model: each makes its share of every batch, and gradients are averaged.

They are started by ``torchrun``; on one process everything here does nothing. Gradients are averaged after the backward
pass instead of during it: the generator is small, and two networks with several forward passes a step stay easy to
follow. The processes must agree on the time and on a signal to stop; they do so once a step.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as dist_functional

from sr_upscale.errors import UsageError

PATIENCE = datetime.timedelta(hours=2)
"""How long processes wait for one that decodes pictures or validates."""


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among its equals.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

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
        total: Tensor = dist_functional.all_reduce(local)  # type: ignore[no-untyped-call]
        return total / self.size

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces gradients by their mean over all processes, in place.

        Args:
            parameters: Parameters in the same order in every process; those without a gradient are left out.
        """
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        means = torch.split(flat, [each.numel() for each in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agree(self, *values: float) -> tuple[float, ...]:
        """Returns the largest of each value over all processes."""
        if self.size == 1:
            return values
        device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
        joint = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(joint, op=dist.ReduceOp.MAX)
        return tuple(joint.tolist())

    def barrier(self) -> None:
        """Waits for the others."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def first(self) -> Iterator[None]:
        """Lets the first process do what is inside before the others do it, so that they find its files."""
        if self.rank > 0:
            self.barrier()
        yield
        if self.rank == 0:
            self.barrier()

    def check_batch(self, batch_size: int) -> None:
        """Refuses a batch that does not divide, since its mean would not be the mean of the shares' means.

        Args:
            batch_size: Patches a batch, of all processes together.

        Raises:
            UsageError: It is not a multiple of the number of processes.
        """
        if batch_size % self.size:
            raise UsageError(
                f"batch size {batch_size} does not divide among {self.size} processes; "
                f"expected a multiple of {self.size} (--batch-size)"
            )


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """Joins the processes of ``torchrun`` while the context is open. Without torchrun there is a world of one.

    Args:
        device: As users name it: ``auto`` gives each process a GPU of its own where there are any, else the CPU.

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
    if cuda:
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= count:
            raise UsageError(f"torchrun started process {local} for {count} GPUs; expected at most one for each")
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield World(rank=dist.get_rank(), size=size)
    finally:
        dist.destroy_process_group()


def joint_norms(model: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Makes batch norms count the joint batch.

    Returns:
        The model with such norms. Torch has them for CUDA alone; elsewhere it is the model as it was.
    """
    if world.size > 1 and device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    return model
