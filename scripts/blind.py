"""Blind pairs: which of two pictures a person prefers, without knowing which program made which.

    python scripts/blind.py draw --inputs FOLDER --held-out FOLDER [--rendered FOLDER] --out PAIRS OURS RIVAL
    python scripts/blind.py count PAIRS

``draw`` enlarges crops by 4 with two models (names or files) and writes them side by side, ``01.png`` and so on, each
pixel twice as large; sides are by chance. Crops are photographs that training holds out (of the folders that training
was given) under four damages, faces and a camera's JPEG of INPUTS, and with ``--rendered`` drawings and text of
``make_pictures.py --held-out``. The names stand in ``key.tsv``, which nobody reads before the end. Write L, R or =
behind each number in ``answers.txt``; ``count`` puts key and answers together.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from looks import CONTEXT, HELD_OUT, Way, network
from PIL import Image
from scores import jpeg40, noise8, soft60

from sr_upscale.data.decoded import load_pairs
from sr_upscale.data.degradations import gaussian_blur
from sr_upscale.data.patches import find_pictures, reduced, split_validation
from sr_upscale.data.rendered import palette
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.pil_arrays import rgb8
from sr_upscale.images import load_image

Pixels = np.ndarray
SCALE, SIDE, TIMES, GAP = 4, 96, 2, 16
"""Factor; largest side of a crop in LR pixels; how often a pixel is shown; gray pixels between the two."""
OF_EACH = 3
"""Photographs under each damage, and pictures of each other kind."""


def blur(lr: Pixels, _number: int) -> Pixels:
    """Gaussian blur of one pixel."""
    return to_pixels(gaussian_blur(to_tensor(lr), 1.0), np.dtype(np.uint8))


def palette16(lr: Pixels, _number: int) -> Pixels:
    """Sixteen colours, dithered by Floyd and Steinberg."""
    return to_pixels(palette(to_tensor(lr), 16, "floyd-steinberg"), np.dtype(np.uint8))


DAMAGES = (jpeg40, noise8, blur, soft60)
"""What photographs suffer."""
RENDERED_DAMAGES = (jpeg40, palette16, soft60)
FACES = (("children-alpha.png", 15, 120), ("children-alpha.png", 55, 230), ("children-alpha.png", 5, 400))
PHONE = (("castle-exif.jpg", 900, 1500), ("castle-exif.jpg", 1720, 240), ("castle-exif.jpg", 340, 660))
"""File of INPUTS, top and left in pixels: used as they are, since they are small or a camera's JPEG already."""
COLUMNS = ("number", "left", "right", "kind", "damage", "source")


@dataclass(frozen=True)
class Crop:
    """A piece to enlarge.

    Attributes:
        kind, damage, source: What it is, what was done to it, and which file it is of.
        lr: (h, w, 3) uint8, with up to `CONTEXT` pixels around what is shown.
        shown: The rows and columns of `lr` that are shown.
    """

    kind: str
    damage: str
    source: str
    lr: Pixels
    shown: tuple[slice, slice]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw", help="write pairs, a key and a file for the answers")
    drawing.add_argument("ours", help="a name or a file")
    drawing.add_argument("rival", help="a name or a file")
    drawing.add_argument("--inputs", type=Path, required=True)
    drawing.add_argument("--held-out", type=Path, action="append", required=True, help="may be repeated")
    drawing.add_argument("--rendered", type=Path)
    drawing.add_argument("--out", type=Path, required=True)
    drawing.add_argument(
        "--seed", type=int, default=0, help="another one takes other crops; sides are always by chance"
    )
    counting = commands.add_parser("count", help="put key and answers together")
    counting.add_argument("pairs", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "count":
        sys.stdout.write(counted(arguments.pairs))
        return
    names = [Path(each).stem for each in (arguments.ours, arguments.rival)]
    ways = [network(each, SCALE) for each in (arguments.ours, arguments.rival)]
    crops = list(
        chosen(arguments.inputs, arguments.held_out, arguments.rendered, np.random.default_rng(arguments.seed))
    )
    write_pairs(crops, names, ways, arguments.out)
    sys.stdout.write(
        f"{len(crops)} pairs; fill in {arguments.out / 'answers.txt'}, then blind.py count {arguments.out}\n"
    )


# --- crops ------------------------------------------------------------------------------------------


def chosen(inputs: Path, held_out: Sequence[Path], made: Path | None, rng: np.random.Generator) -> Iterator[Crop]:
    """Draws the crops, kind by kind."""
    _training, paths = split_validation(find_pictures(held_out), HELD_OUT)
    drawn = [paths[at] for at in rng.permutation(len(paths))]
    for number, path in enumerate(drawn[: OF_EACH * len(DAMAGES)]):
        (pair,) = load_pairs([path], scale=SCALE, min_side=64)
        damage = DAMAGES[number % len(DAMAGES)]
        yield cut(damage(pair.lr, number), busy_place(pair.lr, rng), "photograph", damage.__name__, path.name)
    for kind, places in (("face", FACES), ("phone", PHONE)):
        for name, top, left in places:
            pixels = rgb8(np.asarray(load_image(inputs / name).frames[0].pixels_hwc)[..., :3])
            yield cut(pixels, (top, left), kind, "none", name)
    for kind, folders in (("drawing", ("drawings", "flags", "maps")), ("text", ("text", "screens"))):
        files = sorted(file for folder in folders if made for file in (made / folder).glob("*.png"))
        for number, at in enumerate(rng.permutation(len(files))[:OF_EACH]):
            with Image.open(files[at]) as image:
                lr = reduced(np.asarray(image.convert("RGB")), SCALE)
            damage = RENDERED_DAMAGES[number % len(RENDERED_DAMAGES)]
            name = f"{files[at].parent.name}/{files[at].name}"
            yield cut(damage(lr, number), busy_place(lr, rng), kind, damage.__name__, name)


def busy_place(lr: Pixels, rng: np.random.Generator) -> tuple[int, int]:
    """The busiest of four random places: a crop of sky tells nothing."""
    bounds = [max(1, length - SIDE + 1) for length in lr.shape[:2]]
    places = [(int(rng.integers(bounds[0])), int(rng.integers(bounds[1]))) for _ in range(4)]
    return max(places, key=lambda place: float(lr[place[0] :, place[1] :][:SIDE, :SIDE].std()))


def cut(lr: Pixels, place: tuple[int, int], kind: str, damage: str, source: str) -> Crop:
    """Cuts a square of at most `SIDE` pixels out, with what context there is."""
    starts = [max(0, at - CONTEXT) for at in place]
    part = lr[starts[0] : place[0] + SIDE + CONTEXT, starts[1] : place[1] + SIDE + CONTEXT]
    lengths = [min(SIDE, length - at) for length, at in zip(lr.shape[:2], place, strict=True)]
    rows, columns = (
        slice(at - start, at - start + length) for at, start, length in zip(place, starts, lengths, strict=True)
    )
    return Crop(kind, damage, source, np.ascontiguousarray(part), (rows, columns))


# --- pairs and answers ------------------------------------------------------------------------------


def write_pairs(crops: Sequence[Crop], names: Sequence[str], ways: Sequence[Way], out: Path) -> None:
    """Writes a picture for each crop, the key, and a file for the answers, in an order and on sides by chance."""
    chance = np.random.default_rng()
    out.mkdir(parents=True)
    with (out / "key.tsv").open("w", newline="") as file:
        key = csv.writer(file, delimiter="\t", lineterminator="\n")
        key.writerow(COLUMNS)
        for number, at in enumerate(chance.permutation(len(crops)), start=1):
            crop, order = crops[at], chance.permutation(2)
            pair_picture([shown(crop, ways[side]) for side in order]).save(out / f"{number:02d}.png")
            key.writerow([number, *(names[side] for side in order), crop.kind, crop.damage, crop.source])
    (out / "answers.txt").write_text("".join(f"{number} \n" for number in range(1, len(crops) + 1)))


def shown(crop: Crop, way: Way) -> Pixels:
    """What a way makes of a crop, its context cut off."""
    return way(crop.lr)[tuple(slice(each.start * SCALE, each.stop * SCALE) for each in crop.shown)]


def pair_picture(sides: Sequence[Pixels]) -> Image.Image:
    """Two pictures beside each other with gray between them, each pixel `TIMES` as large."""
    left, right = (side.repeat(TIMES, 0).repeat(TIMES, 1) for side in sides)
    between = np.full((left.shape[0], GAP, 3), 128, dtype=np.uint8)
    return Image.fromarray(np.concatenate([left, between, right], axis=1))


def counted(pairs: Path) -> str:
    """Counts how often each name was preferred, by kind and together, as a Markdown table."""
    with (pairs / "key.tsv").open(newline="") as file:
        key = {int(row["number"]): row for row in csv.DictReader(file, delimiter="\t")}
    given = answers(pairs / "answers.txt", set(key))
    names = sorted({row[side] for row in key.values() for side in ("left", "right")})
    tally: dict[str, Counter[str]] = {}
    for number, letter in given.items():
        row = key[number]
        winner = {"L": row["left"], "R": row["right"], "=": "equal"}[letter]
        for group in (row["kind"], "together"):
            tally.setdefault(group, Counter())[winner] += 1
    lines = [f"| | {' | '.join(names)} | equal |", f"|---{'|---' * (len(names) + 1)}|"]
    for group in sorted(tally, key=lambda name: (name == "together", name)):
        lines.append(f"| {group} | {' | '.join(str(tally[group][name]) for name in (*names, 'equal'))} |")
    left = len(key) - len(given)
    return "\n".join(lines) + (f"\n{left} of {len(key)} without an answer\n" if left else "\n")


def answers(file: Path, numbers: set[int]) -> dict[int, str]:
    """Reads lines of a number and L, R or =; a number alone has no answer yet."""
    found: dict[int, str] = {}
    for at, line in enumerate(file.read_text().splitlines(), start=1):
        parts = line.split()
        if not parts or len(parts) == 1 and parts[0].isdigit():
            continue
        if len(parts) != 2 or not parts[0].isdigit() or parts[1].upper() not in ("L", "R", "="):
            sys.exit(f"{file}, line {at}: {line!r}; expected a number and L, R or =")
        number = int(parts[0])
        if number not in numbers or number in found:
            reason = "answered twice" if number in found else "no such pair"
            sys.exit(f"{file}, line {at}: {number} is {reason}; expected each of the key's numbers once")
        found[number] = parts[1].upper()
    return found


if __name__ == "__main__":
    main()
