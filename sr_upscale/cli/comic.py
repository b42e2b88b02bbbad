"""Comics: ``.cbz`` in and out, page by page, as a folder that is resumed."""

from __future__ import annotations

import contextlib
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from sr_upscale.cli.console import Console
from sr_upscale.cli.running import run_items
from sr_upscale.errors import InputError
from sr_upscale.formatting import shown
from sr_upscale.images.formats import SUFFIXES
from sr_upscale.pipeline.batch_plan import plan_folder
from sr_upscale.pipeline.request import Request
from sr_upscale.storage.atomic import make_folder, refuse_existing, replace_file


def enlarge_comic(source: Path, target: Path, request: Request, console: Console, *, verbose: bool) -> int:
    """Enlarges every page of a comic. Order, names and what is no picture stay.

    Pages lie in a folder beside the output until all are done: a run that was killed goes on there.

    Args:
        source: A ``.cbz`` file.
        target: The ``.cbz`` to write.
        request: How; its format is that of the pages.
        console: Where to print.
        verbose: See `run_items`.

    Returns:
        The exit code of `run_items`; where it is not 0, nothing was written.

    Raises:
        InputError: The file is no zip archive, or damaged.
        OutputError: The output exists, or cannot be written.
    """
    refuse_existing(target, force=request.file.force or request.run.dry_run)
    work = target.with_name(f".{target.name}.pages")
    ours = not (request.run.dry_run and work.exists())  # a dry run leaves what a killed run has made
    try:
        with zipfile.ZipFile(source) as book:
            members = [each for each in book.infolist() if not each.is_dir()]
            pages = {
                each.filename: f"{number:05}{suffix}"
                for number, each in enumerate(members)
                if (suffix := PurePosixPath(each.filename).suffix.lower()) in SUFFIXES
            }
            _extract(book, pages, work / "in")
            plan = plan_folder(work / "in", work / "out", recursive=False, fmt=request.file.format, suffix="")
            code = run_items(plan, request, console, verbose=verbose)
            if not code and not request.run.dry_run:
                made = {path.stem: path for path in (work / "out").iterdir() if not path.name.startswith(".")}
                with replace_file(target) as temporary, zipfile.ZipFile(temporary, "w") as new:
                    for member in members:
                        name = PurePosixPath(member.filename)
                        if member.filename in pages:
                            page = made[pages[member.filename][:5]]
                            if SUFFIXES[name.suffix.lower()] != SUFFIXES[page.suffix]:
                                name = name.with_suffix(page.suffix)
                            new.writestr(zipfile.ZipInfo(str(name), member.date_time), page.read_bytes())
                        else:
                            new.writestr(member, book.read(member))
    except zipfile.BadZipFile as error:
        raise InputError(f"{shown(source)}: a damaged comic ({error}); get the file again") from error
    if not code and ours:
        shutil.rmtree(work)
    return code


def _extract(book: zipfile.ZipFile, pages: dict[str, str], folder: Path) -> None:
    """Extracts pages that are not there yet, under numbers, so that no name of the archive is a path here."""
    make_folder(folder)
    for name, file in pages.items():
        with contextlib.suppress(OSError):
            if zlib.crc32((folder / file).read_bytes()) == book.getinfo(name).CRC:
                continue
        with replace_file(folder / file) as temporary, book.open(name) as page, temporary.open("wb") as out:
            shutil.copyfileobj(page, out)
