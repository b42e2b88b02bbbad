"""A clip enlarged: decoding, the network and encoding side by side, in segments that a later run goes on from.

A segment is a run of the encoder of its own, written whole (`parts_folder`). So a kill costs one segment, and several
processes share a clip by claiming segments. When all are there, their packets are joined by copy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from numpy.typing import NDArray

from sr_upscale import __version__
from sr_upscale.errors import AppearedError
from sr_upscale.formatting import shown
from sr_upscale.images.picture import Frame, Picture
from sr_upscale.inference.color_drift import Drift
from sr_upscale.inference.planning import UpscalePlan, change_by
from sr_upscale.inference.row_queue import Abandoned, Handover, write_behind
from sr_upscale.inference.rows import gathered
from sr_upscale.inference.sizing import Target
from sr_upscale.interrupts import STOP
from sr_upscale.storage.atomic import hash_file, make_folder, output_error, replace_file
from sr_upscale.storage.claims import Claims
from sr_upscale.video.containers import Container, VideoOptions, parts_folder, parts_folders
from sr_upscale.video.encoder import Encoder
from sr_upscale.video.frames import FrameStream, pixel_name
from sr_upscale.video.mux import check_streams, join, write_segment
from sr_upscale.video.source import BROKEN

if TYPE_CHECKING:
    from sr_upscale.inference.engine import Engine

SEGMENT_FRAMES = 250
"""Frames of a segment: what x264 and x265 have between two key frames anyway."""

QUEUED_FRAMES = 3
"""Frames that wait before the network, and behind it."""

ENCODER_FRAMES = 60
"""Frames that an encoder holds: it looks 40 ahead, and some are at work."""

SAMPLED = 12
"""Frames by which the size of an output is estimated."""

POLL_S = 0.5
"""How often a process that has nothing else to do asks for the segments of others, in seconds."""

_JOIN = "f" * 32
"""Claim on joining the segments."""


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """A clip that was looked at, and what will be done.

    Attributes:
        clip: The clip.
        picture: Its first frame.
        plan: What will be done to every frame.
        encoder: Encodes them.
        container: Where they go.
        warnings: Sentences for the user.
        history: Says which program and model made the output; where it is empty, names, places and dates are left out.
    """

    clip: FrameStream
    picture: Picture
    plan: UpscalePlan
    encoder: Encoder
    container: Container
    warnings: tuple[str, ...]
    history: str


def plan_clip(
    clip: FrameStream,
    container: Container,
    engine: Engine,
    target: Target,
    options: VideoOptions,
    *,
    strip: bool = False,
) -> ClipPlan:
    """Finds out before any frame is enlarged what will be done, and that it can be.

    Args:
        clip: The clip.
        container: Of the output.
        engine: Makes the plan.
        target: Size of the output.
        options: How it is encoded.
        strip: Leave out names, places and dates that the container states.

    Raises:
        UsageError: The container does not hold a stream or the codec, or the codec not such frames.
        OutOfMemoryError: It needs more memory than there is, or than is allowed.
    """
    _pts, pixels = next(clip.read(0, 1))
    clip.close()
    picture = Picture(frames=(Frame(pixels_hwc=pixels),), sha256=clip.digest())
    plan = engine.planner.plan(picture, target)
    encoder = Encoder(clip.look.resized(*plan.output_size), options, container, name=clip.name)
    warnings = check_streams(clip, encoder, container)
    width, height = plan.output_size
    enlarged = width * height * pixels.shape[2] * pixels.itemsize
    held = QUEUED_FRAMES * (pixels.nbytes + enlarged) + ENCODER_FRAMES * enlarged // 2
    plan = dataclasses.replace(plan, host_bytes=plan.host_bytes + held)
    engine.planner.check_memory(plan, picture)
    return ClipPlan(
        clip=clip,
        picture=picture,
        plan=plan,
        encoder=encoder,
        container=container,
        warnings=(*clip.warnings, *warnings),
        history="" if strip else _history(plan),
    )


def estimate_bytes(plan: ClipPlan) -> int:
    """Estimates the size of the output from some frames of the middle, enlarged by swscale and encoded.

    As much again is needed on the disk until the segments are joined.
    """
    clip, look = plan.clip, plan.encoder.look
    total = len(clip.times)
    middle, count = max(0, total // 2 - SAMPLED // 2), min(SAMPLED, total)
    sampled = (
        (pts, av.VideoFrame.from_ndarray(pixels, form).reformat(look.width, look.height).to_ndarray())
        for pts, pixels in clip.read(middle, middle + count)
        for form in [pixel_name(pixels)]
    )
    size = sum(packet.size for packet in plan.encoder.packets(sampled))
    clip.close()
    return int(size * total // count)


def enlarge_clip(
    plan: ClipPlan,
    target: Path,
    engine: Engine,
    *,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
    on_whole: Callable[[Path], None] = lambda _temporary: None,
    overwrite: bool = True,
) -> dict[str, Any]:
    """Enlarges a clip, or what an earlier run has left of it, and writes the output whole or not at all.

    Args:
        plan: Of `plan_clip`.
        target: The output.
        engine: Computes.
        on_step: Called with (frames done, in all) between strips and tiles; what it raises ends the run.
        on_whole, overwrite: See `replace_file`.

    Returns:
        What was done, ready for JSON: ``busy_seconds`` of the network, ``resumed_frames`` and ``reused_frames``, and
        ``damaged``, how many packets could not be decoded.

    Raises:
        SrUpscaleError: Any of its kinds. Finished segments stay for the next run.
    """
    with _Run(plan, target, engine, on_step) as run:
        run.begin()
        run.compute()
        run.join(on_whole, overwrite=overwrite)
    clip = plan.clip
    return {
        "busy_seconds": run.network.busy,
        "resumed_frames": run.resumed,
        "reused_frames": run.network.reused,
        "damaged": clip.damaged,
        "warnings": run.network.warnings,
    }


def share_clip(plan: ClipPlan, target: Path, engine: Engine, *, on_step: Callable[[int, int], None]) -> None:
    """Makes segments of a clip that another process has begun, while there are any that nobody makes.

    Args:
        plan, target, engine, on_step: See `enlarge_clip`.

    Raises:
        SrUpscaleError: Any of its kinds.
    """
    with _Run(plan, target, engine, on_step) as run:
        run.compute(waits=False)


@dataclass(frozen=True, kw_only=True)
class Item:
    """A frame on its way, or the beginning or the end of a segment (no pixels)."""

    segment: int
    pts: int = 0
    pixels: NDArray[Any] | None = None

    @property
    def nbytes(self) -> int:
        return 0 if self.pixels is None else int(self.pixels.nbytes)


class Network:
    """The middle one of three stages: frames are decoded, enlarged and written side by side.

    Args:
        engine: Computes.
        plan: What is done to every frame.
        total: How many frames there are; 0 where that is not known.
        on_step: Called with (frames done, in all) between strips and tiles; what it raises ends all stages.

    Attributes:
        busy: Seconds in which it computed.
        done, reused: Frames that were written, and those of them that were the one before again.
        warnings: Of the first frame whose colours drifted.
    """

    def __init__(self, engine: Engine, plan: UpscalePlan, total: int, on_step: Callable[[int, int], None]) -> None:
        self.engine, self.plan, self.total, self.on_step = engine, plan, total, on_step
        self.busy, self.done, self.reused = 0.0, 0, 0
        self.warnings: list[str] = []

    def run(
        self, frames: Iterator[Item], write: Callable[[Iterable[Item]], None], stop: threading.Event | None = None
    ) -> None:
        """Enlarges frames, a few of which wait before each stage.

        Args:
            frames: Are made in a thread.
            write: Takes them enlarged, in another thread.
            stop: Set at the end, whatever that is.
        """
        (width, height), (large_width, large_height) = self.plan.input_size, self.plan.output_size
        decoded: Handover[Item] = Handover(QUEUED_FRAMES * width * height * 3)
        with ThreadPoolExecutor(2, "clip") as pool:
            pool.submit(_hand_over, frames, decoded)
            try:
                behind = write_behind(pool, QUEUED_FRAMES * large_width * large_height * 3)
                behind(self._enlarged(decoded), write).result()
            finally:
                if stop is not None:
                    stop.set()
                decoded.abandon()

    def _enlarged(self, decoded: Iterable[Item]) -> Iterator[Item]:
        """Yields frames as they are enlarged; one that is the one before becomes what that became."""
        before: NDArray[Any] | None = None
        after: NDArray[Any] | None = None
        items = iter(decoded)
        while True:
            with STOP.deferred():
                item = next(items, None)
            if item is None:
                return
            if item.pixels is None:
                yield item
                continue
            if before is not None and np.array_equal(item.pixels, before):
                self.reused += 1
            else:
                begin = time.perf_counter()
                with STOP.deferred():
                    after = self._large(item.pixels)
                self.busy += time.perf_counter() - begin
                before = item.pixels
            yield dataclasses.replace(item, pixels=after)
            self.done += 1
            self.on_step(self.done, self.total)

    def _large(self, pixels: NDArray[Any]) -> NDArray[Any]:
        picture, drift = Picture(frames=(Frame(pixels_hwc=pixels),)), Drift()

        def gather(rows: Iterator[NDArray[Any]], plan: UpscalePlan) -> Picture:
            self.plan = plan  # where memory ran out, the next frames begin with smaller strips
            return gathered(rows, picture, plan)

        made = self.engine.feed(
            picture,
            self.plan,
            gather,
            on_step=lambda _done, _total: self.on_step(self.done, self.total),
            drift=drift,
        )
        self.warnings = self.warnings or drift.warnings()
        return np.asarray(made.frames[0].pixels_hwc)


def _hand_over(frames: Iterator[Item], decoded: Handover[Item]) -> None:
    try:
        for item in frames:
            decoded.put(item)
        decoded.end()
    except Abandoned:
        pass
    except BaseException as error:  # it is raised where the frames are waited for
        decoded.end(error)


class _Run:
    """One process's work on a clip."""

    def __init__(self, plan: ClipPlan, target: Path, engine: Engine, on_step: Callable[[int, int], None]) -> None:
        self.plan, self.target, self.total = plan, target, len(plan.clip.times)
        self.network = Network(engine, plan.plan, self.total, on_step)
        self.folder = parts_folder(target, _fingerprint(plan, engine))
        self.segments = [self.folder / f"{each:06}.segment" for each in range(-(-self.total // SEGMENT_FRAMES))]
        self.claims = Claims(self.folder.with_suffix(".claims"))
        self.resumed = sum(len(self._frames(each)) for each, path in enumerate(self.segments) if path.exists())
        self.network.done = self.resumed
        self._stop = threading.Event()

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_error: object) -> None:
        with STOP.tidying():
            alone = not self.claims.others()
            if alone and not any(path.exists() for path in self.segments):
                shutil.rmtree(self.folder, ignore_errors=True)
            self.claims.clear(self.claims.gone())  # of those that were killed
            self.claims.close()
            if alone and not self.folder.exists():  # a claim that was torn by a kill is nobody's
                shutil.rmtree(self.claims.folder, ignore_errors=True)
            self.plan.clip.close()

    def _frames(self, segment: int) -> range:
        return range(segment * SEGMENT_FRAMES, min((segment + 1) * SEGMENT_FRAMES, self.total))

    def begin(self) -> None:
        """Makes the folder of the segments."""
        make_folder(self.folder)
        self.network.on_step(self.resumed, self.total)
        with replace_file(self.folder / "manifest.json") as temporary:
            temporary.write_text(json.dumps({"input": self.plan.clip.name, "frames": self.total}))

    def compute(self, *, waits: bool = True) -> None:
        """Makes the segments that are not there; it waits for those that others make, or leaves them to them."""
        self.network.run(self._decoded(waits), self._encode, self._stop)

    def _decoded(self, waits: bool) -> Iterator[Item]:
        for segment in self._wanted(waits):
            yield Item(segment=segment)
            frames = self._frames(segment)
            for pts, pixels in self.plan.clip.read(frames.start, frames.stop):
                yield Item(segment=segment, pts=pts, pixels=pixels)
            yield Item(segment=segment)  # now: the next one may have to wait for processes that wait for this one

    def _wanted(self, waits: bool) -> Iterator[int]:
        """Yields segments that are claimed; those that others hold come last, until they are there."""
        waiting = list(range(len(self.segments)))
        while waiting and self.folder.exists():
            held = []
            for each in waiting:
                if self.segments[each].exists():
                    continue
                if not self.claims.take(_claim(each)):
                    held.append(each)
                elif self.segments[each].exists():  # made and given back before it was claimed
                    self.claims.release(_claim(each))
                else:
                    yield each
            if held == waiting:
                if not waits or self._stop.wait(POLL_S):
                    return
                STOP.check(any_thread=True)
                self.network.on_step(self.network.done, self.total)  # which may end it
            waiting = held

    def _encode(self, items: Iterable[Item]) -> None:
        items = iter(items)
        for begin in items:
            frames = itertools.takewhile(lambda each: each.pixels is not None, items)
            with replace_file(self.segments[begin.segment]) as temporary, temporary.open("wb") as file:
                write_segment(file, self.plan.encoder.packets((each.pts, np.asarray(each.pixels)) for each in frames))
            self.claims.release(_claim(begin.segment))

    def join(self, on_whole: Callable[[Path], None], *, overwrite: bool) -> None:
        """Makes the output of the segments, unless another process does."""
        while not self.claims.take(_JOIN):
            STOP.check()
            time.sleep(POLL_S)
        if not self.folder.exists():  # another one has done it
            if not self.target.exists():
                raise AppearedError(
                    f"{shown(self.target)}: its segments were removed meanwhile; run the same command again"
                )
            return
        plan = self.plan
        with replace_file(self.target, on_whole=on_whole, overwrite=overwrite) as temporary:
            try:
                join(temporary, self.segments, plan.clip, plan.encoder, plan.container, history=plan.history)
            except BROKEN as error:
                cause = OSError(getattr(error, "errno", 0), getattr(error, "strerror", str(error)))
                raise output_error(self.target, cause) from error
        for folder in parts_folders(self.target):
            shutil.rmtree(folder, ignore_errors=True)


def _history(plan: UpscalePlan) -> str:
    """Says what was done as a picture's XMP does, by which a batch knows its own outputs."""
    change = change_by(plan)
    return f'softwareAgent="{change.software}" {change.parameters}'


def _claim(segment: int) -> str:
    return f"{segment:032x}"


def _fingerprint(plan: ClipPlan, engine: Engine) -> str:
    """Hashes everything that determines the packets of a clip."""
    cutting = engine.planner.cutting
    said: Mapping[str, Any] = {
        "versions": [__version__, av.__version__],
        "input": plan.picture.sha256,
        "part": [plan.clip.times[0], len(plan.clip.times), getattr(plan.clip, "deinterlace", False)],
        "weights": [hash_file(step.weights) for step in plan.plan.passes],
        "sizes": [plan.plan.enlarged_size, plan.plan.output_size],
        "computed": [engine.backend, engine.planner.dtype_for(plan.picture.bits), engine.tta],
        "tiles": [cutting.tile_size, cutting.overlap, cutting.halo],
        "encoder": [plan.encoder.name, plan.encoder.pixel_format, plan.encoder.options],
        "look": repr(plan.encoder.look),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


__all__ = ["ClipPlan", "enlarge_clip", "plan_clip", "share_clip"]
