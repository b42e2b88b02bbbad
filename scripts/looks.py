"""A sheet of crops that are known to be hard, beside other tools, and what it shows in numbers.

    python scripts/looks.py --inputs FOLDER --out looks.png [--rival FILE ...] [--vgg-weights FILE] MODEL [MODEL ...]

FOLDER holds Real-ESRGAN's test pictures and a camera JPEG (`PLACES`); a place whose picture is not there is left out.
Each row is a place, each column a way to enlarge it by 4: bicubic, the models, the rivals (names or files; the last
one is what distances are taken to). Figures are means after two kinds of damage: over Set14 with ``--benchmarks``, or
with ``--held-out FOLDER`` over the pictures of FOLDER that training holds out, reduced by the factor.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scores import jpeg, jpeg40, noisy, soft60, vgg

from sr_upscale.data.decoded import load_pairs
from sr_upscale.data.degradations import gaussian_blur
from sr_upscale.data.patches import centre_of, find_pictures, split_validation
from sr_upscale.functional.color import to_tensor
from sr_upscale.functional.pil_arrays import rgb8
from sr_upscale.functional.resize import resize_pixels
from sr_upscale.images import load_image
from sr_upscale.metrics.reference import lattice_energy, vgg19_distance
from sr_upscale.pretrained.registry import resolve_weights
from sr_upscale.storage.atomic import cache_folder, replace_file
from sr_upscale.upscaler import Upscaler

Pixels = np.ndarray
ROOT = Path(__file__).resolve().parent.parent
Way = Callable[[Pixels], Pixels]
SIDE, CONTEXT = 72, 12
HELD_OUT, MIDDLE = 16, 400
"""Pictures of a folder that are measured on, of those that training holds out, and the side of the part that counts."""


@dataclass(frozen=True)
class Place:
    """A square of `SIDE` LR pixels. smooth: nothing in it may show a mesh."""

    title: str
    file: str
    left: int
    top: int
    smooth: bool = False


PLACES = (
    Place("0014, lines under JPEG", "0014.jpg", 36, 40),
    Place("0030, lines and flats", "0030.jpg", 40, 20),
    Place("wolf, fur", "wolf_gray.jpg", 92, 70),
    Place("castle, windows", "castle-exif.jpg", 1500, 900),
    Place("bricks", "OST_009.png", 180, 190),
    Place("faces", "children-alpha.png", 110, 20),
    Place("cat, blurred ground", "chelsea.png", 375, 132, smooth=True),
    Place("cat, eye and fur", "chelsea.png", 130, 60),
    Place("scanned text", "", 0, 0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="names or files")
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--rival", action="append", default=[], help="a name or a file; may be repeated")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("looks.png"))
    parser.add_argument("--benchmarks", type=Path, help="Set14 of SelfExSR, for distances to the last rival")
    parser.add_argument("--held-out", type=Path, help="training pictures; those held out serve in place of Set14")
    parser.add_argument("--vgg-weights", type=Path)
    arguments = parser.parse_args()
    scale = arguments.scale
    found = ways(arguments.models, arguments.rival, scale)
    made = rows(arguments.inputs, found, scale)
    sheet(made, list(found), scale).save(arguments.out)
    sys.stdout.write(f"{arguments.out}\n{lattice_table(made, scale)}\n")
    pictures = damaged(arguments, scale)
    if pictures and arguments.rival:
        sys.stdout.write("\n" + distances(found, pictures, arguments.vgg_weights, title_of(arguments)))


def damaged(arguments: argparse.Namespace, scale: int) -> list[Pixels]:
    """LR pictures to measure distances on: held-out ones of a folder, or Set14, or none."""
    if arguments.held_out:
        _training, held_out = split_validation(find_pictures([arguments.held_out]), HELD_OUT)
        return [centre_of(pair, MIDDLE).lr for pair in load_pairs(held_out, scale=scale, min_side=64)]
    return set14(arguments.benchmarks) if arguments.benchmarks and scale == 4 else []


def title_of(arguments: argparse.Namespace) -> str:
    """What `damaged` gives, in words."""
    return f"{HELD_OUT} held-out pictures" if arguments.held_out else "Set14"


def set14(benchmarks: Path) -> list[Pixels]:
    """LR of Set14 at x4."""
    files = sorted(benchmarks.glob("**/Set14/image_SRF_4/*_LR.png"))
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def ways(models: Sequence[str], rivals: Sequence[str], scale: int) -> dict[str, Way]:
    """Ways to enlarge by `scale`, by name: bicubic, the models, the rivals."""
    networks = {Path(name).stem: network(name, scale) for name in (*models, *rivals)}
    return {"bicubic": lambda lr: bicubic(lr, scale), **networks}


def rows(inputs: Path, found: Mapping[str, Way], scale: int) -> dict[Place, dict[str, Pixels]]:
    """Every place by every way."""
    return {place: crops(pixels, place, found, scale) for place, pixels in places(inputs)}


def network(name: str, scale: int) -> Way:
    """As the program does it, in fp32; answers are kept in the cache folder, as some networks take minutes."""
    path = Path(name) if Path(name).is_file() else resolve_weights(name)
    upscaler = Upscaler(path, dtype="fp32")
    mark = hashlib.sha256(path.read_bytes()).digest() + bytes([scale])

    def run(lr: Pixels) -> Pixels:
        key = hashlib.sha256(mark + repr(lr.shape).encode() + lr.tobytes()).hexdigest()[:32]
        kept = cache_folder() / "looks" / f"{key}.png"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replace_file(kept) as temporary:
                Image.fromarray(upscaler(lr, scale=scale)).save(temporary, "PNG")
        return np.asarray(Image.open(kept))

    return run


def bicubic(lr: Pixels, scale: int) -> Pixels:
    return resize_pixels(lr, (lr.shape[0] * scale, lr.shape[1] * scale))


# --- the sheet --------------------------------------------------------------------------------------


def places(inputs: Path) -> Iterator[tuple[Place, Pixels]]:
    """Places, and the whole pictures that they are in."""
    for place in PLACES:
        file = inputs / place.file if (inputs / place.file).is_file() else ROOT / "examples" / place.file
        if not place.file:
            yield place, scanned_text()
        elif file.is_file():
            yield place, rgb8(np.asarray(load_image(file).frames[0].pixels_hwc)[..., :3])


def scanned_text() -> Pixels:
    """Lines of a book: drawn large, reduced, with the noise and JPEG of a scanner; the same at every call."""
    page = Image.new("L", (800, 800), 236)
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(52)
    for number, line in enumerate(
        ("It was a bright cold", "day in April, and the", "clocks were striking", "1984: §7 “quoted”")
    ):
        pen.text((30, 30 + 80 * number), line, font=font, fill=40)
    small = np.asarray(page.resize((160, 160), Image.Resampling.BICUBIC))
    return jpeg(np.stack([noisy(small, 3, [0])] * 3, axis=-1), 60)


def crops(pixels: Pixels, place: Place, found: Mapping[str, Way], scale: int) -> dict[str, Pixels]:
    """A place by each way, with some pixels of context that are cut off again."""
    top, left = max(0, place.top - CONTEXT), max(0, place.left - CONTEXT)
    part = np.ascontiguousarray(pixels[top : place.top + SIDE + CONTEXT, left : place.left + SIDE + CONTEXT])
    corners = ((place.top, top), (place.left, left))
    inner = tuple(slice((at - start) * scale, (at - start + SIDE) * scale) for at, start in corners)
    return {name: way(part)[inner] for name, way in found.items()}


def sheet(made: Mapping[Place, Mapping[str, Pixels]], names: Sequence[str], scale: int) -> Image.Image:
    """A row for each place, a column for each way, with their names; at least x4, so that eyes see pixels."""
    times = max(1, 4 // scale)
    side, head = SIDE * scale * times, 20
    picture = Image.new("RGB", (len(names) * (side + 4), len(made) * (side + head)), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    for y, (place, by_way) in enumerate(made.items()):
        for x, name in enumerate(names):
            crop = Image.fromarray(by_way[name].repeat(times, 0).repeat(times, 1))
            pen.text((x * (side + 4) + 2, y * (side + head) + 3), f"{name}: {place.title}", fill=(0, 0, 0))
            picture.paste(crop, (x * (side + 4), y * (side + head) + head))
    return picture


# --- figures ----------------------------------------------------------------------------------------


def lattice_table(made: Mapping[Place, Mapping[str, Pixels]], scale: int) -> str:
    """Energy at one and at two LR pixels on the smooth places, the spectrum's peak at LR Nyquist, and grain."""
    lines = [
        f"| smooth place | way | lattice at {scale} | at {2 * scale} | peak at {2 * scale} | grain, levels |",
        "|---|---|---|---|---|---|",
    ]
    for place, by_way in made.items():
        for name, pixels in by_way.items() if place.smooth else ():
            x = to_tensor(pixels)
            figures = [f"{lattice_energy(x, scale * times).item():.2f}" for times in (1, 2)]
            figures += [f"{mesh_peak(pixels, scale):.0f}", f"{grain(pixels, by_way['bicubic']):.2f}"]
            lines.append(f"| {place.title} | {name} | {' | '.join(figures)} |")
    return "\n".join(lines)


def mesh_peak(pixels: Pixels, scale: int) -> float:
    """Largest magnitude of the spectrum at the diagonal of LR Nyquist and beside it, in levels, of the gray picture."""
    gray = pixels.astype(float).mean(axis=2)
    gray -= gray.mean()
    window = np.hanning(gray.shape[0])[:, None] * np.hanning(gray.shape[1])
    spectrum = np.abs(np.fft.fft2(gray * window))
    y, x = (side // (2 * scale) for side in gray.shape)
    near = (-1, 0, 1)
    return max(float(spectrum[y + a, (turn * x + b) % gray.shape[1]]) for turn in (1, -1) for a in near for b in near)


def grain(pixels: Pixels, plain: Pixels) -> float:
    """Root mean square of what a way adds to bicubic's answer on a smooth place, in levels; slow changes left out."""
    added = to_tensor(pixels) - to_tensor(plain)
    return 255 * float((added - gaussian_blur(added, 4.0)).square().mean().sqrt())


def detail(pixels: Pixels) -> float:
    """Mean magnitude of the Laplacian of the gray picture, in levels: how much fine detail there is."""
    gray = pixels.astype(float).mean(axis=2)
    inner = gray[1:-1, 1:-1]
    return float(np.abs(gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * inner).mean())


def distances(found: Mapping[str, Way], pictures: Sequence[Pixels], vgg_file: Path | None, title: str) -> str:
    """How far each way's answers to damaged pictures are from those of the last way, as a table."""
    lines = [
        f"| {title}, to {list(found)[-1]} | damage | detail | L1, levels | VGG19 distance |",
        "|---|---|---|---|---|",
    ]
    for (name, damage), means in measured(found, pictures, vgg_file).items():
        lines.append(f"| {name} | {damage} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join(lines) + "\n"


def measured(
    found: Mapping[str, Way], pictures: Sequence[Pixels], vgg_file: Path | None
) -> dict[tuple[str, str], list[float]]:
    """Mean detail, L1 in levels, and VGG19 distance, by way and damage, over LR pictures."""
    features = vgg(vgg_file)
    sums: dict[tuple[str, str], list[list[float]]] = {}
    for spoil in (soft60, jpeg40):
        for number, picture in enumerate(pictures):
            lr = spoil(picture, number)
            made = {name: way(lr) for name, way in found.items()}
            truth = list(made.values())[-1]
            for name, pixels in made.items():
                row = [detail(pixels), float(np.abs(pixels.astype(float) - truth).mean())]
                if features is not None:
                    row.append(vgg19_distance(to_tensor(pixels), to_tensor(truth), features, crop_border=4).item())
                sums.setdefault((name, spoil.__name__), []).append(row)
    return {key: [float(mean) for mean in np.mean(each, axis=0)] for key, each in sums.items()}


if __name__ == "__main__":
    main()
