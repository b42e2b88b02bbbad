"""Files <-> pixels, with everything that belongs to a picture besides its pixels.

`load_image` and `save_image` are the whole interface; `Picture` is what passes between them. Two libraries
share the work, chosen by measurement (docs/images.md): libvips reads JPEG, PNG and TIFF and writes 16-bit
files; Pillow reads and writes the rest, animations and EXIF. Names are imported when first used: `formats` alone needs
neither library nor numpy, and `--help` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sr_upscale.images.decode import MAX_PIXELS, load_image
    from sr_upscale.images.encode import SaveOptions, check_target, save_image
    from sr_upscale.images.formats import FORMATS, Format, format_of_path
    from sr_upscale.images.picture import Frame, Metadata, Picture

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "Format",
    "Frame",
    "Metadata",
    "Picture",
    "SaveOptions",
    "check_target",
    "format_of_path",
    "load_image",
    "save_image",
]

_HOMES = {
    "decode": ("MAX_PIXELS", "load_image"),
    "encode": ("SaveOptions", "check_target", "save_image"),
    "formats": ("FORMATS", "Format", "format_of_path"),
    "picture": ("Frame", "Metadata", "Picture"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"sr_upscale.images.{home}"), name)
    msg = f"module 'sr_upscale.images' has no attribute {name!r}"
    raise AttributeError(msg)
