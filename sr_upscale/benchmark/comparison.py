"""One picture, enlarged by several methods to be looked at side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sr_upscale.benchmark.methods import make_method
from sr_upscale.benchmark.names import KERNELS
from sr_upscale.errors import UsageError
from sr_upscale.functional.color import Pixels
from sr_upscale.functional.pil_arrays import rgb8
from sr_upscale.images import load_image


def enlarged_by(
    names: Sequence[str],
    source: Path,
    scale: int,
    *,
    box: tuple[int, int, int, int] | None = None,
    device: str = "auto",
    on_progress: Callable[[float, str], None] = lambda _share, _words: None,
) -> dict[str, Pixels]:
    """Enlarges a picture by each of several methods.

    Args:
        names: What `make_method` takes.
        source: The picture's file; of an animation, the first frame counts.
        scale: Factor.
        box: Only this part: left, top, width and height in pixels.
        device: Where networks run.
        on_progress: Called with the finished share (0 to 1) and the method at work.

    Returns:
        (H * scale, W * scale, 3) uint8 by the method's name. The first one, ``input``, is the picture itself, each
        pixel repeated.

    Raises:
        UsageError: The box is not within the picture, or a model has another factor.
        InputError, ModelError and others: As of `load_image` and `Upscaler`.
    """
    pixels = rgb8(np.asarray(load_image(source).frames[0].pixels_hwc))
    if box is not None:
        pixels = _cropped(pixels, *box)
    images: dict[str, Pixels] = {"input": pixels.repeat(scale, 0).repeat(scale, 1)}
    for number, name in enumerate(names):
        on_progress(number / len(names), name)
        method = make_method(name, scale, **({} if name in KERNELS else {"device": device}))
        images[method.name if method.name not in images else name] = method.run(pixels)
    return images


def _cropped(pixels: Pixels, left: int, top: int, width: int, height: int) -> Pixels:
    full_height, full_width = pixels.shape[:2]
    if min(width, height) < 1 or left + width > full_width or top + height > full_height:
        raise UsageError(
            f"--crop is {left},{top},{width},{height}; expected a part of the picture of {full_width}x{full_height}"
        )
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])
