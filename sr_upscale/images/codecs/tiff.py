"""TIFF: pages and samples, pixels by libvips, EXIF, XMP and IPTC added behind them.

Libvips writes 16-bit TIFF but no EXIF, Pillow does the reverse. Camera raw files that are TIFF
inside (DNG, NEF, CR2, ARW, ...) are developed by LibRaw (rawpy, extra ``raw``).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from sr_upscale.errors import InputError
from sr_upscale.formatting import extra
from sr_upscale.images.codecs.codec import Codec, Header, InputFile, Output, aspect_of
from sr_upscale.images.codecs.row_writer import COMPRESSION, write_rows
from sr_upscale.images.codecs.tiff_reader import Tiff, page_alone
from sr_upscale.images.codecs.tiff_samples import pixels_alone
from sr_upscale.images.codecs.vips import decode_still, first_line, pyvips
from sr_upscale.images.metadata import DIRECTORIES, ORIENTATION, directory_of, info_of, kept_exif
from sr_upscale.images.picture import Frame, Metadata

GAMMA = (2.4, 12.92)
"""Power and slope near black of sRGB's curve."""


@dataclass(kw_only=True)
class RawHeader(Header):
    """Header of a camera raw file: the size that it has once developed and upright, and its EXIF."""


def raw_header(file: InputFile) -> RawHeader:
    """Reads size and EXIF of a camera raw file.

    Raises:
        InputError: rawpy is not installed, or LibRaw does not know the file.
    """
    with _opened(file) as raw:
        sizes = raw.sizes
        turned = sizes.flip in (5, 6)
        width, height = (sizes.iheight, sizes.iwidth) if turned else (sizes.iwidth, sizes.iheight)
    source = Image.Exif()
    try:
        source.load(file.data)
        exif = kept_exif(source, tiff=True)
    except Exception:  # a damaged block fails in many ways and is no reason to refuse the pixels
        exif = None
        file.note("damaged EXIF is left out")
    if exif is not None and ORIENTATION in exif:
        exif[ORIENTATION] = 1  # LibRaw turns it
    return RawHeader(width=width, height=height, exif=exif)


def develop(file: InputFile) -> Frame:
    """Develops a camera raw file to sRGB of 16 bits, (H, W, 3), with the camera's white balance, upright.

    Raises:
        InputError: The file is damaged.
    """
    with _opened(file) as raw:
        return Frame(pixels_hwc=raw.postprocess(use_camera_wb=True, output_bps=16, gamma=GAMMA))


def _opened(file: InputFile) -> Any:
    try:
        import rawpy
    except ImportError as error:
        raise InputError(
            f"{file.name}: a camera raw file, for which this program needs an extra; {extra('raw')}, or develop it "
            "first, to TIFF or PNG, with a program for raw files (darktable, RawTherapee, the camera's own)"
        ) from error
    try:
        return rawpy.imread(io.BytesIO(file.data))
    except rawpy.LibRawError as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise InputError(
            f"{file.name}: a camera raw file that LibRaw does not read ({reason}); develop it first, to TIFF or PNG"
        ) from error


_BIG_TIFF = 3 << 30
_BYTE, _ASCII, _LONG, _UNDEFINED, _LONG8 = 1, 2, 4, 7, 16
_XMP, _IPTC = 700, 33723
_SUBFILE_TYPE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _SUB_IFDS, _DNG_VERSION = 254, 256, 257, 262, 330, 50706
_SMALL_OR_MASK = 1 | 4  # bits of the subfile type
_KNOWN = frozenset({0, 1, 2, 3, 5, 6, 8})
"""Photometric interpretations that are pictures: white or black is zero, RGB, palette, CMYK, YCbCr, CIELab."""
_NAMES = {
    4: "a transparency mask",
    9: "ICCLab",
    10: "ITULab",
    32803: "a colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_RAW = frozenset({32803, 34892})
_MOST_DIRECTORIES = 32
"""Directories that are looked at; a circle of them ends there."""


class TiffCodec(Codec):
    """TIFF and BigTIFF, one page of it."""

    counts_frames = False

    def read_header(self, file: InputFile) -> Header:
        """Takes the wanted page out of the file, and reads its header. See `Codec.read_header`."""
        if is_raw(file.data, file.name):
            return raw_header(file)
        file.data, pages = page_alone(file.data, file.frame or 0)
        try:
            header = super().read_header(file)
        except InputError as error:
            if not isinstance(error.__cause__, UnidentifiedImageError):
                raise
            header = _header_by_libvips(file)  # Pillow does not know every TIFF, float RGB for one
        header.frames = pages
        return header

    def header_of(self, file: InputFile, image: Image.Image) -> Header:
        """Adds the shape of pixels where there is no unit of length. See `Codec.header_of`."""
        header = super().header_of(file, image)
        if "dpi" not in image.info:
            header.aspect = aspect_of(*(info_of(image, "resolution", tuple) or (1, 1)))
        return header

    def decode(self, file: InputFile, header: Header, _numbers: Sequence[int]) -> Sequence[Frame]:
        """Decodes the page, or develops a camera raw file. See `Codec.decode`."""
        if isinstance(header, RawHeader):
            return (develop(file),)
        file.data, samples = pixels_alone(file.data, file.name)
        file.intact = file.data
        return (Frame(pixels_hwc=decode_still(file, header, samples=samples)),)

    def write(self, output: Output, path: Path) -> None:
        """Writes rows as they come. See `Codec.write`."""
        level = COMPRESSION if output.compression is None else output.compression
        height, width, channels = output.shape
        big = height * width * channels * output.dtype.itemsize > _BIG_TIFF
        options: dict[str, Any] = {"resunit": "inch", "bigtiff": big, "keep": "icc"}
        options |= {"compression": "deflate", "predictor": "horizontal", "level": level} if level else {}

        def describe(image: Any) -> Any:
            dpi = output.metadata.dpi
            image = image.copy(xres=dpi[0] / 25.4, yres=dpi[1] / 25.4) if dpi else image.copy()
            if output.metadata.icc:
                image.set_type(pyvips.GValue.blob_type, "icc-profile-data", output.metadata.icc)
            return image

        write_rows(output, path, "tiffsave_target", options, describe=describe)
        if output.metadata.exif or output.metadata.xmp or output.metadata.iptc:
            append_metadata(path, output.metadata)


def _header_by_libvips(file: InputFile) -> Header:
    data, samples = pixels_alone(file.data, file.name)
    try:
        image = pyvips.Image.new_from_buffer(data, "", access="sequential")
        width, height = samples.size if samples else (image.width, image.height)
        icc = image.get("icc-profile-data") if "icc-profile-data" in image.get_fields() else None
        return Header(width=width, height=height, icc=icc)
    except pyvips.Error as error:
        raise InputError(f"{file.name}: damaged TIFF header ({first_line(error)}); get the file again") from error


def is_raw(tiff: bytes, name: str) -> bool:
    """Says whether a TIFF is a camera raw file (DNG, NEF, CR2, ARW, ...), and refuses one that holds no picture.

    Damaged directories are left to the decoder.

    Args:
        tiff: The file.
        name: Of the file, for the error.

    Raises:
        InputError: Its picture is a thumbnail of another one, or its samples mean something unknown.

    Source: TIFF 6.0, section 2; TIFF/EP (ISO 12234-2); DNG 1.7, chapter 4.
    """
    raw = tiff[8:10] == b"CR"  # CR2 says so behind the header
    first: int | None = None
    size, below = (0, 0), (0, 0)  # of the first picture, and of the largest one below it
    for tags, sub in _directories(tiff):
        photometric, found = tags.get(_PHOTOMETRIC), (tags.get(_WIDTH) or 0, tags.get(_HEIGHT) or 0)
        if first is None:
            first, size = photometric, found
        if sub and not (tags.get(_SUBFILE_TYPE) or 0) & _SMALL_OR_MASK:
            below = max(below, found)
        raw = raw or _DNG_VERSION in tags or photometric in _RAW
    if raw:
        return True
    if below > size and below[1] > size[1]:
        sizes = "{}x{}, is a thumbnail of one of {}x{}".format(*size, *below)
        raise InputError(
            f"{name}: its first picture, {sizes} (SubIFD), as in camera raw files; develop or convert it first, "
            "to TIFF or PNG"
        )
    if first is not None and first not in _KNOWN:
        what = _NAMES.get(first, f"of kind {first}")
        raise InputError(f"{name}: samples are {what} (photometric interpretation); expected gray, RGB, CMYK or Lab")
    return False


def _directories(tiff: bytes) -> Iterator[tuple[dict[int, int | None], bool]]:
    """Yields the tags of each directory with their first values, and whether it stands below another one.

    A damaged directory ends it.
    """
    try:
        file = Tiff(tiff)
        waiting = [(file.first, False)]
        for _ in range(_MOST_DIRECTORIES):
            if not waiting or (place := waiting.pop(0))[0] == 0:
                continue
            at, sub = place
            entries = file.entries(at)
            yield {tag: next(iter(file.values(entry, most=1)), None) for tag, entry in entries.items()}, sub
            waiting += [(each, True) for each in file.values(entries.get(_SUB_IFDS), most=_MOST_DIRECTORIES)]
            waiting.append((file.following(at), sub))
    except struct.error:
        return


def append_metadata(path: Path, metadata: Metadata) -> None:
    """Adds EXIF, XMP and IPTC to a little-endian TIFF or BigTIFF of one page.

    The first directory is copied to the end of the file, entry by entry and byte by byte. The text tags, the EXIF and
    GPS directories, XMP and IPTC are added to it. The header then points there. Pixels are not touched.

    Args:
        path: File that libvips wrote.
        metadata: Its `exif`, `xmp` and `iptc` are added.

    Raises:
        ValueError: The file is not little-endian.

    Source: TIFF 6.0, section 2; EXIF 2.32, section 4.6; XMP part 3 (2020), section 3.2.
    """
    exif = Image.Exif()
    if metadata.exif:
        exif.load(metadata.exif)
    with path.open("r+b") as file:
        magic, version = struct.unpack("<2sH", file.read(4))
        if magic != b"II":
            msg = f"{path} is not little-endian"
            raise ValueError(msg)
        big = version == 43
        word, entry_size, count_format = ("<Q", 20, "<Q") if big else ("<I", 12, "<H")
        file.seek(8 if big else 4)
        (start,) = struct.unpack(word, file.read(struct.calcsize(word)))
        file.seek(start)
        (count,) = struct.unpack(count_format, file.read(struct.calcsize(count_format)))
        entries = {}
        for _ in range(count):
            raw = file.read(entry_size)
            entries[struct.unpack_from("<H", raw)[0]] = raw

        _append_exif(file, exif, entries, big=big)
        for tag, kind, block in ((_XMP, _BYTE, metadata.xmp), (_IPTC, _UNDEFINED, metadata.iptc)):
            if block:
                entries[tag] = _entry(tag, kind, len(block), _place(file, block, big=big), big=big)

        at = _end(file)
        file.write(struct.pack(count_format, len(entries)))
        file.write(b"".join(raw for _tag, raw in sorted(entries.items())))
        file.write(struct.pack(word, 0))
        file.seek(8 if big else 4)
        file.write(struct.pack(word, at))


def _append_exif(file: BinaryIO, exif: Image.Exif, entries: dict[int, bytes], *, big: bool) -> None:
    """Writes texts and directories of EXIF behind a TIFF, and adds their entries to `entries`."""
    for tag, value in exif.items():
        if isinstance(value, str) and tag not in entries:
            data = value.encode("utf-8", "replace") + b"\0"
            entries[tag] = _entry(tag, _ASCII, len(data), _place(file, data, big=big), big=big)
    for directory in DIRECTORIES:
        if directory in exif:
            header = b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4)
            content = TiffImagePlugin.ImageFileDirectory_v2(header, group=directory)
            for tag, value in directory_of(exif, directory).items():
                content[tag] = value
            at = _end(file)
            file.write(content.tobytes(at))
            pointer = struct.pack("<Q" if big else "<I", at)
            entries[directory] = _entry(directory, _LONG8 if big else _LONG, 1, pointer, big=big)


def _entry(tag: int, kind: int, count: int, value: bytes, *, big: bool) -> bytes:
    return struct.pack("<HHQ8s" if big else "<HHI4s", tag, kind, count, value)


def _place(file: BinaryIO, data: bytes, *, big: bool) -> bytes:
    """Makes the value field of an entry: the data itself where it fits, else the place where it is put."""
    width = 8 if big else 4
    if len(data) <= width:
        return data.ljust(width, b"\0")
    at = _end(file)
    file.write(data)
    return struct.pack("<Q" if big else "<I", at)


def _end(file: BinaryIO) -> int:
    """Goes to the end of the file, on an even offset as TIFF asks for."""
    at = file.seek(0, io.SEEK_END)
    if at % 2:
        at += file.write(b"\0")
    return at


CODEC = TiffCodec("tif")
