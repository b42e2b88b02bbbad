"""JPEG XL, through libjxl (pyjpegxl, extra ``jxl``): 8 and 16 bits, alpha, EXIF and XMP; profiles are read alone.

Source of the header: ISO/IEC 18181-1, annexes A and D.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sr_upscale.errors import InputError
from sr_upscale.formatting import needing
from sr_upscale.images.codecs.codec import Codec, Header, InputFile, Output
from sr_upscale.images.metadata import ORIENTATION
from sr_upscale.images.picture import Frame

_OFFSET = 4
"""Bytes before the EXIF of a box: where its first directory lies, 0 in all files seen."""

_PLAIN = (b"\0s\0R\0G\0B", "Gra_D65_Rel_SRG".encode("utf-16-be"))
"""Names of the profile that libjxl makes for sRGB, or gray of its curve, where a file holds none."""


class JpegXl(Codec):
    """JPEG XL. Animations are refused, as pyjpegxl gives their last frame alone."""

    def check_available(self, name: str) -> None:
        """Refuses a file where pyjpegxl is missing. See `Codec.check_available`."""
        with needing("jxl", f"{name}: JPEG XL, for which this program needs an extra", InputError):
            import pyjpegxl  # noqa: F401

    def read_header(self, file: InputFile) -> Header:
        """Reads size, profile, EXIF and XMP. See `Codec.read_header`."""
        import pyjpegxl

        try:
            found = pyjpegxl.probe(file.data)
        except RuntimeError as error:
            raise InputError(f"{file.name}: damaged JXL header ({error}); get the file again") from error
        exif = Image.Exif()
        try:
            exif.load((found.exif or b"")[_OFFSET:])
        except Exception:  # a damaged block fails in many ways and is no reason to refuse the pixels
            file.note("damaged EXIF is left out")
        if ORIENTATION in exif:
            exif[ORIENTATION] = 1  # libjxl turns it
        if _is_animated(file.data):
            raise InputError(f"{file.name}: an animated JPEG XL; make an animated PNG of it first, with `djxl`")
        icc = found.icc or b""
        return Header(
            width=found.width,
            height=found.height,
            exif=exif if len(exif) else None,
            icc=None if icc[4:8] == b"jxl " and any(name in icc for name in _PLAIN) else icc,
            xmp=found.xmp,
        )

    def decode(self, file: InputFile, _header: Header, _numbers: Sequence[int]) -> Sequence[Frame]:
        """Decodes the picture, with all its bits; floats become 16. See `Codec.decode`."""
        import pyjpegxl

        try:
            bits = pyjpegxl.probe(file.data).bits_per_sample
            pixels: Any = pyjpegxl.decode_to_numpy(file.data, dtype="uint8" if bits <= 8 else "uint16")[1]
        except RuntimeError as error:
            raise InputError(f"{file.name}: truncated or damaged ({error}); get the file again") from error
        return (Frame(pixels_hwc=pixels),)

    def write(self, output: Output, path: Path) -> None:
        """Encodes a still: lossless at quality 100, else by libjxl's distance of that quality. See `Codec.write`."""
        import pyjpegxl

        metadata = output.metadata
        (frame,) = output.frames()
        exif = bytes(_OFFSET) + metadata.exif if metadata.exif else None
        quality = output.quality or 100
        how = {"lossless": True} if quality == 100 else {"quality": _distance(quality)}
        path.write_bytes(pyjpegxl.encode_from_numpy(frame, **how, exif=exif, xmp=metadata.xmp))


def _distance(quality: int) -> float:
    """Turns JPEG's scale of quality into libjxl's distance, as its JxlEncoderDistanceFromQuality does."""
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53 / 3000 * quality**2 - 23 / 20 * quality + 25


def _is_animated(data: bytes) -> bool:
    """Reads from the codestream's header whether there are several frames; False where that cannot be found."""
    at = 0 if data[:2] == b"\xff\x0a" else data.find(b"\xff\x0a", 12)
    bits = int.from_bytes(data[at + 2 : at + 34], "little")
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return bits >> (place - count) & ((1 << count) - 1)

    def skip_size() -> None:
        small = read(1)

        def skip_side() -> None:
            read(5 if small else (9, 13, 18, 30)[read(2)])

        skip_side()
        if read(3) == 0:  # no ratio: the width follows
            skip_side()

    skip_size()
    if at < 0 or read(1) or not read(1):  # all is as by default, or there are no extra fields
        return False
    read(3)  # orientation
    if read(1):
        skip_size()
    return not read(1) and bool(read(1))  # of one with a preview, whose header comes first, nothing is found


CODEC = JpegXl("jxl")
