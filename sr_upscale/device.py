"""Where to compute and in which type; how much memory is free; what an out-of-memory error is.

torch is imported where a device is its own, and ncnn where one speaks Vulkan.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import psutil

from sr_upscale.errors import UsageError
from sr_upscale.formatting import extra, mebibytes

DtypeName = Literal["auto", "fp32", "bf16", "fp16"]

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Number types as torch and NumPy call them, by the name of the option."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device.

    Attributes:
        type: ``cpu``, ``cuda``, ``mps`` or ``vulkan``.
        index: Its number among those of this type, from 0; None where there is but one.
    """

    type: str
    index: int | None = None

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"


CPU = Device(type="cpu")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A device and a type (one of the values of `DTYPES`), and why."""

    device: Device
    dtype: str
    device_reason: str
    dtype_reason: str


def choose(device: str = "auto", dtype: str = "auto") -> Choice:
    """Chooses a device and a number type.

    Args:
        device: ``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or a bare number for that
            CUDA device. ``vulkan`` or ``vulkan:1`` is for ncnn.
        dtype: ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        UsageError: No such device here, or the device cannot compute in that type.
    """
    chosen, device_reason = _choose_device(device)
    wanted, dtype_reason = _choose_dtype(chosen, dtype)
    return Choice(device=chosen, dtype=wanted, device_reason=device_reason, dtype_reason=dtype_reason)


def _choose_device(name: str) -> tuple[Device, str]:
    if name == "cpu":
        return CPU, "requested"
    if name == "auto":
        return _automatic_device()
    kind, _, number = f"cuda:{name}".partition(":") if name.isdecimal() else name.partition(":")
    numbered = number.isascii() and number.isdecimal() and len(number) < 6
    if kind not in ("cuda", "mps", "vulkan") or (":" in name and not numbered) or (kind == "mps" and number):
        raise UsageError(f"no device {name!r}; expected auto, cpu, cuda, cuda:1, mps, vulkan or vulkan:1")
    device = Device(type=kind, index=int(number) if numbered else None)
    if kind == "vulkan":
        return _vulkan_device(device.index or 0)
    _check_torch_device(device, name)
    return device, "requested"


def _check_torch_device(device: Device, name: str) -> None:
    import torch

    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"device {name}: CUDA is not available here; use cpu, or see `sr-upscale doctor`")
        if (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"device {name}: there are {torch.cuda.device_count()} CUDA devices, numbered from 0")
    elif not torch.backends.mps.is_available():
        raise UsageError("device mps: Apple's Metal is not available here; use cpu")


def _automatic_device() -> tuple[Device, str]:
    import torch

    if torch.cuda.is_available():
        return Device(type="cuda", index=0), "CUDA is available"
    if torch.backends.mps.is_available():
        return Device(type="mps"), "MPS is available"
    return CPU, "neither CUDA nor MPS is available"


def _vulkan_device(index: int) -> tuple[Device, str]:
    count = len(vulkan_cards())
    if index >= max(count, 1):
        raise UsageError(f"device vulkan:{index}: there are {count} Vulkan devices, numbered from 0")
    if not count:
        return CPU, "asked for Vulkan, and there is no device that speaks it"
    return Device(type="vulkan", index=index), "requested"


def _choose_dtype(device: Device, name: str) -> tuple[str, str]:
    if name not in get_args(DtypeName):
        raise UsageError(f"no number type {name!r}; expected {', '.join(get_args(DtypeName))}")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 needs a GPU; use --bf16 or --fp32 on the CPU")
    if name != "auto":
        return DTYPES[name], "requested"
    if device.type == "vulkan":
        return "float32", "fp16 changes pixels by up to 3 levels of 255; --fp16 asks for it"
    if device.type == "cuda":
        return "float16", "CUDA computes half precision fast; tiles that overflow are redone in fp32"
    if device.type == "cpu" and cpu_has_bf16():
        return "bfloat16", "this CPU has bf16 instructions"
    if device.type == "cpu":
        return "float32", "this CPU has no bf16 instructions"
    return "float32", "MPS is fast and exact enough only in fp32"


def may_have_gpu_of_torch() -> bool:
    """Says, without importing torch, whether there might be a GPU that it computes on (CUDA, ROCm, Metal)."""
    if "torch" in sys.modules:
        return True
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    if platform.system() == "Windows":
        return Path(os.environ.get("SYSTEMROOT", "C:\\Windows"), "System32", "nvcuda.dll").exists()
    return any(Path("/dev", name).exists() for name in ("nvidiactl", "kfd", "dxg"))


def list_devices() -> list[str]:
    """Lists every device by the name that ``--device`` takes, with its own name and memory. The CPU is the first."""
    lines = [f"cpu (threads: {cpu_threads()}), {mebibytes(psutil.virtual_memory().total)}"]
    if may_have_gpu_of_torch():
        import torch

        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            lines.append(f"cuda:{index} {card.name}, {mebibytes(card.total_memory)}")
        lines += ["mps (in the memory of the CPU)"] * torch.backends.mps.is_available()
    if has_ncnn():
        lines += [
            f"vulkan:{index} {card.name}, {mebibytes(card.heap_bytes)}" + " (a program on the CPU)" * card.software
            for index, card in enumerate(vulkan_cards())
        ]
    return lines


def has_bf16(device_type: str) -> bool:
    """Says whether devices of a type multiply bf16 in hardware. For MPS the answer is no."""
    if device_type == "cuda":
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device_type == "cpu" and cpu_has_bf16()


@functools.cache
def cpu_has_bf16() -> bool:
    """Says whether the CPU multiplies bf16 in hardware (AVX512-BF16, AMX-BF16, or Arm's BF16).

    Detected on Linux alone; False on other systems.
    """
    if platform.system() != "Linux":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    flags = {word for line in text.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def free_memory(device: Device) -> int:
    """Returns the bytes that may still be allocated on the device. For the CPU and MPS they are of host memory."""
    host = min(int(psutil.virtual_memory().available), _cgroup_headroom(), _address_space())
    if device.type == "vulkan":
        card = vulkan_cards()[device.index or 0]
        return min(card.heap_bytes, host) if card.software else card.heap_bytes
    if device.type == "cuda":
        import torch

        free, _total = torch.cuda.mem_get_info(str(device))
        reserved = torch.cuda.memory_reserved(str(device)) - torch.cuda.memory_allocated(str(device))
        return int(free + reserved)
    return host


def cpu_threads() -> int:
    """Returns how many threads compute on the CPU: ``OMP_NUM_THREADS``, else one for each core that is ours."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else psutil.cpu_count(logical=False) or 1


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


def _address_space() -> int:
    """Returns the bytes that ``ulimit -v`` leaves, or a very large number without one."""
    limit = getattr(psutil, "RLIMIT_AS", None)  # Linux
    if limit is None:
        return 1 << 62
    process = psutil.Process()
    soft, _hard = process.rlimit(limit)
    return 1 << 62 if soft < 0 else max(0, soft - process.memory_info().vms)


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether an exception means that memory ran out, and nothing else.

    Other CUDA errors (an illegal access, a lost device) also come as RuntimeError. They must not be answered with
    smaller tiles.
    """
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    return (
        "DefaultCPUAllocator: can't allocate memory" in text
        or "DefaultCPUAllocator: not enough memory" in text
        or "MPS backend out of memory" in text
    )


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
        UsageError: It is not installed, or cannot be loaded.
    """
    try:
        import ncnn
    except ImportError as error:
        if has_ncnn():
            raise UsageError(f"ncnn cannot be loaded ({error}); use --backend torch") from error
        raise UsageError(f"ncnn and Vulkan need an extra; {extra('ncnn')}") from error
    return ncnn


DRIVER_BYTES = 1 << 30
"""Address space that a Vulkan driver needs: llvmpipe took 730 MB with a picture of 150x100, and crashed with less."""


@functools.cache
def vulkan_cards() -> tuple[VulkanCard, ...]:
    """Lists the devices that speak Vulkan, in ncnn's order. It is empty without a loader, a driver, or room for one.

    Raises:
        UsageError: ncnn is not installed.
    """
    ncnn = import_ncnn()
    if _address_space() < DRIVER_BYTES:
        return ()
    with silent_stderr():  # ncnn reports on every device, and on there being none
        infos = [ncnn.get_gpu_info(index) for index in range(ncnn.get_gpu_count())]
        budgets = [ncnn.get_gpu_device(index).get_heap_budget() for index in range(len(infos))]
    software = 3  # as ncnn numbers discrete, integrated and virtual devices, and those on the CPU
    return tuple(
        VulkanCard(name=info.device_name(), software=info.type() == software, heap_bytes=budget << 20)
        for info, budget in zip(infos, budgets, strict=True)
    )


_silence = threading.Lock()
_silent_calls = 0


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Keeps a library's own lines from the terminal; any number of threads may ask for it at once.

    With glibc the stream of C is exchanged, and what Python prints meanwhile, in whichever thread, stays. Elsewhere
    file descriptor 2 is, and it is lost.
    """
    global _silent_calls
    with _silence:
        if not _silent_calls:
            _exchange_stderr()()
        _silent_calls += 1
    try:
        yield
    finally:
        with _silence:
            _silent_calls -= 1
            if not _silent_calls:
                _exchange_stderr()()


@functools.cache
def _exchange_stderr() -> Callable[[], None]:
    """Returns what puts the null device in the place of stderr, and, called again, takes it away."""
    import ctypes

    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "gnu_get_libc_version"):  # musl's pointer cannot be written
        libc.fopen.restype = ctypes.c_void_p
        if opened := libc.fopen(os.devnull.encode(), b"w"):
            stream, other = ctypes.c_void_p.in_dll(libc, "stderr"), ctypes.c_void_p(opened)

            def exchange_streams() -> None:
                stream.value, other.value = other.value, stream.value

            return exchange_streams
    nothing = os.open(os.devnull, os.O_WRONLY)

    def exchange_descriptors() -> None:
        kept = os.dup(2)
        os.dup2(nothing, 2)
        os.dup2(kept, nothing, inheritable=False)
        os.close(kept)

    return exchange_descriptors
