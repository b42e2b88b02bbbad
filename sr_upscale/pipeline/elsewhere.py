"""Options that people type because other programs have them, and what to use here."""

from __future__ import annotations

from collections.abc import Sequence

_CLEANING = "--denoise 0..1 sets how much noise is removed, and --before 1x-denoise-realplksr-otf cleans first"
_FACES = "faces are not repaired one by one here; the default model cleans the whole picture"
_MODELS = "a folder of models is not needed; -n takes a name of `sr-upscale models`, or a file"
_THREADS = "-j LOAD:PROC:SAVE sets the threads of a folder"

ELSEWHERE = {
    "--noise": _CLEANING,
    "--noise-level": _CLEANING,
    "--face-enhance": _FACES,
    "-m": _MODELS,
    "--model-dir": _MODELS,
    "--alpha-upsampler": "transparency is always kept",
    "--pre-pad": "edges are mirrored as far as the network sees",
    "--threads": _THREADS,
    "--num-process-per-gpu": _THREADS,
    "-r": "--size WxH, --width or --height set the size",
    "--resize": "--size WxH, --width or --height set the size",
}
"""By name, with dashes."""


def advice(unknown: str, words: Sequence[str]) -> str | None:
    """Says what to use here instead of an option of another program; None where it is not known.

    Args:
        unknown: The option as it was parsed: ``-d`` of ``-dn``.
        words: The command line.
    """
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name in ELSEWHERE and name.startswith(unknown):
            return f"no option {name}: {ELSEWHERE[name]}"
    return None
