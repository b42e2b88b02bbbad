"""``sr-upscale doctor``: what this installation is, what it will use and why, and whether it works."""

from __future__ import annotations

from sr_upscale.cli import options as opt
from sr_upscale.cli.console import Console


def doctor(device: opt.Device = "auto", as_json: opt.Json = False, debug: opt.Debug = False) -> int:
    """Check the installation: versions, devices, number type and why, weights and their hashes, a run."""
    del debug  # it acts when it is parsed
    console = Console(as_json=as_json)
    with console.progress("looking"):  # it stands before torch is imported
        from sr_upscale.benchmark.checkup import check_up, in_words

        report = check_up(device)
    console.result(report, in_words(report))
    return 1 if report["problems"] else 0
