"""Objects of a store by their address (`stores`), and the folder in which they are files on their way.

An object is read whole and written whole. What shall overwrite nothing is written with a condition that the store
itself holds: ``If-None-Match: *`` of S3, ``ifGenerationMatch=0`` of Google. A note stands in the object's metadata, so
that both appear in one step.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sr_upscale.errors import AppearedError, InputError, OutputError, UsageError
from sr_upscale.formatting import addressed, show_as, shown
from sr_upscale.storage.atomic import IDENTITY, has_ended, identity, make_folder, output_error
from sr_upscale.storage.remote import without_query
from sr_upscale.storage.stores import code_of, patient, store_of, translated

NOTE = "sr-upscale"
"""Name of a note in an object's metadata."""
_PIECE = 1 << 18
_ONE_PIECE = 64 << 20
"""Bytes. Less than this is put by one request, which can have any condition."""
CONFLICT_WAITS_S = (0.5, 1.0, 2.0, 4.0)
"""Seconds before a put is tried again, where another one of the same object is on its way."""
_SCHEMES = ("s3", "gs", "https")


def check_address(address: str, *, to_write: bool = False) -> None:
    """Refuses an address that leads nowhere, before anything is opened.

    Raises:
        UsageError: Its scheme is unknown or can only be read, or it names no bucket.
    """
    scheme, _, place = address.partition("://")
    if scheme not in _SCHEMES:
        raise UsageError(f"{shown(address)}: unknown kind of address; expected s3://, gs:// or https://")
    if to_write and scheme == "https":
        raise UsageError(f"{shown(address)}: https is only read; give -o a file, or an address of s3:// or gs://")
    if not place.partition("/")[0]:
        raise UsageError(f"{shown(address)}: names no bucket or host; expected such as s3://bucket/photo.png")


def name_of(address: str) -> str:
    """Returns the last part of an address, as a file may be called.

    Raises:
        UsageError: There is none.
    """
    place = address.partition("://")[2]
    if address.startswith("https:"):
        place = urllib.parse.unquote(re.split("[?#]", place)[0]).replace("\0", "")
    name = place.rpartition("/")[2]
    if "/" not in place or name in ("", ".", "..") or Path(name).name != name:
        raise UsageError(f"{shown(without_query(address))}: names no picture; give the address of one")
    return name


@patient
def refuse_missing_bucket(address: str) -> None:
    """Finds before any work whether the bucket of an output is there.

    Raises:
        OutputError: It is not.
        NetworkError: The store cannot be reached.
    """
    scheme, _, place = address.partition("://")
    with translated(address, OutputError), contextlib.suppress(PermissionError):  # who may write may not see it
        store_of(scheme).info(place.partition("/")[0])


@dataclass(frozen=True, kw_only=True)
class Note:
    """The note of an object.

    Attributes:
        text: ASCII, of one line and less than 2 KB; empty where there is none.
        version: Of the object: an ETag of S3, a generation of Google.
    """

    text: str
    version: str


@patient
def read_note(address: str) -> Note | None:
    """Returns the note of an object; None where there is no such object.

    Raises:
        OutputError: It may not be looked at.
        NetworkError: The store cannot be reached.
    """
    store = store_of(address)
    bucket, key, _ = store.split_path(address)
    with translated(address, OutputError):
        try:
            if address.startswith("gs:"):
                info = store.call("GET", "b/{}/o/{}", bucket, key, json_out=True)
                return Note(text=info.get("metadata", {}).get(NOTE, ""), version=str(info["generation"]))
            info = store.call_s3("head_object", Bucket=bucket, Key=key, **store.req_kw)
            return Note(text=info["Metadata"].get(NOTE, ""), version=info["ETag"])
        except FileNotFoundError:
            return None


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What a list says of an object.

    Attributes:
        version: See `get`.
        size: In bytes.
    """

    version: str
    size: int


@patient
def list_names(folder: str, *, recursive: bool = True) -> dict[str, Listed]:
    """Lists the objects below an address.

    Returns:
        What is said of them, by their names from there on.

    Raises:
        InputError: There is no such bucket, or it may not be listed.
        NetworkError: The store cannot be reached.
    """
    root = folder.partition("://")[2].rstrip("/")
    with translated(folder, InputError):
        store_of(folder).info(root)  # a bucket that is not there would be empty
        found = store_of(folder).find(root, maxdepth=None if recursive else 1, detail=True)
    return {
        name.removeprefix(f"{root}/"): Listed(version=version_of(info), size=int(info["size"] or 0))
        for name, info in sorted(found.items())
        if info["type"] == "file" and not name.endswith("/")
    }


@patient
def names_below(folder: str, *, most: int) -> set[str] | None:
    """Lists the names of objects of S3 below an address, by requests of 1000.

    Returns:
        The names from there on; None where there are more than `most`, where they may not be listed, and elsewhere.

    Raises:
        NetworkError: The store cannot be reached.
    """
    if not folder.startswith("s3:"):
        return None
    store = store_of(folder)
    bucket, prefix, _ = store.split_path(folder)
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    names: set[str] = set()
    more: dict[str, str] = {}
    try:
        with translated(folder, OutputError):
            while len(names) <= most:
                answer = store.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more, **store.req_kw)
                names |= {each["Key"].removeprefix(prefix) for each in answer.get("Contents", ())}
                if not answer.get("IsTruncated"):
                    return names
                more = {"ContinuationToken": answer["NextContinuationToken"]}
    except OutputError:  # no rights
        pass
    return None


@patient
def get(address: str, target: Path) -> str:
    """Writes an object to a new file.

    Returns:
        Its version: what changes with its content, as far as the store says; else empty.

    Raises:
        InputError: It is not there, may not be read, or changed meanwhile.
        OutputError: The file cannot be written.
        NetworkError: The store cannot be reached, or the connection broke.
    """
    store = store_of(address)
    with translated(address, InputError, file=target):
        if address.startswith("https:"):
            store.get_file(address, os.fspath(target))
            return ""
        if address.startswith("s3:"):
            return _get_at_once(store, address, target)
        before = store.info(address)
        if before["type"] != "file":
            raise InputError(f"{shown(address)}: is a folder; end its address with / to do all of it")
        store.get_file(address, os.fspath(target))
        after = store.info(address)
    if version_of(before) != version_of(after) or target.stat().st_size != after["size"]:
        raise InputError(f"{shown(address)}: changed while it was read; run the command again")
    return version_of(after)


def _get_at_once(store: Any, address: str, target: Path) -> str:
    """Reads an object of S3 by one request, whose answer is of one version."""
    from fsspec.asyn import sync

    bucket, key, version = store.split_path(address)
    of_version = {} if version is None else {"VersionId": version}

    async def read() -> str:
        answer = await store._call_s3("get_object", Bucket=bucket, Key=key, **of_version, **store.req_kw)
        async with answer["Body"] as body:
            with target.open("wb") as file:
                while piece := await body.read(_PIECE):
                    file.write(piece)
                if file.tell() != answer["ContentLength"]:
                    raise OSError(f"{file.tell()} of {answer['ContentLength']} bytes came")
        return str(answer["ETag"]).strip('"')

    try:
        return str(sync(store.loop, read))
    except FileNotFoundError:
        if store.isdir(address):
            raise InputError(f"{shown(address)}: is a folder; end its address with / to do all of it") from None
        raise


@patient
def put(address: str, source: Path, *, note: str, overwrite: bool, replaces: str | None = None) -> None:
    """Writes a whole file as an object, with a note.

    Args:
        address: Of the object.
        source: The file.
        note: ASCII text that no other put has, of one line and less than 2 KB.
        overwrite: Whether it may take the place of an object that stands there.
        replaces: The one version (`Note.version`) that may stand there. It is a condition (``If-Match``) of S3 for a
            file that goes there in one piece, and nothing elsewhere.

    Raises:
        AppearedError: An object stands there, or another than the one to replace, and stays.
        OutputError: There is no such bucket, or it may not be written.
        NetworkError: The store cannot be reached, or the connection broke.
    """
    import mimetypes

    kind = mimetypes.guess_type(address)[0] or "application/octet-stream"
    more: dict[str, Any] = {
        "s3": {"Metadata": {NOTE: note}, "ContentType": kind},
        "gs": {"metadata": {NOTE: note}, "content_type": kind},
    }[address.partition(":")[0]]
    store = store_of(address)
    if replaces is not None and address.startswith("s3:") and source.stat().st_size < _ONE_PIECE:
        more["IfMatch"] = replaces
    conditional = not overwrite or "IfMatch" in more
    with translated(address, OutputError):
        for wait_s in (*CONFLICT_WAITS_S, None):
            try:
                store.put_file(os.fspath(source), address, mode="overwrite" if overwrite else "create", **more)
                return
            except Exception as error:
                if not conditional:
                    raise
                if _stands(address, note, replaces if overwrite else None, error):
                    return
                if code_of(error) != "ConditionalRequestConflict" or wait_s is None:
                    raise
                time.sleep(wait_s)


def _stands(address: str, note: str, replaces: str | None, error: Exception) -> bool:
    """Says whether a put that failed has been done: only its answer was lost, and the second try met the object.

    Raises:
        AppearedError: Another object stands there than the one to replace; where there is none, any.
    """
    there = read_note(address)
    if there is not None and there.text == note:
        return True
    if (there.version if there is not None else None) != replaces:
        raise AppearedError(
            f"{shown(address)}: appeared while this was computed, and stays; add --force to overwrite it"
        ) from error
    return False


def version_of(info: dict[str, Any]) -> str:
    return str(info.get("ETag") or info.get("md5Hash") or info.get("crc32c") or "").strip('"')


MOST_BYTES = 4 * 2**30
"""What a spool may hold besides a single picture; less where less than the double is free."""
_PREFIX = "sr-upscale-"


class Spool:
    """A folder of its own among the system's temporary ones (``TMPDIR``), to be used in a ``with``.

    What killed processes of this machine left there is removed when it is made.

    Attributes:
        inputs: Folder of what is read.
        outputs: Folder of what is written.
        versions: Versions (`objects.get`) of the objects that the files below `inputs` stand for.
        sizes: Sizes of these objects in bytes, as far as they are known.
        limit: See `fits`.

    Raises:
        OutputError: There is no room for it.
    """

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir())
        for orphan in root.glob(f"{_PREFIX}*"):
            owner = orphan.name.removeprefix(_PREFIX).rpartition("-")[0]
            if IDENTITY.fullmatch(owner) and has_ended(owner):
                shutil.rmtree(orphan, ignore_errors=True)
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{identity()}-", dir=root)).resolve()
            self.inputs, self.outputs = self._folder / "in", self._folder / "out"
            self.inputs.mkdir()
            self.outputs.mkdir()
            self.limit = min(MOST_BYTES, shutil.disk_usage(root).free // 2)
        except OSError as error:
            raise output_error(root, error) from error
        self.versions: dict[Path, str] = {}
        self.sizes: dict[Path, int] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_error: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        for folder in (self.inputs, self.outputs):
            show_as(folder, None)

    def fits(self, sources: Iterable[Path], targets: Iterable[Path]) -> bool:
        """Says whether pictures can be on their way together: `limit` bytes of inputs, and of outputs written by now.

        Args:
            sources: The inputs.
            targets: The outputs, finished or not.
        """
        used = sum(self.sizes.get(source, 0) for source in sources)
        for folder in {target.parent for target in targets if target.is_relative_to(self._folder)}:
            with contextlib.suppress(FileNotFoundError):  # one of them is removed, or not yet made
                used += sum(each.stat().st_size for each in folder.iterdir() if each.is_file())
        return used <= self.limit

    def fetch(self, path: Path) -> None:
        """Reads the object that a file below `inputs` stands for; of other files it does nothing.

        Raises:
            InputError, OutputError, NetworkError: See `objects.get`.
        """
        if path.is_relative_to(self.inputs):
            make_folder(path.parent)
            self.versions[path] = get(addressed(path), path)
            self.sizes[path] = path.stat().st_size

    def stamp(self, source: Path) -> tuple[int, int] | None:
        """Returns the size of an object, and a number of its version in the place of a time; None if not known."""
        version = self.versions.get(source)
        return (self.sizes[source], int(sha256(version.encode()).hexdigest()[:15], 16)) if version else None

    def drop(self, path: Path) -> None:
        """Removes a file, if it is of the spool."""
        if path.is_relative_to(self._folder):
            with contextlib.suppress(OSError):
                path.unlink()
