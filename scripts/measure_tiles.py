"""What tiles cost and what they change, for docs/tiling.md: by halo, by size, and in memory.

python scripts/measure_tiles.py PICTURE [MODEL]
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from sr_upscale.images import load_image
from sr_upscale.inference.memory import bytes_per_pixel
from sr_upscale.inference.planning import HALO, OVERLAP
from sr_upscale.upscaler import Upscaler


def main() -> None:
    """Prints three tables."""
    pixels = np.asarray(load_image(Path(sys.argv[1])).frames[0].pixels_hwc)[:, :, :3]
    model = sys.argv[2] if len(sys.argv) > 2 else "psnr-x4"
    say(f"{model} on {pixels.shape[1]}x{pixels.shape[0]}, {torch.get_num_threads()} threads")
    memory(model)
    crop = pixels[:384, :384].copy()
    whole = Upscaler(model, dtype="fp32", tile_size=0)(crop).astype(int)
    say(
        "| halo | overlap | largest difference from the whole picture, of 255 | values that differ |\n|---|---|---|---|"
    )
    for halo, overlap in ((0, 0), (4, OVERLAP), (8, OVERLAP), (16, OVERLAP), (HALO, OVERLAP), (32, OVERLAP), (66, 0)):
        tiled = Upscaler(model, dtype="fp32", tile_size=64, overlap=overlap, halo=halo)(crop)
        difference = np.abs(tiled - whole)
        say(f"| {halo} | {overlap} | {difference.max()} | {(difference > 0).mean():.2%} |")
    say("| tile | type | output, MPix/s |\n|---|---|---|")
    square = pixels[:768, :768].copy()
    for dtype, tile_size in (("bf16", 128), ("bf16", 256), ("bf16", 384), ("bf16", 768), ("fp32", 256), ("fp32", 384)):
        upscaler = Upscaler(model, dtype=dtype, tile_size=tile_size)
        upscaler(square[:64, :64])
        start = time.monotonic()
        out = upscaler(square)
        say(f"| {tile_size} | {dtype} | {out.shape[0] * out.shape[1] / 1e6 / (time.monotonic() - start):.2f} |")


def memory(model: str) -> None:
    """Peak resident memory of one tile against the estimate. Must run first: the peak never falls again."""
    side = 424
    noise = torch.rand(1, 3, side, side)
    upscaler = Upscaler(model, dtype="fp32")
    scale = max(upscaler.weights)
    network = upscaler.networks.get(upscaler.weights[scale], "float32")
    network(noise[:, :, :32, :32])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network(noise)
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    estimate = bytes_per_pixel(upscaler.traits[upscaler.weights[scale]], half=False) * side**2 / 2**20
    say(f"memory of a tile of {side}x{side} in fp32: {taken:.0f} MiB, estimated {estimate:.0f} MiB")


def say(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
