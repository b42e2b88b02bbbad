"""One clip to one file: what `job.py` is for pictures, with the same functions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sr_upscale.errors import InputError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.images import MAX_PIXELS, load_image
from sr_upscale.images.decode import peek
from sr_upscale.images.formats import VIDEO, sniff
from sr_upscale.inference.row_queue import Writer, write_inline
from sr_upscale.pipeline import job
from sr_upscale.pipeline.request import Request
from sr_upscale.storage.atomic import replace_file
from sr_upscale.video.containers import Container, check_video

DAMAGED = "is damaged or ends early; what could be decoded was enlarged"

if TYPE_CHECKING:
    from sr_upscale.inference.engine import Engine
    from sr_upscale.video.frames import FrameStream
    from sr_upscale.video.run import ClipPlan


@dataclass(frozen=True, kw_only=True)
class PreparedClip(job.Prepared):
    """A clip that was looked at; `picture` is its first frame.

    Attributes:
        clip: What will be done.
    """

    clip: ClipPlan


def prepare(
    source: Path | bytes,
    fmt: Container,
    engine: Engine,
    request: Request,
    *,
    queued: bool = False,
    name: str | None = None,
) -> PreparedClip:
    """Looks at a clip and plans its output; see `job.prepare`."""
    begin = time.perf_counter()
    name = name or ("standard input" if isinstance(source, bytes) else shown(source))
    check_video(name)
    from sr_upscale.video.run import plan_clip

    if fmt.raw:
        raise UsageError(f"{name}: {fmt.name} is written without a plan; leave out --dry-run, or end the name in .mkv")
    clip = stream_of(source, request, name)
    most = request.file.max_pixels or MAX_PIXELS
    if (pixels := clip.look.width * clip.look.height) > most:
        raise InputError(f"{name}: frames of {pixels / 1e6:.0f} MP are more than --max-pixels {most / 1e6:.0f}MP")
    plan = plan_clip(clip, fmt, engine, request.size.target, request.video, strip=request.file.strip_metadata)
    return PreparedClip(
        name=name,
        picture=plan.picture,
        plan=plan.plan,
        warnings=plan.warnings,
        seconds=time.perf_counter() - begin,
        clip=plan,
    )


def stream_of(source: Path | bytes, request: Request, name: str) -> FrameStream:
    """Returns the frames of a clip, or of an animated picture.

    Raises:
        InputError: It cannot be read, or does not move.
    """
    from sr_upscale.video.animation import Moving
    from sr_upscale.video.source import Clip

    kind = sniff(source[:256]) if isinstance(source, bytes) else peek(source, clips=True)
    if kind != VIDEO:
        picture = load_image(source, max_pixels=request.file.max_pixels or MAX_PIXELS, name=name)
        return Moving(picture, background=request.file.background, name=name)
    if request.file.frame is not None:
        raise UsageError("--frame takes one frame out; give -o a picture, such as out.png")
    if request.size.wrap:
        raise UsageError("--wrap is for pictures; leave it out for a clip")
    assert isinstance(source, Path)
    video = request.video
    return Clip(source, start=video.start, duration=video.duration, deinterlace=video.deinterlace, name=name)


def run(
    source: Path | bytes,
    target: Path,
    fmt: Container,
    engine: Engine,
    request: Request,
    *,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, Any]:
    """Does one clip; see `job.run`."""
    if fmt.raw:
        assert isinstance(source, Path)
        with replace_file(target, overwrite=request.file.force) as temporary, temporary.open("wb") as file:
            return pipe(source, file, fmt, engine, request, on_step=on_step)
    begin = time.perf_counter()
    prepared = prepare(source, fmt, engine, request)
    done = start(prepared, target, fmt, engine, request, on_step=on_step).result()
    return done | {"seconds": round(time.perf_counter() - begin, 3)}


def start(
    prepared: PreparedClip,
    target: Path,
    fmt: Container,
    engine: Engine,
    request: Request,
    *,
    writer: Writer = write_inline,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
    on_whole: Callable[[Path, str], None] = lambda _temporary, _sha256: None,
) -> Future[dict[str, Any]]:
    """Computes a clip and writes it; see `job.start`. It returns when all is done: it has threads of its own."""
    from sr_upscale.video.run import enlarge_clip

    begin = time.perf_counter()
    made = enlarge_clip(
        prepared.clip,
        target,
        engine,
        on_step=on_step,
        on_whole=lambda temporary: on_whole(temporary, prepared.picture.sha256),
        overwrite=request.file.force or os.path.lexists(target),
    )
    warnings = [*prepared.warnings, *made.pop("warnings")]
    if made["damaged"]:
        warnings.append(f"{prepared.name}: {DAMAGED}")
    made |= {"warnings": warnings, "format": fmt.name, "seconds": round(time.perf_counter() - begin, 3)}
    done: Future[dict[str, Any]] = Future()
    done.set_result(describe(prepared, engine) | made)
    return done


def pipe(
    source: Path | BinaryIO,
    target: BinaryIO,
    fmt: Container,
    engine: Engine,
    request: Request,
    *,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, Any]:
    """Does one clip from or into a pipe, frame by frame; see `job.run`.

    Args:
        source: A path, or standard input.
        target: Takes what is written.
        fmt: y4m or NUT.
        engine: Computes.
        request: What to do.
        on_step: Called with (frames done, 0).
    """
    begin = time.perf_counter()
    name = shown(source) if isinstance(source, Path) else "standard input"
    check_video(name)
    if not fmt.raw:
        raise UsageError(f"{fmt.name} does not go through a pipe; give -o a file, or --format y4m or nut")
    from sr_upscale.video.pipe import Piped, enlarge_pipe

    clip = Piped(source, request.video, name=name)
    picture, plan, made = enlarge_pipe(clip, target, fmt, engine, request.size.target, on_step=on_step)
    if made["damaged"]:
        made["warnings"].append(f"{name}: {DAMAGED}")
    prepared = job.Prepared(name=name, picture=picture, plan=plan, warnings=())
    said = job.describe(prepared, engine)
    return said | made | {"format": fmt.name, "seconds": round(time.perf_counter() - begin, 3)}


def describe(prepared: PreparedClip, engine: Engine) -> dict[str, Any]:
    """Describes a plan; see `job.describe`."""
    plan = prepared.clip
    look, clip = plan.encoder.look, plan.clip
    said = {
        "frames": len(clip.times),
        "bits": look.bits,
        "codec": plan.encoder.name,
        "pixel_format": plan.encoder.pixel_format,
        "media_seconds": round(float((clip.times[-1] - clip.times[0] + clip.last_duration) * look.time_base), 3),
    }
    return job.describe(prepared, engine) | said


def forecast(prepared: PreparedClip, engine: Engine) -> dict[str, Any]:
    """Says what would be done, for how long and on how much disk; see `job.forecast`."""
    from sr_upscale.video.run import estimate_bytes

    frames = len(prepared.clip.clip.times)
    return {
        "dry_run": True,
        **describe(prepared, engine),
        "estimated_seconds": round(job.estimate_seconds(prepared, engine, frames), 2),
        "estimated_bytes": estimate_bytes(prepared.clip),
    }
