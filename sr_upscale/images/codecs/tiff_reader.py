"""The directories of a TIFF: entries, values, how many pages there are, and one of them alone."""

from __future__ import annotations

import struct
from collections.abc import Container, Mapping
from dataclasses import dataclass

_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types of whole numbers: BYTE, SHORT, LONG, IFD, LONG8, IFD8."""

_FRACTIONS = {5: "I", 10: "i"}
"""Types of fractions: RATIONAL, SRATIONAL."""

_SHORT, _LONG = 3, 4

_SIZES = {2: 1, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 17: 8}
"""Bytes of a value of the other types."""


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

    def fractions(self, entry: Entry | None, *, most: int) -> tuple[float, ...]:
        """Reads fractions or whole numbers as floats; 0 for one whose denominator is 0. Other types have no values."""
        if entry is None or entry.kind not in _FRACTIONS:
            return tuple(float(value) for value in self.values(entry, most=most))
        count = min(entry.count, most)
        code = f"{self.order}{2 * count}{_FRACTIONS[entry.kind]}"
        numbers = struct.unpack_from(code, self.data, entry.value_at)
        return tuple(above / below if below else 0.0 for above, below in zip(numbers[::2], numbers[1::2], strict=True))

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

    def alone(self, at: int, tags: Container[int] | None = None, *, changed: Mapping[int, int] | None = None) -> bytes:
        """Makes the file of one page. Its directory stands where it stood, sorted; pixels stay where they are.

        Args:
            at: Where the page's directory stands.
            tags: Which of its entries are kept; None keeps all.
            changed: Numbers that entries get instead of their values, where they are there.
        """
        file = bytearray(self.data)
        kept = [
            self._entry(tag, changed[tag])
            if changed and tag in changed
            else bytes(file[each.at : each.at + self.entry_size])
            for tag, each in sorted(self.entries(at).items())
            if tags is None or tag in tags
        ]
        directory = self.packed(self.count, len(kept)) + b"".join(kept) + self.packed(self.word, 0)
        file[self.pointer_at : self.pointer_at + struct.calcsize(self.word)] = self.packed(self.word, at)
        file[at : at + len(directory)] = directory
        return bytes(file)

    def _entry(self, tag: int, value: int) -> bytes:
        """Makes an entry of one number."""
        kind = _SHORT if value < 2**16 else _LONG
        packed = self.packed(_INTEGERS[kind], value).ljust(struct.calcsize(self.word), b"\0")
        return struct.pack(f"{self.order}HH{self.word}", tag, kind, 1) + packed


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
