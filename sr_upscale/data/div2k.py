"""Data sets that are fetched by name: DIV2K, cut into sub-images."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from filelock import FileLock
from PIL import Image

from sr_upscale.errors import InputError, IntegrityError
from sr_upscale.functional.pil_arrays import rgb8
from sr_upscale.images import load_plain8
from sr_upscale.storage.atomic import make_folder, replace_file
from sr_upscale.storage.download import fetch
from sr_upscale.storage.remote import RemoteFile

DIV2K_URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"

DIV2K_TRAIN = RemoteFile(
    url=f"{DIV2K_URL}DIV2K_train_HR.zip",
    size=3_530_603_713,
    sha256="9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
)
"""800 photographs of 2K for academic research (Agustsson & Timofte 2017, doi:10.1109/CVPRW.2017.150). The hash is the
one that TensorFlow Datasets pins."""

SUB_IMAGE = 480
MAX_MEMBERS = 10_000
MAX_MEMBER_BYTES = 64 << 20
"""Limits on an archive: no picture of DIV2K reaches a tenth of them."""


def means_div2k(name: str) -> bool:
    """Says whether a word means DIV2K, and not a folder of that name."""
    return name == "div2k" and not Path(name).exists()


def div2k_in(folder: Path) -> Path | None:
    """Finds the folder of the cut pictures; None where they are not there, or not all.

    Args:
        folder: Where data sets are kept.
    """
    return folder / "div2k" if (folder / "div2k.done").exists() else None


def prepare_div2k(
    folder: Path,
    *,
    source: RemoteFile = DIV2K_TRAIN,
    on_progress: Callable[[float, str], None] = lambda _share, _title: None,
) -> Path:
    """Fetches DIV2K's training pictures and cuts them into PNG of up to 480x480 pixels, unless they are there.

    Args:
        folder: Where data sets are kept. About 10 GB are needed on the way, 5 GB afterwards.
        source: The archive.
        on_progress: Called with the finished share of the present part (0 to 1) and a few words.

    Returns:
        The folder of the cut pictures.

    Raises:
        NetworkError: The archive cannot be fetched (`storage.download.fetch`).
        IntegrityError: What came is not the archive, or it holds what it should not (`cut_archive`).
        OutputError: The folder cannot be written.
    """
    make_folder(folder)
    with FileLock(folder / "div2k.lock"):
        if (there := div2k_in(folder)) is not None:
            return there
        pictures = folder / "div2k"
        archive = fetch(source, folder / source.name, on_progress=on_progress)
        cut_archive(archive, pictures, on_progress=on_progress)
        (folder / "div2k.done").touch()
        archive.unlink()
    return pictures


def cut_archive(archive: Path, out: Path, *, on_progress: Callable[[float, str], None]) -> None:
    """Writes every PNG of a zip file as sub-images.

    The archive is not unpacked: no name in it becomes a path.

    Args:
        archive: The zip file.
        out: Folder of the sub-images, of up to `SUB_IMAGE` pixels a side. It is made where it is missing.
        on_progress: Called with the finished share (0 to 1) and a short title.

    Raises:
        IntegrityError: The archive is damaged, too large inside, or holds a picture that cannot be read.
        OutputError: A sub-image cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if member.filename.lower().endswith(".png")]
            if len(members) > MAX_MEMBERS:
                raise IntegrityError(f"{archive}: {len(members)} pictures; expected at most {MAX_MEMBERS}")
            for number, member in enumerate(members, start=1):
                stem = PurePosixPath(member.filename.replace("\\", "/")).stem
                if member.file_size > MAX_MEMBER_BYTES:
                    raise IntegrityError(f"{archive}: {member.filename} unpacks to {member.file_size} bytes; refused")
                with file.open(member) as stream:
                    _cut(rgb8(load_plain8(stream.read(MAX_MEMBER_BYTES))), out, stem)
                on_progress(number / len(members), f"cutting {len(members)} pictures")
    except (zipfile.BadZipFile, OSError, InputError) as error:
        raise IntegrityError(f"{archive}: {error}; remove it and run the command again") from error


def _cut(rgb: np.ndarray, out: Path, stem: str) -> None:
    height, width = rgb.shape[:2]
    number = 0
    for top in _starts(height):
        for left in _starts(width):
            number += 1
            path = out / f"{stem}_part{number:03d}.png"
            if path.exists():  # of a run that was cut off; each file is whole
                continue
            with replace_file(path) as temporary:
                Image.fromarray(rgb[top : top + SUB_IMAGE, left : left + SUB_IMAGE]).save(
                    temporary, "PNG", compress_level=1
                )


def _starts(length: int) -> list[int]:
    """Returns starts in equal steps, so that sub-images cover a side and overlap as little as they can."""
    count = -(-length // SUB_IMAGE)
    if count <= 1:
        return [0]
    return [round(index * (length - SUB_IMAGE) / (count - 1)) for index in range(count)]
