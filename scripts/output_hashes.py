"""Hashes of outputs of a fixed set of command lines: a change of structure must not change them.

    python scripts/output_hashes.py > before.txt         # then change, run again, and `diff`

Every format, alpha, 16 bits, an animation, a batch, a factor of 1.5, a self-ensemble, tiles: small pictures made here,
enlarged by faithful weights in fp32 by the package that Python imports.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from sr_upscale.cli.app import run

CASES: dict[str, tuple[str, ...]] = {
    **{f"rgb to {kind}": ("rgb.png", "-f", kind) for kind in ("png", "jpg", "webp", "tif", "bmp", "gif", "avif")},
    "jpeg to jpeg": ("photo.jpg",),
    "alpha": ("rgba.png",),
    "alpha on white": ("rgba.png", "-f", "jpg", "--background", "white"),
    "alpha in 16 bits": ("rgba16.tif", "-f", "png"),
    "gray": ("gray.png",),
    "gray in 16 bits": ("gray16.png",),
    "animation": ("moving.gif",),
    "animation to webp": ("moving.gif", "-f", "webp"),
    "one frame": ("moving.gif", "-f", "png", "--frame", "1"),
    "x2": ("rgb.png", "-s", "2"),
    "x1.5": ("rgb.png", "-s", "1.5"),
    "x8": ("small.png", "-s", "8"),
    "width": ("rgb.png", "-w", "300"),
    "size": ("rgb.png", "--size", "200x180"),
    "self-ensemble": ("small.png", "-x"),
    "tiles": ("rgb.png", "-t", "32"),
    "tiles with a halo": ("rgb.png", "-t", "32", "--halo", "51", "--overlap", "8"),
    "stripped": ("photo.jpg", "--strip-metadata"),
    "quality": ("rgb.png", "-f", "webp", "-q", "100"),
    "gan": ("small.png", "-n", "gan"),
    "a blend": ("small.png", "-n", "gan", "--fidelity", "0.5"),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pictures(root / "in")
        for number, (name, (file, *options)) in enumerate(CASES.items()):
            out = root / f"out{number}"
            out.mkdir()
            model = () if "-n" in options else ("-n", "psnr")
            call(str(root / "in" / file), "-o", f"{out}/", "--fp32", *model, *options)
            for made in sorted(out.iterdir()):
                report(f"{name}: {made.name}", made.read_bytes())
        call("batch", str(root / "in"), "-o", str(root / "batch"), "--fp32", "-n", "psnr")
        for made in sorted((root / "batch").iterdir()):
            if not made.name.startswith("."):
                report(f"batch: {made.name}", made.read_bytes())


def call(*argv: str) -> None:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = run(list(argv))
    if code:
        sys.exit(f"{' '.join(argv)}: exit code {code}: {said.getvalue()}")


def report(name: str, content: bytes) -> None:
    sys.stdout.write(f"{hashlib.sha256(content).hexdigest()[:16]}  {name}\n")
    sys.stdout.flush()


def pictures(folder: Path) -> None:
    """Slopes, edges and noise, the same at every call."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:45, :70]
    waves = np.stack([np.sin(0.3 * x + 0.1 * y * c) + ((x * 3 + y * 2) // 9 % 2) for c in range(1, 5)], axis=-1)
    values = (waves - waves.min()) / np.ptp(waves) * 0.9 + rng.random(waves.shape) * 0.1
    levels = np.rint(values * 255).astype(np.uint8)
    Image.fromarray(levels[..., :3]).save(folder / "rgb.png")
    Image.fromarray(levels[:20, :24, :3].copy()).save(folder / "small.png")
    Image.fromarray(levels[..., :3]).save(folder / "photo.jpg", quality=80, dpi=(72, 72), exif=exif())
    Image.fromarray(levels).save(folder / "rgba.png")
    Image.fromarray(levels[..., 0].copy()).save(folder / "gray.png")
    Image.fromarray(np.rint(values[..., 0] * 65535).astype(np.uint16)).save(folder / "gray16.png")
    frames = [Image.fromarray(np.roll(levels[:20, :24, :3], shift, axis=1)) for shift in (0, 3, 6)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:], duration=[50, 80, 120], loop=0)
    import pyvips

    deep = pyvips.Image.new_from_array(np.rint(values * 65535).astype(np.uint16))
    deep.copy(interpretation="rgb16").write_to_file(str(folder / "rgba16.tif"))


def exif() -> Image.Exif:
    data = Image.Exif()
    data[0x010F] = "Maker"
    data[0x0112] = 6
    return data


if __name__ == "__main__":
    main()
