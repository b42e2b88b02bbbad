"""What a batch will do: pictures and their outputs, found and checked before anything is computed."""

from __future__ import annotations

import functools
import os
import stat
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from sr_upscale.errors import InputError, OutputError, UsageError
from sr_upscale.formatting import extra, shown
from sr_upscale.images.formats import (
    COMICS,
    FORMATS,
    RAW_SUFFIXES,
    SUFFIXES,
    Format,
    format_of_path,
    has_raw,
    own_format,
)
from sr_upscale.pipeline.manifest import Item
from sr_upscale.pipeline.own_outputs import made_beside_others, made_from_others
from sr_upscale.pipeline.parsing import Shard
from sr_upscale.storage.atomic import output_error
from sr_upscale.video.containers import DEFAULT, Container, container_of_path, has_video
from sr_upscale.video.containers import SUFFIXES as CLIP_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """What to do, and what was noticed while looking for pictures.

    Attributes:
        items: Pictures and their outputs.
        root: Folder of the manifest, above all outputs; None where each folder of outputs has its own.
        warnings: Sentences for the user.
        left_out: How many files of each ending are no pictures that can be read.
        unnameable: How many pictures are left out because no file can have their name.
        refused: Pictures that fail because another one comes out under the same name, and why.
    """

    items: tuple[Item, ...]
    root: Path | None
    warnings: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    unnameable: int = 0
    refused: tuple[tuple[Item, UsageError], ...] = ()


def output_name(source: Path, *, label: str, suffix: str | None, fmt: Format | Container | None) -> str:
    """Names the output of a picture: ``photo.jpg`` -> ``photo_x4_psnr-x4.jpg``.

    Args:
        source: The picture.
        label: Stands behind the stem, after ``_``.
        suffix: Takes the place of ``_<label>``; None keeps that.
        fmt: Gives the ending. None keeps the picture's own format, or what that comes out as, or PNG where it has none;
            clips become Matroska. Comics keep their ending.
    """
    own = format_of_path(source) or container_of_path(source)
    if fmt is None:
        fmt = DEFAULT if isinstance(own, Container) else own_format(own) if own else FORMATS["png"]
    stays = fmt == own or source.suffix.lower() in COMICS
    ending = source.suffix if stays else f".{fmt.name}"
    return f"{source.stem}{f'_{label}' if suffix is None else suffix}{ending}"


def plan_folder(
    folder: Path,
    out: Path,
    *,
    recursive: bool = True,
    fmt: Format | Container | None = None,
    suffix: str = "",
    shard: Shard | None = None,
) -> BatchPlan:
    """Finds the pictures of a folder, detected by their names, and mirrors its tree into `out`.

    What an earlier run made from others of them is left out.

    Args:
        folder: Where to look. Links to folders are followed, each real folder once.
        out: Root of the outputs. It is left out of the search if it lies inside `folder`.
        recursive: Search subfolders.
        fmt: Format of all pictures, or of all clips; None keeps each picture's own.
        suffix: Put behind the stem of every output's name.
        shard: Only this part of the pictures, by their names within the folder.

    Raises:
        InputError: There is no such folder, or no picture in it.
        UsageError: An output is any input.
        OutputError: A folder of outputs is a link.
    """
    if not folder.is_dir():
        raise InputError(f"{shown(folder)}: no such folder; check the path")
    warnings: list[str] = []
    left_out: Counter[str] = Counter()
    sources = _originals([*_walk(folder, out, recursive, warnings, left_out)], warnings)
    plan = _mirrored(sources, folder, out, fmt, suffix, shard, warnings, left_out)
    _refuse_links(out, {item.target.parent for item in plan.items})
    return plan


def plan_names(
    names: Iterable[str],
    folder: Path,
    out: Path,
    *,
    fmt: Format | Container | None = None,
    suffix: str = "",
    shard: Shard | None = None,
    exact: bool = False,
) -> BatchPlan:
    """Plans what a listing found: like `plan_folder`, of files that need not be there yet.

    Args:
        names: Names of files within the folder, with ``/``. What cannot be a path below it is left out.
        folder, out, fmt, suffix, shard: See `plan_folder`.
        exact: Whether outputs are different whose names differ in case or accents alone, as objects are.

    Raises:
        InputError: There is no picture among them.
    """
    warnings: list[str] = []
    left_out: Counter[str] = Counter()
    sources, unnameable = [], 0
    for name in names:
        ending = PurePosixPath(name).suffix.lower()
        if not _is_read(ending):
            left_out[ending or "without an ending"] += 1
        elif Path(name).parts != tuple(name.split("/")) or ".." in Path(name).parts or "\0" in name:
            warnings.append(f"{shown(name)}: cannot be the name of a file; left out")
            unnameable += 1
        else:
            sources.append(folder / name)
    plan = _mirrored(sources, folder, out, fmt, suffix, shard, warnings, left_out, exact=exact)
    return replace(plan, unnameable=unnameable)


def _mirrored(
    sources: Sequence[Path],
    folder: Path,
    out: Path,
    fmt: Format | Container | None,
    suffix: str,
    shard: Shard | None,
    warnings: Sequence[str],
    left_out: Counter[str],
    *,
    exact: bool = False,
) -> BatchPlan:
    """Plans pictures of a folder into a mirrored tree."""

    def wanted(path: Path) -> Format | Container | None:
        return fmt if _is_clip(path) == isinstance(fmt, Container) else None

    mirror = functools.cache(lambda above: out / Path(above).relative_to(folder))
    items = [
        Item(
            source=path,
            target=mirror(os.path.dirname(path)) / output_name(path, label="", suffix=suffix, fmt=wanted(path)),
        )
        for path in sources
    ]
    if raws := sum(left_out[ending] for ending in RAW_SUFFIXES):
        warnings = [*warnings, f"{raws} camera raw files are left out; {extra('raw')}"]
    if not items:
        kinds = ", ".join(sorted((*SUFFIXES, COMICS[0])))
        others = f"; left out: {counted(left_out)}" if left_out else ""
        raise InputError(f"{shown(folder)}: no images found; expected files ending in {kinds}{others}")
    items = _apart(items)
    refused = refuse_collisions(items, exact=exact)
    if shard is not None:
        items = [item for item in items if shard.holds(item.source.relative_to(folder).as_posix())]
    return BatchPlan(
        items=tuple(item for item in items if item not in refused),
        root=out,
        warnings=tuple(warnings),
        left_out=dict(left_out.most_common()),
        refused=tuple((item, refused[item]) for item in items if item in refused),
    )


def _refuse_links(out: Path, folders: Iterable[Path]) -> None:
    """Refuses folders of outputs that lead away: an archive can bring a link to anywhere where they would stand.

    Raises:
        OutputError: One is or lies behind a link; `out` itself may be one.
    """
    real = Path(os.path.realpath(out))
    for folder in sorted(folders):
        leads_to, within = os.path.realpath(folder), real / folder.relative_to(out)
        if os.path.normcase(leads_to) != os.path.normcase(within):
            raise OutputError(
                f"{shown(folder)}: leads to {shown(leads_to)} by a link; remove the link, or choose another -o"
            )


def plan_items(items: Sequence[Item]) -> BatchPlan:
    """Plans given items. Each folder of outputs gets a manifest.

    What an earlier run made from others of them is left out.

    Raises:
        UsageError: An output is any input.
    """
    warnings: list[str] = []
    originals = set(_originals([item.source for item in items], warnings))
    items = _apart([item for item in items if item.source in originals])
    refused = refuse_collisions(items)
    items = [item for item in items if item not in refused]
    folders = {os.path.abspath(item.target.parent) for item in items}
    root = Path(folders.pop()) if len(folders) == 1 else None
    return BatchPlan(items=tuple(items), root=root, warnings=tuple(warnings), refused=tuple(refused.items()))


def _originals(sources: Sequence[Path], warnings: list[str]) -> list[Path]:
    """Returns the pictures without those that this program made from others of them."""
    made = made_from_others(sources) | made_beside_others(sources)
    if not made:
        return list(sources)
    warnings.append(
        f"{len(made)} of {len(sources)} pictures were made from others by this program; left out;"
        " to enlarge one again, name it alone"
    )
    return [source for source in sources if source not in made]


def counted(left_out: Mapping[str, int]) -> str:
    """Formats endings and how many files have them as ``3 .txt, 1 .nef``."""
    return ", ".join(f"{count} {shown(ending)}" for ending, count in left_out.items())


def _apart(items: Sequence[Item]) -> list[Item]:
    """Returns the items, with another name for what a HEIC or a clip becomes beside another one of the same name."""
    moved = {item.source: kind for item in items if (kind := _kind_that_changes(item.source))}
    if not moved:
        return list(items)
    targets = Counter(_folded(item.target) for item in items)

    def renamed(item: Item) -> Item:
        if item.source not in moved or targets[_folded(item.target)] == 1:
            return item
        target = item.target.with_name(f"{item.target.stem}_{moved[item.source]}{item.target.suffix}")
        return Item(source=item.source, target=target)

    return [renamed(item) for item in items]


def _kind_that_changes(source: Path) -> str:
    """Names the format of a file whose output has another one anyway; nothing for others."""
    own = format_of_path(source)
    if own is not None:
        return own.name if own.written_as else ""
    if source.suffix.lower() in RAW_SUFFIXES:
        return source.suffix[1:].lower()
    return source.suffix[1:].lower() if _is_clip(source) and container_of_path(source) != DEFAULT else ""


def _is_clip(path: Path) -> bool:
    return container_of_path(path) is not None


def _is_read(ending: str) -> bool:
    """Says whether files of this ending are inputs; clips and raw files are where their extra is installed."""
    by_extra = (ending in CLIP_SUFFIXES and has_video()) or (ending in RAW_SUFFIXES and has_raw())
    return ending in SUFFIXES or ending in COMICS or by_extra


def _folded(path: str | os.PathLike[str]) -> str:
    """Returns what is the same for all spellings that a disc may take for one name: of case, and of accents."""
    return unicodedata.normalize("NFC", os.path.normcase(path)).casefold()


def refuse_collisions(items: Sequence[Item], *, exact: bool = False) -> dict[Item, UsageError]:
    """Finds inputs that become the output of an earlier one on any disc (`_folded`). No output may be any input.

    With `exact`, only equal names are one output.

    The file system is asked once for each folder, and once for each name.

    Returns:
        Such inputs, and why they are refused.

    Raises:
        UsageError: An output is an input.
    """
    refused: dict[Item, UsageError] = {}
    by_target: dict[str, Item] = {}
    real_folder = functools.cache(os.path.realpath)
    places = [_place(item.source, real_folder) for item in items]
    sources = {os.path.normcase(place) for place, _file in places}
    for item, (_place_of_source, source_file) in zip(items, places, strict=True):
        place, target_file = _place(item.target, real_folder)
        key = place if exact else _folded(place)
        if (other := by_target.get(key)) is not None:
            refused[item] = UsageError(
                f"{shown(other.source)} and {shown(item.source)} would both become {shown(item.target)}; "
                "leave out --format, or rename one of them"
            )
            continue
        by_target[key] = item
        if os.path.normcase(place) in sources or (target_file is not None and target_file == source_file):
            raise UsageError(f"{shown(item.target)} is an input and would be overwritten; choose another -o")
    return refused


def _place(path: Path, real_folder: Callable[[str], str]) -> tuple[str, tuple[int, int] | None]:
    """Returns where a path leads without links, and which file stands there: its device and number, if any."""
    folder, name = os.path.split(path)
    place = os.path.join(real_folder(folder), name)
    try:
        info = os.lstat(place)
        if stat.S_ISLNK(info.st_mode):
            place = os.path.realpath(place)
            info = os.stat(place)
    except (OSError, ValueError):  # nothing is there, or no name that a file can have
        return place, None
    return place, (info.st_dev, info.st_ino)


def refuse_name(target: Path) -> None:
    """Finds before any work whether an output can have its name.

    Raises:
        OutputError: It is too long, or its folder cannot be looked into.
    """
    try:
        target.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise output_error(target, error) from error


def folder_there(folder: Path) -> Path:
    """Returns the nearest folder at or above one that is there."""
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def refuse_unwritable(targets: Sequence[Path]) -> None:
    """Finds before any work whether the folders of the outputs can be written. It leaves nothing behind.

    Raises:
        OutputError: The nearest existing folder above an output cannot be written.
    """
    tried: set[Path] = set()
    for target in {os.path.dirname(target): target for target in targets}.values():
        if (there := folder_there(target.parent)) in tried:
            continue
        tried.add(there)
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise output_error(target, error) from error


def _walk(folder: Path, out: Path, recursive: bool, warnings: list[str], left_out: Counter[str]) -> Iterator[Path]:
    visited: set[tuple[int, int]] = set()
    skip = os.path.realpath(out)

    def unreadable(error: OSError) -> None:
        warnings.append(f"{shown(error.filename)}: cannot be read ({error.strerror}); left out")

    for place, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        info = os.stat(place)
        if (info.st_dev, info.st_ino) in visited:
            warnings.append(f"{shown(place)} was already visited through another path; left out")
            folders.clear()
            continue
        visited.add((info.st_dev, info.st_ino))
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".sr-") and os.path.realpath(os.path.join(place, name)) != skip
        )
        if not recursive:
            folders.clear()
        above = Path(place)
        for name in sorted(files):
            path = above / name
            if name.startswith(".sr-"):
                continue
            if _is_read(ending := path.suffix.lower()):
                yield path
            else:
                left_out[ending or "without an ending"] += 1
