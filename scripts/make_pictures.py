"""Makes pictures to train on from packages that anybody can have: text, screens, charts, maps, drawings, painted art.

    python scripts/make_pictures.py OUT            # needs npm, apt-get and dpkg-deb, and `pip install resvg-py`
    python scripts/make_pictures.py OUT --held-out           # of the fonts and drawings that training never sees
    python scripts/make_pictures.py OUT --packages FOLDER    # with the packages already in FOLDER
    python scripts/make_pictures.py OUT --kinds text,screens

Writes PNG files of 384x384 (pages 720x320) in folders by kind, the same for the same packages. Fonts are parted by
family and drawings by file, by a hash of their names (`rendered_letters.held_out`).

| folder | what | from | licence |
|---|---|---|---|
| text | paragraphs, tables, code, forms, signs | Debian's `FONTS`, `LISTS` | OFL, Apache-2.0, GPL, others |
| pages | lines of small letters | the same | the same |
| screens | windows, buttons, lists, icons | the same fonts; icons of Breeze and Tango | LGPL-3, public domain |
| drawings | many sizes and turns | npm `openmoji`, `@twemoji/svg` | CC-BY-SA-4.0, CC-BY-4.0 |
| | the same | Debian's `openclipart-svg` | CC0 |
| charts | axes, lines, bars, dots, pies | drawn here | as this program |
| maps | countries, streets, names | npm `world-atlas` (Natural Earth) | public domain |
| flags | large, and in rows with names | npm `flag-icons` | MIT |
| portraits | painted people and creatures | Debian's `wesnoth-1.16-data` | GPL-2+, CC-BY-SA-4.0 |
| wallpapers | painted and abstract, 1080 rows | Debian's `plasma-workspace-wallpapers` | GPL-2+, CC-BY-SA-4.0 |

Parts of one source end in ``_partNNN``, by which `data.patches.split_validation` knows them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rendered_scenes import KINDS, SIDE, Sheet, Sources, any_color

ART = {"portraits": "wesnoth-1.16-data", "wallpapers": "plasma-workspace-wallpapers"}
NPM = ("openmoji", "@twemoji/svg", "flag-icons", "world-atlas")
ICONS = ("openclipart-svg", "breeze-icon-theme", "tango-icon-theme")
LISTS = """wamerican wngerman wfrench wspanish wpolish wbulgarian wukrainian witalian wportuguese wswedish wcatalan
    wdutch hunspell-ru hunspell-el hunspell-cs hunspell-hu hunspell-tr"""
FONTS = """3270 adf-accanthis adf-baskervald adf-berenis adf-gillius adf-ikarius adf-irianis adf-libris
    adf-mekanus adf-romande adf-switzera adf-tribun adf-universalis agave allerta anonymous-pro arapey
    averia-sans-gwf averia-serif-gwf b612 breip cabin cantarell cardo century-catalogue clear-sans cmu comfortaa
    comic-neue courier-prime crosextra-caladea dancingscript dejavu-core dejavu-extra dkg-handwriting dosis
    ebgaramond-extra ecolier-court essays1743 eurofurence fantasque-sans fanwood femkeklaver firacode
    gfs-artemisia gfs-baskerville gfs-bodoni-classic gfs-didot gfs-neohellenic gnutypewriter go goudybookletter
    hack hermit humor-sans inconsolata inter ipaexfont-mincho jetbrains-mono junction junicode jura karla kristi
    lato league-mono liberation lindenhill linuxlibertine lobster manrope monofur monoid mononoki national-park
    noto-core noto-mono ocr-b oldstandard open-sans opendin opendyslexic osifont paratype play prociono
    quattrocento quicksand roadgeek roboto-slab roboto-unhinted routed-gothic rufscript sil-andika sil-charis
    sil-doulos sil-gentiumplus sjfonts stix tiresias tuffy ubuntu-title urw-base35 vlgothic vollkorn
    yanone-kaffeesatz"""
"""Packages without their ``fonts-``: families of many kinds. Of those that draw the same letters (Liberation and
Croscore, URW and TeX Gyre) one stands."""
COUNTS = {
    "text": (750, 32),
    "screens": (255, 8),
    "drawings": (255, 12),
    "charts": (90, 4),
    "maps": (75, 4),
    "flags": (75, 4),
    "pages": (700, 0),
}
"""Pictures to train on and held out, by kind."""
Cutter = Callable[[Path, np.random.Generator], Iterator[Image.Image]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes pictures to train on from packages of npm and Debian.")
    parser.add_argument("out", type=Path, help="folder to write into")
    parser.add_argument("--packages", type=Path, help="folder that holds the packages; default: fetch them")
    parser.add_argument("--held-out", action="store_true", help="draw with what training never sees")
    parser.add_argument("--kinds", default=",".join((*COUNTS, *ART)), help="default: %(default)s")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        art = [] if arguments.held_out else [package for kind, package in ART.items() if kind in kinds]
        packages = arguments.packages or fetched(Path(scratch) / "packages", art)
        roots = unpacked(packages, Path(scratch) / "unpacked")
        sources = Sources.below(roots, held=arguments.held_out)
        for number, (kind, counts) in enumerate(COUNTS.items()):
            for index in range(counts[arguments.held_out] if kind in kinds else 0):
                sheet = Sheet(np.random.default_rng([number, index, int(arguments.held_out)]), sources)
                save(KINDS[kind](sheet), arguments.out / kind / f"{index:04d}.png")
        if "portraits" in kinds and not arguments.held_out:
            portraits = sorted((roots / ART["portraits"]).rglob("portraits/**/*.png"))
            save_parts(arguments.out / "portraits", portraits, portrait_parts, named=-2)
        if "wallpapers" in kinds and not arguments.held_out:
            grounds = largest((roots / ART["wallpapers"]).rglob("contents/images/*.[jp][pn]g"))
            save_parts(arguments.out / "wallpapers", grounds, wallpaper_parts, named=-4)


def save_parts(folder: Path, files: Iterable[Path], cut: Cutter, *, named: int) -> None:
    """Saves the parts of painted art, whose names begin with that of one of the folders that their file is in."""
    for number, file in enumerate(files):
        for part, picture in enumerate(cut(file, np.random.default_rng([9, number]))):
            save(picture, folder / f"{file.parts[named]}-{file.stem}_part{part:03d}.png")


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.convert("RGB").save(path)


# --- packages ---------------------------------------------------------------------------------------


def fetched(folder: Path, art: Sequence[str] = ()) -> Path:
    """Packages of fonts, lists and drawings, and the large ones of `art`."""
    folder.mkdir(parents=True)
    subprocess.run(["npm", "pack", "--silent", *NPM], cwd=folder, check=True, stdout=sys.stderr)
    names = [*art, *ICONS, *LISTS.split(), *(f"fonts-{name}" for name in FONTS.split())]
    subprocess.run(["apt-get", "download", *names], cwd=folder, check=True, stdout=sys.stderr)
    return folder


def unpacked(packages: Path, into: Path) -> Path:
    """A folder for each package, by its name."""
    for file in sorted(packages.iterdir()):
        name = file.name.split("_")[0] if file.suffix == ".deb" else file.name.rsplit("-", 1)[0]
        (into / name).mkdir(parents=True, exist_ok=True)
        if file.suffix == ".deb":
            subprocess.run(["dpkg-deb", "-x", str(file), str(into / name)], check=True)
        elif file.suffix == ".tgz":
            with tarfile.open(file) as archive:
                archive.extractall(into / name, filter="data")
    return into


def largest(files: Iterable[Path]) -> list[Path]:
    """The largest file of each folder: wallpapers come in several shapes."""
    by_folder: dict[Path, Path] = {}
    for file in sorted(files, key=lambda file: (file.stat().st_size, file.name)):
        by_folder[file.parent] = file
    return sorted(by_folder.values())


# --- parts of painted art ---------------------------------------------------------------------------


def portrait_parts(file: Path, rng: np.random.Generator) -> Iterator[Image.Image]:
    """The upper middle of a portrait, where the face is, on a colour."""
    with Image.open(file) as opened:
        figure = opened.convert("RGBA")
    if min(figure.size) < SIDE:
        return
    left, top = (figure.width - SIDE) // 2, min(figure.height - SIDE, figure.height // 10)
    figure = figure.crop((left, top, left + SIDE, top + SIDE))
    picture = Image.new("RGB", (SIDE, SIDE), (255, 255, 255) if rng.random() < 0.3 else any_color(rng))
    picture.paste(figure, (0, 0), figure)
    yield picture


def wallpaper_parts(file: Path, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Up to three random parts of a wallpaper reduced to 1080 rows."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    if picture.height > 1080:
        picture = picture.resize((round(picture.width * 1080 / picture.height), 1080), Image.Resampling.LANCZOS)
    for _ in range(3 if min(picture.size) >= SIDE else 0):
        left = int(rng.integers(picture.width - SIDE + 1))
        top = int(rng.integers(picture.height - SIDE + 1))
        yield picture.crop((left, top, left + SIDE, top + SIDE))


if __name__ == "__main__":
    main()
