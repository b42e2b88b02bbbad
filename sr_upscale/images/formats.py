"""The table of formats, how to detect them, and the options of a writer. Light: every start of the program reads it."""

from __future__ import annotations

import difflib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from sr_upscale.errors import UsageError
from sr_upscale.formatting import shortened


@dataclass(frozen=True, kw_only=True)
class SaveOptions:
    """How to write.

    Attributes:
        quality: 1-100 for JPEG, WebP, AVIF and JPEG XL; None takes the format's default. 100 is lossless in WebP and
            JPEG XL.
        background: RGB colour (0-255) behind transparent pixels where the format has no alpha.
        compression: 0-9 for PNG and TIFF, from large and quick to small and slow; None takes the default.
        strip_metadata: Leave out EXIF, XMP, IPTC and texts. Colour profile and resolution stay.

    Raises:
        UsageError: `quality` or `compression` is outside its range.
    """

    quality: int | None = None
    background: tuple[int, int, int] | None = None
    compression: int | None = None
    strip_metadata: bool = False

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"quality is {self.quality}; expected 1 to 100")
        if self.compression is not None and not 0 <= self.compression <= 9:
            raise UsageError(f"compression is {self.compression}; expected 0 to 9; -q is the quality of JPEG and WebP")


@dataclass(frozen=True, kw_only=True)
class WriterMemory:
    """What an encoder that is given whole frames holds besides them, in bytes. Measured at its worst (docs/images.md).

    Attributes:
        once: Whatever the size.
        still: For each pixel of a still.
        exact: For each pixel of a still that is lossless or has alpha.
        moving: For each pixel of one frame of an animation, however many frames there are.
        frame: For each pixel of every frame of an animation, besides.
    """

    once: int = 0
    still: int = 0
    exact: int = 0
    moving: int = 0
    frame: int = 0

    def held(self, pixels: int, *, frames: int, exact: bool) -> int:
        """Returns the bytes that are held for frames of so many pixels each."""
        if frames > 1:
            return self.once + pixels * (self.moving + frames * self.frame)
        return self.once + pixels * max(self.still, self.exact * exact)


@dataclass(frozen=True, kw_only=True)
class Format:
    """What a format can hold.

    Attributes:
        name: Key in `FORMATS`, also its usual suffix without the dot.
        codec: Module of `images.codecs` that reads and writes it.
        pillow: Pillow's name of it.
        suffixes: File name endings, lower case, with the dot.
        alpha: Whether it holds an alpha channel.
        bits: Most bits per channel that this program writes.
        max_side: Most pixels along a side.
        animation: Whether it holds several timed frames.
        max_plays: How often an animation can be said to play, if not for ever.
        delay_steps_ms: Units in which it can say how long a frame is shown, from the finest, in milliseconds.
        max_delay_steps: Most units of one frame.
        max_total_ms: How long all frames together may be shown, in milliseconds; None where there is no such limit.
        icc: Whether it holds an ICC profile.
        dpi: Whether it states pixels per inch.
        aspect: Whether its stills say that pixels are not square, without a unit of length.
        cicp: Whether it holds code points of H.273 for its colours.
        gamma: Whether it holds a gamma and primaries.
        exif: Whether it holds EXIF.
        xmp: Whether it holds XMP.
        iptc: Whether it holds IPTC-IIM.
        text: Whether it holds texts with keywords.
        written_as: Where it is only read, name of the format in which its pictures come out; else empty.
        quality: Default of its lossy quality setting (1-100), None where there is none.
        magic: Offsets at which its files are detected, and the bytes there.
        brands: Beginnings of brands by which files of the ISO container are detected.
        streams: Whether stills are read and written by rows, by libvips; others are held whole.
        writer: What is held while frames that do not stream are written.
        block_room: Most bytes of one block of metadata, None where there is no such limit.
    """

    name: str
    codec: str
    pillow: str
    suffixes: tuple[str, ...]
    alpha: bool
    bits: int = 8
    max_side: int = 2**31 - 1
    animation: bool = False
    max_plays: int = 2**31 - 1
    delay_steps_ms: tuple[int, ...] = (1,)
    max_delay_steps: int = 2**31 - 1
    max_total_ms: int | None = None
    icc: bool = True
    dpi: bool = False
    aspect: bool = False
    cicp: bool = False
    gamma: bool = False
    exif: bool = True
    xmp: bool = True
    iptc: bool = False
    text: bool = False
    written_as: str = ""
    quality: int | None = None
    magic: tuple[tuple[int, bytes], ...] = ()
    brands: tuple[bytes, ...] = ()
    streams: bool = False
    writer: WriterMemory = WriterMemory()
    block_room: int | None = None

    @property
    def media_type(self) -> str:
        """Returns its type on the web, such as ``image/jpeg``; what Pillow has no name for is a comic."""
        return f"image/{self.pillow.lower()}" if self.pillow else "application/vnd.comicbook+zip"


JPEG_ROOM = 65000
"""Bytes of EXIF, XMP or IPTC that a JPEG is given at most; a little less than its segments hold."""

FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format(
            name="png",
            codec="png",
            dpi=True,
            pillow="PNG",
            suffixes=(".png", ".apng"),
            alpha=True,
            bits=16,
            animation=True,
            delay_steps_ms=(1, 10, 100, 1000),
            max_delay_steps=65535,
            text=True,
            aspect=True,
            cicp=True,
            gamma=True,
            magic=((0, b"\x89PNG\r\n\x1a\n"),),
            streams=True,
            writer=WriterMemory(frame=15),
        ),
        Format(
            name="jpg",
            codec="jpeg",
            dpi=True,
            pillow="JPEG",
            suffixes=(".jpg", ".jpeg", ".jpe"),
            alpha=False,
            max_side=65500,
            iptc=True,
            quality=95,
            magic=((0, b"\xff\xd8\xff"),),
            streams=True,
            aspect=True,
            block_room=JPEG_ROOM,
        ),
        Format(
            name="webp",
            codec="webp",
            pillow="WEBP",
            suffixes=(".webp",),
            alpha=True,
            max_side=16383,
            animation=True,
            max_plays=65535,
            max_delay_steps=2**24 - 1,
            max_total_ms=2**31 - 1,
            quality=90,
            magic=((8, b"WEBP"),),
            writer=WriterMemory(still=30, exact=45, moving=45, frame=24),
        ),
        Format(
            name="tif",
            codec="tiff",
            dpi=True,
            pillow="TIFF",
            suffixes=(".tif", ".tiff"),
            alpha=True,
            bits=16,
            iptc=True,
            magic=((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")),
            streams=True,
        ),
        Format(
            name="bmp",
            codec="bmp",
            dpi=True,
            pillow="BMP",
            suffixes=(".bmp", ".dib"),
            alpha=False,
            max_side=32767,
            icc=False,
            exif=False,
            xmp=False,
            magic=((0, b"BM"),),
            writer=WriterMemory(still=6),
        ),
        Format(
            name="gif",
            codec="gif",
            pillow="GIF",
            suffixes=(".gif",),
            alpha=True,
            max_side=65535,
            animation=True,
            max_plays=65536,
            delay_steps_ms=(10,),
            max_delay_steps=65535,
            icc=False,
            exif=False,
            xmp=False,
            magic=((0, b"GIF87a"), (0, b"GIF89a")),
            writer=WriterMemory(once=36 << 20, still=44, moving=44, frame=8),
        ),
        Format(
            name="avif",
            codec="avif",
            pillow="AVIF",
            suffixes=(".avif",),
            brands=(b"avif", b"avis"),
            alpha=True,
            cicp=True,
            max_side=65536,
            animation=True,
            quality=80,
            writer=WriterMemory(once=16 << 20, still=42, exact=56, moving=400, frame=12),
        ),
        Format(
            name="jxl",
            codec="jxl",
            pillow="JXL",
            suffixes=(".jxl",),
            alpha=True,
            bits=16,
            max_side=2**18,
            icc=False,
            quality=100,
            magic=((0, b"\xff\x0a"), (0, b"\0\0\0\x0cJXL ")),
            writer=WriterMemory(still=90, exact=60),
        ),
        Format(
            name="heic",
            codec="heic",
            pillow="HEIF",
            suffixes=(".heic", ".heif", ".hif"),
            alpha=True,
            max_side=0,
            brands=(b"hei", b"hev", b"mif1"),
            written_as="jpg",
        ),
    )
}
"""Formats by name, in the order in which brands are compared: AVIF before HEIC, whose brand it has, too.

JPEG's own limit of a side is 65 535, libjpeg's is 65 500. AVIF's is what libaom and dav1d agree on.
"""

WRITTEN = {name: each for name, each in FORMATS.items() if not each.written_as}
"""Those that can be written."""

SUFFIXES: dict[str, str] = {suffix: each.name for each in FORMATS.values() for suffix in each.suffixes}

COMICS = (".cbz", ".cbr", ".cb7", ".cbt")
"""Endings of comics: zip, and archives that are refused with advice."""

RAW_SUFFIXES = (".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".nef", ".nrw", ".pef", ".srw")
"""Endings of camera raw files that are TIFF inside (extra ``raw``); their pictures come out as PNG."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    *((offset, magic, each.name) for each in FORMATS.values() for offset, magic in each.magic),
    # known, and refused by name
    *((0, magic, "a video") for magic in (b"\x1aE\xdf\xa3", b"YUV4MPEG2 ", b"nut/multimedia", b"FLV\1", b"OggS")),
    *((0, magic, "a video") for magic in (b"\0\0\1\xba", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")),
    *((4, magic, "a video") for magic in (b"moov", b"mdat")),
    (8, b"AVI ", "a video"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS document"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
)


VIDEO = "a video"
"""What `sniff` says of a container of video."""


def sniff(head: bytes) -> str:
    """Detects a format by the first bytes of a file.

    Args:
        head: The first bytes; 256 are enough.

    Returns:
        A key of `FORMATS`, or a phrase for what the bytes look like instead.
    """
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    if head[4:8] == b"ftyp":
        found = head[8 : int.from_bytes(head[:4], "big")]
        names = (each.name for each in FORMATS.values() if any(brand in found for brand in each.brands))
        return next(names, VIDEO)
    if any(head[at : at + 189 : 188] == b"GG" for at in (0, 4)):
        return VIDEO  # a transport stream
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")):
        return "an SVG or XML document"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if head and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        return "a text file"
    return "data of an unknown kind"


def has_raw() -> bool:
    """Says whether the extra ``raw`` is installed."""
    return importlib.util.find_spec("rawpy") is not None


def format_of_path(path: Path) -> Format | None:
    """Finds the format that the file name's ending stands for, or None."""
    name = SUFFIXES.get(path.suffix.lower())
    return FORMATS[name] if name else None


def own_format(fmt: Format) -> Format:
    """Returns the format itself or, where it is only read, the one in which its pictures come out."""
    return FORMATS[fmt.written_as] if fmt.written_as else fmt


def format_by_name(name: str) -> Format:
    """Finds the format of a name or ending as users type it: ``png``, ``.JPG``, ``jpeg``, ``tiff``.

    Raises:
        UsageError: No format of that name can be written. The nearest one is suggested.
    """
    key = SUFFIXES.get("." + name.lower().lstrip("."))
    if key not in WRITTEN:
        near = difflib.get_close_matches(name.lower(), WRITTEN, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(WRITTEN)}"
        what = f"cannot write format {shortened(name)!r}" if name else "the format is not known"
        raise UsageError(f"{what}; {hint}")
    return FORMATS[key]
