"""Data sets by name, or folders: pairs of HR and LR pictures.

Set5, Set14, BSD100 and Urban100 come from one commit of github.com/jbhuang0604/SelfExSR. With them come the LR files
that MATLAB made and that papers measure on. ``selfexsr.tsv`` pins every one of these files. DIV2K's validation part
comes as zip files.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from sr_upscale.benchmark.protocol import FOLDERS, NAMES
from sr_upscale.data.div2k import DIV2K_URL
from sr_upscale.errors import InputError, IntegrityError, UsageError
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import downscale_matlab
from sr_upscale.images import load_plain8
from sr_upscale.images.formats import format_of_path
from sr_upscale.storage.atomic import hash_file, make_folder
from sr_upscale.storage.download import fetch
from sr_upscale.storage.remote import RemoteFile

COMMIT = "8f6dd8c1d20cb7e8792a7177b4f6fd677633f598"
SELFEXSR = f"https://raw.githubusercontent.com/jbhuang0604/SelfExSR/{COMMIT}/"
DIV2K_FILES = {
    "HR": (448_993_893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"),
    "LR_bicubic_X2": (117_763_600, "60eed9875c697df51204aa579e2a699e1d5215095788a097ff54dd17e2664d57"),
    "LR_bicubic_X3": (54_513_392, "04b9a2ed3b4a0715d3924d3ae8514830c3328fac8d30512ce716d6f419e052a3"),
    "LR_bicubic_X4": (31_505_881, "a50a5d1c4b88de4e8d300d8fb2b904c52fe93b2b298a4899697760d7cbb6d553"),
}
DOWNLOADS_AT_ONCE = 8

Report = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True)
class PicturePair:
    """HR and LR of one picture, still in their files.

    Attributes:
        name: Short name.
        hr: Reads HR: (H, W, 1 or 3) uint8, gray with one channel.
        lr: Reads LR, likewise; None where LR is to be made from HR by MATLAB's bicubic.
    """

    name: str
    hr: Callable[[], NDArray[np.uint8]]
    lr: Callable[[], NDArray[np.uint8]] | None


def load_pair(
    pair: PicturePair, scale: int, *, gray_as_rgb: bool, own_lr: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Loads HR and LR of one picture. HR is cropped to a multiple of the scale.

    Args:
        pair: The picture.
        scale: Factor.
        gray_as_rgb: Whether to give gray pictures three equal channels, as networks' test codes do.
        own_lr: Whether to make LR by `downscale_matlab` even where there are LR files.

    Returns:
        HR (H, W, 1 or 3) uint8, and LR (H / scale, W / scale, same) uint8.

    Raises:
        InputError: A file cannot be used, or HR is smaller than the scale, or LR is not HR's size divided by the scale.
    """
    hr = pair.hr()
    height, width = (side - side % scale for side in hr.shape[:2])
    if min(height, width) < scale:
        raise InputError(f"{pair.name}: {hr.shape[1]}x{hr.shape[0]} is smaller than the scale of {scale}")
    hr = np.ascontiguousarray(hr[:height, :width])
    if pair.lr is None or own_lr:
        lr = to_pixels(downscale_matlab(to_tensor(hr), scale), np.dtype(np.uint8))
    else:
        lr = pair.lr()
    if lr.shape[0] * scale != height or lr.shape[1] * scale != width:
        raise InputError(
            f"{pair.name}: LR is {lr.shape[1]}x{lr.shape[0]} and HR {width}x{height}; expected a factor of {scale}"
        )
    if lr.shape[2] != hr.shape[2] or (gray_as_rgb and hr.shape[2] == 1):
        hr, lr = (np.repeat(each, 3, axis=2) if each.shape[2] == 1 else each for each in (hr, lr))
    return hr, lr


def pairs_of(
    name: str,
    scale: int,
    *,
    cache: Path,
    lr: Path | None = None,
    root: Path | None = None,
    on_progress: Report = lambda _share, _title: None,
) -> list[PicturePair]:
    """Finds the pictures of a data set that goes by a name (`named_set`), or of a folder (`folder_set`).

    Args:
        name: One of `NAMES`, or a folder of HR pictures.
        lr: Folder of the LR files of a folder.
        scale, cache, root, on_progress: See `named_set`.

    Raises:
        UsageError: A named set was given LR files; or see `named_set`.
        InputError, NetworkError, IntegrityError, OutputError: See `named_set` and `folder_set`.
    """
    if name not in NAMES:
        return folder_set(Path(name), lr)
    if lr is not None:
        raise UsageError(f"--lr belongs to a folder of HR pictures; {name} has LR files of its own")
    return named_set(name, scale, cache=cache, root=root, on_progress=on_progress)


# --- by name ----------------------------------------------------------------------------------------


def named_set(
    name: str, scale: int, *, cache: Path, root: Path | None = None, on_progress: Report = lambda _share, _title: None
) -> list[PicturePair]:
    """Finds the pictures of a data set, and fetches them unless they are there.

    Every byte is checked on the way in.

    Args:
        name: One of `NAMES`.
        scale: Factor of the LR files.
        cache: Where data sets are kept.
        root: A folder that holds the files of SelfExSR's ``data`` somewhere below it, in place of the network.
        on_progress: Called with the finished share (0 to 1) and a short title.

    Raises:
        UsageError: There is no such set, or not at this scale, or `root` cannot hold it.
        NetworkError, IntegrityError: The set cannot be had, or a file (named) is not what it should be.
        InputError: `root` does not hold the set.
        OutputError: `cache` cannot be written.
    """
    if name == "div2k-val":
        if root is not None:
            raise UsageError(f"--root holds files of SelfExSR; {name} comes from archives: give its folders instead")
        return _div2k(scale, cache, on_progress)
    files = manifest(name, scale)
    if root is not None:
        return _pairs([_below(root, path) for path in files])
    folder = cache / "SelfExSR"
    wanted = list(files.items())
    make_folder(folder)
    with FileLock(folder / f"{name}-x{scale}.lock"), ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        for done, _path in enumerate(pool.map(lambda item: _fetched(folder, *item), wanted), start=1):
            on_progress(done / len(wanted), f"{name}, {len(wanted)} files")
        for lock in (folder / wanted[0][0]).parent.glob("*.part.lock"):
            lock.unlink(missing_ok=True)
    return _pairs([folder / path for path in files])


def manifest(name: str, scale: int) -> dict[str, RemoteFile]:
    """Lists the files of a set at a scale.

    Args:
        name: One of `FOLDERS`.
        scale: Factor of the LR files.

    Returns:
        Files by path below the repository's root, HR and LR in turn, sorted.

    Raises:
        UsageError: The set has no files at this scale.
    """
    prefix = f"data/{FOLDERS[name]}/image_SRF_{scale}/"
    files = {path: file for path, file in _all_files().items() if path.startswith(prefix)}
    if not files:
        found = sorted(
            {path.split("_SRF_")[1][0] for path in _all_files() if path.startswith(f"data/{FOLDERS[name]}/")}
        )
        raise UsageError(f"{name} has no LR files at x{scale}; expected x{', x'.join(found)}")
    return files


@lru_cache(maxsize=1)
def _all_files() -> dict[str, RemoteFile]:
    text = (resources.files("sr_upscale.benchmark") / "selfexsr.tsv").read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {path: RemoteFile(url=SELFEXSR + path, size=int(size), sha256=sha256) for path, size, sha256 in rows}


def _fetched(folder: Path, path: str, file: RemoteFile) -> Path:
    target = folder / path
    if target.exists() and (target.stat().st_size != file.size or hash_file(target) != file.sha256):
        target.unlink()  # damaged since it was fetched
    try:
        return fetch(file, target)
    except IntegrityError as error:
        raise IntegrityError(f"{path}: {error}") from error


def _below(root: Path, path: str) -> Path:
    inside = path.removeprefix("data/")
    found = next(iter(sorted(root.glob(f"**/{inside}"))), None)
    if found is None:
        raise InputError(f"{root}: no {inside} below it; expected the layout of SelfExSR's data folder")
    expected = _all_files()[path]
    if hash_file(found) != expected.sha256:
        raise IntegrityError(f"{found}: expected sha256 {expected.sha256}, got {hash_file(found)}; get the file again")
    return found


def _pairs(paths: Sequence[Path]) -> list[PicturePair]:
    """Joins files whose names end in _HR and _LR."""
    by_name = {path.stem: path for path in paths}
    return [
        PicturePair(
            name=stem.split("_SRF_")[0], hr=_reader(path), lr=_reader(by_name[stem.removesuffix("_HR") + "_LR"])
        )
        for stem, path in sorted(by_name.items())
        if stem.endswith("_HR")
    ]


def _div2k(scale: int, cache: Path, on_progress: Report) -> list[PicturePair]:
    if f"LR_bicubic_X{scale}" not in DIV2K_FILES:
        raise UsageError(f"div2k-val has no LR files at x{scale}; expected x2, x3, x4")
    archives = []
    for part in ("HR", f"LR_bicubic_X{scale}"):
        size, sha256 = DIV2K_FILES[part]
        file = RemoteFile(url=f"{DIV2K_URL}DIV2K_valid_{part}.zip", size=size, sha256=sha256)
        archives.append(fetch(file, cache / file.name, on_progress=on_progress))
    names = [[name for name in zipfile.ZipFile(path).namelist() if name.endswith(".png")] for path in archives]
    pairs = zip(sorted(names[0]), sorted(names[1]), strict=True)
    return [
        PicturePair(name=Path(hr).stem, hr=_zip_reader(archives[0], hr), lr=_zip_reader(archives[1], lr))
        for hr, lr in pairs
    ]


# --- folders ----------------------------------------------------------------------------------------


def folder_set(hr_folder: Path, lr_folder: Path | None = None) -> list[PicturePair]:
    """Finds the pictures of a folder, with LR files from another folder in the same order, or without any.

    Args:
        hr_folder: Folder of HR pictures.
        lr_folder: Folder of their LR files. None makes LR from HR.

    Raises:
        InputError: A folder does not exist or is empty, or the two hold different numbers of pictures.
    """
    hr = _pictures_in(hr_folder)
    if lr_folder is None:
        return [PicturePair(name=path.stem, hr=_reader(path), lr=None) for path in hr]
    lr = _pictures_in(lr_folder)
    if len(hr) != len(lr):
        raise InputError(f"{hr_folder} holds {len(hr)} pictures and {lr_folder} {len(lr)}; expected as many of each")
    return [PicturePair(name=one.stem, hr=_reader(one), lr=_reader(other)) for one, other in zip(hr, lr, strict=True)]


def _pictures_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one of {', '.join(NAMES)}, or a folder of pictures")
    formats = ((path, format_of_path(path)) for path in folder.iterdir())
    found = sorted(path for path, fmt in formats if fmt is not None and not fmt.written_as)
    if not found:
        raise InputError(f"{folder}: no pictures in it; expected files ending in .png, .jpg, ...")
    return found


def _reader(path: Path) -> Callable[[], NDArray[np.uint8]]:
    return lambda: load_plain8(path)


def _zip_reader(archive: Path, member: str) -> Callable[[], NDArray[np.uint8]]:
    def read() -> NDArray[np.uint8]:
        with zipfile.ZipFile(archive) as file:
            return load_plain8(file.read(member))

    return read
