"""Every figure of docs/speed.md, in one run: ``python scripts/bench.py [--quick] [--json FILE]``.

Nothing else should run meanwhile. What is compared takes turns, so that a machine that slows down slows all.
Medians, and the spread between the fastest and the slowest round. Networks other than ours have random weights, which
makes no difference to speed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from start_time import start, table
from torch import Tensor, nn
from torch.nn import functional

from sr_upscale.benchmark.run import environment
from sr_upscale.device import cpu_has_bf16
from sr_upscale.images import FORMATS, Frame, Picture, load_image, save_image
from sr_upscale.inference.sizing import Target
from sr_upscale.inference.strips import StreamNetwork, fit_rows, stream_rows
from sr_upscale.inference.tiles import run_tiles
from sr_upscale.inference.tiling import plan_tiles
from sr_upscale.models.generator import PRESETS, Generator
from sr_upscale.pipeline import job
from sr_upscale.pipeline.batch_plan import Item, plan_items
from sr_upscale.pipeline.batch_run import run_batch
from sr_upscale.pipeline.executor import LocalExecutor
from sr_upscale.pipeline.request import Request, SizeOptions, request_of
from sr_upscale.pretrained.registry import resolve_weights
from sr_upscale.pretrained.weights_file import load_generator
from sr_upscale.upscaler import Upscaler

EXAMPLE = Path(__file__).parent.parent / "examples" / "chelsea.png"
ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small pictures, no 8000x6000")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--probe", nargs=2, metavar=("PICTURE", "SCALE"), help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, metavar="COUNT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        probe(Path(options.probe[0]), int(options.probe[1]))
        return
    if options.batch:
        with tempfile.TemporaryDirectory() as name:
            say(json.dumps(batch(Path(name), options.batch)))
        return
    side = 256 if options.quick else 1024
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {"machine": environment(), "date": datetime.date.today().isoformat()}
        found["ways"] = ways(side)
        found["networks"] = networks(128 if options.quick else 256)
        found["files"] = files(folder, side)
        sizes = [(256, 256), (1024, 1024)] + ([] if options.quick else [(4096, 2048)])
        found["sizes"] = [{"size": size, **throughput(*size, scale=2)} for size in sizes]
        heights = (200, 400) if options.quick else (1500, 6000)
        found["memory"] = [memory(folder, 8000, height, 2) for height in heights]
        found["memory"] += [memory(folder, 2000, heights[0], 2)]
        found["batch"], found["start"] = in_child("--batch", "20" if options.quick else "200"), start()
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    for line in tables(found):
        say(line)


def ways(side: int) -> dict[str, Any]:
    """The same weights over the same picture in every way there is, in output MPix/s."""
    naive, nhwc, model = (load_generator(resolve_weights("psnr-x4"))[0].eval() for _ in range(3))
    nhwc = nhwc.to(memory_format=torch.channels_last)
    image = photo(side, side)
    plan = plan_tiles(side, side, tile_size=256, overlap=0, halo=model.config.halo)
    rows = fit_rows(side, side, "cpu", half=True)
    strip = image[:, :, :rows]
    networks = {"fp32": StreamNetwork(model)} | (
        {"bf16": StreamNetwork(model, torch.bfloat16)} if cpu_has_bf16() else {}
    )
    compiled = torch.compile(nhwc)

    def stream(network: StreamNetwork) -> Callable[[], int]:
        return lambda: sum(band.numel() for band in stream_rows(network, [image], height=side, rows=rows)) // 3

    def whole(network: Callable[[Tensor], Tensor], picture: Tensor) -> Callable[[], int]:
        return lambda: network(picture).numel() // 3

    candidates: dict[str, Callable[[], int]] = {
        "whole picture, fp32, NCHW": whole(naive, image),
        "tiles of 256 with a halo of 51, fp32": lambda: (
            sum(band.size for band in run_tiles(plan, whole_tile(nhwc), [image], scale=4)) // 3
        ),
        **{f"streaming, {name}": stream(network) for name, network in networks.items()},
        f"one strip of {rows} rows alone, fp32, torch.compile": whole(
            compiled, strip.contiguous(memory_format=torch.channels_last)
        ),
        **{
            f"the ceiling: all convs of one strip of {rows} rows and nothing else, {name}": convs_alone(
                model, rows, side, network.dtype
            )
            for name, network in networks.items()
        },
    }
    return in_turn(candidates)


def convs_alone(model: Generator, rows: int, width: int, dtype: torch.dtype) -> Callable[[], int]:
    """Every conv of the network over the same rows, which stay in the caches: what no way of running it can beat."""
    weights = [module.weight.to(dtype) for module in model.modules() if isinstance(module, nn.Conv2d)]
    weights = [weight.contiguous(memory_format=torch.channels_last) for weight in weights]
    inputs = {
        channels: torch.rand(1, channels, rows, width, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for channels in {weight.shape[1] for weight in weights}
    }

    strips = 20

    def run() -> int:
        for weight in weights * strips:
            functional.conv2d(inputs[weight.shape[1]], weight, padding=weight.shape[2] // 2)
        return strips * rows * width * model.config.scale**2

    return run


def whole_tile(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda tile: network(tile.contiguous(memory_format=torch.channels_last))


def networks(side: int) -> dict[str, Any]:
    """Other networks, each in the way that suits it best: whole small pictures, channels last, bf16 if there is."""
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    image = photo(side, side).contiguous(memory_format=torch.channels_last)
    imdn_size = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        *(layer for _ in range(18) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.LeakyReLU(0.05))),
        nn.Conv2d(64, 48, 3, padding=1),
        nn.PixelShuffle(4),
    )
    others: dict[str, nn.Module] = {
        "RRDBNet, 23 blocks (Real-ESRGAN's way)": RRDBNet(num_filters=64, num_blocks=23, scale=4),
        "compact, 32 convs of 64 (realesr-general's way)": SRVGGNetCompact(num_feat=64, num_conv=32, upscale=4),
        "18 convs of 64, as many parameters as IMDN": imdn_size,
    }
    candidates: dict[str, Callable[[], int]] = {}
    for name, network in others.items():
        last = network.eval().to(memory_format=torch.channels_last)
        candidates[f"{name}, {parameters(network)}"] = in_half(last, image)
    for name, preset in (("the published generator", "published-x4"), ("ours", "ours-x4")):
        generator = Generator(PRESETS[preset]).requires_grad_(False).eval()
        ready = StreamNetwork(generator, torch.bfloat16 if cpu_has_bf16() else torch.float32)
        candidates[f"{name}, {parameters(generator)}"] = in_half(ready, image)
    return in_turn(candidates)


def in_half(network: Callable[[Tensor], Tensor], image: Tensor) -> Callable[[], int]:
    def run() -> int:
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bf16()):
            return network(image).numel() // 3

    return run


def files(folder: Path, side: int) -> dict[str, Any]:
    """PNG in, PNG out, against the executor alone with its pixels already read."""
    source, target = folder / "in.png", folder / "out.png"
    save(source, side, side)
    upscaler = Upscaler("psnr-x4")
    settings = Request(size=SizeOptions(scale=4))
    png = FORMATS["png"]
    prepared = job.prepare(source, png, upscaler, settings)
    area = side * side * 16

    def alone() -> int:
        return sum(band.size for band in upscaler.rows(prepared.picture, prepared.plan)) // 3

    def whole_way() -> int:
        job.run(source, target, png, upscaler, settings)
        return area

    found = in_turn({"rows alone": alone, "from file to file": whole_way})
    share = found["from file to file"]["mpix_s"] / found["rows alone"]["mpix_s"]
    return {**found, "share": round(share, 3)}


def throughput(width: int, height: int, *, scale: int) -> dict[str, float]:
    """Rows of one picture of a size."""
    upscaler = Upscaler(f"psnr-x{scale}")
    pixels = (photo(height, width)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    picture = Picture(frames=(Frame(pixels_hwc=pixels),))
    plan = upscaler.plan(picture, Target(scale=scale), streamed=True)
    return measure(lambda: sum(band.size for band in upscaler.rows(picture, plan)) // 3)


def memory(folder: Path, width: int, height: int, scale: int) -> dict[str, Any]:
    """JPEG in, PNG out, in a process of its own: MPix/s, and the peak above the loaded program against the plan."""
    source = folder / f"{width}x{height}.jpg"
    save(source, width, height)
    found = in_child("--probe", str(source), str(scale))
    source.unlink()
    return {"size": (width, height), "scale": scale, **found}


def in_child(*arguments: str) -> dict[str, Any]:
    """What this script finds in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def probe(source: Path, scale: int) -> None:
    """The child of `memory`."""
    import threading

    import psutil

    upscaler = Upscaler(f"psnr-x{scale}")
    upscaler.networks.get(upscaler.weights[scale], upscaler.choice.dtype)
    settings = Request(size=SizeOptions(scale=scale))
    png = FORMATS["png"]
    process = psutil.Process()
    base = peak = process.memory_info().rss
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.01):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    done = job.run(source, source.with_suffix(".png"), png, upscaler, settings)
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    source.with_suffix(".png").unlink()
    width, height = done["output_size"]
    say(
        json.dumps(
            {
                "mpix_s": round(width * height / 1e6 / seconds, 3),
                "peak_mib": round((peak - base) / 2**20),
                "plan_mib": round(done["memory_bytes"] / 2**20),
            }
        )
    )


def batch(folder: Path, count: int) -> dict[str, Any]:
    """A folder of small pictures of mixed size: one after the other, and with the stages overlapping.

    Both compute in a thread that is new and ends, as the only one: OpenMP (libgomp) lets its threads sleep between
    layers as soon as a process has more of them than cores, be they idle.
    """
    sizes = np.random.default_rng(0).integers(64, 320, size=(count, 2))
    items = []
    for number, (width, height) in enumerate(sizes):
        save(folder / f"{number}.jpg", int(width), int(height))
        items.append(Item(source=folder / f"{number}.jpg", target=folder / "out" / f"{number}.png"))
    (folder / "out").mkdir()
    upscaler, png = Upscaler("psnr-x4"), FORMATS["png"]
    target = Target(scale=4)

    def one_after_the_other() -> None:
        for item in items:
            picture = load_image(item.source)
            save_image(upscaler.upscale(picture, target), item.target, png)

    def loop() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(1) as thread:
            thread.submit(one_after_the_other).result()
        return time.perf_counter() - start

    executor = LocalExecutor(request_of({"model": "psnr-x4", "scale": 4.0, "format": "png"}))

    def overlapping() -> tuple[float, float]:
        start = time.perf_counter()
        outcomes = run_batch(plan_items(items), executor, jobs=executor.jobs, force=True)
        seconds = time.perf_counter() - start
        return seconds, sum(each.details["busy_seconds"] for each in outcomes) / seconds

    loop()
    overlapping()
    times = [(loop(), *overlapping()) for _ in range(ROUNDS)]
    plain, seconds, busy = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "pictures": count,
        "loop_s": round(plain, 2),
        "batch_s": round(seconds, 2),
        "times": round(plain / seconds, 3),
        "network_busy": round(busy, 3),
    }


# --- words ------------------------------------------------------------------------------------------


def tables(found: dict[str, Any]) -> list[str]:
    """Markdown, as docs/speed.md shows it."""
    machine = found["machine"]
    lines = [f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, {found['date']}."]
    for title, part in (("one picture, x4, in every way", "ways"), ("network", "networks")):
        lines += ["", f"| {title} | MPix/s | spread |", "|---|---|---|"]
        lines += [f"| {name} | {row['mpix_s']:.2f} | {row['spread']:.0%} |" for name, row in found[part].items()]
    alone, through = (found["files"][name]["mpix_s"] for name in ("rows alone", "from file to file"))
    share = found["files"]["share"]
    lines += ["", f"PNG in, PNG out, x4: {through:.2f} MPix/s, {share:.0%} of the {alone:.2f} of the rows alone."]
    lines += ["", "| picture, x2 | MPix/s | spread |", "|---|---|---|"]
    lines += [
        f"| {'x'.join(map(str, row['size']))} | {row['mpix_s']:.2f} | {row['spread']:.0%} |" for row in found["sizes"]
    ]
    lines += [
        "",
        "| JPEG in, PNG out, x2 | MPix/s | peak above the loaded program, MiB | planned, MiB |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {'x'.join(map(str, row['size']))} | {row['mpix_s']:.2f} | {row['peak_mib']} | {row['plan_mib']} |"
        for row in found["memory"]
    ]
    lot = found["batch"]
    lines += [
        "",
        f"{lot['pictures']} pictures of 64 to 320 pixels a side, x4: {lot['loop_s']:.1f} s in a plain loop, "
        f"{lot['batch_s']:.1f} s overlapping; the network was busy {lot['network_busy']:.1%} of that.",
        *("", *table(found["start"])),
    ]
    return lines


# --- measuring --------------------------------------------------------------------------------------


def in_turn(candidates: dict[str, Callable[[], int]]) -> dict[str, Any]:
    """MPix/s of each, a round of all after the other; the first of each does not count."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    with torch.no_grad():
        for number in range(ROUNDS + 1):
            for name, run in candidates.items():
                start = time.perf_counter()
                pixels = run()
                if number:
                    times[name].append(pixels / 1e6 / (time.perf_counter() - start))
                say(f"  {name}: {pixels / 1e6 / (time.perf_counter() - start):.2f} MPix/s", file=sys.stderr)
    return {name: summary(values) for name, values in times.items()}


def measure(run: Callable[[], int]) -> dict[str, float]:
    """As `in_turn`, of one."""
    name = "rows of one picture"
    found: dict[str, float] = in_turn({name: run})[name]
    return found


def summary(values: list[float]) -> dict[str, float]:
    return {"mpix_s": round(statistics.median(values), 3), "spread": round(max(values) / min(values) - 1, 3)}


def photo(height: int, width: int) -> Tensor:
    """The example, mirrored until it fills the size: (1, 3, H, W) in [0, 1]."""
    pixels = np.asarray(Image.open(EXAMPLE).convert("RGB"))
    tall, wide = (-(-side // have) for side, have in zip((height, width), pixels.shape[:2], strict=True))
    filled = np.pad(pixels, ((0, (tall - 1) * pixels.shape[0]), (0, (wide - 1) * pixels.shape[1]), (0, 0)), "symmetric")
    return torch.from_numpy(filled[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255


def save(path: Path, width: int, height: int) -> None:
    pixels = (photo(height, width)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=92)  # of JPEG


def parameters(network: nn.Module) -> str:
    return f"{sum(each.numel() for each in network.parameters()) / 1e6:.2f} M parameters"


def say(line: str, file: Any = None) -> None:
    print(line, file=file, flush=True)


if __name__ == "__main__":
    main()
