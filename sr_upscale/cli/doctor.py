"""``sr-upscale doctor``: what this installation is, what it will use and why, and whether it works."""

from __future__ import annotations

from typing import Any

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console
from sr_upscale.formatting import mebibytes, shown


def doctor(device: opt.Device = "auto", as_json: opt.Json = False, debug: opt.Debug = False) -> int:
    """Check the installation: versions, devices, number type and why, weights and their hashes, a run."""
    del debug  # they act when they are parsed
    console = Console(as_json=as_json)
    with console.progress("looking"):  # it stands before torch is imported
        from sr_upscale.benchmark.checkup import check_up

        report = check_up(device)
    console.result(report)
    if not as_json:
        _say(report, console)
    return 1 if report["problems"] else 0


def _say(report: dict[str, Any], console: Console) -> None:
    console.line(f"sr-upscale {report['sr_upscale']}, Python {report['python']}, {report['system']}")
    versions = ", ".join(f"{name} {found}" for name, found in report["libraries"].items())
    console.line(f"libraries  {versions}, libvips {report['libvips'] or 'missing'}")
    console.line(f"cache      {shown(report['cache_folder'])}")
    console.line(f"weights    {shown(report['weights_folder'])}")
    for name, found in report["weights"].items():
        console.line(f"           {name} sha256 {found}")
    if "device" in report:
        console.line(f"devices    {', '.join(report['devices'])}")
        console.line(
            f"device     {report['device']}: {report['device_reason']}; {report['threads']} threads, "
            f"{mebibytes(report['free_memory_bytes'])} free"
        )
        agreement = report["dtype_agreement_db"]
        agrees = f"; agrees with fp32 to {agreement} dB" if agreement is not None else ""
        console.line(f"type       {report['dtype']}: {report['dtype_reason']}{agrees}")
        smoke = report["smoke_run"]
        console.line(
            f"smoke run  {smoke['model']}, {smoke['input']}: {smoke['seconds']} s, "
            f"{smoke['output_megapixels_per_s']} MPix/s"
        )
    for problem in report["problems"]:
        console.line(f"PROBLEM    {problem}")
    if not report["problems"]:
        console.line("all good")
