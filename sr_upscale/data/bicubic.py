"""HR -> LR by MATLAB's bicubic, the field's reference degradation. The LR files of papers are made by it."""

from __future__ import annotations

from torch import Tensor

from sr_upscale.errors import ShapeError
from sr_upscale.functional.resize import resize


def downscale_matlab(hr: Tensor, scale: int) -> Tensor:
    """Reduces an HR picture to its bicubic LR twin, as MATLAB's `imresize` does.

    The result is in 8 bits, as the papers' LR files are.

    Args:
        hr: (..., H, W) in [0, 1]; H and W must be multiples of `scale`.
        scale: Integer factor.

    Returns:
        (..., H / scale, W / scale) in [0, 1], on the grid of 1/255.

    Raises:
        ShapeError: H or W is not a multiple of `scale`.
    """
    height, width = hr.shape[-2:]
    if height % scale or width % scale:
        msg = f"HR of {width}x{height} does not divide by {scale}; crop it to a multiple first"
        raise ShapeError(msg)
    rows = resize(hr, (height // scale, width)).clamp(0, 1)  # MATLAB saturates 8-bit values between the axes
    lr = resize(rows, (height // scale, width // scale))
    return (lr.clamp(0, 1) * 255).round() / 255
