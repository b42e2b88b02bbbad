"""One file to one file: decode, adapt to the output format, upscale, encode. Rows leave as they are computed.

What becomes a clip takes the same way, with frames in the place of rows (`video.run`).
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sr_upscale.device import DeviceLostError
from sr_upscale.errors import InputError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.functional.planes import TURNS, on_host
from sr_upscale.images import MAX_PIXELS, Format, Picture, check_target, load_image
from sr_upscale.images.adapt import adapt
from sr_upscale.images.decode import peek
from sr_upscale.images.encode import save_rows
from sr_upscale.images.formats import VIDEO, sniff
from sr_upscale.images.picture import RowSource
from sr_upscale.inference.color_drift import Drift
from sr_upscale.inference.planning import change_by
from sr_upscale.inference.row_queue import Writer, write_inline
from sr_upscale.inference.tiling import StripPlan, TilePlan
from sr_upscale.interrupts import STOP
from sr_upscale.pipeline.request import Request
from sr_upscale.storage.atomic import hash_file, replace_file
from sr_upscale.video.containers import Container, check_video

if TYPE_CHECKING:
    from sr_upscale.inference.engine import Engine
    from sr_upscale.inference.planning import UpscalePlan
    from sr_upscale.video.frames import FrameStream
    from sr_upscale.video.run import ClipPlan
    from sr_upscale.video.source import Clip


DAMAGED = "is damaged or ends early; what could be decoded was enlarged"

WRAP_MORE, WRAP_UNKNOWN = 8, 64
"""LR pixels that go round with ``--wrap`` beyond the receptive fields, for resizing, and for one that is not known."""

BY_HASH = ("network.model", "network.fidelity", "network.denoise", "network.before")
"""Options that stand in a fingerprint as the hashes of the weights that they mean."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A file that has been read, fits the output format and has a plan.

    Attributes:
        name: Name for messages.
        picture: What was read, as the format can hold it; of a clip its first frame.
        plan: What will be done.
        warnings: Sentences for the user.
        seconds: How long reading took.
        clip: What will be done where it becomes a clip.
    """

    name: str
    picture: Picture
    plan: UpscalePlan
    warnings: tuple[str, ...]
    seconds: float = 0.0
    clip: ClipPlan | None = None


def prepare(
    source: Path | bytes,
    fmt: Format | Container,
    engine: Engine,
    request: Request,
    *,
    queued: bool = False,
    name: str | None = None,
) -> Prepared:
    """Reads a file and plans its output. It computes nothing.

    Args:
        source: A path, or a whole file.
        fmt: Format of the output.
        engine: Makes the plan.
        request: Says how to read and how large the output becomes.
        queued: Whether rows will wait in a queue to be written (`row_queue.write_behind`).
        name: What messages call it; None for its path, or standard input where the source is bytes.

    Raises:
        InputError: The file cannot be used.
        OutputError, UsageError: The format cannot hold the output.
    """
    begin = time.perf_counter()
    name = name or ("standard input" if isinstance(source, bytes) else shown(source))
    if isinstance(fmt, Container):
        prepared = _prepared_clip(source, fmt, engine, request, name)
    else:
        prepared = _prepared_picture(source, fmt, engine, request, name, queued=queued)
    return replace(prepared, seconds=time.perf_counter() - begin)


def _prepared_picture(
    source: Path | bytes, fmt: Format, engine: Engine, request: Request, name: str, *, queued: bool
) -> Prepared:
    options, most = request.file, _most_pixels(request)
    if isinstance(source, Path) and peek(source, clips=True) == VIDEO:
        check_video(name)
        from sr_upscale.video.animation import picture_of_clip

        picture = picture_of_clip(_clip(source, request, name), frame=options.frame, max_pixels=most)
    else:
        picture = load_image(
            source, max_pixels=most, frame=options.frame, allow_truncated=options.allow_truncated, name=name
        )
    if (dpi := request.size.resolution) is not None:
        picture = replace(picture, metadata=replace(picture.metadata, dpi=(dpi, dpi), aspect=None))
    picture, notes = adapt(picture, fmt, options.save, name=name)
    if dpi is not None and not fmt.dpi:
        notes = [*notes, f"{fmt.name} states no resolution; png, jpg and tif do"]
    exact = picture.has_alpha or options.save.quality == 100
    size = picture.width, picture.height
    picture = _wrapped(picture, request.size.wrap, engine)
    plan = engine.planner.plan(
        picture,
        request.size.target,
        streamed=_streams(picture, fmt),
        writer_bytes=functools.partial(fmt.writer.held, frames=len(picture.frames), exact=exact),
        queued=queued,
    )
    if request.size.wrap:  # the middle of what is enlarged is the picture again
        output = request.size.target.output_size(*size, default_scale=max(engine.planner.weights))
        plan = replace(plan, input_size=size, output_size=output)
        if isinstance(rows := picture.frames[0].pixels_hwc, _WrappedRows):
            plan = replace(plan, host_bytes=plan.host_bytes + sum(end.nbytes for end in rows.ends))
    check_target(fmt, *plan.output_size, name=name)
    picture = replace(picture, metadata=replace(picture.metadata, change=change_by(plan)))
    return Prepared(name=name, picture=picture, plan=plan, warnings=(*picture.warnings, *notes))


def _most_pixels(request: Request) -> int:
    return MAX_PIXELS if request.file.max_pixels is None else request.file.max_pixels


def _prepared_clip(source: Path | bytes, fmt: Container, engine: Engine, request: Request, name: str) -> Prepared:
    check_video(name)
    from sr_upscale.video.run import plan_clip

    if fmt.raw:
        raise UsageError(f"{name}: {fmt.name} is written without a plan; leave out --dry-run, or end the name in .mkv")
    stream, most = stream_of(source, request, name), _most_pixels(request)
    if (pixels := stream.look.width * stream.look.height) > most:
        raise InputError(f"{name}: frames of {pixels / 1e6:.0f} MP are more than --max-pixels {most / 1e6:.0f}MP")
    clip = plan_clip(stream, fmt, engine, request.size.target, request.video, strip=request.file.strip_metadata)
    return Prepared(name=name, picture=clip.picture, plan=clip.plan, warnings=clip.warnings, clip=clip)


def stream_of(source: Path | bytes, request: Request, name: str) -> FrameStream:
    """Returns the frames of a clip, or of an animated picture.

    Raises:
        InputError: It cannot be read, or does not move.
    """
    from sr_upscale.video.animation import Moving

    kind = sniff(source[:256]) if isinstance(source, bytes) else peek(source, clips=True)
    if kind != VIDEO:
        picture = load_image(source, max_pixels=_most_pixels(request), name=name)
        return Moving(picture, background=request.file.background, name=name)
    if request.file.frame is not None:
        raise UsageError("--frame takes one frame out; give -o a picture, such as out.png")
    if request.size.wrap:
        raise UsageError("--wrap is for pictures; leave it out for a clip")
    assert isinstance(source, Path)
    return _clip(source, request, name)


def _clip(source: Path, request: Request, name: str) -> Clip:
    from sr_upscale.video.source import Clip

    video = request.video
    return Clip(source, start=video.start, duration=video.duration, deinterlace=video.deinterlace, name=name)


def _wrapped(picture: Picture, wrap: str | None, engine: Engine) -> Picture:
    """Puts around a picture what its networks see beyond its edges: what stands at the opposite ones."""
    if wrap is None:
        return picture
    reach = WRAP_MORE + sum(
        WRAP_UNKNOWN if traits.halo is None else traits.halo for traits in engine.planner.traits.values()
    )
    down, across = (reach if wrap in (axis, "both") else 0 for axis in "yx")
    pixels = picture.frames[0].pixels_hwc
    if isinstance(pixels, RowSource) and down <= picture.height:
        return replace(picture, frames=(replace(picture.frames[0], pixels_hwc=_WrappedRows(pixels, down, across)),))
    sides = ((down, down), (across, across), (0, 0))
    return picture.with_pixels(lambda pixels_hwc: np.pad(np.asarray(pixels_hwc), sides, "wrap"))


class _WrappedRows(RowSource):
    """Rows of a picture that goes round, without the picture in memory.

    Args:
        rows: The picture. It is read once more than otherwise, since its last rows stand above its first.
        down, across: Pixels that go round above and below, left and right.

    Attributes:
        ends: Its last rows, and its first: (`down`, W, C) each.
    """

    def __init__(self, rows: RowSource, down: int, across: int) -> None:
        height, width, channels = rows.shape
        self.shape = (height + 2 * down, width + 2 * across, channels)
        self.dtype, self.gray = rows.dtype, rows.gray
        self._rows, self._across = rows, across
        top = bottom = np.empty((0, width, channels), rows.dtype)
        for strip in rows.strips(64) if down else ():
            top = np.concatenate((top, strip[: down - len(top)]))
            bottom = np.concatenate((bottom, strip))[-down:]
        self.ends = (bottom, top)

    def strips(self, rows: int) -> Iterator[NDArray[Any]]:
        """Yields consecutive strips; see `RowSource.strips`."""
        waiting = np.empty((0, *self._rows.shape[1:]), self.dtype)
        for strip in itertools.chain(self.ends[:1], self._rows.strips(rows), self.ends[1:]):
            waiting = np.concatenate((waiting, strip))
            while len(waiting) >= rows:
                yield self._round(waiting[:rows])
                waiting = waiting[rows:]
        if len(waiting):
            yield self._round(waiting)

    def _round(self, strip: NDArray[Any]) -> NDArray[Any]:
        return np.pad(strip, ((0, 0), (self._across, self._across), (0, 0)), "wrap")


def start(
    prepared: Prepared,
    target: Path | BinaryIO,
    fmt: Format | Container,
    engine: Engine,
    request: Request,
    *,
    writer: Writer = write_inline,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
    on_whole: Callable[[Path, str], None] = lambda _temporary, _sha256: None,
) -> Future[dict[str, Any]]:
    """Computes a file that has been read, and has it written.

    It returns when the last row has been computed; with clips, which have threads of their own, when all is done.

    Args:
        prepared: Of `prepare`.
        target: A path, or a binary stream.
        fmt: Format of the output.
        engine: Computes.
        request: What to do.
        writer: Brings the rows to the file.
        on_step: Called with (strips, tiles or frames done, in all).
        on_whole: Called with the whole file and the sha256 of the input, before the file takes its place
            (`replace_file`).

    Returns:
        A future that ends when the file is written. Its result is what was done, ready for JSON; ``busy_seconds`` says
        how long the network had work.

    Raises:
        SrUpscaleError: Any of its kinds; the target then is what it was before.
    """
    begin = time.perf_counter()
    picture, options = prepared.picture, request.file.save
    overwrite = request.file.force or (isinstance(target, Path) and os.path.lexists(target))

    def whole(temporary: Path) -> None:
        on_whole(temporary, picture.sha256)

    if prepared.clip is not None:
        from sr_upscale.video.run import enlarge_clip

        assert isinstance(target, Path)
        made = enlarge_clip(prepared.clip, target, engine, on_step=on_step, on_whole=whole, overwrite=overwrite)
        made["warnings"] = [*prepared.warnings, *made["warnings"], *_damage(prepared.name, made)]
        finished: Future[dict[str, Any]] = Future()
        finished.set_result(
            describe(prepared, engine) | made | {"format": fmt.name, "seconds": round(time.perf_counter() - begin, 3)}
        )
        return finished
    assert isinstance(fmt, Format)
    engine.planner.check_memory(prepared.plan, picture)
    drift = Drift()

    def use(rows: Iterator[NDArray[Any]], plan: UpscalePlan) -> Future[dict[str, Any]]:
        busy: list[float] = []

        def write(rows: Iterable[NDArray[Any]]) -> dict[str, Any]:
            save_rows(rows, picture, plan.output_size, target, fmt, options, on_whole=whole, overwrite=overwrite)
            done = _done(prepared, engine, fmt, drift)
            return done | {"busy_seconds": sum(busy), "seconds": round(time.perf_counter() - begin, 3)}

        return writer(_timed(rows, busy), write)

    return engine.feed(picture, prepared.plan, use, on_step=on_step, drift=drift)


def fingerprint(request: Request, engine: Engine) -> dict[str, Any]:
    """Returns everything besides the input that determines an output, ready for JSON.

    These are the options that change pixels, and the weights by their hash.
    """
    options = {key: value for key, value in request.pixel_options().items() if key not in BY_HASH}
    return {
        "options": {**options, "network.backend": engine.backend},
        "weights": {str(scale): hash_file(path) for scale, path in engine.planner.weights.items()},
        "before": [hash_file(path) for path in engine.planner.before],
    }


def pipe(
    source: Path | BinaryIO,
    target: Path | BinaryIO,
    fmt: Container,
    engine: Engine,
    request: Request,
    *,
    on_step: Callable[[int, int], None],
    on_whole: Callable[[Path], None],
) -> dict[str, Any]:
    """Does one clip from or into a pipe, or into a file of frames as they are; see `executor.run_file`."""
    if isinstance(target, Path):
        with (
            replace_file(target, on_whole=on_whole, overwrite=request.file.force) as temporary,
            temporary.open("wb") as file,
        ):
            return pipe(source, file, fmt, engine, request, on_step=on_step, on_whole=on_whole)
    name = shown(source) if isinstance(source, Path) else "standard input"
    check_video(name)
    if not fmt.raw:
        raise UsageError(f"{fmt.name} does not go through a pipe; give -o a file, or --format y4m or nut")
    from sr_upscale.video.pipe import Piped, enlarge_pipe

    clip = Piped(source, request.video, name=name)
    picture, plan, made = enlarge_pipe(clip, target, fmt, engine, request.size.target, on_step=on_step)
    made["warnings"] += _damage(name, made)
    prepared = Prepared(name=name, picture=picture, plan=plan, warnings=())
    return describe(prepared, engine) | made | {"format": fmt.name}


def _damage(name: str, made: dict[str, Any]) -> list[str]:
    return [f"{name}: {DAMAGED}"] if made["damaged"] else []


def _timed(rows: Iterator[NDArray[Any]], seconds: list[float]) -> Iterator[NDArray[Any]]:
    """Yields the rows, and notes how many seconds each took to make, without what happens to it.

    A signal ends it between two of them.
    """
    while True:
        start = time.perf_counter()
        with STOP.deferred():
            band = next(rows, None)
        seconds.append(time.perf_counter() - start)
        if band is None:
            return
        yield band


def _streams(picture: Picture, fmt: Format) -> bool:
    """Says whether the output leaves by rows and never stands in memory as a whole."""
    return fmt.streams and len(picture.frames) == 1


def _done(prepared: Prepared, engine: Engine, fmt: Format, drift: Drift) -> dict[str, Any]:
    """Describes what was done; see `describe`."""
    described = describe(prepared, engine)
    wanted = engine.planner.dtype_for(prepared.picture.bits)
    used = dict.fromkeys(
        str(engine.networks.get(step.weights, wanted).dtype).removeprefix("torch.") for step in prepared.plan.passes
    )
    described["dtype"] = " and ".join(used) or described["dtype"]
    return {**described, "warnings": [*described["warnings"], *drift.warnings()], "format": fmt.name}


def describe(prepared: Prepared, engine: Engine) -> dict[str, Any]:
    """Describes a plan, ready for JSON. Sizes of pictures are (width, height) in pixels."""
    plan, picture = prepared.plan, prepared.picture
    described = {
        "input_sha256": picture.sha256,
        "input_size": list(plan.input_size),
        "output_size": list(plan.output_size),
        "frames": len(picture.frames),
        "channels": picture.channels,
        "bits": picture.bits,
        "models": [step.weights.stem for step in plan.passes],
        "tiles": sum(step.cut.steps for step in plan.passes if isinstance(step.cut, TilePlan)),
        "tile_size": [step.cut.tile_size for step in plan.passes if isinstance(step.cut, TilePlan)],
        "strips": sum(step.cut.steps for step in plan.passes if isinstance(step.cut, StripPlan)),
        "strip_rows": [step.cut.rows for step in plan.passes if isinstance(step.cut, StripPlan)],
        "resample": "lanczos3" if plan.resample else None,
        "backend": engine.backend,
        "device": str(engine.choice.device),
        "dtype": engine.planner.dtype_for(picture.bits),
        "memory_bytes": plan.device_bytes + plan.host_bytes,
        "warnings": [*prepared.warnings, *engine.warnings],
    }
    if prepared.clip is not None:
        encoder, clip = prepared.clip.encoder, prepared.clip.clip
        described |= {
            "frames": len(clip.times),
            "bits": encoder.look.bits,
            "codec": encoder.name,
            "pixel_format": encoder.pixel_format,
            "media_seconds": round(
                float((clip.times[-1] - clip.times[0] + clip.last_duration) * encoder.look.time_base), 3
            ),
        }
    return described


def forecast(prepared: Prepared, engine: Engine) -> dict[str, Any]:
    """Says what would be done and for how long, ready for JSON: `describe`, ``estimated_seconds``, bytes of a clip."""
    seconds = estimate_seconds(prepared, engine)
    said = {"dry_run": True, **describe(prepared, engine), "estimated_seconds": round(seconds, 2)}
    if prepared.clip is not None:
        from sr_upscale.video.run import estimate_bytes

        said["estimated_bytes"] = estimate_bytes(prepared.clip)
    return said


def estimate_seconds(prepared: Prepared, engine: Engine, frames: int | None = None) -> float:
    """Estimates the seconds that a picture will take: reading it and loading the networks, which this does and times,
    and computing, from a timed tile of at most 96x96 pixels. Encoding comes on top.

    Args:
        prepared: Of `prepare`.
        engine: Computes.
        frames: How many there are; None for those of the picture, or of the clip.
    """
    try:
        loading, seconds = _timed_networks(prepared, engine)
    except (DeviceLostError, MemoryError) as error:
        if isinstance(error, MemoryError) and engine.choice.device.type != "vulkan":
            raise
        engine.move_to_cpu(error)
        loading, seconds = _timed_networks(prepared, engine)
    varied_alpha = prepared.picture.has_alpha
    own = prepared.picture.frames if prepared.clip is None else prepared.clip.clip.times
    times = (frames or len(own)) * (2 if varied_alpha else 1) * (TURNS if engine.tta else 1)
    return prepared.seconds + loading + seconds * times


def _timed_networks(prepared: Prepared, engine: Engine) -> tuple[float, float]:
    """Measures the seconds that all networks take to load, and to compute one plane of colours."""
    dtype = engine.planner.dtype_for(prepared.picture.bits)
    loading = computing = 0.0
    for step in prepared.plan.passes:
        start = time.monotonic()
        network = engine.networks.get(step.weights, dtype)
        loading += time.monotonic() - start
        height, width = min(96, step.cut.height), min(96, step.cut.width)
        probe = np.full((1, 3, height, width), 0.5, np.float32)
        network(probe)
        start = time.monotonic()
        on_host(network(probe))
        computing += (time.monotonic() - start) / (height * width) * step.cut.pixels_read
    return loading, computing
