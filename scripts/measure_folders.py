"""Measures what a large folder costs where everything is done: plan, manifest, resume, memory (docs/many-machines.md).

    python scripts/measure_folders.py 10000 100000

The pictures are tiny, and their outputs are copies, noted in a manifest as if they had been made.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from many_processes import nearest_weights
from PIL import Image

RESUME = """
import json, resource, sys, time
from pathlib import Path
import torch
from sr_upscale.pipeline.batch_plan import plan_folder, refuse_unwritable
from sr_upscale.pipeline.batch_run import run_batch
from sr_upscale.pipeline.executor import LocalExecutor
from sr_upscale.pipeline.ledger import Ledger
from sr_upscale.pipeline.request import request_of

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

folder, weights = Path(sys.argv[1]), sys.argv[2]
executor = LocalExecutor(request_of({"model": weights}))
said, start = {"start_mib": memory()}, time.monotonic()

def note(name):
    global start
    said[f"{name}_s"], said[f"{name}_mib"] = round(time.monotonic() - start, 2), memory()
    start = time.monotonic()

plan = plan_folder(folder / "in", folder / "out")
note("plan")
refuse_unwritable([item.target for item in plan.items])
note("check")
Ledger(plan, executor.fingerprint)
note("manifest")
outcomes = run_batch(plan, executor, jobs=executor.jobs)
note("resume")
said["statuses"] = sorted({each.status for each in outcomes})
print(json.dumps(said))
"""


def make(folder: Path, count: int) -> Path:
    """Makes pictures, outputs, weights and the manifest, 1000 pictures in a folder; returns the weights' path."""
    weights = folder / "nearest-x2.safetensors"
    nearest_weights(weights)
    from sr_upscale.pipeline.batch_plan import Item
    from sr_upscale.pipeline.executor import LocalExecutor
    from sr_upscale.pipeline.manifest import MANIFEST, Manifest, stamp_of
    from sr_upscale.pipeline.request import request_of
    from sr_upscale.storage.digest import hash_file

    first = folder / "first.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(first)
    data, sha256 = first.read_bytes(), hash_file(first)
    manifest = Manifest(folder / "out", LocalExecutor(request_of({"model": str(weights)})).fingerprint)
    with (folder / "lines").open("w") as file:
        for number in range(count):
            name = f"{number // 1000:04}/{number:07}.png"
            item = Item(source=folder / "in" / name, target=folder / "out" / name)
            for path in (item.source, item.target):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            line = {"output": manifest.key(item), "input": str(item.source)}
            stamps = {"input_stamp": stamp_of(item.source), "output_stamp": stamp_of(item.target)}
            hashes = {"input_sha256": sha256, "output_sha256": sha256, "settings": manifest.settings}
            file.write(json.dumps(line | stamps | hashes) + "\n")
    (folder / "lines").rename(folder / "out" / MANIFEST)
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", type=int, nargs="+", help="how many pictures")
    for count in parser.parse_args().counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            weights = make(folder, count)
            start = time.monotonic()
            ran = subprocess.run(
                [sys.executable, "-c", RESUME, str(folder), str(weights)], capture_output=True, text=True, check=True
            )
            said = json.loads(ran.stdout)
            size = os.stat(folder / "out" / ".sr-upscale.jsonl").st_size
            sys.stdout.write(f"{count}: {time.monotonic() - start:.1f} s in all, manifest {size >> 20} MiB, {said}\n")


if __name__ == "__main__":
    main()
