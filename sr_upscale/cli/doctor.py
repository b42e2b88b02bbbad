"""``sr-upscale doctor``: what this installation is, what it will use and why, and whether it works."""

from __future__ import annotations

import platform
import time
from importlib import metadata
from typing import Any

from sr_upscale import __version__
from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.errors import SrUpscaleError
from sr_upscale.formatting import mebibytes, shown
from sr_upscale.pretrained.registry import TABLE, weights_folder
from sr_upscale.storage.atomic import cache_folder, hash_file

LIBRARIES = ("torch", "ncnn", "numpy", "pillow", "pyvips", "safetensors", "typer")


def doctor(device: opt.Device = "auto", as_json: opt.Json = False, debug: opt.Debug = False) -> int:
    """Check the installation and show what it will use.

    Prints versions, devices, the number type and why, hashes of weights, and the speed of a short run."""
    del debug  # it acts when it is parsed
    console = Console(as_json=as_json)
    with console.progress("checking"):  # it stands before torch is imported
        report = check_up(device)
    console.result(report, format_report(report))
    return 1 if report["problems"] else 0


def check_up(device: str) -> dict[str, Any]:
    """Gathers versions, folders, hashes of weights, and a run on `device`; ready for JSON.

    What is wrong stands under ``problems``, as sentences.
    """
    report: dict[str, Any] = {
        "sr_upscale": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "libvips": _libvips(),
        "weights_folder": str(weights_folder()),
        "cache_folder": str(cache_folder()),
        "weights": {entry.name: hash_file(entry.path) if entry.path.is_file() else "missing" for entry in TABLE},
    }
    problems = [f"weights {name} are missing" for name, found in report["weights"].items() if found == "missing"]
    if _libvips() is None:
        problems.append(
            "libvips does not load: 16-bit files and JPEG, PNG, TIFF cannot be read; reinstall pyvips[binary]"
        )
    try:
        report |= _run(device)
    except (SrUpscaleError, RuntimeError) as error:
        problems.append(f"the test run failed: {error}")
    report["problems"] = problems
    return report


def format_report(report: dict[str, Any]) -> list[str]:
    """Formats the report of `check_up` as lines."""
    versions = ", ".join(f"{name} {found}" for name, found in report["libraries"].items())
    lines = [
        f"sr-upscale {report['sr_upscale']}, Python {report['python']}, {report['system']}",
        f"libraries  {versions}, libvips {report['libvips'] or 'missing'}",
        f"cache      {shown(report['cache_folder'])}",
        f"weights    {shown(report['weights_folder'])}",
        *(f"           {name} sha256 {found}" for name, found in report["weights"].items()),
    ]
    if "device" in report:
        agreement, smoke = report["dtype_agreement_db"], report["smoke_run"]
        agrees = f"; agrees with fp32 to {agreement} dB" if agreement is not None else ""
        lines += [
            f"devices    {(chr(10) + ' ' * 11).join(report['devices'])}",
            f"backend    {report['backend']}: {report['backend_reason']}",
            f"device     {report['device']}: {report['device_reason']}; threads: {report['threads']}; "
            f"{mebibytes(report['free_memory_bytes'])} free",
            f"type       {report['dtype']}: {report['dtype_reason']}{agrees}",
            f"smoke run  {smoke['model']}, {smoke['input']}: {smoke['seconds']} s, "
            f"{smoke['output_megapixels_per_s']} MPix/s",
        ]
    problems = [f"PROBLEM    {problem}" for problem in report["problems"]]
    return lines + (problems or ["no problems found"])


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _libvips() -> str | None:
    try:
        import pyvips
    except (ImportError, OSError):
        return None
    return ".".join(str(pyvips.version(part)) for part in range(3))


def _run(device: str) -> dict[str, Any]:
    import numpy as np
    import torch

    from sr_upscale.device import cpu_threads, free_memory, list_devices
    from sr_upscale.functional.planes import on_host
    from sr_upscale.inference.loaded_networks import agreement_db
    from sr_upscale.upscaler import Upscaler

    engine = Upscaler(device=device).engine
    choice = engine.choice
    scale = max(engine.planner.weights)
    network = engine.networks.get(engine.planner.weights[scale], choice.dtype)
    exact = engine.networks.get(engine.planner.weights[scale], "float32")
    dtype = str(network.dtype).removeprefix("torch.")
    agreement = agreement_db(network, exact) if dtype != "float32" else None
    reason = choice.dtype_reason
    if dtype != choice.dtype:
        reason = "half precision does not agree with fp32 here"
    tile = np.full((1, 3, 128, 128), 0.5, np.float32)
    network(tile)
    start = time.monotonic()
    on_host(network(tile))
    seconds = time.monotonic() - start
    return {
        "devices": list_devices(),
        "backend": engine.backend,
        "backend_reason": engine.backend_reason,
        "device": str(choice.device),
        "device_reason": choice.device_reason,
        "dtype": dtype,
        "dtype_reason": reason,
        "dtype_agreement_db": round(agreement, 1) if agreement is not None else None,
        "free_memory_bytes": free_memory(choice.device),
        "threads": torch.get_num_threads() if engine.backend == "torch" else cpu_threads(),
        "smoke_run": {
            "model": engine.planner.weights[scale].stem,
            "input": "128x128",
            "seconds": round(seconds, 4),
            "output_megapixels_per_s": round(128 * 128 * scale**2 / 1e6 / seconds, 2),
        },
    }
