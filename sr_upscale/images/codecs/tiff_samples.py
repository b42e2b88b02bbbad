"""What the samples of a TIFF's page mean, and a file of which libvips reads them right; YCbCr -> RGB."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_upscale.errors import InputError
from sr_upscale.images.codecs.tiff_reader import Entry, Tiff

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _ROWS, _PLANES = 256, 257, 258, 259, 262, 277, 278, 284
_PREDICTOR, _COLOR_MAP, _TILE_WIDTH, _TILE_HEIGHT, _EXTRA, _FORMAT = 317, 320, 322, 323, 338, 339
_LUMA, _SUBSAMPLING, _POSITIONING, _REFERENCE = 529, 530, 531, 532
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR, _CIELAB = 0, 1, 2, 3, 6, 8  # photometric interpretations
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
"""Samples of a pixel that are its colour, by photometric interpretation."""

_ALPHA = (1, 2)  # extra samples: associated (premultiplied) and straight
_MOST_SAMPLES = 64  # whose bits are looked at

PIXEL_TAGS = frozenset(
    {
        *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, 266, 273, _SAMPLES, _ROWS, 279, _PLANES),
        *(_TILE_WIDTH, _TILE_HEIGHT, 324, 325, 32997, 32998),
        *(292, 293, 326, 327, 328, _PREDICTOR),  # fax, predictor
        *(_COLOR_MAP, 332, 334, 336, _EXTRA, _FORMAT, 340, 341, 32995, 32996),  # palette, inks, alpha, sample formats
        *(347, *range(512, 522), _LUMA, _SUBSAMPLING, _POSITIONING, _REFERENCE, 50674),  # JPEG, YCbCr, LERC
        34675,  # profile
    }
)
"""Tags without which pixels cannot be read, or mean something else."""

_LEAST_TILE = 16  # rows of a tile that libvips takes
_JPEG = (6, 7)
_COMPRESSIONS = {
    6: "JPEG of the old style",
    34661: "JBIG",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_USUAL_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})
"""None, fax, LZW, JPEG, deflate, PackBits: every libtiff has them."""

_WHOLE, _FLOAT, _UNDEFINED = 1, 3, 4
_KINDS = {2: "signed whole numbers", 3: "floats", 5: "complex whole numbers", 6: "complex floats"}

_BT601 = (0.299, 0.587, 0.114)
_BAND_ROWS = 128


@dataclass(frozen=True, kw_only=True)
class YCbCr:
    """How YCbCr that no JPEG decoder converts is stored.

    Attributes:
        size: Width and height, in pixels.
        subsampling: Pixels across and down that share a Cb and a Cr.
        luma: How much red, green and blue make Y.
        reference: Codes of black and white of Y, then of zero and the largest value of Cb and of Cr.
        cosited: Whether Cb and Cr belong to the first of their pixels, and not to the middle of them.
        bits: Of a sample, 8 or 16.

    Source: TIFF 6.0, sections 20 (ReferenceBlackWhite) and 21 (YCbCr images).
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


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What the samples of a page are.

    Attributes:
        size: Width and height of the page, in pixels.
        compression: Code of the compression.
        lab8: Whether they are CIELab of 8 bits.
        white_is_zero: Whether the first sample is 0 for white.
        ycbcr: How to make RGB of them, where they are YCbCr that no JPEG decoder converts.
        kept: Which samples of a pixel are colour or alpha; None for all.
    """

    size: tuple[int, int]
    compression: int
    lab8: bool
    white_is_zero: bool
    ycbcr: YCbCr | None
    kept: tuple[int, ...] | None

    @property
    def unusual_compression(self) -> str | None:
        """Returns the name of a compression that not every libtiff has, else None."""
        if self.compression in _USUAL_COMPRESSIONS:
            return None
        return _COMPRESSIONS.get(self.compression, f"number {self.compression}")


class _Page:
    """The first page of a TIFF, for those who ask for numbers of its directory."""

    def __init__(self, file: Tiff) -> None:
        self.file = file
        self.entries: dict[int, Entry] = file.entries(file.first)

    def number(self, tag: int, default: int) -> int:
        return next(iter(self.numbers(tag, most=1)), default)

    def numbers(self, tag: int, *, most: int = _MOST_SAMPLES) -> tuple[int, ...]:
        return self.file.values(self.entries.get(tag), most=most)

    def fractions(self, tag: int, count: int, default: tuple[float, ...]) -> tuple[float, ...]:
        found = self.file.fractions(self.entries.get(tag), most=count)
        return found if len(found) == count else default


def pixels_alone(tiff: bytes, name: str) -> tuple[bytes, Samples | None]:
    """Strips the first page of everything but its pixels. What is odd in other tags is no damage then.

    CIELab of 8 bits is said to be RGB, as libvips has an error there. So is YCbCr, which libvips would take for it;
    where its colours are subsampled, each unit of them becomes a run of gray pixels (`YCbCr.rgb` takes them apart).

    Args:
        tiff: The file.
        name: Of the file, for the error.

    Returns:
        The stripped file, and what its samples are. The file itself and None where its directory is damaged.

    Raises:
        InputError: Samples are stored in a way that cannot be read.

    Source: TIFF 6.0, sections 2, 8, 15, 18, 19, 20, 21 and 23; BigTIFF.
    """
    try:
        page = _Page(Tiff(tiff))
        bits = page.numbers(_BITS) or (1,)
        photometric = page.number(_PHOTOMETRIC, 0)
        _check_samples(page, bits, photometric, name)
        ycbcr = None
        if photometric == _YCBCR and page.number(_COMPRESSION, 1) not in _JPEG:
            ycbcr = _ycbcr_of(page, bits[0], name)
        lab8 = photometric == _CIELAB and set(bits) == {8}
        samples = Samples(
            size=(page.number(_WIDTH, 0), page.number(_HEIGHT, 0)),
            compression=page.number(_COMPRESSION, 1),
            lab8=lab8,
            white_is_zero=photometric == _WHITE_IS_ZERO,
            ycbcr=ycbcr,
            kept=_kept(page, photometric),
        )
        changed = {_PHOTOMETRIC: _RGB} if lab8 or ycbcr else {}
        if ycbcr is not None and ycbcr.subsampled:
            changed = _as_gray(page, ycbcr)
        return page.file.alone(page.file.first, PIXEL_TAGS, changed=changed), samples
    except struct.error:
        return tiff, None


def _check_samples(page: _Page, bits: tuple[int, ...], photometric: int, name: str) -> None:
    """Refuses samples of a kind or layout that cannot be read.

    Raises:
        InputError: What they are, and what was expected.
    """
    forms = set(page.numbers(_FORMAT)) or {_WHOLE}
    form = max(forms)
    readable = {_WHOLE: 16, _UNDEFINED: 16, _FLOAT: 32}.get(form, 0)
    if len(forms) > 1 or (max(bits) >= 8 and max(bits) > readable):
        what = "of several kinds" if len(forms) > 1 else f"{_KINDS.get(form, 'whole numbers')} of {max(bits)} bits"
        raise InputError(
            f"{name}: samples are {what}; expected whole numbers of 8 or 16 bits without sign, or floats of 16 or 32 "
            "bits from 0 to 1; convert the file first"
        )
    if len(set(bits)) > 1 or (set(bits) - {8, 16, 32} and bits not in ((1,), (2,), (4,))):
        found = "/".join(str(each) for each in dict.fromkeys(bits))
        raise InputError(f"{name}: samples of {found} bits; expected 8 or 16; convert the file first, to 16 bits")
    if photometric == _PALETTE and _COLOR_MAP not in page.entries:
        raise InputError(f"{name}: numbers of colours without the palette that they are of; get the file again")
    if page.number(_PLANES, 1) == 2 and page.number(_SAMPLES, 1) > 1 and _TILE_WIDTH in page.entries:
        raise InputError(
            f"{name}: tiles of one channel each (planar); convert the file first, to strips or to tiles of whole pixels"
        )


def _kept(page: _Page, photometric: int) -> tuple[int, ...] | None:
    """Returns which samples are colour, and the first that is alpha; None where no other is stated to be there."""
    colours = _COLOURS.get(photometric)
    extra = page.numbers(_EXTRA)
    if colours is None or not extra or page.number(_SAMPLES, 1) != colours + len(extra):
        return None
    alpha = [number for number, kind in enumerate(extra, start=colours) if kind in _ALPHA][:1]
    return (*range(colours), *alpha) if len(alpha) < len(extra) else None


def _ycbcr_of(page: _Page, bits: int, name: str) -> YCbCr:
    """Reads how YCbCr is stored.

    Raises:
        InputError: In a way that cannot be read.
    """
    subsampling = page.numbers(_SUBSAMPLING, most=2)
    across, down = subsampling if len(subsampling) == 2 else (2, 2)
    rows, height = page.number(_ROWS, 2**32 - 1), page.number(_HEIGHT, 0)
    subsampled = (across, down) != (1, 1)
    form = page.number(_FORMAT, _WHOLE)
    units, reason = f"{across}x{down} pixels to a colour", ""
    if {across, down} - {1, 2, 4} or bits not in (8, 16) or form == _FLOAT:
        reason = f"{units}, {bits} bits{' of floats' * (form == _FLOAT)}"
    elif subsampled:
        reason = _unreadable_units(page, units, down, rows, height)
    if reason:
        raise InputError(f"{name}: YCbCr stored as {reason}; convert the file first, to RGB")
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    return YCbCr.checked(
        size=(page.number(_WIDTH, 0), height),
        subsampling=(across, down),
        luma=page.fractions(_LUMA, 3, ()),
        reference=page.fractions(_REFERENCE, 6, (0, top, middle, top, middle, top)),
        cosited=page.number(_POSITIONING, 1) == 2,
        bits=bits,
    )


def _unreadable_units(page: _Page, units: str, down: int, rows: int, height: int) -> str:
    """Says how subsampled colours are stored that cannot be read; nothing where they can."""
    if page.number(_SAMPLES, 3) != 3 or page.number(_PLANES, 1) == 2:
        return f"{units}, in planes or with more channels"
    if page.number(_PREDICTOR, 1) != 1:
        return f"{units}, with a predictor"
    if _TILE_WIDTH not in page.entries and rows < height and rows % down:
        return f"strips of {rows} rows that cut its colours of {down}"
    if 0 < page.number(_TILE_HEIGHT, 0) < _LEAST_TILE * down:
        return f"{units}, in tiles of {page.number(_TILE_HEIGHT, 0)} rows"
    return ""


def _as_gray(page: _Page, ycbcr: YCbCr) -> dict[int, int]:
    """Returns the numbers of a directory by which each unit of subsampled colours is a run of gray pixels."""
    (width, height), (across, down), unit = ycbcr.size, ycbcr.subsampling, ycbcr.unit
    columns, rows = -(-width // across), -(-height // down)
    changed = {_PHOTOMETRIC: _BLACK_IS_ZERO, _SAMPLES: 1, _BITS: ycbcr.bits, _FORMAT: _WHOLE}
    if _TILE_WIDTH in page.entries:
        tile_width, tile_height = page.number(_TILE_WIDTH, 1), page.number(_TILE_HEIGHT, 1)
        changed |= {_TILE_WIDTH: tile_width // across * unit, _TILE_HEIGHT: tile_height // down}
    else:
        changed |= {_ROWS: min(-(-page.number(_ROWS, height) // down), rows)}
    return changed | {_WIDTH: columns * unit, _HEIGHT: rows}
