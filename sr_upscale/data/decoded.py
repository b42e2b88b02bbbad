"""Decoded training pictures: in memory, or in a file of the cache that all processes of a host map into theirs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.data.patches import Pair, reduced
from sr_upscale.errors import InputError, OutputError, TrainingError
from sr_upscale.functional.pil_arrays import rgb8
from sr_upscale.images import load_plain8
from sr_upscale.storage.atomic import make_folder, remove_orphans, replace_file

MAX_UNREADABLE = 0.01
"""Share of pictures that may be unreadable or too small before a run refuses to start."""

CACHE_VERSION = 3
"""Raise it when `_decode` makes other pixels, or the files of the cache change."""

CACHE_BYTES = 64 << 30
"""Bytes that decoded pictures may take in the cache. Sets that were used longest ago make room for a new one."""


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """A pair, and what is said about its picture where it cannot be used.

    Attributes:
        path: The picture.
        size: Its height and width, before they were cut to multiples of the scale.
        pair: Its pixels.
    """

    path: str
    size: tuple[int, int]
    pair: Pair


def load_pairs(
    paths: Sequence[Path],
    *,
    scale: int,
    min_side: int,
    cache: Path | None = None,
    workers: int | None = None,
    on_warning: Callable[[str], None] = lambda _message: None,
) -> list[Pair]:
    """Decodes pictures to RGB and makes their LR twins (`patches.reduced`).

    Args:
        paths: Pictures.
        scale: LR is smaller by this factor; HR is cropped to a multiple of it.
        min_side: Smallest HR side in pixels that can be used.
        cache: Folder in which decoded pictures are kept for the next run, whatever its `min_side`. They are mapped into
            memory from there as they are needed. Without it all are held in memory.
        workers: Threads that decode; None for one a core.
        on_warning: Called with a sentence about each picture that is left out, or about a cache that cannot be used.

    Returns:
        A pair for each picture that can be used, in the order of the paths.

    Raises:
        TrainingError: More than 1 % of the pictures (and more than one) cannot be used, or none can.
    """
    results = _results(paths, scale, cache, workers or _cores(), on_warning)
    small = {each.path for each in results if isinstance(each, _Decoded) and min(each.pair.hr.shape[:2]) < min_side}
    pairs = [each.pair for each in results if isinstance(each, _Decoded) and each.path not in small]
    bad = [
        each if isinstance(each, str) else _too_small(each.path, each.size, min_side)
        for each in results
        if isinstance(each, str) or each.path in small
    ]
    if not pairs or len(bad) > max(1, MAX_UNREADABLE * len(paths)):
        shown = "; ".join(bad[:5])
        raise TrainingError(
            f"training data: {len(bad)} of {len(paths)} pictures cannot be used ({shown}); remove or replace them"
        )
    for text in bad:
        on_warning(f"left out: {text}")
    return pairs


def _results(
    paths: Sequence[Path], scale: int, cache: Path | None, workers: int, on_warning: Callable[[str], None]
) -> list[_Decoded | str]:
    """Decodes the pictures, or finds them in the cache; see `load_pairs`."""
    if cache is not None:
        try:
            return _cached(cache, paths, scale=scale, workers=workers)
        except (OSError, OutputError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            reason = getattr(cause, "strerror", None) or str(cause)
            on_warning(
                f"decoded pictures are held in memory: the cache {cache} cannot be used ({reason}); "
                "SR_UPSCALE_CACHE names another folder"
            )
    return list(_decode_all(paths, scale=scale, workers=workers))


def _cores() -> int:
    """Counts the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _too_small(path: object, size: tuple[int, int], least: int) -> str:
    return f"{path}: {size[1]}x{size[0]} is smaller than {least} pixels"


def _decode_all(paths: Sequence[Path], *, scale: int, workers: int) -> Iterator[_Decoded | str]:
    """Yields what `_decode` makes of each path, in their order. A few results wait in memory, not all."""
    waiting: deque[Future[_Decoded | str]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for path in paths:
            waiting.append(pool.submit(_decode, path, scale))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _decode(path: Path, scale: int) -> _Decoded | str:
    """Decodes a picture to a pair, or says in a sentence why there is none."""
    try:
        rgb = rgb8(load_plain8(path))
    except InputError as error:
        return str(error)
    except OSError as error:  # not to be taken for one of the cache
        return f"{path}: cannot be read: {error.strerror or error}"
    size = (rgb.shape[0], rgb.shape[1])
    height, width = (side - side % scale for side in size)
    if min(height, width) == 0:
        return _too_small(path, size, scale)
    hr = np.ascontiguousarray(rgb[:height, :width])
    return _Decoded(path=str(path), size=size, pair=Pair(name=path.name, hr=hr, lr=reduced(hr, scale)))


# --- on disk ----------------------------------------------------------------------------------------


def _cached(folder: Path, paths: Sequence[Path], *, scale: int, workers: int) -> list[_Decoded | str]:
    """Returns the decoded pictures out of their set, which is made unless it is there: ``KEY.json`` and ``KEY.bin``.

    The key is that of the pictures and the scale, so that runs with other patches share the set.
    """
    sources = _sources(paths)
    key = hashlib.sha256(json.dumps([CACHE_VERSION, scale, sources]).encode()).hexdigest()[:32]
    index = folder / f"{key}.json"
    results = _read(index)
    if results is None:
        make_folder(folder)
        remove_orphans(folder)
        _fill(index, sources, _decode_all(paths, scale=scale, workers=workers))
        _make_room(folder, kept=index)
        results = _read(index)
        if results is None:
            raise OSError(f"{index} was removed by another process")
    with contextlib.suppress(OSError):  # a cache that may only be read serves as well
        index.touch()  # says when it was last used
    return results


def _sources(paths: Sequence[Path]) -> list[list[object]]:
    """Says what pictures were when they were decoded: path, size, time. Those that are gone have the path alone."""
    found: list[list[object]] = []
    for path in paths:
        try:
            stat = path.stat()
            found.append([str(path), stat.st_size, stat.st_mtime_ns])
        except OSError:
            found.append([str(path)])
    return found


def _fill(index: Path, sources: list[list[object]], results: Iterator[_Decoded | str]) -> None:
    entries: list[object] = []
    with replace_file(index.with_suffix(".bin")) as temporary, temporary.open("wb") as file:
        for each in results:
            if isinstance(each, str):
                entries.append(each)
                continue
            shapes = {"hr": each.pair.hr.shape, "lr": each.pair.lr.shape}
            entries.append({"path": each.path, "size": each.size, "at": file.tell(), **shapes})
            file.write(each.pair.hr.tobytes())
            file.write(each.pair.lr.tobytes())
        size = file.tell()
    with replace_file(index) as temporary:  # last: an index means that the pixels are whole
        content = {"sources": sources, "bytes": size, "pictures": entries}
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _read(index: Path) -> list[_Decoded | str] | None:
    """Maps a set into memory; None where it is not there, or not whole."""
    try:
        content = json.loads(index.read_text("utf-8"))
        entries, size = content["pictures"], content["bytes"]
        if index.with_suffix(".bin").stat().st_size != size:
            return None
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    pixels = np.memmap(index.with_suffix(".bin"), dtype=np.uint8, mode="r") if size else np.empty(0, np.uint8)
    return [each if isinstance(each, str) else _mapped(each, pixels) for each in entries]


def _mapped(entry: dict[str, Any], pixels: NDArray[np.uint8]) -> _Decoded:
    middle = entry["at"] + int(np.prod(entry["hr"]))
    end = middle + int(np.prod(entry["lr"]))
    hr, lr = pixels[entry["at"] : middle].reshape(entry["hr"]), pixels[middle:end].reshape(entry["lr"])
    height, width = entry["size"]
    return _Decoded(path=entry["path"], size=(height, width), pair=Pair(name=Path(entry["path"]).name, hr=hr, lr=lr))


def _make_room(folder: Path, kept: Path) -> None:
    """Removes sets that no run can use again, as a picture of theirs has changed, and the oldest above `CACHE_BYTES`.

    Args:
        folder: The cache.
        kept: Index of the set that stays in any case.
    """
    sets = [path for path in folder.glob("*.bin") if re.fullmatch("[0-9a-f]{32}", path.stem)]
    total = kept.with_suffix(".bin").stat().st_size
    for each in sorted(sets, key=_last_used, reverse=True):
        if each.stem == kept.stem:
            continue
        with contextlib.suppress(OSError):  # another process was here first, or has it open where that forbids it
            total += each.stat().st_size
            if total > CACHE_BYTES or _is_stale(each.with_suffix(".json")):
                total -= each.stat().st_size
                each.with_suffix(".json").unlink(missing_ok=True)  # first: without it nobody looks for the pixels
                each.unlink()


def _last_used(pixels: Path) -> float:
    for path in (pixels.with_suffix(".json"), pixels):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _is_stale(index: Path) -> bool:
    """Says whether a set is of no use any more: a picture has changed, or an earlier version wrote it."""
    try:
        sources = json.loads(index.read_text("utf-8"))["sources"]
        return bool(_sources([Path(source[0]) for source in sources]) != sources)
    except FileNotFoundError:
        return False  # being made
    except (ValueError, TypeError, KeyError, IndexError):
        return True
