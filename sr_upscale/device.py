"""Where to compute and in which type; how much memory is free; what an out-of-memory error is."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import psutil
import torch

from sr_upscale.errors import UsageError

DtypeName = Literal["auto", "fp32", "bf16", "fp16"]

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A device and a type, and why."""

    device: torch.device
    dtype: torch.dtype
    device_reason: str
    dtype_reason: str


def choose(device: str = "auto", dtype: str = "auto") -> Choice:
    """Chooses a device and a number type by what users ask for.

    Args:
        device: ``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or a bare number for that
            CUDA device.
        dtype: ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        UsageError: No such device here, or the device cannot compute in that type.
    """
    chosen, device_reason = _choose_device(device)
    wanted, dtype_reason = _choose_dtype(chosen, dtype)
    return Choice(device=chosen, dtype=wanted, device_reason=device_reason, dtype_reason=dtype_reason)


def _choose_device(name: str) -> tuple[torch.device, str]:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0), "CUDA is available"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "MPS is available"
        return torch.device("cpu"), "neither CUDA nor MPS is available"
    try:
        device = torch.device(f"cuda:{name}" if name.isdecimal() else name)
    except RuntimeError as error:
        raise UsageError(f"no device {name!r}; expected auto, cpu, cuda, cuda:1 or mps") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"device {name}: CUDA is not available here; use cpu, or see `sr-upscale doctor`")
        if (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"device {name}: there are {torch.cuda.device_count()} CUDA devices, numbered from 0")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError("device mps: Apple's Metal is not available here; use cpu")
    elif device.type != "cpu":
        raise UsageError(f"no device {name!r}; expected auto, cpu, cuda, cuda:1 or mps")
    return device, "asked for"


def _choose_dtype(device: torch.device, name: str) -> tuple[torch.dtype, str]:
    if name not in get_args(DtypeName):
        raise UsageError(f"no number type {name!r}; expected {', '.join(get_args(DtypeName))}")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 needs a GPU; use --bf16 or --fp32 on the CPU")
    if name != "auto":
        return DTYPES[name], "asked for"
    if device.type == "cuda":
        return torch.float16, "CUDA computes half precision fast; tiles that overflow are redone in fp32"
    if device.type == "cpu" and cpu_has_bf16():
        return torch.bfloat16, "this CPU has bf16 instructions"
    if device.type == "cpu":
        return torch.float32, "this CPU has no bf16 instructions"
    return torch.float32, "MPS is fast and exact enough only in fp32"


def has_bf16(device: torch.device) -> bool:
    """Says whether the device multiplies bf16 in hardware. For MPS the answer is no."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_has_bf16()


@functools.cache
def cpu_has_bf16() -> bool:
    """Says whether the CPU multiplies bf16 in hardware (AVX512-BF16, AMX-BF16, or Arm's BF16).

    Only Linux is asked; elsewhere the answer is no.
    """
    if platform.system() != "Linux":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    flags = {word for line in text.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def free_memory(device: torch.device) -> int:
    """Returns the bytes that may still be allocated on the device. For the CPU and MPS they are of host memory."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + reserved)
    return min(int(psutil.virtual_memory().available), _cgroup_headroom())


CGROUP = Path("/sys/fs/cgroup")


def _cgroup_headroom() -> int:
    """Returns the bytes that a container's memory limit leaves (cgroup v2), or a very large number without one.

    Pages of files that were read or written count as used, but are given up when memory is wanted. So they are free
    here.
    """
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit == "max":
            return 1 << 62
        used = int((CGROUP / "memory.current").read_text())
        lines = (line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        given_up = sum(int(value) for key, value in lines if key in ("active_file", "inactive_file"))
        return max(0, int(limit) - max(0, used - given_up))
    except (OSError, ValueError):
        return 1 << 62


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether an exception means that memory ran out, and nothing else.

    Other CUDA errors (an illegal access, a lost device) also come as RuntimeError. They must not be answered with
    smaller tiles.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    return (
        "DefaultCPUAllocator: can't allocate memory" in text
        or "DefaultCPUAllocator: not enough memory" in text
        or "MPS backend out of memory" in text
    )
