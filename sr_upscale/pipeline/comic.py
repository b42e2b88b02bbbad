"""One comic to one comic: a zip of pages becomes a zip of larger pages, with the functions of `job`."""

from __future__ import annotations

import contextlib
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from sr_upscale.errors import InputError, UsageError
from sr_upscale.formatting import shown
from sr_upscale.images.formats import FORMATS, SUFFIXES, Format, own_format
from sr_upscale.inference.row_queue import Writer, write_inline
from sr_upscale.pipeline import job
from sr_upscale.pipeline.manifest import fingerprint_of
from sr_upscale.pipeline.request import Request
from sr_upscale.storage.atomic import hash_file, make_folder, replace_file
from sr_upscale.video.containers import parts_folder, parts_folders

if TYPE_CHECKING:
    from sr_upscale.inference.engine import Engine

COMIC = Format(name="cbz", codec="", pillow="", suffixes=(".cbz",), alpha=True)
"""Stands for a comic where a format is asked for; its pages have formats of their own."""

MEMBER_BYTES = 1 << 30
"""Most bytes of a page, or of another file in a comic: a zip of a few kB can claim any size."""

UNPACKED_TIMES, UNPACKED_BYTES = 100, 64 << 20
"""Most bytes of all files in a comic, as a multiple of its own; as many as the second are always allowed."""

_STEPS = 100
"""What a page counts for in progress."""


@dataclass(frozen=True, kw_only=True)
class PreparedComic(job.Prepared):
    """A comic that was looked at; `picture` and `plan` are those of its largest page.

    Attributes:
        source: The file.
        members: All files in it, in their order.
        settings: Everything besides the comic that determines its output, ready for JSON.
    """

    source: Path
    members: tuple[zipfile.ZipInfo, ...]
    settings: dict[str, Any]

    @property
    def pages(self) -> list[zipfile.ZipInfo]:
        """Returns the members that are pictures."""
        return [member for member in self.members if _is_page(member)]


def format_of_comic(source: Path, target: Path) -> Format:
    """Returns `COMIC`.

    Raises:
        UsageError: One of the names does not end in ``.cbz``.
    """
    if source.suffix.lower() != ".cbz":
        raise UsageError(f"{shown(source)}: of comics only .cbz files are read; repack it as zip first")
    if target.suffix.lower() != ".cbz":
        raise UsageError(f"{shown(source)}: comics come out as comics; give -o a name that ends in .cbz")
    return COMIC


def prepare(
    source: Path, _fmt: Format, engine: Engine, request: Request, *, queued: bool = False, name: str | None = None
) -> PreparedComic:
    """Looks at a comic and plans its largest page; see `job.prepare`."""
    begin = time.perf_counter()
    name = name or shown(source)
    with _opened(source, name) as book:
        members = tuple(each for each in book.infolist() if not each.is_dir())
        pages = [member for member in members if _is_page(member)]
        if not pages:
            raise InputError(f"{name}: no pages found; expected pictures in a zip archive")
        if sum(each.file_size for each in members) > max(UNPACKED_BYTES, UNPACKED_TIMES * source.stat().st_size):
            raise InputError(
                f"{name}: unpacks to more than {UNPACKED_TIMES} times its size; repack it without such files"
            )
        largest = max(pages, key=lambda page: page.file_size)
        page = _prepare_page(book, largest, name, engine, request, queued=queued)
    return PreparedComic(
        name=name,
        picture=replace(page.picture, sha256=hash_file(source)),
        plan=page.plan,
        warnings=(),
        seconds=time.perf_counter() - begin,
        source=source,
        members=members,
        settings=job.fingerprint(request, engine),
    )


def start(
    prepared: PreparedComic,
    target: Path,
    fmt: Format,
    engine: Engine,
    request: Request,
    *,
    writer: Writer = write_inline,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
    on_whole: Callable[[Path, str], None] = lambda _temporary, _sha256: None,
) -> Future[dict[str, Any]]:
    """Computes a comic and writes it; see `job.start`. It returns when all is done.

    Pages lie in a folder (`parts_folder`) until all are done: a run that was killed goes on there.
    """
    begin = time.perf_counter()
    made_of = fingerprint_of({**prepared.settings, "comic": prepared.picture.sha256})[:12]
    folder = parts_folder(target, made_of)
    paths = [folder / f"{number:05}.page" for number in range(len(prepared.pages))]
    resumed = sum(path.exists() for path in paths)
    make_folder(folder)
    try:
        done = _enlarge_pages(prepared, paths, engine, request, writer, on_step)
        overwrite = request.file.force or target.exists()
        with replace_file(
            target, on_whole=lambda temporary: on_whole(temporary, prepared.picture.sha256), overwrite=overwrite
        ) as temporary:
            _join(prepared, paths, temporary, request)
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()  # where no page is in it
        raise
    for other in parts_folders(target):
        shutil.rmtree(other, ignore_errors=True)
    finished: Future[dict[str, Any]] = Future()
    finished.set_result(
        {
            **describe(prepared, engine),
            "resumed_pages": resumed,
            "busy_seconds": sum(each["busy_seconds"] for each in done),
            "warnings": [*dict.fromkeys(warning for each in done for warning in each["warnings"])],
            "format": fmt.name,
            "seconds": round(time.perf_counter() - begin, 3),
        }
    )
    return finished


def describe(prepared: PreparedComic, engine: Engine) -> dict[str, Any]:
    """Describes a plan; see `job.describe`. Sizes, strips and memory are those of the largest page."""
    return job.describe(prepared, engine) | {"pages": len(prepared.pages)}


def forecast(prepared: PreparedComic, engine: Engine) -> dict[str, Any]:
    """Says what would be done and for how long, as if all pages were as large as the largest; see `job.forecast`."""
    seconds = job.estimate_seconds(prepared, engine, frames=len(prepared.pages))
    return {"dry_run": True, **describe(prepared, engine), "estimated_seconds": round(seconds, 2)}


def _enlarge_pages(
    prepared: PreparedComic,
    paths: list[Path],
    engine: Engine,
    request: Request,
    writer: Writer,
    on_step: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """Makes the pages that are not there; while one is written, the next is computed."""
    written: list[Future[dict[str, Any]]] = []
    total = _STEPS * len(paths)
    with _opened(prepared.source, prepared.name) as book:
        for number, (page, path) in enumerate(zip(prepared.pages, paths, strict=True)):

            def on_part(done: int, parts: int, before: int = _STEPS * number) -> None:
                on_step(before + _STEPS * done // max(parts, 1), total)

            if not path.exists():
                ready = _prepare_page(book, page, prepared.name, engine, request, queued=True)
                fmt = _page_format(page, request)
                written.append(job.start(ready, path, fmt, engine, request, writer=writer, on_step=on_part))
                if len(written) > 1:
                    written[-2].result()
            on_part(1, 1)
    return [each.result() for each in written]


def _join(prepared: PreparedComic, paths: list[Path], file: Path, request: Request) -> None:
    """Writes the comic: order and names stay, and so does what is no picture."""
    made = iter(paths)
    with _opened(prepared.source, prepared.name) as book, zipfile.ZipFile(file, "w") as new:
        for member in prepared.members:
            if not _is_page(member):
                new.writestr(member, _read(book, member, prepared.name))
                continue
            name, fmt = member.filename, _page_format(member, request)
            suffix = PurePosixPath(name).suffix
            if SUFFIXES[suffix.lower()] != fmt.name:
                name = f"{name.removesuffix(suffix)}.{fmt.name}"
            if name in new.namelist():  # 1.jpg and 1.png, with --format png
                name = f"{name.removesuffix(f'.{fmt.name}')}_{suffix[1:]}.{fmt.name}"
            new.writestr(zipfile.ZipInfo(name, member.date_time), next(made).read_bytes())


def _prepare_page(
    book: zipfile.ZipFile, page: zipfile.ZipInfo, name: str, engine: Engine, request: Request, *, queued: bool
) -> job.Prepared:
    data, fmt = _read(book, page, name), _page_format(page, request)
    return job.prepare(data, fmt, engine, request, queued=queued, name=f"{name}: {shown(page.filename)}")


def _is_page(member: zipfile.ZipInfo) -> bool:
    return PurePosixPath(member.filename).suffix.lower() in SUFFIXES


def _page_format(page: zipfile.ZipInfo, request: Request) -> Format:
    """Returns what was asked for, or the page's own format."""
    if isinstance(request.file.format, Format):
        return request.file.format
    return own_format(FORMATS[SUFFIXES[PurePosixPath(page.filename).suffix.lower()]])


@contextlib.contextmanager
def _opened(source: Path, name: str) -> Iterator[zipfile.ZipFile]:
    try:
        book = zipfile.ZipFile(source)
    except OSError as error:
        raise InputError(f"{name}: cannot read: {error.strerror or error}; check the path and its rights") from error
    except zipfile.BadZipFile as error:
        raise InputError(f"{name}: a damaged comic ({error}); get the file again") from error
    with book:
        yield book


def _read(book: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    """Reads a file of a comic.

    Raises:
        InputError: It is damaged, encrypted or too large.
    """
    if member.file_size > MEMBER_BYTES:
        raise InputError(f"{name}: {shown(member.filename)} is said to have {member.file_size} bytes; expected a page")
    try:
        return book.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise InputError(f"{name}: a damaged comic ({error}); get the file again") from error
