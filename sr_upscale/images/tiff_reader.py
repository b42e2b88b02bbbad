"""The directories of a TIFF: how many pages there are, and one of them alone. Pixels are not decoded here."""

from __future__ import annotations

import struct
from collections.abc import Container
from dataclasses import dataclass

from sr_upscale.errors import InputError

_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types of whole numbers: BYTE, SHORT, LONG, IFD, LONG8, IFD8."""

_SIZES = {2: 1, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 17: 8}
"""Bytes of a value of the other types."""

_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES, _TILE_WIDTH = 258, 259, 262, 277, 284, 322
_COLOR_MAP = 320
_RGB, _PALETTE, _CIELAB = 2, 3, 8  # photometric interpretations
_MOST_SAMPLES = 64  # whose bits are looked at

PIXEL_TAGS = frozenset(
    {
        *(256, 257, _BITS, _COMPRESSION, _PHOTOMETRIC, 266, 273, _SAMPLES, 278, 279, _PLANES),  # sizes, kinds, strips
        *(_TILE_WIDTH, 323, 324, 325, 32997, 32998),  # tiles
        *(292, 293, 326, 327, 328, 317),  # fax, predictor
        *(320, 332, 334, 336, 338, 339, 340, 341, 32995, 32996),  # palette, inks, alpha, sample formats
        *(347, *range(512, 522), 529, 530, 531, 532, 50674),  # JPEG, YCbCr, LERC
        34675,  # profile
    }
)
"""Tags without which pixels cannot be read, or mean something else."""

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


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry of a directory.

    Attributes:
        kind: Code of its type.
        count: Number of its values.
        at: Where it stands in the file.
        value_at: Where its values stand in the file.
    """

    kind: int
    count: int
    at: int
    value_at: int


class Tiff:
    """A TIFF or BigTIFF in memory. What leads out of the file raises `struct.error`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = ">" if data[:2] == b"MM" else "<"
        self.big = self._number("H", 2) == 43
        self.word = "Q" if self.big else "I"
        self.count = "Q" if self.big else "H"
        self.entry_size = 20 if self.big else 12
        self.pointer_at = 8 if self.big else 4
        """Where the place of the first directory stands."""

    def _number(self, code: str, at: int) -> int:
        return int(struct.unpack_from(self.order + code, self.data, at)[0])

    def packed(self, code: str, value: int) -> bytes:
        """Packs a number as it stands in this file."""
        return struct.pack(self.order + code, value)

    @property
    def first(self) -> int:
        """Returns where the first directory stands."""
        return self._number(self.word, self.pointer_at)

    def _span(self, at: int) -> tuple[int, int]:
        """Returns where the entries of a directory begin and end."""
        start = at + struct.calcsize(self.count)
        return start, start + self._number(self.count, at) * self.entry_size

    def entries(self, at: int) -> dict[int, Entry]:
        """Reads a directory.

        Args:
            at: Where it stands.

        Returns:
            Its entries by tag, in the order of the file. Of equal tags the first one counts.
        """
        start, end = self._span(at)
        found: dict[int, Entry] = {}
        for place in range(start, end, self.entry_size):
            tag, kind, count = struct.unpack_from(f"{self.order}HH{self.word}", self.data, place)
            value_at = place + 4 + struct.calcsize(self.word)
            size = struct.calcsize(_INTEGERS[kind]) if kind in _INTEGERS else _SIZES.get(kind, 1)
            if size * count > struct.calcsize(self.word):
                value_at = self._number(self.word, value_at)
            found.setdefault(tag, Entry(kind=kind, count=count, at=place, value_at=value_at))
        return found

    def following(self, at: int) -> int:
        """Returns where the directory behind this one stands, 0 behind the last one."""
        return self._number(self.word, self._span(at)[1])

    def values(self, entry: Entry | None, *, most: int) -> tuple[int, ...]:
        """Reads whole numbers.

        Args:
            entry: Of any type; None has no values, and neither have types that are no whole numbers.
            most: Values that are read at most.
        """
        if entry is None or entry.kind not in _INTEGERS:
            return ()
        count = min(entry.count, most)
        return struct.unpack_from(f"{self.order}{count}{_INTEGERS[entry.kind]}", self.data, entry.value_at)

    def pages(self) -> list[int]:
        """Finds where the directories of the pages stand, up to one outside the file or one that was there before."""
        found: dict[int, None] = {}
        try:
            at = self.first
            while at and at not in found:
                following = self.following(at)
                found[at] = None
                at = following
        except struct.error:
            pass
        return list(found)

    def alone(self, at: int, tags: Container[int] | None = None, *, photometric: int | None = None) -> bytes:
        """Makes the file of one page. Its directory stands where it stood, sorted; pixels stay where they are.

        Args:
            at: Where the page's directory stands.
            tags: Which of its entries are kept; None keeps all.
            photometric: What its samples are said to mean; None keeps what is said.
        """
        file = bytearray(self.data)
        entries = sorted(self.entries(at).items())
        if photometric is not None:
            struct.pack_into(f"{self.order}H", file, dict(entries)[_PHOTOMETRIC].value_at, photometric)
        kept = [
            bytes(file[each.at : each.at + self.entry_size]) for tag, each in entries if tags is None or tag in tags
        ]
        directory = self.packed(self.count, len(kept)) + b"".join(kept) + self.packed(self.word, 0)
        file[self.pointer_at : self.pointer_at + struct.calcsize(self.word)] = self.packed(self.word, at)
        file[at : at + len(directory)] = directory
        return bytes(file)


def page_alone(tiff: bytes, number: int) -> tuple[bytes, int]:
    """Takes one page out of a TIFF, so that nobody reads through the others.

    Args:
        tiff: The file.
        number: Of the page, from 0.

    Returns:
        A file of that page alone, and the number of pages. The file itself where it has one page or no such page, or
        where its directories are damaged.
    """
    try:
        file = Tiff(tiff)
        pages = file.pages()
        if len(pages) > 1 and 0 <= number < len(pages):
            return file.alone(pages[number]), len(pages)
        return tiff, max(len(pages), 1)
    except struct.error:
        return tiff, 1


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What the samples of a page are.

    Attributes:
        bits: Of each sample of a pixel.
        compression: Code of the compression.
        lab8: Whether they are CIELab of 8 bits.
        planes_in_tiles: Whether each channel has tiles of its own.
    """

    bits: tuple[int, ...]
    compression: int
    lab8: bool
    planes_in_tiles: bool

    @property
    def unusual_compression(self) -> str | None:
        """Returns the name of a compression that not every libtiff has, else None."""
        if self.compression in _USUAL_COMPRESSIONS:
            return None
        return _COMPRESSIONS.get(self.compression, f"number {self.compression}")


def pixels_alone(tiff: bytes, name: str) -> tuple[bytes, Samples | None]:
    """Strips the first page of everything but its pixels. What is odd in other tags is no damage then.

    CIELab of 8 bits is said to be RGB, as libvips has an error there.

    Args:
        tiff: The file.
        name: Of the file, for the error.

    Returns:
        The stripped file, and what its samples are. The file itself and None where its directory is damaged.

    Raises:
        InputError: Samples are stored in a way that cannot be read.

    Source: TIFF 6.0, sections 2, 8, 15 and 23; BigTIFF.
    """
    try:
        file = Tiff(tiff)
        entries = file.entries(file.first)

        def first(tag: int, default: int) -> int:
            return next(iter(file.values(entries.get(tag), most=1)), default)

        bits = file.values(entries.get(_BITS), most=_MOST_SAMPLES) or (1,)
        separate = first(_PLANES, 1) == 2 and first(_SAMPLES, 1) > 1
        samples = Samples(
            bits=bits,
            compression=first(_COMPRESSION, 1),
            lab8=first(_PHOTOMETRIC, 0) == _CIELAB and set(bits) == {8},
            planes_in_tiles=separate and _TILE_WIDTH in entries,
        )
        stripped = file.alone(file.first, PIXEL_TAGS, photometric=_RGB if samples.lab8 else None)
    except struct.error:
        return tiff, None
    whole_bytes = set(bits) <= {8, 16, 32, 64} or (len(bits) == 1 and bits[0] in (1, 2, 4))
    if not whole_bytes or len(set(bits)) > 1:
        found = "/".join(str(each) for each in dict.fromkeys(bits))
        raise InputError(f"{name}: samples of {found} bits; expected 8 or 16; convert the file first, to 16 bits")
    if first(_PHOTOMETRIC, 0) == _PALETTE and _COLOR_MAP not in entries:
        raise InputError(f"{name}: numbers of colours without the palette that they are of; get the file again")
    if samples.planes_in_tiles:
        raise InputError(
            f"{name}: tiles of one channel each (planar); convert the file first, to strips or to tiles of whole pixels"
        )
    return stripped, samples
