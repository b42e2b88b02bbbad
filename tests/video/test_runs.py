"""Runs on clips: what goes on, is shared, cut out, piped, refused."""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
import sys
import threading
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_upscale import Upscaler
from sr_upscale.errors import OutputError, UsageError
from sr_upscale.pipeline.executor import Cancelled, engine_for
from sr_upscale.pipeline.job import stream_of
from sr_upscale.pipeline.manifest import MANIFEST
from sr_upscale.pipeline.request import NetworkOptions, Request, request_of
from sr_upscale.storage import claims
from sr_upscale.storage.claims import Claims
from tests.helpers import animation, fails, pattern, pictures
from tests.storage.object_store import Store, refuse
from tests.video.clips import Cli, as_shown, ffmpeg, frames_of, hashes, make_clip, probed, times_of

pytest.importorskip("av")

from sr_upscale.inference import strips
from sr_upscale.inference.sizing import Target
from sr_upscale.video import mux, run
from sr_upscale.video.containers import CONTAINERS, VideoOptions
from sr_upscale.video.run import ClipPlan, enlarge_clip, plan_clip
from sr_upscale.video.source import Clip


@pytest.fixture
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SEGMENT_FRAMES", 7)
    monkeypatch.setattr(run, "POLL_S", 0.05)


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Killed(BaseException):
    """What no code of the program expects."""


def planned(source: Path, weights: Path, **options: object) -> ClipPlan:
    clip = Clip(source, deinterlace=bool(options.pop("deinterlace", False)))
    return plan_clip(
        clip, CONTAINERS["mkv"], engine_for(NetworkOptions(model=str(weights))), Target(), VideoOptions(**options)
    )


@pytest.mark.usefixtures("_short_segments")
@pytest.mark.parametrize("name", ["plain.mp4", "old.avi", "fields.mkv", "hlg.mkv"])
def test_row_79_a_run_goes_on_where_it_was_stopped(name: str, clips: Path, tmp_path: Path, micro: Path) -> None:
    source, fields = make_clip(clips, name), name == "fields.mkv"
    engine = engine_for(NetworkOptions(model=str(micro)))
    whole, again = tmp_path / "whole.mkv", tmp_path / "again.mkv"
    enlarge_clip(planned(source, micro, deinterlace=fields), whole, engine)
    begun = []
    for stop in (12, 19):  # past the first and the second segment and what may wait in the queue

        def on_step(done: int, _all: int, stop: int = stop) -> None:
            begun.append(done)
            if done == stop:
                raise Killed

        with pytest.raises(Killed):
            enlarge_clip(planned(source, micro, deinterlace=fields), again, engine, on_step=on_step)
        assert not again.exists()
        assert len([each for each in listed(tmp_path) if each.startswith(".sr-")]) == 1
    assert begun[0] == 0
    made = enlarge_clip(planned(source, micro, deinterlace=fields), again, engine)
    assert made["resumed_frames"] >= 7
    assert hashes(again) == hashes(whole)
    assert times_of(again) == times_of(whole)
    assert listed(tmp_path) == ["again.mkv", "whole.mkv"]


@pytest.mark.usefixtures("_short_segments")
def test_other_options_do_not_go_on(clips: Path, tmp_path: Path, nearest: Path) -> None:
    source, engine = make_clip(clips, "plain.mp4"), engine_for(NetworkOptions(model=str(nearest)))

    def stop(done: int, _all: int) -> None:
        if done == 20:
            raise Killed

    for crf in (10, 20):
        with pytest.raises(Killed):
            enlarge_clip(planned(source, nearest, crf=crf), tmp_path / "out.mkv", engine, on_step=stop)
    made = enlarge_clip(planned(source, nearest, crf=30), tmp_path / "out.mkv", engine)
    assert made["resumed_frames"] == 0
    assert listed(tmp_path) == ["out.mkv"]


@pytest.mark.usefixtures("_short_segments")
@pytest.mark.parametrize("command", ["upscale", "batch"])
def test_runs_share_the_segments_of_a_clip(
    command: str, clips: Path, tmp_path: Path, micro: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes make each segment once, and both make some."""
    source, folder = make_clip(clips, "plain.mp4"), tmp_path / "in"
    engine = engine_for(NetworkOptions(model=str(micro)))
    enlarge_clip(planned(source, micro), tmp_path / "alone.mkv", engine)
    folder.mkdir()
    shutil.copy(source, folder / "out.mp4")
    call = {"upscale": [source, "-o", tmp_path / "out.mkv", "--force"], "batch": ["batch", folder, "-o", tmp_path]}
    begun: list[str] = []
    real = mux.write_segment

    def write(file: io.BufferedWriter, packets: object) -> None:
        if not begun:
            begun.append(other.stdout.readline())  # so that both are at work
        begun.append("here\n")
        real(file, packets)

    monkeypatch.setattr(run, "write_segment", write)
    words = [str(each) for each in (*call[command], "-n", micro, "--json")]
    script = (
        "from sr_upscale.video import run; from sr_upscale.cli.app import main; run.SEGMENT_FRAMES = 7; "
        "write = run.write_segment; run.write_segment = lambda *a: (print('there', flush=True), write(*a)); "
    )
    other = subprocess.Popen([sys.executable, "-c", f"{script}main({words})"], stdout=subprocess.PIPE, text=True)
    late = threading.Timer(120, other.kill)
    late.start()
    assert cli(*words).code == 0
    answer, _ = other.communicate()
    late.cancel()
    assert other.returncode == 0
    made = [each for each in begun + answer.splitlines(keepends=True) if each in ("here\n", "there\n")]
    assert (len(made), set(made)) == (math.ceil(30 / 7), {"here\n", "there\n"})
    assert hashes(tmp_path / "out.mkv") == hashes(tmp_path / "alone.mkv")
    assert [name for name in listed(tmp_path) if name != MANIFEST] == ["alone.mkv", "in", "out.mkv"]


@pytest.mark.usefixtures("_short_segments")
def test_a_run_that_waits_for_another_one_can_be_stopped(
    clips: Path, tmp_path: Path, micro: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, engine = make_clip(clips, "plain.mp4"), engine_for(NetworkOptions(model=str(micro)))
    others: list[Claims] = []
    steps: list[int] = []
    late = threading.Timer(60, lambda: others[0].close())

    def on_step(done: int, _all: int) -> None:
        if not others:
            (folder,) = tmp_path.glob(".sr-*.clip")
            with monkeypatch.context() as elsewhere:
                elsewhere.setattr(claims, "identity", lambda: "elsewhere.00000001-1-0123abcd")
                others.append(Claims(folder.with_suffix(".claims")))
            assert others[0].take(f"{4:032x}")
            late.start()
        if steps[-2:] == [28, 28] and done == 28:  # nothing is left for this one
            raise Cancelled
        steps.append(done)

    with pytest.raises(Cancelled):
        enlarge_clip(planned(source, micro), tmp_path / "out.mkv", engine, on_step=on_step)
    late.cancel()
    others[0].close()


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_a_part_of_a_clip_stays_in_step(ending: str, clips: Path, tmp_path: Path, nearest: Path, cli: Cli) -> None:
    source, out = make_clip(clips, "vfr.mp4"), tmp_path / f"out.{ending}"
    assert cli(source, "-o", out, "-n", nearest, "--start", "0.4", "--duration", "0.5").code == 0
    wanted = [time - Fraction(2, 5) for time in times_of(source) if Fraction(2, 5) <= time < Fraction(9, 10)]
    assert max(abs(a - b) for a, b in zip(wanted, times_of(out), strict=True)) <= Fraction(1, 1000)
    sound = [float(each["pts_time"]) for each in probed(out, "-select_streams", "a:0", "-show_packets")["packets"]]
    before = [float(each["pts_time"]) for each in probed(source, "-select_streams", "a:0", "-show_packets")["packets"]]
    kept = [time - 0.4 for time in before if 0.4 <= time < 0.9]
    assert sound == pytest.approx(kept, abs=0.0011)
    chapters = [
        (float(each["start_time"]), float(each["end_time"])) for each in probed(out, "-show_chapters")["chapters"]
    ]
    assert chapters == [pytest.approx((0, 0.1)), pytest.approx((0.1, 0.5))]


def test_frames_that_are_the_one_before_are_computed_once(clips: Path, tmp_path: Path, nearest: Path) -> None:
    engine = engine_for(NetworkOptions(model=str(nearest)))
    out = tmp_path / "out.mkv"
    made = enlarge_clip(planned(make_clip(clips, "still.mkv"), nearest, codec="ffv1"), out, engine)
    assert made["reused_frames"] == 29
    assert len(set(hashes(out))) == 1
    assert len(hashes(out)) == 30


def test_fields_become_whole_frames(clips: Path, tmp_path: Path, nearest: Path, cli: Cli) -> None:
    source, out = make_clip(clips, "fields.mkv"), tmp_path / "out.mkv"
    refused = cli(source, "-o", out, "-n", nearest, code=4)
    assert "interlaced; add --deinterlace" in refused.err
    assert listed(tmp_path) == []
    assert cli(source, "-o", out, "-n", nearest, "--deinterlace", "--codec", "ffv1").code == 0
    expected = frames_of(source, before="bwdif=mode=send_frame,").repeat(2, axis=1).repeat(2, axis=2)
    again = as_shown(expected, "rgb24", "yuv420p", "smpte170m", "tv")
    assert abs(frames_of(out).astype(int) - again).mean() < 1.5


def test_animations_become_clips_and_clips_animations(tmp_path: Path, nearest: Path, cli: Cli) -> None:
    source, clip, back = tmp_path / "a.png", tmp_path / "a.mkv", tmp_path / "b.png"
    animation().save(source)
    assert cli(source, "-o", clip, "-n", nearest, "--codec", "ffv1").code == 0
    assert times_of(clip) == [0, Fraction(1, 10), Fraction(35, 100)]
    assert cli(clip, "-o", back, "-n", nearest).code == 0
    with Image.open(back) as image:
        assert image.size == (32, 24)
        durations = []
        for number in range(3):
            image.seek(number)
            durations.append(image.info["duration"])
            assert abs(np.asarray(image.convert("RGB"))[12, 16].astype(int) - (0, 0, 0)).argmax() == number
        assert durations == [100, 250, 70]
    assert cli(clip, "-o", tmp_path / "c.png", "-n", nearest, "--frame", "1").code == 0
    with Image.open(tmp_path / "c.png") as image:
        assert getattr(image, "n_frames", 1) == 1
        assert image.convert("RGB").getpixel((16, 12))[1] > 240


@pytest.mark.parametrize(("form", "name"), [("y4m", "old.avi"), ("nut", "vfr.mkv")])
def test_frames_go_through_pipes(
    form: str, name: str, clips: Path, tmp_path: Path, nearest: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = make_clip(clips, name), tmp_path / f"out.{form}"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    with out.open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        ran_code = cli("-", "-n", nearest, "--format", form, "-o", "-").code
        monkeypatch.undo()
    assert ran_code == 0
    first = times_of(source)[0]
    assert [time - times_of(out)[0] for time in times_of(out)] == pytest.approx([t - first for t in times_of(source)])
    expected = frames_of(source).repeat(2, axis=1).repeat(2, axis=2)
    if form == "nut":
        assert (frames_of(out) == expected).all()
    else:
        again = as_shown(expected, "rgb24", "yuv420p", "smpte170m", "tv")
        assert abs(frames_of(out).astype(int) - again).mean() < 1.5


def test_standard_input_to_a_file_keeps_the_sound(
    clips: Path, tmp_path: Path, nearest: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(make_clip(clips, "plain.mp4").read_bytes())))
    assert cli("-", "-n", nearest, "-o", tmp_path / "out.mkv").code == 0
    assert [each["codec_type"] for each in probed(tmp_path / "out.mkv", "-show_streams")["streams"]] == [
        "video",
        "audio",
    ]
    assert listed(tmp_path) == ["out.mkv"]


def test_a_folder_of_pictures_and_clips(clips: Path, tmp_path: Path, nearest: Path, cli: Cli) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.fromarray(pattern(9, 7)).save(folder / "a.png")
    for name in ("b.mkv", "b.mp4"):
        (folder / name).write_bytes(make_clip(clips, "plain.mp4").read_bytes())
    dry = cli("batch", folder, "-o", out, "-n", nearest, "--dry-run")
    assert "30 frames" in dry.out
    assert "of disk" in dry.out
    assert cli("batch", folder, "-o", out, "-n", nearest).code == 0
    made = [name for name in listed(out) if not name.startswith(".sr-")]
    assert made == ["a.png", "b.mkv", "b_mp4.mkv"]
    assert "3 skipped" in cli("batch", folder, "-o", out, "-n", nearest).err


REFUSED = [
    ("ntsc.mov", "out.mp4", (), 2, "mp4 does not hold pcm_s16le (audio, stream 1); end the name in .mkv"),
    ("plain.mp4", "out.webm", (), 2, "webm does not hold aac"),
    ("plain.mp4", "out.avi", (), 2, ".avi is only read; end the name in .mkv"),
    ("plain.mp4", "out.mkv", ("--crf", 20, "--codec", "ffv1"), 2, "ffv1 has no --crf; leave it out"),
    ("plain.mp4", "out.mkv", ("--codec", "x264", "--preset", "quick"), 2, "choose another --preset"),
    ("plain.mp4", "out.mp4", ("--codec", "prores"), 2, "mp4 does not hold prores; use --codec x264 or x265"),
    ("plain.mp4", "out.mkv", ("--size", "99x75", "--fit", "stretch"), 2, "use --size 100x76 --fit stretch"),
    ("plain.mp4", "out.mkv", ("--codec", "av1", "--scale", 1), 2, "av1 takes at least 64 pixels a side"),
    ("plain.mp4", "out.mkv", ("--start", "1h"), 4, "there is no frame between"),
    ("plain.mp4", "out.mkv", ("--frame", 1), 2, "--frame takes one frame out; give -o a picture"),
    ("plain.mp4", "out.mkv", ("--max-pixels", 100), 4, "more than --max-pixels"),
    ("sound.mkv", "out.mkv", (), 4, "has no video"),
    ("text.mkv", "out.mkv", (), 4, "looks like a text file"),
    ("picture.mp4", "out.mkv", (), 4, "a picture that does not move"),
    ("cut.mp4", "out.mkv", (), 4, "cannot be read as a video"),
]


@pytest.mark.parametrize(("name", "out", "options", "code", "said"), REFUSED)
def test_row_80_what_cannot_be_is_refused_before_the_first_frame(
    name: str, out: str, options: tuple[object, ...], code: int, said: str,
    clips: Path, tmp_path: Path, nearest: Path, cli: Cli,
) -> None:  # fmt: skip
    source = clips / name
    if name == "sound.mkv":
        ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", source)
    elif name == "text.mkv":
        source.write_text("nothing moves here")
    elif name == "picture.mp4":
        Image.fromarray(pattern(9, 7)).save(source, "PNG")
    elif name == "cut.mp4":
        source.write_bytes(make_clip(clips, "plain.mp4").read_bytes()[:900])
    else:
        make_clip(clips, name)
    ran = cli(source, "-o", tmp_path / out, "-n", nearest, *options)
    fails(ran, code, said)
    assert listed(tmp_path) == []


def test_row_78_what_is_cut_short_is_enlarged_as_far_as_it_goes(tmp_path: Path, nearest: Path, cli: Cli) -> None:
    data = make_clip(tmp_path, "fast.mkv", seconds=4).read_bytes()
    source, out = tmp_path / "cut.mkv", tmp_path / "out.mkv"
    source.write_bytes(data[: len(data) // 2])
    ran = cli(source, "-o", out, "-n", nearest, code=4)
    assert ran.err.count("is damaged or ends early") == 1
    assert times_of(out) == times_of(source)
    assert cli(source, "-o", out, "-n", nearest, "--force", "--allow-truncated").code == 0


@pytest.mark.parametrize("size", ["1x1", "2x2", "3x5"])
def test_tiny_frames(size: str, tmp_path: Path, nearest: Path, cli: Cli) -> None:
    width, height = map(int, size.split("x"))
    (tmp_path / "a.bin").write_bytes(bytes(range(width * height * 3)) * 5)
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "5", "-i", tmp_path / "a.bin")
    ffmpeg(*raw, "-c:v", "ffv1", "-pix_fmt", "yuv444p", tmp_path / "a.mkv")
    assert cli(tmp_path / "a.mkv", "-o", tmp_path / "out.mkv", "-n", nearest).code == 0
    assert len(hashes(tmp_path / "out.mkv")) == 5


def _full() -> None:
    raise OSError(28, "No space left on device")


def test_row_79_a_full_disk_ends_in_one_line_and_keeps_segments(
    clips: Path, tmp_path: Path, nearest: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = make_clip(clips, "plain.mp4"), tmp_path / "out.mkv"

    with monkeypatch.context() as patched:
        patched.setattr(run, "join", lambda *_a, **_m: _full())
        ran = cli(source, "-o", out, "-n", nearest)
    assert (ran.code, "the disk is full" in ran.err) == (5, True)
    assert not out.exists()
    assert "30 of 30 frames are there" in cli(source, "-o", out, "-n", nearest).err
    assert listed(tmp_path) == ["out.mkv"]


@pytest.mark.usefixtures("_short_segments")
def test_row_79_out_of_memory_within_a_clip_takes_smaller_strips_then_ends_and_keeps_segments(
    clips: Path, tmp_path: Path, nearest: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, whole, out = make_clip(clips, "plain.mp4"), tmp_path / "whole.mkv", tmp_path / "out.mkv"
    words = ("-n", nearest, "--backend", "torch", "--fp32")
    assert cli(source, "-o", whole, *words).code == 0
    real, tried, most = strips.stream_rows, [], 20

    def greedy(*arguments: Any, rows: int, **more: Any) -> Any:
        tried.append(rows)
        if rows > 4 or len(tried) > most:
            raise MemoryError
        return real(*arguments, rows=rows, **more)

    monkeypatch.setattr(strips, "stream_rows", greedy)
    ran = cli(source, "-o", out, *words)
    assert ran.code == 8
    assert "finished parts stay" in ran.err
    assert ran.err.endswith("out of memory on cpu even with single rows of 64 pixels; close other programs\n")
    assert tried[:8] == [48, 24, 12, 6, 3, 3, 3, 3]  # once
    assert not out.exists()
    most = 1000
    there = cli(source, "-o", out, *words).err.split()[0]
    assert there in ("14", "21")  # 16 are computed and some of 30 repeat; what was not yet written is lost
    assert hashes(out) == hashes(whole)
    assert listed(tmp_path) == ["out.mkv", "whole.mkv"]


@pytest.mark.usefixtures("spools")
def test_clips_of_a_store(cli: Cli, store: Store, clips: Path, tmp_path: Path, nearest: Path) -> None:
    """From and to objects, by one and by folders; what cannot be is one line, and nothing stays on the way."""
    source, bucket = make_clip(clips, "plain.mp4"), f"s3://{store.bucket}"
    store.put("in/a.mp4", source.read_bytes())
    assert cli(source, "-o", tmp_path / "a.mkv", "-n", nearest).code == 0
    for words in (
        (f"{bucket}/in/a.mp4", "-o", f"{bucket}/one.mkv"),
        (source, "-o", f"{bucket}/two.mkv"),
        (f"{bucket}/in/a.mp4", "-o", tmp_path / "three.mkv"),
        ("batch", f"{bucket}/in", "-o", f"{bucket}/four"),
        ("batch", f"{bucket}/in", "-o", tmp_path / "five"),
    ):
        assert cli(*words, "-n", nearest).code == 0
    made = [store.get(name) for name in ("one.mkv", "two.mkv", "four/a.mkv")]
    made += [(tmp_path / name).read_bytes() for name in ("three.mkv", "five/a.mkv")]
    for data in made:
        (tmp_path / "made.mkv").write_bytes(data)
        assert hashes(tmp_path / "made.mkv") == hashes(tmp_path / "a.mkv")
    for out in (f"{bucket}/four", tmp_path / "five"):
        assert "1 skipped" in cli("batch", f"{bucket}/in", "-o", out, "-n", nearest).err
    refused = cli(f"{bucket}/in/a.mp4", "-o", f"{bucket}/b.avi", "-n", nearest)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert store.writes() == dict.fromkeys(("in/a.mp4", "one.mkv", "two.mkv", "four/a.mkv"), 1)


@pytest.mark.usefixtures("_short_segments", "spools")
@pytest.mark.parametrize("kind", ["clip", "comic"])
def test_row_79_what_becomes_an_object_goes_on_by_its_parts(
    kind: str, cli: Cli, store: Store, clips: Path, tmp_path: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie in the cache until the object is there, also where its put fails."""
    monkeypatch.setenv("SR_UPSCALE_CACHE", str(tmp_path / "cache"))
    source, parts = make_clip(clips, "plain.mp4"), tmp_path / "cache" / "parts"
    if kind == "comic":
        source = tmp_path / "a.cbz"
        with zipfile.ZipFile(source, "w") as book:
            for number in range(5):
                book.write(pictures(tmp_path, "page.png") / "page.png", f"{number}.png")
    name = "out.mkv" if kind == "clip" else "out.cbz"
    assert cli(source, "-o", tmp_path / name, "-n", nearest).code == 0
    command = (source, "-o", f"s3://{store.bucket}/{name}", "-n", nearest, "--json")
    store.fault = lambda handler: handler.command == "PUT" and refuse(403, "AccessDenied")(handler)
    ran = cli(*command)
    assert (ran.code, "no rights" in ran.err, "finished parts stay" in ran.err) == (5, True, True)
    (folder,) = parts.glob(".sr-*.clip")
    assert len([*folder.glob("*.segment"), *folder.glob("*.page")]) == 5
    store.fault = lambda _handler: False
    ran = cli(*command)
    assert ran.code == 0
    done = json.loads(ran.out.splitlines()[-1])
    assert (done.get("resumed_frames"), done.get("resumed_pages")) in ((30, None), (None, 5))
    (tmp_path / f"got_{name}").write_bytes(store.get(name))
    if kind == "clip":  # Matroska has a random number
        assert hashes(tmp_path / f"got_{name}") == hashes(tmp_path / name)
    else:
        assert (tmp_path / f"got_{name}").read_bytes() == (tmp_path / name).read_bytes()
    assert listed(parts) == []


def test_names_of_containers_reach_the_request() -> None:
    assert request_of({"format": ".MP4"}).file.format is CONTAINERS["mp4"]
    assert request_of({"start": "1m30s"}).video.start == 90


def test_decoding_times_ascend_and_are_never_late() -> None:
    shown = [0, 40, 20, 10, 30, 80, 60, 50, 70]
    times = mux.decoding_times(shown, 10)
    assert all(a < b for a, b in zip(times, times[1:], strict=False))
    assert all(decoded <= pts for decoded, pts in zip(times, shown, strict=True))


def test_an_hour_of_film_stays_in_step(tmp_path: Path) -> None:
    """24000/1001 frames a second in the clock of Matroska, rounded once and never added up."""
    unit = Fraction(1, 1000)
    wanted = [Fraction(number * 1001, 24000) for number in range(24 * 3600)]
    times = [round(each / unit) for each in wanted]
    decoded = mux.decoding_times(times, 42)
    assert max(abs(time * unit - each) for time, each in zip(times, wanted, strict=True)) <= unit
    assert decoded == times


def test_requests_make_streams(clips: Path) -> None:
    clip = stream_of(make_clip(clips, "turned.mp4"), Request(), "turned.mp4")
    assert clip.look.turn is not None
    assert clip.look.resized(128, 96).turn == clip.look.turn


def test_from_python(clips: Path, tmp_path: Path, nearest: Path) -> None:
    out, steps = tmp_path / "out.mp4", []
    upscaler = Upscaler(nearest)
    done = upscaler.video(make_clip(clips, "plain.mp4"), out, crf=30, progress=lambda *step: steps.append(step))
    assert (done["resumed_frames"], done["damaged"], steps[0], steps[-1]) == (0, 0, (0, 30), (30, 30))
    assert len(times_of(out)) == 30
    with pytest.raises(OutputError, match="exists"):
        upscaler.video(make_clip(clips, "plain.mp4"), out)
    with pytest.raises(UsageError, match="end the name in .mkv"):
        upscaler.video(make_clip(clips, "plain.mp4"), tmp_path / "out.avi")


def test_the_server_enlarges_clips(clips: Path, tmp_path: Path, nearest: Path) -> None:
    pytest.importorskip("starlette")
    from sr_upscale.server.jobs import Job, enlarge

    request = request_of({"model": str(nearest), "codec": "ffv1"})
    data, job = make_clip(clips, "plain.mp4").read_bytes(), Job("a")
    made = enlarge(data, "plain.mp4", request, job, folder=None)
    out = tmp_path / "out.mkv"
    with made.file as file:
        out.write_bytes(file.read())
    assert (made.name, made.format.media_type, job.share) == ("plain_x2_nearest-x2.mkv", "video/x-matroska", 1)
    assert [each["codec_name"] for each in probed(out, "-show_streams")["streams"]] == ["ffv1", "aac"]
    job.stop.set()
    with pytest.raises(Cancelled):
        enlarge(data, "plain.mp4", request, job, folder=tmp_path)
    assert listed(tmp_path) == ["out.mkv"]


def test_without_the_extra_a_clip_is_one_line(
    clips: Path, tmp_path: Path, nearest: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_clip(clips, "plain.mp4")
    monkeypatch.setattr("sr_upscale.video.containers.has_video", lambda: False)
    for out in ("out.mkv", "out.gif", "out.y4m"):
        ran = cli(source, "-o", tmp_path / out, "-n", nearest)
        fails(ran, 4, "a video, for which this program needs an extra")
