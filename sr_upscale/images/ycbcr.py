"""YCbCr of TIFF files that no JPEG decoder converts: units of subsampled colours -> RGB.

Source: TIFF 6.0, sections 20 (ReferenceBlackWhite) and 21 (YCbCr images).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BT601 = (0.299, 0.587, 0.114)
_BAND_ROWS = 128


@dataclass(frozen=True, kw_only=True)
class YCbCr:
    """How colours are stored.

    Attributes:
        size: Width and height, in pixels.
        subsampling: Pixels across and down that share a Cb and a Cr.
        luma: How much red, green and blue make Y.
        reference: Codes of black and white of Y, then of zero and the largest value of Cb and of Cr.
        cosited: Whether Cb and Cr belong to the first of their pixels, and not to the middle of them.
        bits: Of a sample, 8 or 16.
    """

    size: tuple[int, int]
    subsampling: tuple[int, int]
    luma: tuple[float, ...]
    reference: tuple[float, ...]
    cosited: bool
    bits: int

    @classmethod
    def checked(cls, *, luma: tuple[float, ...], reference: tuple[float, ...], bits: int, **others: Any) -> YCbCr:
        """Makes one with the usual numbers in place of those that divide by zero."""
        top, middle = 2**bits - 1, 2 ** (bits - 1)
        if len(luma) != 3 or luma[1] <= 0:
            luma = _BT601
        if any(black == white for black, white in zip(reference[::2], reference[1::2], strict=True)):
            reference = (0, top, middle, top, middle, top)
        return cls(luma=luma, reference=reference, bits=bits, **others)

    @property
    def subsampled(self) -> bool:
        """Says whether several pixels share a colour."""
        return self.subsampling != (1, 1)

    @property
    def unit(self) -> int:
        """Counts the samples of a unit: Y of its pixels, row by row, one Cb, one Cr."""
        return self.subsampling[0] * self.subsampling[1] + 2

    def rgb(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Converts to RGB. Colours between those that are stored are interpolated linearly.

        Args:
            stored: (H, W, 3 or more), or, where subsampled, (rows of units, samples of a row of units, 1).

        Returns:
            (H, W, 3 or more), same type. Samples beyond the third are alpha and stay.
        """
        width, height = self.size
        if not self.subsampled:
            luma, colours, rest = stored[:, :, 0], stored[:, :, 1:3], stored[:, :, 3:]
        else:
            across, down = self.subsampling
            units = stored.reshape(len(stored), -1, self.unit)
            rows, columns = units.shape[:2]
            luma = units[:, :, :-2].reshape(rows, columns, down, across).swapaxes(1, 2)
            luma = luma.reshape(rows * down, columns * across)[:height, :width]
            colours, rest = units[:, :, -2:], units[:0, :0, :0]
        out = np.empty((height, width, 3 + rest.shape[2]), dtype=stored.dtype)
        for first in range(0, height, _BAND_ROWS):  # in bands, as floats take four times the memory
            band = slice(first, min(first + _BAND_ROWS, height))
            between = self._at_pixels(colours, band.start, band.stop) if self.subsampled else colours[band]
            out[band, :, :3] = self._converted(luma[band], between)
        if rest.shape[2]:
            out[:, :, 3:] = rest
        return out

    def _at_pixels(self, colours: NDArray[Any], start: int, stop: int) -> NDArray[np.float32]:
        """Interpolates (rows of units, units, 2) at the pixels of rows: (stop - start, W, 2)."""
        across, down = self.subsampling
        above, below, share = self._neighbours(np.arange(start, stop), down, len(colours))
        share = share[:, None, None]
        rows = colours[above] * (1 - share) + colours[below] * share
        left, right, share = self._neighbours(np.arange(self.size[0]), across, colours.shape[1])
        share = share[:, None]
        mixed: NDArray[np.float32] = (rows[:, left] * (1 - share) + rows[:, right] * share).astype(
            np.float32, copy=False
        )
        return mixed

    def _neighbours(
        self, pixels: NDArray[Any], step: int, count: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        """Returns the colours before and behind pixels, and the share of the one behind."""
        place = (pixels - (0 if self.cosited else (step - 1) / 2)) / step
        before = np.floor(place).astype(np.intp)
        share = (place - before).astype(np.float32)
        return before.clip(0, count - 1), (before + 1).clip(0, count - 1), share

    def _converted(self, luma: NDArray[Any], colours: NDArray[Any]) -> NDArray[np.float32]:
        """Converts (n, W) and (n, W, 2) to RGB, clipped and rounded."""
        top, half = float(2**self.bits - 1), float(2 ** (self.bits - 1) - 1)
        (red, green, blue), scale = self.luma, (top, half, half)
        low, high = self.reference[::2], self.reference[1::2]
        y, cb, cr = (
            (values.astype(np.float32) - np.float32(low[each])) * np.float32(scale[each] / (high[each] - low[each]))
            for each, values in enumerate((luma, colours[:, :, 0], colours[:, :, 1]))
        )
        r, b = y + cr * np.float32(2 - 2 * red), y + cb * np.float32(2 - 2 * blue)
        g = (y - np.float32(blue) * b - np.float32(red) * r) / np.float32(green)
        rgb: NDArray[np.float32] = np.rint(np.stack((r, g, b), axis=2)).clip(0, top)
        return rgb
