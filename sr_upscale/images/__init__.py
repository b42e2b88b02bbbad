"""Files <-> pixels, with everything that belongs to a picture besides its pixels.

`load_image` and `save_image` are the whole interface; `Picture` is what passes between them. Two libraries
share the work, chosen by measurement (docs/images.md): libvips reads JPEG, PNG and TIFF and writes 16-bit
files; Pillow reads and writes the rest, animations and EXIF.
"""

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
