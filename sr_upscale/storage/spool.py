"""A folder for objects on their way: what was read of a store, and what will be put there."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from sr_upscale.formatting import addressed, show_as
from sr_upscale.storage.atomic import make_folder, output_error
from sr_upscale.storage.objects import get
from sr_upscale.storage.process import IDENTITY, has_ended, identity

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

    def drop(self, path: Path) -> None:
        """Removes a file, if it is of the spool."""
        if path.is_relative_to(self._folder):
            with contextlib.suppress(OSError):
                path.unlink()
