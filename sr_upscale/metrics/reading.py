"""How well letters can be read after enlarging: the character error rate of the command tesseract."""

from __future__ import annotations

import io
import os
import shutil
import subprocess

import numpy as np
from PIL import Image

from sr_upscale.errors import InputError, UsageError
from sr_upscale.functional.color import Pixels

COMMAND = "tesseract"
SECONDS = 120
"""Longest time for one picture."""


class Reader:
    """Text recognition by the command tesseract (github.com/tesseract-ocr/tesseract), on one thread.

    Args:
        language: One of those that ``tesseract --list-langs`` names, or several joined by a plus sign.

    Raises:
        UsageError: The command is not installed, or has no such language.

    Example:
        >>> Reader("eng")(np.asarray(Image.open("page.png")))  # doctest: +SKIP
        'Exit 12:45'
    """

    def __init__(self, language: str = "eng") -> None:
        if shutil.which(COMMAND) is None:
            raise UsageError(
                f"the command {COMMAND} is not installed, and the character error rate needs it; install it "
                "(Debian: apt-get install tesseract-ocr; macOS: brew install tesseract)"
            )
        known = _run("--list-langs").splitlines()[1:]
        missing = [name for name in language.split("+") if name not in known]
        if missing:
            raise UsageError(
                f"{COMMAND} does not know the language {missing[0]!r}; expected one of {', '.join(known)}; others are "
                "files of their own (Debian: tesseract-ocr-LANGUAGE)"
            )
        self.language = language

    def __call__(self, pixels: Pixels) -> str:
        """Reads a picture as one block of text.

        Args:
            pixels: (H, W, 1 or 3) uint8.

        Returns:
            What stands in it, with each run of white space as one space.

        Raises:
            InputError: tesseract fails, or takes too long.
        """
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
        text = _run("stdin", "stdout", "-l", self.language, "--psm", "6", "--dpi", "300", data=buffer.getvalue())
        return " ".join(text.split())


def _run(*arguments: str, data: bytes = b"") -> str:
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    try:
        done = subprocess.run([COMMAND, *arguments], input=data, capture_output=True, env=environment, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{COMMAND} did not read the picture ({error})") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
        raise InputError(f"{COMMAND} ended with {done.returncode}: {said[-1] if said else 'it said nothing'}")
    return done.stdout.decode("utf-8", errors="replace")


def character_error_rate(text: str, truth: str) -> float:
    """Counts the characters to insert, remove and change to make `text` the truth, as a share of the truth's length.

    Args:
        text: What was read.
        truth: What stands there, at least one character.

    Returns:
        0 where they are equal; above 1 where more is read than there is.

    Raises:
        UsageError: The truth is empty.

    Source: Levenshtein 1966; Wagner and Fischer 1974, doi:10.1145/321796.321811.
    """
    if not truth:
        raise UsageError("the character error rate of an empty text has no meaning; give the text that stands there")
    letters = np.array([ord(letter) for letter in truth])
    steps = np.arange(len(truth) + 1)
    row = steps.copy()  # distances of what was read so far from each beginning of the truth
    for letter in text:
        changed = row[:-1] + (letters != ord(letter))
        best = np.concatenate([row[:1] + 1, np.minimum(row[1:] + 1, changed)])
        row = np.minimum.accumulate(best - steps) + steps
    return float(row[-1]) / len(truth)


__all__ = ["Reader", "character_error_rate"]
