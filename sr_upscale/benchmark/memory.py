"""Peak memory of one method, in a process of its own: in a shared one, what one model freed serves the next."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from sr_upscale.errors import SrUpscaleError

_PROBE = """
import json, resource, sys
from pathlib import Path
import psutil
import numpy as np
from sr_upscale.benchmark.methods import make_method
model, scale, height, width, channels, options = json.loads(sys.argv[1])
method = make_method(model, scale, **options)
picture = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
before = psutil.Process().memory_info().rss
if sys.platform == "linux":  # ru_maxrss is inherited from the parent there
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    method.run(picture)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
else:
    method.run(picture)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak - before)
"""


def host_peak_bytes(
    model: str, scale: int, shape: tuple[int, int, int], options: Mapping[str, Any], *, timeout_s: float = 600
) -> int | None:
    """Measures what a first run adds at most to a process that has loaded the program.

    Args:
        model, scale: As `make_method` takes them.
        shape: (H, W, C) of the picture to run on.
        options: Other arguments of `make_method`, ready for JSON.
        timeout_s: Seconds after which the process is given up.

    Returns:
        Bytes. None where they cannot be measured (Windows has no such counter).

    Raises:
        SrUpscaleError: The process failed, or took too long.
    """
    if sys.platform == "win32":
        return None
    arguments = json.dumps([model, scale, *shape, dict(options)])
    words = [sys.executable, "-c", _PROBE, arguments]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise SrUpscaleError(f"measuring the memory of {model} took more than {timeout_s:g} s") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        raise SrUpscaleError(f"measuring the memory of {model} failed: {reason[:200]}")
    return max(0, int(done.stdout.split()[-1]))
