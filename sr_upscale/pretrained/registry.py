"""The tables of weights, and where their files lie. Does not import torch.

The word that names a model is looked up in this order. First come our own models (inside the package), then files on
disk. The catalogue follows, whose weights are downloaded into the cache when first used. Last come weights that were
added to the cache by `sr-upscale models add`.

``catalogue.tsv`` says of each what it is, under which licence, where it lies, and which bytes exactly it is. Addresses,
sizes, hashes and tags are facts of the Open Model Database (github.com/OpenModelDB/open-model-database, commit
782aac08). Every licence here permits any use, some of them with attribution. None is for non-commercial use alone.
"""

from __future__ import annotations

import csv
import difflib
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sr_upscale.errors import IntegrityError, ModelError
from sr_upscale.formatting import shortened, shown
from sr_upscale.pretrained.weights_file import is_ours, scale_of
from sr_upscale.storage.atomic import cache_folder, hash_file, make_folder, replace_file
from sr_upscale.storage.remote import RemoteFile


@dataclass(frozen=True, kw_only=True)
class RemoteWeights:
    """A row of the table.

    Attributes:
        name: What users type after ``-n``; see `squashed` for what else finds it.
        architecture: What kind of network.
        scale: Its factor; 1 cleans without enlarging.
        license: SPDX identifier.
        purpose: What it is for, in a few words.
        file: Where it comes from.
        tags: What else it is known for, in single words.
    """

    name: str
    architecture: str
    scale: int
    license: str
    purpose: str
    file: RemoteFile
    tags: tuple[str, ...] = ()

    @property
    def filename(self) -> str:
        """Returns the file's name in the cache."""
        return f"{self.name}{'.safetensors' if self.file.name.endswith('.safetensors') else '.pth'}"


def _read(table: Path) -> tuple[RemoteWeights, ...]:
    with table.open(encoding="utf-8", newline="") as file:
        return tuple(
            RemoteWeights(
                name=row["name"],
                architecture=row["architecture"],
                scale=int(row["scale"]),
                license=row["licence"],
                purpose=row["purpose"],
                file=RemoteFile(url=row["url"], size=int(row["bytes"]), sha256=row["sha256"]),
                tags=tuple(row["tags"].split(",")),
            )
            for row in csv.DictReader(file, delimiter="\t")
        )


CATALOGUE = _read(Path(__file__).with_name("catalogue.tsv"))

ELSEWHERE = {
    "ultrasharp": "it is not openly licensed; use 4x-nomoswebphoto-esrgan or 4x-nomos8ksc, or give its file",
    "remacri": "it is not openly licensed; use 4x-nomos8ksc or 4x-lsdirplus, or give its file",
    "gfpgan": "faces are not repaired one by one here; photo, or 4x-nomos8ksc, takes the whole picture",
    "codeformer": "it is not openly licensed, and faces are not repaired here; use photo",
    "digitalart": "use anime, or 4x-hfa2k or realesrgan-x4plus-anime-6b of others",
    "highfidelity": "use psnr, or photo with --fidelity 1",
    "waifu2x": "use anime, or 2x-modernspanimationv1 or realesrgan-x4plus-anime-6b of others",
    "denoise": "use --before 1x-denoise-realplksr-otf, or photo, which cleans noise",
}
"""Names that people know from other programs, squashed, and what to use here in their place."""


PACKAGE = Path(__file__).resolve().parent.parent

DEFAULT_MODEL = "photo"
"""Family that is used when no model is named; the weights are its `<family>-x<scale>` of the fitting scale."""

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".ckpt", ".pt")


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """A row of the table of ours.

    Attributes:
        name: What users type after ``-n``.
        scale: Factor of the network.
        purpose: What it is for, in a few words.
        license: SPDX identifier.
        twin: Name of the faithful weights of the same shape, the other end of the fidelity dial. Empty for those
            themselves.
        noisy: Name of weights that keep noise, the other end of the denoise dial: these started as their sibling. Empty
            where there are none.
    """

    name: str
    scale: int
    purpose: str
    license: str = "MIT"
    twin: str = ""
    noisy: str = ""

    @property
    def family(self) -> str:
        """Returns the name without the factor."""
        return self.name.rsplit("-x", 1)[0]

    @property
    def path(self) -> Path:
        """Returns where the file is, or would be."""
        return weights_folder() / f"{self.name}.safetensors"


TABLE = (
    StoredWeights(
        name="photo-x4",
        scale=4,
        purpose="real photographs: cleans JPEG, noise and blur",
        license="BSD-3-Clause",
        twin="psnr-x4",
        noisy="realesr-general-wdn-x4v3",
    ),
    StoredWeights(name="photo-x2", scale=2, purpose="real photographs: cleans JPEG, noise and blur", twin="psnr-x2"),
    StoredWeights(name="photo-fast-x4", scale=4, purpose="real photographs in a sixth of the time, less repaired"),
    StoredWeights(name="anime-x4", scale=4, purpose="drawings: clean lines and flat colours", twin="psnr-x4"),
    StoredWeights(name="scan-x4", scale=4, purpose="scans, screenshots and text, before OCR, too"),
    StoredWeights(name="scan-x2", scale=2, purpose="scans, screenshots and text, before OCR, too"),
    StoredWeights(name="psnr-x4", scale=4, purpose="faithful enlargement of clean pictures"),
    StoredWeights(name="psnr-x2", scale=2, purpose="faithful enlargement of clean pictures"),
    StoredWeights(
        name="gan-x4", scale=4, purpose="sharp enlargement of clean pictures, invents detail", twin="psnr-x4"
    ),
)


def form_path(weights: Path, suffix: str) -> Path:
    """Returns where the cache holds weights in another form, or would; see `cached_form`."""
    return cache_folder() / suffix[1:] / f"{weights.stem}-{hash_file(weights)[:16]}{suffix}"


def cached_form(weights: Path, suffix: str, make: Callable[[Path, Path], Any]) -> Path:
    """Returns weights in another form from the cache, and makes it if it is not there.

    The file is named after the content of the weights. Its own hash stands beside it: one that was cut or changed
    since is made anew.

    Args:
        weights: A weights file of any make.
        suffix: Ending of the form, such as ``.onnx``; names its folder, too.
        make: Called with the weights and the file to write, which takes its place whole.

    Raises:
        InputError: The weights cannot be read.
        OutputError: The file cannot be written.
    """
    out = form_path(weights, suffix)
    note = out.with_suffix(".sha256")
    if not (out.is_file() and note.is_file() and note.read_bytes() == hash_file(out).encode()):
        make_folder(out.parent)
        make(weights, out)
        with replace_file(note) as temporary:
            temporary.write_text(hash_file(out))
    return out


def datasets_folder() -> Path:
    """Returns the folder in which data sets are kept that are fetched by name."""
    return cache_folder() / "datasets"


def models_folder() -> Path:
    """Returns the folder in which weights of others are kept."""
    return cache_folder() / "models"


def weights_folder() -> Path:
    """Returns the folder of our weights: inside an installed package, or at the top of a source tree."""
    inside = PACKAGE / "weights"
    return inside if inside.is_dir() else PACKAGE.parent / "weights"


# --- names ------------------------------------------------------------------------------------------


def squashed(name: str) -> str:
    """Reduces a name to what tells it from others: ``4xHFA2k``, ``4x_hfa2k`` and ``4x-HFA2k.pth`` are one."""
    stem, suffix = os.path.splitext(name.lower())
    return "".join(char for char in (stem if suffix in WEIGHTS_SUFFIXES else name.lower()) if char.isalnum())


def catalogue_entry(name: str) -> RemoteWeights | None:
    """Finds the row of the catalogue that a name means (`squashed`); None where there is none."""
    wanted = squashed(name)
    return None if _means_file(name) else next((row for row in CATALOGUE if squashed(row.name) == wanted), None)


def stored_entries(name: str) -> list[StoredWeights]:
    """Finds the rows of ours that a name means (`squashed`): one model, or all of a family. Largest factor first."""
    if _means_file(name):
        return []
    wanted = squashed(name)
    found = [row for row in TABLE if wanted in (squashed(row.name), squashed(row.family))]
    return sorted(found, key=lambda row: -row.scale)


def _means_file(name: str) -> bool:
    """Says whether a word is a path: it leads into a folder, or ends like weights and is there."""
    path = Path(name)
    return path.name != name or (path.suffix.lower() in WEIGHTS_SUFFIXES and _is_file(path))


def cached_path(entry: RemoteWeights) -> Path:
    """Returns where a file of the catalogue is, or would be."""
    return models_folder() / entry.filename


def added_folder() -> Path:
    """Returns the folder of the weights that users put into the cache."""
    return models_folder() / "added"


def added() -> dict[str, Path]:
    """Finds the weights that users put into the cache, by name."""
    folder = added_folder()
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in WEIGHTS_SUFFIXES}


def twin_of(path: Path) -> Path | None:
    """Finds the faithful weights that belong to weights of ours; None where there are none.

    Raises:
        ModelError: The file of the faithful weights is missing.
    """
    return next((resolve_weights(row.twin) for row in TABLE if row.path == path and row.twin), None)


def noisy_of(path: Path) -> Path | None:
    """Finds the weights that keep noise beside weights of ours, downloaded if need be; None where there are none.

    Raises:
        NetworkError, IntegrityError, OutputError: The download failed.
    """
    return next((resolve_weights(row.noisy) for row in TABLE if row.path == path and row.noisy), None)


def known_names() -> list[str]:
    """Lists every name that `resolve_weights` and `resolve_family` take."""
    return [*(entry.name for entry in TABLE), *families(), *added(), *(entry.name for entry in CATALOGUE)]


def families() -> list[str]:
    """Lists the names without a factor, sorted: ``photo`` is ``photo-x4`` or ``photo-x2``."""
    return sorted({entry.family for entry in TABLE})


def resolve_weights(
    name_or_path: str, *, on_progress: Callable[[float, str], None] = lambda _share, _title: None
) -> Path:
    """Finds the file of a model, and downloads it if need be.

    Args:
        name_or_path: Name of one model, or of a family for its largest factor, or the path of a weights file.
        on_progress: Called with the finished share of a download (0 to 1) and a few words.

    Returns:
        The file that belongs to the name, or the path itself.

    Raises:
        ModelError: There is no such name and no such file (the nearest name is suggested), or our own file is missing.
        NetworkError, IntegrityError, OutputError: The download failed.
    """
    if mine := stored_entries(name_or_path):
        return _present(mine[0])
    path, remote = Path(name_or_path), catalogue_entry(name_or_path)
    if remote is None and _is_file(path):
        return path
    if remote is not None:  # a file beside it that happens to have the name is meant by ./NAME
        from sr_upscale.storage.download import fetch

        found = fetch(remote.file, cached_path(remote), on_progress=on_progress)
        _check_cached(found, found.stat().st_mtime_ns, remote)
        return found
    if name_or_path in added():
        return added()[name_or_path]
    raise ModelError(f"no model named {shortened(name_or_path)!r}, and no such file; {_hint(name_or_path)}")


def _hint(name: str) -> str:
    """Says what to use in the place of a name that is none."""
    wanted, names = squashed(name), {squashed(each): each for each in known_names()}
    near = difflib.get_close_matches(wanted, names, n=1)
    elsewhere = next((advice for word, advice in ELSEWHERE.items() if word in wanted), None)
    if elsewhere is not None and not difflib.get_close_matches(wanted, near, cutoff=0.9):
        return elsewhere
    if near:
        return f"did you mean {names[near[0]]}?"
    ours = ", ".join([*families(), *(entry.name for entry in TABLE)])
    return f"expected one of {ours}, a name of `sr-upscale models`, or a file"


def _present(entry: StoredWeights) -> Path:
    if not entry.path.is_file():
        raise ModelError(f"model {entry.name}: {entry.path} is missing; the installation is damaged, install it again")
    return entry.path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file system takes
        return False


@functools.cache
def _check_cached(path: Path, _changed_ns: int, remote: RemoteWeights) -> None:
    """Checks a file of the cache by its hash, once in a process: another network there would run without a word."""
    if (got := hash_file(path)) != remote.file.sha256:
        raise IntegrityError(
            f"{shown(path)}: expected sha256 {remote.file.sha256}, got {got}; remove it with "
            f"`sr-upscale models remove {remote.name}`, and it is downloaded again"
        )


def resolve_family(name_or_path: str) -> dict[int, Path]:
    """Finds weights by their trained factor: all of a family such as ``psnr``, or the one that a name or path means.

    Args:
        name_or_path: Name of a family or of one model, or the path of a weights file.

    Returns:
        Weights files by factor.

    Raises:
        ModelError: There is no such name and no such file, or the file cannot be used.
        NetworkError, IntegrityError, OutputError: The download failed.
    """
    if mine := stored_entries(name_or_path):
        return {entry.scale: _present(entry) for entry in mine}
    path = resolve_weights(name_or_path)
    if is_ours(path):
        return {scale_of(path): path}
    remote = catalogue_entry(name_or_path)
    if remote is not None:
        return {remote.scale: path}
    from sr_upscale.pretrained.load import traits_of  # only a look inside says what others' files are

    return {traits_of(path).scale: path}
