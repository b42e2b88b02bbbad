"""Camera raw files that are TIFF inside (DNG, NEF, CR2, ARW, ...), developed by LibRaw (rawpy, extra ``raw``)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from sr_upscale.errors import InputError
from sr_upscale.formatting import extra
from sr_upscale.images.codecs.codec import Header, InputFile
from sr_upscale.images.metadata import ORIENTATION, kept_exif
from sr_upscale.images.picture import Frame

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
