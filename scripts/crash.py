"""Kills the program at every step of every write path, and checks that nothing is torn and nothing is lost.

    python scripts/crash.py                       # 300 kills
    python scripts/crash.py --kills 40 --scene batch

A child announces every call that changes a file (Python's audit events, and fsync) on a pipe, stops at the one that was
chosen, and is killed there with SIGKILL. Or it is told at the opening of a file how many bytes that file may grow by:
there the kernel ends it in the middle of a write, whichever library writes. So each kill hits a known place. The
product knows nothing of this.

After each kill every file must be what it was before or what an undisturbed run leaves, and nothing that stood there
may be gone. Then the same command runs again, and must leave what the undisturbed run left, byte for byte, without
temporary files. Every run is a fork of this process, which has imported everything. Linux only.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import itertools
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crash_child import Call, announced, child
from crash_scenes import SCENES, Scene, import_the_rest, server

Content = Mapping[str, object]
"""What the files of a folder hold, by their names relative to it."""

UNFINISHED = (".sr-*.tmp", "*.part", "*.part.json", "*.part.*", "*.claim", "*.lease", ".sr-upscale.*.jsonl")
"""Names of files that are not yet results, or say who is at work and what that one has done so far."""
COLLECTED = re.compile(r"\.part\.(json|lock)$")
"""Notes and locks of downloads, which later downloads collect."""


@dataclass(frozen=True)
class Place:
    """Where a run is killed: before a call, or when the file of that call has grown by `more` bytes."""

    stop: int
    more: int | None = None


def growth(calls: list[Call]) -> list[tuple[int, int]]:
    """Finds the calls that open a file, each with the bytes by which it grew in the run that just ended."""
    found = []
    for number, call in enumerate(calls):
        sizes = [each.size for each in calls[number + 1 :] if each.path == call.path]
        if Path(call.path).is_file():
            sizes.append(Path(call.path).stat().st_size)
        if call.name.startswith("open") and (grown := max(sizes, default=0) - call.size) > 0:
            found.append((number, grown))
    return found


def places(calls: int, growing: list[tuple[int, int]]) -> Iterator[Place]:
    """Yields every call, then the ends and the middle of every file that is written, then bytes by chance."""
    yield from (Place(number) for number in range(calls))
    for share in (0.5, 0.0, 1.0):
        yield from (Place(number, min(int(share * grown), grown - 1)) for number, grown in growing)
    chance = random.Random(0)
    while growing:
        number, grown = chance.choice(growing)
        yield Place(number, chance.randrange(grown))


def contents(scene: Scene, folder: Path) -> Content:
    """Reads all files of a folder but those that are not yet results."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.suffix != ".lock" and not unfinished(path):
            found[name] = scene.read(path)
    return found


def unfinished(path: Path) -> bool:
    return any(fnmatch.fnmatch(path.name, pattern) for pattern in UNFINISHED)


@dataclass
class Tally:
    """What a scene showed."""

    calls: int = 0
    kills: int = 0
    in_writes: int = 0
    torn: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        return [*self.torn, *self.lost, *self.unlike]


def play(scene: Scene, root: Path, kills: int) -> Tally:
    """Kills runs of a scene, and says what was left.

    Args:
        scene: What is run.
        root: An empty folder.
        kills: How many runs are killed.
    """
    folder, before = root / "work", root / "before"  # a cache knows pictures by path and time: always the same ones
    folder.mkdir()
    prepared = child(scene.prepare, folder)
    if prepared.status:
        raise SystemExit(f"cannot prepare: {prepared.said}")
    shutil.copytree(folder, before)
    old = contents(scene, folder)
    calls = announced(scene.run, folder)
    new = contents(scene, folder)
    tally = Tally(calls=len(calls))
    waiting = places(len(calls), growth(calls))
    order = list(itertools.islice(waiting, max(kills, len(calls))))
    if kills < len(order):
        order = random.Random(0).sample(order, kills)
    for place in itertools.chain(order, itertools.islice(waiting, kills)):
        if tally.kills >= kills:
            break
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        ended = child(scene.run, folder, stop=place.stop, more=place.more)
        where = calls[place.stop].name + ("" if place.more is None else f", {place.more} bytes")
        if not ended.killed:
            if place.more is None or ended.status:
                tally.unlike.append(f"{where}: ended with {ended.status} instead: {ended.said}")
            elif contents(scene, folder) != new:
                tally.torn.append(f"{where}: a short write was taken for a whole one")
            continue
        tally.kills += 1
        tally.in_writes += place.more is not None
        _check_left(scene, folder, old, new, where, tally)
        ended = child(scene.run, folder)
        if ended.status:
            tally.unlike.append(f"{where}: the next run ended with {ended.status}: {ended.said}")
            continue
        after = contents(scene, folder)
        over = [path.name for path in folder.rglob("*") if unfinished(path) and not COLLECTED.search(path.name)]
        if different := [name for name in {**new, **after} if new.get(name) != after.get(name)] + over:
            tally.unlike.append(f"{where}: the next run leaves other files: {', '.join(different)}")
    return tally


def _check_left(scene: Scene, folder: Path, old: Content, new: Content, where: str, tally: Tally) -> None:
    try:
        left = contents(scene, folder)
    except Exception as error:
        tally.torn.append(f"{where}: {type(error).__name__}: {error}")
        return
    for name, content in left.items():
        if scene.versions and not any(name in each and each[name] == content for each in (old, new)):
            tally.torn.append(f"{where}: {name}")
    checkpoints = {name for name in old if re.search(r"checkpoint(-previous)?\.pt$", name)}
    lost = old.keys() - left.keys() - checkpoints
    if checkpoints and not checkpoints & left.keys():
        lost |= checkpoints
    if lost:
        tally.lost.append(f"{where}: {', '.join(sorted(lost))}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="runs to kill, of all scenes together")
    parser.add_argument("--scene", default="", help="only scenes with this word in their names")
    options = parser.parse_args()
    import_the_rest()
    chosen = {name: scene for name, scene in SCENES.items() if options.scene in name}
    say = functools.partial(print, flush=True)
    say(f"{'write path':28} calls  kills  in writes  torn  lost  unlike  seconds")
    faults: list[str] = []
    kills = 0
    with server(), tempfile.TemporaryDirectory(prefix="crash-") as folder:
        for number, (name, scene) in enumerate(chosen.items()):
            begin, root = time.monotonic(), Path(folder) / str(number)
            root.mkdir()
            share = -(-(options.kills - kills) // (len(chosen) - number))
            tally = play(scene, root, share)
            say(
                f"{name:28} {tally.calls:5}  {tally.kills:5}  {tally.in_writes:9}  {len(tally.torn):4}  "
                f"{len(tally.lost):4}  {len(tally.unlike):6}  {time.monotonic() - begin:7.1f}"
            )
            kills += tally.kills
            faults += [f"{name}: {fault}" for fault in tally.faults]
            shutil.rmtree(root)
    for fault in faults:
        say(fault)
    say(f"{kills} kills, {len(faults)} faults")
    return 1 if faults or kills < options.kills else 0


if __name__ == "__main__":
    sys.exit(main())
