"""Graphics cards that speak Vulkan, as ncnn finds them; and whether ncnn is there."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sr_upscale.errors import UsageError
from sr_upscale.formatting import extra


class DeviceLostError(RuntimeError):
    """A graphics card that does not answer any more: its driver was reset, or it is gone."""


@dataclass(frozen=True, kw_only=True)
class VulkanCard:
    """A device that speaks Vulkan.

    Attributes:
        name: As its driver calls it.
        software: Whether it is a program on the CPU, such as llvmpipe.
        heap_bytes: What may be allocated on it.
    """

    name: str
    software: bool
    heap_bytes: int


def has_ncnn() -> bool:
    """Says whether ncnn is installed. Does not import it."""
    from importlib.util import find_spec

    try:
        return find_spec("ncnn") is not None
    except ValueError:  # a module that tests put in its place
        return False


def import_ncnn() -> Any:
    """Imports ncnn.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import ncnn
    except ImportError as error:
        raise UsageError(f"ncnn and Vulkan need an extra; {extra('ncnn')}") from error
    return ncnn


@functools.cache
def vulkan_cards() -> tuple[VulkanCard, ...]:
    """Lists the devices that speak Vulkan, in ncnn's order. It is empty without a loader or a driver.

    Raises:
        UsageError: ncnn is not installed.
    """
    ncnn = import_ncnn()
    with silent_stderr():  # ncnn reports on every device, and on there being none
        infos = [ncnn.get_gpu_info(index) for index in range(ncnn.get_gpu_count())]
        budgets = [ncnn.get_gpu_device(index).get_heap_budget() for index in range(len(infos))]
    software = 3  # as ncnn numbers discrete, integrated and virtual devices, and those on the CPU
    return tuple(
        VulkanCard(name=info.device_name(), software=info.type() == software, heap_bytes=budget << 20)
        for info, budget in zip(infos, budgets, strict=True)
    )


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Keeps a library's own lines from the terminal."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
