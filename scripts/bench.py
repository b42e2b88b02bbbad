"""Every figure of docs/speed.md, in one run: ``python scripts/bench.py [--json FILE]``.

Nothing else should run meanwhile. What is compared takes turns, so that a machine that slows down slows all.
Medians, and the spread between the fastest and the slowest round. Networks other than ours have random weights, which
makes no difference to speed.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor, nn

from sr_upscale.benchmark.run import environment
from sr_upscale.device import cpu_has_bf16
from sr_upscale.functional.color import to_tensor
from sr_upscale.images import FORMATS, Frame, Picture, load_image, save_image
from sr_upscale.inference.sizing import Target
from sr_upscale.inference.strips import StreamNetwork, fit_rows, stream_rows
from sr_upscale.inference.tiling import plan_tiles, run_tiles
from sr_upscale.models.generator import PRESETS, Generator
from sr_upscale.pipeline import job
from sr_upscale.pipeline.batch_plan import Item, plan_items
from sr_upscale.pipeline.batch_run import run_batch
from sr_upscale.pipeline.executor import LocalExecutor, run_file
from sr_upscale.pipeline.ledger import Ledger
from sr_upscale.pipeline.request import Request, SizeOptions, request_of
from sr_upscale.pretrained.registry import resolve_weights
from sr_upscale.pretrained.weights_file import load_generator
from sr_upscale.upscaler import Upscaler

EXAMPLE = Path(__file__).parent.parent / "examples" / "chelsea.png"
ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, *words = options.child
        say(json.dumps({"probe": probe, "backends": backends, "batch": batch}[name](*words)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {"machine": environment(), "date": datetime.date.today().isoformat()}
        found["ways"], found["networks"] = ways(1024), networks(256)
        threads = sorted({"1", str(found["machine"]["threads"])})
        found["backends"] = {each: in_child("backends", "346", OMP_NUM_THREADS=each) for each in threads}
        found["files"] = files(folder, 1024)
        sizes = ((256, 256), (1024, 1024), (4096, 2048))
        found["sizes"] = in_turn({f"{width}x{height}": rows_of(width, height) for width, height in sizes})
        found["memory"] = [memory(folder, *size, 2) for size in ((8000, 1500), (8000, 6000), (2000, 1500))]
        found["batch"], found["start"] = in_child("batch", "200"), start(folder)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    for line in tables(found):
        say(line)


def ways(side: int) -> dict[str, Any]:
    """The same weights over the same picture in every way there is, in output MPix/s."""
    naive, nhwc, model = (load_generator(resolve_weights("psnr-x4"))[0].eval() for _ in range(3))
    nhwc = nhwc.to(memory_format=torch.channels_last)
    image = photo(side)
    plan = plan_tiles(side, side, tile_size=256, overlap=0, halo=model.config.halo)
    rows = fit_rows(side, side, "cpu", half=True)
    kinds = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if cpu_has_bf16() else {})
    networks = {name: StreamNetwork(model, dtype) for name, dtype in kinds.items()}

    def stream(network: StreamNetwork) -> Callable[[], int]:
        return lambda: sum(band.numel() for band in stream_rows(network, [image], height=side, rows=rows)) // 3

    tiles = "tiles of 256 with a halo of 51, fp32"
    return in_turn(
        {
            "whole picture, fp32, NCHW": lambda: naive(image).numel() // 3,
            tiles: lambda: sum(band.size for band in run_tiles(plan, whole_tile(nhwc), [image], scale=4)) // 3,
            **{f"streaming, {name}": stream(network) for name, network in networks.items()},
        }
    )


def whole_tile(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda tile: network(tile.contiguous(memory_format=torch.channels_last))


def networks(side: int) -> dict[str, Any]:
    """Other networks, each in the way that suits it best: whole small pictures, channels last, bf16 if there is."""
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    image = photo(side).contiguous(memory_format=torch.channels_last)
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for name, network in (
        ("RRDBNet, 23 blocks (Real-ESRGAN's way)", RRDBNet(num_filters=64, num_blocks=23, scale=4)),
        ("compact, 32 convs of 64 (realesr-general's way)", SRVGGNetCompact(num_feat=64, num_conv=32, upscale=4)),
    ):
        found[f"{name}, {parameters(network)}"] = network.eval().to(memory_format=torch.channels_last)
    for name, preset in (("the published generator", "published-x4"), ("ours", "ours-x4")):
        generator = Generator(PRESETS[preset]).requires_grad_(False).eval()
        ready = StreamNetwork(generator, torch.bfloat16 if cpu_has_bf16() else torch.float32)
        found[f"{name}, {parameters(generator)}"] = ready

    def in_half(network: Callable[[Tensor], Tensor]) -> Callable[[], int]:
        def run() -> int:
            with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bf16()):
                return network(image).numel() // 3

        return run

    return in_turn({name: in_half(network) for name, network in found.items()})


def backends(length: str) -> dict[str, Any]:
    """The default model by every backend that is installed, over a whole picture and over a strip of it alone."""
    side = int(length)
    image = photo(side).numpy()
    rows = fit_rows(side, side, "cpu", half=True)
    candidates: dict[str, Callable[[], int]] = {}
    for name, dtypes in (("torch", 2), ("ncnn", 1), ("onnxruntime", 1), ("openvino", 2)):
        for dtype in ("fp32", "bf16")[: dtypes if cpu_has_bf16() and find_spec(name) else bool(find_spec(name))]:
            engine = Upscaler("photo-x4", device="cpu", backend=name, dtype=dtype).engine
            network = engine.networks.get(engine.planner.weights[4], engine.choice.dtype)
            for cut, part in (("whole", image), (f"{rows} rows", image[:, :, :rows])):
                candidates[f"{name}, {dtype}, {side}x{side}, {cut}"] = functools.partial(pixels_by, network, part)
    return in_turn(candidates)


def pixels_by(network: Callable[[Any], Any], part: Any) -> int:
    return math.prod(network(part).shape) // 3


def files(folder: Path, side: int) -> dict[str, Any]:
    """PNG in, PNG out, against the executor alone with its pixels already read."""
    source, target = folder / "in.png", folder / "out.png"
    save(source, side, side)
    engine = Upscaler("psnr-x4").engine
    settings = Request(size=SizeOptions(scale=4))
    png = FORMATS["png"]
    prepared = job.prepare(source, png, engine, settings)
    area = side * side * 16

    def alone() -> int:
        return engine.feed(prepared.picture, prepared.plan, lambda rows, _plan: sum(band.size for band in rows)) // 3

    def whole_way() -> int:
        run_file(source, target, png, engine, settings)
        return area

    return in_turn({"rows alone": alone, "from file to file": whole_way})


def rows_of(width: int, height: int) -> Callable[[], int]:
    """What makes the rows of one picture at x2."""
    engine = Upscaler("psnr-x2").engine
    picture = Picture(frames=(Frame(pixels_hwc=pixels(width, height)),))
    plan = engine.planner.plan(picture, Target(scale=2), streamed=True)
    return lambda: engine.feed(picture, plan, lambda rows, _plan: sum(band.size for band in rows)) // 3


def memory(folder: Path, width: int, height: int, scale: int) -> dict[str, Any]:
    """JPEG in, PNG out, in a process of its own: MPix/s, and the peak above the loaded program against the plan."""
    source = folder / f"{width}x{height}.jpg"
    save(source, width, height)
    found = in_child("probe", str(source), str(scale))
    source.unlink()
    return {"size": (width, height), "scale": scale, **found}


def in_child(*arguments: str, **variables: str) -> dict[str, Any]:
    """What this script finds in a process of its own, with more variables of the environment."""
    command, variables = [sys.executable, __file__, "--child", *arguments], {**os.environ, **variables}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=variables)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def probe(name: str, factor: str) -> dict[str, Any]:
    """The child of `memory`."""
    source, scale = Path(name), int(factor)
    engine = Upscaler(f"psnr-x{scale}").engine
    engine.networks.get(engine.planner.weights[scale], engine.choice.dtype)
    process, png = psutil.Process(), FORMATS["png"]
    sizes, stop = [process.memory_info().rss], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            sizes.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    done = run_file(source, source.with_suffix(".png"), png, engine, Request(size=SizeOptions(scale=scale)))
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    source.with_suffix(".png").unlink()
    width, height = done["output_size"]
    peak, plan = (round(each / 2**20) for each in (max(sizes) - sizes[0], done["memory_bytes"]))
    return {"mpix_s": round(width * height / 1e6 / seconds, 3), "peak_mib": peak, "plan_mib": plan}


def batch(count: str) -> dict[str, Any]:
    """A folder of small pictures of mixed size: one after the other, and with the stages overlapping.

    Both compute in a thread that is new and ends, as the only one: OpenMP (libgomp) lets its threads sleep between
    layers as soon as a process has more of them than cores, be they idle.
    """
    folder = Path(tempfile.mkdtemp())
    sizes = np.random.default_rng(0).integers(64, 320, size=(int(count), 2))
    items = []
    for number, (width, height) in enumerate(sizes):
        save(folder / f"{number}.jpg", int(width), int(height))
        items.append(Item(source=folder / f"{number}.jpg", target=folder / "out" / f"{number}.png"))
    (folder / "out").mkdir()
    upscaler, png = Upscaler("psnr-x4"), FORMATS["png"]

    def one_after_the_other() -> None:
        for item in items:
            picture = load_image(item.source)
            save_image(upscaler(picture, scale=4), item.target, png)

    def loop() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(1) as thread:
            thread.submit(one_after_the_other).result()
        return time.perf_counter() - start

    plan = plan_items(items)
    executor = LocalExecutor(request_of({"model": "psnr-x4", "scale": 4.0, "format": "png"}))

    def overlapping() -> tuple[float, float]:
        start = time.perf_counter()
        ledger = Ledger(plan, executor.fingerprint, force=True)
        outcomes = run_batch(plan, executor, ledger, jobs=executor.jobs)
        seconds = time.perf_counter() - start
        return seconds, sum(each.details["busy_seconds"] for each in outcomes) / seconds

    loop()
    overlapping()
    times = [(loop(), *overlapping()) for _ in range(ROUNDS)]
    plain, seconds, busy = (statistics.median(column) for column in zip(*times, strict=True))
    shutil.rmtree(folder)
    return {
        "pictures": len(items),
        "loop_s": round(plain, 2),
        "batch_s": round(seconds, 2),
        "times": round(plain / seconds, 3),
        "network_busy": round(busy, 3),
    }


def start(folder: Path) -> dict[str, list[float]]:
    """Wall and CPU seconds, and the peak in MiB, of processes that take turns: the least, as other work only adds."""
    save(folder / "small.png", 48, 48)
    words = [sys.executable, "-m", "sr_upscale"]
    picture = [*words, str(folder / "small.png"), "-o", str(folder / "out.png"), "--force"]
    complete = {"_SR_UPSCALE_COMPLETE": "complete_bash", "COMP_WORDS": "sr-upscale a.png -n pho", "COMP_CWORD": "3"}
    candidates: dict[str, tuple[list[str], dict[str, str]]] = {
        "import torch": ([sys.executable, "-c", "import torch"], {}),
        "48x48, x4": (picture, {}),
        "48x48, x4, --backend torch": ([*picture, "--backend", "torch"], {}),
        "--help": ([*words, "--help"], {}),
        "completion of a word": (words, complete),
    }
    rows: dict[str, list[tuple[float, float, float]]] = {title: [] for title in candidates}
    for title, (command, variables) in [*candidates.items()] * 5:
        program = [sys.executable, "-c", MEASURE, *command]
        ran = subprocess.run(program, stdout=subprocess.PIPE, env=os.environ | variables, check=True)
        rows[title].append(json.loads(ran.stdout))
    return {title: [round(min(column), 2) for column in zip(*found, strict=True)] for title, found in rows.items()}


MEASURE = """
import json, os, subprocess, sys, time
begin = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=-3, stderr=-3)
_pid, process.returncode, used = os.wait4(process.pid, 0)
print(json.dumps([time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
sys.exit(bool(process.returncode))
"""
"""Wall and CPU seconds and the peak in MiB of a command; in a small process, whose own peak a child takes over."""


# --- tables -----------------------------------------------------------------------------------------


def tables(found: dict[str, Any]) -> list[str]:
    """Markdown, as docs/speed.md shows it."""
    machine, lot = found["machine"], found["batch"]
    alone, through = (found["files"][name]["mpix_s"] for name in ("rows alone", "from file to file"))
    kept = ({"picture": "x".join(map(str, row["size"])), **row} for row in found["memory"])
    return [
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, {found['date']}.",
        *rates("one picture, x4, in every way", found["ways"]),
        *rates("network", found["networks"]),
        f"\nPNG in, PNG out, x4: {through:.2f} MPix/s, {through / alone:.0%} of the {alone:.2f} of the rows alone.",
        *rates("picture, x2", found["sizes"]),
        *(
            line
            for threads, rows in found["backends"].items()
            for line in rates(f"photo-x4 by each backend, {threads} threads", rows)
        ),
        "\n| JPEG in, PNG out, x2 | MPix/s | peak above the loaded program, MiB | planned, MiB |\n|---|---|---|---|",
        *("| {picture} | {mpix_s:.2f} | {peak_mib} | {plan_mib} |".format(**row) for row in kept),
        f"\n{lot['pictures']} pictures of 64 to 320 pixels a side, x4: {lot['loop_s']:.1f} s in a plain loop, "
        f"{lot['batch_s']:.1f} s overlapping; the network was busy {lot['network_busy']:.1%} of that.",
        "\n| a process of its own | wall, s | CPU, s | peak, MiB |\n|---|---|---|---|",
        *(f"| {name} | {wall:.2f} | {cpu:.2f} | {peak:.0f} |" for name, (wall, cpu, peak) in found["start"].items()),
    ]


def rates(title: str, rows: dict[str, dict[str, float]]) -> list[str]:
    """A table of what `in_turn` measured."""
    lines = [f"| {name} | {row['mpix_s']:.2f} | {row['spread']:.0%} |" for name, row in rows.items()]
    return [f"\n| {title} | MPix/s | spread |\n|---|---|---|", *lines]


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
    return {
        name: {"mpix_s": round(statistics.median(each), 3), "spread": round(max(each) / min(each) - 1, 3)}
        for name, each in times.items()
    }


def photo(side: int) -> Tensor:
    return to_tensor(pixels(side, side))


def pixels(width: int, height: int) -> np.ndarray:
    """The example, mirrored until it fills the size."""
    chelsea = np.asarray(Image.open(EXAMPLE).convert("RGB"))
    ends = [(0, -(-want // have) * have - have) for want, have in zip((height, width), chelsea.shape, strict=False)]
    return np.pad(chelsea, (*ends, (0, 0)), "symmetric")[:height, :width].copy()


def save(path: Path, width: int, height: int) -> None:
    Image.fromarray(pixels(width, height)).save(path, quality=92)  # of JPEG


def parameters(network: nn.Module) -> str:
    return f"{sum(each.numel() for each in network.parameters()) / 1e6:.2f} M parameters"


def say(line: str, file: Any = None) -> None:
    print(line, file=file, flush=True)


if __name__ == "__main__":
    main()
