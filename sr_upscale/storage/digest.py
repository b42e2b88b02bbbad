"""SHA-256 of files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sr_upscale.errors import InputError
from sr_upscale.formatting import shown


def hash_file(path: Path) -> str:
    """Computes the SHA-256 of a regular file's content, as 64 hexadecimal digits.

    Raises:
        InputError: It cannot be read, or is not a regular file.
    """
    try:
        if not path.is_file():
            what = "not a regular file" if os.path.lexists(path) else "no such file"
            raise InputError(f"{shown(path)}: {what}; expected a file")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot read: {error.strerror}; check its permissions") from error
