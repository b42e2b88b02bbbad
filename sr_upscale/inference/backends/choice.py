"""Which backend computes, on which device and in which number type, and why. Nothing is loaded here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from sr_upscale.device import CPU, Choice, Device, choose, cpu_has_bf16, has_ncnn, may_have_gpu_of_torch, vulkan_cards
from sr_upscale.errors import UsageError
from sr_upscale.formatting import shortened
from sr_upscale.inference.backends import BACKENDS

SMALL_PIXELS, SMALL_PIXELS_HALF = 384 * 384, 256 * 256
"""Pictures of at most so many LR pixels are enlarged by ncnn on a CPU without bf16 and with it.

On larger ones torch, in bf16, makes up for the time in which it is imported, and ncnn takes more memory than torch with
its import (docs/speed.md)."""

FP32_ON_CPU = {"onnxruntime": "ONNX Runtime", "ncnn": "ncnn"}
"""Backends that compute in fp32 alone on a CPU, by the names of the programs."""


@dataclass(frozen=True, kw_only=True)
class BackendChoice:
    """A backend, its device and number type.

    Attributes:
        backend: One of `BACKENDS`.
        choice: Device and number type.
        reason: Why this backend.
    """

    backend: str
    choice: Choice
    reason: str


def choose_backend(
    backend: str, device: str, dtype: str, *, ncnn_runs: Callable[[bool], bool], pixels: int | None = None
) -> BackendChoice:
    """Chooses what computes.

    ``auto`` takes torch where it has a GPU; else ncnn where a graphics card speaks Vulkan; else, on the CPU, ncnn for a
    single small picture, which is done before torch would be imported, and torch for the rest.

    Args:
        backend: ``auto`` or one of `BACKENDS`.
        device: See `device.choose`.
        dtype: See `device.choose`.
        ncnn_runs: Says whether ncnn can run the networks; called with whether a graphics card waits for them, which is
            worth converting those of others.
        pixels: LR pixels where one picture is all there is to do, else None.

    Raises:
        UsageError: No such backend, device or number type here, or they do not go together.
    """
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"no backend {shortened(backend)!r}; expected one of auto, {', '.join(BACKENDS)}")
    reason, named = "asked for", device
    if backend == "auto":
        backend, device, reason = _automatic(device, dtype, ncnn_runs=ncnn_runs, pixels=pixels)
    elif device == "auto" and backend != "torch":
        card = _first_card() if backend == "ncnn" else None
        device = "cpu" if card is None else str(card)
    wanted = "cpu" if device.startswith("cpu") else device.partition(":")[0]
    if (wanted == "vulkan") != (backend == "ncnn") and wanted != "cpu":
        can = {"torch": "on the CPU, CUDA or MPS", "ncnn": "on the CPU or by Vulkan"}.get(backend, "on the CPU")
        raise UsageError(f"backend {backend} runs {can}, not on {shortened(device)}; use --device cpu")
    choice = choose(device, dtype)
    if named == "auto" and choice.device == CPU:
        choice = dataclasses.replace(choice, device_reason="no graphics card is here that torch or ncnn computes on")
    return BackendChoice(backend=backend, choice=_fitting(backend, choice, dtype), reason=reason)


def _automatic(
    device: str, dtype: str, *, ncnn_runs: Callable[[bool], bool], pixels: int | None
) -> tuple[str, str, str]:
    """Chooses a backend, a device and says why."""
    if device.startswith("vulkan"):
        return "ncnn", device, "it speaks Vulkan"
    if device not in ("auto", "cpu") or (device == "auto" and _torch_has_gpu()):
        return "torch", device, "it computes on this device"
    if not has_ncnn():
        return "torch", "cpu", "ncnn is not installed"
    card = _first_card() if device == "auto" and dtype != "bf16" else None
    if not ncnn_runs(card is not None):
        return "torch", "cpu", "ncnn does not run this model"
    if card is not None:
        return "ncnn", str(card), "the graphics card speaks Vulkan"
    most = SMALL_PIXELS_HALF if dtype in ("auto", "bf16") and cpu_has_bf16() else SMALL_PIXELS
    if dtype in ("auto", "fp32") and pixels is not None and pixels <= most:
        return "ncnn", "cpu", "the picture is small, and ncnn starts at once"
    return "torch", "cpu", "it is faster for large and for many pictures"


def _torch_has_gpu() -> bool:
    return may_have_gpu_of_torch() and choose().device != CPU


def _first_card() -> Device | None:
    """Finds the first graphics card that speaks Vulkan and is no program."""
    if not has_ncnn():
        return None
    number = next((index for index, card in enumerate(vulkan_cards()) if not card.software), None)
    return None if number is None else Device(type="vulkan", index=number)


def _fitting(backend: str, choice: Choice, dtype: str) -> Choice:
    """Returns the choice in a number type in which the backend computes."""
    name = FP32_ON_CPU.get(backend)
    if name is None or choice.dtype == "float32" or (choice.device.type == "vulkan" and choice.dtype == "float16"):
        return choice
    if dtype != "auto":
        other = "--backend torch" if backend == "ncnn" else "--backend openvino"
        raise UsageError(f"{name} computes in fp32 here; leave out --{dtype}, or use {other}")
    return dataclasses.replace(choice, dtype="float32", dtype_reason=f"{name} computes in fp32 here")
