"""Files <-> pixels, with everything that belongs to a picture besides its pixels.

`load_image`, `save_image` and `save_rows` are the whole interface. `Picture` is what passes between them.

Two libraries share the work, chosen by measurement (docs/images.md). libvips reads and writes JPEG, PNG and TIFF, large
ones by rows. Pillow reads and writes the rest, animations and EXIF.

Names are imported when first used: `formats` alone needs neither library nor numpy, and `--help` stays quick.
It imports `functional` and `storage`. Every room from `data` on may import it.
"""

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sr_upscale.images.adapt import check_target
    from sr_upscale.images.decode import MAX_PIXELS, load_image, load_plain8
    from sr_upscale.images.encode import save_image, save_rows
    from sr_upscale.images.formats import FORMATS, Format, SaveOptions, format_of_path
    from sr_upscale.images.picture import AnyPixels, Frame, Metadata, Picture, RowSource, strips_of

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "AnyPixels",
    "Format",
    "Frame",
    "Metadata",
    "Picture",
    "RowSource",
    "SaveOptions",
    "check_target",
    "format_of_path",
    "load_image",
    "load_plain8",
    "save_image",
    "save_rows",
    "strips_of",
]

_HOMES = {
    "decode": ("MAX_PIXELS", "load_image", "load_plain8"),
    "adapt": ("check_target",),
    "encode": ("save_image", "save_rows"),
    "formats": ("FORMATS", "Format", "SaveOptions", "format_of_path"),
    "picture": ("AnyPixels", "Frame", "Metadata", "Picture", "RowSource", "strips_of"),
}


os.environ.setdefault("VIPS_WARNING", "0")  # libvips then prints none at the end, when pyvips listens no more
for _library in ("PIL", "pyvips"):  # without a handler Python prints their warnings beside our one line
    logging.getLogger(_library).addHandler(logging.NullHandler())


if not TYPE_CHECKING:  # a checker would take any name for one that is there

    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"sr_upscale.images.{home}"), name)
        msg = f"module 'sr_upscale.images' has no attribute {name!r}"
        raise AttributeError(msg)
