"""Pages of the public names, from their docstrings: ``python scripts/api_pages.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc

import sr_upscale
from sr_upscale.storage.atomic import make_folder


def main(folder: Path) -> None:
    """Writes a page of `sr_upscale`, and of nothing below it."""
    for name in sr_upscale.__all__:  # they are imported when first used, and pdoc reads what is there
        setattr(sr_upscale, name, getattr(sr_upscale, name))
    pdoc.render.configure(docformat="google", footer_text=f"sr-upscale {sr_upscale.__version__}")
    make_folder(folder)
    pdoc.pdoc("sr_upscale", "!sr_upscale.", output_directory=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
