"""Makes the picture at the top of the README with the shipped default: ``python scripts/before_after.py`` (seconds).

To be run again whenever the weights of the default change; a test holds that it was.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr_upscale import Upscaler, load_image
from sr_upscale.functional.color import Pixels
from sr_upscale.functional.pil_arrays import rgb8
from sr_upscale.functional.resize import resize_pixels
from sr_upscale.pretrained.registry import DEFAULT_MODEL, resolve_family
from sr_upscale.storage.atomic import hash_file, replace_file

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "before-after.jpg"
SCALE = 4
LEFT, TOP, WIDTH, HEIGHT = 116, 68, 110, 96
"""The part of examples/chelsea.png that is shown, in its pixels: an eye, whose lashes and fur are fine."""
GAP = 8
MAX_BYTES = 150_000


def main() -> int:
    jpeg, quality = encoded(panels())
    with replace_file(TARGET) as temporary:
        temporary.write_bytes(jpeg)
    sys.stdout.write(f"{TARGET.relative_to(ROOT)}: {len(jpeg)} bytes, JPEG {quality}\n")
    return 0


def weights_sha256() -> str:
    """Returns the SHA-256 of the weights that the default takes; it stands in the comment of the JPEG."""
    return hash_file(resolve_family(DEFAULT_MODEL)[SCALE])


def panels() -> tuple[Pixels, Pixels]:
    """Makes both halves, (H, W, 3) uint8: bicubic resampling of the part, and the default of the whole picture."""
    pixels = rgb8(np.asarray(load_image(ROOT / "examples" / "chelsea.png").frames[0].pixels_hwc))
    height, width = pixels.shape[0] * SCALE, pixels.shape[1] * SCALE
    before = resize_pixels(pixels, (height, width))
    return _part(before), _part(Upscaler(dtype="fp32")(pixels, scale=SCALE))


def _part(enlarged: Pixels) -> Pixels:
    top, left = TOP * SCALE, LEFT * SCALE
    return enlarged[top : top + HEIGHT * SCALE, left : left + WIDTH * SCALE]


def encoded(halves: tuple[Pixels, Pixels]) -> tuple[bytes, int]:
    """Puts the halves side by side with a word under each, as the best JPEG that is small enough, and its quality."""
    height, width = halves[0].shape[:2]
    sheet = Image.new("RGB", (2 * width + GAP, height + 28), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for half, left, words in zip(halves, (0, width + GAP), ("before: bicubic x4", "after: sr-upscale x4"), strict=True):
        sheet.paste(Image.fromarray(half), (left, 0))
        pen.text((left + width / 2, height + 14), words, fill="black", font=font, anchor="mm")
    for quality in range(94, 0, -2):
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True, comment=weights_sha256())
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue(), quality


if __name__ == "__main__":
    sys.exit(main())
